"""Directories and files that appear whole or not at all, shared by several processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from qeval.errors import QevalError


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that another process sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def build_directory(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, made by `build` in a directory beside it and renamed when complete, if it is not there.

    Of several processes one builds and the others wait; what a killed one left behind is removed by the
    next. Raises QevalError where the place cannot be written to or is full.
    """
    if target.is_dir():
        return target
    from filelock import FileLock  # a dependency of huggingface_hub; needed only where something is built

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                _build(target, build)
    except OSError as error:
        raise QevalError(
            f"{target.parent} cannot be written to: {error.strerror or error}.",
            "Free some space there, or name another cache directory.",
        ) from error
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{target.name}.partial-"
    for leftover in target.parent.glob(f"{prefix}*"):  # we hold the lock, so nobody is writing to it
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        build(partial)
        partial.chmod(0o755)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
