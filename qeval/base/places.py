"""Where things lie that every part looks for: the project's tasks, and the cache."""

from __future__ import annotations

import os
from pathlib import Path


def tasks_dir() -> Path:
    """Where suites and the project's own tasks lie: inside the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def cache_dir() -> Path:
    """Where quantised checkpoints and tokenised requests are kept: $QEVAL_CACHE_DIR or ~/.cache/qeval."""
    return Path(os.environ.get("QEVAL_CACHE_DIR") or "~/.cache/qeval").expanduser()
