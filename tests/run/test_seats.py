"""Where workers sit: which GPUs are meant, what a worker's environment holds, and its threads."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import forked
import pytest

from qeval.ask import order as orders
from qeval.base.errors import Exit, QevalError, UsageError
from qeval.base.messages import Job
from qeval.base.packing import Packing
from qeval.base.records import Result, Run, Scheme, Suite, Task, Variant
from qeval.base.settings import Settings
from qeval.run import gpus, seats, workers

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"
LAUNCHED = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`machine(rows, at_work=())`: a driver that lists (name, MiB, MiB taken) of each GPU."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)

    def make(rows, at_work=()) -> None:
        listed = [f"{n}, GPU-{n}{n}{n}, {name}, {of}, {taken}" for n, (name, of, taken) in enumerate(rows)]
        busy = "\n".join(f"GPU-{n}{n}{n}" for n in at_work)
        text = "\n".join(listed)
        file = tmp_path / "bin" / "nvidia-smi"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\ncase $1 in *compute-apps*) echo '{busy}';; *) echo '{text}';; esac\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")

    return make


def an_order(**changes: object) -> orders.Order:
    base = orders.Order(
        (Variant("v", "some/model", Scheme("fp16")),),
        "v",
        Suite("s", (Task("t", "acc"),)),
        Settings(),
        Path("runs"),
        Path("cache"),
    )
    return replace(base, **changes)


def words_of(found: seats.Seats) -> list[str | None]:
    return [seat.environment.get("CUDA_VISIBLE_DEVICES") for seat in found.all]


def test_without_a_driver_there_is_one_worker_as_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seats.seats(an_order()) == seats.ALONE
    for asked in ("all", "0"):
        with pytest.raises(UsageError, match="No GPU is found"):
            seats.seats(an_order(devices=asked))


def test_two_idle_gpus_are_offered_and_one_is_used(machine) -> None:
    machine([(H100, 81559, 4), (H100, 81559, 4)])
    found = seats.seats(an_order())
    assert found.all == seats.ALONE.all
    assert found.note == "2 GPUs stand idle here, and one is used; --devices all takes them."
    machine([(H100, 81559, 4), (H100, 81559, 40000)])
    assert seats.seats(an_order()) == seats.ALONE


def test_all_means_the_idle_ones_that_are_alike(machine) -> None:
    machine([(H100, 81559, 4), (H100, 81559, 60000), (H100, 81559, 4), (A100, 40960, 4)], at_work=[2])
    found = seats.seats(an_order(devices="all"))
    assert words_of(found) == ["GPU-000"]
    assert found.note == "Left alone: 2 busy, 1 of another kind."
    assert found.all[0].device == "cuda:0"
    machine([(H100, 81559, 70000)])
    with pytest.raises(QevalError, match="Every GPU here is busy") as refused:
        seats.seats(an_order(devices="all"))
    assert refused.value.exit_code is Exit.ERROR


def test_numbers_mean_the_gpus_that_are_seen(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([(H100, 81559, 4)] * 4)
    assert words_of(seats.seats(an_order(devices="0,3"))) == ["GPU-000", "GPU-333"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert words_of(seats.seats(an_order(devices="1"))) == ["3"]
    with pytest.raises(UsageError, match="There is no GPU 2 here") as refused:
        seats.seats(an_order(devices="0,2"))
    assert refused.value.hint == "There are: 0, 1."


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("0,x", "not a list of numbers"),
        ("", "not a list of numbers"),
        ("0,0", "names a GPU twice"),
        ("0,1", "different"),
    ],
)
def test_words_that_name_no_gpus_are_refused(machine, asked: str, says: str) -> None:
    machine([(H100, 81559, 4), (A100, 40960, 4)])
    with pytest.raises(UsageError, match=says) as refused:
        seats.seats(an_order(devices=asked))
    assert refused.value.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1,3"}, ["1", "3"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-11,GPU-333"}, ["GPU-11", "GPU-333"]),
        ({"CUDA_VISIBLE_DEVICES": "7,1"}, ["1"]),
        ({"CUDA_VISIBLE_DEVICES": "7,1,2"}, ["1", "2"]),
        ({"CUDA_VISIBLE_DEVICES": "2"}, [None]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [None]),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, [None]),
        ({"SLURM_JOB_GPUS": "0,2"}, ["0", "2"]),
        ({"SLURM_JOB_GPUS": "4,5,6,7"}, ["GPU-000", "GPU-111", "GPU-222", "GPU-333"]),  # numbered anew
    ],
)
def test_what_was_set_for_the_command_is_used_unasked(
    machine, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: list[str | None]
) -> None:
    machine([(H100, 81559, 4)] * 4)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = seats.seats(an_order())
    assert words_of(found) == words
    assert ("Left alone: 1 dead." in found.note) == ("7" in str(environment) and "4" not in str(environment))
    if len(found.all) > 1:
        assert f"{len(words)} GPUs are at work, for {next(iter(environment))} is set" in found.note


def test_a_device_that_is_named_or_a_toy_or_only_costs_take_one_worker(machine, monkeypatch) -> None:
    machine([(H100, 81559, 4)] * 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert len(seats.seats(an_order()).all) == 2
    toy = (Variant("v", "toy", Scheme("fp16")),)
    for changes in (
        {"settings": Settings(device="cuda:1")},
        {"settings": Settings(device="cpu")},
        {"variants": toy},
        {"suite": Suite("cost", ())},
    ):
        assert seats.seats(an_order(**changes)) == seats.ALONE


def a_job(model: str = "some/model", **settings: object) -> Job:
    variant = Variant("v", model, Scheme("fp16"))
    return Job("runs", "r", variant, {}, {}, (), Settings(**settings), "", "", "log")


def test_each_worker_has_an_environment_and_a_device_of_its_own(
    machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine([(H100, 81559, 4)] * 2)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = seats.seats(an_order(devices="all")).all
    jobs = [seat.seated(a_job(), None) for seat in found]
    assert [job.settings.device for job in jobs] == ["cuda:0", "cuda:0"]
    assert [job.environment for job in jobs] == [{"CUDA_VISIBLE_DEVICES": f"GPU-{n}{n}{n}"} for n in range(2)]
    whole = workers.environment(jobs[1].environment)
    assert whole["CUDA_VISIBLE_DEVICES"] == "GPU-111"
    assert not set(LAUNCHED) & set(whole)
    assert whole["HF_TOKEN"] == "hf_secret"  # by the environment alone, never by the job
    assert found[0].seated(a_job("toy"), None).settings.device == "auto"


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "MKL_CBWR"])
def test_what_libraries_read_when_they_are_loaded_is_no_worker_forked_with(name: str) -> None:
    """A worker that was asked for with it ran without it, in the tests alone."""
    assert forked._early({name: "7", "OMP_NUM_THREADS": "2", "LANG": "C"}) == {name: "7"}


def test_threads_of_a_worker_wait_briefly_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert workers.environment({})["GOMP_SPINCOUNT"] == "2000"
    assert workers.environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in workers.environment({})


def test_workers_of_a_cpu_have_one_thread_each_unless_more_are_asked_for() -> None:
    found = seats.seats(an_order(workers=3, settings=Settings(device="cpu"))).all
    assert [seat.environment for seat in found] == [{"OMP_NUM_THREADS": "1"}] * 3
    [one] = seats.seats(an_order(workers=1, threads=2)).all
    assert one.environment == {"OMP_NUM_THREADS": "2"}


def a_run(threads: int) -> Run:
    packing = Packing("CPU AVX2", threads, 1, 1, 4)
    result = Result(Variant("v", "m", Scheme("fp16")), "partial", packing=packing)
    return Run("r", "now", "m", Suite("s", ()), "v", (result,))


@pytest.mark.parametrize(
    ("asked", "began_with", "takes"),
    [
        ({}, 0, None),
        ({"workers": 2}, 0, 1),
        ({"workers": 2}, 2, 2),  # as it began
        ({}, 1, 1),
        ({"threads": 2}, 1, 2),  # scored anew, as asked
        ({}, 64, None),  # more than there are
        ({"workers": 2}, 64, 1),
    ],
)
def test_a_run_keeps_the_threads_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, int], began_with: int, takes: int | None
) -> None:
    monkeypatch.setattr(seats, "cores", lambda: 4)
    order = an_order(**asked)
    assert seats.threads(order, a_run(began_with)) == takes
    assert seats.Seat().seated(a_job(), takes).threads == takes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--workers", "2", "--devices", "all"), "--devices and --workers exclude each other"),
        (("--device", "cuda:1", "--devices", "0"), "--devices and --device exclude each other"),
        (("--device", "cuda", "--workers", "2"), "--workers share the CPU"),
        (("--threads", "2"), "--threads applies to the CPU only"),
        (("--workers", "4096"), "4096 workers of 1 threads are more than the"),
        (("--devices", "all"), "The toy does not use a GPU"),
        (("--workers", "0"), "'0' is too small; it must be at least 1"),
    ],
)
def test_words_that_exclude_each_other_are_refused(qeval, words: tuple[str, ...], says: str) -> None:
    said = qeval("run", "--model", "toy[items=5]", "--schemes", "fp16", "--tasks", "arc_easy", *words, code=2)
    assert says in said.stderr


def test_a_gpu_that_the_driver_does_not_know_is_called_by_its_word(machine, monkeypatch) -> None:
    machine([(H100, 81559, 4)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234,MIG-5678")
    assert gpus.visible() == (gpus.Gpu("MIG-1234"), gpus.Gpu("MIG-5678"))
    assert words_of(seats.seats(an_order())) == ["MIG-1234", "MIG-5678"]


def test_gpus_of_a_variant_are_one_seat(machine) -> None:
    machine([(H100, 81559, 4)] * 5)
    found = seats.seats(an_order(settings=Settings(gpus=2)))
    assert words_of(found) == ["GPU-000,GPU-111", "GPU-222,GPU-333"]
    assert [seat.device for seat in found.all] == ["cuda:0"] * 2
    assert found.note == "1 of 5 GPUs stay idle: each variant takes 2."
    assert words_of(seats.seats(an_order(devices="3,1", settings=Settings(gpus=2)))) == ["GPU-333,GPU-111"]
    for asked in (None, "0,1"):
        with pytest.raises(UsageError, match="asks for more GPUs than") as refused:
            seats.seats(an_order(devices=asked, settings=Settings(gpus=6)))
        assert "streamed" in refused.value.hint


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"workers": 1}, "--gpus-per-variant and --workers exclude"),
        ({"device": "cuda:1"}, "--gpus-per-variant and --device exclude"),
        ({"placement": "streamed"}, "--gpus-per-variant and --placement streamed exclude"),
        ({"no_materialize": True}, "--gpus-per-variant and --no-materialize exclude"),
        ({"model": "toy", "schemes": "toy"}, "The toy does not use a GPU"),
    ],
)
def test_several_gpus_for_a_variant_exclude_what_says_otherwise(words, says: str) -> None:
    nothing = ("suite", "num_fewshot", "baseline", "limit", "revision", "adapter", "verify", "cost", "gate")
    usual = {"model": "demo", "schemes": "fp16", "tasks": "arc_easy", "again": False, "no_materialize": False}
    usual |= {"runs_dir": Path("runs"), "command": (), "datasets_dir": None, "gpus": 2}
    with pytest.raises(UsageError, match=says):
        orders.order(**(dict.fromkeys(nothing) | usual | words))
