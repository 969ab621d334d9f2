"""Words of `qeval plan` that would do nothing beside others: refused, never passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from qeval.base.errors import UsageError

if TYPE_CHECKING:
    from qeval.compare.evidence import Evidence


def refuse_idle(ctx: click.Context) -> None:
    """Raise UsageError for a suite beside tasks, a guessed churn beside a measured one, and for variants of
    no model."""
    for one, other in (("suite", "tasks"), ("churn", "from_run")):
        if _typed(ctx, one) and _typed(ctx, other):
            words = other.removesuffix("_run")
            raise UsageError(f"--{one} says nothing beside --{words}.", "Leave one of them out.")
    idle = next((name for name in ("schemes", "revision") if _typed(ctx, name)), None)
    if idle and not _typed(ctx, "model"):
        raise UsageError(f"--{idle} is about variants of a model, and none is named.", "Add --model.")


def refuse_another_suite(ctx: click.Context, measured: Evidence | None) -> None:
    """Raise UsageError for a suite that is not the one which a run was asked."""
    from qeval.ask import suites

    if measured is None or not _typed(ctx, "suite"):
        return
    asked, ran = suites.load(ctx.params["suite"]).name, measured.run.suite.name
    if asked != ran:
        raise UsageError(
            f"The run {measured.run.id} is of the suite {ran}, not of {asked}.",
            f"Leave --suite out, or name a run of {asked}.",
        )


def _typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
