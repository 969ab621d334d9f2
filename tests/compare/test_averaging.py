"""Rows that are in no average, groups without a score and an average that is not there are said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_run

from qeval.ask.suites import refuse_in_average
from qeval.base.errors import UsageError
from qeval.base.records import Run, Suite, Task
from qeval.compare.averaging import sentences
from qeval.compare.merge import merge
from qeval.compare.rows import find_baseline, rows_of, score_of
from qeval.run.keeping import learned
from qeval.score.harness.written import perplexities

TASKS = (Task("one", "acc"), Task("two", "acc_norm"), Task("three", "word_perplexity", kind="perplexity"))


def run_of(average: tuple[str, ...], groups: dict[str, str] | None = None) -> Run:
    """A run whose suite names tasks, or groups of them, of which it knows neither metric nor kind."""
    found, _, _ = make_run(tasks=TASKS, n_items=20)
    of = groups or {}
    results = tuple(
        replace(
            result,
            cells=tuple(
                replace(cell, task=replace(cell.task, group=of.get(cell.task.name))) for cell in result.cells
            ),
        )
        for result in found.results
    )
    names = dict.fromkeys(of.get(task.name, task.name) for task in TASKS)
    suite = Suite("mine", tuple(Task(name, "") for name in names), average)
    return learned(replace(found, suite=suite, results=results))


def test_a_perplexity_that_the_average_was_to_have_is_said_to_be_left_out() -> None:
    run = run_of(("one", "two", "three"))
    assert (run.suite.average, run.left_out) == (("one", "two"), ("three",))
    [said] = sentences(run)
    assert said == "three is a perplexity, which has no mean with scores: the average is over one, two."
    assert learned(run) == run
    assert sentences(run_of(("one", "two"))) == ()
    assert (
        sentences(replace(run, suite=replace(run.suite, name="tasks"))) == ()
    )  # of --tasks, where nobody named any


def test_runs_that_are_joined_say_it_of_each_of_them() -> None:
    run = run_of(("one", "two", "three"))
    other = replace(run, id="run-2", left_out=("three", "four"))
    assert merge([run, other]).left_out == ("three", "four")


def test_a_group_of_perplexities_is_left_out_by_either_name() -> None:
    for name in ("kin", "kin_macro"):
        run = run_of(("one", "two", name), {"three": "kin"})
        assert (run.suite.average, run.left_out) == (("one", "two"), (name,))


@pytest.mark.parametrize("name", ["kin", "kin_macro"])
def test_a_group_of_several_metrics_has_no_score_and_neither_has_the_average(name: str) -> None:
    for members, metrics in ((("one", "two"), "acc, acc_norm"), (("two", "three"), "acc_norm, word_perp")):
        run = run_of((name, "one"), dict.fromkeys(members, "kin"))
        assert run.left_out == ()
        group, average = sentences(run)
        assert group.startswith("The group kin has no score of its own: its members are judged by different")
        assert metrics in group
        assert average == f"The suite's average is not there: it needs {name}, which has no score." or (
            "one" in members and average.startswith(f"The suite's average is not there: it needs {name}")
        )


def test_an_average_of_scores_and_perplexities_has_no_score() -> None:
    run = run_of(("one", "two"))
    mixed = replace(run, suite=replace(run.suite, average=("one", "three")))
    [row] = (row for row in rows_of(mixed) if row.level == "average")
    assert score_of(mixed, find_baseline(mixed), row) is None
    assert sentences(mixed) == ("The suite's average is not there: it mixes scores and perplexities.",)


def test_run_show_report_and_gate_say_it(qeval, tmp_path: Path) -> None:
    file = tmp_path / "asked.yaml"
    file.write_text("tasks: [qeval_facts, qeval_words, qeval_prose]\n")
    said = (
        "qeval_prose is a perplexity, which has no mean with scores: the average is over qeval_facts, qeval_w"
    )
    run = qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", "--suite", file).stdout
    report = tmp_path / "report.md"
    qeval("report", "-o", report)
    shown = qeval("show", "--json").stdout
    gate = qeval("gate", "--max-drop", "90", "--json", code=None).stdout
    for text in (run, report.read_text("utf-8"), shown, gate):
        assert said in text
    assert json.loads(shown)["suite"]["average"] == ["qeval_facts", "qeval_words"]


def test_what_its_yaml_says_is_a_perplexity_is_refused_in_an_average(tmp_path: Path) -> None:
    texts = {
        "words": "[{metric: word_perplexity}, {metric: byte_perplexity}]",
        "mine": "[{metric: surprise, aggregation: weighted_perplexity}]",
        "both": "[{metric: acc}, {metric: perplexity}]",
        "code": "[{metric: !function a.b}]",
    }
    for name, metrics in texts.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\nmetric_list: {metrics}\n")
    files = {name: str(tmp_path / f"{name}.yaml") for name in texts}
    tasks = [*(Task(name, "") for name in texts), Task("unknown", "")]
    assert [*perplexities(tasks, files)] == ["words", "mine"]
    assert [*perplexities([Task("words", "acc")], files)] == []
    suite = Suite("s", (Task("words", ""), Task("both", "")), ("both", "words"))
    with pytest.raises(UsageError, match="The suite s: average names 'words', a perplexity"):
        refuse_in_average(suite, ("words", "mine"))
    refuse_in_average(suite, ("mine",))


@pytest.mark.torch
def test_a_suite_is_refused_before_its_model_is_loaded(qeval, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "words.yaml").write_text("task: my_words\nmetric_list: [{metric: word_perplexity}]\n")
    asked = (
        'average = ["qeval_facts", "my_words"]\n[[task]]\nname = "qeval_facts"\n[[task]]\nname = "my_words"\n'
    )
    (own / "mine.toml").write_text(asked)
    words = ("run", "--model", "demo", "--schemes", "fp16,rtn", "--suite", own / "mine.toml")
    assert "average names 'my_words', a perplexity" in qeval(*words, code=2).stderr
