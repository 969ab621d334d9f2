"""Units: tasks that are packed together, scored one after the other, or helped with from the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

from qeval.base.messages import Done
from qeval.score.clock import phase
from qeval.score.engine.shared import GivenUpError
from qeval.score.feeding import SteppedDown, places_of

if TYPE_CHECKING:
    from qeval.score.harness.prepared import PreparedTask
    from qeval.score.session import Session

Work = Sequence[tuple[Sequence["PreparedTask"], Sequence[bool]]]
"""Units, and which of their tasks are wanted."""
SCORING = "scoring"
"""The phase whose seconds a task's cell tells: neither checks nor what else is not its own."""


def units(prepared: Sequence[PreparedTask]) -> Iterator[list[PreparedTask]]:
    """Tasks that are packed together: the members of a group, or a task alone."""
    for _, parts in groupby(prepared, key=lambda part: part.task.group or part.task.name):
        yield list(parts)


def score_units(session: Session, work: Work) -> None:
    """Score unit after unit. Raises GivenUpError at the end, where some shard was given up."""
    lost = []
    for unit, wanted in work:
        try:
            session.score_unit(unit, wanted)
        except GivenUpError as error:
            lost.append(error)
    if lost:
        raise lost[0]


def help_with(session: Session, work: Work) -> None:
    """Score shards that nobody is at, from the end, for the worker that leads. A path or a shard that fails
    is left to that one, and so is whatever is not scored by the engine."""
    if session.settings.engine != "lm-eval":
        with suppress(SteppedDown):
            for unit, wanted in reversed(work):
                with suppress(GivenUpError):
                    _help_with(session, unit, wanted)
    session.say(Done(session.account.provenance))


def _help_with(session: Session, unit: Sequence[PreparedTask], wanted: Sequence[bool]) -> None:
    packed = [(part, want) for part, want in zip(unit, wanted, strict=True) if not part.generates]
    asked, needed = [part for part, _ in packed], [want for _, want in packed]
    if not any(needed):
        return
    watcher = session.watcher_of(asked)
    blocks = [None] if watcher is None else list(watcher.blocks())
    for block in reversed(blocks):
        with phase(SCORING):
            for _ in session.feeder.answered(asked, places_of(asked, block), needed):
                pass
