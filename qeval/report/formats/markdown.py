"""The report as Markdown, for GitHub and a terminal: verdict and table first, details folded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from qeval.base import numbers
from qeval.base.markdown import escape
from qeval.base.names import slugged
from qeval.compare.columns import COLUMNS
from qeval.compare.margin import Finding
from qeval.report.choices import ToldChoices
from qeval.report.context import Context, Detail, Line
from qeval.report.costs import CostTable
from qeval.report.fidelity import (
    BIN_HEADERS,
    HEADERS,
    MORE_HEADERS,
    PASSAGE_HEADERS,
    TRACE_HEADERS,
    Passages,
    Told,
)
from qeval.report.figures import PROOFS, Figure, proofs
from qeval.report.flips import DIRECTIONS, Flip, largest_first, shorten
from qeval.report.foremost import foremost
from qeval.report.formats import Format, Options
from qeval.report.formats.pieces import Markdown, as_html, fenced, table
from qeval.report.glossary import glossary
from qeval.report.noise import FLOOR_HEADERS, SEED_HEADERS
from qeval.report.ranking import Entry, Ranking
from qeval.report.subjects import Subject, alike

if TYPE_CHECKING:
    from jinja2 import Environment

SHORT_BYTES = 60_000  # GitHub takes comments of 65 536 characters
_MOST_FLIPS = 5  # shown for each variant
_RANKED = Markdown("Lost ones first, and of these the largest gaps, as multiples of their task's median.")
_WORDS = {
    "lost": "right → wrong",
    "gained": "wrong → right",
    "changed": "another answer",
    "same": "unchanged",
}


@dataclass(frozen=True)
class Picture:
    """A chart's file beside the report."""

    alt: str
    path: Markdown


def render_markdown(
    context: Context, *, assets: Path | None = None, short: bool = False, beside: Path | None = None
) -> str:
    """The report as Markdown.

    With `assets`, a directory, the charts are written there as SVG files and shown by paths relative to
    `beside`, where the report lies (by default the directory that holds `assets`). `short` leaves the
    folded details out, for a comment on a pull request, and never exceeds `SHORT_BYTES`.

    Raises QevalError where `assets` cannot be written.
    """
    template = _environment().get_template("report.md.j2")
    pictures = [] if assets is None else _write_charts(context, assets, beside or assets.parent)
    scores = _short_scores(context) if short else _scores(context)
    text = template.render(
        context=context,
        pictures=pictures,
        short=short,
        decision=_decision(context, scores, short=short),
        scores=scores,
        fidelity=_fidelity_rows(context.fidelity, _SHORT_FIDELITY if short else range(len(HEADERS))),
        folds=[] if short else _folds(context),
        glossary=glossary(context),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return _cut(text) if short else text


def _cut(text: str) -> str:
    """The text, ended at a line's end where it would not fit into a comment."""
    if len(text.encode("utf-8", "replace")) <= SHORT_BYTES:
        return text
    note = "\n\n*The rest did not fit here; it is in the full report.*\n"
    kept = text.encode("utf-8", "replace")[: SHORT_BYTES - len(note.encode())].decode("utf-8", "ignore")
    return kept.rpartition("\n")[0].rstrip() + note


def _finalize(value: Any) -> Any:
    """What Jinja puts out: our own Markdown as it is, anything else escaped."""
    if isinstance(value, Markdown):
        return str(value)
    return escape(value) if isinstance(value, str) else value


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - `finalize` escapes for Markdown, HTML included
        loader=PackageLoader("qeval.report.formats"),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(html=as_html)
    return environment


def _folds(context: Context) -> list[tuple[str, Markdown]]:
    """(title, body) of every folded part that there is something for."""
    parts = [
        ("Every number", _every_number(context)),
        ("Fidelity", _fidelity(context.fidelity)),
        ("Worst passages", Markdown("\n\n".join(map(_passages, context.fidelity.passages)))),
        ("Letters and calibration", Markdown("\n\n".join(map(_choices, context.choices)))),
        ("Noise floor", _table_of_words(FLOOR_HEADERS, context.noise.floor)),
        ("Spread over seeds", _table_of_words(SEED_HEADERS, context.noise.seeds, words=2)),
        ("Cost", _costs(context.cost) if context.cost else Markdown("")),
        ("By category", _categories(context)),
        ("By subject, Δ pulled towards the mean", _subjects(context)),
        ("Examples of changed answers", _told_examples(context)),
        ("Provenance", _provenance(context)),
        (
            "Reproduce",
            Markdown("\n\n".join(f"{escape(label)}:\n\n{fenced(text)}" for label, text in context.commands)),
        ),
    ]
    return [(title, body) for title, body in parts if body]


def _choices(one: ToldChoices) -> Markdown:
    """Which letters the variants chose, and their calibration."""
    letters = [
        (
            name,
            *(f"{letter.share} ({letter.delta})" if letter.delta else letter.share for letter in row),
            moved,
        )
        for name, row, moved in one.rows
    ]
    chosen = table(
        ("Letters chosen, %", *one.letters, "Moved"), [("Right answers", *one.right, ""), *letters]
    )
    parts = (
        f"**{escape(one.task)}.** {escape(one.sentence)}",
        chosen,
        table(one.headers, one.calibration),
    )
    return Markdown("\n\n".join(part for part in parts if part))


def _table_of_words(headers: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> Markdown:
    """A table, or nothing where it has no rows."""
    return table(headers, rows, words=words) if rows else Markdown("")


def _fidelity(told: Told) -> Markdown:
    """Every number of fidelity, and how far answers went together."""
    parts = [
        _table_of_words(MORE_HEADERS, told.more, words=2),
        _table_of_words(TRACE_HEADERS, told.traces, words=2),
        *(f"{escape(title)}:\n\n{table(BIN_HEADERS, rows, words=0)}" for title, rows in told.bins),
    ]
    return Markdown("\n\n".join(part for part in parts if part))


def _passages(one: Passages) -> Markdown:
    """The worst passages of a variant, each text in a code block."""
    blocks = [f"**{escape(one.title)}**"]
    for cells, before, text in one.rows:
        where = ", ".join(f"{h.lower()} {c}" for h, c in zip(PASSAGE_HEADERS[:-1], cells[:-1], strict=True))
        blocks.append(f"{escape(where)}: {escape(cells[-1])} nats\n\n{fenced(f'{before} >>> {text}')}")
    return Markdown("\n\n".join(blocks))


def _costs(cost: CostTable) -> Markdown:
    return Markdown(f"{table(cost.headers, cost.rows)}\n\n{_bullets(cost.notes)}")


def _provenance(context: Context) -> Markdown:
    """The run's facts, then each variant's."""
    blocks = [_bullets(f"{label}: {value}" for label, value in context.run_facts)]
    for line in context.lines:
        error = [f"Did not run: {line.error}"] if line.error else []
        facts = [f"{label}: {value}" for label, value in line.facts]
        blocks.append(f"**{escape(line.name)}**\n\n{_bullets([*error, *facts])}")
    return Markdown("\n\n".join(blocks))


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {escape(text)}" for text in texts)


def _decision(context: Context, scores: Markdown, *, short: bool) -> Markdown:
    """The decision table: what a release is decided by, the best variant first; `short` has five columns.
    What the signs of proof mean stands below it where one is in it, or in the table of `scores`."""
    told = context.ranking
    if not told.entries or not context.columns:
        return Markdown("")
    headers = [
        *("Variant", "Verdict", f"{told.title} Δ", f"{context.common_confidence} interval".lstrip()),
        *(("Worst task, Δ",) if told.has_worst else ()),
        *((f"{told.ratio_of}, ratio",) if told.ratio_of else ()),
        *(f"{title}, {unit}" for title, unit, _ in told.fixed),
    ]
    most = _SHORT_COLUMNS if short else len(headers)
    rows = [_decided(told, entry)[:most] for entry in (*told.entries, told.reference)]
    cells = table(headers[:most], rows, words=2)
    signed = any(mark in f"{cells}{scores}" for mark, _ in PROOFS.values())
    known = proofs(context.evidence) if signed else ""
    return Markdown(f"{cells}\n\n{escape(known)}") if known else cells


def _decided(told: Ranking, entry: Entry) -> tuple[str, ...]:
    name = Markdown(f"**{escape(entry.short)}**")
    by = f" ({entry.by})" if entry.by else ""
    verdict = f"{entry.verdict.mark} {entry.verdict.word}{by}"
    reach = f" ({entry.reach})" if entry.reach else ""
    worst = (f"{_proved(entry.worst, entry.worst_of)}{reach}",) if told.has_worst else ()
    ratio = (_proved(entry.ratio, entry.ratio_of),) if told.ratio_of else ()
    return (name, verdict, _proved(entry.delta, entry.finding), entry.interval, *worst, *ratio, *entry.fixed)


def _proved(text: str, found: Finding | None) -> str:
    """A cell with the sign of what is proved of it."""
    return f"{text} {PROOFS[found.claim][0]}" if found and found.claim else text


def _scores(context: Context) -> Markdown:
    """The article's table: variants as rows, tasks as columns."""
    if not context.columns:
        return Markdown("")
    headers = ("Variant", *(column.title for column in context.columns))
    usual = context.common_confidence
    rows = [
        (_name(line), *(_figure_text(figure, usual) for figure in line.figures)) for line in context.lines
    ]
    return table(headers, rows)


_SHORT_COLUMNS = 5
"""Columns of a table that a comment on a pull request shows without being scrolled."""
_NAMED = 6
"""So many rows that are left out are named."""
_SHORT_FIDELITY = (0, 1, 3, 4, 5)


def _short_scores(context: Context) -> Markdown:
    """The same with at most five columns."""
    shown, left = foremost(context, _SHORT_COLUMNS - 1)
    if not left:
        return _scores(shown)
    named = f" ({', '.join(map(escape, left))})" if len(left) <= _NAMED else ""
    told = "1 more row" if len(left) == 1 else f"{len(left)} more rows"
    return Markdown(f"{_scores(shown)}\n\n*In the full report: {told}{named}.*")


def _fidelity_rows(told: Told, places: Sequence[int]) -> Markdown:
    """These columns of the table of fidelity."""
    rows = [[row[place] for place in places] for row in told.rows]
    return _table_of_words([HEADERS[place] for place in places], rows, words=2)


def _name(line: Line) -> Markdown:
    tail = "baseline" if line.is_baseline else f"{line.verdict.mark} {line.verdict.word}"
    return Markdown(f"**{escape(line.short)}** {escape(tail)}")


def _figure_text(figure: Figure | None, usual: str) -> Markdown:
    """Score, difference and interval in one cell; the interval's confidence where it is not the usual one."""
    if figure is None:
        return Markdown("–")
    if not figure.delta:
        return Markdown(figure.score)
    level = "" if figure.confidence == usual else f"{figure.confidence}: "
    proved = f" {figure.proved_mark}" if figure.proved else ""
    return Markdown(f"{figure.score} **{figure.delta}**{proved} <sub>{level}{figure.interval}</sub>")


def _every_number(context: Context) -> Markdown:
    """The table in long form: a row for each difference."""
    rows = [_number_row(row) for row in context.details]
    titles = (column.title for column in COLUMNS)
    headers = ("Task", "Variant", "Items", "Baseline", "Score", "Δ", "Interval", *titles, "Gate")
    return table(headers, rows, words=2) if rows else Markdown("")


def _number_row(row: Detail) -> tuple[str, ...]:
    one = row.figure
    interval = f"{one.interval} ({one.confidence})"
    measured = (row.task, row.variant, one.n, row.baseline, one.score, one.delta, interval)
    return (*measured, *one.statistics.values(), one.status or numbers.NONE)


def _categories(context: Context) -> Markdown:
    if not context.categories:
        return Markdown("")
    headers = (
        "Category",
        "Subjects",
        "Items",
        context.run.baseline,
        *(line.name for line in context.candidates),
    )
    return table(headers, [(c.name, str(c.subjects), c.n, c.baseline, *c.deltas) for c in context.categories])


def _subjects(context: Context) -> Markdown:
    if not context.subjects:
        return Markdown("")
    by_name: dict[tuple[str, str], dict[str, Subject]] = {}
    for subject in context.subjects:
        by_name.setdefault((subject.group, subject.subject), {})[subject.variant] = subject
    names = [line.name for line in context.candidates]
    rows = [
        (name, next(iter(found.values())).size, *(found[v].shrunk_text if v in found else "–" for v in names))
        for (_, name), found in by_name.items()
    ]
    told = [escape(one) for one in alike(context.subjects, names)]
    return Markdown("\n\n".join([*told, table(("Subject", "Items", *names), rows)]))


def _examples(context: Context) -> list[Flip]:
    """The most decided lost answers of each variant, those with a text."""
    explorer, found = context.explorer, []
    ranked = largest_first(explorer.flips, explorer.decided)
    for line in context.candidates:
        own = [one for one in ranked if one.variant == line.name and one.direction in DIRECTIONS[:2]]
        found += [flip for flip in own if (flip.task.name, flip.key) in explorer.items][:_MOST_FLIPS]
    return found


def _told_examples(context: Context) -> Markdown:
    """The same as blocks, and where they are of several tasks, what their order goes by."""
    found = _examples(context)
    several = len({flip.task.group or flip.task.name for flip in found if flip.scores}) > 1
    blocks = [_RANKED] * several + [_flip_block(context, flip) for flip in found]
    return Markdown("\n\n".join(blocks))


def _flip_block(context: Context, flip: Flip) -> Markdown:
    """One changed item: where, which way, and its text in a code block."""
    item = context.explorer.items[flip.task.name, flip.key]
    lines = [shorten(item.question, 600)]
    for place, choice in enumerate(item.choices):
        marks = [word for word, there in _choice_marks(flip, str(place)) if there]
        scores = ", ".join(f"{row[place]:.3f}" for row in (flip.base_scores, flip.scores) if place < len(row))
        lines.append(f"  [{place}] {choice.strip()}  ({scores}){'  <- ' + ', '.join(marks) if marks else ''}")
    if not item.choices:
        lines.append(f"  {flip.base_answer} -> {flip.answer} (right: {item.gold or flip.gold})")
    where = f"{escape(flip.task.name)}, item {escape(flip.key)}"
    head = f"**{escape(flip.variant)}**, {where}: {_WORDS[flip.direction]}"
    return Markdown(f"{head}\n\n{fenced(chr(10).join(lines))}")


def _choice_marks(flip: Flip, name: str) -> list[tuple[str, bool]]:
    return [
        ("right", name == flip.gold),
        ("baseline", name == flip.base_answer),
        (shorten(flip.variant, 40), name == flip.answer),
    ]


def _write_charts(context: Context, assets: Path, beside: Path) -> list[Picture]:
    """Every chart as an SVG file in `assets`, which is made where only it itself is missing."""
    from qeval.base.files import write_text
    from qeval.report.charts import charts

    if assets.parent.is_dir() and not assets.exists():
        assets.mkdir()
    pictures = []
    for chart in charts(context):
        name = f"{slugged(chart.id)}.svg"
        write_text(assets / name, chart.file)
        place = Path(os.path.relpath(assets / name, beside)).as_posix()
        pictures.append(Picture(chart.title, Markdown(quote(place))))
    return pictures


def _render(context: Context, options: Options) -> str:
    return render_markdown(context, assets=options.assets, short=options.short, beside=options.beside)


FORMAT = Format("markdown", (".md",), _render)
