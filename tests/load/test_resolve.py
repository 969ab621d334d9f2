"""Which checkpoint a variant means is decided in one place."""

from __future__ import annotations

import re
from pathlib import Path

import qeval

PACKAGE = Path(qeval.__file__).parent


def test_nothing_but_the_resolver_decides_which_weights_are_meant() -> None:
    """A catalogue is asked, a named checkpoint becomes a place to read, in `load/resolve.py` alone."""
    deciding = re.compile(r"\.known\(|Source\([^)]*scheme\.checkpoint|Source\(variant\.model")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if deciding.search(path.read_text("utf-8"))
    }
    assert found == {"load/resolve.py"}


def test_no_scheme_makes_its_checkpoint_a_second_time() -> None:
    for path in (PACKAGE / "load" / "schemes").glob("*.py"):
        assert not re.search(r"(?<!def )\bmake\(recipe\)", path.read_text("utf-8")), path.name
