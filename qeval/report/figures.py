"""One variant on one row, in words: score, difference, interval, what was lost and gained; its picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qeval.base import numbers
from qeval.base.records import Comparison, Decision, Result, Run
from qeval.base.rules import allowed_words, describe, limit_of
from qeval.compare import wording
from qeval.compare.columns import in_words
from qeval.compare.evidence import Evidence
from qeval.compare.margin import Finding
from qeval.compare.rows import Row, Score, score_of, summary_rows
from qeval.report.verdicts import WORST_FIRST

PROOFS = {-1: ("▾", "proved loss"), 1: ("▴", "proved gain")}
"""By what is claimed: a sign for a cell of a table, and what it says."""


@dataclass(frozen=True)
class Bar:
    """An interval as parts of a small picture, in per cent of its width; `margin` is the allowed loss."""

    zero: float
    low: float
    high: float
    dot: float
    margin: float | None


@dataclass(frozen=True)
class Figure:
    """One variant on one row, in words. `status` is the gate's, "" where nothing judged it; `word` the key of
    what is found, `claim` -1 where a loss is proved, 1 a gain. `delta` and what follows are empty for the
    baseline and where nothing could be compared."""

    score: str
    n: str
    value: float
    delta: str = ""
    interval: str = ""
    confidence: str = ""
    statistics: Mapping[str, numbers.Numeral] = field(default_factory=dict)
    status: str = ""
    advisory: bool = False
    word: str = ""
    claim: int = 0
    bar: Bar | None = None
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None
    margin: float | None = None

    @property
    def proved(self) -> str:
        """What is proved, once all comparisons are corrected for: "proved loss", "proved gain", else ""."""
        return PROOFS[self.claim][1] if self.claim else ""

    @property
    def proved_mark(self) -> str:
        """A sign for it, to be told without colour."""
        return PROOFS[self.claim][0] if self.claim else ""


@dataclass(frozen=True)
class Column:
    """A row of `rows.Row` turned into a column of the summary table."""

    row: Row
    title: str
    measure: str
    n: str
    allowed: str
    is_perplexity: bool


@dataclass(frozen=True)
class Material:
    """What the figures are made from, handed around together."""

    evidence: Evidence
    decisions: Sequence[Decision]

    @property
    def run(self) -> Run:
        """The run, its baseline the one that is compared with."""
        return self.evidence.run

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the summary."""
        return summary_rows(self.evidence.rows)


def proofs(evidence: Evidence) -> str:
    """What the signs of what is proved mean, of those that occur: "▾: proved loss, corrected for all 24
    comparisons."; "" where nothing is proved."""
    found = evidence.findings.values()
    said = [
        f"{mark}: {words}" for claim, (mark, words) in PROOFS.items() if claim in {f.claim for f in found}
    ]
    among = next((one.among for one in found), 0)
    corrected = f", corrected for all {among} comparisons" if among > 1 else ""
    return f"{'; '.join(said)}{corrected}." if said else ""


def column(material: Material, row: Row) -> Column:
    """The column's heading; n from the baseline, or from whichever variant has it."""
    run = material.run
    ordered = sorted(run.results, key=lambda result: result.variant.name != run.baseline)
    score = next((s for result in ordered if (s := score_of(run, result, row))), None)
    allowed = {_allowed_text(d) for d in material.decisions if d.task == row.id}
    return Column(
        row,
        row.title,
        row.measure,
        n_of(score, material.evidence.texts(row)),
        "; ".join(sorted(allowed - {""})),
        row.kind == "perplexity",
    )


def n_of(score: Score | None, texts: int | None = None) -> str:
    """How many items a score is of, of how many there are, and in how many texts where some share one."""
    if score is None:
        return numbers.NONE
    of = f" of {numbers.count(score.n_available)}" if score.n < score.n_available else ""
    shared = "" if texts is None else f" in {numbers.count(texts)} texts"
    return f"{numbers.count(score.n)}{of}{shared}" if of or shared else numbers.count(score.n)


def _allowed_text(decision: Decision) -> str:
    """The rule's limit in words; "" of a doubt, which has none."""
    rule = decision.rule
    if not describe(rule):
        return ""
    unit = {"min_recovery": " kept", "max_flips": " flips"}.get(limit_of(rule)[0], "")
    return f"allowed: {allowed_words(rule)}{unit}{'' if rule.tier == 'required' else ' (advisory)'}"


def figure(material: Material, result: Result, row: Row) -> Figure | None:
    """One variant on one row; None where the variant has no score there."""
    score = score_of(material.run, result, row)
    if score is None:
        return None
    text = numbers.perplexity(score.score) if row.kind == "perplexity" else numbers.points(score.score)
    plain = Figure(text, n_of(score, material.evidence.texts(row)), score.score)
    name = result.variant.name
    shown = material.evidence.comparison(name, row.id)
    if shown is None:
        return plain
    judged = judging(material.decisions, name, row.id)
    return _compared(plain, shown, judged, material.evidence.findings.get((name, row.id)))


def _compared(
    plain: Figure, shown: Comparison, decisions: Sequence[Decision], found: Finding | None
) -> Figure:
    """The figure with its difference, and what a rule says of it where one judged the row."""
    deciding = _deciding(decisions)
    margin = _margin(deciding) if deciding else None
    limits = rule_limits(decisions) + (found.kept if found else ())
    return replace(
        plain,
        delta=wording.delta(shown, limits),
        interval=wording.interval(shown, limits),
        confidence=numbers.level(shown.confidence),
        statistics=in_words(shown),
        status=deciding.status if deciding else "",
        advisory=deciding is not None and deciding.rule.tier == "advisory",
        word=found.status if found else "",
        claim=found.claim if found else 0,
        notes=shown.notes,
        comparison=shown,
        margin=margin,
    )


def judging(decisions: Sequence[Decision], variant: str, row: str) -> list[Decision]:
    """The decisions on a variant's row."""
    return [one for one in decisions if one.variant == variant and one.task == row]


def rule_limits(decisions: Sequence[Decision]) -> tuple[float, ...]:
    """The limit of the rule that decides on a row, as a delta that nothing shown there is rounded across."""
    deciding = _deciding(decisions)
    margin = _margin(deciding) if deciding else None
    return () if margin is None else (margin,)


def _deciding(decisions: Sequence[Decision]) -> Decision | None:
    """The worst required decision on a row, else the worst advisory one."""
    ranked = sorted(decisions, key=lambda d: (d.rule.tier != "required", WORST_FIRST.index(d.status)))
    return ranked[0] if ranked else None


def _margin(decision: Decision) -> float | None:
    """The allowed difference as a delta (at most zero); None for a limit on flips."""
    return None if decision.allowed is None or decision.rule.max_flips is not None else -decision.allowed


Scale = tuple[float, float]


def scale_of(figures: Iterable[Figure | None]) -> Scale | None:
    """The range of deltas that a column's bars must show, zero and margins included."""
    values = [0.0]
    for figure in figures:
        if figure and figure.comparison:
            values += [figure.comparison.low, figure.comparison.high, figure.margin or 0.0]
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if max(finite) > min(finite) else None


def widest(scales: Iterable[Scale | None]) -> Scale | None:
    """The range that holds all of these."""
    known = [scale for scale in scales if scale]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def with_bars(figures: Sequence[Figure | None], scales: Sequence[Scale | None]) -> tuple[Figure | None, ...]:
    """The figures of a line with their intervals drawn, each on its column's scale."""
    return tuple(
        replace(figure, bar=_bar(figure.comparison, figure.margin, scale))
        if figure and figure.comparison and scale
        else figure
        for figure, scale in zip(figures, scales, strict=True)
    )


def _bar(comparison: Comparison, margin: float | None, scale: Scale) -> Bar | None:
    """The interval laid on the scale, with a tenth of air on both sides; None where it has no bounds."""
    if not all(math.isfinite(value) for value in (comparison.low, comparison.high, comparison.delta)):
        return None
    low, high = scale
    air = 0.1 * (high - low)

    def place(value: float) -> float:
        return round(100 * (value - low + air) / (high - low + 2 * air), 2)

    zero, first, last, dot = map(place, (0.0, comparison.low, comparison.high, comparison.delta))
    return Bar(zero, first, last, dot, None if margin is None else place(margin))
