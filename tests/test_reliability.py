"""Every test that a promise names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_promise_is_held_by_a_test(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / file).read_text()


def test_promises_name_tests() -> None:
    assert len(NAMED) >= 10
