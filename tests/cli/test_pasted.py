"""Commands in what is said to a person stand on one line, however narrow the terminal is: they are pasted."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qeval.base import layout
from qeval.cli.main import main

ROOT = Path(__file__).parents[2]
TASKS = "qeval_facts,qeval_words"
LONG = "a-directory-with-a-name-of-some-length-for-all-runs-of-this-project"
TWO = ("run", "--model", "toy[items=20]", "--tasks", TASKS, "--schemes", "fp16,bnb4")
PREPARE = (*TWO, "--prepare")
_START = r"(?:[A-Z_]+=\S+ )?(?:qeval|pip|hf|ray|unset) "
_SAID = re.compile(
    rf"(?::|^|Next:) +({_START}.+?)(?=, then: |$)|`({_START}[^`]+)`|\b(qeval [a-z]+ --[a-z-]+)", re.MULTILINE
)


def commands(text: str) -> set[str]:
    """The commands of a text in which no line was broken."""
    found = (next(filter(None, one)) for one in _SAID.findall(text))
    return {one.partition("  #")[0].strip() for one in found}


def prose(command: str) -> list[str]:
    """Words of a command that belong to the sentence around it, and would be pasted too."""
    words = shlex.split(command)
    ends = [word for word in words if word.endswith((",", ";", ".")) and not word.endswith("...")]
    return [*ends, *(word for word in words if word in {"and", "or", "then", "once", "where"})]


@pytest.fixture
def typed(qeval, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Call a command as it would be typed, in a terminal of so many columns, or into a file."""
    monkeypatch.chdir(tmp_path)

    def call(words: tuple[str, ...], columns: int | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["qeval", *words])
        monkeypatch.setenv("COLUMNS", str(columns or 0))
        told = qeval(*words, code=None)
        return f"{told.stdout}\n{told.stderr}"

    return call


def _nothing(_typed: Callable[..., str]) -> None:
    """No run is there."""


def _prepared(typed: Callable[..., str]) -> None:
    typed((*PREPARE, "--runs-dir", LONG))


def _scored(typed: Callable[..., str]) -> None:
    _prepared(typed)
    typed(("worker", str(next(Path(LONG).glob("toy*")))))


def _whole(typed: Callable[..., str]) -> None:
    typed((*TWO, "--runs-dir", LONG))


THERE = ("--runs-dir", LONG)
SAID = {
    _nothing: [
        (),
        ("show",),
        ("gate", "--max-drop", "1.0"),
        ("gate",),
        ("gate", "--confidence", "0.9"),
        ("gate", "--metric", "acc"),
        ("report", "one-run", "another-run-of-the-same-model", "--baseline", "fp16"),
        ("export", "one-run", "another-run-of-the-same-model", "--baseline", "fp16"),
        (*THERE, "gate", "--max-drop", "1.0", "--policy", "a-policy-of-ones-own.toml"),
        ("plan", "--tasks", "one,two,arc_challenge", "--max-drop", "50"),
        ("plan", "--tasks", "arc_challenge,hellswag"),
        ("run", "--schemes", "fp16"),
        ("run", "--model", "toy", "--schemes", "fp16,bnb5"),
        ("run", "--model", "toy", "--suite", "no-such-suite"),
        ("run", "--model", "toy", "--wait"),
        ("run", "--model", "toy", "--prepare", "--fidelity", "prose"),
        ("run", "--model", "toy", "--executor", "slurm"),
        ("run", "--model", "toy", "--schemes", "spqr,fp16"),
        ("quantize", "--model", "toy", "--scheme", "gptq", "--output", "q"),
        ("worker", "nowhere"),
        ("list", "schemes"),
        ("import", str(ROOT / "docs" / "examples" / "llama2-7b-article.csv"), *THERE),
        ("--nonsense",),
        ("gat",),
    ],
    _prepared: [
        ("gate", *THERE, "--max-drop", "1.0"),
        ("show", *THERE),
        ("report", *THERE, "-o", "/dev/stdout"),
        ("export", *THERE, "--to", "csv", "-o", "tables"),
        ("list", "runs", *THERE),
        ("worker", LONG),
        ("show", LONG),
        ("show", "no-such-run", *THERE),
        (*PREPARE, *THERE),
    ],
    _scored: [
        ("gate", *THERE, "--max-drop", "1.0"),
        ("show", *THERE),
        ("export", *THERE, "--to", "csv", "-o", "tables"),
    ],
    _whole: [
        ("gate", *THERE, "--max-drop", "1.0"),
        ("gate", *THERE, "--policy", "leaderboard-v1"),
        ("show", *THERE),
        ("history", *THERE),
        ("plan", *THERE, "--from", "toy", "--max-drop", "1.0"),
        ("worker", f"{LONG}/toy-items-20-tasks"),
        TWO,
    ],
}


@pytest.mark.parametrize("state", SAID, ids=lambda state: state.__name__.strip("_"))
def test_no_command_of_a_message_is_broken(typed, state: Callable[[Callable[..., str]], None]) -> None:
    state(typed)
    seen = set()
    for words in SAID[state]:
        known = commands(typed(words))
        for columns in (80, 60):
            lines = typed(words, columns).splitlines()
            for command in known:
                assert not prose(command), (words, command)
                assert any(command in line for line in lines), (words, columns, command)
        seen |= known
    assert len(seen) > 1
    assert any(len(command) > 80 for command in seen)


@pytest.mark.parametrize(
    "text",
    [
        "Next: cd '/a project' && qeval run --model toy --schemes fp16,bnb4 --finish",
        "Finish it with: cd '/a project' && qeval run --model toy --schemes fp16,bnb4 --finish",
    ],
)
def test_a_command_that_goes_to_its_directory_first_is_not_broken(text: str) -> None:
    command = text.partition(": ")[2]
    assert command in layout.fitted(text, 40)


@pytest.mark.parametrize("more", [(), ("--fidelity", "wikitext-2048"), ("--datasets-dir", "bare")])
def test_the_command_that_fetches_what_is_missing_stands_alone(typed, tmp_path, monkeypatch, more) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text(
        "task: mine\ndataset_path: org/one\noutput_type: multiple_choice\ntest_split: test\n"
        "doc_to_text: q\ndoc_to_choice: [a, b]\ndoc_to_target: 0\n"
    )
    monkeypatch.delenv("QEVAL_DATASETS_DIR", raising=False)
    words = ("run", "--model", "demo", "--schemes", "fp16", "--tasks", "mine", "--tasks-dir", "own", *more)
    (command,) = {one for one in commands(typed(words)) if " fetch " in one}
    assert not prose(command)
    assert f"  {command}" in typed(words, 80).splitlines()
    assert "No such option" not in typed(tuple(shlex.split(command)[1:]))
    assert prose("qeval fetch --tasks mine --to mirror, and add --datasets-dir mirror") == ["mirror,", "and"]


def test_what_waits_and_what_is_told_above_a_bar_is_not_broken_either(monkeypatch) -> None:
    from io import StringIO

    from rich.console import Console
    from rich.progress import Progress

    from qeval.base.messages import Note
    from qeval.base.records import Scheme, Variant
    from qeval.cli.progress import Terminal

    monkeypatch.delenv("COLUMNS", raising=False)
    out = StringIO()
    with Progress(console=Console(file=out, width=60, force_terminal=True, color_system=None)) as bars:
        command = f"qeval worker {LONG}/toy-items-20-tasks"
        told = f"Nobody is at work on the run, and that is how it stays. Start a worker: {command}"
        Terminal(bars)(Variant("fp16", "toy", Scheme("fp16")), Note(told))
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "").splitlines()
    assert f"  {command}" in lines
    assert any("fp16 Nobody is at work on the run," in line for line in lines)


def test_no_command_of_a_help_page_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    context, seen = click.Context(main), 0
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        said = [getattr(one, "help", None) or "" for one in command.params]
        quoted = [found for text in said for found in re.findall(r"`[^`]+`", text)]
        page = CliRunner().invoke(main, [name, "--help"]).output
        assert all(any(one in line for line in page.splitlines()) for one in quoted), (name, quoted)
        seen += len(quoted)
    assert seen > 5


def test_a_command_at_the_end_of_a_remedy_is_nothing_but_the_command() -> None:
    """A full stop, or more words behind it, would be pasted too."""
    rows = (ROOT / "docs" / "messages.md").read_text("utf-8").splitlines()
    remedies = [row.split(" | ")[1] for row in rows if row.startswith("| ") and row.count(" | ") == 2]
    ends = [found[1] for text in remedies if (found := re.search(rf": ({_START}.*)$", text))]
    assert len(ends) > 15
    for command in ends:
        assert not command.endswith((".", ";", ",")) or command.endswith("..."), command
        assert "; " not in command, command


@pytest.mark.parametrize(
    "words", [("report",), ("export",), ("export", "-o", "out"), ("export", "--to", "csv"), ("gate",)]
)
def test_the_sample_of_what_must_be_there_works_as_printed(typed, qeval, words: tuple[str, ...]) -> None:
    _whole(typed)
    (command,) = commands(typed((*words, *THERE))) - {"qeval report --help", "qeval export --help"}
    assert command.startswith(shlex.join(("qeval", *words, *THERE)))
    assert qeval(*shlex.split(command)[1:], code=None).exit_code != 2


def test_an_option_before_the_command_is_told_where_it_works(typed) -> None:
    _whole(typed)
    (command,) = commands(typed((*THERE, "gate", "--max-drop", "90"))) - {"qeval --help"}
    assert "Judging the newest run" in typed(tuple(shlex.split(command)[1:]))


def test_a_worker_that_is_told_a_name_or_all_runs_is_told_the_directory(typed, qeval, runs_dir: Path) -> None:
    name = Path(typed(PREPARE).splitlines()[0]).name
    for words in ((name,), (name[:-3],), (name.replace("toy", "tyo"),), (str(runs_dir),)):
        said = qeval("worker", *words, code=2).stderr
        assert f"A worker is told its run's directory: qeval worker {runs_dir / name}" in said
    assert "something-else on " in qeval("worker", "something-else", code=1).stderr
    (command,) = commands(said)
    assert "scored, not finished" in qeval(*shlex.split(command)[1:]).stderr


def test_a_run_that_is_named_as_the_directory_of_all_runs_is_known(typed, qeval) -> None:
    _whole(typed)
    place = next(Path(LONG).glob("toy*"))
    said = qeval("show", "--runs-dir", place, code=1).stderr
    assert f"{place} is a run, and holds none." in said
    qeval("show", place)


def test_where_a_calibration_set_is_out_of_reach_the_scheme_is_told_as_it_is_typed(monkeypatch) -> None:
    from qeval.base.errors import QevalError
    from qeval.load.making import calibration
    from qeval.load.schemes import parse_schemes

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network.")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(QevalError, match=r"cannot be read: no network\. Name") as caught:
        calibration._documents(calibration.Calibration("c4", 1, 8), None)
    option, schemes = shlex.split(caught.value.hint.rpartition(": ")[2])
    assert option == "--schemes"
    assert parse_schemes(schemes)[0].scheme.options == {"calibration": "own"}
