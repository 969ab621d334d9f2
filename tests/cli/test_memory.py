"""`qeval plan --model`: where variants would lie, and what fits nowhere, before anything is loaded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from qeval.ask import placing
from qeval.ask.order import Order
from qeval.base.errors import QevalError
from qeval.cli import memory
from qeval.cli.main import main
from qeval.run import gpus, runner
from qeval.run.seats import Seats

GIB = 2**30


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a model of 13 billion weights in float16, which take no room on the disk."""
    place = tmp_path / "large"
    place.mkdir()
    with (place / "model.safetensors").open("wb") as file:
        file.truncate(26 * 10**9)
    shape = {"hidden_size": 5120, "num_hidden_layers": 40, "vocab_size": 32000, "dtype": "float16"}
    (place / "config.json").write_text(json.dumps(shape))
    return place


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "gpu_here", lambda: None)
    monkeypatch.setattr("qeval.load.memory.host_bytes", lambda: 64 * GIB)
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "cache"))


def plan(*words: object) -> Result:
    return CliRunner().invoke(main, ["plan", "--tasks", "arc_challenge", *map(str, words)])


def test_a_plan_tells_where_each_variant_would_lie(model: Path) -> None:
    done = plan("--model", model, "--schemes", "fp16,bnb4", "--gpu-memory", "24GiB")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("fp16 ", "bnb4 "))]
    assert [(row[0], row[-1]) for row in rows] == [("fp16", "streamed"), ("bnb4", "streamed")]
    assert "fp16: The weights, 24.2 GiB unpacked, do not fit into 24.0 GiB of GPU memory" in done.stdout


def test_the_same_for_a_program(model: Path) -> None:
    done = plan("--model", model, "--schemes", "fp16,bnb8", "--gpu-memory", "24GiB", "--json")
    first, second = json.loads(done.stdout)["memory"]
    assert first["variant"] == "fp16"
    assert (first["weights"], first["placement"]) == (26 * 10**9, "streamed")
    assert first["on_device"] < 4 * GIB < first["in_host"]
    assert (second["placement"], second["in_host"], second["sentence"]) == ("resident", 0, "")
    assert "memory" not in json.loads(plan("--json").stdout)


@pytest.mark.parametrize(
    ("shape", "weights", "words", "measured"),
    [
        ((4096, 11008, 32, 32000), 6_738_415_616, ("80GiB",), 14.1),
        ((5120, 13824, 40, 32000), 13_015_864_320, ("80GiB",), 26.29),
        ((5120, 13824, 40, 32000), 13_015_864_320, ("24GiB",), 4.41),  # streamed
        ((8192, 28672, 80, 49152), 69_257_666_560, ("143771MiB", "--gpus-per-variant", "2"), 68.9),
    ],
)
def test_what_scoring_takes_beside_the_weights_is_what_was_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    weights: int,
    words: tuple[str, ...],
    measured: float,
) -> None:
    """The peaks of benchmarks/RESULTS.md in GiB: a plan says as much, and at most a fiftieth more."""
    monkeypatch.setattr("qeval.load.memory.host_bytes", lambda: 512 * GIB)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 * weights)
    (tmp_path / "config.json").write_text(
        json.dumps({**dict(zip(names, shape, strict=True)), "dtype": "float16"})
    )
    done = plan("--model", tmp_path, "--schemes", "fp16", "--json", "--gpu-memory", *words)
    (told,) = json.loads(done.stdout)["memory"]
    assert measured <= told["scoring"] / GIB <= 1.02 * measured
    assert told["on_device"] < told["scoring"]


def test_a_slice_of_logits_counts_where_it_is_more_than_a_layer(model: Path) -> None:
    small = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100_000, "dtype": "float16"}
    (model / "config.json").write_text(json.dumps(small))
    words = ("--model", model, "--schemes", "fp16", "--gpu-memory", "80GiB")
    (told,) = json.loads(plan(*words, "--json").stdout)["memory"]
    assert GIB < told["scoring"] - told["on_device"] < 1.01 * GIB
    assert "while scoring" in plan(*words).stdout
    assert "Weights count in the type that is calculated in" in plan(*words).stdout


def test_without_a_gpu_nothing_is_said_of_one(model: Path) -> None:
    (told,) = json.loads(plan("--model", model, "--schemes", "bf16", "--json").stdout)["memory"]
    assert told["scoring"] is None


@pytest.mark.parametrize(("words", "wish"), [(("--placement", "streamed"), "streamed"), ((), "resident")])
def test_a_wish_and_a_large_gpu(model: Path, words: tuple[str, ...], wish: str) -> None:
    done = plan("--model", model, "--schemes", "fp16", "--gpu-memory", "80GiB", "--json", *words)
    assert json.loads(done.stdout)["memory"][0]["placement"] == wish


def test_what_fits_nowhere_ends_in_an_error_that_says_what_would(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qeval.load.memory.host_bytes", lambda: 16 * GIB)
    done = plan("--model", model, "--schemes", "fp16", "--gpu-memory", "24GiB")
    assert done.exit_code == 1
    assert "of host memory, and there are 16.0 GiB" in done.stderr
    assert "these would fit: bnb4" in done.stderr
    assert plan("--model", model, "--schemes", "bnb4", "--gpu-memory", "24GiB").exit_code == 0
    assert plan("--model", model, "--schemes", "fp16", "--gpu-memory", "1GiB").exit_code == 1
    cpu = plan("--model", model, "--schemes", "fp32")
    assert cpu.exit_code == 1
    assert "GiB of memory, and there are 16.0 GiB" in cpu.stderr


def test_words_that_make_no_sense(model: Path) -> None:
    assert plan("--gpu-memory", "24GiB").exit_code == 2
    assert plan("--placement", "streamed").exit_code == 2
    for amount in ("24", "0GiB", "GiB", "24 Gi", "-1GiB"):
        done = plan("--model", model, "--gpu-memory", amount)
        assert done.exit_code == 2, amount
        assert "24GiB" in done.stderr
    wide = plan("--model", model, "--schemes", "hqq", "--placement", "streamed", "--gpu-memory", "24GiB")
    assert wide.exit_code == 1
    assert "hqq cannot be streamed" in wide.stderr


@pytest.mark.parametrize(
    ("amount", "size"),
    [("24GiB", 24 * GIB), ("24gb", 24 * 10**9), ("1.5 GiB", 3 * GIB // 2), ("512MiB", 2**29)],
)
def test_amounts_of_memory(model: Path, amount: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(memory, "needs", lambda **asked: seen.append(asked["gpu_memory"]) or [])
    plan("--model", model, "--gpu-memory", amount)
    assert seen == [size]


@pytest.mark.parametrize(
    ("told", "size"), [("81559\n81559\n", 81559 * 2**20), ("No devices\n", None), ("", None)]
)
def test_the_driver_tells_the_memory_of_the_first_gpu(
    monkeypatch: pytest.MonkeyPatch, told: str, size: int | None
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=told))
    assert memory.gpu_here() == size


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert memory.gpu_here() is None


def test_several_gpus_hold_a_part_of_each_variant(model: Path) -> None:
    words = ("--model", model, "--schemes", "fp16,bnb4", "--gpu-memory", "24GiB", "--gpus-per-variant")
    told = json.loads(plan(*words, 2, "--json").stdout)["memory"]
    assert [(row["placement"], row["in_host"]) for row in told] == [("2 GPUs", 0)] * 2
    assert all(13 * 10**9 < row["on_device"] < 14 * 10**9 for row in told)
    assert "The weights lie on 2 GPUs, a run of layers on each, as asked." in plan(*words, 2).stdout
    small = plan("--model", model, "--schemes", "fp16", "--gpu-memory", "8GiB", "--gpus-per-variant", 2)
    assert small.exit_code == 1
    assert "of each of 2 GPUs, and they have 8.00 GiB" in small.stderr
    both = plan(*words, 2, "--placement", "streamed")
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr
    assert plan("--gpus-per-variant", 2).exit_code == 2


@pytest.fixture
def large(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That model, where there are four cores and four GPUs of 24 GiB."""
    monkeypatch.setattr(placing, "cores", lambda: 4)
    monkeypatch.setattr(gpus, "visible", lambda: (gpus.Gpu("GPU-0", "H100", 24 * 1024),) * 4)
    monkeypatch.setattr(memory, "gpu_here", lambda: 24 * GIB)
    return model


def said_by_a_run(monkeypatch: pytest.MonkeyPatch, *words: object) -> Seats:
    """The workers that a run of these words would begin."""
    found: list[Seats] = []

    def execute(order: Order, _listen: object) -> None:
        found.append(runner._seated(order))
        raise QevalError("Enough is known.")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "execute", execute)
        CliRunner().invoke(main, ["run", "--tasks", "qeval_facts", *map(str, words)])
    return found[0]


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        (("--workers", "4"), 1),  # float32 on the CPU
        (("--devices", "all"), 2),
        (("--devices", "0,1,2", "--placement", "streamed"), 2),
    ],
)
def test_a_plan_says_of_workers_what_a_run_does(
    large: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], begun: int
) -> None:
    asked = ("--model", large, "--schemes", "fp16,bnb4", *words)
    said = said_by_a_run(monkeypatch, *asked)
    done = plan(*asked)
    assert done.exit_code == 0, done.output
    assert said.note
    assert f"\n\n{said.note}\n" in done.stdout
    found = json.loads(plan(*asked, "--json").stdout)
    assert found["workers"] == {"begun": len(said.all), "sentence": said.note}
    assert len(said.all) == begun


def test_a_plan_has_nothing_to_say_of_workers_that_fit(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (
        ("--workers", "1"),
        ("--devices", "0"),
        ("--devices", "all", "--gpus-per-variant", "2"),
        (),
    ):
        asked = ("--model", large, "--schemes", "fp16,bnb4", *words)
        done = plan(*asked)
        assert done.exit_code == 0, done.output
        assert "begun" not in done.stdout
        assert "begun" not in said_by_a_run(monkeypatch, *asked).note
    placed = json.loads(plan("--model", large, "--schemes", "fp16", "--workers", "1", "--json").stdout)
    assert placed["memory"][0]["placement"] == "resident"  # on the CPU, whatever GPUs there are


def test_gpus_that_nobody_named_need_not_work(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "visible", lambda: (gpus.Gpu("0", dead=True), gpus.Gpu("1", dead=True)))
    monkeypatch.setattr(gpus, "assigned", lambda: "CUDA_VISIBLE_DEVICES")
    assert plan("--model", large, "--schemes", "fp16").exit_code == 0
    named = plan("--model", large, "--schemes", "fp16", "--devices", "all")
    assert (named.exit_code, "Every GPU here is busy." in named.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "2"), "--workers is about variants of a model"),
        (("--devices", "all", "--model", "m", "--gpu", "h100"), "--gpu h100 is in another"),
        (("--devices", "0", "--workers", "2", "--model", "m"), "exclude each other"),
        (("--workers", "5", "--model", "m"), "more than the 4 cores here"),
        (("--workers", "2", "--gpus-per-variant", "2", "--model", "m"), "exclude each other"),
        (("--devices", "all", "--model", "toy"), "The toy does not use a GPU"),
    ],
)
def test_words_on_workers_that_make_no_sense(large: Path, words: tuple[str, ...], said: str) -> None:
    words = tuple(str(large) if word == "m" else word for word in words)
    done = plan(*words)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
