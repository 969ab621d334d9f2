"""benchmarks/to_verdict.py: its phases, what it tells of all rows, and both tools on a tiny model."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_models import save_model

ROOT = Path(__file__).parents[1]
LINES = {
    "": "starting",
    "INFO Initializing hf model, with arguments: pretrained=m": "loading",
    "[api.task:434] Building contexts for facts on rank 0...": "building",
    "Generating test split: 40 examples": "building",  # not a phase between rows of one task
    "[evaluator.py:559] Running loglikelihood requests": "tokenising",
    "Running loglikelihood requests:   0%|          | 0/8": "scoring",
    "[Task: words] Running nothing that is known": "data sets",
    "Running loglikelihood requests: 100%|##########| 8/8": "end",
}
"""What lm-eval prints, and the phase after it."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("to_verdict")


def asked(script: ModuleType, building: float | None = None) -> Any:
    """Four times as many rows as qeval was given, of which lm-eval got a half."""
    amounts = (script.Amount(800, 8000, 6000, 2000), script.Amount(200, 2000, 1500, 500))
    few = script.Amount(100, 500, 250, 500)
    return script.Asked([{"task": "facts"}], {"facts": 100}, *amounts, few, building)


def test_lines_begin_phases(script: ModuleType) -> None:
    now = "starting"
    for line in list(LINES)[:6]:
        now = script._begins(line, now)
        assert now == LINES[line], line
    assert script._begins(list(LINES)[7], "scoring") == "end"
    assert script._begins(list(LINES)[6], "loading") == "data sets"
    assert script._begins(list(LINES)[5], "loading") == "loading"  # a bar of something else


def test_a_command_is_followed_by_its_lines_and_its_last_unended_one(
    script: ModuleType, tmp_path: Path
) -> None:
    said = "\n".join(list(LINES)[1:5]) + "\n\r" + list(LINES)[5]
    command = (sys.executable, "-IS", "-c", f"print({said!r}, end='', flush=True)")
    phases, cpu = script._followed(command, {}, tmp_path / "log")
    assert set(phases) == {"starting", "loading", "building", "tokenising", "scoring"}
    assert all(seconds >= 0 for seconds in phases.values())
    assert set(cpu) < set(phases)
    assert (tmp_path / "log").read_text().endswith(list(LINES)[5])
    with pytest.raises(SystemExit, match="no such model"):
        script._followed((sys.executable, "-IS", "-c", "print('no such model')"), {}, tmp_path / "log")


def test_qeval_tells_of_all_rows_by_the_tokens_that_its_tree_feeds(script: ModuleType) -> None:
    phases = {"imports": 3.0, "questions": 2.0, "scoring": 5.0}
    found = script.Measured("qeval", 10.0, phases, phases, 20.0, 20.0)
    script._extrapolate(found, asked(script))
    assert found.all_rows == {"imports": 3.0, "questions": 2.0, "scoring": 20.0}
    assert found.cpu_all_rows == 50.0  # 25 seconds where 10 were measured
    assert (found.seconds, found.phases, found.cpu) == (10.0, phases, 20.0)
    script._extrapolate(found, asked(script, building=6.0))
    assert found.all_rows == {"imports": 3.0, "questions": 6.0, "scoring": 20.0}
    script._extrapolate(found, asked(script, building=1.0))
    assert found.all_rows["questions"] == 2.0  # of fewer rows it cannot be less


def test_lm_eval_tells_of_all_rows_by_what_each_phase_is_spent_on(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def called(*asked: Any) -> Any:
        rows, size = asked[3:5]
        calls.append((rows["facts"], size))
        phases = {"loading": 4.0, "building": 1.0, "tokenising": 2.0, "scoring": 12.0 / int(size)}
        return phases, dict.fromkeys(phases, 1.0)

    monkeypatch.setattr(script, "_called", called)
    options = argparse.Namespace(batch_sizes="1,4,2")
    found = script._lm_eval("m", "fp16", asked(script), tmp_path, options)
    assert calls == [(1, "1"), (1, "4"), (1, "2"), (100, "4")]  # the fastest of one row each, then the rows
    assert "1: 12.0 s, 4: 3.0 s, 2: 6.0 s" in capsys.readouterr().out
    assert (found.name, found.seconds) == ("lm-eval fp16, batches of 4", 10.0)
    assert found.all_rows == {"loading": 4.0, "building": 8.0, "tokenising": 32.0, "scoring": 72.0}
    assert (found.cpu, found.cpu_all_rows) == (4.0, 1.0 + 8.0 + 16.0 + 24.0)


def test_what_is_told_sets_the_wholes_side_by_side(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "_machine", lambda: "a machine")
    qeval = script.Measured("qeval", 10.0, {"scoring": 10.0}, {"scoring": 20.0, "verdict": 5.0}, 8.0, 10.0)
    theirs = [
        script.Measured(f"lm-eval {name}", 30.0, {"end": 30.0}, {"end": 50.0}, 20.0, 40.0) for name in "ab"
    ]
    script._tell(qeval, theirs, asked(script), ["gptq"])
    told = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if "|" in line]
    assert ["scoring", "10.0", "0.0", "0.0", "20.0", "0.0", "0.0"] in rows
    assert ["**whole**", "10.0", "30.0", "30.0", "25.0", "50.0", "50.0"] in rows
    assert "The verdict comes 4.0 times sooner by qeval" in told
    assert "processor 8.0 times." in told
    assert "Left out, for lm-eval's command line cannot load them here: gptq." in told
    assert "theirs: 100 rows, 500 tokens, of which lm-eval feeds 250 and qeval 500" in told


def test_schemes_that_lm_eval_cannot_load_are_left_out(script: ModuleType) -> None:
    assert script._both_can(["fp16", "gptq", "bnb4", "hqq"]) == (["fp16", "bnb4"], ["gptq", "hqq"])
    named = [name for names in script.ROWS.values() for name in names]
    assert {phase for _, phase in script.MARKS} <= set(named)
    assert len(named) == len(set(named))


@pytest.mark.rare  # three processes that import everything
@pytest.mark.torch
def test_both_tools_on_a_tiny_model(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "few.toml"
    suite.write_text('name = "few"\n[[task]]\nname = "qeval_facts"\nmetric = "acc"\nnum_fewshot = 0\n')
    words = ["--model", str(save_model(tmp_path / "model")), "--datasets-dir", str(tmp_path)]
    words += ["--suite", str(suite), "--limit", "8", "--slice", "0.5", "--batch-sizes", "4"]
    kept = tmp_path / "kept.json"
    monkeypatch.setattr(sys, "argv", ["to_verdict", *words, "--work", str(tmp_path), "--json", str(kept)])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script.main()
    told, said = json.loads(kept.read_text()), capsys.readouterr().out
    assert (told["ours"]["rows"], told["theirs"]["rows"]) == (8, 4)
    assert told["whole"] == told["ours"]
    [theirs] = told["lm-eval"]
    assert {"starting", "loading", "building", "tokenising", "scoring", "end"} <= set(theirs["phases"])
    assert theirs["all_rows"]["building"] == pytest.approx(2 * theirs["phases"]["building"])
    assert theirs["all_rows"]["loading"] == theirs["phases"]["loading"]
    assert {"imports", "scoring", "verdict"} <= set(told["qeval"]["phases"])
    assert told["qeval"]["all_rows"] == told["qeval"]["phases"]  # all rows are those that were measured
    assert "times sooner by qeval" in said
