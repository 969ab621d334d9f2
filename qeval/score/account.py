"""What a job says while it is at work, and what is kept of it beside its numbers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qeval.base.messages import Note, Progress
from qeval.base.records import Cell, Provenance

if TYPE_CHECKING:
    from qeval.score.cells import Say

_SAY_EVERY_SECONDS = 0.2


def told_by(cells: Sequence[Cell | None]) -> Provenance | None:
    """What finished cells say together of their variant: the first that says anything, with the notes and the
    warnings of all, for each cell tells only what was known when it was finished."""
    made = [cell.provenance for cell in cells if cell is not None and cell.provenance is not None]
    if not made:
        return None
    notes = dict.fromkeys(note for one in made for note in one.notes)
    return replace(made[0], notes=tuple(notes), warnings=warned_by(cells))


def warned_by(cells: Sequence[Cell | None]) -> tuple[str, ...]:
    """The warnings of finished cells, each once: what they warned of stands, whoever takes them over."""
    made = [cell.provenance for cell in cells if cell is not None and cell.provenance is not None]
    return tuple(dict.fromkeys(note for one in made for note in one.warnings))


class Account:
    """The provenance of a variant as it grows, and how many requests are answered."""

    def __init__(self, say: Say, provenance: Provenance) -> None:
        self.say = say
        self.provenance = provenance
        self._done = self._under_way = self._taken = 0
        self._spoke = 0.0

    def learn(self, **facts: Any) -> None:
        """Keep facts by the names that Provenance has for them."""
        self.provenance = replace(self.provenance, **facts)

    def note(self, texts: Sequence[str]) -> None:
        """Say what a reader of the report must know, and keep it; each sentence once."""
        for text in texts:
            if text not in self.provenance.notes:
                self.learn(notes=(*self.provenance.notes, text))
                self.say(Note(text))

    def warn(self, texts: Sequence[str]) -> None:
        """Say what a gate prints too, and keep it; each sentence once."""
        for text in texts:
            if text not in self.provenance.warnings:
                self.learn(warnings=(*self.provenance.warnings, text))
                self.say(Note(text))

    def begun(self, row: str, count: int) -> None:
        """Requests are answered, though their shard is not finished."""
        self._under_way += count
        self._tell(row)

    def taken(self, count: int) -> None:
        """Requests will be finished that a helper answered."""
        self._taken += count

    def dropped(self) -> None:
        """What was begun and not finished is done again."""
        self._under_way = 0

    def finished(self, row: str, count: int) -> None:
        """Requests are answered for good."""
        self._under_way = max(self._under_way - count, 0)
        self._done += count
        self._tell(row)

    def _tell(self, row: str) -> None:
        now = time.monotonic()
        if now - self._spoke >= _SAY_EVERY_SECONDS:
            self._spoke = now
            self.say(Progress(row, self._done + self._under_way, self._taken))
