"""Carrying out an Order: it becomes jobs, jobs become results, and run.json tells of each variant."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from qeval import __version__
from qeval.ask.order import Order, check
from qeval.ask.repeats import Repeat, nothing_to_repeat, repeats
from qeval.base import contents
from qeval.base.costs import Cost
from qeval.base.errors import Exit, QevalError
from qeval.base.hashing import digest
from qeval.base.messages import REFUTED, Event, Failed, Fed, Finished, Job, Note, Stage
from qeval.base.packing import Packing
from qeval.base.places import tasks_dir
from qeval.base.records import Cell, Result, Run, Variant
from qeval.base.repeats import repeats_of, scorings, with_repeat, with_repeats_of
from qeval.load.toy import is_toy
from qeval.run import identity
from qeval.run.executors import EXECUTORS, ahead
from qeval.store.runs import RunDir, Store

Listener = Callable[[Variant, Event], None]


def farewell(run: Run, path: Path) -> str:
    """Where a run is kept, and what to do next; after a failure, where the libraries' own words are."""
    kept = f"\nSaved to {path}."
    if exit_code(run) != Exit.PASS:
        kept += f" Library logs: {path / 'logs'}."
    scored = any(result.cells for result in run.results)
    if not scored:
        return kept
    return f"{kept}\nNext: qeval report {path} -o report.html\n      qeval gate {path} --max-drop 1.0"


def exit_code(run: Run) -> Exit:
    """ERROR where a variant or a repeat of one failed; the others' results stand all the same."""
    return Exit.PASS if all(result.status in {"done", "stopped"} for result in scorings(run)) else Exit.ERROR


def execute(order: Order, listen: Listener) -> RunDir:
    """Score every variant, then what is to be scored once more, resuming what an earlier attempt finished;
    returns the run's directory.

    A variant that fails is recorded and the others go on. Raises QevalError for an order that cannot be
    begun at all, KeyboardInterrupt (after writing run.json) when the person stops it.
    """
    if order.again:
        contents.forget(order.cache_dir)
    store = Store(order.runs_dir)
    store.mark_newest("")
    refused = check(order)
    if is_toy(order.variants[0].model):
        return _execute(order, store, refused, listen)
    with ahead(order.executor) as prepare:
        prepare()
        return _execute(order, store, refused, _ahead_of(order, prepare, listen))


def _ahead_of(order: Order, prepare: Callable[[], None], listen: Listener) -> Listener:
    """A listener that has the next variant's worker get ready once one scores on a GPU; what a CPU scores
    would only wait for it."""

    def hear(variant: Variant, event: Event) -> None:
        if isinstance(event, Finished) and variant.name != order.variants[-1].name:
            device = event.cell.provenance.device if event.cell.provenance else ""
            if not device.startswith("CPU"):
                prepare()
        listen(variant, event)

    return hear


def _execute(order: Order, store: Store, refused: dict[str, QevalError], listen: Listener) -> RunDir:
    identities = identity.identities(order, refused)
    context = identity.context_of(order)
    more = repeats(order, refused)
    place = store.run_dir(identity.run_id(order, identities, context))
    run = _begin(order, place)
    if not (place.path / "cells").exists() and (before := _before(order, store, place)):
        listen(order.variants[0], Note(_ANEW.format(before)))
    store.mark_newest(place.path.name)
    for variant in order.variants:
        if variant.name in refused:
            run = _with(run, _refused(variant, refused[variant.name], listen), order.cost)
    for variant in sorted(order.variants, key=lambda variant: variant.name != order.baseline):
        if variant.name not in refused:
            job = _job(order, variant, identities, context, place)
            job = msgspec.structs.replace(job, packing=_result(run, variant.name).packing)
            run = _scored(order, run, job, place, listen)
    for variant in order.variants:
        if why := nothing_to_repeat(order, refused).get(variant.name):
            listen(variant, Note(f"Nothing to repeat: {why}."))
    for repeat in more:
        run = _repeated(order, run, repeat, context, place, listen)
    store.mark_newest(place.path.name)
    return place


def _scored(order: Order, run: Run, job: Job, place: RunDir, listen: Listener) -> Run:
    """The run with a variant's result, which is scored now unless it was before."""
    known = _result(run, job.variant.name)
    if known.status == "failed" and (known.error or "").startswith(REFUTED) and not order.verify:
        listen(job.variant, Failed(known.error or "", _VERIFY))
        return run
    whole = _finished(known, place, order.cost) and _is_of(job, known, place)
    if whole and not order.again and _verified(known, place, order.verify):
        listen(job.variant, Stage("finished earlier"))
        return run
    run = _learned(_with(run, _carry_out(order, job, run, place, listen), order.cost))
    place.write(run)
    return run


def _carry_out(order: Order, job: Job, run: Run, place: RunDir, listen: Listener) -> Result:
    """The result of a job; run.json tells at once how it is fed, and is written where the person stops it."""

    def hear(event: Event) -> None:
        nonlocal run
        if isinstance(event, Fed):
            run = _fed(run, job.variant.name, event.packing)
            place.write(run)
        listen(job.variant, event)

    try:
        return EXECUTORS[order.executor](job, hear)
    except KeyboardInterrupt:
        place.write(run)
        raise


def _fed(run: Run, name: str, packing: Packing) -> Run:
    """The run that knows how one of its variants is fed, from now on, whatever becomes of the worker."""
    results = (replace(one, packing=packing) if one.variant.name == name else one for one in run.results)
    return replace(run, results=tuple(results))


def _repeated(
    order: Order, run: Run, repeat: Repeat, context: dict[str, Any], place: RunDir, listen: Listener
) -> Run:
    """The run with a further scoring of one of its results, which must be whole to be compared with it."""
    variant, first = repeat.variant, _result(run, repeat.of)
    known = next((one for one in repeats_of(first) if one.variant.name == variant.name), None)
    if first.status != "done":
        listen(variant, Note(f"{repeat.of} was not scored to its end, so it is not scored once more."))
        return run
    if known and _finished(known, place, cost=None) and not order.again:
        listen(variant, Stage("finished earlier"))
        return run
    try:
        job = _job_of_repeat(order, repeat, context, place)
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


_ANEW = "{} asked the same of other files, or of older versions; what that changes is scored anew."


def _before(order: Order, store: Store, place: RunDir) -> str | None:
    """The newest other run of the same variants, suite and settings, if there is one."""
    for other in store.runs():
        with contextlib.suppress(QevalError):
            run = other.read()
            same = tuple(result.variant for result in run.results) == order.variants
            names = [task.name for task in run.suite.tasks] == [task.name for task in order.suite.tasks]
            if same and names and run.settings == order.settings and other.path != place.path:
                return run.id
    return None


def _refused(variant: Variant, error: QevalError, listen: Listener) -> Result:
    """The result of a variant that cannot be run here, told at once."""
    listen(variant, Failed(error.message, error.hint))
    return Result(variant=variant, status="failed", error=f"{error.message} {error.hint}".strip())


def _with(run: Run, result: Result, asked: bool | None) -> Run:
    """The run with a result in its place; `asked`: costs were asked for (None: neither way)."""
    results = tuple(
        with_repeats_of(_beside(old, result, asked), [old])
        if old.variant.name == result.variant.name
        else old
        for old in run.results
    )
    return replace(run, results=results)


def _beside(old: Result, new: Result, asked: bool | None) -> Result:
    """The newer result, and what the older one knows that it does not tell."""
    return replace(new, cost=_kept(old.cost, new.cost, asked), packing=new.packing or old.packing)


def _result(run: Run, name: str) -> Result:
    return next(result for result in run.results if result.variant.name == name)


def _kept(old: Cost | None, new: Cost | None, asked: bool | None) -> Cost | None:
    """The newer cost, and what it does not tell of the same hardware from the older one; measures that were
    taken give way only to measures that were asked for."""
    if old is None or new is None or (old.measures and not (asked and new.measures)):
        return old or new
    if old.hardware != new.hardware:
        return new
    return replace(
        new,
        load_seconds=new.load_seconds or old.load_seconds,
        peak_bytes=new.peak_bytes or old.peak_bytes,
    )


def _learned(run: Run) -> Run:
    """The run, its suite completed by what scoring found out: metrics and kinds that nobody wrote down.

    A perplexity never belongs to the average.
    """
    found = {cell.task.group or cell.task.name: cell.task for r in run.results for cell in r.cells}
    tasks = tuple(
        replace(
            task, metric=found[task.name].metric, kind=found[task.name].kind, chance=found[task.name].chance
        )
        if task.name in found
        else task
        for task in run.suite.tasks
    )
    perplexities = {task.name for task in tasks if task.kind == "perplexity"}
    average = tuple(row for row in run.suite.average if row not in perplexities)
    return replace(run, suite=replace(run.suite, tasks=tasks, average=average))


def _begin(order: Order, place: RunDir) -> Run:
    fresh = Run(
        id=place.path.name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=order.variants[0].model,
        suite=order.suite,
        baseline=order.baseline,
        results=tuple(Result(variant=variant, status="partial") for variant in order.variants),
        settings=order.settings,
        command=order.command,
        qeval_version=__version__,
    )
    try:
        old = place.read()
    except QevalError:
        old = fresh
    if old is fresh or old.id != fresh.id:  # a file of another run was copied here
        place.write(fresh)
        return fresh
    known = {result.variant.name: result for result in old.results}
    results = tuple(known.get(r.variant.name, r) for r in fresh.results)
    return _learned(replace(fresh, created=old.created, results=results))


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
    """Whether nothing of a cell was lost, and what its key is made of is there to be read."""
    return place.whole(cell.key) is not None and place.tells_key(cell.key)


def _job(
    order: Order,
    variant: Variant,
    identities: dict[str, dict[str, Any]],
    context: dict[str, Any],
    place: RunDir,
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
    )
