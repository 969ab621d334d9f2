"""What `qeval run` and `qeval show` print at their end: the tables of changes and costs, and what was
loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qeval.base import layout, numbers
from qeval.base.layout import Column
from qeval.base.names import short
from qeval.base.records import Comparison, Decision, Result, Run
from qeval.base.text import one_line
from qeval.compare import wording
from qeval.compare.columns import COLUMNS
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, rows_of, summary_rows
from qeval.report.cautions import TITLE, cautions
from qeval.report.closing import closing
from qeval.report.costs import cost_table
from qeval.report.facts import Fact, provenance_facts, run_facts
from qeval.report.fidelity import terminal as fidelity
from qeval.report.figures import Figure, Material, figure, proofs
from qeval.report.formats import Format, Options
from qeval.report.noise import noise_of
from qeval.report.ordered import in_order
from qeval.report.ranking import ORDER
from qeval.report.ranking import ranking as decided
from qeval.report.verdicts import Verdict, verdict_of

if TYPE_CHECKING:
    from qeval.report.context import Context


def summary(evidence: Evidence, decisions: Sequence[Decision] = (), width: int | None = None) -> str:
    """The table of differences, that of fidelity, and that of costs, as far as there are such, in so many
    columns; and a line that ranks the variants."""
    known = cautions(evidence).every
    evidence = in_order(evidence, decided(evidence, decisions))
    run = evidence.run
    measured = any(result.cost and result.cost.measures for result in run.results)
    told = evidence.fidelity.rows or evidence.fidelity.damaged
    moved = fidelity(evidence.fidelity, width) if told else ""
    parts = (
        _differences(evidence, decisions, width, known),
        moved,
        costs(run, width) if measured else "",
        ranking(evidence, decisions),
    )
    nothing = " ".join((f"{evidence.nothing}.", *evidence.unfinished))
    return "\n\n".join(part for part in parts if part) or nothing


def _differences(
    evidence: Evidence, decisions: Sequence[Decision], width: int | None, known: Sequence[str]
) -> str:
    """A line for each task and variant: score, Δ with its interval, flips; then verdicts and what is known
    of the numbers.

    The baseline's line comes first in each task. How many items were scored is left out only where all were.
    Perplexities stand as perplexity and ratio. A group stands twice: as the unweighted mean of its members
    and with all its items together.
    """
    brief = [column.title.lower() for column in COLUMNS if column.brief]
    columns = [
        Column("task", leads=True),
        Column("n", "right", goes=1),
        Column("variant", leads=True),
        Column("score", "right"),
        Column(_interval_heading(evidence.comparisons)),
        *(Column(title, "right", goes=3) for title in brief[:-1]),
        *(Column(title, "right", goes=2) for title in brief[-1:]),
    ]
    lines = [line for row in summary_rows(evidence.rows) for line in _lines(evidence, decisions, row)]
    if not lines:
        return ""
    if any("/" in line[1] for line in lines):
        columns[1] = replace(columns[1], goes=0)
    table = layout.table(columns, lines, width)
    signs = [key, ""] if (key := proofs(evidence)) else []
    return "\n".join([table, "", *signs, *_sentences(evidence, decisions, known)]).rstrip()


def costs(run: Run, width: int | None = None) -> str:
    """What each variant costs, measures as rows and variants as columns."""
    found = cost_table(run)
    if found is None:
        return "Nothing was measured."
    names = [one_line(row[0]) for row in found.rows]
    lines = [[head, *(row[i] for row in found.rows)] for i, head in enumerate(found.headers) if i]
    table = layout.beside(Column("", leads=True), [Column(name) for name in names], lines, width)
    return "\n".join([table, "", *map(one_line, found.notes)]).rstrip()


def _interval_heading(comparisons: Sequence[Comparison]) -> str:
    levels = sorted({comparison.confidence for comparison in comparisons})
    named = " and ".join(numbers.level(level) for level in levels)
    return wording.heading(named) if named else wording.DELTA


def _lines(evidence: Evidence, decisions: Sequence[Decision], row: Row) -> list[list[str]]:
    """The baseline's line, then each variant's; the task and its size stand on the first only."""
    lines = [
        line
        for result in (evidence.baseline, *evidence.candidates)
        if (line := _line(evidence, decisions, result, row))
    ]
    for line in lines[1:]:
        line[0] = ""
        line[1] = "" if line[1] == lines[0][1] else line[1]
    return lines


def _line(evidence: Evidence, decisions: Sequence[Decision], result: Result, row: Row) -> list[str] | None:
    found = figure(Material(evidence, decisions), result, row)
    if found is None:
        return None
    name = result.variant.name
    first = "baseline" if name == evidence.run.baseline else numbers.NONE
    change = [first, *("" for column in COLUMNS if column.brief)]
    return [
        one_line(row.title),
        found.n.replace(" of ", "/"),
        one_line(short(name)),
        found.score,
        *(_change(found) if found.delta else change),
    ]


def _change(found: Figure) -> list[str]:
    """Δ and its interval, then the other statistics that this table has room for."""
    others = [found.statistics[column.id] for column in COLUMNS if column.brief]
    proved = f" {found.proved_mark}" if found.proved else ""
    return [
        f"{found.delta}  ({found.interval}){proved}",
        *("" if text == numbers.NONE else text for text in others),
    ]


def _sentences(evidence: Evidence, decisions: Sequence[Decision], known: Sequence[str]) -> list[str]:
    """A sentence for each variant, and what a reader must know before trusting the table."""
    noise = noise_of(evidence)
    verdicts = [verdict_of(result, evidence, decisions) for result in evidence.candidates]
    lines = [" ".join(filter(None, (_verdict(v), v.beside, noise.within[v.variant]))) for v in verdicts]
    lines += ["", f"{TITLE}:", *(f"- {one}" for one in known)] if known else []
    return [one_line(line) for line in lines]


def _verdict(made: Verdict) -> str:
    return f"{made.mark} {short(made.variant)}: {made.word}. {made.sentence}"


def ranking(evidence: Evidence, decisions: Sequence[Decision] = ()) -> str:
    """A line with the variants in the order of the decision table, their scores on the row that it is of, and
    the baseline's, and one on who lost least and what is undecided; "" where nothing is compared."""
    table = decided(evidence, decisions)
    row, results = table.heads[0], {result.variant.name: result for result in evidence.run.results}
    if row is None:
        return ""
    material = Material(evidence, decisions)
    told = {one.variant: _ranked(material, row, results[one.variant]) for one in table.entries}
    order = "; ".join(filter(None, (", ".join(filter(None, told.values())), _reference(material, row))))
    lost = [name for name, words in told.items() if not words]
    without = f" Not ranked: {', '.join(map(short, lost))}." if lost else ""
    first = one_line(f"Best first, by {', then '.join((*ORDER, row.title))}: {order}.{without}")
    return "\n".join((first, *map(one_line, closing(table, decisions))))


def _ranked(material: Material, row: Row, result: Result) -> str:
    """A variant's score and Δ; "" where it was not compared on the row."""
    found = figure(material, result, row)
    return f"{short(result.variant.name)} {found.score} ({found.delta})" if found and found.delta else ""


def _reference(material: Material, row: Row) -> str:
    found = figure(material, material.evidence.baseline, row)
    return f"baseline {short(material.run.baseline)} {found.score}" if found else ""


def details(run: Run, width: int | None = None) -> str:
    """The run's facts and what was truly loaded for each variant, as `qeval show` prints them."""
    metrics = [("Scored by", text)] if (text := _metrics(run)) else []
    blocks = [_facts([*run_facts(run), *metrics], width)]
    for result in run.results:
        error = [("Did not run", result.error or "")] if result.status == "failed" else []
        body = _facts([*error, *provenance_facts(run, result)], None if width is None else width - 2)
        indented = "\n".join(f"  {line}" for line in body.splitlines())
        blocks.append(f"{one_line(result.variant.name)}\n{indented}")
    return "\n\n".join(blocks) + "\n"


def _metrics(run: Run) -> str:
    """Each metric with the rows that it judges: "acc: arc_easy, mmlu; word_perplexity: wikitext"."""
    found: dict[str, list[str]] = {}
    for row in rows_of(run):
        if row.level in ("task", "pooled") and row.judged_by:
            found.setdefault(row.judged_by, []).append(row.id)
    return "; ".join(f"{metric}: {', '.join(rows)}" for metric, rows in found.items())


def _facts(facts: Iterable[Fact], width: int | None) -> str:
    """A line for each fact, labels and values in columns."""
    return layout.facts([(label, one_line(value)) for label, value in facts], width)


def as_text(context: Context, _: Options) -> str:
    """What `qeval run` prints at its end; where a gate judged, behind its verdict and what it let pass."""
    judged = (context.title, context.about, " ".join((context.gate, *context.let_pass)))
    head = [*map(one_line, filter(None, judged)), ""] if context.gate else []
    return "\n".join((*head, summary(context.evidence, context.decisions), ""))


FORMAT = Format("text", (".txt",), as_text)
