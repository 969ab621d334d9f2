"""The one computed context that every format of the report is rendered from; numbers already in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qeval.base import numbers
from qeval.base.names import scheme_text, short
from qeval.base.records import Decision, Policy, ReadItems, Result, Run
from qeval.compare.evidence import Evidence
from qeval.report.cautions import Cautions, cautions
from qeval.report.choices import ToldChoices
from qeval.report.choices import told as choices_told
from qeval.report.closing import closing
from qeval.report.costs import CostTable, cost_table
from qeval.report.documents import Documents, documents
from qeval.report.explorer import Explorer, explore
from qeval.report.explorer import against as recounted
from qeval.report.facts import NOTHING_ASKED, OWN, Asked, Fact, commands, provenance_facts, run_facts
from qeval.report.fidelity import Told, told
from qeval.report.figures import Column, Figure, Material, column, figure, scale_of, widest, with_bars
from qeval.report.headline import against as lead
from qeval.report.headline import headline
from qeval.report.noise import Noise, noise_of
from qeval.report.ordered import in_order
from qeval.report.ranking import Ranking, ranking, with_fixed
from qeval.report.subjects import Category, Subject, categories, subjects
from qeval.report.verdicts import Verdict, verdict_of


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
    noise: str = ""

    @property
    def short(self) -> str:
        """The name, its middle left out where it would make a table's first column too wide."""
        return short(self.name)


@dataclass(frozen=True)
class Detail:
    """Everything known about one variant on one task; `baseline` in words."""

    task: str
    variant: str
    baseline: str
    method: str
    figure: Figure


@dataclass(frozen=True)
class Context:
    """Everything a report shows. `title` is what was found, unless a person gave another one, which is then
    `named`; `about` says of what, beside it, and `closing` are sentences on who lost least and what would
    decide the undecided. `aside` is the run's own baseline where this is the report against another variant,
    which a page shows when a person asks for it."""

    title: str
    about: str
    named: str
    evidence: Evidence
    decisions: Sequence[Decision]
    run_facts: tuple[Fact, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    subjects: tuple[Subject, ...]
    categories: tuple[Category, ...]
    documents: tuple[Documents, ...]
    explorer: Explorer
    cost: CostTable | None
    noise: Noise
    commands: tuple[Fact, ...]
    ranking: Ranking
    cautions: Cautions
    forgiven: tuple[str, ...]
    gate: str
    fidelity: Told
    choices: tuple[ToldChoices, ...]
    closing: tuple[str, ...] = ()
    aside: str = ""

    @property
    def run(self) -> Run:
        """The run, its baseline the one that is compared with."""
        return self.evidence.run

    @property
    def candidates(self) -> tuple[Line, ...]:
        """The lines that are compared with the baseline."""
        return tuple(line for line in self.lines if not line.is_baseline)

    @property
    def told(self) -> tuple[Line, ...]:
        """The lines whose verdict is told in a sentence, in the order of the decision table: those of whom it
        says more than the table does."""
        entries = {entry.variant: entry for entry in self.ranking.entries}
        return tuple(
            line
            for line in self.lines
            if line.noise
            or (line.status == "failed" if line.is_baseline else not entries[line.name].says_all)
        )

    @property
    def summary(self) -> str:
        """What the report is of, in a line."""
        number = len(self.run.results) - 1
        variants = f"{number or 'no'} variant{'' if number == 1 else 's'} and the baseline"
        reference = f"{'compared with' if self.aside else 'baseline'} {self.run.baseline}"
        parts = (self.run.suite.name, reference, variants, self.run.created[:10])
        return " · ".join(part for part in parts if part)

    @property
    def imported(self) -> bool:
        """Whether somebody else scored the run, so that nothing here was read from a loaded model."""
        return self.run.source != OWN

    @property
    def has_flips(self) -> bool:
        """Whether any difference counts answers that changed."""
        return any(row.figure.statistics["flips"] != numbers.NONE for row in self.details)

    @property
    def unflipped(self) -> tuple[str, ...]:
        """The tasks that count no changed answers beside those that do, as their items score 0 to 1."""
        scored = [one.title for one in self.columns if one.row.kind == "score" and one.row.level != "average"]
        return tuple(scored) if self.has_flips else ()

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
    def let_pass(self) -> tuple[str, ...]:
        """What is said of the gate's exceptions, but for what the cautions say already."""
        return tuple(one for one in self.forgiven if one not in self.cautions.every)

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
        return Detail(column.title, line.name, numbers.NONE, "", figure)
    words = numbers.perplexity if column.is_perplexity else numbers.points
    return Detail(
        column.title,
        line.name,
        words(comparison.baseline),
        comparison.method,
        figure,
    )


def build(
    evidence: Evidence,
    read_items: ReadItems,
    decisions: Sequence[Decision] = (),
    policy: Policy | None = None,
    *,
    title: str | None = None,
    forgiven: Sequence[str] = (),
    excepted: Mapping[str, str] | None = None,
    asked: Asked = NOTHING_ASKED,
) -> Context:
    """The context of a report on a run.

    `read_items` gives a stored cell's items; it is not asked for cells that hold only a score. `decisions`
    and `policy` are a gate's, if one was asked for, `forgiven` its sentences on what it let pass, `excepted`
    what each variant that passes owes to that, and `asked` the words that asked for all of it. Nothing is
    recomputed that the evidence already says.
    """
    run, material, ranked = evidence.run, Material(evidence, decisions), ranking(evidence, decisions)
    shown = in_order(evidence, ranked)
    noise = noise_of(shown)
    heading, about = _headings(headline(ranked.entries, excepted or {}), run, title or "")
    return Context(
        title=heading,
        about=about,
        named=title or "",
        evidence=evidence,
        decisions=decisions,
        run_facts=run_facts(run),
        columns=tuple(column(material, row) for row in material.rows),
        lines=tuple(
            replace(line, noise=noise.within.get(line.name, ""))
            for line in _ranked(lines_of(material), ranked)
        ),
        subjects=subjects(shown),
        categories=categories(evidence, [entry.variant for entry in ranked.entries]),
        documents=documents(shown),
        explorer=explore(evidence, read_items),
        cost=cost_table(shown.run),
        noise=noise,
        commands=commands(run, asked, evidence.joined),
        ranking=ranked,
        cautions=cautions(evidence),
        forgiven=tuple(forgiven),
        gate=_gate_text(policy, decisions),
        fidelity=told(shown.fidelity),
        choices=choices_told(shown),
        closing=closing(ranked, decisions),
    )


def against(context: Context, evidence: Evidence) -> Context:
    """The report with another variant as the baseline: what its evidence tells, and of the rest what the run
    has. Nobody judged against that one, and fidelity, noise and cautions stay those of the run."""
    material, ranked = Material(evidence, ()), ranking(evidence)
    shown = in_order(evidence, ranked)
    found = lead(evidence.run.baseline, headline(ranked.entries))
    heading, about = _headings(found, evidence.run, context.named)
    return replace(
        context,
        title=heading,
        about=about,
        evidence=evidence,
        decisions=(),
        columns=tuple(column(material, row) for row in material.rows),
        lines=_ranked(lines_of(material), ranked),
        subjects=subjects(shown),
        categories=categories(evidence, [entry.variant for entry in ranked.entries]),
        documents=documents(shown),
        explorer=recounted(context.explorer, evidence),
        ranking=with_fixed(ranked, context.ranking),
        forgiven=(),
        gate="",
        choices=choices_told(shown, context.choices),
        closing=closing(ranked, ()),
        aside=context.run.baseline,
    )


def _headings(found: str, run: Run, named: str) -> tuple[str, str]:
    """The title, and what stands beside it."""
    about = f"What quantisation cost {run.model}"
    beside = "" if not (named or found) else f"{found}. {about}" if named and found else about
    return named or found or about, beside


def _gate_text(policy: Policy | None, decisions: Sequence[Decision]) -> str:
    """Where the rules come from; "" where nothing was judged."""
    if not decisions:
        return ""
    return f"Judged by {policy.source}." if policy and policy.source else "Judged by the rules given."


def lines_of(material: Material) -> tuple[Line, ...]:
    """The baseline first, then the variants as they were asked for."""
    run, rows = material.run, material.rows
    ordered = sorted(run.results, key=lambda result: result.variant.name != run.baseline)
    figures = {r.variant.name: [figure(material, r, row) for row in rows] for r in ordered}
    scales = [scale_of([figures[name][place] for name in figures]) for place in range(len(rows))]
    points = widest(scale for scale, row in zip(scales, rows, strict=True) if row.kind != "perplexity")
    scales = [scale if row.kind == "perplexity" else points for scale, row in zip(scales, rows, strict=True)]
    return tuple(
        _line(material, place, result, with_bars(figures[result.variant.name], scales))
        for place, result in enumerate(ordered)
    )


def _ranked(lines: Sequence[Line], ranked: Ranking) -> tuple[Line, ...]:
    """The baseline first, then the variants in the order of the decision table: a page has one order."""
    order = {entry.variant: place for place, entry in enumerate(ranked.entries)}
    return tuple(sorted(lines, key=lambda line: order.get(line.name, -1)))


def _line(material: Material, place: int, result: Result, figures: tuple[Figure | None, ...]) -> Line:
    run, name = material.run, result.variant.name
    return Line(
        name=name,
        anchor=f"variant-{place}",
        scheme=scheme_text(result.variant.scheme),
        is_baseline=name == run.baseline,
        status=result.status,
        error=result.error or "",
        verdict=verdict_of(result, material.evidence, material.decisions),
        figures=figures,
        facts=provenance_facts(run, result),
    )
