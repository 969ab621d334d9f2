"""`qeval worker`: a process that takes part in a run which was prepared, on whatever machine it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qeval.cli import options
from qeval.cli.speech import say
from qeval.store.leases import MOST_SECONDS, SECONDS

if TYPE_CHECKING:
    from qeval.base.records import Run
    from qeval.store.runs import RunDir
    from qeval.store.work import Plan, Work


@click.command(cls=options.Strict)
@click.argument("run", type=options.Place(path_type=Path), metavar="RUN")
@click.option(
    "--timeout",
    type=click.FloatRange(min=2, max=MOST_SECONDS),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker may be silent before it is presumed dead; the same for all workers of a run.",
)
@click.option(
    "--device", metavar="DEVICE", help="cuda, cuda:1, cpu ...  [default: as the run says; the first GPU seen]"
)
@options.loudness
@click.pass_context
def worker(ctx: click.Context, run: Path, timeout: float, device: str | None, loudness: int) -> None:
    """Score what `qeval run --prepare` planned in the directory RUN, until nothing is left.

    Any number of workers share the work, started by any launcher, on machines that see RUN.
    """
    from qeval.base.errors import Exit
    from qeval.cli import progress
    from qeval.run import taking

    _refuse_a_name(run)
    place = taking.store_of(run)
    with progress.display(loudness=loudness) as listen:
        fine = taking.work(place, listen, timeout, device)
    if loudness >= 0 and (told := _last_words(place)):
        say(told, err=True)
    ctx.exit(int(Exit.PASS if fine else Exit.ERROR))


def _refuse_a_name(run: Path) -> None:
    """Raise UsageError for a run's name, or the directory of all runs, where the run's own is wanted."""
    from difflib import get_close_matches

    from qeval.base.errors import UsageError
    from qeval.base.places import at_home
    from qeval.store.runs import RUN_FILE, Store

    if (run / RUN_FILE).exists():
        return
    root = run if run.is_dir() else at_home(os.environ.get("QEVAL_RUNS_DIR") or "runs")
    names = [place.path.name for place in Store(root).runs()]
    if run.is_dir():
        near, why = names, f"{run} holds runs, and is none itself."
    else:
        begun = [name for name in names if name.startswith(run.name)]
        near, why = (
            begun or get_close_matches(run.name, names, 1),
            f"There is no directory {str(run)!r} here.",
        )
    if near:
        path = shlex.quote(str(root / near[0]))
        raise UsageError(why, f"A worker is told its run's directory: qeval worker {path}")


def _last_words(place: RunDir) -> str:
    """What comes next once nothing is left to score, and whoever is to finish the run does not do so yet; ""
    where a job of Slurm does."""
    from qeval.base import next_steps
    from qeval.store import lock
    from qeval.store.standing import whereabouts
    from qeval.store.work import Work

    run = place.read()
    work = Work(place.work)
    plan = work.plan()
    if plan is None:
        left = any(result.status == "partial" for result in run.results)
        return "Another command scores what is left." if left else "The run is finished."
    failed = _failed(run, work, plan)
    ended = f"{' and '.join(failed)} failed" if failed else "Every variant has its result"
    if lock.is_held(place.path):
        return f"{ended}; the command that waits for the workers finishes the run."
    if next_steps.by_slurm(run.command):
        return ""
    stands = whereabouts(place, run)
    if not failed:
        told = f"{ended}; the run is scored, not finished."
        return f"{told}\n{next_steps.listed([next_steps.finish(run, stands)])}"
    again = next_steps.listed([next_steps.go_on(run, stands)])
    return (
        f"{ended}, and nothing is left for workers. The next command scores again what failed, and finishes"
        f" the run; with --finish it only finishes it.\n{again}"
    )


def _failed(run: Run, work: Work, plan: Plan) -> list[str]:
    """The variants of a run that failed, by what is planned, or before they could be."""
    came = {part.job.variant.name: work.result(part.job.variant.name, plan.mark) for part in plan.parts}
    ends = ((one.variant.name, came.get(one.variant.name) or one) for one in run.results)
    return [name for name, result in ends if result.status == "failed"]
