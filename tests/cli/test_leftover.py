"""A document of an earlier command in the place of one that was refused is said to be older."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def here(qeval, tmp_path: Path, monkeypatch) -> Path:
    """The folder that commands are typed in, with a run and a policy that cannot be read."""
    monkeypatch.chdir(tmp_path)
    qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    (tmp_path / "broken.toml").write_text("gate.max_drops = 1\n")
    return tmp_path


NOTE = "Note: {} is of an earlier command; this one wrote nothing there."


@pytest.mark.parametrize(
    "words",
    [
        ("report", "-o", "old.html", "--policy", "broken.toml"),
        ("report", "-o", "old.md", "no-such-run"),
        ("report", "--output=old.md", "--polcy", "broken.toml"),
        ("report", "-oold.md", "--margin", "x"),
        ("report", "-o", "old.md", "-o", "new.html", "--policy", "broken.toml"),
        ("history", "-o", "old.csv", "--policy", "broken.toml"),
        ("history", "-o", "old.csv", "-o", "new.xyz"),
        ("blame", "--model", "toy", "--scheme", "rtn", "--chart", "old.svg"),
        ("export", "--to", "nothing", "-o", "old"),
        ("export", "--to", "model-card", "-o", "old", "no-such-run"),
    ],
)
def test_what_an_earlier_command_left_is_said_to_be_of_it(qeval, here: Path, words: tuple[str, ...]) -> None:
    [name] = (one.rpartition("=")[2].removeprefix("-o") for one in words if "old" in one)
    file = here / name
    if file.suffix:
        file.write_text("of before")
    else:
        file.mkdir()
        (file / "README.md").write_text("of before")
    said = qeval(*words, code=None)
    assert said.exit_code in (1, 2)
    assert NOTE.format(name if file.suffix else f"what lies in {name}") in said.stderr
    assert said.stderr.count("Note:") == 1
    assert "Error" in said.stderr


def test_where_nothing_was_before_or_all_goes_well_nothing_is_said(qeval, here: Path) -> None:
    assert "Note" not in qeval("report", "-o", "new.md", "--policy", "broken.toml", code=2).stderr
    assert not (here / "new.md").exists()
    for _ in range(2):
        assert "Note" not in qeval("report", "-o", "new.md").stderr
        assert "Note" not in qeval("export", "--to", "csv", "-o", "out").stderr


def test_a_report_in_several_formats_is_written_whole_or_not_at_all(qeval, here: Path) -> None:
    for name in ("a.md", "b.xyz"):
        (here / name).write_text("of before")
    said = qeval("report", "-o", "a.md", "-o", "b.xyz", code=2)
    assert "There is no report format '.xyz'" in said.stderr
    assert said.stdout == ""
    assert (here / "a.md").read_text() == "of before"
    assert NOTE.format("a.md") in said.stderr
    assert NOTE.format("b.xyz") in said.stderr


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), KeyboardInterrupt()])
def test_a_mistake_of_ours_and_a_stop_leave_it_too(
    qeval, here: Path, monkeypatch, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (here / "old.md").write_text("of before")
    monkeypatch.setattr("qeval.report.formats.render", fail)
    assert NOTE.format("old.md") in qeval("report", "-o", "old.md", code=None).stderr


def test_of_two_files_only_the_one_that_was_not_written_is_of_before(qeval, here: Path) -> None:
    (here / "a.md").write_text("of before")
    (here / "sub").write_text("of before")
    said = qeval("report", "-o", "a.md", "-o", "sub/b.md", code=None).stderr
    assert "Note: a.md" not in said
    assert (here / "a.md").read_text() != "of before"
