"""Which runs a person means: those that are named, else the newest; a newer one is not passed over unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from qeval.cli.speech import say


def meant(
    names: Sequence[str], runs_dir: Path, *, judged: bool = False, told: bool = True
) -> tuple[str, ...]:
    """The names as they are, else the newest run's directory.

    What is `judged` is the newest run of all, or nothing; what is only shown is the newest that has results,
    and a note says which newer one was passed over, and why. `told`: whether that may name a model.
    """
    from qeval.cli.ages import begun
    from qeval.store import newest
    from qeval.store.runs import Store

    if names:
        return tuple(names)
    if judged:
        return (str(newest.strictly(Store(runs_dir), told=told).path),)
    found = newest.shown(Store(runs_dir), told=told)
    if found.passed_over:
        run = found.place.read()
        say(
            f"Note: {found.passed_over} This is the newest that has results: {run.id}, {begun(run.created)}.",
            err=True,
        )
    return (str(found.place.path),)


def refuse_nowhere(ctx: click.Context, runs_dir: Path) -> None:
    """Raise BadParameter for a directory of runs that was typed and is not there; it is not an empty one."""
    typed = ctx.get_parameter_source("runs_dir") is ParameterSource.COMMANDLINE
    if typed and not runs_dir.is_dir():
        raise click.BadParameter(f"There is no directory {str(runs_dir)!r}.", ctx, param_hint="'--runs-dir'")
