"""What the first mistakes of a newcomer are answered with: the command to correct, the file that is meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_run

from qeval.store.newest import mark
from qeval.store.runs import Store


@pytest.fixture
def kept(runs_dir: Path) -> str:
    """A whole run, and after it the mark of a command that was refused."""
    run, read, _ = make_run()
    place = Store(runs_dir).run_dir(run.id)
    whole = [
        replace(one, cells=tuple(place.add(cell, read(cell), ()) for cell in one.cells))
        for one in run.results
    ]
    place.write(replace(run, results=tuple(whole)))
    mark(runs_dir, "", "toy", "There is no suite 'quikc'.")
    return run.id


AGAIN = "Correct that command and run it again"


def test_after_a_refused_command_the_gate_asks_for_its_correction(qeval, kept: str) -> None:
    said = qeval("gate", "--max-drop", "1.0", code=5).stderr
    assert "of toy, did not get far enough to have results (There is no suite 'quikc')" in said
    assert f"{AGAIN}, or name a run ({kept} is the newest that has results)" in said


def test_the_runs_are_listed_with_the_refused_command_that_is_the_newest(qeval, kept: str) -> None:
    listed = qeval("list", "runs")
    assert kept in listed.stdout
    assert f"(There is no suite 'quikc'). {AGAIN}." in listed.stderr


def test_what_shows_says_why_the_older_run_may_be_shown_and_not_judged(qeval, kept: str, tmp_path) -> None:
    for words in (("show",), ("report", "-o", tmp_path / "r.md")):
        said = qeval(*words).stderr
        assert f"the newest that has results: {kept}" in said
        assert "It may be shown, not judged: for qeval gate, correct that command and run it again" in said


def test_a_run_that_was_interrupted_needs_no_correction(qeval, kept: str, runs_dir: Path) -> None:
    mark(runs_dir, "", "toy", "it was interrupted")
    said = qeval("gate", "--max-drop", "1.0", code=5).stderr
    assert f"Run it again, or name a run ({kept} is" in said
