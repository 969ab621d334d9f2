"""Reading and writing millions of small records without Python's looks for circles of garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Within it nothing looks for circles. Each look goes through all records there are, and took as long as
    all the rest of an import; records of JSON and rows of tables are in none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
