"""Several workers on a real, tiny model: the same bytes, whoever scored what and whoever was killed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from forked import Nursery
from tiny_models import save_model

from qeval.ask import order as orders
from qeval.ask import placing
from qeval.base.messages import Event, Note, Progress
from qeval.base.records import Run, Variant
from qeval.run import pool, runner
from qeval.run.executors import local

pytestmark = [pytest.mark.slow, pytest.mark.torch]
TASKS = "qeval_facts:acc,qeval_continuations:acc_norm"
SLOW = Path(__file__).parents[1] / "helpers" / "slow_worker.py"
COMMAND = """
import signal
from qeval.cli.main import main
from qeval.run.executors import local
signal.signal(signal.SIGINT, signal.default_int_handler)
local.WORKER, local.prepare = {worker!r}, lambda _: None
main(prog_name="qeval")
"""
"""The command, with workers of another kind; it hears Ctrl-C even in a background job."""
WORDS = ("--engine", "plain", "--batch-size", "1", "--limit", "12")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@dataclass
class Scored:
    """What a run came to: its record, the bytes of its samples by key, and all that was said."""

    run: Run
    samples: dict[str, str]
    said: list[tuple[str, Event]] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        return [event.text for _, event in self.said if isinstance(event, Note)]


@pytest.fixture(scope="module")
def run(
    llama: Path, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Scored]]:
    """`run(place, workers=2)`: score two variants with so many workers, further ones as soon as they may."""

    def call(place: Path, workers: int, schemes: str = "fp32,rtn", listen=None, **asked) -> Scored:
        nothing = dict.fromkeys(("suite", "num_fewshot", "baseline", "revision", "adapter", "gate"))
        order = orders.order(
            model=str(llama),
            schemes=schemes,
            runs_dir=place,
            command=(),
            verify=0,
            cost=False,
            again=False,
            no_materialize=False,
            datasets_dir=None,
            engine="plain",
            batch_size="1",
            workers=workers,
            **{**nothing, "tasks": TASKS, "limit": 12, **asked},
        )
        said: list[tuple[str, Event]] = []

        def hear(variant: Variant, event: Event) -> None:
            said.append((variant.name, event))
            if listen is not None:
                listen(variant, event)

        found = runner.execute(order, hear)
        return Scored(found.read(), _samples(found.path), said)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "WORKER", nursery.command(str(SLOW)))
        patch.setattr(local, "prepare", lambda _: None)
        patch.setattr(placing, "cores", lambda: 8)
        patch.setenv("QEVAL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(pool.Crew, "wants_help", _at_once)
        yield call


@pytest.fixture(scope="module")
def whole(run: Callable[..., Scored], tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """What one worker gives that nobody disturbs."""
    found = run(tmp_path_factory.mktemp("whole"), 1)
    assert {result.status for result in found.run.results} == {"done"}
    assert len(found.samples) == 4
    return found


def _at_once(crew: pool.Crew, _: float) -> bool:
    lead = crew.lead
    return lead is not None and lead.first is not None and not crew.shared_out and len(crew.helpers) < 3


def _samples(place: Path) -> dict[str, str]:
    files = place.glob("cells/*/samples.parquet")
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _left_over(place: Path) -> list[str]:
    """What a run that is over should not hold."""
    return [str(file) for file in place.rglob("*") if "shards" in file.parts or file.name == ".lock"]


def test_one_and_four_workers_give_the_same_bytes(
    run, whole: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped = tmp_path / "helped"
    helped.mkdir()
    monkeypatch.setenv("QEVAL_TEST_HELPERS", str(helped))
    four = run(tmp_path / "four", 4)
    assert whole.samples == four.samples
    assert whole.run.id == four.run.id
    assert {result.packing.threads for result in four.run.results} == {1}
    assert {file.name for file in helped.iterdir()} == {"fp32", "rtn"}
    logs = {file.name for file in (tmp_path / "four").glob("*/logs/*")}
    assert {"fp32.log", "rtn.log"} < logs
    assert _left_over(tmp_path / "four") == []


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(
    run, whole: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = tmp_path / "kills"
    kills.mkdir()
    (kills / "16").write_text("1")  # the fifth shard
    monkeypatch.setenv("QEVAL_TEST_KILLS", str(kills))
    found = run(tmp_path / "killed", 2)
    assert (kills / "16").read_text() == "0"
    assert found.samples == whole.samples
    assert {result.status for result in found.run.results} == {"done"}
    assert any("was killed" in note for note in found.notes)


def test_a_shard_that_kills_three_workers_is_named_and_the_rest_is_finished(
    run, whole: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = tmp_path / "kills"
    kills.mkdir()
    (kills / "16").write_text("9")
    monkeypatch.setenv("QEVAL_TEST_KILLS", str(kills))
    found = run(tmp_path / "killed", 2, schemes="fp32")
    [result] = found.run.results
    assert (kills / "16").read_text() == "6"
    assert result.status == "failed"
    assert "3 workers died of the same shard" in str(result.error)
    assert re.search(r"items of qeval_continuations \d+ to \d+\)", str(result.error))
    assert {cell.task.name for cell in result.cells} == {"qeval_facts"}
    (kills / "16").unlink()
    again = run(tmp_path / "killed", 1, schemes="fp32")
    assert again.run.results[0].status == "done"
    assert again.samples.items() <= whole.samples.items()


@pytest.mark.parametrize(("first", "then"), [(1, 3), pytest.param(2, 1, marks=pytest.mark.rare)])
def test_a_run_goes_on_with_another_number_of_workers(
    run, whole: Scored, tmp_path: Path, first: int, then: int
) -> None:

    def stop(_: Variant, event: Event) -> None:
        if isinstance(event, Progress) and event.done > 20:
            raise KeyboardInterrupt

    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", first, listen=stop)
    left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, 60)[1]
    assert left == [], "what was started is still at work"
    found = run(tmp_path / "stopped", then)
    assert found.samples == whole.samples
    assert {result.packing.threads for result in found.run.results} == {1}
    assert _left_over(tmp_path / "stopped") == []


def test_an_early_stop_comes_at_the_same_item_with_any_number_of_workers(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[[rule]]\nmax_flips = 0.01\n")
    asked = {"gate": gate, "schemes": "fp32,rtn[bits=2]", "tasks": "qeval_facts:acc", "limit": None}
    one = run(tmp_path / "one", 1, **asked)
    helped = tmp_path / "helped"
    helped.mkdir()
    monkeypatch.setenv("QEVAL_TEST_HELPERS", str(helped))
    three = run(tmp_path / "three", 3, **asked)
    assert len(list(helped.iterdir())) == 2
    assert [result.status for result in one.run.results] == ["done", "stopped"]
    assert one.run.results[1].stop.items < 120
    assert [result.stop for result in three.run.results] == [result.stop for result in one.run.results]
    assert three.samples == one.samples
    assert _left_over(tmp_path / "three") == []


def test_a_variant_that_fails_does_no_harm_to_the_others(run, whole: Scored, tmp_path: Path) -> None:
    found = run(tmp_path / "failed", 2, schemes="fp32,bad=gptq@/nowhere/at/all,rtn")
    status = {result.variant.name: result.status for result in found.run.results}
    assert status == {"fp32": "done", "bad": "failed", "rtn": "done"}
    assert found.samples == whole.samples


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_leaves_no_process(
    llama: Path, nursery: Nursery, tmp_path: Path, how: int, code: int
) -> None:
    words = (
        "run",
        "--model",
        str(llama),
        "--schemes",
        "fp32,rtn",
        "--tasks",
        TASKS,
        *WORDS[:-2],  # all items, lest it be done before it is stopped
        "--device",
        "cpu",
    )
    there = {"QEVAL_RUNS_DIR": str(tmp_path / "runs"), "QEVAL_CACHE_DIR": str(tmp_path / "cache")}
    script = COMMAND.format(worker=nursery.command(str(SLOW)))
    command = subprocess.Popen(
        (sys.executable, "-c", script, *words, "--workers", str(min(2, placing.cores()))),
        env={**os.environ, **there, "QEVAL_TEST_SECONDS": "0.5"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stderr is not None
    for line in command.stderr:
        if "loading the weights" in line:
            break
    begun = psutil.Process(command.pid).children(recursive=True)
    assert begun
    start = time.monotonic()
    command.send_signal(how)
    assert "Stopped. What is finished is kept" in command.stderr.read()
    command.stderr.close()
    assert command.wait(120) == code
    assert time.monotonic() - start < 60
    assert psutil.wait_procs(begun, 120)[1] == []
    assert not list((tmp_path / "runs").rglob(".lock"))


def test_gpus_that_are_gone_are_told_of_and_no_cpu_takes_their_place(
    llama: Path, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\nprintf '0, GPU-0, H100, 81559, 4\\n1, GPU-1, H100, 81559, 4\\n'\n")
    driver.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    there = {"QEVAL_RUNS_DIR": str(tmp_path / "runs"), "QEVAL_CACHE_DIR": str(tmp_path / "cache")}
    path = f"{driver.parent}{os.pathsep}{os.environ['PATH']}"
    words = (
        "run",
        "--model",
        str(llama),
        "--schemes",
        "fp32,rtn",
        "--tasks",
        TASKS,
        *WORDS,
        "--devices",
        "all",
    )
    done = subprocess.run(
        (sys.executable, "-c", COMMAND.format(worker=nursery.command()), *words),
        env={**os.environ, **there, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Worker 1 is given up: There is no device 'cuda:0' here." in done.stderr
    assert "[rtn] FAILED. No device is left for it" in done.stderr
