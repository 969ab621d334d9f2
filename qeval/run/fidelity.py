"""Fidelity of a run: what its jobs are asked, and what is measured after them: whatever they could not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from qeval.ask.fidelity import FidelityWish
from qeval.ask.order import Order
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.messages import Event, FidelityJob, Job
from qeval.base.places import tasks_dir
from qeval.base.protocols import Protocol
from qeval.base.records import Result, Run, Variant
from qeval.run import identity
from qeval.run.executors import EXECUTORS
from qeval.run.keeping import result_of
from qeval.store import fidelity as stored
from qeval.store.inputs import LIMIT
from qeval.store.lock import held
from qeval.store.runs import RunDir

Listen = Callable[[Variant, Event], None]


def asked(order: Order, identities: dict[str, dict[str, Any]]) -> FidelityJob | None:
    """What the jobs of an order measure of fidelity; None where nothing is."""
    wish = order.fidelity
    if not (wish.protocols or wish.on_gpu) or order.baseline not in identities:
        return None  # of a repeat no baseline is known
    limit = LIMIT if wish.cache_limit is None else wish.cache_limit
    return FidelityJob(wish.protocols, wish.on_gpu, order.baseline, identities[order.baseline], limit)


def measure(order: Order, run: Run, place: RunDir, jobs: Sequence[Job], listen: Listen) -> None:
    """Measure what is missing or damaged: first see that the baseline's inputs are there, then variants."""
    wish = order.fidelity
    missing = lacking(wish, run, place, jobs)
    noise = bool(wish.protocols or wish.on_gpu) and bool(stored.sound(place.path)[1])  # it may be of that
    if not missing and not noise:
        return
    mine = [job for job in jobs if job.variant.name in {order.baseline, *missing}]
    mine.sort(key=lambda job: job.variant.name != order.baseline)
    for job in mine:
        alone = msgspec.structs.replace(
            job, tasks=(), verify=0, cost=False, policy=None, baseline=None, shuffled=False, part="whole"
        )
        result = EXECUTORS[order.executor](alone, _heard(job.variant, listen))
        if result.status == "failed" and job.variant.name == order.baseline:
            return  # without it there is nothing to compare with


def _heard(variant: Variant, listen: Listen) -> Callable[[Event], None]:
    def hear(event: Event) -> None:
        listen(variant, event)

    return hear


def lacking(wish: FidelityWish, run: Run, place: RunDir, jobs: Sequence[Job] = ()) -> tuple[str, ...]:
    """The variants, none of which failed, was stopped or is the baseline, that were not measured by some
    protocol that concerns them, or whose files, or the baseline's, are others now (as far as `jobs` tell)."""
    known = {job.variant.name: digest(job.identity) for job in jobs}
    found = [
        one
        for one in stored.sound(place.path)[0]
        if known.get(one.variant, one.variant_digest) == one.variant_digest
        and known.get(one.baseline, one.baseline_digest) == one.baseline_digest
    ]
    base = result_of(run, run.baseline)
    missing = []
    for result in run.results:
        if result is base or base.status == "failed" or result.status in {"failed", "stopped"}:
            continue
        have = {
            one.protocol
            for one in found
            if (one.variant, one.baseline, one.role) == (result.variant.name, run.baseline, "candidate")
        }
        if not have.issuperset(_concerning(wish, result)):
            missing.append(result.variant.name)
    return tuple(missing)


def _concerning(wish: FidelityWish, result: Result) -> tuple[Protocol, ...]:
    """The protocols by which a variant is measured on the device that it was scored on."""
    on_gpu = result.packing is not None and not result.packing.device.startswith("CPU")
    return (*wish.protocols, *(wish.on_gpu if on_gpu else ()))


# --- after the fact -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where a run that is measured later finds its cache, and what runs its jobs."""

    cache_dir: Path
    executor: str = "local"


def measure_run(place: RunDir, wish: FidelityWish, places: Places, listen: Listen) -> tuple[str, ...]:
    """Measure a stored run. Returns the variants that could not be measured.

    Raises QevalError for a run that qeval did not score, and where a model is not what it was when it was
    scored.
    """
    run = place.read()
    if run.source != "qeval":
        raise QevalError(
            f"{run.id} was scored by another tool ({run.source}), so there is nothing to load.",
            "Score the variants with qeval run.",
        )
    order = _order(run, wish, places, place)
    with held(place.path):
        jobs = _jobs(order, run, place)
        measure(order, run, place, jobs, listen)
    return lacking(wish, run, place, jobs)


def _order(run: Run, wish: FidelityWish, places: Places, place: RunDir) -> Order:
    variants = tuple(result.variant for result in run.results if result.status != "failed")
    return Order(
        variants=variants,
        baseline=run.baseline,
        suite=run.suite,
        settings=run.settings,
        runs_dir=place.path.parent,
        cache_dir=places.cache_dir,
        executor=places.executor,
        fidelity=wish,
    )


def _jobs(order: Order, run: Run, place: RunDir) -> list[Job]:
    identities = {variant.name: identity.identity_of(variant, order) for variant in order.variants}
    for variant in order.variants:
        _check_same(result_of(run, variant.name), identities[variant.name], place)
    wanted = asked(order, identities)
    return [
        Job(
            runs_dir=str(order.runs_dir),
            run_id=place.path.name,
            variant=variant,
            identity=identities[variant.name],
            context={},
            tasks=(),
            settings=order.settings,
            tasks_dir=str(tasks_dir()),
            cache_dir=str(order.cache_dir),
            log=str(place.log(variant.name)),
            fidelity=wanted,
        )
        for variant in order.variants
    ]


def _check_same(result: Result, now: dict[str, Any], place: RunDir) -> None:
    """Raise QevalError where the cells of a result are of another revision, or other files, and where no cell
    of what is to be measured tells of which it is."""
    told, again = stored.identities(place, result), "Run the same qeval run again, with --fidelity."
    if not told <= {digest(now)}:
        raise QevalError(
            f"{result.variant.name} is not what this run scored: its files, its revision or a package that it"
            " needs changed since.",
            again,
        )
    if not told and result.status != "stopped":
        raise QevalError(
            f"Nothing in this run proves what {result.variant.name} was when it was scored: it has no cell"
            " whose header can be read.",
            again,
        )
