"""Commands are killed at random moments; the same command then ends with the numbers of an undisturbed one,
and nothing is left over of those that were killed."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from killing import Killer, aged, hashes, strays
from tiny_models import WORDS, save_llama

pytestmark = pytest.mark.slow
TOY = ("run", "--model", "toy[items=400]", "--suite", "demo", "--schemes", "fp16,rtn")
DEMO = ("run", "--model", "demo", "--tasks", "qeval_facts,qeval_continuations", "--limit", "4")
NUMBERS = (".parquet", ".jsonl")
KILLS = int(os.environ.get("QEVAL_KILLS", "100"))
"""How many times the demo is killed."""


def disturbed(killer: Killer, kills: int, *words: str) -> int:
    """Kill a command so many times, beginning anew whenever it came to its end; how often it did.

    Each time it is held against the first run, which nobody disturbed.
    """
    seconds = killer.undisturbed(*words)
    whole, ends = hashes(killer.place, *NUMBERS), 0
    assert whole
    _wipe(killer.place)
    while killer.kills < kills:
        if not killer.once(seconds, *words):
            continue
        ends += 1
        _held_against(killer, whole, *words)
        print(f"{killer.kills} kills, {ends} runs came to their end", flush=True)  # noqa: T201 - takes long
    killer.undisturbed(*words)
    _held_against(killer, whole, *words)
    return ends + 1


def _held_against(killer: Killer, whole: dict[str, str], *words: str) -> None:
    assert hashes(killer.place, *NUMBERS) == whole
    if strays(killer.place, ".newest"):  # of the file that names the newest run, a minute later
        aged(killer.place)
        killer.undisturbed(*words)
    assert strays(killer.place, ".newest") == []
    _wipe(killer.place)


def _wipe(place: Path) -> None:
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def killer(tmp_path: Path) -> Killer:
    place = tmp_path / "runs"
    place.mkdir()
    return Killer(place, {"QEVAL_RUNS_DIR": str(place)})


def test_a_run_that_is_killed_is_finished_by_the_same_command(killer: Killer) -> None:
    disturbed(killer, 3, *TOY)


def test_so_is_one_of_two_workers(killer: Killer) -> None:
    killer.whom = ("command", "family", "worker")
    disturbed(killer, 3, *TOY, "--workers", "2")


def test_so_are_export_and_import(killer: Killer, tmp_path: Path) -> None:
    runs, out, again = killer.place, tmp_path / "out", tmp_path / "again"
    killer.undisturbed(*TOY)
    out.mkdir()
    again.mkdir()
    export = ("export", "--to", "lm-eval", "-o", str(out))
    exporting = Killer(out, {"QEVAL_RUNS_DIR": str(runs)}, seed=1)
    disturbed(exporting, 2, *export)
    exporting.undisturbed(*export)
    words = ("import", str(out), "--baseline", "toy[items=400][scheme=fp16]")
    disturbed(Killer(again, {"QEVAL_RUNS_DIR": str(again)}, seed=2), 2, *words)


@pytest.mark.rare
@pytest.mark.timeout(0)
@pytest.mark.torch
def test_so_is_the_demo_a_hundred_times(killer: Killer) -> None:
    killer.whom = ("command", "family", "family", "worker")
    assert disturbed(killer, KILLS, *DEMO, "--schemes", "fp16") > 1


@pytest.mark.rare
@pytest.mark.timeout(0)
@pytest.mark.torch
def test_so_are_two_workers_on_a_model(killer: Killer, tmp_path: Path) -> None:
    killer.whom = ("command", "family", "worker")
    words = (
        "run",
        "--model",
        str(save_llama(tmp_path / "llama")),
        "--tasks",
        "qeval_facts,qeval_continuations",
    )
    disturbed(killer, KILLS // 10, *words, "--schemes", "fp32,rtn", "--workers", "2", "--threads", "1")


@pytest.mark.rare
@pytest.mark.timeout(0)
@pytest.mark.torch
@pytest.mark.parametrize("scheme", ["gptq", "awq"])
def test_so_is_the_making_of_a_checkpoint(killer: Killer, tmp_path: Path, scheme: str) -> None:
    """What is left behind in the cache is no more than what an undisturbed command leaves there."""
    (tmp_path / "text.txt").write_text(" ".join(random.Random(0).choices(WORDS, k=400)))
    options = f"calibration={tmp_path / 'text.txt'},group_size=32,samples=4,length=32"
    model = save_llama(tmp_path / "llama")
    words = ("quantize", "--model", str(model), "--scheme", f"{scheme}[{options}]", "-o")
    killer.environment["QEVAL_CACHE_DIR"] = str(killer.place)
    seconds = killer.undisturbed(*words, str(killer.place / "out"))
    whole, files = hashes(killer.place, ".safetensors"), _names(killer.place)
    assert len(whole) > 1
    shipped = hashes(killer.place / "out", ".safetensors")
    assert shipped
    _wipe(killer.place)
    while killer.kills < KILLS // 10:
        killer.once(seconds, *words, str(killer.place / "out"))
        if (killer.place / "out").exists():  # what stands there is whole, and is made no second time
            assert hashes(killer.place / "out", ".safetensors") == shipped
            _wipe(killer.place)
    killer.undisturbed(*words, str(killer.place / "out"))
    assert hashes(killer.place, ".safetensors") == whole
    assert _names(killer.place) == files


def _names(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))
