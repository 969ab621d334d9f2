"""Help guides: what to type first, groups, an example for every command that is one, and completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qeval.base import layout
from qeval.cli import helping
from qeval.cli.main import main
from qeval.cli.variables import VARIABLES

ROOT = Path(__file__).parents[2]
NAMES = main.list_commands(click.Context(main))


def call(*words: str, **environment: str):
    return CliRunner(env=environment).invoke(main, list(words), prog_name="qeval")


def test_qeval_alone_says_what_to_type_and_that_nothing_was_asked(qeval, runs_dir: Path) -> None:
    told = call(QEVAL_RUNS_DIR=str(runs_dir), COLUMNS="80")
    assert told.exit_code == 2
    assert told.stdout == ""
    assert told.stderr.startswith("Score something:\n")
    qeval("run", "--model", "toy[items=20]", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    told = call(QEVAL_RUNS_DIR=str(runs_dir)).stderr
    assert told.startswith("The newest run is toy")
    for line in re.findall(r"^  (qeval .*?)(?:  #.*)?$", told, re.MULTILINE):
        check_parses(shlex.split(line))


def test_qeval_run_alone_says_how_to_begin() -> None:
    told = call("run", COLUMNS="80")
    assert told.exit_code == 2
    assert "Missing option '--model'" in told.stderr
    assert "qeval run --model toy" in told.stderr
    assert layout.widest(told.stderr) <= 80


def check_parses(words: list[str]) -> None:
    assert words[0] == "qeval"
    command = main.get_command(click.Context(main), words[1])
    assert command is not None, words
    command.make_context(words[1], words[2:])


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_an_example_that_can_be_typed(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("lm-eval-output", "mirror"):
        (tmp_path / folder).mkdir()
    page = call(name, "--help", COLUMNS="80").stdout
    assert "Example" in page
    for line, _ in helping.EXAMPLES.get(name, ()):
        assert line in page
        words = shlex.split(line)
        if words[0] == "qeval":
            check_parses(words)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_and_breaks_no_word(name: str, width: int) -> None:
    page = call(*filter(None, [name]), "--help", COLUMNS=str(width), TERMINAL_WIDTH=str(width)).stdout
    assert not re.search(r"--\w*-\n|\w-\n", page)
    prose = [line for line in page.splitlines() if "qeval " not in line]
    assert max(map(layout.columns_of, prose)) <= width


def test_groups_name_nothing_twice_and_leave_no_option_of_run_out() -> None:
    grouped = [name for names in helping.RUN_OPTIONS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    command = main.get_command(click.Context(main), "run")
    assert {one.name for one in command.params} <= set(grouped)
    page = call("--help").stdout
    for name in NAMES:
        assert re.search(rf"^  {name}  ", page, re.MULTILINE), name


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ("qeval", "ga", {"gate"}),
        ("qeval run --schemes", "fp16,bn", {"fp16,bnb4", "fp16,bnb8"}),
        ("qeval run --suite", "lea", {"leaderboard-v1"}),
        ("qeval plan --suite", "qui", {"quick"}),
        ("qeval show", "a-", {"a-run", "a-walk"}),
        ("qeval gate --runs-dir other", "", {"elsewhere"}),
        ("qeval run", "--repeat-b", {"--repeat-baseline"}),
    ],
)
def test_shells_complete_commands_options_schemes_suites_and_runs(
    tmp_path: Path, monkeypatch, words: str, begun: str, offered: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a-run", "runs/a-walk", "runs/b", "other/elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    told = call(
        _QEVAL_COMPLETE="bash_complete",
        COMP_WORDS=f"{words} {begun}",
        COMP_CWORD=str(len(words.split())),
        QEVAL_RUNS_DIR="runs",
    )
    assert {line.partition(",")[2] for line in told.stdout.splitlines()} == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    told = call("completion", shell)
    assert told.exit_code == 0
    assert "_QEVAL_COMPLETE" in told.stdout


@pytest.mark.slow
def test_bash_takes_it(tmp_path: Path) -> None:
    (tmp_path / "qeval").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m qeval "$@"\n')
    (tmp_path / "qeval").chmod(0o755)
    script = """
    eval "$(qeval completion bash)"
    COMP_WORDS=(qeval run --suite lea) COMP_CWORD=3
    _qeval_completion qeval
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["leaderboard-v1"]


def test_every_variable_of_ours_is_documented() -> None:
    named = {
        name
        for file in (ROOT / "qeval").rglob("*.py")
        for name in re.findall(r"\bQEVAL_[A-Z]+(?:_[A-Z]+)*\b", file.read_text("utf-8"))
    }
    known = {name for name in VARIABLES if name.startswith("QEVAL_") and "<" not in name}
    examples = {"QEVAL_RUN_SCHEMES", "QEVAL_RUN_LIMIT"}
    assert named - examples == known


@pytest.mark.parametrize("name", NAMES)
def test_a_command_asked_by_itself_first_has_both_words_for_help(monkeypatch, name: str) -> None:
    """Click keeps the option that it makes at first: a page of help once lacked -h after such a call."""
    command = main.get_command(click.Context(main), name)
    monkeypatch.setattr(command, "_help_option", None)
    with click.Context(command, info_name=name) as alone:
        assert "-h, --help" in command.get_help(alone)
