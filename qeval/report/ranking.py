"""The decision table: a line a variant, the best to ship first, with what a decision is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Comparison, Decision, Result, Run
from qeval.compare import wording
from qeval.compare.evidence import Evidence
from qeval.compare.margin import Finding, place
from qeval.compare.rows import Row, summary_rows
from qeval.report.costs import Axis, axes
from qeval.report.fidelity import nats
from qeval.report.figures import judging, rule_limits
from qeval.report.verdicts import Verdict, verdict_of

BEST_FIRST = (
    *("PASS", "BETTER", "EQUIVALENT", "MEASURABLE", "INCONCLUSIVE", "UNDECIDED", "MISSING"),
    *("WORSE", "FAIL", "NONE", "BROKEN"),
)
ORDER = ("verdict", "proved loss")
"""What variants are ordered by, before Δ: of two with one verdict, the one without a proved loss that may be
as large as the margin ships first, though it may be the other whose Δ, not known as surely, looks better."""
_FAR = 4
"""How many times as far as the middle variant, and the margin, the axis goes: one ruined variant hides no
other."""


@dataclass(frozen=True)
class Span:
    """An interval on the shared axis, in per cent of its width; `beyond` is -1 or 1 where it ends outside."""

    low: float
    high: float
    dot: float
    beyond: int = 0


@dataclass(frozen=True)
class Scale:
    """The shared axis: where zero and both margins are, in per cent, and ticks with their labels."""

    zero: float
    margins: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Entry:
    """A variant against the reference, in words. `finding` is that on the row that the table is about, `word`
    says why its verdict is so, `sums_up` is the finding that sums it up by the margin, and `by` its
    difference where it is on another row; `worst` is the worst task with its difference, `reach` its interval
    and `worst_of` the finding on it; `ratio` is that of the first perplexity, `ratio_of` the finding on it.
    `fixed` are the cells of the columns that no reference changes, `losses` the ids of the rows on which a
    loss is proved, and `may_exceed` whether one of these may be as large as the margin."""

    variant: str
    verdict: Verdict
    word: str
    delta: str
    interval: str
    worst: str
    ratio: str
    reach: str = ""
    by: str = ""
    finding: Finding | None = None
    sums_up: Finding | None = None
    worst_of: Finding | None = None
    ratio_of: Finding | None = None
    span: Span | None = None
    fixed: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    may_exceed: bool = False

    @property
    def short(self) -> str:
        """The name, its middle left out where it would be too long."""
        return short(self.variant)

    @property
    def of_another(self) -> bool:
        """Whether the verdict is that of another row than the table's Δ, which it then names."""
        if self.sums_up is None or self.finding is None:
            return False
        return self.sums_up.comparison.task != self.finding.comparison.task

    @property
    def says_all(self) -> bool:
        """Whether the table has all that the verdict's sentence would say."""
        found = self.sums_up
        plain = found is not None and self.verdict.sentence == f"{found.name}: {found.change}."
        return plain and not self.of_another and not self.verdict.reasons and not self.verdict.beside


Heads = tuple[Row | None, Row | None]


@dataclass(frozen=True)
class Ranking:
    """The table: its entries in order, the row that Δ is of, the titles of columns that something stands in.
    `reference` holds what is known of the variant that the others are compared with; `fixed` the title of
    each of its columns, the unit, and what more there is to know of it. `heads` are the row that Δ is of and
    the first perplexity beside it."""

    title: str
    entries: tuple[Entry, ...]
    reference: Entry
    fixed: tuple[tuple[str, str, str], ...]
    has_worst: bool
    ratio_of: str
    scale: Scale | None
    heads: Heads = (None, None)

    @property
    def order(self) -> str:
        """What the entries are ordered by, in words: "verdict, then by proved loss, then by Δ"."""
        return ", then by ".join((*ORDER, wording.DELTA))


def _heads(evidence: Evidence) -> Heads:
    """The first rows on which anything is compared."""
    rows = summary_rows(evidence.rows)
    known = {row for _, row in evidence.pairs}
    rows = tuple(row for row in rows if row.id in known)
    first = min(rows, key=place, default=None)
    return first, next((row for row in rows if row.kind == "perplexity" and row is not first), None)


def ranking(evidence: Evidence, decisions: Sequence[Decision] = (), heads: Heads | None = None) -> Ranking:
    """The decision table of a run; about the same rows as another table where its `heads` are given."""
    first, ratio_of = heads = heads or _heads(evidence)
    columns = tuple(_fixed(evidence))
    fixed = tuple(column[:3] for column in columns)
    entries = [
        _entry(evidence, result, decisions, first, ratio_of, [cells for *_, cells in columns])
        for result in evidence.candidates
    ]
    scale, spans = _spans([entry.finding for entry in entries])
    entries = [replace(entry, span=span) for entry, span in zip(entries, spans, strict=True)]
    name = evidence.run.baseline
    own = tuple(cells.get(name, numbers.NONE) for *_, cells in columns)
    verdict = Verdict(name, "BASELINE", "Baseline", "")
    return Ranking(
        title=first.title if first else "",
        entries=tuple(sorted(entries, key=_rank)),
        reference=Entry(name, verdict, "", "", "", "", "", fixed=own),
        fixed=fixed,
        has_worst=any(entry.worst != numbers.NONE for entry in entries),
        ratio_of=ratio_of.title if ratio_of else "",
        scale=scale,
        heads=heads,
    )


def with_fixed(table: Ranking, own: Ranking) -> Ranking:
    """The table with the columns that no reference changes taken from the run's own, where fidelity is."""
    cells = {entry.variant: entry.fixed for entry in (*own.entries, own.reference)}
    entries = tuple(replace(entry, fixed=cells[entry.variant]) for entry in table.entries)
    reference = replace(table.reference, fixed=cells[table.reference.variant])
    return replace(table, entries=entries, reference=reference, fixed=own.fixed)


def _rank(entry: Entry) -> tuple[int, bool, bool, float]:
    """By what ORDER names, then by Δ; of one verdict, those that lack a task or that Δ stand last."""
    delta = entry.finding.comparison.delta if entry.finding else -math.inf
    lacks = entry.finding is None or bool(entry.sums_up and entry.sums_up.missing)
    return BEST_FIRST.index(entry.verdict.status), lacks, entry.may_exceed, -delta


def _entry(
    evidence: Evidence,
    result: Result,
    decisions: Sequence[Decision],
    first: Row | None,
    ratio_of: Row | None,
    columns: Sequence[Mapping[str, str]],
) -> Entry:
    name = result.variant.name
    found = _on(evidence, decisions, name, first)
    ratio = _on(evidence, decisions, name, ratio_of)
    sums_up, worst = evidence.finding(name), _worst(evidence, decisions, name, first)
    lost = _lost(evidence, name)
    return Entry(
        variant=name,
        verdict=(verdict := verdict_of(result, evidence, decisions)),
        word=_because(verdict, sums_up, judged=bool(decisions)),
        delta=found.delta_text if found else numbers.NONE,
        interval=found.interval_text if found else "",
        worst=f"{worst.name} {worst.delta_text}" if worst else numbers.NONE,
        reach=worst.interval_text if worst else "",
        ratio=ratio.delta_text if ratio else numbers.NONE,
        by="" if decisions else _by(sums_up, first),
        finding=found,
        sums_up=sums_up,
        worst_of=worst,
        ratio_of=ratio,
        fixed=tuple(cells.get(name, numbers.NONE) for cells in columns),
        losses=tuple(row for row, _ in lost),
        may_exceed=any(one.status != "MEASURABLE" for _, one in lost),
    )


def _lost(evidence: Evidence, variant: str) -> list[tuple[str, Finding]]:
    """The rows on which a loss is proved, however small, in their order."""
    return [(row, one) for (name, row), one in evidence.findings.items() if name == variant and one.claim < 0]


def _because(verdict: Verdict, sums_up: Finding | None, *, judged: bool) -> str:
    """Why a row's verdict is what it is: by the rules that decide, else by the margin, which is said where
    rules judged other variants and none this one."""
    if verdict.by or sums_up is None:
        return verdict.by
    return f"by the margin, as no rule judges it: {sums_up.said}" if judged else sums_up.said


def _on(evidence: Evidence, decisions: Sequence[Decision], variant: str, row: Row | None) -> Finding | None:
    """What is found on a row, rounded across no limit that judged it."""
    found = evidence.findings.get((variant, row.id)) if row else None
    if found is None or row is None:
        return None
    return replace(found, limits=rule_limits(judging(decisions, variant, row.id)))


def _by(sums_up: Finding | None, first: Row | None) -> str:
    """The change on the row by which a variant is worse or better, where the table is of another: "Δ -3.07",
    of perplexities "x1.217"."""
    if sums_up is None or first is None or sums_up.comparison.task == first.id:
        return ""
    if sums_up.status not in ("WORSE", "BETTER"):
        return ""
    name = "" if sums_up.comparison.kind == "perplexity" else f"{wording.DELTA} "
    return f"{name}{sums_up.delta_text}"


def worst_of(evidence: Evidence, variant: str, first: Row | None) -> Finding | None:
    """The finding on the task with the lowest difference; None where the table is about the only task."""
    rows = {row.id for row in evidence.rows if row.headline and row.kind != "perplexity" and row is not first}
    found = [one for (name, row), one in evidence.findings.items() if name == variant and row in rows]
    return min(found, key=lambda one: one.comparison.delta, default=None) if len(rows) > 1 else None


def _worst(
    evidence: Evidence, decisions: Sequence[Decision], variant: str, first: Row | None
) -> Finding | None:
    """The same, rounded across no limit that judged it."""
    found = worst_of(evidence, variant, first)
    if found is None:
        return None
    return replace(found, limits=rule_limits(judging(decisions, variant, found.comparison.task)))


def as_data(evidence: Evidence, decisions: Sequence[Decision] = ()) -> list[dict[str, Any]]:
    """The same for programs: numbers as they are, in the units of a comparison."""
    table = ranking(evidence, decisions)
    results = {result.variant.name: result for result in evidence.candidates}
    return [_data(evidence, results[entry.variant], entry) for entry in table.entries]


def _data(evidence: Evidence, result: Result, entry: Entry) -> dict[str, Any]:
    found, made = entry.finding, result.provenance
    first = next((row for row in evidence.rows if found and row.id == found.comparison.task), None)
    worst = worst_of(evidence, entry.variant, first)
    rows = [evidence.fidelity.row(entry.variant, name) for name in evidence.fidelity.protocols[:1]]
    moved = next((row for row in rows if row), None)
    axis, ratio = speed_axis(evidence.run), entry.ratio_of
    return {
        "variant": entry.variant,
        "status": entry.verdict.status,
        "task": found.comparison.task if found else None,
        "delta": found.comparison.delta if found else None,
        "proved_losses": list(entry.losses),
        "worst": {"task": worst.comparison.task, "delta": worst.comparison.delta} if worst else None,
        "perplexity_ratio": numbers.exp(-ratio.comparison.delta) if ratio else None,
        "kl": moved.kl.value if moved else None,
        "same_top": moved.same_top.value if moved else None,
        "weight_bytes": made.weight_bytes if made else None,
        "speed": axis.value(result) if axis else None,
        "speed_of": f"{axis.title}, {axis.unit}" if axis else None,
        "quantised_share": made.quantised_share if made else None,
    }


# --- what no reference changes ------------------------------------------------------------------

_Cells = tuple[str, str, str, Mapping[str, str]]
"""A column: its title, its unit, what more there is to know of it, and its cells by variant."""


def _fixed(evidence: Evidence) -> Iterable[_Cells]:
    """The columns that any variant has something for."""
    run = evidence.run
    for column in (*_fidelity(evidence), *_sizes(run), *_speed(run), *_shares(run)):
        if any(cell != numbers.NONE for cell in column[-1].values()):
            yield column


def _fidelity(evidence: Evidence) -> Iterable[_Cells]:
    """KL and top-1 by the first protocol; against the run's own baseline, whatever the reference."""
    for protocol in evidence.fidelity.protocols[:1]:
        rows = {one.variant: one for one in evidence.fidelity.of(protocol) if one.role == "candidate"}
        by = f"by {protocol}, always against {evidence.run.baseline}"
        yield "KL", "nats", by, {name: nats(row.kl.value) for name, row in rows.items()}
        top = {name: numbers.percent(row.same_top.value, 2) for name, row in rows.items()}
        yield "Same top-1", "of tokens", "", top


def _sizes(run: Run) -> Iterable[_Cells]:
    made = {result.variant.name: result.provenance for result in run.results}
    sizes = {name: numbers.size(one.weight_bytes if one else None) for name, one in made.items()}
    yield "Size", "weights", "", sizes


def speed_axis(run: Run) -> Axis | None:
    """The measure that speaks of speed best: text written for one person, else the first there is."""
    measures = [axis for axis in axes(run) if axis.id not in ("weights", "bits", "peak", "load")]
    alone = [axis for axis in measures if axis.id.startswith("generate/batch=1/")]
    return next(iter([*alone, *measures]), None)


def _speed(run: Run) -> Iterable[_Cells]:
    axis = speed_axis(run)
    if axis is not None:
        cells = {result.variant.name: numbers.significant(axis.value(result)) for result in run.results}
        yield "Speed", axis.unit, axis.title, cells


def _shares(run: Run) -> Iterable[_Cells]:
    made = {result.variant.name: result.provenance for result in run.results}
    shares = {name: numbers.percent(one.quantised_share if one else None) for name, one in made.items()}
    yield "Quantised", "of weights", "of the weights, not counting embeddings and head", shares


# --- the shared axis ----------------------------------------------------------------------------


def _spans(findings: Sequence[Finding | None]) -> tuple[Scale | None, list[Span | None]]:
    """The axis that all intervals and the margin stand on, and each interval on it."""
    drawn = [one for one in findings if one and all(map(math.isfinite, _bounds(one.comparison)))]
    if not drawn:
        return None, [None for _ in findings]
    limit = drawn[0].limit
    reach = median(max(map(abs, _bounds(one.comparison))) for one in drawn)
    most = _FAR * max(reach, limit)
    low = max(min(-1.15 * limit, *(1.05 * one.comparison.low for one in drawn)), -most)
    high = min(max(1.15 * limit, *(1.05 * one.comparison.high for one in drawn)), most)

    def at(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    ticks = tuple((at(value), label) for value, label in _ticks(low, high, drawn[0].comparison.kind))
    scale = Scale(at(0.0), (at(-limit), at(limit)), ticks)
    return scale, [_span(one.comparison, low, high, at) if one in drawn and one else None for one in findings]


def _span(one: Comparison, low: float, high: float, at: Callable[[float], float]) -> Span:
    beyond = -1 if one.low < low else int(one.high > high)
    return Span(at(one.low), at(one.high), at(one.delta), beyond)


def _bounds(one: Comparison) -> tuple[float, float, float]:
    return one.low, one.delta, one.high


def _ticks(low: float, high: float, kind: str) -> Iterable[tuple[float, str]]:
    """Round numbers of points on the axis, or of perplexity ratios."""
    if kind == "perplexity":
        for ratio in (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 5.0):
            if low <= -math.log(ratio) <= high:
                yield -math.log(ratio), f"x{ratio:g}"
        return
    step = _step((high - low) / _MOST_TICKS)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield number * step, numbers.signed(100 * number * step, 0 if step >= _WHOLE else 1)


def _step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50, ... tenths of a point that is no less, of scores of any size."""
    power: float = 10.0 ** max(math.floor(math.log10(least)), -3)
    return next((step for step in (power, 2 * power, 5 * power) if step >= least), 10 * power)


_WHOLE = 0.01
_MOST_TICKS = 4
