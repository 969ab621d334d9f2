"""Which runs a person means: those that are named, else the newest; a newer one is not passed over unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.store.newest import Shown


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
        told_of = f"This is the newest that has results: {run.id}, {begun(run.created)}."
        say(f"Note: {found.passed_over} {told_of}{_only_shown(found)}", err=True)
    return (str(found.place.path),)


def _only_shown(found: Shown) -> str:
    """Why the older run is shown here and judged nowhere."""
    if not found.remedy:
        return ""
    make = f"{found.remedy[0].lower()}{found.remedy[1:]}"
    return f" It may be shown, not judged: for qeval gate, {make}, or name a run."


def refuse_nowhere(ctx: click.Context, runs_dir: Path) -> None:
    """Raise BadParameter for a directory of runs that was typed and is not there; it is not an empty one."""
    typed = ctx.get_parameter_source("runs_dir") is ParameterSource.COMMANDLINE
    if typed and not runs_dir.is_dir():
        raise click.BadParameter(f"There is no directory {str(runs_dir)!r}.", ctx, param_hint="'--runs-dir'")
