"""What `qeval run` and `qeval show` print at their end: the tables of differences and costs, and what was
loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Comparison, Decision, Result, Run
from qeval.base.text import one_line
from qeval.compare.columns import COLUMNS, in_words
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, score_of, summary_rows
from qeval.report.costs import cost_table
from qeval.report.facts import Fact, provenance_facts, run_facts, warnings_of
from qeval.report.fidelity import terminal as fidelity
from qeval.report.figures import n_of
from qeval.report.formats import Format
from qeval.report.noise import noise_of
from qeval.report.verdicts import verdict_of


def summary(evidence: Evidence, decisions: Sequence[Decision] = ()) -> str:
    """The table of differences, that of fidelity, and that of costs, as far as there are such."""
    run = evidence.run
    measured = any(result.cost and result.cost.measures for result in run.results)
    moved = fidelity(evidence.fidelity) if evidence.fidelity.rows else ""
    parts = (_differences(evidence, decisions), moved, costs(run) if measured else "")
    return "\n\n".join(part for part in parts if part) or "Nothing was scored."


def _differences(evidence: Evidence, decisions: Sequence[Decision]) -> str:
    """A line for each task and variant: score, difference with its interval, flips; then the verdicts.

    The baseline's line comes first in each task. Perplexities stand as perplexity and ratio. A group
    stands twice: as the unweighted mean of its members and with all its items together.
    """
    from tabulate import tabulate

    titles = [column.title.lower() for column in COLUMNS if column.brief]
    headers = ["task", "n", "variant", "score", _interval_heading(evidence.comparisons), *titles]
    lines = [line for row in summary_rows(evidence.rows) for line in _lines(evidence, row)]
    if not lines:
        return ""
    align = ["left", "right", "left", "right", "left", *("right" for _ in titles)]
    table = tabulate(lines, headers, tablefmt="simple", disable_numparse=True, colalign=align)
    return "\n".join([table, "", *_sentences(evidence, decisions)]).rstrip()


def costs(run: Run) -> str:
    """What each variant costs, measures as rows and variants as columns."""
    from tabulate import tabulate

    found = cost_table(run)
    if found is None:
        return "Nothing was measured."
    names = [one_line(row[0]) for row in found.rows]
    lines = [[head, *(row[i] for row in found.rows)] for i, head in enumerate(found.headers) if i]
    table = tabulate(lines, ["", *names], tablefmt="simple", disable_numparse=True)
    return "\n".join([table, "", *map(one_line, found.notes)]).rstrip()


def _interval_heading(comparisons: Sequence[Comparison]) -> str:
    levels = sorted({comparison.confidence for comparison in comparisons})
    named = " and ".join(numbers.level(level) for level in levels)
    return f"difference, {named} interval" if named else "difference"


def _lines(evidence: Evidence, row: Row) -> list[list[str]]:
    """The baseline's line, then each variant's; the task and its size stand on the first only."""
    lines = [
        line for result in (evidence.baseline, *evidence.candidates) if (line := _line(evidence, result, row))
    ]
    for line in lines[1:]:
        line[0] = ""
        line[1] = "" if line[1] == lines[0][1] else line[1]
    return lines


def _line(evidence: Evidence, result: Result, row: Row) -> list[str] | None:
    score = score_of(evidence.run, result, row)
    if score is None:
        return None
    is_ratio = row.kind == "perplexity"
    shown = numbers.perplexity(score.score) if is_ratio else numbers.points(score.score)
    name = result.variant.name
    comparison = evidence.comparison(name, row.id)
    first = "baseline" if name == evidence.run.baseline else numbers.NONE
    change = [first, *("" for column in COLUMNS if column.brief)]
    return [
        one_line(row.title),
        n_of(score, evidence.texts(row)),
        one_line(short(name)),
        shown,
        *(_change(comparison) if comparison else change),
    ]


def _change(comparison: Comparison) -> list[str]:
    """Difference and interval, then the other statistics that this table has room for."""
    if comparison.kind == "perplexity":
        delta, around = (
            numbers.ratio(comparison.delta),
            numbers.interval_ratio(comparison.low, comparison.high),
        )
    else:
        delta = numbers.signed_points(comparison.delta)
        around = numbers.interval_points(comparison.low, comparison.high)
    words = in_words(comparison)
    others = [words[column.id] for column in COLUMNS if column.brief]
    return [f"{delta}  ({around})", *("" if text == numbers.NONE else text for text in others)]


def _sentences(evidence: Evidence, decisions: Sequence[Decision]) -> list[str]:
    """A sentence for each variant, and what a reader must know before trusting the table."""
    noise = noise_of(evidence)
    verdicts = [verdict_of(result, evidence, decisions) for result in evidence.candidates]
    lines = [
        f"{v.mark} {short(v.variant)}: {v.word}. {v.sentence} {noise.within[v.variant]}" for v in verdicts
    ]
    lines += [noise.sentence, *noise.seed_sentences]
    notes = {note: None for result in evidence.run.results for note in warnings_of(result)}
    return [one_line(line) for line in (*lines, *(f"! {note}" for note in notes))]


def details(run: Run) -> str:
    """The run's facts and what was truly loaded for each variant, as `qeval show` prints them."""
    blocks = [_facts(run_facts(run))]
    for result in run.results:
        error = [("Did not run", result.error or "")] if result.status == "failed" else []
        body = _facts([*error, *provenance_facts(result)])
        indented = "\n".join(f"  {line}" for line in body.splitlines())
        blocks.append(f"{one_line(result.variant.name)}\n{indented}")
    return "\n\n".join(blocks) + "\n"


def _facts(facts: Iterable[Fact]) -> str:
    """A line for each fact, labels and values in columns."""
    from tabulate import tabulate

    lines = [(label, one_line(value)) for label, value in facts]
    return tabulate(lines, tablefmt="plain", disable_numparse=True)


FORMAT = Format("text", (".txt",), lambda context, _: summary(context.evidence, context.decisions) + "\n")
