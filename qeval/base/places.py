"""Where things lie that every part looks for: the project's tasks, and the cache."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path


def at_home(path: str | Path) -> Path:
    """The path with a leading ~ replaced by the home directory; as it is where nobody is meant."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - that of a Path raises RuntimeError then


def tasks_dir() -> Path:
    """Where suites and the project's own tasks lie: inside the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def cache_dir() -> Path:
    """Where quantised checkpoints and tokenised requests are kept: $QEVAL_CACHE_DIR or ~/.cache/qeval."""
    return Path(os.environ.get("QEVAL_CACHE_DIR") or "~/.cache/qeval").expanduser()


CHECKPOINTS, MODELS, INPUTS, REQUESTS = "checkpoints", "models", "fidelity", "requests"
"""The folders of the cache: what was quantised here, the demo model, what enters heads, tokenised tasks."""
COMPILED = "compiled"
"""By this name a process holds the caches of compilers, which lie elsewhere."""


def compiler_caches() -> tuple[Path, ...]:
    """Where torch's compiler and Triton keep what they compiled, as they decide it themselves."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        user = f"uid_{os.getuid()}" if hasattr(os, "getuid") else "unknown_user"
    user = re.sub(r'[\\/:*?"<>|]', "_", user)
    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or f"{tempfile.gettempdir()}/torchinductor_{user}"
    triton = os.environ.get("TRITON_CACHE_DIR") or "~/.triton/cache"
    return Path(inductor), Path(triton).expanduser()
