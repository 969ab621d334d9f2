"""Which run is meant where none is named: the one that began, or was found finished, last."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from qeval.base.messages import REFUTED, Job
from qeval.base.records import Result
from qeval.run.executors import EXECUTORS
from qeval.run.workers import Listener
from qeval.store.lock import held

pytestmark = pytest.mark.slow

TASKS = ("--tasks", "arc_challenge:acc_norm")
GOOD = ("run", "--model", "toy[items=60]", "--schemes", "fp16,bnb4", *TASKS)
OTHER = ("run", "--model", "toy[items=50]", "--schemes", "fp16,bnb4", *TASKS)
GATE = ("gate", "--max-drop", "60")


def judged(result) -> str:
    """The id of the run that a gate judged."""
    return result.stdout.splitlines()[0].split("run ", 1)[1].split(" ")[0]


def test_a_run_that_is_found_finished_is_the_newest(qeval, runs_dir: Path) -> None:
    qeval(*GOOD)
    first = judged(qeval(*GATE))
    qeval(*OTHER)
    assert judged(qeval(*GATE)) != first
    again = qeval(*GOOD)
    assert "finished earlier" in again.stderr
    for place in runs_dir.glob("*/run.json"):
        os.utime(place)  # whatever their times say
    assert judged(qeval(*GATE)) == first
    assert f"qeval gate {runs_dir / first} --max-drop 1.0" in again.stderr


@pytest.mark.parametrize("words", [("--model", "toy[fail=fp16]"), ("--model", "toy[items=60,fail=bnb4]")])
def test_a_newest_run_that_broke_off_does_not_pass(qeval, words) -> None:
    qeval(*GOOD)
    good = judged(qeval(*GATE))
    qeval("run", *words, "--schemes", "fp16,bnb4", *TASKS, code=1)
    result = qeval(*GATE, code=5)
    assert judged(result) != good
    assert "MISSING: bnb4\n" in result.stdout


def test_an_older_run_is_not_taken_for_one_that_did_not_begin(qeval, tmp_path: Path) -> None:
    qeval(*GOOD)
    old = judged(qeval(*GATE))
    qeval("run", "--model", str(tmp_path / "nowhere"), "--schemes", "fp16,bnb4", *TASKS, code=None)
    said = qeval(*GATE, code=5).stderr
    assert "did not get far enough to have results" in said
    assert "qeval list runs" in said
    assert judged(qeval("gate", old, "--max-drop", "60")) == old
    qeval(*GOOD)
    assert judged(qeval(*GATE)) == old


@pytest.mark.parametrize(
    "words",
    [
        ("--model", "./nowhere", "--schemes", "fp16,bnb4", *TASKS),
        ("--model", "toy", "--schemes", "fp16,bnb4", *TASKS, "--batch-size", "many"),
        ("--model", "toy[fail=fp16]", "--schemes", "fp16", *TASKS),
    ],
)
def test_a_run_without_results_is_passed_over_aloud_and_never_judged_past(
    qeval, tmp_path: Path, words
) -> None:
    qeval(*GOOD)
    good = judged(qeval(*GATE))
    qeval("run", *words, code=None)
    for show in (
        ("show", "--json"),
        ("report", "-o", tmp_path / "r.md"),
        ("export", "--to", "csv", "-o", tmp_path),
    ):
        said = qeval(*show)
        assert said.stderr.startswith("Note: The newest run, ")
        assert f"This is the newest that has results: {good}, begun " in said.stderr
    assert json.loads(qeval("show", "--json").stdout)["run"]["id"] == good
    assert good in (tmp_path / "r.md").read_text()
    for judge in (GATE, ("report", "-o", tmp_path / "judged.md", "--max-drop", "60")):
        assert "PASS" not in qeval(*judge, code=None).stdout
    assert not (tmp_path / "judged.md").exists()
    assert judged(qeval("gate", good, "--max-drop", "60")) == good
    assert "Note:" not in qeval("show", good).stderr


def test_a_run_without_results_is_shown_where_there_is_no_other(qeval) -> None:
    qeval("run", "--model", "toy[fail=fp16]", "--schemes", "fp16", *TASKS, code=1)
    said = qeval("show")
    assert "Did not run" in said.stdout
    assert not said.stderr


def test_where_no_run_has_results_and_the_newest_did_not_begin_nothing_is_shown(qeval) -> None:
    qeval("run", "--model", "toy[fail=fp16]", "--schemes", "fp16", *TASKS, code=1)
    qeval("run", "--model", "toy", "--schemes", "fp16", "--tasks", "arc_esy", code=2)
    said = qeval("show", code=5).stderr
    assert "(There is no task 'arc_esy'); no older one has any." in said
    assert "judged" not in said


def test_what_is_not_to_name_a_model_does_not_name_the_one_that_did_not_begin(qeval, tmp_path: Path) -> None:
    qeval(*GOOD)
    qeval("run", "--model", tmp_path / "nowhere", "--schemes", "fp16,bnb4", *TASKS, code=1)
    for words in ((*GATE, "--redact"), ("report", "--redact", "-o", tmp_path / "r.md")):
        said = qeval(*words, code=None).stderr
        assert "The newest run did not get far enough to have results" in said
        assert "nowhere" not in said


def test_the_same_order_of_changed_files_says_that_it_is_scored_anew(qeval, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror" / "org" / "set"
    mirror.mkdir(parents=True)
    (mirror / "a.jsonl").write_text("1")
    words = (*GOOD, "--datasets-dir", tmp_path / "mirror")
    assert "scored anew" not in qeval(*words).stderr
    (mirror / "a.jsonl").write_text("2")
    said = qeval(*words).stderr
    assert "asked the same of other files" in said
    assert "finished earlier" not in said


@pytest.mark.parametrize("how", ["copied", "linked"])
def test_files_of_another_run_are_not_taken_for_those_of_this_one(qeval, runs_dir: Path, how: str) -> None:
    qeval(*GOOD)
    good = runs_dir / judged(qeval(*GATE))
    qeval(*OTHER)
    other = runs_dir / judged(qeval(*GATE))
    before = (good / "run.json").read_bytes()
    (other / "run.json").unlink()
    shutil.copytree(good / "cells", other / "cells", dirs_exist_ok=True)
    if how == "copied":
        shutil.copy(good / "run.json", other / "run.json")
    else:
        (other / "run.json").symlink_to(good / "run.json")
    found = json.loads(qeval(*OTHER, "--json").stdout)
    assert {cell["n"] for one in found["variants"] for cell in one["cells"]} == {50}
    assert (good / "run.json").read_bytes() == before


def test_numbers_that_were_refuted_do_not_pass_where_nobody_looks_again(
    qeval, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, said = EXECUTORS["local"], f"{REFUTED} for arc_challenge."

    def refuted(job: Job, listen: Listener) -> Result:
        if job.variant.name == "fp16":
            return score(job, listen)
        return Result(job.variant, "failed", error=said)

    with monkeypatch.context() as patch:
        patch.setitem(EXECUTORS, "local", refuted)
        qeval(*GOOD, "--verify", "2", code=1)
    assert said in qeval(*GOOD, code=1).stderr
    assert qeval(*GATE, code=None).exit_code != 0
    qeval(*GOOD, "--verify", "2")
    qeval(*GOOD)
    qeval(*GATE)


@pytest.mark.parametrize("damage", ["missing", "a directory", "a circle of links", "empty"])
def test_an_older_run_never_passes_for_a_newest_one_that_cannot_be_read(
    qeval, runs_dir: Path, damage
) -> None:
    older = ("run", "--model", "toy[items=30]", "--schemes", "fp16,rtn", "--tasks", "arc_easy")
    qeval(*older)
    qeval(*older, "--num-fewshot", "0", "--limit", "20")
    gate = ("gate", "--max-drop", "90", "--allow-identical", "--allow-limited")
    newest = (runs_dir / ".newest").read_text().strip()
    assert newest in qeval(*gate, code=None).stderr
    file = runs_dir / newest / "run.json"
    file.unlink()
    if damage == "a directory":
        file.mkdir()
    elif damage == "a circle of links":
        file.symlink_to(file)
    elif damage == "empty":
        file.touch()
    said = qeval(*gate, code=1)
    assert newest in said.stderr
    assert "PASS" not in said.stdout


def test_a_command_that_is_sent_away_leaves_the_run_the_newest(qeval, runs_dir: Path) -> None:
    """It asks for the run that another command is at work on: readers see that one as before."""
    qeval(*GOOD)
    first = judged(qeval(*GATE))
    with held(runs_dir / first):
        assert "at work on" in qeval(*GOOD, code=1).stderr
        assert judged(qeval(*GATE)) == first
    assert judged(qeval(*GATE)) == first


@pytest.mark.parametrize("how", ["a directory", "no text", "no name", "gone", "missing"])
def test_where_nothing_tells_which_run_is_the_newest_none_is_judged(qeval, runs_dir: Path, how) -> None:
    for words in (OTHER, GOOD):
        qeval(*words)
    good, file = judged(qeval(*GATE)), runs_dir / ".newest"
    file.unlink()
    if how == "a directory":
        file.mkdir()
    elif how != "missing":
        file.write_bytes({"no text": b"\xff\xfe", "no name": b"../x", "gone": b"x-1"}[how])
    for judge in (GATE, ("report", "-o", runs_dir / "r.md", "--max-drop", "60")):
        said = qeval(*judge, code=5).stderr
        assert "is not in" in said if how == "gone" else "nothing tells which" in said
        assert "Name a run; list them with: qeval list runs" in said
    assert how == "missing" or "Note: " in qeval("show").stderr
    assert good in qeval("list", "runs").stdout
    assert judged(qeval("gate", good, "--max-drop", "60")) == good


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--tpyo"),
        ("run", "--model", "toy", "--limit", "many"),
        ("run", "--model", "toy", "--limit", "1_0"),
        ("runn", "--model", "toy"),
        ("--verbos", "run", "--model", "toy"),
        ("import", "nowhere"),
        ("import", __file__),
        ("import", __file__, "--model", "x"),
        ("import", __file__, "--tpyo"),
    ],
)
def test_what_is_refused_before_any_command_begins_is_the_newest_too(qeval, words) -> None:
    qeval(*GOOD)
    good = judged(qeval(*GATE))
    qeval("run", "--dry-run", "--tpyo", code=2)
    qeval("gate", "--tpyo", code=2)
    qeval("run", "--help")
    assert judged(qeval(*GATE)) == good
    qeval(*words, code=None)
    said = qeval(*GATE, code=5).stderr
    refused = f"The last command was refused: qeval {' '.join(words)} (" if words[0] == "import" else ""
    assert (refused or "did not get far enough to have results (") in said
    assert "Correct that command and run it again, or name a run" in said
    assert f"({good} is the newest that has results)" in said
    qeval(*GOOD)
    assert judged(qeval(*GATE)) == good


def test_a_refusal_by_a_file_or_a_variable_is_remembered_where_it_says_that_runs_are_kept(
    qeval, tmp_path: Path, monkeypatch
) -> None:
    qeval(*GOOD)
    monkeypatch.setenv("QEVAL_RUN_SHEMES", "fp16")
    qeval(*GOOD, code=2)
    assert "'shemes' in the environment" in qeval(*GATE, code=5).stderr
    monkeypatch.delenv("QEVAL_RUN_SHEMES")
    qeval(*GOOD)
    other = tmp_path / "other"
    qeval(*OTHER, "--runs-dir", other)
    qeval("run", "--tpyo", f"--runs-dir={other}", code=2)
    qeval(*GATE, "--runs-dir", other, code=5)
    qeval(*GATE)
