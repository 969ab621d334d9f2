"""The runs of a directory in the order of time, opened one after another, for a history."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from qeval.base.errors import IncomparableError, QevalError
from qeval.cli import options

if TYPE_CHECKING:
    from qeval.base.records import Policy, Run
    from qeval.report.history.series import History, Source, Wanted
    from qeval.store.runs import RunDir

USUAL_DROP = "1.0"
"""Percentage points that a line of a history has as its limit where none is given."""
_LAST = dt.datetime.max.replace(tzinfo=dt.UTC)


def readable(places: Iterable[RunDir]) -> tuple[list[tuple[RunDir, Run]], list[tuple[str, str]]]:
    """The runs by the time that they were begun, those of no known time last; and those that cannot be read:
    (name, why)."""
    found, unread = [], []
    for place in places:
        try:
            found.append((place, place.read()))
        except QevalError as error:
            unread.append((place.path.name, inside(place, error)))
    return sorted(found, key=lambda one: (begun(one[1]), one[1].id)), sorted(unread)


def inside(place: RunDir, error: QevalError) -> str:
    """What is wrong with a run, its files named as seen from its directory, the names of cells short."""
    told = error.message.replace(f"{place.path}{os.sep}", "").replace(str(place.path), "the run")
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1…", told)


def begun(run: Run) -> dt.datetime:
    """When a run was begun; after all others where nobody knows."""
    try:
        moment = dt.datetime.fromisoformat(run.created.strip())
    except ValueError:
        return _LAST
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def history(
    places: Iterable[RunDir],
    wanted: Wanted,
    policy: Policy | None,
    *,
    redact: bool = False,
    upto: dt.datetime | None = None,
) -> History:
    """The lines of these runs that are wanted; of those begun up to a moment, where one is given."""
    from qeval.report.history.lines import history as lines

    found, unread = readable(places)
    kept = [(place, run) for place, run in found if upto is None or begun(run) <= upto]
    hidden = [(f"[run {number}]", why) for number, (_, why) in enumerate(unread, 1)]
    return lines(
        _sources(kept, wanted, redact=redact), wanted, policy or usual(), hidden if redact else unread
    )


def usual() -> Policy:
    """The limit of lines where none is given."""
    from dataclasses import replace

    from qeval.ask.policy import PERPLEXITY_LIMITS, from_max_drop

    found = from_max_drop((USUAL_DROP,))
    ratio = PERPLEXITY_LIMITS["word_perplexity"]
    return replace(
        found, source=f"{USUAL_DROP} points and x{ratio:.2f} of word perplexity, as none was given"
    )


def _sources(runs: Sequence[tuple[RunDir, Run]], wanted: Wanted, *, redact: bool) -> Iterator[Source]:
    from qeval.report.history.series import meant

    for place, run in runs:
        if meant(run.model, wanted.model) and meant(run.suite.name, wanted.suite):
            yield _source(place, run, redact=redact)


def _source(place: RunDir, run: Run, *, redact: bool) -> Source:
    """A run with what can be compared in it; damage to its items is told, not raised."""
    from qeval.base.redacted import redacted
    from qeval.load.toy import is_toy
    from qeval.report.history.series import Source

    toy = is_toy(run.model)
    try:
        evidence, read = options.open_runs([str(place.path)], place.path.parent, redact=redact)
        for result in evidence.run.results:  # its baseline alone may be read by nobody else
            for cell in result.cells:
                if result.variant.name == evidence.run.baseline and not cell.aggregate_only:
                    read.samples(cell)
    except QevalError as error:
        shown = redacted(run) if redact else run
        kind = "not comparable" if isinstance(error, IncomparableError) else "damaged"
        return Source(shown, place.samples, problem=f"{kind}: {inside(place, error)}", toy=toy)
    return Source(evidence.run, read.samples, evidence, toy=toy)
