"""The command line as a contract: what it prints where, how it exits, and that it can be interrupted."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from qeval import cli
from qeval.cli.main import main
from qeval.report import formats

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
TASKS = ("--tasks", "qeval_facts,qeval_words,qeval_prose")
TOY = ("run", "--model", "toy[items=40]", "--schemes", "fp16,bnb4", *TASKS)


def _commands(group: click.Group = main, prefix: str = "qeval") -> list[tuple[str, click.Command]]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((f"{prefix} {name}", command))
        if isinstance(command, click.Group):
            found += _commands(command, f"{prefix} {name}")
    return found


@pytest.mark.parametrize(("name", "command"), _commands())
def test_every_command_and_option_has_help_and_stands_in_the_readme(
    name: str, command: click.Command
) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    assert f"`{name}" in README.read_text() or f"\n{name} " in README.read_text()


LIGHT = {"click", "msgspec", "typing_extensions"}
"""The only packages of others that every command may import: a fifth of a second in all."""


def _imported(code: str) -> tuple[set[str], int]:
    """The packages of others that are imported once this has run, and how many modules of our own."""
    code += (
        "\nimport sys\nplaces = {n: getattr(m, '__file__', '') or '' for n, m in sys.modules.items()}\n"
        "print(sum(n.startswith('qeval.') for n in places),"
        " *{n.partition('.')[0] for n, place in places.items() if 'site-packages' in place})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own, *others = done.stdout.splitlines()[-1].split()
    return set(others), int(own)


def test_help_is_quick() -> None:
    """What it takes is what it imports, which no machine changes as it does seconds."""
    help_alone = "from qeval.cli.main import main; main(['--help'], standalone_mode=False)"
    others, own = _imported(help_alone)
    assert others - _imported("pass")[0] <= LIGHT  # but for what .pth files import
    assert own <= 75

    def once() -> float:
        """Processor seconds, which a busy machine does not stretch as it does the clock's."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "qeval", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(once() < 1 for _ in range(7))  # on the slowest machine there is; a fifth on a usual one


def test_a_run_ends_with_a_table_and_is_kept(qeval_with_workers, runs_dir: Path) -> None:
    qeval = qeval_with_workers
    result = qeval(*TOY)
    for word in ("qeval_facts", "bnb4", "average"):
        assert word in result.stdout
    assert "Saved to" in result.stderr
    [run] = json.loads(qeval("list", "runs", "--json").stdout)
    assert (runs_dir / run["run"] / "run.json").exists()
    assert "qeval_facts" in qeval("show").stdout


def test_json_is_the_only_thing_on_stdout(qeval) -> None:
    document = json.loads(qeval(*TOY, "--json").stdout)
    assert document["schema"]
    assert json.loads(qeval("show", "--json").stdout) == document


def test_the_same_command_computes_nothing_twice(qeval, runs_dir: Path) -> None:
    first = qeval(*TOY)
    times = {path: path.stat().st_mtime_ns for path in runs_dir.rglob("cell.json")}
    again = qeval(*TOY)
    assert again.stdout == first.stdout
    assert "finished earlier" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs_dir.rglob("cell.json")} == times


def test_less_and_more_may_be_told(qeval) -> None:
    assert qeval(*TOY, "--quiet").stderr == ""
    assert qeval(*TOY, "-q").stdout == qeval(*TOY).stdout
    usual, more = (qeval("gate", "--max-drop", "30", *words, code=None).stdout for words in ((), ("-v",)))
    assert more.count("PASS") > usual.count("PASS")
    least = qeval("gate", "--max-drop", "30", "-q", code=None).stdout.splitlines()
    assert least == [line for line in usual.splitlines() if line in least]
    assert least[1:] == ["This is the toy model: every number here is invented."]
    assert qeval("gate", "--max-drop", "30", "-q", "-v", code=2).stderr


def test_a_scheme_added_later_takes_over_what_is_there(qeval, runs_dir: Path) -> None:
    qeval("run", "--model", "toy[items=40]", "--schemes", "fp16", *TASKS)
    more = qeval(*TOY)
    assert "[fp16] 0 tasks to score, 3 finished earlier" in more.stderr
    assert len(list(runs_dir.glob("*/"))) == 2


def test_one_failed_variant_leaves_the_others(qeval) -> None:
    result = qeval("run", "--model", "toy[items=40,fail=bnb4]", "--schemes", "fp16,bnb4,gptq", *TASKS, code=1)
    assert "told to fail" in result.stderr
    assert "gptq" in result.stdout


def _start(runs_dir: Path, delay: float, *more: str) -> subprocess.Popen[bytes]:
    words = [
        "run",
        "--model",
        f"toy[items=40,delay={delay}]",
        "--schemes",
        "fp16,bnb4",
        "--suite",
        "demo",
        *more,
    ]
    # A shell's background job ignores SIGINT, and so would its children: begin as a person's command does.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from qeval.cli.main import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "QEVAL_RUNS_DIR": str(runs_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _cells(runs_dir: Path) -> list[Path]:
    """What is finished; a hidden folder is still being written."""
    found = runs_dir.glob("*/cells/*/cell.json")
    return [file for file in found if not file.parent.name.startswith(".")]


def _wait_for_cells(runs_dir: Path, count: int) -> None:
    until = time.monotonic() + 300
    while len(_cells(runs_dir)) < count:
        assert time.monotonic() < until, "no cell was written"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_it_resumes_with_the_same_numbers(
    tmp_path: Path, runs_dir: Path, how: int
) -> None:
    for delay in (0.3, 2.0, 10.0):  # a busy machine may finish it before it is killed; then it has longer
        place = runs_dir / str(delay)
        process = _start(place, delay)
        _wait_for_cells(place, 6)
        os.killpg(process.pid, how)
        _, errors = process.communicate(timeout=300)
        kept = {path: path.stat().st_mtime_ns for path in _cells(place)}
        if len(kept) < 10:
            break
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert b"resumes from there" in errors
        assert b"Traceback" not in errors
    assert 6 <= len(kept) < 10
    resumed = _start(place, delay, "--json")
    undisturbed = _start(tmp_path / "other", delay, "--json")
    one, two = (json.loads(p.communicate(timeout=300)[0]) for p in (resumed, undisturbed))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished cell was computed again"
    for document in (one, two):
        document["run"].pop("created", None)
    assert one["comparisons"] == two["comparisons"]


WRONG = [
    (("run", "--model", "toy", "--schemes", "bmb4"), 2, "bnb4"),
    (("run", "--model", "toy", "--schemes", "bnb4[quant_typ=fp4]"), 2, "quant_type"),
    (("run", "--model", "toy", "--suite", "leaderbord-v1"), 2, "leaderboard-v1"),
    (("run", "--model", "toy", "--limit", "0"), 2, "0"),
    (("run", "--model", "toy", "--batch-size", "many"), 2, "auto"),
    (("run", "--model", "toy", "--batch-size", "0"), 2, "auto"),
    (("run", "--model", "toy", "--suite", "demo", "--tasks", "arc_easy"), 2, "--suite"),
    (("run", "--model", "toy", "--schemes", "fp16,fp16"), 2, "fp16"),
    (("run", "--model", "toy", "--baseline", "bnb4x"), 2, "bnb4"),
    (("run", "--model", "toy[itmes=3]"), 2, "items"),
    (("show", "nothing"), 1, "qeval run"),
    (("gate", "--max-drop", "1"), 1, "qeval run"),
    (("report", "-o", "x.html"), 1, "qeval run"),
]


@pytest.mark.parametrize(("words", "code", "says"), WRONG)
def test_bad_input_is_one_sentence_and_a_remedy(qeval, words: tuple[str, ...], code: int, says: str) -> None:
    result = qeval(*words, code=code)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_debug_shows_the_traceback(qeval) -> None:
    assert "Traceback" in qeval("--debug", "show", "nothing", code=1).stderr


def test_a_broken_run_directory_is_one_sentence(qeval, runs_dir: Path) -> None:
    qeval(*TOY)
    file = next(runs_dir.glob("*/run.json"))
    file.write_bytes(file.read_bytes()[:100])
    result = qeval("show", code=1)
    assert "damaged" in result.stderr
    assert "Traceback" not in result.stderr
    assert qeval("list", "runs").stdout


@pytest.mark.parametrize("what", ["schemes", "suites", "runs"])
def test_lists(qeval, what: str) -> None:
    assert qeval("list", what).stdout
    assert isinstance(json.loads(qeval("list", what, "--json").stdout), list)


ARTICLE = README.parent / "docs" / "examples" / "llama2-article.toml"


def test_published_scores_become_a_run_that_is_gated_and_exported(qeval, tmp_path: Path) -> None:
    words = ("import", ARTICLE, "--scores", "--model", "meta-llama/Llama-2-7b-hf")
    place = qeval(*words).stdout.strip()
    assert qeval(*words).stdout.strip() == place, "the same input is the same run"
    assert "53.40" in qeval("show", place).stdout
    assert qeval("gate", place, "--max-drop", "3", code=4).stdout.count("INCONCLUSIVE") > 2
    qeval("export", place, "--to", "csv", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "scores.csv").read_text().count("\n") > 10


def test_a_wrong_import_writes_nothing(qeval, tmp_path: Path, runs_dir: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text("variant,task,scroe,n\nfp16,arc,0.5,100\n")
    result = qeval("import", "--scores", file, code=None)
    assert result.exit_code in (1, 2)
    assert "scroe" in result.stderr
    assert not runs_dir.exists()


def test_a_plan_knows_what_cannot_be_decided(qeval, tmp_path: Path) -> None:
    hard = ("--suite", "leaderboard-v1", "--max-drop", "1.0")
    rows = json.loads(qeval("plan", *hard, "--json", code=4).stdout)
    text = qeval("plan", "--max-drop", "1.0", code=4).stdout
    assert "too few items" in text
    assert "impossible" not in qeval("plan", "--policy", "leaderboard-v1").stdout
    advisory = tmp_path / "advice.toml"
    advisory.write_text('[[rule]]\nmax_drop = 1.0\ntier = "advisory"\n[[rule]]\nmax_drop = 40.0\n')
    assert "too few items" in qeval("plan", "--policy", advisory).stdout
    assert rows["schema"]
    assert "not a number of items" in qeval("plan", "--tasks", "x", "--n", "x=0", code=2).stderr


def test_a_plan_from_a_run_uses_its_churn(qeval) -> None:
    qeval(*TOY)
    assert "qeval_prose" in qeval("plan", "--from", "toy", "--max-ppl-ratio", "1.05", code=None).stdout


def test_a_judged_report_says_once_that_its_numbers_are_invented(qeval, tmp_path: Path) -> None:
    qeval(*TOY)
    for words in ((), ("--short",)):
        qeval("report", "--max-drop", "30", "--allow-inconclusive", *words, "-o", tmp_path / "r.md")
        told = (tmp_path / "r.md").read_text()
        assert told.count("every number here is invented") == 1
        assert "Undecided rules are allowed to pass" in told
        assert "| 95% interval" in " ".join(told.split())


def test_the_gate_writes_junit_and_a_badge(qeval, tmp_path: Path) -> None:
    qeval(*TOY)
    words = ("gate", "--max-drop", "1", "--junit", tmp_path / "j.xml", "--badge", tmp_path / "b.json")
    qeval(*words, code=None)
    assert (tmp_path / "j.xml").read_text().startswith("<?xml")
    assert json.loads((tmp_path / "b.json").read_text())["schemaVersion"] == 1


def test_nothing_said_about_losses_is_no_pass(qeval, tmp_path: Path, monkeypatch) -> None:
    qeval(*TOY)
    monkeypatch.chdir(tmp_path)
    assert "--max-drop" in qeval("gate", code=2).stderr
    (tmp_path / "pyproject.toml").write_text("[tool.qeval.gate]\nmax_drop = 90\n")
    assert "PASS" in qeval("gate").stdout


def test_a_report_goes_nowhere_but_where_it_can(qeval, tmp_path: Path) -> None:
    qeval(*TOY)
    qeval("report", "-o", tmp_path / "new" / "r.html")
    assert (tmp_path / "new" / "r.html").is_file()
    assert "directory" in qeval("report", "-o", tmp_path / "runs", code=2).stderr
    assert ".html" in qeval("report", "-o", tmp_path / "r.htlm", code=2).stderr
    assert list(tmp_path.glob("r*")) == [tmp_path / "runs"]


def test_help_names_the_endings_of_all_report_formats(qeval, monkeypatch) -> None:
    known = formats.formats()
    monkeypatch.setattr(formats, "formats", lambda: {**known, ".adoc": known[".md"]})
    assert "[.adoc|.html|.json|.md|.txt]" in qeval("report", "--help").stdout


def test_a_command_imports_no_module_of_another() -> None:
    code = "import sys; from qeval.cli.main import main; main(['gate', '--help'], standalone_mode=False)"
    code += "; print(*sorted(name for name in sys.modules if name.startswith('qeval.cli.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.removeprefix("qeval.cli.") for name in done.stdout.splitlines()[-1].split()}
    helpers = {"speech", "completing", "helping", "meant"}
    assert found - helpers == {"gate", "main", "options", "stops", "streams", "surprises"}


def test_a_command_is_added_by_its_file_alone(qeval, tmp_path: Path, monkeypatch) -> None:
    text = '"""Says good day."""\n\nimport click\n\n\n@click.command()\ndef greet() -> None:\n'
    (tmp_path / "greetings.py").write_text(text + '    """Say good day."""\n    click.echo("Good day.")\n')
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    assert "More:\n  greet  Say good day.\n" in qeval("--help").stdout
    assert qeval("greet").stdout == "Good day.\n"


@pytest.mark.parametrize(
    "words",
    [("--think-end", "</think>"), ("--max-gen-toks", "9"), ("--repeats", "2"), ("--temperature", ".7")],
)
def test_the_toy_writes_no_texts(qeval, words) -> None:
    told = qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", *words, code=2)
    assert "The toy generates no text." in told.stderr
    assert f"Leave out {words[0]}." in told.stderr


@pytest.mark.parametrize("words", [("toy", "tree"), ("org/model", "lm-eval")])
def test_a_framed_perplexity_is_refused_where_there_is_none(qeval, words) -> None:
    model, engine = words
    told = qeval("run", "--model", model, "--schemes", "fp16,bnb4", "--engine", engine, "--framed", code=2)
    assert "cannot measure perplexity inside a chat template" in told.stderr
