"""Carrying out an Order: it becomes jobs, jobs become results, and run.json tells of each variant."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from qeval.ask.order import Order, check
from qeval.ask.placing import CLUSTERS
from qeval.ask.repeats import Repeat, nothing_to_repeat, repeats
from qeval.base import contents, next_steps
from qeval.base.errors import Exit, QevalError
from qeval.base.hashing import digest
from qeval.base.messages import REFUTED, Event, Failed, Fed, FidelityJob, Job, Note, Stage
from qeval.base.packing import Packing
from qeval.base.places import tasks_dir
from qeval.base.records import Cell, Result, Run, Variant
from qeval.base.repeats import repeats_of, scorings, with_repeat
from qeval.load.toy import is_toy
from qeval.run import fidelity, identity, planning, pool, room, seats
from qeval.run.ahead import ahead_of
from qeval.run.before import before
from qeval.run.executors import EXECUTORS, Prepare, ahead, end_of, opened
from qeval.run.keeping import fed, knowing, learned, result_of, standing, with_result
from qeval.run.seats import Seat
from qeval.store import newest
from qeval.store.lock import LockedError, held
from qeval.store.runs import RunDir, Store
from qeval.store.shards import forget_tries
from qeval.store.standing import standing as stands

Listener = Callable[[Variant, Event], None]


def farewell(run: Run, path: Path) -> str:
    """Where a run is kept, and what to do next: go on, where it is not complete. After a failure also where
    the libraries' own words are."""
    kept = f"\nSaved to {path}."
    if exit_code(run) != Exit.PASS:
        kept += f" Library logs: {path / 'logs'}."
    if left := next_steps.steps(run, stands(RunDir(path), run)):
        return f"{kept}\n{next_steps.listed(left)}"
    scored = any(result.cells for result in run.results)
    if not scored:
        return kept
    steps = [next_steps.report(str(path))]
    if len(run.results) > 1:
        steps.append(next_steps.gate(str(path), run.suite.name))
    return f"{kept}\n{next_steps.listed(steps)}"


def exit_code(run: Run) -> Exit:
    """ERROR where a variant or a repeat of one failed; the others' results stand all the same."""
    return Exit.PASS if all(result.status in {"done", "stopped"} for result in scorings(run)) else Exit.ERROR


def execute(order: Order, listen: Listener, alive: Callable[[], bool] | None = None) -> RunDir:
    """Score every variant, then what is to be scored once more, resuming what an earlier attempt finished;
    returns the run's directory.

    A variant that fails is recorded and the others go on. `alive`: whether workers that score what is to be
    finished may still come. Raises QevalError for an order that cannot be begun at all, KeyboardInterrupt
    (after writing run.json) when the person stops it.
    """
    if order.again:
        contents.forget(order.cache_dir)
    with newest.beginning(order.runs_dir, order.variants[0].model):
        return _executed(order, Store(order.runs_dir), listen, alive)


def _executed(order: Order, store: Store, listen: Listener, alive: Callable[[], bool] | None) -> RunDir:
    refused = check(order)
    with opened(order) as found, contextlib.ExitStack() as stack:
        places = found or (seats.ALONE if order.only else _seated(order))
        if places.note:
            listen(order.variants[0], Note(places.note))
        if found or order.only or is_toy(order.variants[0].model):
            return _execute(order, store, refused, _Hands(listen, places.all, lambda _: None, alive))
        prepare = stack.enter_context(ahead(order.executor))
        alone = len(order.variants)  # on a CPU, whoever else imports takes time from those who have work
        for seat in places.all if places.all[0].device else places.all[:alone]:
            prepare(seat.environment)
        hear = listen if len(places.all) > 1 else ahead_of(order, places.all[0], prepare, listen)
        return _execute(order, store, refused, _Hands(hear, places.all, prepare))


def _seated(order: Order) -> seats.Seats:
    """Where the workers of this machine sit, as many as its memory holds weights for."""
    places = seats.seats(order)
    return places if is_toy(order.variants[0].model) else room.holding(order, places)


def rehearsed(order: Order) -> tuple[RunDir, int]:
    """Where the run of an order is kept, and how many of its variants have no result yet that stands.

    Changes nothing on disk. Raises QevalError for an order that cannot be begun at all.
    """
    refused = check(order)
    identities, context = identity.identities(order, refused), identity.context_of(order)
    place = Store(order.runs_dir).run_dir(identity.run_id(order, identities, context))
    run = planning.taken_up(standing(order, place)[0], place, order.cost)
    jobs = (_job(order, one, identities, context, place) for one in order.variants if one.name not in refused)
    return place, sum(not _settled(order, run, job, place, lambda *_: None) for job in jobs)


class _Hands(NamedTuple):
    """What an order is carried out with."""

    listen: Listener
    seats: tuple[Seat, ...]
    prepare: Prepare
    alive: Callable[[], bool] | None = None


def _execute(order: Order, store: Store, refused: dict[str, QevalError], hands: _Hands) -> RunDir:
    identities = identity.identities(order, refused)
    context = identity.context_of(order)
    more = repeats(order, refused)
    place = store.run_dir(identity.run_id(order, identities, context))
    try:
        with held(place.path):
            planning.refuse_workers(order, place)
            return _at_work(order, store, refused, hands, place, identities, context, more)
    except LockedError:
        store.mark_newest(place.path.name)  # it is this very run, and another command is at it
        raise


def _at_work(
    order: Order,
    store: Store,
    refused: dict[str, QevalError],
    hands: _Hands,
    place: RunDir,
    identities: dict[str, dict[str, Any]],
    context: dict[str, Any],
    more: tuple[Repeat, ...],
) -> RunDir:
    listen = hands.listen
    run = planning.taken_up(_begin(order, place, identities), place, order.cost)
    if not (place.path / "cells").exists() and (told := before(order, store, place, identities)):
        listen(order.variants[0], Note(told))
    store.mark_newest(place.path.name)
    for variant in order.variants:
        if variant.name in refused:
            run = with_result(run, _refused(variant, refused[variant.name], listen), order.cost)
    seated = partial(hands.seats[0].seated, threads=seats.threads(order, run))
    asked = fidelity.asked(order, identities)
    jobs = [
        seated(_job(order, variant, identities, context, place, result_of(run, variant.name).packing, asked))
        for variant in sorted(order.variants, key=partial(_turn, order, len(hands.seats)))
        if variant.name not in refused
    ]
    if order.only == "prepare":
        todo = [job for job in jobs if not _settled(order, run, job, place, listen)]
        planning.plan(order, run, todo, place)
        return place
    if order.only == "finish":
        run = planning.followed(order, run, place, listen, hands.alive)
    else:
        planning.withdraw(run, place)
        run, seat = _all_scored(order, run, jobs, place, hands)
        planning.forget(place)
        seated = partial(seat.seated, threads=seats.threads(order, run))
    _forget_shards(run, place)
    for variant in order.variants:
        if why := nothing_to_repeat(order, refused).get(variant.name):
            listen(variant, Note(f"Nothing to repeat: {why}."))
    for repeat in more:
        run = _repeated(order, run, repeat, context, place, listen, seated)
    fidelity.measure(order, run, place, [seated(job) for job in jobs], listen)
    store.mark_newest(place.path.name)
    return place


def _scored(order: Order, run: Run, job: Job, place: RunDir, listen: Listener) -> Run:
    """The run with a variant's result, which is scored now unless it was before."""
    if _settled(order, run, job, place, listen):
        return run
    run = learned(with_result(run, _carry_out(order, job, run, place, listen), order.cost))
    place.write(run)
    _forget_shards(run, place)
    return run


def _all_scored(
    order: Order, run: Run, jobs: Sequence[Job], place: RunDir, hands: _Hands
) -> tuple[Run, Seat]:
    """The run with all variants' results, one after the other, or by several workers at once; and a seat for
    what comes after."""
    for job in jobs:
        forget_tries(place.shards(job.variant.name))
    if len(hands.seats) > 1 or order.executor in CLUSTERS:
        return _scored_at_once(order, run, jobs, place, hands)
    for job in jobs:
        run = _scored(order, run, job, place, hands.listen)
    return run, hands.seats[0]


def _scored_at_once(
    order: Order, run: Run, jobs: Sequence[Job], place: RunDir, hands: _Hands
) -> tuple[Run, Seat]:
    """The run with all variants' results, scored by several workers where they are not settled; and a seat
    whose device was not lost meanwhile, if there is one."""

    def hear(job: Job, event: Event) -> None:
        nonlocal run
        if isinstance(event, Fed):
            run = fed(run, job.variant.name, event.packing)
            place.write(run)
        hands.listen(job.variant, event)

    def done(_: Job, result: Result) -> None:
        nonlocal run
        run = learned(with_result(run, result, order.cost))
        place.write(run)

    todo = [job for job in jobs if not _settled(order, run, job, place, hands.listen)]
    work = pool.Hands(EXECUTORS[order.executor], end_of(order.executor), hands.prepare, hear, done)
    gated = order.policy is not None and bool(todo) and todo[0].variant.name == order.baseline
    workers = pool.Pool(todo, hands.seats, work, gated=gated, helps=order.shared_store)
    try:
        workers.work()
    except KeyboardInterrupt:
        place.write(run)
        raise
    _forget_shards(run, place)
    return run, workers.best or hands.seats[0]


def _turn(order: Order, workers: int, variant: Variant) -> tuple[bool, bool]:
    """By what variants are sorted: the baseline first, then, where several are scored at once, those that are
    quantised here with calibration text, which takes longest."""
    from qeval.load.schemes import SCHEMES

    made = SCHEMES[variant.scheme.kind].calibrated and variant.scheme.checkpoint is None
    return variant.name != order.baseline, workers > 1 and not made


def _forget_shards(run: Run, place: RunDir) -> None:
    """Remove what workers shared of variants that are finished."""
    for result in run.results:
        if result.status in {"done", "stopped"} and place.shards(result.variant.name).exists():
            place.forget_shards(result.variant.name)


def _settled(order: Order, run: Run, job: Job, place: RunDir, listen: Listener) -> bool:
    """Whether a variant has its result already, which is told."""
    known = result_of(run, job.variant.name)
    if known.status == "failed" and (known.error or "").startswith(REFUTED) and not order.verify:
        listen(job.variant, Failed(known.error or "", _VERIFY))
        return True
    whole = _finished(known, place, order.cost) and _is_of(job, known, place)
    if whole and not order.again and _verified(known, place, order.verify):
        listen(job.variant, Stage("finished earlier"))
        return True
    return False


def _carry_out(order: Order, job: Job, run: Run, place: RunDir, listen: Listener) -> Result:
    """The result of a job; run.json tells at once how it is fed, and is written where the person stops it."""

    def hear(event: Event) -> None:
        nonlocal run
        if isinstance(event, Fed):
            run = fed(run, job.variant.name, event.packing)
            place.write(run)
        listen(job.variant, event)

    try:
        return EXECUTORS[order.executor](job, hear)
    except KeyboardInterrupt:
        place.write(run)
        raise


def _repeated(
    order: Order,
    run: Run,
    repeat: Repeat,
    context: dict[str, Any],
    place: RunDir,
    listen: Listener,
    seated: Callable[[Job], Job],
) -> Run:
    """The run with a further scoring of one of its results, which must be whole to be compared with it."""
    variant, first = repeat.variant, result_of(run, repeat.of)
    known = next((one for one in repeats_of(first) if one.variant.name == variant.name), None)
    if first.status != "done":
        listen(variant, Note(f"{repeat.of} was not fully scored, so it is not scored again."))
        return run
    if known and _finished(known, place, cost=None) and not order.again:
        listen(variant, Stage("finished earlier"))
        return run
    try:
        job = seated(_job_of_repeat(order, repeat, context, place))
    except QevalError as error:
        result = _refused(variant, error, listen)
    else:
        result = _carry_out(order, job, run, place, listen)
    changed = with_repeat(first, result, path=repeat.by_path)
    run = replace(run, results=tuple(changed if one is first else one for one in run.results))
    place.write(run)
    return run


def _job_of_repeat(order: Order, repeat: Repeat, context: dict[str, Any], place: RunDir) -> Job:
    """The job of a repeat: nothing stops it, and neither costs nor lm-eval's numbers are wanted of it."""
    plain = replace(order, policy=None, settings=repeat.settings, verify=0, cost=False)
    found = {repeat.variant.name: identity.identity_of(repeat.variant, order)}
    job = _job(plain, repeat.variant, found, context, place)
    return msgspec.structs.replace(job, shuffled=repeat.by_path)


def _refused(variant: Variant, error: QevalError, listen: Listener) -> Result:
    """The result of a variant that cannot be run here, told at once."""
    listen(variant, Failed(error.message, error.hint))
    return Result(variant=variant, status="failed", error=f"{error.message} {error.hint}".strip())


def _begin(order: Order, place: RunDir, identities: dict[str, dict[str, Any]]) -> Run:
    """The run as it stands on disk, begun there where it was not."""
    run, begun = standing(order, place)
    run = knowing(run, identities)
    if not begun:
        place.write(run)
    return run


def _finished(result: Result, place: RunDir, cost: bool | None) -> bool:
    """Whether every cell is there, and measures where costs are asked for."""
    lacking = cost and not (result.cost and result.cost.measures)
    scored = result.status == "done" and bool(result.cells) and not lacking
    return scored and all(_whole(place, cell) for cell in result.cells)


_VERIFY = "Add --verify to have it looked at again, or score with --engine lm-eval."


def _verified(result: Result, place: RunDir, documents: int) -> bool:
    """Whether every cell was held against as many of lm-eval's answers as are asked for."""
    return all(place.verified(cell) >= documents for cell in result.cells)


def _is_of(job: Job, result: Result, place: RunDir) -> bool:
    """Whether the cells of a whole result are of the job's variant, as far as they tell."""
    told = [place.made_of(cell).get("variant") for cell in result.cells]
    return all(made_of is None or digest(made_of) == digest(job.identity) for made_of in told)


def _whole(place: RunDir, cell: Cell) -> bool:
    """Whether nothing of a cell was lost, the run tells its score, and what its key is made of is there."""
    found = place.whole(cell.key)
    return found is not None and found.score == cell.score and place.tells_key(cell.key)


def _job(
    order: Order,
    variant: Variant,
    identities: dict[str, dict[str, Any]],
    context: dict[str, Any],
    place: RunDir,
    packing: Packing | None = None,
    asked: FidelityJob | None = None,
) -> Job:
    return Job(
        runs_dir=str(order.runs_dir),
        run_id=place.path.name,
        variant=variant,
        identity=identities[variant.name],
        context=context,
        tasks=order.suite.tasks,
        settings=order.settings,
        tasks_dir=str(tasks_dir()),
        cache_dir=str(order.cache_dir),
        log=str(place.log(variant.name)),
        verify=order.verify,
        cost=order.cost,
        policy=order.policy,
        baseline=identities[order.baseline] if order.policy and variant.name != order.baseline else None,
        packing=packing,
        fidelity=asked,
        own_tasks=str(order.own_tasks) if order.own_tasks else None,
    )
