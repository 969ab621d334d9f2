"""The pages from which several runs are picked: the list, and what says why something cannot be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from qeval.base.names import short
from qeval.base.records import Result, Run
from qeval.report.facts import OWN
from qeval.report.formats.html import small_page
from qeval.report.history.points import STATUS
from qeval.report.history.words import short_revision


@dataclass(frozen=True)
class Entry:
    """A run on the list. `report` is the address of its report, "" where it cannot be read; `lacks` is why it
    is no whole measurement of qeval's own; `variants` are those that can be compared, (value, name)."""

    name: str
    report: str
    created: str = ""
    model: str = ""
    line: str = ""
    suite: str = ""
    held: str = ""
    variants: tuple[tuple[str, str], ...] = ()
    lacks: tuple[str, ...] = ()


def entry(name: str, report: str, run: Run, *, toy: bool, pathless: bool = False) -> Entry:
    """A run that can be read. Its cells are not looked at: what is wrong with them its report says."""
    base = next((one for one in run.results if one.variant.name == run.baseline), None)
    return Entry(
        name=name,
        report=report,
        created=run.created.replace("T", " ")[:16],
        model=_model(run, base),
        line=run.model,
        suite=run.suite.name,
        held=", ".join(short(result.variant.name) for result in run.results),
        variants=tuple(
            (f"{name}/{result.variant.name}", short(result.variant.name))
            for result in run.results
            if result.cells
        ),
        lacks=tuple(_lacks(run, toy=toy, pathless=pathless)),
    )


def _model(run: Run, base: Result | None) -> str:
    """The model with its revision, as short as a table holds it."""
    made = base.provenance if base else None
    revision = (made.revision if made else None) or (base.variant.revision if base else None)
    return short(run.model) + (f"@{short_revision(revision)}" if revision else "")


def unread(name: str, why: str) -> Entry:
    """A run that cannot be read."""
    return Entry(name, "", lacks=(f"damaged: {why}",))


def _lacks(run: Run, *, toy: bool, pathless: bool) -> Iterator[str]:
    for result in run.results:
        if result.status in STATUS:
            yield f"{short(result.variant.name)} {STATUS[result.status]}"
    cells = [cell for result in run.results for cell in result.cells]
    if toy:
        yield "the toy model"
    if run.source != OWN:
        yield f"imported: {run.source}"
    if pathless:
        yield "paths left out"
    if any(cell.limited for cell in cells):
        yield "limited: a part of the items"
    if any(cell.aggregate_only for cell in cells):
        yield "scores without items"
    if not cells:
        yield "nothing was scored"


def listing(entries: Sequence[Entry]) -> str:
    """The list of runs, with a form that compares two variants, and links to lines over runs."""
    pairs = dict.fromkeys((one.line, one.suite) for one in entries if one.report)
    lines = [
        (model, suite, sum((one.line, one.suite) == (model, suite) for one in entries), _lines(model, suite))
        for model, suite in pairs
    ]
    values = [value for one in entries for value, _ in one.variants]
    return small_page(
        "runs.html.j2",
        first=values[0] if values else "",
        second=values[1] if len(values) > 1 else "",
        forms=True,
        entries=entries,
        lines=lines,
        pickable=[one for one in entries if one.variants],
    )


def _lines(model: str, suite: str) -> str:
    return "/history?" + urlencode({"model": model, "suite": suite}, errors="surrogateescape")


def trouble(message: str, hint: str) -> str:
    """A page that says why there is nothing to see."""
    return small_page("trouble.html.j2", message=message, hint=hint)
