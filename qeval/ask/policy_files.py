"""What is said of a policy's file that is not there, or that is something else: the file that is meant."""

from __future__ import annotations

from pathlib import Path

from qeval.ask import other_files
from qeval.ask.other_files import POLICY
from qeval.base.errors import UsageError
from qeval.base.nearby import nearest

_BEGIN = "A policy may be as short as: gate.max_drop = 1.0"


def refuse_another(path: Path) -> None:
    """Raise UsageError where a policy's file is not there, a folder, or of another kind: a suite, data.

    What cannot be read is left to whoever reads it.
    """
    if path.is_dir():
        policies = other_files.beside(path, POLICY)
        hint = f"Name a file in it: {', '.join(policies)}." if policies else _BEGIN
        raise UsageError(f"{path} is a folder, and a policy is a file.", hint)
    if not path.exists():
        near = nearest(path, lambda one: one.is_file() and one.suffix == ".toml")
        if near is not None:
            raise UsageError(f"There is no policy {path}.", f"Did you mean {near}?")
        return
    found = other_files.found(path) if path.is_file() else None
    if found is not None and found.what == other_files.DATA:
        raise UsageError(f"{path} holds data, and a policy is a TOML file.", _BEGIN)
    if found is not None and found.what != POLICY:
        raise UsageError(f"{path} {found.words}, not a policy.", found.remedy)
    if found is None and path.suffix in other_files.YAML:
        raise UsageError(f"{path} is YAML, and a policy is a TOML file.", _BEGIN)
