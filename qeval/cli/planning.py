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


def refuse_workers(
    model: str | None, devices: str | None, workers: int | None, gpu: str | None, gpus: int
) -> None:
    """Raise UsageError where the words on workers make no sense, together or on this machine; `gpu` is the
    one of another machine."""
    from qeval.ask import placing

    named = "--devices" if devices is not None else "--workers" if workers is not None else None
    if named is None:
        return
    if model is None:
        raise UsageError(f"{named} is about variants of a model, and none is named.", "Add --model.")
    if gpu is not None:
        raise UsageError(
            f"{named} counts what this machine has, and --gpu {gpu} is in another.", "Leave one of them out."
        )
    placing.device_of(model, "auto", devices, workers, None)
    placing.check_spread(model, {"gpus": gpus}, {"--workers": workers is not None})


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
