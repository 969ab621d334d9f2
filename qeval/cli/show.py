"""`qeval show` and `qeval list`: a run, and the schemes, suites and runs there are, for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base import layout
from qeval.base.errors import QevalError
from qeval.base.layout import Column
from qeval.base.text import one_line
from qeval.cli import completing, options
from qeval.cli.meant import OneOf
from qeval.cli.speech import print_json, say, width

if TYPE_CHECKING:
    from qeval.compare.margin import Margin

Entry = dict[str, Any]


@click.command(cls=options.Strict)
@click.argument("run", required=False, shell_complete=completing.runs)
@click.option("--baseline", metavar="NAME", help="Compare with this variant.")
@options.margin
@options.runs_dir
@options.as_json
def show(run: str | None, runs_dir: Path, baseline: str | None, margin: Margin, as_json: bool) -> None:
    """Show a run: what was loaded, how it was scored, and the table of comparisons."""
    from qeval.report.formats import json as document
    from qeval.report.formats import terminal

    evidence, _ = options.open_runs([run] if run else [], runs_dir, baseline, margin=margin)
    if as_json:
        print_json(document.document(evidence))
    else:
        say(terminal.details(evidence.run, width()))
        say(terminal.summary(evidence, width=width()), paint=True)


def _schemes(_: Path) -> list[Entry]:
    """The schemes: what each is, its options with their defaults, whether it is ready here, and what it was
    run on."""
    from qeval.base.names import option_text
    from qeval.base.records import Scheme
    from qeval.load.checks import check_available
    from qeval.load.packages import lacked_by_all
    from qeval.load.schemes import SCHEMES

    rows, bare = [], " ".join(lacked_by_all())
    for spec in SCHEMES.values():
        where = [f"on {spec.gpu}"] if spec.gpu else []
        if "unpack" in spec.defaults:
            where.append(f"ready checkpoints anywhere with {spec.name}[unpack=true]")
        try:
            check_available(Scheme(spec.name))
            here = f"Install it with: pip install {bare}" if bare else "ready"
        except QevalError as error:
            here = error.hint or error.message
        if where:  # before a command, which goes to the end
            here = "; ".join(where) + ("" if here == "ready" else f". {here}")
        written = ", ".join(f"{option.name}={option_text(option.default)}" for option in spec.options)
        rows.append(
            {
                "scheme": spec.name,
                "what": spec.summary,
                "options": written,
                "here": here,
                "verified": spec.verified,
            }
        )
    return rows


def _suites(_: Path) -> list[Entry]:
    """The suites: their tasks and what they are for."""
    from qeval.ask import suites

    rows = []
    for name in suites.names():
        suite = suites.load(name)
        tasks = ", ".join(task.name for task in suite.tasks)
        rows.append({"suite": suite.name, "tasks": tasks, "what": suite.description})
    return rows


def _runs(runs_dir: Path) -> list[Entry]:
    """The runs below `runs_dir`, the newest first; a damaged one says so."""
    from qeval.store.runs import Store

    return [_run(place) for place in Store(runs_dir).runs()]


_STANDS = {
    "": "",
    "at work": "at work",
    "workers": "at work",
    "awaited": "prepared for workers",
    "prepared": "prepared for workers",
    "scored": "scored, not finished",
    "interrupted": "interrupted",
}
"""How a run that is not complete stands, in a table."""


def _run(place: Any) -> Entry:
    from qeval.store.standing import standing

    try:
        run = place.read()
    except QevalError as error:
        return {"run": place.path.name, "model": "?", "suite": "?", "variants": error.message, "created": "?"}
    variants = ", ".join(
        result.variant.name + ("" if result.status == "done" else f" ({result.status})")
        for result in run.results
    )
    created = run.created.replace("T", " ")[:16]
    stands = _STANDS[standing(place, run).state]
    return {
        "run": run.id,
        "model": run.model,
        "suite": run.suite.name,
        "variants": f"{variants}; {stands}" if stands else variants,
        "created": created,
    }


LISTS: dict[str, Callable[[Path], list[Entry]]] = {"schemes": _schemes, "suites": _suites, "runs": _runs}


@click.command("list", cls=options.Strict)
@click.argument("what", type=OneOf(tuple(LISTS)))
@options.runs_dir
@options.as_json
@click.pass_context
def list_(ctx: click.Context, /, what: str, runs_dir: Path, as_json: bool) -> None:
    """List the schemes, the suites or the runs."""
    from qeval.cli.meant import refuse_nowhere
    from qeval.store import newest
    from qeval.store.runs import Store

    refuse_nowhere(ctx, runs_dir)
    rows = LISTS[what](runs_dir)
    if what == "runs" and (refused := newest.refused(Store(runs_dir))):
        say(f"Note: {refused}", err=True)
    if as_json:
        print_json(rows)
    else:
        say(_table(rows, width() or _IN_A_PIPE) if rows else f"There are no {what} in {runs_dir} yet.")


_IN_A_PIPE = 110
"""Columns where nobody says how many there are."""
_WORDY = ("what", "options", "here", "tasks", "variants", "verified")
"""What may take several lines of a table."""


def _table(rows: Sequence[Mapping[str, Any]], width: int | None) -> str:
    """Entries, one at least, as a table for a person, of so many columns."""
    first = next(iter(rows[0]))
    columns = [Column(key, wrapped=key in _WORDY, leads=key == first) for key in rows[0]]
    return layout.table(columns, [[one_line(str(value)) for value in row.values()] for row in rows], width)
