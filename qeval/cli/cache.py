"""`qeval cache`: what qeval keeps between runs, with sizes, and what of it may go."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from qeval.cli import ages, options
from qeval.cli.meant import OneOf
from qeval.cli.speech import print_json, say, width

if TYPE_CHECKING:
    from qeval.store.cache import Entry

KINDS = ("checkpoints", "models", "inputs", "requests", "compiled")


@click.command(cls=options.Strict)
@click.option("--prune", is_flag=True, help="Remove what is listed, after asking; never what is in use.")
@click.option(
    "--kind",
    "kinds",
    type=OneOf(KINDS),
    multiple=True,
    help="Only this kind; repeatable. Without it, --prune leaves compiled alone.",
)
@click.option(
    "--older-than", metavar="AGE", help="Only what has not been used for this long: 90m, 6h, 30d, 4w."
)
@click.option("--yes", "-y", is_flag=True, help="Remove without asking.")
@options.as_json
def cache(prune: bool, kinds: tuple[str, ...], older_than: str | None, yes: bool, as_json: bool) -> None:
    """List what is kept between runs, and remove what may go.

    Everything here is made again when it is needed: checkpoints that were quantised here, the unpacked demo
    model, inputs of baselines' heads (for fidelity), requests of tokenised tasks, and what compilers keep.

    What compilers keep serves your other programs too, whose use nobody can see: it goes only with --kind
    compiled. Folders that qeval did not make are listed and stay.
    """
    from qeval.base.places import cache_dir
    from qeval.store import cache as store

    limit = None if older_than is None else ages.length(older_than, "--older-than")
    place, now = cache_dir(), time.time()
    found = [
        entry
        for entry in store.entries(place)
        if _is_meant(entry, kinds, prune) and (limit is None or now - entry.used > limit.total_seconds())
    ]
    wanted = [entry for entry in found if entry.removable] if prune else []
    sure = bool(wanted) and (yes or (not as_json and _asked(found, wanted, limit)))
    gone = [entry for entry in wanted if store.remove(entry)] if sure else []
    if as_json:
        print_json(_document(str(place), found, gone))
    elif not prune:
        say(_table(found, limit, width()) if found else f"There is nothing in {place}.")
    else:
        _tell(wanted, gone, sure)


def _is_meant(entry: Entry, kinds: Sequence[str], prune: bool) -> bool:
    """Whether an entry is of the kinds; to be removed, what other programs share is of them only by name."""
    return entry.kind in kinds if kinds else not (prune and entry.kind == "compiled")


def _asked(found: Sequence[Entry], wanted: Sequence[Entry], limit: dt.timedelta | None) -> bool:
    """Whether the person wants it gone, who is shown what it is; no where nobody can be asked."""
    say(_table(found, limit, width()))
    if not sys.stdin.isatty():
        return False
    return click.confirm(f"Remove {_count(wanted)}?", err=True)


def _tell(wanted: Sequence[Entry], gone: Sequence[Entry], sure: bool) -> None:
    """What became of it."""
    if not wanted:
        say("There is nothing to remove.")
    elif not sure:
        say(f"Nothing was removed. To remove {_count(wanted)}, add --yes.", err=True)
    else:
        say(f"Removed {_count(gone)}.")
        if len(gone) < len(wanted):
            say(f"{len(wanted) - len(gone)} were in use by then and were kept.", err=True)


def _count(entries: Sequence[Entry]) -> str:
    from qeval.base import numbers

    files = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    return f"{files}, {numbers.in_bytes(sum(entry.bytes for entry in entries))}"


def _table(entries: Sequence[Entry], limit: dt.timedelta | None, width: int | None = None) -> str:
    """The entries for a person in so many columns, tokenised tasks in one row, and the sum; all of them were
    last used longer ago than `limit`."""
    from qeval.base import layout, numbers
    from qeval.base.layout import Column

    rows = [_row(entry, limit) for entry in entries if entry.kind != "requests" or entry.state]
    tasks = [entry for entry in entries if entry.kind == "requests" and not entry.state]
    if tasks:
        one = "1 tokenised task" if len(tasks) == 1 else f"{len(tasks)} tokenised tasks"
        size = numbers.in_bytes(sum(entry.bytes for entry in tasks))
        rows.append(("requests", size, _age(max(entry.used for entry in tasks), limit), "", one))
    columns = (
        Column("kind", leads=True),
        Column("size", "right"),
        Column("last used"),
        Column("state", goes=1),
        Column("name"),
    )
    return f"{layout.table(columns, rows, width)}\n\n{_count(entries)}"


def _row(entry: Entry, limit: dt.timedelta | None) -> tuple[str, str, str, str, str]:
    from qeval.base import numbers

    name = str(entry.path) if entry.kind == "compiled" else entry.path.name
    return entry.kind, numbers.in_bytes(entry.bytes), _age(entry.used, limit), entry.state, name


def _age(used: float, limit: dt.timedelta | None) -> str:
    return f"{ages.in_words(dt.timedelta(seconds=max(time.time() - used, 0)), limit)} ago"


def _document(place: str, found: Sequence[Entry], gone: Sequence[Entry]) -> dict[str, Any]:
    """The entries for a program; `removed` tells those that went."""
    rows = [
        {
            "kind": entry.kind,
            "path": str(entry.path),
            "bytes": entry.bytes,
            "used": dt.datetime.fromtimestamp(entry.used, dt.UTC).isoformat(timespec="seconds"),
            "state": entry.state,
            "removed": entry in gone,
        }
        for entry in found
    ]
    return {"schema": 1, "cache": place, "entries": rows, "bytes": sum(entry.bytes for entry in found)}
