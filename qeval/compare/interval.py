"""The interval of one row, at any confidence, so that a gate can judge with the very interval it prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from qeval.base.records import Comparison
from qeval.compare import stats
from qeval.compare.pairs import Pairs, Values
from qeval.compare.stats.columns import is_bounded

_NONE = "none"


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
        texts=pairs.texts,
    )


def compare_agreement(pairs: Pairs, confidence: float) -> Comparison:
    """The share of answers that stayed the same, against all of them, with the interval that decides a limit
    on flips; only of rows whose flips are counted."""
    flips = pairs.flips or 0
    low, high, method = _changed(pairs, confidence)
    share = flips / pairs.n
    return replace(
        compare(pairs, confidence),
        metric="agreement",
        baseline=1.0,
        candidate=1.0 - share,
        delta=-share,
        low=-high,
        high=-low,
        method=method,
        p=None,
    )


def _changed(pairs: Pairs, level: float) -> tuple[float, float, str]:
    """The interval of the share of answers that changed, and the method's name."""
    values = pairs.values
    if values is None or values.changed is None or values.cluster is None:
        return (*stats.proportion_interval(pairs.flips or 0, pairs.n, level), "Clopper-Pearson")
    low, high = stats.changed_interval(values.changed, values.cluster, level)
    return low, high, _wider_of("Clopper-Pearson", pairs)


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
        return _averaged(deltas, margins, level, bounded=_bounded(pairs))
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
    Scores in [0, 1]: the bound of a mean with one item unseen; others: t on the linearised ratio, padded.
    Published scores: unpaired. The mean of a group's members: stratified where all its items are known.
    Other means: from the rows' own intervals, whose squared sides add as variances do. Bounds are infinite,
    or -1 and 1, where the data say nothing: the method's name then says why.
    """
    if pairs.level == "macro" and pairs.values is not None:
        return _of_strata(pairs, pairs.values, level)
    if pairs.parts:
        deltas = [part.delta for part in pairs.parts]
        bounds = [interval(part, level)[:2] for part in pairs.parts]
        low, high = _averaged(deltas, bounds, level, bounded=_bounded(pairs))
        return low, high, "mean of the rows' intervals"
    if pairs.values is None:
        return _of_published(pairs, level)
    if pairs.losses is None or pairs.gains is None:
        return _of_values(pairs, pairs.values, level)
    low, high = stats.accuracy_interval(pairs.losses, pairs.gains, pairs.n, level)
    if pairs.values.cluster is None:
        return low, high, "Tango"
    other_low, other_high, _ = _of_values(pairs, pairs.values, level)
    return min(low, other_low), max(high, other_high), _wider_of("Tango", pairs)


def _of_values(pairs: Pairs, values: Values, level: float) -> tuple[float, float, str]:
    _, low, high = stats.paired_interval(
        values.baseline, values.candidate, values.weight, values.cluster, level=level
    )
    bounded = is_bounded(values.baseline, values.candidate, values.weight)
    return low, high, _method(pairs, "bounded mean" if bounded else "padded t")


def _of_strata(pairs: Pairs, values: Values, level: float) -> tuple[float, float, str]:
    assert values.stratum is not None  # noqa: S101 - every macro row has strata
    _, low, high = stats.stratified_interval(
        values.baseline, values.candidate, values.stratum, level, values.cluster
    )
    return low, high, _method(pairs, "stratified")


def _method(pairs: Pairs, name: str) -> str:
    """The name of a method, with what clusters make of it."""
    if pairs.texts is None:
        return name
    return f"cluster-robust {name}" if pairs.texts >= stats.FEWEST_CLUSTERS else _too_few(pairs.texts)


def _wider_of(name: str, pairs: Pairs) -> str:
    """The name of the method that takes the wider of two, of which one counts texts."""
    few = pairs.texts is not None and pairs.texts < stats.FEWEST_CLUSTERS
    return _too_few(pairs.texts or 0) if few else f"{name}, or cluster-robust where wider"


def _too_few(texts: int) -> str:
    return f"{_NONE}: its items share {texts} texts, and {stats.FEWEST_CLUSTERS} are needed"


def _of_published(pairs: Pairs, level: float) -> tuple[float, float, str]:
    if pairs.errors is not None:
        reach = NormalDist().inv_cdf(0.5 + level / 2) * math.hypot(*pairs.errors)
        return pairs.delta - reach, pairs.delta + reach, "unpaired, from published standard errors"
    if not _in_unit(pairs):
        return -math.inf, math.inf, f"{_NONE}: the items' spread is unknown"
    first, second = pairs.worth
    low, high = stats.unpaired_interval(pairs.baseline, first, pairs.candidate, second, level)
    return low, high, "unpaired"


def _in_unit(pairs: Pairs) -> bool:
    """Whether the scores are such that their spread is bounded by their mean."""
    return pairs.kind != "perplexity" and all(0 <= one <= 1 for one in (pairs.baseline, pairs.candidate))


def _bounded(pairs: Pairs) -> bool:
    """Whether all scores behind the row are in [0, 1], so that no difference is beyond [-1, 1]."""
    if pairs.parts:
        return all(map(_bounded, pairs.parts))
    values = pairs.values
    if values is None or pairs.kind == "perplexity":
        return _in_unit(pairs)
    return is_bounded(values.baseline, values.candidate, values.weight)


def _averaged(
    deltas: Sequence[float], bounds: Sequence[tuple[float, float]], level: float, *, bounded: bool
) -> tuple[float, float]:
    """The interval of the mean of independent differences, each with its own bounds."""
    pairs = zip(deltas, bounds, strict=True)
    sides = [stats.side_errors(delta, low, high, level) for delta, (low, high) in pairs]
    _, low, high = stats.average_interval(deltas, sides, level, bounded=bounded)
    return low, high


def p_value(pairs: Pairs, low: float, high: float, confidence: float) -> float | None:
    """The two-sided p-value of no difference: McNemar's mid-p for 0/1 scores, and no less than the texts'
    where items share some; of other scores with items the one that the interval implies; else the normal
    one that agrees with [low, high]. None where there is no interval."""
    values = None if pairs.parts else pairs.values
    found = []
    if not pairs.parts and pairs.losses is not None and pairs.gains is not None:
        found = [stats.mcnemar_midp(pairs.losses, pairs.gains)]
    if values is not None and (values.cluster is not None or not found):
        columns = (values.baseline, values.candidate, values.weight)
        found.append(stats.paired_p_value(*columns, values.cluster))
    reach = pairs.delta - low if pairs.delta > 0 else high - pairs.delta
    if found or not math.isfinite(reach):
        return max(found) if found and math.isfinite(reach) else None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return stats.p_value(pairs.delta, reach / z)
