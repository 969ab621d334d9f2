"""The documentation as a site: its links, that it fetches nothing, and the pages made of the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

from qeval.cli.main import main

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    """A module of docs/, by a name of our own: `site` is one of Python's."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def site() -> ModuleType:
    return load("site")


@pytest.mark.parametrize(
    ("page", "written", "read"),
    [
        ("index.md", "[a](docs/gate.md#b)", "[a](gate.md#b)"),
        ("index.md", "![a](docs/images/flow.svg)", "![a](images/flow.svg)"),
        ("gate.md", "[a](../README.md)", "[a](index.md)"),
        (
            "gate.md",
            "[a](noise.md) and [b](https://x.y/z.md) and [c](#d)",
            "[a](noise.md) and [b](https://x.y/z.md) and [c](#d)",
        ),
        ("extend/scheme.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("extend/scheme.md", "[a](../gate.md)", "[a](../gate.md)"),
        ("benchmarks.md", "[a](../docs/scale.md)", "[a](scale.md)"),
        ("gate.md", "[the code](../qeval/cli/gate.py)", "the code"),
        (
            "gate.md",
            "`[a](../README.md)`\n\n```\n[a](../README.md)\n```",
            "`[a](../README.md)`\n\n```\n[a](../README.md)\n```",
        ),
    ],
)
def test_links_lead_where_they_do_in_the_repository(
    site: ModuleType, page: str, written: str, read: str
) -> None:
    assert site.relinked(written, page, None) == read


def test_a_file_that_is_no_page_is_linked_where_the_repository_is_read(site: ModuleType) -> None:
    told = site.relinked("[the code](../qeval/cli/gate.py)", "gate.md", "https://example.org/qeval")
    assert told == "[the code](https://example.org/qeval/blob/HEAD/qeval/cli/gate.py)"


def test_readme_leads_somewhere_from_an_index_of_packages(site: ModuleType) -> None:
    text = "![p](docs/a.png) [a](docs/a.md#b) [c](#c) [d](https://x.y/z) `[e](e.md)`"
    at = "https://example.org/qeval"
    rest = "[c](#c) [d](https://x.y/z) `[e](e.md)`"
    led = f"![p]({at}/raw/HEAD/docs/a.png) [a]({at}/blob/HEAD/docs/a.md#b) {rest}"
    assert site.published(text, at) == led
    assert site.published(text, None) == f" a {rest}"


def test_every_page_from_outside_is_there(site: ModuleType) -> None:
    assert [name for name in site.OUTSIDE if not (ROOT / name).is_file()] == []


def test_every_page_of_docs_has_its_place(site: ModuleType) -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    decisions = {page for page in pages if page.startswith("decisions/0")}
    assert named == (pages - decisions) | set(site.OUTSIDE.values())
    assert yaml.safe_load(text)["theme"]["font"] is False


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        '<img alt="" src="http://x.example/y.png">',
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_found(site: ModuleType, tmp_path: Path, line: str) -> None:
    (tmp_path / "a.html").write_text(f'<a href="https://fine.example">x</a>{line}', "utf-8")
    (tmp_path / "b.html").write_text('<script src="assets/x.js"></script>', "utf-8")
    (tmp_path / "c.css").write_text("@import 'https://fonts.example/y.css'; a { background: url(x.png) }")
    assert [found.split(": ")[0] for found in site.strangers(tmp_path)] == ["a.html", "c.css"]


def test_every_message_of_the_code_has_a_row() -> None:
    reference = load("reference")
    raised = sum(
        len(re.findall(rf"\braise (?:{'|'.join(reference.ERRORS)})\(", file.read_text("utf-8")))
        for file in reference.PACKAGE.rglob("*.py")
    )
    found = list(reference._found())
    assert len(found) >= raised * 0.95 > 300  # the rest passes on words that others found
    assert all(one.text.strip() == one.text for one in found)
    text = reference.messages()
    assert "| There is no device … here. | Use auto or cpu; qeval doctor shows what there is. | 1 |" in text


def test_what_the_code_does_not_tell_is_a_mark() -> None:
    reference = load("reference")
    told = {
        "f'a {b!r} c'": "a … c",
        "'a' + x": "a…",
        "'a' if b else 'c'": "a / c",
        "did_you_mean(a, b)": "Did you mean …? (or what is known)",
        "x": "…",
    }
    assert {one: reference._words(ast.parse(one, mode="eval").body) for one in told} == told


def test_every_command_is_listed_with_its_help() -> None:
    text, commands = load("reference").cli(), main.list_commands(click.Context(main))
    assert re.findall(r"^## qeval (\w+)$", text, re.MULTILINE) == commands
    assert text.count("Usage: qeval") == 1 + len(commands)
    assert max(map(len, text.splitlines())) <= 100
