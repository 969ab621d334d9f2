"""Further scorings of a variant, by another path or with another seed: their place in a run, and their names.

They stand in the Result that they repeat, so whoever looks for candidates never meets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from qeval.base.records import Result, Run


def name_again(name: str) -> str:
    """What the second scoring of a variant is called."""
    return f"{name} (again)"


def name_of_seed(name: str, seed: int) -> str:
    """What a variant is called whose scheme was quantised with another seed."""
    return f"{name} (seed {seed})"


def repeats_of(result: Result) -> tuple[Result, ...]:
    """The further scorings of a result."""
    return (*((result.again,) if result.again else ()), *result.seeds)


def scorings(run: Run) -> tuple[Result, ...]:
    """Every result of a run, each followed by its further scorings."""
    return tuple(one for result in run.results for one in (result, *repeats_of(result)))


def with_repeat(result: Result, repeat: Result, *, path: bool) -> Result:
    """The result with a further scoring of it, in the place of one of the same name; `path`: of that kind."""
    if path:
        return replace(result, again=repeat)
    names = [one.variant.name for one in result.seeds]
    if repeat.variant.name not in names:
        return replace(result, seeds=(*result.seeds, repeat))
    place = names.index(repeat.variant.name)
    return replace(result, seeds=(*result.seeds[:place], repeat, *result.seeds[place + 1 :]))


def with_repeats_of(result: Result, others: Iterable[Result]) -> Result:
    """The result with what other results of the same variant have of further scorings and it has not."""
    for other in others:
        known = {one.variant.name for one in repeats_of(result)}
        for repeat in repeats_of(other):
            if repeat.variant.name not in known:
                result = with_repeat(result, repeat, path=repeat is other.again)
    return result
