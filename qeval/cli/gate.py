"""`qeval gate` and `qeval plan`: whether a loss is allowed, and which losses can be judged at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.errors import UsageError
from qeval.cli import options

if TYPE_CHECKING:
    from qeval.base.records import Run
    from qeval.judge.plan import Planned
    from qeval.store.runs import Reader


@click.command()
@options.runs
@options.policy
@options.as_json
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML here.")
@click.option(
    "--badge", type=click.Path(path_type=Path, dir_okay=False), help="Write a shields.io endpoint badge."
)
@click.pass_context
def gate(
    ctx: click.Context,
    /,
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    as_json: bool,
    junit: Path | None,
    badge: Path | None,
    **limits: Any,
) -> None:
    """Decide whether the loss of a run (the newest, if none is named) is allowed.

    Exit code 0: every required rule passed. 3: one failed. 4: undecided, more items are needed. 5: data
    are missing or cannot be compared.
    """
    from qeval.ask.policy import demand
    from qeval.judge import formats
    from qeval.judge.gate import conclude

    result, read = options.open_runs(runs, runs_dir, baseline)
    outcome = conclude(result, read.samples, demand(**limits), baseline=baseline)
    formats.publish(outcome, junit_file=junit, badge_file=badge)
    click.echo(formats.to_json(outcome) if as_json else formats.table(outcome))
    ctx.exit(int(outcome.exit))


@click.command()
@click.option(
    "--suite", default="leaderboard-v1", show_default=True, metavar="NAME", help="A suite, or a TOML file."
)
@click.option("--tasks", metavar="LIST", help="lm-eval tasks instead of a suite.")
@click.option(
    "--n", "counts", multiple=True, metavar="TASK=N", help="Items of a task that qeval does not know."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many items of each task.")
@click.option("--churn", type=float, default=None, help="Share of answers that change.  [default: 0.1]")
@click.option(
    "--power", type=float, default=0.8, show_default=True, help="Probability of passing that is wanted."
)
@click.option("--from", "from_run", metavar="RUN", help="Take items and churn from a run.")
@options.policy
@options.runs_dir
@options.as_json
def plan(runs_dir: Path, as_json: bool, from_run: str | None, **asked: Any) -> None:
    """Tell, before a GPU is paid for, what losses the items there are can prove or refute."""
    from qeval.judge import plan as plans

    measured = options.open_runs([from_run], runs_dir, None) if from_run else None
    rows = _rows(measured=measured, **asked)
    if as_json:
        options.print_json(plans.document(rows))
    else:
        click.echo(plans.table(rows))


def _rows(
    *,
    suite: str,
    tasks: str | None,
    counts: Sequence[str],
    limit: int | None,
    churn: float | None,
    power: float,
    measured: tuple[Run, Reader] | None,
    **limits: Any,
) -> tuple[Planned, ...]:
    """What can be decided, row by row; see `qeval.judge.plan.plan`.

    Raises UsageError for words that make no sense, and what `qeval.judge.plan` raises.
    """
    from qeval.ask import policy, suites
    from qeval.judge import plan

    run = measured[0] if measured else None
    asked = run.suite if run and tasks is None else suites.from_tasks(tasks) if tasks else suites.load(suite)
    asked = suites.adjust(asked, limit=limit)
    sizes = plan.sizes(asked, dict(map(_count, counts)), run)
    known = plan.measure(run, measured[1].samples) if run and measured else None
    guess = plan.CHURN if churn is None else churn
    return plan.plan(asked, sizes, policy.choose(**limits), churn=guess, power=power, measured=known)


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdigit() or int(number) == 0:
        raise UsageError(f"--n {text!r} is not a number of items.", "Write e.g. --n my_task=500.")
    return name, int(number)
