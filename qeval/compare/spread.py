"""What the seed of a quantisation alone moves: the differences of a scheme made several times.

The seed of GPTQ and AWQ draws the calibration samples. Which of two schemes is the better one may hang on it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qeval.base import numbers
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, summary_rows

LUCK = "Which of two schemes is better is luck if they differ by less than the spread over seeds."
ELSEWHERE = (
    "Quantising on another kind of device, or on a CPU with another number of threads, moves a scheme too,"
    " since sums are rounded differently; the spread over seeds is a measure of that as well."
)


@dataclass(frozen=True)
class Spread:
    """The differences from the baseline of one scheme made with several seeds, on one row; the variant's own
    comes first. In the unit of Comparison."""

    variant: str
    row: Row
    deltas: tuple[float, ...]

    @property
    def low(self) -> float:
        """The least difference."""
        return min(self.deltas)

    @property
    def median(self) -> float:
        """The median difference."""
        return statistics.median(self.deltas)

    @property
    def high(self) -> float:
        """The greatest difference."""
        return max(self.deltas)


def spreads(evidence: Evidence) -> tuple[Spread, ...]:
    """The spread of every variant that was made with several seeds, on every row of the summary."""
    return tuple(
        Spread(variant, row, deltas)
        for variant in evidence.seeds
        for row in summary_rows(evidence.rows)
        if len(deltas := _deltas(evidence, variant, row)) > 1
    )


def _deltas(evidence: Evidence, variant: str, row: Row) -> tuple[float, ...]:
    made = [found[row.id].delta for found in evidence.seeds[variant] if row.id in found]
    if variant == evidence.run.baseline:
        return (0.0, *made)
    own = evidence.pairs.get((variant, row.id))
    return (own.delta, *made) if own else ()


def lucky(evidence: Evidence) -> Iterator[tuple[str, str, tuple[Row, ...]]]:
    """Two candidates, and the rows on which they differ by less than the spread of either over its seeds."""
    width = {(one.variant, one.row.id): one.high - one.low for one in spreads(evidence)}
    rows = summary_rows(evidence.rows)
    names = [result.variant.name for result in evidence.candidates]
    for first, second in itertools.combinations(names, 2):
        found = tuple(row for row in rows if _closer(evidence, (first, second), row, width))
        if found:
            yield first, second, found


def _closer(
    evidence: Evidence, names: tuple[str, str], row: Row, width: dict[tuple[str, str], float]
) -> bool:
    both = [evidence.pairs.get((name, row.id)) for name in names]
    widest = max(width.get((name, row.id), 0.0) for name in names)
    known = [one.delta for one in both if one is not None]
    return len(known) == len(names) and abs(known[0] - known[1]) < widest


# --- in words -----------------------------------------------------------------------------------


def sentences(evidence: Evidence) -> tuple[str, ...]:
    """The spreads, the choices that they make luck, and what was not made again; none where nothing was."""
    if not any(result.seeds for result in evidence.run.results):
        return ()
    found = spreads(evidence)
    told = [
        _told(variant, [one for one in found if one.variant == variant])
        for variant in dict.fromkeys(one.variant for one in found)
    ]
    close = [
        f"{first} and {second} are closer than that on {', '.join(row.title for row in rows)}: choosing"
        " between them there is luck."
        for first, second, rows in lucky(evidence)
    ]
    return (*told, *([LUCK, ELSEWHERE] if found else []), *close, *_not_made(evidence))


def _told(variant: str, found: Sequence[Spread]) -> str:
    rows = "; ".join(f"{one.row.title} {in_words(one)}" for one in found)
    return f"{variant} over {len(found[0].deltas)} seeds, median (least to greatest): {rows}."


def in_words(one: Spread) -> str:
    """The median difference with the least and the greatest, in points or as perplexity ratios."""
    if one.row.kind == "perplexity":
        return f"{numbers.ratio(one.median)} ({numbers.interval_ratio(one.low, one.high)})"
    return f"{numbers.signed_points(one.median)} ({numbers.interval_points(one.low, one.high)}) points"


def _not_made(evidence: Evidence) -> Iterator[str]:
    for result in evidence.run.results:
        for one in result.seeds:
            if one.status != "done":
                why = f": {one.error}" if one.error else "."
                yield f"{one.variant.name} was not fully scored{why}"
    once = [one.variant.name for one in evidence.candidates if one.status == "done" and not one.seeds]
    if once:
        yield f"Made only once, as no seed has an effect or no repeats were asked for: {', '.join(once)}."
