"""A file of another kind where a suite, a policy or a task belongs: what it is, and the command it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

OTHERS = {
    "sums.toml": 'average = []\n[[task]]\nname = "my_sums"\n',
    "my_sums.yaml": "task: my_sums\ndataset_path: json\n",
    "x.jsonl": '{"question": "2 and 2 is", "choices": ["4", "5"], "answer": 0}\n',
    "x.csv": "question,answer\n",
    "x.parquet": "PAR1",
    "x.jsonl.gz": "",
    "policy.toml": "gate.max_drop = 50.0\n",
    "other.yaml": "on: push\njobs: {}\n",
    "results_1.json": json.dumps({"results": {"arc_easy": {"acc,none": 0.5}}}),
    "samples_arc_easy_1.jsonl": "{}\n",
    "scores.toml": "[[score]]\nvariant = 'fp16'\n",
    "sums.TOML": "[[task]]\nname = 'my_sums'\n",
}


@pytest.fixture
def others(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a suite and its task, and files in it that are no suites."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in OTHERS.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return folder


DESCRIBE = "Describe it in own/x.yaml (docs/extend/suite.md shows the whole file; task: x, data_files: "


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("x.jsonl", f"x.jsonl holds data, and a suite is a TOML file{{}}\n{DESCRIBE}x.jsonl), then: {{}}"),
        ("x.csv", f"own/x.csv holds data, and a suite is a TOML file{{}}\n{DESCRIBE}x.csv), then: {{}}"),
        ("x.parquet", "own/x.parquet holds data, and a suite is a TOML file"),
        ("x.jsonl.gz", "own/x.jsonl.gz holds data, and a suite is a TOML file{}\nUnpack it first, then"),
        ("policy.toml", "own/policy.toml is a policy, not a suite.\nJudge by it with: qeval run --gate own/"),
        ("other.yaml", "own/other.yaml is no suite: it is not lm-eval's configuration of a run.\nSuch a con"),
        ("results_1.json", "own/results_1.json holds results of lm-eval, not a suite.\nMake a run of them w"),
        ("samples_arc_easy_1.jsonl", "holds samples of lm-eval, not a suite.\nMake a run of them with: "),
        ("scores.toml", "own/scores.toml is a table of scores, not a suite.\nMake a run of it with: qeval "),
        ("sums.TOML", "own/sums.TOML is no suite: a suite is a TOML file, or lm-eval's YAML"),
    ],
)
def test_a_file_of_another_kind_is_no_suite_and_says_what_it_is_for(
    qeval, others: Path, file: str, said: str
) -> None:
    words = said.format(
        ", or lm-eval's YAML configuration of a run.", f"--tasks {file[0]} --tasks-dir {others.name}"
    )
    for command in (("run", "--model", "toy"), ("plan",), ("fetch", "--to", "mirror")):
        assert words in qeval(*command, "--suite", f"own/{file}", code=2).stderr


def test_data_become_a_task_by_the_steps_that_are_told(qeval, others: Path) -> None:
    run = ("run", "--model", "toy", "--schemes", "fp16,bnb4")
    page = (Path(__file__).parents[2] / "docs" / "extend" / "suite.md").read_text("utf-8")
    whole = page.partition("```yaml\n")[2].partition("```")[0]
    told = qeval(*run, "--suite", "own/x.jsonl", code=2).stderr
    described = whole.replace("task: my_sums", "task: x").replace("sums.jsonl", "x.jsonl")
    (others / "x.yaml").write_text(described)
    qeval(*run, *told.partition("then: ")[2].split())
    again = qeval(*run, "--suite", "own/x.jsonl", code=2).stderr
    assert "A task beside it reads it: --tasks x --tasks-dir own" in again


def test_data_where_runs_are_kept_are_moved_first(qeval, others: Path) -> None:
    run = ("run", "--model", "toy", "--schemes", "fp16,bnb4")
    (others / "x.jsonl").rename("x.jsonl")
    told = qeval(*run, "--suite", "x.jsonl", code=2).stderr
    assert "Move it to x/x.jsonl and describe it in x/x.yaml (docs/extend/suite.md shows the whole" in told
    Path("x").mkdir()
    Path("x.jsonl").rename("x/x.jsonl")
    Path("x/x.yaml").write_text("task: x\n")
    qeval(*run, *told.partition("then: ")[2].split())


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("own/x.jsonl", "own/x.jsonl holds data, and a policy is a TOML file.\nA policy may be as "),
        ("own/other.yaml", "own/other.yaml is YAML, and a policy is a TOML file.\nA policy may be "),
        ("own/my_sums.yaml", "own/my_sums.yaml is a task, not a policy.\nName it with: --tasks my_sums --"),
        (
            "own/sums.toml",
            "own/sums.toml is a suite, not a policy.\nScore it with: qeval run --suite own/sums",
        ),
        ("own/results_1.json", "holds results of lm-eval, not a policy.\nMake a run of them with: qeval imp"),
        ("own", "own is a folder, and a policy is a file.\nName a file in it: own/policy.toml.\n"),
        ("own/polcy.toml", "There is no policy own/polcy.toml.\nDid you mean own/policy.toml?"),
    ],
)
def test_a_file_of_another_kind_is_no_policy_and_says_what_it_is_for(
    qeval, others: Path, file: str, said: str
) -> None:
    assert others.is_dir()
    run = ("run", "--model", "toy", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    assert said in qeval(*run, "--gate", file, code=2).stderr
    assert said in qeval("gate", "--policy", file, code=2).stderr


def test_what_a_policy_may_be_is_one(qeval, others: Path) -> None:
    told = qeval("gate", "--policy", "own/x.csv", code=2).stderr
    (others / "mine.toml").write_text(told.partition("as short as: ")[2])
    run = ("run", "--model", "toy", "--schemes", "fp16,rtn[bits=8]", "--tasks", "qeval_facts")
    assert "rtn" in qeval(*run, "--gate", "own/policy.toml").stdout
    assert "own/mine.toml" in qeval("gate", "--policy", "own/mine.toml", "--json", code=None).stdout


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("demo", "It is a suite: --suite demo"),
        ("own/sums.toml", "It is a suite. Score it with: qeval run --suite own/sums.toml"),
        ("own/my_sums.yaml", "It is a task. Name it with: --tasks my_sums --tasks-dir own"),
        ("own/x.jsonl", f"It holds data. {DESCRIBE}x.jsonl), then: --tasks x --tasks-dir own"),
        ("./own", "It is a folder. Name tasks in it with: --tasks my_sums --tasks-dir own"),
    ],
)
def test_a_file_is_no_task_and_says_how_it_is_named(qeval, others: Path, task: str, said: str) -> None:
    assert others.is_dir()
    told = qeval("run", "--model", "toy", "--tasks", task, code=2).stderr
    assert f"There is no task {task!r}.\n{said}" in told
