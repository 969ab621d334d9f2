"""Tasks that are nothing but names, for the toy, which invents all the rest."""

from __future__ import annotations

from pathlib import Path

import pytest


def name_tasks(folder: Path, patch: pytest.MonkeyPatch, *names: str) -> None:
    """Have `qeval run` take these names for tasks: their files go into a folder."""
    folder.mkdir()
    for name in names:
        (folder / f"{name}.yaml").write_text(f"task: {name}\n")
    patch.setenv("QEVAL_TASKS_DIR", str(folder))
