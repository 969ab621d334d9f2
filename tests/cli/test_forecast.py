"""`qeval plan --gpu`: time, disk and money, and what makes no sense."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny_models import save_model

from qeval.base.messages import Expected, Progress, Todo
from qeval.cli import forecast, memory
from qeval.cli.main import main
from qeval.cli.progress import Total, sentence
from qeval.score.counting import Asked, Forecast, Told

GIB = 2**30
PHASES = {"imports": 15.0, "loading": 5.0, "scoring": 3580.0}


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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Asked]:
    """What the process that counts is asked, which answers without counting."""
    monkeypatch.setattr(memory, "gpu_here", lambda: 8 * GIB)
    monkeypatch.setattr("qeval.load.memory.host_bytes", lambda: 64 * GIB)
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "cache"))
    found: list[Asked] = []

    def counted(jobs, gpu, most):
        found.append(Asked(jobs, gpu, most))
        forecasts = (Forecast(job.variant.name, PHASES, {"a": 3580.0}, 10, 40, {}) for job in jobs)
        return Told(tuple(forecasts), "as a test says")

    monkeypatch.setattr(forecast, "_counted", counted)
    return found


def plan(*words: object) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, words)])


def test_time_disk_and_money_of_each_variant(model: Path, asked: list[Asked]) -> None:
    words = ("--tasks", "arc_challenge", "--model", model, "--schemes", "fp16,gptq", "--limit", "9")
    done = plan(*words, "--gpu", "A100", "--price-per-hour", "3")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if line.startswith(("fp16 ", "gptq ", "all "))]
    rows = [re.split(r"  +", line.strip()) for line in lines[-3:]]
    assert rows == [
        ["fp16", "60 min", "60 min", "20 s", "24.2 GiB", "3.00"],
        ["gptq", "60 min", "60 min", "20 s", "31.0 GiB", "3.00"],
        ["all", "2 h 0 min", "6.00"],
    ]
    assert "312 TFLOP/s, NVIDIA A100 data sheet" in done.stdout
    (one,) = asked
    assert (one.gpu, one.memory, [job.settings.limit for job in one.jobs]) == ("a100", 80 * GIB, [9, 9])
    assert all(job.verify == 0 for job in one.jobs)
    assert "resident" in done.stdout  # by the memory of the GPU that is named, not of the one here


def test_the_same_for_a_program(model: Path, asked: list[Asked]) -> None:
    done = plan("--model", model, "--schemes", "fp16", "--gpu", "h100", "--json")
    told = json.loads(done.stdout)["time"]
    assert (told["gpu"], told["rate"], told["price"]) == ("h100", "as a test says", None)
    (variant,) = told["variants"]
    assert variant["phases"] == PHASES
    assert (variant["disk"], variant["fed"], variant["tokens"]) == (26 * 10**9, 10, 40)
    assert asked[0].jobs[0].verify == 8  # as leaderboard-v1 says
    assert "time" not in json.loads(plan("--model", model, "--schemes", "fp16", "--json").stdout)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--gpu", "h1000"), 2, "No figures are known for a GPU 'h1000'. Did you mean 'h100'?"),
        (("--gpu", "voodoo"), 2, "No figures are known for a GPU 'voodoo'. Known: a10, "),
        (("--gpu", "h100", "--price-per-hour", "-2"), 2, "An hour costs -2?"),
        (("--gpu", "h100", "--price-per-hour", "nan"), 2, "An hour costs nan?"),
        (("--price-per-hour", "2"), 2, "There is no time to price. Add --gpu"),
        (("--gpu", "t4", "--schemes", "fp16", "--placement", "resident"), 0, ""),
        (
            ("--gpu", "t4", "--schemes", "hqq,fp16", "--gpu-memory", "1GiB"),
            1,
            "of GPU memory, and there are 1",
        ),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_counted(
    model: Path, asked: list[Asked], words: tuple[str, ...], code: int, told: str
) -> None:
    done = plan("--model", model, *(words if "--schemes" in words else (*words, "--schemes", "fp16")))
    assert done.exit_code == code, done.output
    assert told in " ".join(done.stderr.split())
    assert not asked or code == 0


def test_time_needs_a_model() -> None:
    assert "Add --model" in plan("--gpu", "h100").stderr
    assert "The toy takes too little time" in plan("--gpu", "h100", "--model", "toy").stderr


@pytest.mark.slow
def test_the_command_itself_imports_nothing_heavy(model: Path) -> None:
    code = f"""
import sys
import time
from click.testing import CliRunner
from qeval.cli import forecast
from qeval.cli.main import main
from qeval.score.counting import Forecast, Told
one = lambda job: Forecast(job.variant.name, {{}}, {{}}, 0, 0, {{}})
forecast._counted = lambda jobs, *_: Told(tuple(map(one, jobs)))
done = CliRunner().invoke(main, ["plan", "--model", {str(model)!r}, "--schemes", "fp16", "--gpu", "h100"])
print(done.exit_code, sorted({{"torch", "lm_eval", "transformers", "datasets"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_a_process_that_dies_is_told_of(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "gpu_here", lambda: None)
    monkeypatch.setattr(forecast, "_WORKER", (sys.executable, "-c", "raise MemoryError('no room')"))
    done = plan("--model", model, "--schemes", "fp16", "--gpu", "h100", "--tasks", "qeval_facts")
    assert done.exit_code == 1
    assert "Tokens could not be counted: MemoryError: no room" in done.stderr


# --- a run's own


def test_time_left_begins_with_the_prediction_and_goes_over_to_the_pace() -> None:
    now = [0.0]
    total = Total(2, lambda: now[0])
    total.hear("fp16", Todo((("a", 100),), 0))
    total.hear("fp16", Expected({"loading": 10.0, "scoring": 90.0}))
    assert total.left() == 200.0  # the second is taken to be as long
    now[0] = 10.0
    assert total.left_of("fp16") == 90.0
    total.hear("fp16", Progress("a", 0))
    now[0] = 20.0
    total.hear("fp16", Progress("a", 5))  # at half the speed that was predicted
    early = total.left_of("fp16")
    now[0] = 60.0
    total.hear("fp16", Progress("a", 25))
    assert early is not None
    assert 90.0 < early < 190.0
    assert total.left_of("fp16") == 150.0


def test_requests_count_by_what_their_task_takes() -> None:
    now = [0.0]
    total = Total(1, lambda: now[0])
    total.hear("fp16", Todo((("long", 20), ("short", 80)), 0))
    total.hear("fp16", Expected({"scoring": 100.0}, "", {"long": 90.0, "short": 10.0}))
    total.hear("fp16", Progress("long", 0))
    now[0] = 90.0
    total.hear("fp16", Progress("long", 20))
    assert total.left() == pytest.approx(10.0)
    now[0] = 95.0
    total.hear("fp16", Progress("short", 60))
    assert total.left() == pytest.approx(5.0)


def test_one_variant_tells_its_time_left_too() -> None:
    total = Total(1, lambda: 0.0)
    total.hear("fp16", Todo((("a", 100),), 0))
    total.hear("fp16", Expected({"scoring": 600.0}))
    assert total.text() == "all 1  0 %  elapsed 0:00  about 10 min left"
    assert total.time_of("fp16") == (0.0, 600.0)


def test_time_left_counts_fidelity_until_its_variant_is_over() -> None:
    now = [0.0]
    total = Total(1, lambda: now[0])
    total.hear("fp16", Todo((("a", 100),), 0))
    total.hear("fp16", Expected({"loading": 10.0, "scoring": 100.0, "fidelity": 50.0}))
    assert total.left() == 160
    now[0] = 10.0
    total.hear("fp16", Progress("a", 0))
    now[0] = 110.0  # half is answered: twice as slow as predicted, and fidelity will be too
    total.hear("fp16", Progress("a", 50))
    assert total.left() == 200
    now[0] = 210.0
    total.hear("fp16", Progress("a", 100))
    assert total.left() == 100
    now[0] = 250.0
    assert total.left() == 60  # the pace of its scoring is over


def test_the_prediction_in_words() -> None:
    told = Expected({"loading": 3.0, "scoring": 6000.0, "storing": 0.2}, "measured on an H100")
    assert sentence(told) == "about 1 h 40 min to go: scoring 1 h 40 min, loading 3 s (measured on an H100)"
    assert sentence(Expected({"scoring": 0.4})) == ""


@pytest.mark.slow
@pytest.mark.torch
def test_plan_and_run_agree_with_what_comes(tmp_path: Path) -> None:
    """Tokens exactly; seconds of a tiny model only by their order, and those that a processor spent, as on a
    machine that does nothing else: what others take from it may change between the two."""
    llama, runs = save_model(tmp_path / "llama"), tmp_path / "runs"
    words = ["--model", str(llama), "--schemes", "fp32", "--tasks", "qeval_facts", "--limit", "8"]
    alone = "from qeval.score import counting, probe; probe.free_share = lambda _: 1.0; counting.main()"
    code = f"""import sys
from qeval.cli import forecast
from qeval.cli.main import main
forecast._WORKER = (sys.executable, "-c", {alone!r})
main()"""
    told = subprocess.run(
        [sys.executable, "-c", code, "plan", *words, "--gpu", "here", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (predicted,) = json.loads(told.stdout)["time"]["variants"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "qeval", "run", *words, "--device", "cpu", "--runs-dir", str(runs)],
        capture_output=True,
        text=True,
        check=True,
    )
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "to go: " in done.stderr
    (result,) = json.loads(next(runs.glob("*/run.json")).read_text())["results"]
    assert predicted["fed"] == sum(cell["tokens"] for cell in result["cells"])
    assert 0.1 < predicted["seconds"] / spent < 10
    assert 0 < sum(result["seconds"].values()) < wall + 0.1  # each is rounded
