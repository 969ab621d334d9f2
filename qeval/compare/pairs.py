"""Compare variants with their baseline, item by item; refuse what is not the same experiment.

`pair` reads the samples once and proves that they belong together; `compare` puts an interval on one row
at any confidence, so that a gate can judge with the very interval that it prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import IncomparableError, QevalError, UsageError, did_you_mean
from qeval.base.records import (
    Cell,
    Comparison,
    Kind,
    Level,
    Read,
    Result,
    Run,
    Samples,
    Settings,
    Suite,
    Task,
)
from qeval.compare import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

AVERAGE = "average"
MACRO = "_macro"
UNPAIRED = "published score without items: compared unpaired, and conservatively"
_SHOWN = 3
_AGAIN = "Score both variants again in one run, or compare runs made with the same settings."
_HASHES = {
    "doc_hash": "the document",
    "prompt_hash": "the prompt",
    "target_hash": "the right answer",
    "weight": "the weight",
}


@dataclass(frozen=True, eq=False)
class Values:
    """The paired values of one row, one entry per item: baseline, candidate and weight are (n,) float64;
    cluster is (n,) str naming the text an item shares with others, None where every item stands alone;
    stratum is (n,) int numbering the member of a group that an item belongs to, None but in macro rows."""

    baseline: NDArray[np.float64]
    candidate: NDArray[np.float64]
    weight: NDArray[np.float64]
    cluster: NDArray[np.str_] | None = None
    stratum: NDArray[np.intp] | None = None


@dataclass(frozen=True, eq=False)
class Pairs:
    """All that an interval on one row needs. The fields shared with Comparison mean the same there.

    `values` are the paired items, None where a score was published without them; then `worth` holds the
    numbers of items behind the baseline's and the candidate's score. A mean of rows (macro, average) has
    `parts`; a macro row of unit weights has `values` too.
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

    @property
    def paired(self) -> bool:
        """Whether every item behind the row was compared with itself."""
        return self.values is not None or (bool(self.parts) and all(part.paired for part in self.parts))


# --- pairing ------------------------------------------------------------------------------------


def pair(run: Run, read: Read, *, baseline: str | None = None) -> tuple[Pairs, ...]:
    """The rows of every candidate of `run`, in the order of variants and of the suite.

    For a plain task one row; for a group its items pooled, the unweighted mean of its members, and the
    members; last the suite's average. A row stands only where nothing behind it is missing: failed
    variants have none, nor has anybody where the baseline failed.

    Args:
        run: the run, or several merged by `merge`.
        read: gives the samples of a cell; called once per cell that is not aggregate-only.
        baseline: the variant to compare with, by default the run's own.

    Raises:
        UsageError: there is no variant called `baseline`.
        IncomparableError: two variants were not given the same items in the same way.
        QevalError: a value is not a finite number.
    """
    base = find_baseline(run, baseline)
    if base.status == "failed":
        return ()
    members = group_members(run)
    kept: dict[str, Samples] = {}

    def read_base(cell: Cell) -> Samples:
        if cell.key not in kept:
            kept[cell.key] = _checked(read(cell), base.variant.name, cell)
        return kept[cell.key]

    rows: list[Pairs] = []
    for result in run.results:
        if result.variant.name != base.variant.name and result.status != "failed":
            leaves = dict(_leaves(base, result, read_base, read))
            rows.extend(_rows(run.suite, members, leaves))
    return tuple(rows)


def find_baseline(run: Run, name: str | None = None) -> Result:
    """The result that the others are compared with. Raises UsageError where it is not in the run."""
    name = run.baseline if name is None else name
    for result in run.results:
        if result.variant.name == name:
            return result
    known = [result.variant.name for result in run.results]
    raise UsageError(f"The run has no variant {name!r} to be the baseline.", did_you_mean(name, known))


def group_members(run: Run) -> dict[str, tuple[str, ...]]:
    """The leaf tasks of each group, in order, as far as finished variants tell: half a group that a
    killed run left behind must not pass for a whole one."""
    found: dict[str, dict[str, None]] = {}
    for result in run.results:
        for cell in result.cells if result.status == "done" else ():
            if cell.task.group is not None:
                found.setdefault(cell.task.group, {})[cell.task.name] = None
    return {group: tuple(names) for group, names in found.items()}


def _leaves(base: Result, result: Result, read_base: Read, read: Read) -> Iterator[tuple[str, Pairs]]:
    """The rows of leaf tasks that both have, by task name."""
    _same_harness(base, result)
    theirs = {cell.task.name: cell for cell in result.cells}
    for cell in base.cells:
        other = theirs.get(cell.task.name)
        if other is None or not cell.n or not other.n:
            continue
        if cell.aggregate_only or other.aggregate_only:
            _same_question(base, result, cell, other, known_only=True)
            yield cell.task.name, _unpaired(result.variant.name, cell, other)
            continue
        _same_question(base, result, cell, other)
        samples = _checked(read(other), result.variant.name, other)
        first, second = _aligned(read_base(cell), samples, (base, result), cell.task)
        if first.weight.sum() > 0:
            yield cell.task.name, _paired(result.variant.name, cell, first, second)


def _rows(suite: Suite, members: Mapping[str, Sequence[str]], leaves: Mapping[str, Pairs]) -> list[Pairs]:
    rows: dict[str, Pairs] = {}
    for task in suite.tasks:
        if task.name in leaves:
            rows[task.name] = leaves[task.name]
        if task.name in members:
            rows.update((row.task, row) for row in _group_rows(task.name, members[task.name], leaves))
    rows.update((name, leaf) for name, leaf in leaves.items() if name not in rows)
    average = _average(suite, rows)
    return [*rows.values(), *([average] if average else [])]


def _group_rows(group: str, names: Sequence[str], leaves: Mapping[str, Pairs]) -> Iterator[Pairs]:
    parts = tuple(leaves[name] for name in names if name in leaves)
    if len(parts) == len(names) and len({(part.kind, part.metric) for part in parts}) == 1:
        if all(part.values is not None for part in parts):
            yield _pooled(group, parts)
        yield _macro(group, parts)
    yield from (replace(part, level="subtask") for part in parts)


def _macro(group: str, parts: tuple[Pairs, ...]) -> Pairs:
    """The unweighted mean of a group's members."""
    note = f"the unweighted mean of {len(parts)} members"
    mean = replace(_mean(group + MACRO, "macro", parts), group=group, notes=(note, *_shared_notes(parts)))
    values = [part.values for part in parts if part.values is not None]
    if len(values) < len(parts) or not all(np.all(one.weight == 1) for one in values):
        return mean
    strata = np.repeat(np.arange(len(values)), [len(one.weight) for one in values])
    return replace(mean, values=_joined(values, stratum=strata))


def _joined(
    values: Sequence[Values],
    cluster: NDArray[np.str_] | None = None,
    stratum: NDArray[np.intp] | None = None,
) -> Values:
    return Values(
        np.concatenate([one.baseline for one in values]),
        np.concatenate([one.candidate for one in values]),
        np.concatenate([one.weight for one in values]),
        cluster,
        stratum,
    )


def _average(suite: Suite, rows: Mapping[str, Pairs]) -> Pairs | None:
    if not suite.average or not all(name in rows for name in suite.average):
        return None
    parts = tuple(rows[name] for name in suite.average)
    note = f"the mean of {', '.join(suite.average)}"
    return replace(_mean(AVERAGE, "average", parts), notes=(note, *_shared_notes(parts)))


def _shared_notes(parts: Sequence[Pairs]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for part in parts for note in part.notes if note == UNPAIRED))


def _mean(task: str, level: Level, parts: tuple[Pairs, ...]) -> Pairs:
    first = parts[0]
    chances = [part.chance for part in parts if part.chance is not None]
    same_kind = len({part.kind for part in parts}) == 1
    return Pairs(
        variant=first.variant,
        task=task,
        metric=first.metric if len({part.metric for part in parts}) == 1 else "mean",
        kind=first.kind if same_kind else "score",
        level=level,
        n=sum(part.n for part in parts),
        n_available=sum(part.n_available for part in parts),
        baseline=math.fsum(part.baseline for part in parts) / len(parts),
        candidate=math.fsum(part.candidate for part in parts) / len(parts),
        parts=parts,
        losses=_total(part.losses for part in parts),
        gains=_total(part.gains for part in parts),
        flips=_total(part.flips for part in parts),
        chance=math.fsum(chances) / len(parts) if len(chances) == len(parts) else None,
    )


def _total(counts: Iterator[int | None]) -> int | None:
    """The sum, or None where one of them is unknown."""
    numbers = list(counts)
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _pooled(group: str, parts: tuple[Pairs, ...]) -> Pairs:
    """Every item of a group counts the same."""
    values = [part.values for part in parts if part.values is not None]
    clusters = None
    if any(one.cluster is not None for one in values):
        clusters = np.concatenate([_named_clusters(part) for part in parts])
    joined = _joined(values, clusters)
    total = float(joined.weight.sum())
    mean = _mean(group, "pooled", parts)
    return replace(
        mean,
        parts=(),
        values=joined,
        baseline=float(joined.baseline.sum()) / total,
        candidate=float(joined.candidate.sum()) / total,
        group=group,
    )


def _named_clusters(part: Pairs) -> NDArray[np.str_]:
    """Cluster names that no other member can share; lone items become clusters of their own."""
    values = part.values
    assert values is not None  # noqa: S101 - the caller chose parts with values
    numbers = np.arange(len(values.weight)).astype(np.str_)
    names = numbers if values.cluster is None else values.cluster
    return np.char.add(f"{part.task}/", names)


def _paired(variant: str, cell: Cell, first: Samples, second: Samples) -> Pairs:
    weight = float(first.weight.sum())
    task = cell.task
    binary = task.kind == "accuracy" and _is_binary(first) and _is_binary(second)
    losses = gains = flips = None
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
        values=Values(first.value, second.value, first.weight, _clusters(first.cluster)),
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


def _clusters(names: NDArray[np.str_]) -> NDArray[np.str_] | None:
    """Cluster names with lone items ("") numbered, or None where no two items share a cluster."""
    if not np.any(names != ""):
        return None
    numbers = np.arange(len(names)).astype(np.str_)
    filled = np.where(names == "", np.char.add("alone/", numbers), names)
    return filled if len(np.unique(filled)) < len(filled) else None


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
        chance=task.chance,
        group=task.group,
        category=task.category,
        notes=(UNPAIRED,),
    )


# --- the same experiment, or none ---------------------------------------------------------------


def _checked(samples: Samples, variant: str, cell: Cell) -> Samples:
    """The samples, if every value and weight is a finite number and their count is the header's."""
    bad = ~(np.isfinite(samples.value) & np.isfinite(samples.weight))
    if bad.any():
        first = int(np.argmax(bad))
        raise QevalError(
            f"{variant}: {cell.task.name}, item {samples.key[first]} has the value {samples.value[first]} "
            f"with weight {samples.weight[first]} ({int(bad.sum())} such items).",
            "The model gave no finite number there: try another --dtype, then score the variant again.",
        )
    if len(samples) != cell.n:
        raise QevalError(
            f"{variant}: {cell.task.name} has {len(samples)} items where its header says {cell.n}.",
            "The run is damaged: score the variant again.",
        )
    return samples


def _same_harness(base: Result, result: Result) -> None:
    """Refuse two versions of lm-eval: its prompts and metrics change between them."""
    versions = []
    for one in (base, result):
        known = one.provenance.versions if one.provenance else {}
        versions.append(known.get("lm_eval") or known.get("lm-eval"))
    if versions[0] and versions[1] and versions[0] != versions[1]:
        raise IncomparableError(
            f"{result.variant.name} was scored with lm-eval {versions[1]}, "
            f"{base.variant.name} with {versions[0]}.",
            _AGAIN,
        )


def _same_question(
    base: Result, result: Result, cell: Cell, other: Cell, *, known_only: bool = False
) -> None:
    """Refuse cells of different metric, filter, few-shot, limit, version or number of items.

    With `known_only` (published scores) what one side does not tell is let pass, and so are limits.
    """
    differing = []
    for name, one, two in _facts(cell, other, known_only=known_only):
        if one != two and not (known_only and (one in (None, "") or two in (None, ""))):
            differing.append(f"{name} is {one} for {base.variant.name} and {two} for {result.variant.name}")
    if differing:
        raise IncomparableError(
            f"{cell.task.name} is not the same experiment: {'; '.join(differing[:_SHOWN])}.", _AGAIN
        )


def _facts(cell: Cell, other: Cell, *, known_only: bool) -> Iterator[tuple[str, object, object]]:
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
    for column, what in _HASHES.items():
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
                f"{task.name}: item {again[0]} of {result.variant.name} was scored twice.", _AGAIN
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
        _AGAIN,
    )


# --- intervals ----------------------------------------------------------------------------------


def compare(pairs: Pairs, confidence: float = 0.95) -> Comparison:
    """The row with its interval at the two-sided `confidence`, and the p-value of no difference."""
    low, high, method = interval(pairs, confidence)
    return Comparison(
        variant=pairs.variant,
        task=pairs.task,
        metric=pairs.metric,
        kind=pairs.kind,
        level=pairs.level,
        n=pairs.n,
        n_available=pairs.n_available,
        baseline=pairs.baseline,
        candidate=pairs.candidate,
        delta=pairs.delta,
        low=low,
        high=high,
        confidence=confidence,
        method=method,
        losses=pairs.losses,
        gains=pairs.gains,
        flips=pairs.flips,
        p=p_value(pairs, low, high, confidence),
        chance=pairs.chance,
        group=pairs.group,
        category=pairs.category,
        notes=pairs.notes,
    )


def compare_run(
    run: Run, read: Read, *, baseline: str | None = None, confidence: float = 0.95
) -> tuple[Comparison, ...]:
    """`pair`, then `compare` every row: the rows of a table or report. Raises what `pair` raises."""
    return tuple(compare(row, confidence) for row in pair(run, read, baseline=baseline))


def compare_recovery(pairs: Pairs, recovery: float, confidence: float) -> Comparison:
    """The row with the interval that decides whether the candidate keeps the share `recovery` of the
    baseline's score: that of candidate - recovery * baseline, moved by (1 - recovery) * baseline so that
    it lies about the difference."""
    comparison = compare(pairs, confidence)
    low, high = _recovery_margin(pairs, recovery, confidence)
    moved = (1.0 - recovery) * pairs.baseline
    method = f"{comparison.method}, of candidate - {recovery:g} x baseline"
    return replace(comparison, low=low - moved, high=high - moved, method=method)


def _recovery_margin(pairs: Pairs, recovery: float, level: float) -> tuple[float, float]:
    """The interval of candidate - recovery * baseline; of a mean, from its parts' intervals."""
    if pairs.parts:
        margins = [_recovery_margin(part, recovery, level) for part in pairs.parts]
        deltas = [part.candidate - recovery * part.baseline for part in pairs.parts]
        return _averaged(deltas, margins, level)
    values = pairs.values
    if values is None:
        if not _in_unit(pairs):
            return -math.inf, math.inf
        first, second = pairs.worth
        return stats.unpaired_interval(pairs.baseline, first, pairs.candidate, second, level, ratio=recovery)
    _, low, high = stats.paired_ratio_margin(
        values.baseline, values.candidate, recovery, level, values.weight, values.cluster
    )
    return low, high


def interval(pairs: Pairs, level: float) -> tuple[float, float, str]:
    """Lower and upper bound of the row's difference at the two-sided `level`, and the method's name.

    0/1 scores: Tango's interval; where items share texts, the wider of it and the cluster-robust one.
    Other scores: paired t on the linearised ratio. Published scores: unpaired. The mean of a group's
    members: stratified where all its items are known. Other means: from the rows' own intervals, whose
    squared sides add as variances do. Bounds are infinite where the data say nothing.
    """
    if pairs.level == "macro" and pairs.values is not None:
        return _of_strata(pairs.values, level)
    if pairs.parts:
        deltas = [part.delta for part in pairs.parts]
        bounds = [interval(part, level)[:2] for part in pairs.parts]
        return (*_averaged(deltas, bounds, level), "mean of the rows' intervals")
    if pairs.values is None:
        return _of_published(pairs, level)
    if pairs.losses is None or pairs.gains is None:
        return _of_values(pairs.values, level)
    low, high = stats.accuracy_interval(pairs.losses, pairs.gains, pairs.n, level)
    if pairs.values.cluster is None:
        return low, high, "Tango"
    other_low, other_high, _ = _of_values(pairs.values, level)
    return min(low, other_low), max(high, other_high), "Tango, or cluster-robust where wider"


def _of_values(values: Values, level: float) -> tuple[float, float, str]:
    _, low, high = stats.paired_interval(
        values.baseline, values.candidate, values.weight, values.cluster, level=level
    )
    return low, high, "paired t" if values.cluster is None else "cluster-robust paired t"


def _of_strata(values: Values, level: float) -> tuple[float, float, str]:
    assert values.stratum is not None  # noqa: S101 - every macro row has strata
    _, low, high = stats.stratified_interval(values.baseline, values.candidate, values.stratum, level)
    return low, high, "stratified"


def _of_published(pairs: Pairs, level: float) -> tuple[float, float, str]:
    if not _in_unit(pairs):
        return -math.inf, math.inf, "none: the items' spread is unknown"
    first, second = pairs.worth
    low, high = stats.unpaired_interval(pairs.baseline, first, pairs.candidate, second, level)
    return low, high, "unpaired"


def _in_unit(pairs: Pairs) -> bool:
    """Whether the scores are such that their spread is bounded by their mean."""
    return pairs.kind != "perplexity" and all(0 <= one <= 1 for one in (pairs.baseline, pairs.candidate))


def _averaged(
    deltas: Sequence[float], bounds: Sequence[tuple[float, float]], level: float
) -> tuple[float, float]:
    """The interval of the mean of independent differences, each with its own bounds."""
    pairs = zip(deltas, bounds, strict=True)
    sides = [stats.side_errors(delta, low, high, level) for delta, (low, high) in pairs]
    _, low, high = stats.average_interval(deltas, sides, level)
    return low, high


def p_value(pairs: Pairs, low: float, high: float, confidence: float) -> float | None:
    """The two-sided p-value of no difference: McNemar's mid-p for 0/1 scores; else the normal one that
    agrees with the interval [low, high]. None where there is no interval."""
    if not pairs.parts and pairs.losses is not None and pairs.gains is not None:
        return stats.mcnemar_midp(pairs.losses, pairs.gains)
    reach = pairs.delta - low if pairs.delta > 0 else high - pairs.delta
    if not math.isfinite(reach):
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return stats.p_value(pairs.delta, reach / z)


# --- several runs as one ------------------------------------------------------------------------


def merge(runs: Sequence[Run], baseline: str | None = None) -> Run:
    """One run holding the variants of all, so that results of several machines or days can be compared.

    Variants of the same name and the same cells are one; of the same name with other cells they are
    named "name@run". The suite is the first's, with the tasks that only others have appended. Samples of
    every cell are found by its key, which is unique over all runs.

    Raises:
        UsageError: no run, or the runs have different baselines and `baseline` does not choose.
        IncomparableError: seed, limit or chat template differ.
    """
    if not runs:
        raise UsageError("There is no run to compare.", "Name at least one.")
    for other in runs[1:]:
        _same_settings(runs[0], other)
    named = _distinct(runs)
    name = _chosen_baseline(runs, named, baseline)
    merged = replace(
        runs[0],
        id="+".join(dict.fromkeys(run.id for run in runs)),
        model=", ".join(dict.fromkeys(run.model for run in runs)),
        suite=_joined_suite([run.suite for run in runs]),
        baseline=name,
        results=tuple(result for _, result in named),
    )
    find_baseline(merged)
    return merged


def _same_settings(first: Run, other: Run) -> None:
    names = [entry.name for entry in fields(Settings) if entry.name in {"seed", "limit", "chat_template"}]
    differing = [
        f"{name} is {getattr(first.settings, name)} in {first.id} and {getattr(other.settings, name)} in "
        f"{other.id}"
        for name in names
        if getattr(first.settings, name) != getattr(other.settings, name)
    ]
    if differing:
        raise IncomparableError(f"The runs are not the same experiment: {'; '.join(differing)}.", _AGAIN)


def _distinct(runs: Sequence[Run]) -> list[tuple[str, Result]]:
    """(run id, result) of every different variant, under names that tell them apart."""
    kept: list[tuple[str, Result]] = []
    for run in runs:
        for result in run.results:
            if not any(_alike(result, other) for _, other in kept):
                kept.append((run.id, result))
    names = [result.variant.name for _, result in kept]
    return [
        (run_id, result if names.count(result.variant.name) == 1 else _renamed(result, run_id))
        for run_id, result in kept
    ]


def _alike(one: Result, two: Result) -> bool:
    keys = [{cell.key for cell in result.cells} for result in (one, two)]
    return one.variant.name == two.variant.name and one.status == two.status and keys[0] == keys[1]


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
        raise UsageError(
            f"There are {len(found)} baselines: {', '.join(found)}.",
            f"Choose one with --baseline {found[0]}.",
        )
    return found[0]


def _joined_suite(suites: Sequence[Suite]) -> Suite:
    tasks: dict[str, Task] = {}
    for suite in suites:
        for task in suite.tasks:
            tasks.setdefault(task.name, task)
    return replace(suites[0], tasks=tuple(tasks.values()))
