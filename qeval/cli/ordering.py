"""What `qeval run` was asked for, checked as far as that needs no model; a refusal is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qeval.ask.order import Order


def ordered(runs_dir: Path, words: Sequence[str], asked: dict[str, Any]) -> Order:
    """The order that the words of a command make.

    A refusal is remembered: whoever judges next must not take an older run for the one that was asked for.
    Raises what `qeval.ask.order.order` raises, and UsageError for a task that does not exist.
    """
    from qeval.ask.order import order
    from qeval.base.errors import QevalError
    from qeval.run.executors import slurm
    from qeval.store.newest import not_begun

    try:
        made = order(runs_dir=runs_dir, command=("qeval", *words), **asked)
        if made.executor == "slurm":
            slurm.check(made, words)
        _check_tasks(made)
    except QevalError as error:
        if not asked["dry_run"]:
            not_begun(runs_dir, asked["model"], error)
        raise
    return made


def _check_tasks(order: Order) -> None:
    """Refuse a task that does not exist, first; lm-eval's names are read from its files."""
    from qeval.ask.order import check_tasks
    from qeval.base.places import tasks_dir
    from qeval.load.toy import is_toy
    from qeval.score.harness.catalogue import known_tasks

    if not is_toy(order.variants[0].model):
        check_tasks(order, known_tasks(tasks_dir(), order.cache_dir))
