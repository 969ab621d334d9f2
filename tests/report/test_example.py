"""The committed example reports are what the code of today renders."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "reports" / "example" / "render.py"
spec = importlib.util.spec_from_file_location("render", SCRIPT)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
DRAWING = re.compile(r"<svg.*?</svg>", re.DOTALL)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("example")
    return out, example.render(out)


def words(path: Path) -> str:
    """The report without its drawings: where a letter stands in them depends on the machine's fonts."""
    return DRAWING.sub("<svg></svg>", path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_there_is_one_of_published_scores_for_each_model(rendered):
    names = {path.stem for path in rendered[1]}
    assert set(example.MODELS) <= names
    assert ("demo" in names) == (example.EXAMPLES / example.STORED).is_dir()


@pytest.mark.slow
def test_golden_examples_are_committed_as_rendered(rendered):
    for path in rendered[1]:
        committed = example.EXAMPLES / path.name
        assert committed.is_file(), f"{committed} is missing: make golden"
        assert words(path) == words(committed), f"{committed} is out of date: make golden"


@pytest.mark.slow
def test_the_charts_that_the_markdown_shows_are_there(rendered):
    for path in rendered[1]:
        if path.suffix == ".md":
            for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
                drawn = (example.EXAMPLES / name).read_text(encoding="utf-8")
                shown = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
                assert shown == re.findall(r"<text[^>]*>([^<]*)</text>", (path.parent / name).read_text())


@pytest.mark.slow
def test_the_articles_averages_are_in_the_published_example(rendered):
    text = (rendered[0] / "llama2-13b.html").read_text(encoding="utf-8")
    for average in ("58.66", "58.03", "56.90"):
        assert average in text
    assert "Only scores are known" in text


def test_the_readme_shows_what_the_example_says(tmp_path, qeval):
    qeval("report", example.EXAMPLES / example.STORED, "-o", tmp_path / "demo.txt")
    said = (tmp_path / "demo.txt").read_text(encoding="utf-8").splitlines()
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```\ntask   ", 1)[1].split("```")[0].splitlines()[1:]
    assert len(shown) > 10
    assert not [line for line in shown if line not in {"...", ""} and line not in said]
