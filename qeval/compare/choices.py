"""What multiple-choice answers tell beside the score: which places were chosen, and how sure a model was.

Both come from the stored items alone: the answers, and the log-likelihoods of their choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.reading import whole
from qeval.base.records import Samples
from qeval.compare import stats
from qeval.compare.evidence import CONFIDENCE, Evidence
from qeval.compare.interval import compare
from qeval.compare.pairs import Pairs
from qeval.compare.rows import Row, summary_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 10
_MOST_PLACES = 10
"""Tasks with more choices than that have no letters that a table could show."""


@dataclass(frozen=True)
class Bin:
    """The items whose confidence lies in (low, high]: their number, mean confidence, and the share right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """How sure one variant was on n items, how often right (means), `ece`, and the bins that have items."""

    n: int
    confidence: float
    right: float
    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Shift:
    """How often one place of the choices was chosen: shares of the baseline and the candidate, their paired
    difference, its interval at the usual confidence and p-value. `claim` is 1 where it is shown to be chosen
    more often, -1 less often, 0 neither, corrected for all places, variants and rows together."""

    place: int
    baseline: float
    candidate: float
    delta: float
    low: float
    high: float
    p: float | None
    claim: int = 0


@dataclass(frozen=True)
class Chosen:
    """One variant on one row. `shares` are of the places that it chose, in order. For a candidate `shifts`
    has an entry a place and `moved` is the total variation distance, half the sum of |shifts|: the least
    share of items whose letter must have changed. `calibration` is None where log-likelihoods are missing."""

    variant: str
    n: int
    shares: tuple[float, ...]
    calibration: Calibration | None
    shifts: tuple[Shift, ...] = ()
    moved: float = 0.0


@dataclass(frozen=True)
class Choices:
    """A row of multiple-choice questions: the shares of places that are right, and every variant, the
    baseline first."""

    row: Row
    right: tuple[float, ...]
    chosen: tuple[Chosen, ...]


def choices_of(evidence: Evidence, known: Sequence[Choices] = ()) -> tuple[Choices, ...]:
    """Every task, and every group with all its items together, whose answers are places of choices.

    `known` are those of the same samples against another baseline: what a variant chose is not counted again.
    """
    alone = {(found.row.id, one.variant): one for found in known for one in found.chosen}
    found = [one for row in summary_rows(evidence.rows) if (one := _choices(evidence, row, alone))]
    shifts = [shift for one in found for chosen in one.chosen for shift in chosen.shifts]
    claims = iter(stats.claims([one.p for one in shifts], [one.delta for one in shifts], CONFIDENCE))
    return tuple(
        replace(one, chosen=tuple(_claimed(chosen, claims) for chosen in one.chosen)) for one in found
    )


def _claimed(chosen: Chosen, claims: Iterator[int]) -> Chosen:
    """The same with the next claims, one for each shift."""
    return replace(chosen, shifts=tuple(replace(shift, claim=next(claims)) for shift in chosen.shifts))


def _choices(evidence: Evidence, row: Row, known: Mapping[tuple[str, str], Chosen]) -> Choices | None:
    if row.level not in ("task", "pooled") or row.kind != "accuracy":
        return None
    found = list(_sides(evidence, row))
    if not found:
        return None
    base = found[0][1]
    sides = {evidence.run.baseline: base, **{name: side for name, _, side in found}}
    if not all((row.id, name) in known or all(map(_are_places, side)) for name, side in sides.items()):
        return None
    gold = np.concatenate([_places(one.gold) for one in base])
    places = max(len(scores) for one in base for scores in one.scores)
    alone = {name: known.get((row.id, name)) or _chosen(name, side, places) for name, side in sides.items()}
    first = replace(alone[evidence.run.baseline], shifts=(), moved=0.0)
    others = [_against(evidence.pairs[name, row.id], alone[name], base, side) for name, base, side in found]
    return Choices(row, _shares(gold, places), (first, *others))


def _sides(evidence: Evidence, row: Row) -> Iterator[tuple[str, list[Samples], list[Samples]]]:
    """(candidate, the baseline's samples, the candidate's) of the row's members, for those who have all."""
    for result in evidence.candidates:
        name = result.variant.name
        both = [evidence.samples.get((name, task.name)) for task in row.members]
        known = [pair for pair in both if pair is not None and len(pair[0])]
        if known and len(known) == len(row.members) and (name, row.id) in evidence.pairs:
            yield name, [pair[0] for pair in known], [pair[1] for pair in known]


def _are_places(samples: Samples) -> bool:
    """Whether every answer is the place of one of several choices with known log-likelihoods."""
    sizes = np.array([len(scores) for scores in samples.scores])
    known = {answer: whole(str(answer)) for answer in set(samples.answer.tolist())}
    if None in known.values() or not ((sizes > 1) & (sizes <= _MOST_PLACES)).all():
        return False
    return bool((_places(samples.answer) < sizes).all())


def _places(texts: NDArray[np.str_]) -> NDArray[np.intp]:
    """Places as numbers; -1 for an answer that is none, as where several are right."""
    known = {text: whole(str(text)) for text in set(texts.tolist())}
    found = {text: -1 if place is None else place for text, place in known.items()}
    return np.array([found[text] for text in texts.tolist()], dtype=np.intp)


def _shares(places: NDArray[np.intp], of: int) -> tuple[float, ...]:
    """The share of items at each of `of` places, of those that have one."""
    counts = np.bincount(places[places >= 0], minlength=of)[:of]
    return tuple((counts / max(int(counts.sum()), 1)).tolist())


def _chosen(name: str, samples: Sequence[Samples], places: int) -> Chosen:
    answers = np.concatenate([_places(one.answer) for one in samples])
    return Chosen(name, len(answers), _shares(answers, places), calibration(samples))


def _against(pairs: Pairs, chosen: Chosen, base: Sequence[Samples], side: Sequence[Samples]) -> Chosen:
    before = np.concatenate([_places(one.answer) for one in base])
    after = np.concatenate([_places(one.answer) for one in side])
    shifts = tuple(_shift(pairs, place, before, after) for place in range(len(chosen.shares)))
    return replace(chosen, shifts=shifts, moved=sum(abs(one.delta) for one in shifts) / 2)


def _shift(pairs: Pairs, place: int, before: NDArray[np.intp], after: NDArray[np.intp]) -> Shift:
    """Whether a place was chosen is a score of 0 or 1 on the same items: its interval is that of a score."""
    first, second = (before == place).astype(float), (after == place).astype(float)
    values = pairs.values and replace(pairs.values, baseline=first, candidate=second, changed=None)
    asked = replace(
        pairs,
        values=values,
        baseline=float(first.mean()),
        candidate=float(second.mean()),
        losses=int(((first == 1) & (second == 0)).sum()),
        gains=int(((first == 0) & (second == 1)).sum()),
    )
    found = compare(asked, CONFIDENCE)
    return Shift(place, found.baseline, found.candidate, found.delta, found.low, found.high, found.p)


# --- calibration --------------------------------------------------------------------------------


def calibration(samples: Sequence[Samples]) -> Calibration | None:
    """The calibration of answers; None without items.

    Expected calibration error (Naeini, Cooper, Hauskrecht, AAAI 2015; Guo et al., ICML 2017, arXiv
    1706.04599, eq. 5): items are sorted into BINS bins of equal width by their confidence, (0, 0.1] first;
    ECE = sum over bins of n_b / n * |share right in b - mean confidence in b|, a fraction. Few items in a bin
    make it larger by chance: of a model without any it is on average up to 0.4 * sqrt(BINS / n).
    """
    sure = np.concatenate([confidences(one) for one in samples])
    right = np.concatenate([one.value for one in samples])
    if not len(sure) or not np.isfinite(sure).all():
        return None
    places = _bin_of(sure)
    bins = tuple(_bin(at, sure[places == at], right[places == at]) for at in sorted(set(places.tolist())))
    ece = sum(one.n * abs(one.right - one.confidence) for one in bins) / len(sure)
    return Calibration(len(sure), float(sure.mean()), float(right.mean()), ece, bins)


def confidences(samples: Samples) -> NDArray[np.float64]:
    """(n,) the probability that the model gave its answer among the choices: their log-likelihoods, as they
    are and by no length divided, through a softmax."""
    most = max((len(scores) for scores in samples.scores), default=0)
    filled = [(*scores, *[-np.inf] * (most - len(scores))) for scores in samples.scores]
    ranked = np.array(filled, dtype=np.float64).reshape(len(samples), most)
    own = ranked[np.arange(len(samples)), _places(samples.answer)]
    with np.errstate(invalid="ignore", over="ignore"):
        sure: NDArray[np.float64] = 1.0 / np.exp(ranked - own[:, None]).sum(axis=1)
    return sure


def _bin_of(sure: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.clip(np.ceil(sure * BINS).astype(np.intp) - 1, 0, BINS - 1)


def _bin(at: int, sure: NDArray[np.float64], right: NDArray[np.float64]) -> Bin:
    return Bin(at / BINS, (at + 1) / BINS, len(sure), float(sure.mean()), float(right.mean()))
