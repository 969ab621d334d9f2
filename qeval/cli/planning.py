"""What `qeval plan` plans: what can be decided, memory and time. Words that would do nothing are refused."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.reading import whole
from qeval.cli import forecast, memory, own_tasks
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.base.records import Suite
    from qeval.compare.evidence import Evidence
    from qeval.judge.plan import Planned
    from qeval.run.seats import Seats


@dataclass(frozen=True)
class Plan:
    """Everything that is planned: rows, with the noise that a run measured; of a model what its variants
    need, the workers that would begin, and the time, as far as they were asked for."""

    rows: tuple[Planned, ...]
    noise: tuple[str, ...]
    power: float
    measured: bool
    needs: Sequence[memory.Need] = ()
    seats: Seats | None = None
    time: forecast.Prediction | None = None


@dataclass(frozen=True)
class _Asked:
    """What would be asked: the suite, its name where it was named, the folder of tasks of one's own, and the
    run that was asked the same."""

    suite: Suite
    named: str | None
    own: Path | None
    limit: int | None
    measured: Evidence | None


_OF_MODEL = ("model", "schemes", "revision", "placement", "gpu_memory", "gpus")
_OF_TIME = ("gpu", "price", "datasets_dir", "tasks_dir")
_OF_SUITE = ("suite", "tasks", "limit")
_OF_POOL = ("devices", "workers")


def planned(words: dict[str, Any], measured: Evidence | None) -> Plan:
    """What the words of the command ask for, by the names of its options. Raises UsageError where they make
    no sense, and QevalError where a run of them would be refused."""
    from qeval.judge import floor

    of_model, timed, of_suite, pool = (
        {name: words.pop(name) for name in names} for names in (_OF_MODEL, _OF_TIME, _OF_SUITE, _OF_POOL)
    )
    forecast.check(timed["gpu"], timed["price"], of_model["model"])
    away = timed["gpu"] if forecast.elsewhere(timed["gpu"]) else None
    refuse_workers(of_model["model"], **pool, gpu=away, gpus=of_model["gpus"])
    asked = _asked(**of_suite, tasks_dir=timed["tasks_dir"], measured=measured)
    _refuse_what_no_task_has(asked)
    of_model["gpu_memory"] = forecast.memory_of(timed["gpu"], of_model["gpu_memory"])
    needs = memory.needs(**of_model, elsewhere=away is not None, on_cpu=pool["workers"] is not None)
    seats = None if away else memory.workers_begun([need.variant for need in needs], of_model, **pool)
    time = _time(needs, asked, of_model, timed)
    rows = _counted_rows(asked, time, **words)
    noise = tuple(floor.of_plan(rows, measured)) if measured else ()
    return Plan(rows, noise, words["power"], measured is not None, needs, seats, time)


def text(found: Plan, width: int | None) -> str:
    """It for a person, in so many columns."""
    from qeval.judge import plan as plans

    parts = [
        plans.table(found.rows, found.noise, width, power=found.power, measured=found.measured),
        memory.table(found.needs, width) if found.needs else "",
        found.seats.note if found.seats else "",
        forecast.table(found.time, width) if found.time else "",
    ]
    return "\n\n".join(filter(None, parts))


def document(found: Plan) -> dict[str, Any]:
    """It as JSON-able data."""
    from qeval.judge import plan as plans

    told = plans.document(found.rows, found.noise)
    if found.needs:
        told |= {"memory": memory.document(found.needs), **memory.workers_document(found.seats)}
    return told | ({"time": forecast.document(found.time)} if found.time else {})


# --- what is refused ----------------------------------------------------------------------------


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


def _refuse_what_no_task_has(asked: _Asked) -> None:
    """Raise what `qeval run` raises for a metric or filter that a task has not, as far as files here tell."""
    from qeval.base.places import cache_dir, tasks_dir
    from qeval.score.harness import written
    from qeval.score.harness.catalogue import catalogue

    if asked.measured is None:
        known = catalogue(tasks_dir(), cache_dir(), asked.own, stock=own_tasks.harness_is_here())
        written.check(asked.suite.tasks, known, None)


# --- what is planned ----------------------------------------------------------------------------


def _asked(
    suite: str, tasks: str | None, limit: int | None, tasks_dir: Path | None, measured: Evidence | None
) -> _Asked:
    """The named tasks, else what a run was asked, else a suite."""
    from qeval.ask import suites

    named = None if tasks is not None or measured else suite
    if tasks is not None:
        chosen = suites.from_tasks(tasks)
    else:
        chosen = measured.run.suite if measured else suites.load(suite)
    chosen = suites.adjust(chosen, limit=limit)
    return _Asked(chosen, named, own_tasks.own_tasks(tasks_dir, chosen, named), limit, measured)


def _time(
    needs: Sequence[memory.Need], asked: _Asked, of_model: dict[str, Any], timed: dict[str, Any]
) -> forecast.Prediction | None:
    """What the variants would take, where that is asked for."""
    from qeval.ask.fidelity import wish
    from qeval.ask.suites import documents_verified

    if timed["gpu"] is None or not needs:
        return None
    say("Building the questions and counting their tokens ...", err=True)
    settings = forecast.settings_of(
        asked.limit,
        timed["datasets_dir"],
        of_model["placement"],
        of_model["gpu_memory"],
        of_model["gpus"],
    )
    return forecast.predict(
        [need.variant for need in needs],
        asked.suite,
        settings,
        gpu=timed["gpu"].lower(),
        memory=of_model["gpu_memory"],
        price=timed["price"],
        verify=documents_verified(asked.named) if asked.named else 0,
        own=asked.own,
        fidelity=wish(None, None, of_model["model"], None if asked.limit else asked.named),
    )


def _counted_rows(asked: _Asked, time: forecast.Prediction | None, **words: Any) -> tuple[Planned, ...]:
    """What can be decided. Raises UsageError with the command to type where items of a task are not known."""
    from qeval.judge.sizing import UnknownSizesError

    try:
        here = {} if asked.measured else own_tasks.items_here(asked.own, asked.suite)
        return _rows(asked, here | (dict(time.items) if time else {}), **words)
    except UnknownSizesError as error:
        typed = shlex.join(("qeval", *sys.argv[1:]))
        near = own_tasks.nearest(error.tasks)
        meant = f"Did you mean {near!r}? If not, take" if near else "Take"
        raise UsageError(
            error.message,
            f"{meant} them from a run with --from RUN, or put the numbers in: {typed} {error.words}",
        ) from error


def _rows(
    asked: _Asked,
    found: Mapping[str, int],
    *,
    counts: Sequence[str],
    churn: float | None,
    power: float,
    **limits: Any,
) -> tuple[Planned, ...]:
    """What can be decided, row by row; see `qeval.judge.plan.plan`. `found` are items of tasks of which
    nobody else says how many there are.

    Raises UsageError for words that make no sense, and what `qeval.judge.plan` raises.
    """
    from qeval.ask import policy
    from qeval.base.sizes import MMLU_SUBJECTS, TASK_SIZES
    from qeval.judge import plan, sizing

    measured = asked.measured
    shared = sizing.shared_texts(measured) if measured else None
    unknown = {name: n for name, n in found.items() if name not in {*TASK_SIZES, *MMLU_SUBJECTS}}
    said = dict(map(_count, counts))
    counted = sizing.sizes(asked.suite, unknown | said, measured.run if measured else None, shared)
    _refuse_others(said, counted)
    known = sizing.measure(measured) if measured else None
    guess = plan.CHURN if churn is None else churn
    return plan.plan(asked.suite, counted, policy.choose(**limits), churn=guess, power=power, measured=known)


def _refuse_others(said: Mapping[str, int], counted: Mapping[str, object]) -> None:
    """Raise UsageError for items of a task that nobody asks for."""
    other = next((name for name in said if name not in counted), None)
    if other is not None:
        raise UsageError(f"--n {other}={said[other]}: {other} is no task here.", did_you_mean(other, counted))


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    count = whole(number)
    if not name or not count:
        raise UsageError(f"--n {text!r} is not a number of items.", "Write e.g. --n my_task=500.")
    return name, count
