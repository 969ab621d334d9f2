"""Whether a difference matters: the margin of what is important, and the five words that a report says.

A difference can be measured and not matter, or be too uncertain to tell. This file alone turns an interval
and a margin into a word; every format shows that word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qeval.base import numbers
from qeval.base.records import Comparison
from qeval.base.rules import BYTE_PERPLEXITY, BYTES_PER_WORD, MARGIN, WORD_PERPLEXITY
from qeval.compare import wording
from qeval.compare.rows import Row

Status = Literal["WORSE", "UNDECIDED", "MEASURABLE", "EQUIVALENT", "BETTER"]
MARKS: Mapping[Status, str] = {
    "WORSE": "▼",
    "UNDECIDED": "?",
    "MEASURABLE": "≈",
    "EQUIVALENT": "=",
    "BETTER": "▲",
}
"""A sign for each, to be told without colour, the gravest first."""
_SMALL_UNITS = frozenset({"byte", "bytes", "character", "characters", "char", "chars", "bpb", "bpc"})
"""The words of a metric's name that say that it counts bytes or characters, not words."""
_MOST_NAMES = 2
Claims = Mapping[tuple[str, str], int]
"""What `evidence.claims` gives."""


@dataclass(frozen=True)
class Margin:
    """The smallest difference that matters: in percentage points, and as a ratio of word perplexity. Of
    metrics per byte it is the same text's ratio, WikiText having 5.35 bytes a word; of those per character
    too, which has a byte or more, so that the ratio is never too wide."""

    points: float = MARGIN
    ratio: float = WORD_PERPLEXITY

    @property
    def typed(self) -> str:
        """Both as an option takes them: "1,x1.10"."""
        return f"{numbers.as_written(self.points, 0)},x{numbers.as_written(self.ratio, 2)}"

    def told(self) -> str:
        """Both in words: "1 point, or x1.10 of word perplexity"."""
        return f"{points(self.points)}, or x{numbers.as_written(self.ratio, 2)} of word perplexity"

    def per_byte(self) -> float:
        """The ratio of byte perplexity."""
        usual = self.ratio == WORD_PERPLEXITY
        return BYTE_PERPLEXITY if usual else round(self.ratio ** (1 / BYTES_PER_WORD), 6)

    def ratio_of(self, comparison: Comparison) -> float:
        """The ratio for the perplexity that a comparison is of."""
        words = set(re.findall(r"[a-z]+", comparison.metric.lower()))
        return self.per_byte() if words & _SMALL_UNITS else self.ratio

    def delta(self, comparison: Comparison) -> float:
        """The margin in the unit of `Comparison.delta`, above zero."""
        return math.log(self.ratio_of(comparison)) if comparison.kind == "perplexity" else self.points / 100

    def words(self, comparison: Comparison) -> str:
        """The margin as people say it: "1 point", "0.5 points", "x1.10"."""
        if comparison.kind == "perplexity":
            return f"x{numbers.as_written(self.ratio_of(comparison), 2)}"
        return points(self.points)

    def upward(self, comparison: Comparison) -> str:
        """The margin on the side of the better: of perplexities a ratio below 1."""
        if comparison.kind == "perplexity":
            return f"x{1 / self.ratio_of(comparison):.3f}"
        return self.words(comparison)


def points(number: float) -> str:
    """A number of percentage points: "1 point", "0.5 points"."""
    return f"{numbers.as_written(number, 0)} point{'' if number == 1 else 's'}"


def status_of(low: float, high: float, margin: float, claim: int) -> Status:
    """The word for an interval [low, high] of differences, above zero better, and a margin above zero.

    `claim` is what may be claimed after correction for everything that is looked at (`evidence.claims`): -1 a
    loss, 1 a gain, 0 neither. Exactly one of the five holds of any interval:

    - WORSE: all of it is below -margin, and a loss may be claimed.
    - BETTER: all of it is above margin, and a gain may be claimed.
    - MEASURABLE: all of it is within the margin, and a loss or a gain may be claimed.
    - EQUIVALENT: all of it is within the margin, and neither may be claimed.
    - UNDECIDED: anything else. It crosses or touches -margin or margin; or it is beyond one of them, but
      among so many comparisons that may be chance.
    """
    if -margin < low and high < margin:
        return "MEASURABLE" if claim else "EQUIVALENT"
    if high < -margin and claim < 0:
        return "WORSE"
    return "BETTER" if low > margin and claim > 0 else "UNDECIDED"


@dataclass(frozen=True)
class Finding:
    """What is found of a variant on one row. `claim` as in `status_of`, among `among` comparisons; `title`
    is the row's. Where it sums up a variant of several rows, `of` says on which one, and `missing` are the
    tasks that it should have been compared on and was not. Numbers are rounded across neither the margin nor
    `limits`, which are deltas too."""

    comparison: Comparison
    margin: Margin
    claim: int
    among: int
    missing: tuple[str, ...] = ()
    title: str = ""
    of: str = ""
    limits: tuple[float, ...] = ()

    @property
    def limit(self) -> float:
        """The margin in the unit of the difference."""
        return self.margin.delta(self.comparison)

    @property
    def status(self) -> Status:
        """The word's key. With a task missing, nothing but a loss is certain."""
        own = self._own
        return "UNDECIDED" if self.missing and own != "WORSE" else own

    @property
    def _own(self) -> Status:
        """The key of what holds of the row alone."""
        return status_of(self.comparison.low, self.comparison.high, self.limit, self.claim)

    @property
    def unbounded(self) -> bool:
        """Whether the loss may be anything, as where the spread of items is unknown."""
        least = -math.inf if self.comparison.kind == "perplexity" else -1.0
        return self.comparison.low <= least

    @property
    def may_ruin(self) -> bool:
        """Whether it is open if the loss is beyond the margin, and what was seen is, or has no bound."""
        return self._own == "UNDECIDED" and (self.comparison.delta < -self.limit or self.unbounded)

    @property
    def mark(self) -> str:
        """A sign that tells the word without colour."""
        return MARKS[self.status]

    @property
    def words(self) -> str:
        """The word itself: "equivalent within 1 point", "undecided: gsm8k not scored"."""
        return self._said("")

    @property
    def said(self) -> str:
        """The same with the row that it holds of: "equivalent within 1 point on average"."""
        return self._said(self.of)

    def _said(self, of: str) -> str:
        words = phrase(self.status, self.margin, self.comparison)
        if self._hides:
            return f"{words}: {listed(self.missing)} not scored"
        where = f" {of}" if of else ""
        return f"{words}{where}{self._direction()}"

    def _direction(self) -> str:
        """Whether it is a loss or a gain that is undecided, where that much is certain."""
        if self.status != "UNDECIDED" or not self.claim:
            return ""
        if self.claim < 0:
            return f": a proved loss that may be smaller than {self.margin.words(self.comparison)}"
        return f": a proved gain that may be smaller than {self.margin.upward(self.comparison)}"

    @property
    def _hides(self) -> bool:
        """Whether the word is what it is, or would be, because a task is missing."""
        return bool(self.missing) and self.status == "UNDECIDED"

    @property
    def delta_text(self) -> numbers.Numeral:
        """The difference in points, of perplexities the ratio; rounded across neither zero nor margin."""
        return wording.delta(self.comparison, self.kept)

    @property
    def interval_text(self) -> numbers.Numeral:
        """Its interval, likewise."""
        return wording.interval(self.comparison, self.kept)

    @property
    def change(self) -> str:
        """Both in words."""
        return wording.change(self.comparison, self.kept)

    @property
    def kept(self) -> tuple[float, ...]:
        """The deltas that its numbers are not rounded across."""
        return (-self.limit, self.limit, *self.limits)

    @property
    def name(self) -> str:
        """The row's name."""
        return self.title or self.comparison.task

    @property
    def sentence(self) -> str:
        """On which row, by how much, and whether that is proved once all comparisons are corrected for."""
        lacks = f" {listed(self.missing)} not scored." if self.missing and not self._hides else ""
        return f"{self.name}: {self.change}{self._chance()}{lacks}"

    def _chance(self) -> str:
        one = self.comparison
        if not self.claim and (one.high < 0 or one.low > 0):
            what = "loss" if one.high < 0 else "gain"
            own = f"The interval is this row's own: corrected for all {self.among} comparisons"
            return f". {own} no {what} is proved{self._there}."
        return "."

    @property
    def _there(self) -> str:
        """Of which row alone that is said, where a variant has several."""
        if not self.of:
            return ""
        return " on average" if self.comparison.level == "average" else " there"


def listed(tasks: Sequence[str]) -> str:
    """Names of tasks, many of them counted: "gsm8k", "arc, gsm8k", "arc and 4 more"."""
    if len(tasks) > _MOST_NAMES:
        return f"{tasks[0]} and {len(tasks) - 1} more"
    return ", ".join(tasks)


def phrase(status: Status, margin: Margin, comparison: Comparison) -> str:
    """A word with its margin, for the kind of number that the comparison is of."""
    within = margin.words(comparison)
    return {
        "EQUIVALENT": f"equivalent within {within}",
        "MEASURABLE": f"measurable, smaller than {within}",
        "WORSE": f"worse than {within}",
        "BETTER": f"better than {margin.upward(comparison)}",
        "UNDECIDED": "undecided",
    }[status]


def telling(findings: Iterable[Finding]) -> Finding | None:
    """The finding that sums a variant up; None where there is none.

    That is the one on the average if there is one, else on the first task, else on the first perplexity.
    But a variant that ruined one task may not read as harmless: a row that is WORSE goes before, and after
    these one that is UNDECIDED and a loss may be claimed of; of several the one that sums up, else the
    surest. Where the one that sums up would say that all is well, a row goes before it that `may_ruin`; of
    several the one that lost most, in margins.
    """
    found = sorted(findings, key=lambda one: place(one.comparison))
    losses: tuple[Callable[[Finding], bool], ...] = (
        lambda one: one.status == "WORSE",
        lambda one: one.status == "UNDECIDED" and one.claim < 0,
    )
    for is_such in losses:
        such = [one for one in found if is_such(one)]
        if such:
            return such[0] if such[0] is found[0] else min(such, key=lambda one: one.comparison.p or 0.0)
    if not found or found[0].status == "UNDECIDED":
        return found[0] if found else None
    open_ruins = [one for one in found if one.may_ruin]
    return min(open_ruins, key=lambda one: one.comparison.delta / one.limit, default=found[0])


def place(one: Comparison | Row) -> tuple[bool, int]:
    """Where a row stands among those that could sum a variant up, the first one first."""
    return one.kind == "perplexity", ("average", "macro", "pooled", "task", "subtask").index(one.level)
