"""`qeval worker`: a process that takes part in a run which was prepared, on whatever machine it is."""

from __future__ import annotations

from pathlib import Path

import click

from qeval.cli import options
from qeval.store.leases import MOST_SECONDS, SECONDS


@click.command(cls=options.Strict)
@click.argument("run", type=options.Place(path_type=Path), metavar="RUN")
@click.option(
    "--timeout",
    type=click.FloatRange(min=2, max=MOST_SECONDS),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker may be silent before it is taken for dead; the same for all workers of a run.",
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

    place = taking.store_of(run)
    with progress.display(loudness=loudness) as listen:
        fine = taking.work(place, listen, timeout, device)
    ctx.exit(int(Exit.PASS if fine else Exit.ERROR))
