"""What the documentation draws and links to is there, and drawn by the code of today."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for place in (ROOT, ROOT / "docs", ROOT / "tasks", ROOT / "benchmarks", ROOT / "reports")
    for page in (place.glob("*.md") if place == ROOT else place.rglob("*.md"))
)


def test_the_picture_of_the_flow_is_as_drawn() -> None:
    spec = importlib.util.spec_from_file_location("draw_flow", ROOT / "docs" / "draw_flow.py")
    assert spec
    assert spec.loader
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert (ROOT / "docs" / "images" / "flow.svg").read_text(encoding="utf-8") == drawing.picture()
    folders = {path.name for path in (ROOT / "qeval").iterdir() if path.is_dir()}
    assert {name for name, *_ in drawing.STAGES} <= folders


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    made_up = {
        "ternary.py",
        "asciidoc.py",
        "gently.py",
        "science.toml",
    }  # what a reader of docs/extend writes
    for named in re.findall(
        r"`((?:qeval|tests|tasks|docs)/[\w/.-]+\.\w+)`", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / named).exists() or Path(named).name in made_up, f"{page.name} names {named}"
