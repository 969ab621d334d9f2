"""What `qeval run` was asked for, checked as far as that needs no model; a refusal is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

    from qeval.ask.order import Order


def ordered(ctx: click.Context, runs_dir: Path, words: Sequence[str], asked: dict[str, Any]) -> Order:
    """The order that the words of a command make.

    A refusal is remembered: whoever judges next must not take an older run for the one that was asked for.
    Raises what `qeval.ask.order.order` raises, and UsageError for a task that does not exist.
    """
    from qeval.ask.order import order
    from qeval.base.errors import QevalError
    from qeval.cli.own_tasks import own_tasks
    from qeval.run.executors import slurm
    from qeval.store.newest import not_begun

    try:
        folder = asked.pop("tasks_dir")
        made = order(runs_dir=runs_dir, command=("qeval", *words), **asked)
        made = replace(made, own_tasks=own_tasks(folder, made.suite, asked["suite"], runs_dir))
        if made.executor == "slurm":
            slurm.check(made, words)
        _check_memory(ctx, made)
        _check_tasks(made, asked["suite"])
    except (QevalError, OSError, KeyboardInterrupt) as error:
        if not asked["dry_run"]:
            why = error.message if isinstance(error, QevalError) else str(error) or "it was stopped"
            not_begun(runs_dir, asked["model"], why)
        raise
    return made


def _check_memory(ctx: click.Context, order: Order) -> None:
    """Refuse a limit on a GPU's memory where this machine scores and has no GPU, and say where it stands."""
    from qeval.ask.placing import CLUSTERS
    from qeval.base.errors import UsageError
    from qeval.cli.configured import ENVIRONMENT, PREFIX, place_of
    from qeval.load.toy import is_toy
    from qeval.run.gpus import visible

    elsewhere = order.executor in CLUSTERS or order.only
    if order.settings.gpu_memory is None or elsewhere or is_toy(order.variants[0].model):
        return
    device = order.settings.device
    if not device.startswith("cuda") and (device != "auto" or not visible()):
        place = place_of(ctx, "gpu_memory")
        what = f"gpu_memory in {place}" if place else "--gpu-memory"
        what = f"{PREFIX}GPU_MEMORY" if place == ENVIRONMENT else what
        where = f"the device is {device}" if device != "auto" else "this machine has no NVIDIA GPU"
        hint = "Take it out there, and give --gpu-memory where there is a GPU." if place else "Leave it out."
        raise UsageError(f"{what} limits a GPU, and {where}.", hint)


def _check_tasks(order: Order, suite: str | None) -> None:
    """Refuse a task that does not exist, first; lm-eval's names are read from its files. Where lm-eval is not
    installed only the toy can be asked, and takes any name. It reads no task, but one of one's own must
    parse, as for a model."""
    from qeval.ask.order import check_tasks
    from qeval.base.places import tasks_dir
    from qeval.cli.own_tasks import harness_is_here, names_at_hand
    from qeval.load.toy import is_toy
    from qeval.score.harness.catalogue import known_tasks
    from qeval.score.harness.parsed import check

    if harness_is_here() or not is_toy(order.variants[0].model):
        known = known_tasks(tasks_dir(), order.cache_dir, order.own_tasks)
        check_tasks(order, known, names_at_hand(order.own_tasks, suite))
    if order.own_tasks is not None and is_toy(order.variants[0].model):
        check([task.name for task in order.suite.tasks], order.own_tasks)
