"""The one computed context that every format of the report is rendered from; numbers already in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from qeval.base import numbers
from qeval.base.names import scheme_text
from qeval.base.records import Comparison, Decision, Policy, ReadItems, Result, Run
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, Score, result_of, score_of, subject_rows, summary_rows
from qeval.compare.stats.shrink import shrink
from qeval.report.costs import CostTable, cost_table
from qeval.report.documents import Documents, documents
from qeval.report.facts import OWN, Fact, commands, provenance_facts, run_facts, warnings_of
from qeval.report.flips import Explorer, explore
from qeval.report.verdicts import WORST_FIRST, Verdict, verdict_of

_LONGEST_NAME = 48


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
    """One variant on one row, in words. `status` is the gate's, "" where nothing judged it. `delta` and
    what follows are empty for the baseline and where nothing could be compared."""

    score: str
    n: str
    value: float
    delta: str = ""
    interval: str = ""
    confidence: str = ""
    lost: str = ""
    gained: str = ""
    changed: str = ""
    recovery: str = ""
    above_chance: str = ""
    status: str = ""
    advisory: bool = False
    real: str = ""
    bar: Bar | None = None
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None
    margin: float | None = None


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
class Line:
    """One variant of the summary table; `figures` stand in the order of the columns."""

    name: str
    anchor: str
    scheme: str
    is_baseline: bool
    status: str
    error: str
    verdict: Verdict
    figures: tuple[Figure | None, ...]
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]

    @property
    def short(self) -> str:
        """The name, its middle left out where it would make a table's first column too wide."""
        half = _LONGEST_NAME // 2
        return self.name if len(self.name) <= _LONGEST_NAME else f"{self.name[:half]}…{self.name[-half:]}"


@dataclass(frozen=True)
class Detail:
    """Everything known about one variant on one task; `baseline` and `p` in words."""

    task: str
    variant: str
    baseline: str
    p: str
    method: str
    figure: Figure


@dataclass(frozen=True)
class Subject:
    """One variant on one member of a group. `shrunk`, `low`, `high`, `value` (the difference) are
    fractions; the other fields are words."""

    variant: str
    subject: str
    group: str
    category: str
    n: str
    baseline: str
    score: str
    delta: str
    interval: str
    shrunk: float
    shrunk_text: str
    low: float
    high: float
    value: float


@dataclass(frozen=True)
class Category:
    """A category of a group's members, all items together: a baseline's score and each variant's delta."""

    group: str
    name: str
    subjects: int
    n: str
    baseline: str
    deltas: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """Everything a report shows."""

    title: str
    run: Run
    run_facts: tuple[Fact, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    subjects: tuple[Subject, ...]
    categories: tuple[Category, ...]
    documents: tuple[Documents, ...]
    explorer: Explorer
    cost: CostTable | None
    commands: tuple[Fact, ...]
    warnings: tuple[str, ...]
    forgiven: tuple[str, ...]
    gate: str

    @property
    def candidates(self) -> tuple[Line, ...]:
        """The lines that are compared with the baseline."""
        return tuple(line for line in self.lines if not line.is_baseline)

    @property
    def summary(self) -> str:
        """What the report is of, in a line."""
        number = len(self.run.results)
        variants = f"{number} variant{'' if number == 1 else 's'}"
        parts = (self.run.suite.name, f"baseline {self.run.baseline}", variants, self.run.created)
        return " · ".join(part for part in parts if part)

    @property
    def imported(self) -> bool:
        """Whether somebody else scored the run, so that nothing here was read from a loaded model."""
        return self.run.source != OWN

    @property
    def has_flips(self) -> bool:
        """Whether any difference counts answers that changed."""
        return any(row.figure.changed for row in self.details)

    @property
    def details(self) -> tuple[Detail, ...]:
        """The summary table in long form: a row for each difference."""
        return tuple(
            _detail(line, column, figure)
            for place, column in enumerate(self.columns)
            for line in self.candidates
            if (figure := line.figures[place]) and figure.delta
        )

    @property
    def common_confidence(self) -> str:
        """The confidence of most intervals in the summary table; the others say theirs."""
        found = [
            figure.confidence for line in self.lines for figure in line.figures if figure and figure.delta
        ]
        return max(dict.fromkeys(found), key=found.count, default="")

    @property
    def judged(self) -> bool:
        """Whether a gate judged any variant."""
        return bool(self.gate)


def _detail(line: Line, column: Column, figure: Figure) -> Detail:
    comparison = figure.comparison
    if comparison is None:
        return Detail(column.title, line.name, numbers.NONE, numbers.NONE, "", figure)
    words = numbers.perplexity if column.is_perplexity else numbers.points
    return Detail(
        column.title,
        line.name,
        words(comparison.baseline),
        numbers.p_value(comparison.p),
        comparison.method,
        figure,
    )


@dataclass(frozen=True)
class _Material:
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


def build(
    evidence: Evidence,
    read_items: ReadItems,
    decisions: Sequence[Decision] = (),
    policy: Policy | None = None,
    *,
    title: str | None = None,
) -> Context:
    """The context of a report on a run.

    `read_items` gives a stored cell's items; it is not asked for cells that hold only a score. `decisions`
    and `policy` are a gate's, if one was asked for. Nothing is recomputed that the evidence already says.
    """
    run, material = evidence.run, _Material(evidence, decisions)
    return Context(
        title=title or f"What quantisation cost {run.model}",
        run=run,
        run_facts=run_facts(run),
        columns=tuple(_column(material, row) for row in material.rows),
        lines=_lines(material),
        subjects=_subjects(evidence),
        categories=_categories(evidence),
        documents=documents(evidence),
        explorer=explore(evidence, read_items),
        cost=cost_table(run),
        commands=commands(run),
        warnings=_run_warnings(run),
        forgiven=_forgiven(policy),
        gate=_gate_text(policy, decisions),
    )


def _run_warnings(run: Run) -> tuple[str, ...]:
    """What is wrong with the run as a whole, in sentences."""
    notes = []
    baseline = result_of(run, run.baseline)
    if baseline is None:
        notes.append(f"The run has no variant called {run.baseline}, its baseline: nothing can be compared.")
    elif baseline.status == "failed":
        notes.append("The baseline failed: nothing can be compared.")
    failed = [result.variant.name for result in run.results if result.status == "failed"]
    if failed:
        notes.append(f"Did not run: {', '.join(failed)}.")
    if len(run.results) == 1:
        notes.append("There is one variant only: scores are shown, and there is nothing to compare.")
    if not any(cell.n for result in run.results for cell in result.cells):
        notes.append("Nothing was scored.")
    if any(cell.limited for result in run.results for cell in result.cells):
        notes.append(
            "Only a part of the items was scored (a limit was set): this is a smoke test, not a measurement."
        )
    if any(cell.aggregate_only for result in run.results for cell in result.cells):
        notes.append(
            "Only scores are known, not the items behind them: intervals are conservative, flips unknown."
        )
    return tuple(notes)


def _forgiven(policy: Policy | None) -> tuple[str, ...]:
    if policy is None:
        return ()
    notes = []
    if policy.allow_limited:
        notes.append("Limited runs are allowed to pass.")
    if policy.allow_inconclusive:
        notes.append("Undecided rules are allowed to pass.")
    return tuple(notes)


def _gate_text(policy: Policy | None, decisions: Sequence[Decision]) -> str:
    """Where the rules come from; "" where nothing was judged."""
    if not decisions:
        return ""
    return f"Judged by {policy.source}." if policy and policy.source else "Judged by the rules given."


def _lines(material: _Material) -> tuple[Line, ...]:
    """The baseline first, then the variants as they were asked for."""
    run, rows = material.run, material.rows
    ordered = sorted(run.results, key=lambda result: result.variant.name != run.baseline)
    figures = {r.variant.name: [_figure(material, r, row) for row in rows] for r in ordered}
    scales = [_scale([figures[name][place] for name in figures]) for place in range(len(rows))]
    points = _widest(scale for scale, row in zip(scales, rows, strict=True) if row.kind != "perplexity")
    scales = [scale if row.kind == "perplexity" else points for scale, row in zip(scales, rows, strict=True)]
    return tuple(
        _line(material, place, result, _with_bars(figures[result.variant.name], scales))
        for place, result in enumerate(ordered)
    )


def _line(material: _Material, place: int, result: Result, figures: tuple[Figure | None, ...]) -> Line:
    run, name = material.run, result.variant.name
    own = [c for c in material.evidence.comparisons if c.variant == name]
    judged = [d for d in material.decisions if d.variant == name]
    return Line(
        name=name,
        anchor=f"variant-{place}",
        scheme=scheme_text(result.variant.scheme),
        is_baseline=name == run.baseline,
        status=result.status,
        error=result.error or "",
        verdict=verdict_of(result, run.baseline, own, judged),
        figures=figures,
        facts=provenance_facts(result),
        warnings=warnings_of(result),
    )


def _column(material: _Material, row: Row) -> Column:
    """The column's heading; n from the baseline, or from whichever variant has it."""
    run = material.run
    ordered = sorted(run.results, key=lambda result: result.variant.name != run.baseline)
    score = next((s for result in ordered if (s := score_of(run, result, row))), None)
    allowed = {_allowed_text(d) for d in material.decisions if d.task == row.id}
    return Column(
        row, row.title, row.measure, _n(score), "; ".join(sorted(allowed - {""})), row.kind == "perplexity"
    )


def _n(score: Score | None) -> str:
    if score is None:
        return numbers.NONE
    if score.n < score.n_available:
        return f"{numbers.count(score.n)} of {numbers.count(score.n_available)}"
    return numbers.count(score.n)


def _allowed_text(decision: Decision) -> str:
    """The rule's limit in words."""
    rule = decision.rule
    if rule.max_drop is not None:
        words = f"{numbers.MINUS}{rule.max_drop:g}"
    elif rule.min_recovery is not None:
        words = f"{numbers.percent(rule.min_recovery)} kept"
    elif rule.max_ppl_ratio is not None:
        words = f"×{rule.max_ppl_ratio:g}"
    else:
        words = f"{numbers.percent(rule.max_flips)} flips"
    return f"allowed: {words}{'' if rule.tier == 'required' else ' (advice)'}"


def _figure(material: _Material, result: Result, row: Row) -> Figure | None:
    """One variant on one row; None where the variant has no score there."""
    score = score_of(material.run, result, row)
    if score is None:
        return None
    text = numbers.perplexity(score.score) if row.kind == "perplexity" else numbers.points(score.score)
    plain = Figure(text, _n(score), score.score)
    name = result.variant.name
    shown = material.evidence.comparison(name, row.id)
    if shown is None:
        return plain
    judged = [d for d in material.decisions if d.variant == name and d.task == row.id]
    return _compared(plain, shown, judged)


def _compared(plain: Figure, shown: Comparison, decisions: Sequence[Decision]) -> Figure:
    """The figure with its difference. Where a rule judged the row, the interval is the one that decided."""
    deciding = _deciding(decisions)
    used, margin = (deciding.comparison or shown, _margin(deciding)) if deciding else (shown, None)
    if deciding and deciding.rule.max_flips is not None:
        used = shown  # its interval is one of answers that agree, not of a difference of scores
    limits = () if margin is None else (margin,)
    kept, kept_above = _recoveries(shown)
    is_ratio = shown.kind == "perplexity"
    delta = numbers.ratio(used.delta, limits) if is_ratio else numbers.signed_points(used.delta, limits)
    interval = (numbers.interval_ratio if is_ratio else numbers.interval_points)(used.low, used.high, limits)
    return replace(
        plain,
        delta=delta,
        interval=interval,
        confidence=numbers.percent(used.confidence, 0),
        lost=_known(shown.losses),
        gained=_known(shown.gains),
        changed=_known(shown.flips),
        recovery=kept,
        above_chance=kept_above,
        status=deciding.status if deciding else "",
        advisory=deciding is not None and deciding.rule.tier == "advisory",
        real=_real(used),
        notes=shown.notes,
        comparison=used,
        margin=margin,
    )


def _deciding(decisions: Sequence[Decision]) -> Decision | None:
    """The worst required decision on a row, else the worst advisory one."""
    ranked = sorted(decisions, key=lambda d: (d.rule.tier != "required", WORST_FIRST.index(d.status)))
    return ranked[0] if ranked else None


def _margin(decision: Decision) -> float | None:
    """The allowed difference as a delta (at most zero); None for a limit on flips."""
    return None if decision.allowed is None or decision.rule.max_flips is not None else -decision.allowed


def _known(number: int | None) -> str:
    return "" if number is None else numbers.count(number)


def _recoveries(comparison: Comparison) -> tuple[str, str]:
    """What share of the baseline's score is kept: of all of it, and of what lies above guessing."""
    if comparison.kind == "perplexity" or comparison.baseline <= 0:
        return "", ""
    raw = numbers.percent(comparison.candidate / comparison.baseline)
    chance = comparison.chance
    if chance is None or comparison.baseline <= chance:
        return raw, ""
    return raw, numbers.percent((comparison.candidate - chance) / (comparison.baseline - chance))


def _real(comparison: Comparison) -> str:
    """Whether the interval tells the difference from zero."""
    if comparison.high < 0:
        return "lower"
    return "higher" if comparison.low > 0 else "unclear"


Scale = tuple[float, float]


def _scale(figures: Iterable[Figure | None]) -> Scale | None:
    """The range of deltas that a column's bars must show, zero and margins included."""
    values = [0.0]
    for figure in figures:
        if figure and figure.comparison:
            values += [figure.comparison.low, figure.comparison.high, figure.margin or 0.0]
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if max(finite) > min(finite) else None


def _widest(scales: Iterable[Scale | None]) -> Scale | None:
    known = [scale for scale in scales if scale]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _with_bars(figures: Sequence[Figure | None], scales: Sequence[Scale | None]) -> tuple[Figure | None, ...]:
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


def _subjects(evidence: Evidence) -> tuple[Subject, ...]:
    """Every member of every group for every candidate, deltas also shrunken to the group's mean."""
    rows = subject_rows(evidence.rows)
    found: list[Subject] = []
    groups = dict.fromkeys(row.members[0].group or "" for row in rows)
    for group in groups:
        for name in (result.variant.name for result in evidence.candidates):
            members = [row for row in rows if row.members[0].group == group]
            pairs = [(row, c) for row in members if (c := evidence.comparison(name, row.id))]
            found += _shrunken(group, name, pairs)
    return tuple(found)


def _shrunken(group: str, name: str, pairs: Sequence[tuple[Row, Comparison]]) -> list[Subject]:
    errors = [_standard_error(comparison) for _, comparison in pairs]
    shrunk = shrink([comparison.delta for _, comparison in pairs], [error**2 for error in errors])
    return [_subject(group, name, row, c, value) for (row, c), value in zip(pairs, shrunk, strict=True)]


def _standard_error(comparison: Comparison) -> float:
    """From the interval's width; never zero, for no subject is known without error (half an item)."""
    z = NormalDist().inv_cdf(0.5 + comparison.confidence / 2)
    width = comparison.high - comparison.low
    floor = 0.5 / max(comparison.n, 1)
    return max(width / (2 * z), floor) if math.isfinite(width) else 1.0


def _subject(group: str, name: str, row: Row, c: Comparison, shrunk: float) -> Subject:
    return Subject(
        variant=name,
        subject=row.id.removeprefix(f"{group}_").replace("_", " "),
        group=group,
        category=row.members[0].category or "",
        n=numbers.count(c.n),
        baseline=numbers.points(c.baseline, 1),
        score=numbers.points(c.candidate, 1),
        delta=numbers.signed_points(c.delta),
        interval=numbers.interval_points(c.low, c.high),
        shrunk=shrunk,
        shrunk_text=numbers.signed_points(shrunk),
        low=c.low,
        high=c.high,
        value=c.delta,
    )


def _categories(evidence: Evidence) -> tuple[Category, ...]:
    """Scores by category within each group, items weighted equally, deltas in the order of candidates."""
    rows = [row for row in subject_rows(evidence.rows) if row.members[0].category]
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        task = row.members[0]
        places.setdefault((task.group or "", task.category or ""), []).append(row)
    return tuple(_category(evidence, group, name, members) for (group, name), members in places.items())


def _category(evidence: Evidence, group: str, name: str, members: Sequence[Row]) -> Category:
    joined = Row(name, "pooled", "accuracy", "", tuple(row.members[0] for row in members))
    base = score_of(evidence.run, evidence.baseline, joined)
    others = [score_of(evidence.run, result, joined) for result in evidence.candidates]
    deltas = tuple(
        numbers.signed_points(other.score - base.score) if other and base else numbers.NONE
        for other in others
    )
    return Category(group, name, len(members), _n(base), numbers.points(base.score if base else None), deltas)
