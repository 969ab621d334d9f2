"""Files elsewhere that tasks of one's own name: found where they are there, the rest passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from qeval.base.elsewhere import files_below, named


def test_what_yaml_and_python_name_is_found(tmp_path: Path) -> None:
    tasks, data = tmp_path / "tasks", tmp_path / "data"
    tasks.mkdir()
    data.mkdir()
    for name in ("a.jsonl", "b.jsonl", "c.json", "base.yaml"):
        (data / name).write_text("{}")
    (data / "base.yaml").write_text("dataset_kwargs: {data_files: {test: a.jsonl}}\n")
    (tasks / "t.yaml").write_text(
        f"task: t\ninclude: ../data/base.yaml\ndataset_path: {data}/b*.jsonl\nf: !function x.y\n"
    )
    assert named(tasks) == [data / "a.jsonl", data / "b.jsonl", data / "base.yaml"]
    (tasks / "x.py").write_text(f"import json\nimport numpy\nPLACE = {str(data / 'c.json')!r}\n")
    assert named(tasks, by_code=True) == [data / "c.json"]


@pytest.mark.parametrize("name", ["a/" * 300, "a/" + "b" * 300, "https://a/b", "a\0/b", "org/name", ""])
def test_what_is_no_file_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.py").write_text(f"PLACE = {name!r}\n")
    (tmp_path / "broken.py").write_text("def\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "t.yaml").write_text("dataset_path: org/name\ninclude: " + "b" * 300 + "\n")
    assert named(tmp_path) == []


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.txt").write_text("")
    (inner / "back").symlink_to(tmp_path)
    assert [path.name for path in files_below(tmp_path)] == ["a.txt"]
