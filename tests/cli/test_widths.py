"""Every command's output fits a terminal of 80 and of 120 columns, whatever it tells of."""

from __future__ import annotations

from pathlib import Path

import pytest

from qeval.base import layout

pytestmark = pytest.mark.slow
LONG = "gptq[bits=3,group_size=64,act_order=true]"
SCHEMES = {
    1: "fp16",
    3: f"fp16,bnb4,a-name-of-ones-own={LONG}",
    12: f"fp16,bnb4,{LONG},rtn,hqq,quanto,awq,bnb8,"
    + ",".join(f"a-quite-long-name-of-variant-{n}=rtn[bits={n}]" for n in (3, 5, 6, 7)),
}
TASKS = "arc_easy,piqa,qeval_facts,qeval_words,qeval_prose,mmlu_high_school_european_history"
COMMANDS = (
    ("show",),
    ("gate", "--max-drop", "1.0"),
    ("gate", "--max-drop", "60", "--verbose"),
    ("plan",),
    ("plan", "--from", "toy", "--max-drop", "5"),
    ("plan", "--model", "toy"),
    ("list", "runs"),
    ("list", "suites"),
    ("list", "schemes"),
    ("history",),
    ("history", "--max-drop", "1.0", "--task", "average"),
    ("cache",),
    ("doctor",),
    ("show", "no-such-run"),
    ("run", "--model", "toy", "--schemes", "fp17"),
)


def overflowing(text: str, width: int) -> list[str]:
    """The lines that are too long, but for those of one word, and those that are pasted."""
    commands = ("qeval ", "Next: ", "pip ")
    return [
        line
        for line in text.splitlines()
        if layout.columns_of(line) > width
        and len(line.split()) > 1
        and not line.lstrip().startswith(commands)
    ]


@pytest.mark.parametrize("variants", SCHEMES)
def test_every_command_fits(qeval, runs_dir: Path, monkeypatch, tmp_path: Path, variants: int) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("run", "--model", "toy[items=25]", "--schemes", SCHEMES[variants], "--tasks", TASKS)
    monkeypatch.setenv("COLUMNS", "80")
    told = qeval(*words)
    assert not overflowing(told.stdout + told.stderr, 80)
    assert len(list(runs_dir.glob("*/run.json"))) == 1
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        for command in COMMANDS:
            told = qeval(*command, code=None)
            assert not overflowing(told.stdout + told.stderr, width), command


def test_nothing_is_lost_where_there_is_little_room(qeval, monkeypatch) -> None:
    qeval("run", "--model", "toy[items=25]", "--schemes", SCHEMES[12], "--tasks", TASKS)
    whole = set(qeval("show").stdout.split())
    monkeypatch.setenv("COLUMNS", "60")
    missing = {word for word in whole - set(qeval("show").stdout.split()) if word.strip("-")}
    assert not {word for word in missing if "." in word and word[-1].isdigit()}  # scores and intervals stay
