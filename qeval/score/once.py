"""A task is scored once for a variant: its name is all that tells its score from others."""

from __future__ import annotations

from collections.abc import Sequence

from qeval.base.errors import UsageError
from qeval.base.records import Task


def refuse_twice(tasks: Sequence[Task]) -> None:
    """Raise UsageError where a leaf task is asked for twice, with other metrics too."""
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"The task {twice!r} is asked for twice.",
            "Name it once, either on its own or through a group.",
        )
