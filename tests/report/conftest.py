"""Golden files and readers for the tests of reports."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def golden():
    """`golden(name, text)`: the text is what the file holds; QEVAL_UPDATE_GOLDEN=1 writes it instead."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("QEVAL_UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; make it with QEVAL_UPDATE_GOLDEN=1"
        assert text == path.read_text(encoding="utf-8"), (
            f"differs from {path}; QEVAL_UPDATE_GOLDEN=1 takes it"
        )

    return check
