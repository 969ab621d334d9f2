"""The nouns of a history: the runs that were read, what is wanted of them, points, and the lines they make.

A line holds one model, suite, row, metric, version of the task and variant. It goes on from a run to a later
one only where `compare.continuity` finds nothing that sets them apart; and what is no whole measurement of
qeval's own (unfinished, damaged, limited, a toy, imported, redacted) says so at its point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from qeval.base.records import Comparison, Decision, Read, Run
from qeval.compare.evidence import Evidence
from qeval.judge.matching import matches_some

Unit = Literal["points", "perplexity", "nats"]


@dataclass(frozen=True)
class Source:
    """A run that was read; `evidence` is None where `problem` says why nothing of it can be shown.
    `decisions` are a gate's, where there is a policy; `pathless`: its paths were left out. `called` are the
    variants' own names, where the run shows others; `drawn` the rows that have a limit to look at, which the
    gate does not judge."""

    run: Run
    read: Read
    evidence: Evidence | None = None
    decisions: tuple[Decision, ...] = ()
    problem: str = ""
    toy: bool = False
    pathless: bool = False
    called: tuple[str, ...] = ()
    drawn: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """Patterns of what is to be shown: the model, the suite, variants and rows; "" is any, of rows those of a
    summary."""

    model: str = ""
    suite: str = ""
    variant: str = ""
    task: str = ""


@dataclass(frozen=True)
class Key:
    """What all points of a line have in common."""

    model: str
    suite: str
    task: str
    variant: str
    measure: str
    unit: Unit
    versions: tuple[str, ...]
    title: str = field(compare=False)

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What is known of a point of which nothing was scored, too."""
        return self.model, self.suite, self.task, self.variant


@dataclass(frozen=True)
class Point:
    """One run. `value` is higher where better: the score of a baseline, else the difference from it, of
    perplexities in nats, of fidelity the divergence below zero; None where there is none, as `lacks` then
    says. `allowed` is the loss allowed, or the margin, in the same unit; `status` is a gate's where it is
    `judged`, else what the evidence finds against the margin, `words` says it, `reason` with figures.
    `drawn`: the gate judges no such row; a limit is drawn in, and the status is the margin's. `apart` says
    why the line is broken before it."""

    run: str
    created: str
    revision: str
    n: int = 0
    value: float | None = None
    score: float | None = None
    comparison: Comparison | None = None
    allowed: float | None = None
    judged: bool = False
    drawn: bool = False
    status: str = ""
    words: str = ""
    reason: str = ""
    lacks: tuple[str, ...] = ()
    apart: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is a whole measurement."""
        return self.value is not None and not self.lacks


@dataclass(frozen=True)
class Series:
    """A line: its points in the order of time. `baseline` is what the last of them is compared with, "" where
    they are the baseline's own scores; `level` is the confidence of its intervals."""

    key: Key
    points: tuple[Point, ...]
    baseline: str = ""
    level: float | None = None

    @property
    def own(self) -> bool:
        """Whether the points are scores of the baseline, not differences."""
        return self.key.unit != "nats" and not self.baseline

    @property
    def measured(self) -> int:
        """How many points have a number."""
        return sum(point.value is not None for point in self.points)


@dataclass(frozen=True)
class History:
    """Every line, and the runs that could not be read: (name, why). `limit` names the policy, "" where
    there is none; `runs` counts those that were looked at."""

    series: tuple[Series, ...]
    unread: tuple[tuple[str, str], ...] = ()
    limit: str = ""
    runs: int = 0


def meant(name: str, pattern: str) -> bool:
    """Whether a pattern means a name; none means any."""
    return not pattern or matches_some(pattern, (name,))


def telling(lines: Sequence[Series]) -> str:
    """The row that sums a suite up: its average, else the first that has differences."""
    tasks = [one.key.task for one in lines if not one.own]
    return "average" if "average" in tasks else next(iter(tasks), "")
