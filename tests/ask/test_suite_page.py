"""docs/extend/suite.md does what it says: its example is a suite that runs, its tables name every key."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from qeval.ask import suites
from qeval.base.errors import Exit
from qeval.base.places import tasks_dir

PAGE = (Path(__file__).parents[2] / "docs" / "extend" / "suite.md").read_text("utf-8")
[EXAMPLE, MINE] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
[COMMANDS] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def lying_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example among the suites that come with qeval."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for path in tasks_dir().glob("*.toml"):
        shutil.copy(path, folder)
    assert EXAMPLE.startswith("# "), "tests/test_tasks_data.py asks this of every suite"
    file = folder / "science.toml"
    file.write_text(EXAMPLE)
    monkeypatch.setattr(suites, "tasks_dir", lambda: folder)
    return file


@pytest.mark.slow
def test_the_example_is_found_by_its_name_and_runs(qeval, lying_there: Path) -> None:
    assert "science" in [row["suite"] for row in json.loads(qeval("list", "suites", "--json").stdout)]
    run, plan = (shlex.split(line)[1:] for line in COMMANDS.splitlines())
    rows = {row["task"] for row in json.loads(qeval(*run, "--json").stdout)["comparisons"]}
    assert rows >= {"arc_easy", "mmlu", "mmlu_macro", "wikitext", "average"}
    assert "arc_easy" in qeval(*plan, code=Exit.INCONCLUSIVE).stdout  # so few items decide no such limit
    assert suites.load(str(lying_there)) == suites.load("science")


def test_tasks_of_ones_own_can_be_pasted(tmp_path: Path) -> None:
    part = PAGE.partition("## Tasks of your own")[2]
    found = {kind: re.search(rf"```{kind}\n(.*?)```", part, re.DOTALL) for kind in ("toml", "json", "yaml")}
    texts = {kind: block[1] for kind, block in found.items() if block}
    assert texts["toml"] == MINE
    (tmp_path / "sums.toml").write_text(MINE)
    (task,) = suites.load(str(tmp_path / "sums.toml")).tasks
    asked = yaml.safe_load(texts["yaml"])
    assert (task.name, task.metric) == (asked["task"], asked["metric_list"][0]["metric"])
    assert {asked["doc_to_choice"], asked["doc_to_target"], "question"} == set(json.loads(texts["json"]))


def test_every_key_stands_in_its_table() -> None:
    for part, table in zip(
        PAGE.split("Of a `[[task]]`:"), (suites.SuiteTable, suites.TaskTable), strict=True
    ):
        keys = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
        assert sorted(keys) == sorted(table.__struct_fields__)
