"""Several rounds of answers to the same items as one: what lm-eval makes of each, and the means over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from qeval.base.logged import Filtered, Logged, as_logged


@dataclass(frozen=True, eq=False)
class Round:
    """One answer of lm-eval's kind to every question: `groups` are its instances, filtered, item by item,
    `judged` the values of its metrics by filter and item."""

    groups: Sequence[Sequence[Any]]
    judged: Mapping[str, Sequence[Mapping[str, Any]]]


def mean_of(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each number's mean over rounds that all have it."""
    if len(rounds) == 1:
        return dict(rounds[0])
    names = [name for name in rounds[0] if all(name in one for one in rounds)]
    return {name: sum(one[name] for one in rounds) / len(rounds) for name in names}


def logged(rounds: Sequence[Round], at: int, target: str | None) -> Logged:
    """What lm-eval logs of the item at `at`: all responses to each of its questions, all that filters left of
    them, and what metrics say, over several rounds the mean of those that are numbers."""
    mates = list(zip(*(one.groups[at] for one in rounds), strict=True))
    filters = {
        name: Filtered(
            [as_logged(mate.filtered_resps[name]) for same in mates for mate in same],
            _metrics([one.judged[name][at] for one in rounds]),
        )
        for name in rounds[0].judged
    }
    return Logged(
        [[as_logged(text) for mate in same for text in mate.resps] for same in mates], filters, target
    )


def _metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return dict(rows[0]) if len(rows) == 1 else dict(_means(rows))


def _means(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for name in rows[0]:
        values = [row.get(name) for row in rows]
        numbers = [float(value) for value in values if isinstance(value, Real)]
        if len(numbers) == len(values):
            yield name, sum(numbers) / len(numbers)
