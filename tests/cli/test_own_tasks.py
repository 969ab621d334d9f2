"""Tasks of one's own lie beside the suite's file or in a folder that is named; a task that is nowhere is
refused, whoever is asked."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qeval.ask import suites
from qeval.ask.order import Order
from qeval.base.errors import UsageError
from qeval.base.records import Scheme, Variant
from qeval.base.settings import Settings
from qeval.cli.own_tasks import own_tasks, told
from qeval.run.identity import context_of

pytestmark = pytest.mark.slow

SUITE = """# Sums.
name = "sums"
average = ["my_sums"]
[[task]]
name = "my_sums"
metric = "acc"
"""
TASK = """task: my_sums
dataset_path: json
dataset_kwargs: {data_files: sums.jsonl}
test_split: train
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a suite, its task and the task's data, outside of qeval."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sums.toml").write_text(SUITE)
    (folder / "my_sums.yaml").write_text(TASK)
    items = [
        {"question": f"{n} and {n} is", "choices": [f"{n + n}", f"{n + n + 1}"], "answer": 0}
        for n in range(9)
    ]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, items)))
    return folder


def test_a_task_is_found_beside_its_suite_or_in_a_folder_that_is_named(
    qeval, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("run", "--model", "toy", "--schemes", "fp16,bnb4", "--json")
    by_file = json.loads(qeval(*run, "--suite", mine / "sums.toml").stdout)
    assert [row["task"] for row in by_file["comparisons"]] == ["my_sums", "average"]
    refused = qeval(*run, "--tasks", "my_sums", code=2).stderr
    assert "There is no task 'my_sums'." in refused
    assert qeval(*run, "--tasks", "my_sums", "--tasks-dir", mine).exit_code == 0
    monkeypatch.setenv("QEVAL_TASKS_DIR", str(mine))
    assert qeval(*run, "--tasks", "my_sums").exit_code == 0


def test_its_files_are_part_of_what_a_run_is(mine: Path, tmp_path: Path) -> None:
    variant = Variant("fp16", str(tmp_path), Scheme("fp16"))
    suite = suites.load(str(mine / "sums.toml"))
    plain = Order((variant,), "fp16", suite, Settings(), tmp_path / "runs", tmp_path / "cache")
    order = replace(plain, own_tasks=mine)
    first = context_of(order)
    assert context_of(order) == first
    assert {**first, "own_tasks": None} == {**context_of(plain), "own_tasks": None}
    (mine / "sums.jsonl").write_text((mine / "sums.jsonl").read_text().replace("8 and 8", "8 plus 8"))
    assert context_of(order) != first


def test_a_folder_whose_code_is_run_is_named(mine: Path, tmp_path: Path) -> None:
    variant = Variant("fp16", "org/name", Scheme("fp16"))
    suite = suites.load(str(mine / "sums.toml"))
    plain = Order((variant,), "fp16", suite, Settings(), tmp_path / "runs", tmp_path / "cache")
    [said] = told(replace(plain, own_tasks=mine))
    assert str(mine) in said
    assert "is run" in said
    toy = replace(plain, variants=(replace(variant, model="toy"),), own_tasks=mine)
    assert [*told(plain), *told(toy)] == []


def test_it_is_named_unless_it_was_typed(
    qeval, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("run", "--model", tmp_path / "nowhere", "--schemes", "fp16")
    asked = "Tasks are looked for in"
    assert asked in qeval(*run, "--suite", mine / "sums.toml", code=None).stderr
    assert asked not in qeval(*run, "--tasks", "my_sums", "--tasks-dir", mine, code=None).stderr
    monkeypatch.setenv("QEVAL_TASKS_DIR", str(mine))
    assert asked in qeval(*run, "--tasks", "my_sums", code=None).stderr


def test_a_name_that_is_nowhere_is_refused_with_those_near_it(qeval) -> None:
    toy = ("run", "--model", "toy", "--schemes", "fp16", "--tasks")
    said = qeval(*toy, "arc_esy", code=2).stderr
    assert "There is no task 'arc_esy'.\nDid you mean 'arc_easy' or " in said
    assert qeval(*toy, "arc_easy").exit_code == 0
    assert "--tasks-dir" in qeval(*toy, "qqqqqqqq", code=2).stderr


def test_those_in_the_folder_come_before_those_of_lm_eval(qeval, mine: Path) -> None:
    (mine / "sums.toml").write_text(SUITE.replace("my_sums", "my_smus"))
    toy = ("run", "--model", "toy", "--schemes", "fp16")
    said = "There is no task 'my_smus'.\nDid you mean 'my_sums'?"
    assert said in qeval(*toy, "--suite", mine / "sums.toml", code=2).stderr
    assert said in qeval(*toy, "--tasks", "my_smus", "--tasks-dir", mine, code=2).stderr


def test_the_toy_says_that_it_reads_no_task_and_refuses_one_that_does_not_parse(qeval, mine: Path) -> None:
    run = ("run", "--model", "toy", "--schemes", "fp16", "--suite", mine / "sums.toml")
    said = "The toy answers 200 invented items for each task, whatever the task holds."
    assert said in qeval(*run).stderr
    (mine / "my_sums.yaml").write_text(TASK + "broken: [1, 2\nmore: {\n")
    refused = qeval(*run, code=1).stderr
    assert f"The file of task 'my_sums', {mine / 'my_sums.yaml'}, cannot be read: " in refused
    assert refused.rstrip().endswith("line 12, column 5.\nCorrect it.")


def test_names_that_nobody_could_check_are_told(qeval, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    run = ("run", "--model", "toy", "--schemes", "fp16", "--tasks")
    told = "Names of tasks were not checked, for lm-eval is not installed"
    assert f"{told}: qqqq." in qeval(*run, "qqqq,arc_challenge,qeval_facts").stderr
    assert told not in qeval(*run, "my_sums", "--tasks-dir", mine).stderr


def test_a_folder_that_holds_the_runs_is_no_folder_of_tasks(qeval, mine: Path) -> None:
    words = ("run", "--model", "toy", "--schemes", "fp16", "--suite", mine / "sums.toml")
    said = qeval(*words, "--runs-dir", mine / "runs", code=2).stderr
    assert "lies in the folder of your tasks" in said
    assert "--runs-dir" in said
    assert qeval(*words, "--runs-dir", mine.parent / "elsewhere").exit_code == 0


def test_a_folder_counts_only_where_a_task_of_the_suite_lies_in_it(mine: Path) -> None:
    suite = suites.load(str(mine / "sums.toml"))
    assert own_tasks(None, suite, str(mine / "sums.toml")) == mine
    assert own_tasks(None, suite, "sums") is None
    (mine / "my_sums.yaml").rename(mine / "my_sums.txt")
    assert own_tasks(None, suite, str(mine / "sums.toml")) is None
    with pytest.raises(UsageError, match="lies in the folder of your tasks"):
        own_tasks(mine, suite, None, mine / "runs")
