"""What a file and the environment say of a run: who goes first, what is refused, what is written down."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from qeval.cli.main import main
from qeval.cli.run import run as command

FILE = """
[run]
model = "toy[items=30]"
schemes = ["fp16", "bnb4"]
tasks = "qeval_facts"
limit = 12
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("QEVAL_TASKS_DIR", "QEVAL_DATASETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def typed(qeval, monkeypatch: pytest.MonkeyPatch):
    """Call `qeval run` as it would be typed."""

    def call(*words: str, code: int = 0):
        monkeypatch.setattr(sys, "argv", ["qeval", "run", *words])
        return qeval("run", *words, code=code)

    return call


def stored(runs_dir: Path) -> dict:
    [file] = runs_dir.glob("*/run.json")
    return json.loads(file.read_text("utf-8"))


def test_the_file_is_told_written_down_and_part_of_what_makes_the_run_again(
    typed, qeval, here: Path, runs_dir: Path
) -> None:
    (here / "qeval.toml").write_text(FILE)
    told = typed().stderr
    words = ["--model", "toy[items=30]", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts", "--limit", "12"]
    line = next(line for line in told.splitlines() if line.startswith("From qeval.toml: "))
    assert sorted(shlex.split(line.partition(": ")[2])) == sorted(words)
    command = stored(runs_dir)["command"]
    assert command[:2] == ["qeval", "run"]
    assert sorted(command[2:]) == sorted(words)
    (here / "qeval.toml").unlink()
    qeval("report", "-o", "r.md")
    assert shlex.join(command) in Path("r.md").read_text("utf-8")
    typed(*command[2:])
    assert len(list(runs_dir.glob("*/run.json"))) == 1


def test_words_go_before_the_environment_and_that_before_the_file(
    typed, here: Path, runs_dir: Path, monkeypatch
) -> None:
    (here / "pyproject.toml").write_text(
        FILE.replace("[run]", "[tool.qeval.run]") + "seed = 1\ndtype = 'float32'\n"
    )
    monkeypatch.setenv("QEVAL_RUN_LIMIT", "10")
    monkeypatch.setenv("QEVAL_RUN_SEED", "2")
    told = typed("--seed", "3").stderr
    assert "From the environment: --limit 10" in told
    settings = stored(runs_dir)["settings"]
    assert (settings["seed"], settings["limit"], settings["dtype"]) == (3, 10, "float32")
    assert stored(runs_dir)["command"].count("--seed") == 1
    assert "--limit 12" not in told


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shemes = 'fp16'", "Did you mean 'schemes'?"),
        ("runs_dir = 'out'", "Set QEVAL_RUNS_DIR, which all of them heed."),
        ("trust_remote_code = true", "command line only"),
        ("allow-unused = ['x']", "command line only"),
        ("allow_anything = true", "command line only"),
        ("quiet = true", "command line only"),
        ("seed = '3'", "a whole number"),
        ("seed = true", "a whole number"),
        ("temperature = 'hot'", "a number"),
        ("again = 1", "true or false"),
        ("device = 3", "text in quotes"),
        ("sbatch_args = 'x'", "a list of texts in quotes"),
        ("num_fewshot = -1", "--num-fewshot"),
        ("gpu_memory = '24'", "24GiB"),
        ("num_fewshot = 1\nnum-fewshot = 2", "twice"),
    ],
)
def test_what_a_file_may_not_say_is_refused_with_a_remedy(typed, here: Path, line: str, said: str) -> None:
    (here / "qeval.toml").write_text(f"{FILE}{line}\n")
    told = typed(code=2).stderr
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"qeval.toml": FILE, "pyproject.toml": "[tool.qeval.run]\nlimit = 1\n"}, "both"),
        ({"qeval.toml": "[runn]\nlimit = 1\n"}, "Did you mean 'run'?"),
        ({"qeval.toml": "run = 3\n"}, "not a table"),
        ({"qeval.toml": "[run\n"}, "qeval.toml"),
        ({"pyproject.toml": "[tool.qeval.run\n"}, "pyproject.toml"),
        ({"pyproject.toml": "[tool.qeval.runs]\nlimit = 9\n"}, "Did you mean 'run'?"),
        ({"pyproject.toml": "[tool]\nqeval.runn.limit = 9\n"}, "Did you mean 'run'?"),
        ({"pyproject.toml": "[tool.qeval]\nrun = {shemes = 'x'}\n"}, "Did you mean 'schemes'?"),
        ({"pyproject.toml": "[ tool . 'qeval' . run ]\nshemes = 'x'\n"}, "Did you mean 'schemes'?"),
    ],
)
def test_files_that_are_no_files_of_ours(typed, here: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (here / name).write_text(text)
    assert said in typed(code=2).stderr


def test_a_project_that_is_not_about_us_is_left_alone(typed, here: Path) -> None:
    (here / "pyproject.toml").write_text("[project\nbroken")
    typed("--model", "toy[items=20]", "--schemes", "fp16", "--tasks", "qeval_facts")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("QEVAL_RUN_SHEMES", "fp16", "Did you mean 'schemes'?"),
        ("QEVAL_RUN_TRUST_REMOTE_CODE", "1", "command line only"),
        ("QEVAL_RUN_ALLOW_UNUSED", "x", "command line only"),
        ("QEVAL_RUN_QUIET", "1", "command line only"),
        ("QEVAL_RUN_LIMIT", "1_0", "not a plain number"),
        ("QEVAL_RUN_LIMIT", "x", "--limit"),
        ("QEVAL_RUN_limit", "3", "The variable of --limit is QEVAL_RUN_LIMIT."),
        ("QEVAL_RUN_TASKS_DIR", ".", "The variable of --tasks-dir is QEVAL_TASKS_DIR."),
        ("QEVAL_TASK_DIR", ".", "Did you mean 'QEVAL_TASKS_DIR'?"),
    ],
)
def test_what_the_environment_may_not_say(typed, monkeypatch, name, value, said) -> None:
    monkeypatch.setenv(name, value)
    assert said in typed("--model", "toy", code=2).stderr


def test_what_lies_here_never_acts_unseen(typed, here: Path) -> None:
    (here / "p.toml").write_text("[gate]\nmax_drop = 60\nallow_identical = true\nungated = ['wiki']\n")
    (here / "qeval.toml").write_text(f"{FILE}verify = 0\ngate = 'p.toml'\n")
    told = typed("--quiet", "--repeat-baseline", code=None).stderr
    assert "From qeval.toml: " in told
    assert "--verify 0" in told
    assert "The policy p.toml has exceptions: allow_identical, ungated wiki.\n" in told
    assert "toy[items=30] as fp16" not in told


def test_flags_are_spelled_as_they_are_typed(typed, here: Path, runs_dir: Path) -> None:
    (here / "qeval.toml").write_text(f"{FILE}cost = false\nno_materialize = false\nrepeat_baseline = true\n")
    typed()
    command = stored(runs_dir)["command"]
    assert "--no-cost" in command
    assert "--repeat-baseline" in command
    assert "--no-materialize" not in command


def test_help_needs_no_file_and_no_option_escapes_the_rule(here: Path) -> None:
    (here / "qeval.toml").write_text("[run\n")
    assert CliRunner().invoke(main, ["run", "--help"]).exit_code == 0
    by_hand = {one.opts[-1] for one in command.params if not one.envvar and one.opts[-1].startswith("--")}
    assert by_hand == {"--trust-remote-code", "--allow-unused"}


@pytest.mark.usefixtures("here")
def test_a_suite_that_was_asked_with_other_examples_is_told_where_it_is_judged(typed, qeval) -> None:
    words = ("--model", "toy[items=400]", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    said = "tasks was asked with 2 examples in each prompt (--num-fewshot)"
    typed(*words, "--num-fewshot", "2")
    assert said in qeval("gate", "--max-drop", "60", "--allow-identical", code=None).stdout
    typed(*words)
    assert said not in qeval("gate", "--max-drop", "60", "--allow-identical", code=None).stdout


def test_a_gate_is_found_in_a_project_however_it_is_spelt(typed, qeval, here: Path) -> None:
    typed("--model", "toy[items=400]", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    for text in ("[tool.qeval]\ngate.max_drop = 60\n", "[tool.'qeval'.gate]\nmax_drop = 60\n"):
        (here / "pyproject.toml").write_text(text)
        assert "by pyproject.toml" in qeval("gate", code=None).stdout
    (here / "pyproject.toml").write_text("# qeval gate\n[broken")
    assert "Nothing says what loss is allowed" in qeval("gate", code=2).stderr


def test_variables_that_change_what_is_measured_are_part_of_what_makes_the_run_again(
    typed, here: Path, runs_dir: Path, monkeypatch
) -> None:
    (here / "mine").mkdir()
    monkeypatch.setenv("QEVAL_TASKS_DIR", "mine")
    monkeypatch.setenv("QEVAL_DATASETS_DIR", str(here / "mine"))
    typed("--model", "toy[items=20]", "--schemes", "fp16", "--tasks", "qeval_facts")
    command = stored(runs_dir)["command"]
    assert command[-4:] == ["--tasks-dir", "mine", "--datasets-dir", str(here / "mine")]
    monkeypatch.delenv("QEVAL_TASKS_DIR")
    monkeypatch.delenv("QEVAL_DATASETS_DIR")
    typed(*command[2:])
    assert len(list(runs_dir.glob("*/run.json"))) == 1
