"""What is worked out once in a process, for it is the same in every test and takes long."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock


def remember(put: Callable[[Any, str, Any], None], place: Path) -> None:
    """Read the names in lm-eval's own 14 000 files once for all processes that share `place`, and not for
    every new cache directory; work out a bound once for the same counts, which simulations ask for many
    thousand times; ask git once of what commit this checkout is."""
    from qeval.base import installed
    from qeval.compare.stats import accuracies
    from qeval.score.harness import catalogue

    put(accuracies, "_score_bound", functools.cache(accuracies._score_bound))
    scan, stock = catalogue.scan, catalogue._stock_root()
    note = place / "tasks.json"

    @functools.cache
    def known() -> catalogue.Catalogue | None:
        with FileLock(place / "tasks.lock"):
            if not note.is_file():
                catalogue._write(note, "", scan(stock))
            return catalogue._read(note, "")

    put(catalogue, "scan", lambda root: known() if root == stock else scan(root))
    git, here = installed._git, str(installed._CHECKOUT)
    told = functools.cache(functools.partial(git, here))

    def asked(folder: str, *words: str) -> str | None:
        return told(*words) if folder == here and shutil.which("git") else git(folder, *words)

    put(installed, "_git", asked)
