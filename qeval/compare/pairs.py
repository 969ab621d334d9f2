"""THE pairing: two variants on the same items, proved by hashes; anything else is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import IncomparableError, QevalError
from qeval.base.records import (
    Cell,
    Kind,
    Level,
    Read,
    Result,
    Samples,
    Task,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNPAIRED = "published score without items: compared unpaired, and conservatively"
_SHOWN = 3
AGAIN = "Score both variants again in one run, or compare runs made with the same settings."
HASHES = {
    "doc_hash": "the document",
    "prompt_hash": "the prompt",
    "target_hash": "the right answer",
    "weight": "the weight",
}
"""The columns in which the same item is the same for both, and what they are of."""


@dataclass(frozen=True, eq=False)
class Values:
    """The paired values of one row, one entry per item: baseline, candidate and weight are (n,) float64;
    cluster is (n,) int numbering the texts behind the items, None where every item stands alone; stratum is
    (n,) int numbering the member of a group that an item belongs to, None but in macro rows; changed is (n,)
    bool, whether the answer is another one, None where answers are not right or wrong."""

    baseline: NDArray[np.float64]
    candidate: NDArray[np.float64]
    weight: NDArray[np.float64]
    cluster: NDArray[np.intp] | None = None
    stratum: NDArray[np.intp] | None = None
    changed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Pairs:
    """All that an interval on one row needs. The fields shared with Comparison mean the same there.

    `values` are the paired items, None where a score was published without them; then `worth` holds the
    numbers of items behind the baseline's and the candidate's score, and `errors` their standard errors, of
    perplexities that were published with them. A mean of rows (macro, average) has `parts`; a macro row of
    unit weights has `values` too.
    """

    variant: str
    task: str
    metric: str
    kind: Kind
    level: Level
    n: int
    n_available: int
    baseline: float
    candidate: float
    values: Values | None = None
    worth: tuple[float, float] = (0.0, 0.0)
    errors: tuple[float, float] | None = None
    parts: tuple[Pairs, ...] = ()
    losses: int | None = None
    gains: int | None = None
    flips: int | None = None
    chance: float | None = None
    group: str | None = None
    category: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def delta(self) -> float:
        """Candidate minus baseline."""
        return self.candidate - self.baseline

    @functools.cached_property
    def texts(self) -> int | None:
        """How many texts stand behind the items, None where each stands alone or none is known."""
        cluster = None if self.values is None else self.values.cluster
        return None if cluster is None else len(np.unique(cluster))

    @property
    def paired(self) -> bool:
        """Whether every item behind the row was compared with itself."""
        return self.values is not None or (bool(self.parts) and all(part.paired for part in self.parts))


# --- pairing ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf task that both variants have: its row, and both variants' samples in the same order of items
    (None where a score was published without them)."""

    pairs: Pairs
    samples: tuple[Samples, Samples] | None = None


def pair(base: Result, result: Result, read_base: Read, read: Read) -> Iterator[Leaf]:
    """Every leaf task that a candidate has in common with the baseline, proved to be the same experiment.

    `read_base` and `read` give the samples of a cell; `read` is called once for each cell with items.

    Raises:
        IncomparableError: the two were not given the same items in the same way.
        QevalError: a value is not a finite number, or a run is damaged.
    """
    _same_harness(base, result)
    theirs = {cell.task.name: cell for cell in result.cells}
    for cell in base.cells:
        other = theirs.get(cell.task.name)
        if other is None or not cell.n or not other.n:
            continue
        if cell.aggregate_only or other.aggregate_only:
            _same_question(base, result, cell, other, known_only=True)
            yield Leaf(_unpaired(result.variant.name, cell, other))
            continue
        _same_question(base, result, cell, other)
        theirs_read, base_read = checked(read(other), result, other), checked(read_base(cell), base, cell)
        first, second = _aligned(base_read, theirs_read, (base, result), cell.task)
        if first.weight.sum() > 0:
            yield Leaf(_paired(result.variant.name, cell, first, second), (first, second))


def _paired(variant: str, cell: Cell, first: Samples, second: Samples) -> Pairs:
    weight = float(first.weight.sum())
    task = cell.task
    binary = task.kind == "accuracy" and _is_binary(first) and _is_binary(second)
    losses = gains = flips = changed = None
    if binary:
        losses = int(np.count_nonzero(first.value > second.value))
        gains = int(np.count_nonzero(first.value < second.value))
        changed = (first.answer != second.answer) | (first.value != second.value)
        flips = int(np.count_nonzero(changed))
    return Pairs(
        variant=variant,
        task=task.name,
        metric=task.metric,
        kind="score" if task.kind == "accuracy" and not binary else task.kind,
        level="task",
        n=len(first),
        n_available=cell.n_available,
        baseline=float(first.value.sum()) / weight,
        candidate=float(second.value.sum()) / weight,
        values=Values(first.value, second.value, first.weight, _clusters(first, second), changed=changed),
        losses=losses,
        gains=gains,
        flips=flips,
        chance=task.chance,
        group=task.group,
        category=task.category,
    )


def _is_binary(samples: Samples) -> bool:
    value = samples.value
    return bool(np.all((value == 0) | (value == 1)) and np.all(samples.weight == 1))


def _clusters(first: Samples, second: Samples) -> NDArray[np.intp] | None:
    """The texts of the items, numbered, None where no two share one. The two hold the same items: where more
    is known of one of them, that holds."""
    found = [_numbered(first.cluster)]
    if not _equal(first.cluster, second.cluster):
        found.append(_numbered(second.cluster))
    known = [codes for codes in found if codes is not None]
    return min(known, key=lambda codes: len(np.unique(codes)), default=None)


def _numbered(names: NDArray[np.str_]) -> NDArray[np.intp] | None:
    """Names as numbers, lone items ("") each with one of its own; None where all items are alone."""
    if not np.any(names != ""):
        return None
    known, codes = np.unique(names, return_inverse=True)
    codes = np.where(names == "", len(known) + np.arange(len(names)), codes)
    return codes if len(np.unique(codes)) < len(codes) else None


def _unpaired(variant: str, first: Cell, second: Cell) -> Pairs:
    task = first.task
    return Pairs(
        variant=variant,
        task=task.name,
        metric=task.metric,
        kind=task.kind,
        level="task",
        n=min(first.n, second.n),
        n_available=max(first.n_available, second.n_available),
        baseline=first.score,
        candidate=second.score,
        worth=(first.metrics.get("n_effective", first.n), second.metrics.get("n_effective", second.n)),
        errors=_errors(first, second) if task.kind == "perplexity" else None,
        chance=task.chance,
        group=task.group,
        category=task.category,
        notes=(UNPAIRED,),
    )


def _errors(first: Cell, second: Cell) -> tuple[float, float] | None:
    """The standard errors of two published log-likelihoods, where both are known."""
    one, two = first.metrics.get("stderr"), second.metrics.get("stderr")
    return None if one is None or two is None else (one, two)


# --- the same experiment, or none ---------------------------------------------------------------


def checked(samples: Samples, result: Result, cell: Cell) -> Samples:
    """The samples, if every value and weight is a finite number that an item of the kind can have, and
    their count is the header's."""
    bad = ~(np.isfinite(samples.value) & np.isfinite(samples.weight))
    if bad.any():
        first = int(np.argmax(bad))
        raise QevalError(
            f"{result.variant.name}: {cell.task.name}, item {samples.key[first]} has the value "
            f"{samples.value[first]} "
            f"with weight {samples.weight[first]} ({int(bad.sum())} such items).",
            "The model gave no finite number there: try another --dtype, then score the variant again.",
        )
    if len(samples) != cell.n:
        raise QevalError(
            f"{result.variant.name}: {cell.task.name} has {len(samples)} items "
            f"where its header says {cell.n}.",
            "The run is damaged: score the variant again.",
        )
    _refuse_impossible(samples, result, cell)
    return samples


def _refuse_impossible(samples: Samples, result: Result, cell: Cell) -> None:
    """Raises QevalError for a value that no item of the cell's kind can have."""
    bad = samples.weight < 0
    if cell.task.kind == "accuracy":
        bad |= (samples.value < 0) | (samples.value > 1)
    if cell.task.kind == "perplexity":
        bad |= samples.value > 0
    if bad.any():
        at = int(np.argmax(bad))
        value, weight = samples.value[at], samples.weight[at]
        raise QevalError(
            f"{result.variant.name}: {cell.task.name}, item {samples.key[at]} has the value {value} with"
            f" weight {weight}, which is impossible for an item of kind {cell.task.kind}.",
            "The run is damaged: score the variant again.",
        )


def known_of_one(base: Result, result: Result) -> Iterator[tuple[str, str]]:
    """Tasks, and what is recorded of them for one of two whole results alone: nothing proves it the same."""
    theirs = {cell.task.name: cell for cell in result.cells}
    whole = base.status == result.status == "done"
    for cell in (cell for cell in base.cells if whole and cell.task.name in theirs):
        one, two = (harness_of(one) for one in (base, result))
        name = (one or two or ("lm-eval", ""))[0]
        facts: list[tuple[str, object, object]] = [
            (f"{name}'s version", one[1] if one else "", two[1] if two else "")
        ]
        if cell.aggregate_only or theirs[cell.task.name].aggregate_only:
            facts.extend(facts_of(cell, theirs[cell.task.name], known_only=True))
        for name, first, second in facts:
            if (first in (None, "")) != (second in (None, "")):
                yield cell.task.name, SHOWN_AS.get(name, name)


_HARNESSES = {"lm_eval": "lm-eval", "lm-eval": "lm-eval", "inspect_ai": "inspect", "lighteval": "lighteval"}
"""What asks a model, by its package."""


def harness_of(result: Result) -> tuple[str, str] | None:
    """What asked, and its version ("" where it is not recorded); None where nothing is known of it."""
    told = result.provenance
    versions = told.versions if told else {}
    known = ((name, versions[package]) for package, name in _HARNESSES.items() if versions.get(package))
    alone = (told.engine, "") if told and told.engine in _HARNESSES.values() else None
    return next(known, alone)


def _same_harness(base: Result, result: Result) -> None:
    """Refuse two harnesses, or versions of one: prompts and metrics change between them."""
    one, two = (harness_of(some) for some in (base, result))
    if one is None or two is None or one == two or (one[0] == two[0] and not (one[1] and two[1])):
        return
    other = one[1] if one[0] == two[0] else " ".join(filter(None, one))
    raise IncomparableError(
        f"{result.variant.name} was scored with {' '.join(filter(None, two))}, "
        f"{base.variant.name} with {other}.",
        AGAIN,
    )


def _same_question(
    base: Result, result: Result, cell: Cell, other: Cell, *, known_only: bool = False
) -> None:
    """Refuse cells of different metric, filter, few-shot, limit, version or number of items.

    With `known_only` (published scores) what one side does not tell is let pass, and so are limits.
    """
    differing = []
    for name, one, two in facts_of(cell, other, known_only=known_only):
        if one != two and not (known_only and (one in (None, "") or two in (None, ""))):
            differing.append(f"{name} is {one} for {base.variant.name} and {two} for {result.variant.name}")
    if differing:
        raise IncomparableError(
            f"{cell.task.name} is not the same experiment: {'; '.join(differing[:_SHOWN])}.", AGAIN
        )


SHOWN_AS = {"num_fewshot": "the number of examples in the prompt"}


def facts_of(cell: Cell, other: Cell, *, known_only: bool) -> Iterator[tuple[str, object, object]]:
    """What two cells of one task must have in common: its name, and what it is for either."""
    for name in ("metric", "filter", "kind", "num_fewshot"):
        yield name, getattr(cell.task, name), getattr(other.task, name)
    yield "task version", cell.task_version, other.task_version
    if not known_only:
        yield "limit", cell.task.limit, other.task.limit
        yield "number of items", cell.n, other.n
        yield "number of items of the whole task", cell.n_available, other.n_available


def _aligned(
    first: Samples, second: Samples, results: tuple[Result, Result], task: Task
) -> tuple[Samples, Samples]:
    """Both in the same order of items. Raises IncomparableError where an item is not the same for both."""
    if not _equal(first.key, second.key):
        first, second = _by_key(first), _by_key(second)
        _same_keys(first, second, results, task)
    if not (np.all(first.doc_hash != "") and np.all(first.prompt_hash != "")):
        raise IncomparableError(
            f"{task.name}: the items of {results[0].variant.name} carry no hashes, so nothing proves that "
            "they are the same for both.",
            "Score them with qeval, or with an lm-eval that logs hashes (0.4.3 or later).",
        )
    for column, what in HASHES.items():
        one, two = getattr(first, column), getattr(second, column)
        if not _equal(one, two):
            _refuse(first.key[np.asarray(one != two)], what, results, task)
    return first, second


def _equal(one: NDArray[np.generic], two: NDArray[np.generic]) -> bool:
    """Whether two columns are equal; as raw memory where they are laid out alike, which is fastest."""
    if one is two:
        return True
    if one.dtype == two.dtype and one.flags.c_contiguous and two.flags.c_contiguous and len(one):
        return len(one) == len(two) and bool(np.array_equal(one.view(np.uint8), two.view(np.uint8)))
    return bool(np.array_equal(one, two))


def _by_key(samples: Samples) -> Samples:
    order = np.argsort(samples.key, kind="stable")
    return Samples(**{column.name: getattr(samples, column.name)[order] for column in fields(Samples)})


def _same_keys(first: Samples, second: Samples, results: tuple[Result, Result], task: Task) -> None:
    for samples, result in zip((first, second), results, strict=True):
        again = samples.key[1:][samples.key[1:] == samples.key[:-1]]
        if len(again):
            raise IncomparableError(
                f"{task.name}: item {again[0]} of {result.variant.name} was scored twice.", AGAIN
            )
    if not _equal(first.key, second.key):
        _refuse(np.setxor1d(first.key, second.key), "which of the two has it", results, task)


def _refuse(keys: NDArray[np.str_], what: str, results: tuple[Result, Result], task: Task) -> None:
    named = ", ".join(str(key) for key in keys[:_SHOWN])
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    names = " and ".join(result.variant.name for result in results)
    items = "item" if len(keys) == 1 else "items"
    raise IncomparableError(
        f"{task.name} is not the same experiment for {names}: {what} differs for {items} {named}{more}.",
        AGAIN,
    )
