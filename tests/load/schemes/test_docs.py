"""What the documentation says of schemes is what their files say; `make docs` writes it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from qeval.load.schemes import SCHEMES

GENERATOR = Path(__file__).parents[3] / "docs" / "generate.py"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


@pytest.mark.parametrize("page", generate.PAGES, ids=lambda page: page.name)
def test_what_is_generated_is_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert generate.generated(text) == text, "write it anew: make docs"


def test_every_block_stands_in_a_page() -> None:
    text = "".join(page.read_text("utf-8") for page in generate.PAGES)
    assert sorted(re.findall(r"<!-- generated: (.+?) -->", text)) == sorted(generate.BLOCKS)
    assert sorted(found[1] for found in generate.MARKED.findall(text)) == sorted(generate.BLOCKS)


def test_every_scheme_and_option_is_documented() -> None:
    text = (GENERATOR.parent / "schemes.md").read_text("utf-8")
    for spec in SCHEMES.values():
        assert f"| [`{spec.name}`](#{spec.name}) | {spec.summary} |" in text
        assert spec.doc in text
        _, _, below = text.partition(f"\n### {spec.name}\n")
        own = below.partition("\n### ")[0]
        assert re.findall(r"^- `(\w+)=", own, re.MULTILINE) == list(spec.defaults)


def test_every_state_of_a_scheme_has_a_row_of_its_own() -> None:
    assert {spec.verified for spec in SCHEMES.values()} == set(generate.RAN_ON)


def test_a_page_out_of_date_is_written_anew() -> None:
    text = "before\n<!-- generated: schemes -->\nold\n<!-- end of schemes -->\nafter\n"
    assert generate.generated(text) == (
        f"before\n<!-- generated: schemes -->\n\n{generate.schemes()}\n\n<!-- end of schemes -->\nafter\n"
    )
