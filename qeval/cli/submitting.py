"""A run that others score: what would be submitted is shown, or it is submitted, or left to workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qeval.base.errors import Exit
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.ask.order import Order
    from qeval.store.runs import RunDir


def _elements(order: Order, variants: int) -> int:
    """How many workers are submitted for so many variants; none where nothing is left for them."""
    return (order.workers or variants) if variants else 0


def rehearse(order: Order, words: Sequence[str]) -> None:
    """Print what would be submitted."""
    from qeval.run import runner
    from qeval.run.executors import slurm

    place, variants = runner.rehearsed(order)
    if not variants:
        say("Every variant is finished: nothing would be submitted.", err=True)
        return
    for call in slurm.calls(order, place, words, _elements(order, variants)):
        say(f"{call}\n")


def leave_to_others(order: Order, words: Sequence[str], place: RunDir, loudness: int) -> Exit | None:
    """Have a prepared run scored by whom it was prepared for; None where that is done, else the exit code."""
    submits = order.executor == "slurm"
    return _submit(order, words, place, loudness) if submits else _leave_to_workers(place)


def _leave_to_workers(place: RunDir) -> Exit:
    """Print where a prepared run is, and what comes after: workers, if there is anything for them, then its
    end."""
    from qeval.base import next_steps
    from qeval.store.standing import standing
    from qeval.store.work import Work

    path = place.path.resolve()
    run, plan = place.read(), Work(place.work).plan()
    stands = standing(place, run)._replace(place=str(path))
    steps, told = [next_steps.finish(run, stands)], "Nothing is left to score."
    if plan and plan.parts:
        steps.insert(0, next_steps.worker(stands))
        told = "Start any number of workers, on machines that see the run; finish it when they are done."
    say(str(path))
    say(f"{told}\n{next_steps.listed(steps)}", err=True)
    return Exit.PASS


def _submit(order: Order, words: Sequence[str], place: RunDir, loudness: int) -> Exit | None:
    """Have a prepared run scored by Slurm; None where that is done, else the exit code."""
    from qeval.cli import progress
    from qeval.run import runner
    from qeval.run.executors import slurm
    from qeval.store.work import Work

    path, plan = place.path.resolve(), Work(place.work).plan()
    elements = _elements(order, len(plan.parts) if plan else 0)
    finish = replace(order, only="finish")
    if not elements:
        with progress.display(len(order.variants), loudness) as listen:
            runner.execute(finish, listen)
        return None
    jobs = slurm.submit(order, place, words, elements)
    say(f"Submitted: job {jobs.array}, {elements} of qeval worker. Logs: {path / 'logs'}.", err=True)
    if order.wait:
        display = progress.display(len(order.variants), loudness)
        with slurm.cancelled_on_ctrl_c(jobs.array), display as listen:
            runner.execute(finish, listen, slurm.Queue(jobs.array))
        return None
    say(f"Then job {jobs.last} reports, in slurm-{jobs.last}-finish.log there.", err=True)
    if order.policy is None:
        return Exit.PASS
    say(
        "Nothing is judged yet, so the exit code is that of missing data. --wait waits for the verdict.",
        err=True,
    )
    return Exit.MISSING
