"""Groups and averages: the pairs of a row that stands for several tasks, out of those of the tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.names import MACRO
from qeval.compare.pairs import UNPAIRED, Pairs, Values
from qeval.compare.rows import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray


def join(row: Row, known: Mapping[str, Pairs]) -> Pairs | None:
    """The pairs of a row, out of those `known` by id so far: of leaf tasks, and of the rows of an average.

    None where anything behind the row is missing: half a group has no row.
    """
    if row.level in ("task", "subtask"):
        found = known.get(row.id)
        return found and replace(found, level=row.level)
    names = row.parts or tuple(task.name for task in row.members)
    parts = tuple(known[name] for name in names if name in known)
    if not row.whole or not parts or len(parts) < len(names):
        return None
    if row.level == "average":
        return _average(row, parts)
    if row.level == "macro":
        return _macro(row, parts)
    return _pooled(row, parts) if all(part.values is not None for part in parts) else None


def _macro(row: Row, parts: tuple[Pairs, ...]) -> Pairs:
    """The unweighted mean of a group's members."""
    note = f"the unweighted mean of {len(parts)} members"
    mean = replace(_mean(row, parts), group=row.id.removesuffix(MACRO), notes=(note, *_shared_notes(parts)))
    values = [part.values for part in parts if part.values is not None]
    if len(values) < len(parts) or not all(np.all(one.weight == 1) for one in values):
        return mean
    strata = np.repeat(np.arange(len(values)), [len(one.weight) for one in values])
    return replace(mean, values=_joined(values, strata))


def _joined(values: Sequence[Values], stratum: NDArray[np.intp] | None = None) -> Values:
    changed = [one.changed for one in values if one.changed is not None]
    return Values(
        np.concatenate([one.baseline for one in values]),
        np.concatenate([one.candidate for one in values]),
        np.concatenate([one.weight for one in values]),
        _joined_clusters(values),
        stratum,
        np.concatenate(changed) if len(changed) == len(values) else None,
    )


def _average(row: Row, parts: tuple[Pairs, ...]) -> Pairs:
    note = f"the mean of {', '.join(row.parts)}"
    return replace(_mean(row, parts), notes=(note, *_shared_notes(parts)))


def _shared_notes(parts: Sequence[Pairs]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for part in parts for note in part.notes if note == UNPAIRED))


def _mean(row: Row, parts: tuple[Pairs, ...]) -> Pairs:
    first = parts[0]
    chances = [part.chance for part in parts if part.chance is not None]
    same_kind = len({part.kind for part in parts}) == 1
    return Pairs(
        variant=first.variant,
        task=row.id,
        metric=first.metric if len({part.metric for part in parts}) == 1 else "mean",
        kind=first.kind if same_kind else "score",
        level=row.level,
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


def _pooled(row: Row, parts: tuple[Pairs, ...]) -> Pairs:
    """Every item of a group counts the same."""
    values = [part.values for part in parts if part.values is not None]
    joined = _joined(values)
    total = float(joined.weight.sum())
    mean = _mean(row, parts)
    return replace(
        mean,
        parts=(),
        values=joined,
        baseline=float(joined.baseline.sum()) / total,
        candidate=float(joined.candidate.sum()) / total,
        group=row.id,
    )


def _joined_clusters(values: Sequence[Values]) -> NDArray[np.intp] | None:
    """The clusters of all items, none of which is of two members; None where every item stands alone."""
    if all(one.cluster is None for one in values):
        return None
    codes = [np.arange(len(one.weight)) if one.cluster is None else one.cluster for one in values]
    before = np.cumsum([0, *(int(some.max()) + 1 for some in codes[:-1])])
    joined: NDArray[np.intp] = np.concatenate([b + some for b, some in zip(before, codes, strict=True)])
    return joined
