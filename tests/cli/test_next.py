"""What is printed to be typed next, or to make a run again, works as printed, wherever runs are kept."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from qeval.base import next_steps

RUN = ("run", "--model", "toy[items=40]", "--tasks", "qeval_facts")
VERDICTS = (0, 3, 4, 5)


def commands(text: str) -> list[list[str]]:
    """The lines of a text that begin with qeval, as words after that."""
    found = re.findall(r"^(?:Next: |\s*)(?:\$ )?(qeval .*)$", text, re.MULTILINE)
    return [shlex.split(line)[1:] for line in found]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["my runs", "plain"])
def test_every_next_and_reproduce_line_works(qeval, tmp_path, monkeypatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*RUN, "--schemes", "fp16,bnb4", "--runs-dir", folder]
    monkeypatch.setattr(sys, "argv", ["qeval", *words])
    told = commands(qeval(*words).stderr)
    assert [line[0] for line in told] == ["report", "gate"]
    for line in told:
        assert qeval(*line, code=None).exit_code in VERDICTS
    qeval("report", "--runs-dir", folder, "--baseline", "bnb4", "--margin", "2", "-o", "report.md")
    again = commands(Path("report.md").read_text("utf-8"))
    assert [line[0] for line in again] == ["run", "report", "gate"]
    where = ["--runs-dir", folder]
    assert again[1][2:] == [*where, "--baseline", "bnb4", "--margin", "2,x1.10", "-o", "report.html"]
    assert again[2][2:] == [*where, "--baseline", "bnb4", "--margin", "2,x1.10", "--max-drop", "1.0"]
    for line in again:
        (tmp_path / "report.html").unlink(missing_ok=True)
        assert qeval(*line, code=None).exit_code in VERDICTS, line
    assert len(list((tmp_path / folder).glob("*/run.json"))) == 1


def test_a_run_of_one_variant_is_not_sent_to_the_gate(qeval) -> None:
    told = commands(qeval(*RUN, "--schemes", "fp16").stderr)
    assert [line[0] for line in told] == ["report"]


def test_a_suite_with_a_policy_of_its_own_is_judged_by_it() -> None:
    assert next_steps.gate("a b", "leaderboard-v1") == "qeval gate 'a b' --policy leaderboard-v1"
    assert next_steps.gate("x", "demo") == "qeval gate x --max-drop 1.0"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("qeval", "run"), ()),
        (("qeval", "run", "--runs-dir", "a b", "-m", "toy"), ("--runs-dir", "a b")),
        (("qeval", "run", "--runs-dir=x"), ("--runs-dir=x",)),
    ],
)
def test_where_a_command_keeps_runs(command, words) -> None:
    assert next_steps.runs_dir_words(command) == words
