"""When several workers share a variant: what is answered, who is worth a start, how many may die."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from qeval.base.messages import Job

DEATHS, DEATHS_UNDONE = 4, 2
"""How often the workers of a variant may die: in all, and before they scored anything."""


def too_many(deaths: int, undone: int) -> bool:
    """Whether so many workers of a variant died, `undone` of them before they scored anything, that nobody
    takes it up any more."""
    return deaths >= DEATHS or undone >= DEATHS_UNDONE


def answered(total: int, done: int, taken: int, helped: Iterable[int]) -> int:
    """The requests of `total` that are answered: those that the leader tells of, `taken` of them over from
    helpers, and what each helper tells of beyond that."""
    return min(total, done + max(0, sum(helped) - taken))


def worth(total: int, shown: int, spent: float, loading: float, helpers: int) -> float | None:
    """The requests that are left, if they take longer than a further worker needs before it begins; else
    None. `spent` seconds were needed for those `shown`, and `loading` before the first."""
    if spent <= 0 or not shown:
        return None
    left = total - shown
    return left if left * spent / shown * (helpers + 1) / (helpers + 2) > loading else None


def as_helper(job: Job, name: str) -> Job:
    """The job of a further worker: it scores shards alone, and keeps a log of its own."""
    log = Path(job.log)
    own = str(log.with_name(f"{log.stem}-{name}.log"))
    return msgspec.structs.replace(job, part="help", verify=0, cost=False, log=own)
