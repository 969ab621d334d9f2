"""On whom a command waits that finds nothing to do itself: said at once, and then about once a minute."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from qeval.base.messages import Event, Note
from qeval.base.numbers import duration
from qeval.base.records import Variant
from qeval.store.leases import Holder, Holders, machine

EVERY_SECONDS = 60.0
Listener = Callable[[Variant, Event], None]


class _Said(NamedTuple):
    """What was said of a variant: when, of which process, and how far that had come."""

    at: float
    whom: tuple[str, int]
    done: int


_NOTHING = _Said(-math.inf, ("", 0), 0)
_NOBODY = ""
"""Under which it is kept when it was said that nobody is at work; no variant is called so."""


@dataclass
class Awaited:
    """Tells `listen` on which other processes this one waits. Where it `follows` how far they come, that is
    told elsewhere, and only those are said again that come no further."""

    holders: Holders
    listen: Listener
    follows: bool
    now: Callable[[], float] = time.monotonic
    said: dict[str, _Said] = field(default_factory=dict)

    def say(self, variants: Sequence[Variant]) -> None:
        """Say who is at these variants, where it is due; those at none where nobody is."""
        there = [one for one in self.holders.at_work() if _process(one) != (machine(), os.getpid())]
        at_them = False
        if there:
            self.said.pop(_NOBODY, None)
        for variant in variants:
            if whom := [one for one in there if one.variant == variant.name]:
                at_them = True
                self._say(variant, sorted(whom, key=lambda one: one.part != "lead"), "")
        if there and variants and not at_them:
            self._say(variants[0], there, ", at no variant")

    def nobody(self, variant: Variant, told: str) -> None:
        """Say of a variant that nobody is at work, where it is due: at once, then as often as of others."""
        now = self.now()
        if now - self.said.get(_NOBODY, _NOTHING).at >= EVERY_SECONDS:
            self.said[_NOBODY] = _Said(now, ("", 0), 0)
            self.listen(variant, Note(told))

    def _say(self, variant: Variant, whom: Sequence[Holder], further: str) -> None:
        """Say it of the first of these, with the number of the others, where it is due."""
        first, now = whom[0], self.now()
        said = self.said.get(variant.name, _NOTHING)
        known = said.whom == _process(first)
        moved = known and self.follows and said.done != first.done
        if known and not moved and now - said.at < EVERY_SECONDS:
            return
        self.said[variant.name] = _Said(now, _process(first), first.done)
        silent = self.holders.silent(first)
        if not moved and math.isfinite(silent):  # else it is gone by now
            more = f" and {len(whom) - 1} more" if len(whom) > 1 else ""
            self.listen(variant, Note(_sentence(first, more + further, silent)))


def _sentence(one: Holder, more: str, silent: float) -> str:
    who = f"process {one.pid} on {one.host}{more}, last heard of {duration(silent)} ago"
    return f"Waiting for {who}; it is presumed dead after {duration(one.seconds)} of silence."


def _process(one: Holder) -> tuple[str, int]:
    return one.machine, one.pid
