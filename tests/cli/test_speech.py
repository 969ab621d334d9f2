"""What is printed steers no terminal, no reader and no CI runner, whoever wrote the names in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from qeval.base.records import Run
from qeval.store.checksums import summed

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "qeval"
HOSTILE = "x\x1b[2J\x9b31m\u202egnp.exe\u200b\x7f\n::add-mask::a\n  ::error::no ##[error] ##vso[task]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")
COMMAND = re.compile(r"^\s*::|##(vso)?\[", re.MULTILINE)
TASKS = ("--tasks", "qeval_facts,qeval_words")


@pytest.fixture
def hostile(qeval, runs_dir: Path) -> str:
    """The id of a run whose names, notes and errors are all hostile."""
    qeval("run", "--model", "toy[items=30]", "--schemes", "fp16,bnb4,rtn", *TASKS)
    [place] = [file.parent for file in runs_dir.glob("*/run.json")]
    run = msgspec.json.decode((place / "run.json").read_bytes(), type=Run)
    told = json.loads(msgspec.json.encode(run))
    for result in told["results"]:
        result["variant"]["name"] += HOSTILE
        result["provenance"]["notes"] = [HOSTILE]
    told["results"][2] |= {"status": "failed", "error": HOSTILE}
    told |= {"baseline": told["results"][0]["variant"]["name"], "model": f"m{HOSTILE}"}
    told["suite"]["name"] = HOSTILE
    (place / "run.json").write_bytes(summed(msgspec.convert(told, type=Run)))
    return place.name


def check(text: str) -> None:
    assert not RAW.search(text), repr(RAW.search(text))
    assert not COMMAND.search(text), repr(COMMAND.search(text))


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        ("show", "--json"),
        ("list", "runs"),
        ("list", "runs", "--json"),
        ("gate", "--max-drop", "1"),
        ("gate", "--max-drop", "1", "--json"),
        ("plan", "--from", "RUN"),
        ("show", HOSTILE),
        ("show", "--runs-dir", f"/nowhere{HOSTILE}"),
        ("--debug", "show", HOSTILE),
        ("gate", f"--{HOSTILE}"),
        (f"--{HOSTILE}",),
        (HOSTILE,),
        ("run", "--model", f"toy[{HOSTILE}=1]"),
        ("run", "--model", "toy", "--schemes", HOSTILE),
        ("run", "--model", "toy", "--tasks", HOSTILE),
        ("import", f"/nowhere{HOSTILE}"),
    ],
)
def test_no_text_steers_who_listens(qeval, hostile: str, words) -> None:
    result = qeval(*(hostile if word == "RUN" else word for word in words), code=None)
    assert "unforeseen" not in result.stderr
    check(result.stdout)
    check(result.stderr)
    if words == ("show", "--json"):
        names = [variant["name"] for variant in json.loads(result.stdout)["variants"]]
        assert names[0] == f"fp16{HOSTILE}"  # it means what it meant


@pytest.mark.parametrize("name", ["r.html", "r.md", "r.txt"])
def test_nor_does_a_document(qeval, hostile: str, name: str, tmp_path: Path) -> None:
    del hostile
    qeval("report", "-o", tmp_path / name, "--max-drop", "1")
    text = (tmp_path / name).read_text()
    assert not RAW.search(text), repr(text[RAW.search(text).start() - 40 :][:80])


def test_nor_do_the_files_of_a_gate_and_what_a_runner_hears(qeval, hostile, tmp_path, monkeypatch) -> None:
    del hostile
    summary, junit = tmp_path / "summary.md", tmp_path / "j.xml"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    said = qeval("gate", "--max-drop", "1", "--junit", junit, code=None).stderr
    assert not RAW.search(summary.read_text() + junit.read_text() + said)
    ours = {"notice", "error", "warning"}
    assert {found[1] for found in re.finditer(r"^\s*::([\w-]+)", said, re.MULTILINE)} <= ours
    assert "::add-mask::" not in [line[: len("::add-mask::")] for line in said.splitlines()]


def test_what_is_scored_says_nothing_raw_either(qeval, monkeypatch) -> None:
    from qeval.base.messages import Failed
    from qeval.run.executors import EXECUTORS
    from qeval.run.workers import _fail

    monkeypatch.setitem(EXECUTORS, "local", lambda job, hear: _fail(job, Failed(HOSTILE, HOSTILE), hear))
    result = qeval("run", "--model", "toy", "--schemes", "fp16", *TASKS, code=1)
    assert "FAILED" in result.stderr
    check(result.stdout)
    check(result.stderr)


def test_a_terminal_with_bars_is_shown_the_same() -> None:
    import io

    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TextColumn

    from qeval.base.messages import Failed, Note, Stage
    from qeval.base.records import Scheme, Variant
    from qeval.cli.progress import Terminal

    out = io.StringIO()
    with Bars(TextColumn("{task.description} {task.fields[what]}"), console=Console(file=out)) as bars:
        listen = Terminal(bars)
        for event in (Stage(HOSTILE), Note(HOSTILE), Failed(HOSTILE)):
            listen(Variant(HOSTILE, "m", Scheme("fp16")), event)
    assert not RAW.search(out.getvalue())


def test_commands_print_in_one_way_only() -> None:
    for path in (PACKAGE / "cli").glob("*.py"):
        text = path.read_text()
        assert path.name == "speech.py" or "click.echo" not in text, path
        assert not re.search(r"(?<![\w.])print\((?!printable)", text), path
