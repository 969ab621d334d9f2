"""Several runs as one, so that results of several machines or days can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime

from qeval.base.errors import IncomparableError, UsageError, did_you_mean
from qeval.base.records import Result, Run, Suite, Task
from qeval.base.repeats import with_repeats_of
from qeval.base.settings import WRITING, Settings
from qeval.compare.pairs import AGAIN
from qeval.compare.rows import find_baseline, same_model, weights_of

SHAPING = frozenset(["seed", "limit", "chat_template", "framed", *WRITING])
"""The settings that shape questions or answers: runs of different ones are different experiments."""


def merge(runs: Sequence[Run], baseline: str | None = None, *, allow_different_models: bool = False) -> Run:
    """One run holding the variants of all, so that results of several machines or days can be compared.

    Variants of the same name and the same cells are one; of the same name with other cells they are
    named "name@run". The versions that scored it are those of all. The suite is the first's, with the tasks
    that only others have appended. It is as old as the oldest, and of no known age where one of them does not
    tell. Samples of every cell are found by its key, which is unique over all runs. A variant that was
    stopped early broke a rule against its own run's baseline: where that is not the one here, it is merely
    not finished.

    Raises:
        UsageError: no run, or the runs have different baselines and `baseline` does not choose.
        IncomparableError: settings that shape the questions or answers differ, or the recorded models do, and
            may not.
    """
    if not runs:
        raise UsageError("There is no run to compare.", "Name at least one.")
    for other in runs[1:]:
        _same_settings(runs[0], other)
        if not allow_different_models:
            _same_models(runs[0], other)
    named = _distinct(runs)
    name = _chosen_baseline(runs, named, baseline)
    chosen = next(result for _, result in named if result.variant.name == name)
    merged = replace(
        runs[0],
        id="+".join(dict.fromkeys(run.id for run in runs)),
        created=_oldest([run.created for run in runs]),
        source=", ".join(dict.fromkeys(run.source for run in runs)),
        model=", ".join(dict.fromkeys(run.model for run in runs)),
        suite=_joined_suite([run.suite for run in runs]),
        baseline=name,
        qeval_version=", ".join(_versions(runs)),
        results=tuple(result for _, result in _distinct([_against(chosen, run) for run in runs])),
        left_out=tuple(dict.fromkeys(name for run in runs for name in run.left_out)),
    )
    find_baseline(merged)
    return merged


def _oldest(created: Sequence[str]) -> str:
    """The earliest of these moments, "" where one of them is none."""
    try:
        return min(created, key=_moment)
    except ValueError:
        return ""


def _versions(runs: Sequence[Run]) -> Iterable[str]:
    """The versions that scored them, each once, that of the newest run last."""
    newest_first = sorted(runs, key=lambda run: run.created, reverse=True)
    names = (name for run in newest_first for name in reversed(run.qeval_version.split(", ")) if name)
    return reversed(list(dict.fromkeys(names)))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _same_settings(first: Run, other: Run) -> None:
    names = [entry.name for entry in fields(Settings) if entry.name in SHAPING]
    differing = [
        f"{name} is {getattr(first.settings, name)} in {first.id} and {getattr(other.settings, name)} in "
        f"{other.id}"
        for name in names
        if getattr(first.settings, name) != getattr(other.settings, name)
    ]
    if differing:
        raise IncomparableError(f"The runs are not the same experiment: {'; '.join(differing)}.", AGAIN)


def _same_models(first: Run, other: Run) -> None:
    """Refuse runs of different models: their variants are no variants of each other."""
    for result in other.results:
        for one in first.results:
            built = [r.provenance.architecture if r.provenance else "" for r in (one, result)]
            if not same_model(one, result) or (all(built) and built[0] != built[1]):
                models = [
                    f"{weights_of(r, files=True)} {shape}".strip()
                    for r, shape in zip((one, result), built, strict=True)
                ]
                where = f"{models[0]} in {first.id} and {models[1]} in {other.id}"
                imported = {first.source, other.source} != {"qeval"} and not same_model(one, result)
                raise IncomparableError(
                    f"The runs are of different models: {where}.",
                    "Name runs of one model, or pass --allow-different-models if they are variants of one; "
                    "for imported results, qeval gate needs --allow-unproved-model beside it."
                    if imported
                    else "Name runs of one model, or pass --allow-different-models if they are variants of "
                    "one.",
                )


def _distinct(runs: Sequence[Run]) -> list[tuple[str, Result]]:
    """(run id, result) of every different variant, under names that tell them apart."""
    kept: list[tuple[str, Result]] = []
    for run in runs:
        for result in run.results:
            place = next((i for i, (_, other) in enumerate(kept) if _alike(result, other)), None)
            if place is None:
                kept.append((run.id, result))
            else:
                kept[place] = (kept[place][0], with_repeats_of(kept[place][1], [result]))
    names = [result.variant.name for _, result in kept]
    return [
        (run_id, result if names.count(result.variant.name) == 1 else _renamed(result, run_id))
        for run_id, result in kept
    ]


def _against(baseline: Result, run: Run) -> Run:
    """The run, what stopped in it against another baseline without that."""
    keys = {cell.key for cell in baseline.cells}
    own = [result for result in run.results if result.variant.name == run.baseline]
    if any({cell.key for cell in one.cells} == keys for one in own):
        return run
    return replace(run, results=tuple(replace(result, stop=None) for result in run.results))


def _alike(one: Result, two: Result) -> bool:
    keys = [{cell.key for cell in result.cells} for result in (one, two)]
    return one.variant == two.variant and one.status == two.status and keys[0] == keys[1]


def _renamed(result: Result, run_id: str) -> Result:
    return replace(result, variant=replace(result.variant, name=f"{result.variant.name}@{run_id}"))


def _chosen_baseline(runs: Sequence[Run], named: Sequence[tuple[str, Result]], wanted: str | None) -> str:
    """The name, among the merged ones, of the only baseline."""
    wishes = {wanted} if wanted else {run.baseline for run in runs}
    names = [result.variant.name for _, result in named]
    found = [name for name in names if name in wishes or name.rpartition("@")[0] in wishes]
    if not found:
        raise UsageError(
            f"The runs have no variant {min(wishes)!r} to be the baseline.", did_you_mean(min(wishes), names)
        )
    if len(found) > 1:
        told = f"here are {len(found)} baselines: {', '.join(found)}."
        _refuse_empty(runs)
        if not _shared_tasks(runs):
            raise UsageError(
                f"The runs share no task, so nothing of one can be compared with the other; and t{told}",
                "Name one of them alone, or runs that were asked the same.",
            )
        raise UsageError(f"T{told}", f"Choose one with --baseline {found[0]}.")
    return found[0]


def _refuse_empty(runs: Sequence[Run]) -> None:
    """Raise UsageError for a run without any result yet, which shares no task with others only for that."""
    empty = next((run for run in runs if not any(result.cells for result in run.results)), None)
    if empty is not None:
        raise UsageError(
            f"No variant of {empty.id} has results, so nothing can be compared with it.",
            "How it stands, and what goes on with it, is told by: qeval show RUN",
        )


def _shared_tasks(runs: Sequence[Run]) -> set[str]:
    """The tasks that every run scored."""
    return set.intersection(*({cell.task.name for one in run.results for cell in one.cells} for run in runs))


def _joined_suite(suites: Sequence[Suite]) -> Suite:
    tasks: dict[str, Task] = {}
    for suite in suites:
        for task in suite.tasks:
            tasks.setdefault(task.name, task)
    return replace(suites[0], tasks=tuple(tasks.values()))
