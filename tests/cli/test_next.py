"""What is printed to be typed next, or to make a run again, works as printed, wherever runs are kept."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from qeval.base import next_steps
from qeval.base.messages import Finished
from qeval.run import planning
from qeval.store import lock
from qeval.store.runs import RunDir

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


@pytest.fixture
def interrupted(qeval, tmp_path, monkeypatch):
    """A run of two variants that is ended by Ctrl-C when the first word of one of them comes."""

    def run(variant: str, *more: str) -> None:
        @contextlib.contextmanager
        def display(*_args, **_more):
            def hear(spoken, _event):
                if spoken.name == variant:
                    raise KeyboardInterrupt

            yield hear

        words = [*RUN, "--schemes", "fp16,bnb4", *more]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["qeval", *words])
        with monkeypatch.context() as patch:
            patch.setattr("qeval.cli.progress.display", display)
            assert "the same command resumes" in qeval(*words, code=130).stderr

    return run


WORKERS = re.compile(r"Go on with: qeval worker (\S+), then: qeval (run .*)$", re.MULTILINE)
FINISH = re.compile(r"Finish it with: qeval (run .*)$", re.MULTILINE)
GOES_ON = re.compile(r"Go on with: qeval (run .*)$", re.MULTILINE)


def test_the_gate_of_a_run_that_was_interrupted_says_so_and_how_to_go_on(qeval, interrupted) -> None:
    interrupted("fp16", "--runs-dir", "kept")
    here = ("--runs-dir", "kept")
    judged = qeval("gate", *here, "--max-drop", "90", code=5).stdout
    assert "qeval_facts: the run was interrupted before fp16 was scored on qeval_facts." in judged
    assert "The run was interrupted. Unfinished: fp16, bnb4. Go on with: qeval run" in judged
    assert "no scored items" not in judged
    (place,) = (file.parent for file in Path("kept").glob("*/run.json"))
    with lock.held(place):
        at_work = qeval("gate", *here, "--max-drop", "90", code=5).stdout
        qeval("report", *here, "-o", "w.md")
    assert "qeval_facts: the run is still at work, and fp16 is not scored on qeval_facts yet." in at_work
    assert "The run is still at work. Unfinished: fp16, bnb4. Wait for it." in at_work
    assert "The run is still at work, and fp16 is not scored yet." in Path("w.md").read_text("utf-8")
    qeval("report", *here, "-o", "r.md")
    assert "The run was interrupted before fp16 was scored." in Path("r.md").read_text("utf-8")
    shown = qeval("show", *here).stdout
    refused = qeval("export", *here, "--to", "csv", "-o", "tables", code=1).stderr
    (command,) = {GOES_ON.search(text)[1] for text in (judged, shown, refused)}
    qeval(*shlex.split(command))
    after = qeval("gate", *here, "--max-drop", "90", code=None)
    assert after.exit_code in VERDICTS[:3]
    assert "interrupted" not in after.stdout


def test_a_run_that_was_prepared_or_got_half_way_is_gone_on_with_here(
    qeval, interrupted, monkeypatch
) -> None:
    interrupted("bnb4")
    judged = qeval("gate", "--max-drop", "90", code=5).stdout
    assert "the run was interrupted before bnb4 was scored" in judged
    assert "Unfinished: bnb4. Go on with" in judged
    command = shlex.split(GOES_ON.search(judged)[1])
    prepared = [*command, "--limit", "20", "--prepare"]
    monkeypatch.setattr(sys, "argv", ["qeval", *prepared])
    qeval(*prepared)
    judged = qeval("gate", "--max-drop", "90", code=5).stdout
    assert "the run is prepared, and fp16 is not scored" in judged
    assert "The run is prepared, and nobody is at work on it. Unfinished: fp16, bnb4. Go on with" in judged
    worker, finish = WORKERS.search(judged).groups()
    assert finish == shlex.join([*command, "--limit", "20", "--finish"])
    qeval("worker", *shlex.split(worker))
    qeval(*shlex.split(finish))
    assert qeval("gate", "--max-drop", "90", code=None).exit_code in VERDICTS[:3]


def test_a_run_that_was_interrupted_before_it_had_a_name_is_told_so(qeval, monkeypatch) -> None:
    qeval(*RUN, "--schemes", "fp16,bnb4")
    with monkeypatch.context() as patch:
        patch.setattr("qeval.run.runner.check", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        qeval(*RUN, "--schemes", "fp16,rtn", code=130)
    refused = qeval("gate", "--max-drop", "90", code=5).stderr
    assert "did not get far enough to have results (it was interrupted)" in refused


TWO = ("run", "--model", "toy[items=40]", "--tasks", "qeval_facts,qeval_words", "--schemes", "fp16,bnb4")


@pytest.mark.parametrize("folder", ["runs", "my runs"])
def test_each_step_of_a_prepared_run_tells_the_next_one(qeval, tmp_path, monkeypatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    where = () if folder == "runs" else ("--runs-dir", folder)
    words = [*TWO, *where, "--prepare"]
    monkeypatch.setattr(sys, "argv", ["qeval", *words])
    told = commands(qeval(*words).stderr)
    assert [line[0] for line in told] == ["worker", "run"]
    worker, finish = told
    said = qeval(*worker).stderr
    assert "Every variant has its result; the run is scored, not finished." in said
    assert commands(said) == [finish]
    judged = qeval("gate", *where, "--max-drop", "90", code=5)
    assert "qeval_words: scored, and judged once the run is finished." in judged.stdout
    assert "yet" not in judged.stdout
    shown = qeval("show", *where).stdout
    assert "No variant is finished. The run is scored, not finished. Finish it with: " in shown
    qeval("report", *where, "-o", "r.txt")
    refused = qeval("export", *where, "--to", "csv", "-o", "tables", code=1).stderr
    assert "(partial); scored, not finished" in qeval("list", "runs", *where, "--json").stdout
    told = [judged.stdout, shown, refused, Path("r.txt").read_text("utf-8")]
    assert [shlex.split(FINISH.search(text)[1]) for text in told] == [finish] * 4
    monkeypatch.setattr(sys, "argv", ["qeval", *finish])
    qeval(*finish)
    assert qeval("gate", *where, "--max-drop", "90", code=None).exit_code in VERDICTS[:3]
    qeval("report", *where, "-o", "done.md")
    again = commands(Path("done.md").read_text("utf-8"))[0]
    assert again == [word for word in finish if word != "--finish"]  # which makes it, and not its end alone


def test_what_a_worker_says_last_works_in_another_directory_too(qeval, tmp_path, monkeypatch) -> None:
    """Its words are relative to where the run was prepared, so the command goes there first."""
    monkeypatch.delenv("QEVAL_DATASETS_DIR", raising=False)  # which would join the command
    for name in ("my project", "other"):
        (tmp_path / name).mkdir()
    made_in = tmp_path / "my project"
    suite = '[[task]]\nname = "qeval_facts"\nmetric = "acc"\n'
    (made_in / "sums.toml").write_text(suite, "utf-8")
    words = ["run", "--model", "toy[items=40]", "--suite", "./sums.toml", "--schemes", "fp16,bnb4"]
    words += ["--runs-dir", "kept", "--prepare"]
    monkeypatch.chdir(made_in)
    monkeypatch.setattr(sys, "argv", ["qeval", *words])
    place = Path(qeval(*words).stdout.strip())
    monkeypatch.chdir(tmp_path / "other")
    said = qeval("worker", place).stderr
    assert Path.cwd() == tmp_path / "other"
    finish = shlex.join(["qeval", *words[:-1], "--finish"])
    assert f"Next: cd '{made_in}' && {finish}\n" in said
    assert f"Finish it with: cd '{made_in}' && {finish}\n" in qeval("show", place).stdout
    monkeypatch.chdir(made_in)
    assert f"Next: {finish}\n" in qeval("worker", place).stderr
    qeval(*shlex.split(finish)[1:])
    assert [one.status for one in RunDir(place).read().results] == ["done", "done"]


def test_a_worker_says_which_variant_failed_and_what_scores_it_again(qeval, monkeypatch) -> None:
    monkeypatch.delenv("QEVAL_DATASETS_DIR", raising=False)  # which would join the command
    words = ["run", "--model", "toy[items=20,fail=rtn]", "--tasks", "qeval_facts", "--schemes", "fp16,rtn"]
    monkeypatch.setattr(sys, "argv", ["qeval", *words, "--prepare"])
    place = Path(qeval(*words, "--prepare").stdout.strip())
    said = qeval("worker", place, code=1).stderr
    assert "Every variant has its result" not in said
    assert "rtn failed, and nothing is left for workers. The next command scores again what failed" in said
    assert commands(said) == [words]
    with lock.held(place):
        waits = qeval("worker", place, code=1).stderr
    assert "rtn failed; the command that waits for the workers finishes the run." in waits
    qeval(*words, "--finish", code=1)
    finished = qeval("worker", place, code=1).stderr
    assert "is finished, and rtn failed." in finished
    assert f"with: {shlex.join(['qeval', *words])}\n" in finished
    assert "[rtn] FAILED" in qeval(*words, code=1).stderr  # it is scored anew


def test_a_run_of_which_nothing_is_left_is_prepared_for_its_end_alone(qeval, monkeypatch) -> None:
    qeval(*TWO)
    monkeypatch.setattr(sys, "argv", ["qeval", *TWO, "--prepare"])
    said = qeval(*TWO, "--prepare").stderr
    assert "Nothing is left to score." in said
    assert [line[-1] for line in commands(said)] == ["--finish"]
    qeval(*commands(said)[0])


def test_the_tasks_that_an_interrupted_variant_finished_are_not_told_as_not_scored(
    qeval, tmp_path, monkeypatch
) -> None:
    words = [*TWO, "--runs-dir", "kept"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["qeval", *words])

    @contextlib.contextmanager
    def display(*_args, **_more):
        def hear(variant, event):
            if variant.name == "bnb4" and isinstance(event, Finished):
                raise KeyboardInterrupt

        yield hear

    with monkeypatch.context() as patch:
        patch.setattr("qeval.cli.progress.display", display)
        qeval(*words, code=130)
    here = ("--runs-dir", "kept")
    judged = qeval("gate", *here, "--max-drop", "90", code=5).stdout
    assert "qeval_facts: scored, and judged once bnb4 is finished." in judged
    assert "qeval_words: the run was interrupted before bnb4 was scored on qeval_words." in judged
    qeval("report", *here, "-o", "r.txt")
    told = "Unfinished: bnb4 (scored: qeval_facts; missing: qeval_words). Go on with: "
    for text in (judged, qeval("show", *here).stdout, Path("r.txt").read_text("utf-8")):
        assert told in text
        assert shlex.split(GOES_ON.search(text)[1])[: len(words)] == words
    qeval(*shlex.split(GOES_ON.search(judged)[1]))
    assert "Unfinished" not in qeval("gate", *here, "--max-drop", "90", code=None).stdout


def test_a_run_that_is_passed_over_says_what_finishes_it(qeval, monkeypatch) -> None:
    qeval(*RUN, "--schemes", "fp16")
    monkeypatch.setattr(sys, "argv", ["qeval", *TWO, "--prepare"])
    qeval(*commands(qeval(*TWO, "--prepare").stderr)[0])
    said = qeval("show").stderr
    assert "has no results: it is scored, not finished." in said
    qeval(*shlex.split(FINISH.search(said)[1]))
    assert "Note:" not in qeval("show").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (TWO, "The run is finished."),
        ((), "Another command scores what is left."),
    ],
)
def test_a_worker_whose_plan_was_taken_away_says_why(qeval, monkeypatch, words, said: str) -> None:
    place = Path(qeval(*TWO, "--prepare").stdout.strip())

    def work(*_args) -> bool:
        planning.withdraw(RunDir(place).read(), RunDir(place))
        if words:
            qeval(*words)
        return True

    monkeypatch.setattr("qeval.run.taking.work", work)
    assert qeval("worker", place).stderr.strip() == said
    assert qeval("worker", place, "--quiet").stderr == ""
