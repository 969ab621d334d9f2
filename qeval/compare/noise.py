"""The noise floor: what two scorings of the same weights differ by, and which differences are no larger.

Batches, kernels and GPUs alone change 1 to 3% of answers (arXiv 2602.10144). A floor is measured where a run
scored its baseline once more by another path (Result.again).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qeval.base import numbers
from qeval.base.records import Result
from qeval.compare import wording
from qeval.compare.evidence import Evidence
from qeval.compare.pairs import Pairs
from qeval.compare.rows import Row, summary_rows

TWICE = 2
"""How many times the floor a difference must exceed before it is called larger than noise."""
OPTION = "--repeat-baseline"
NOT_COVERED = ("another GPU", "another library version")
"""What a floor measured within one run cannot tell of."""
_MOST_ROWS = 12


@dataclass(frozen=True)
class Floor:
    """What two scorings of the same weights differ by on a row.

    `flips` counts the answers that changed of `n`, None where the row counts none. `delta` is the second
    score less the first, in the unit of Comparison. `reach` is how far a difference moves by itself: the
    larger of |delta| and the root of the items' summed squared differences over their weight, which for 0/1
    scores is the root of losses and gains over n. A single delta may be nought by luck; that root is not.
    """

    row: Row
    n: int
    flips: int | None
    delta: float
    reach: float


def floors(evidence: Evidence) -> tuple[Floor, ...]:
    """The floor of each row of the summary that was scored twice, in the rows' order; none if none was."""
    rows = summary_rows(evidence.rows)
    return tuple(_floor(row, evidence.again[row.id]) for row in rows if row.id in evidence.again)


def _floor(row: Row, pairs: Pairs) -> Floor:
    counted = row.level in ("task", "pooled")  # a mean's flips are those of its members
    flips = pairs.flips if counted else None
    return Floor(row, pairs.n, flips, pairs.delta, max(abs(pairs.delta), _scatter(pairs)))


def _scatter(pairs: Pairs) -> float:
    """The standard deviation of the row's difference, were the items' differences no more than chance."""
    if pairs.parts:
        return math.hypot(*map(_scatter, pairs.parts)) / len(pairs.parts)
    if pairs.values is None:
        return 0.0
    moved = pairs.values.candidate - pairs.values.baseline
    return float(np.sqrt((moved**2).sum()) / pairs.values.weight.sum())


def within(evidence: Evidence, variant: str) -> tuple[Row, ...]:
    """The tasks, and the average, on which a variant's flips and difference are at most twice the floor's."""
    return tuple(
        floor.row
        for floor in floors(evidence)
        if (floor.row.headline or floor.row.level == "average")
        and (found := evidence.pairs.get((variant, floor.row.id)))
        and _is_within(floor, found)
    )


def _is_within(floor: Floor, found: Pairs) -> bool:
    fewer = None in (floor.flips, found.flips) or (found.flips or 0) <= TWICE * (floor.flips or 0)
    return fewer and abs(found.delta) <= TWICE * floor.reach


# --- in words -----------------------------------------------------------------------------------

_NO_VERDICT = "The floor decides no verdict: a loss may be proved and yet lie within it."
_UNKNOWN = "How much of a small change is noise of scoring itself is not known."


def sentence(evidence: Evidence) -> str:
    """The floor of every row of the summary, and what it does not cover; or that it was not measured."""
    base, found = evidence.baseline, floors(evidence)
    if base.again is None or not found:
        return f"The noise floor was not measured{_why_not(evidence)}. {_UNKNOWN}"
    shown = [_of_row(floor) for floor in found[:_MOST_ROWS]]
    more = [f"{len(found) - _MOST_ROWS} more rows"] if len(found) > _MOST_ROWS else []
    how = _how(base, base.again)
    told = "; ".join([*shown, *more])
    return (
        f"Noise floor, {base.variant.name} scored again {how}: {told}. Not covered: {', '.join(NOT_COVERED)}."
    )


def _why_not(evidence: Evidence) -> str:
    again = evidence.baseline.again
    if again is not None:
        why = f": {again.error}" if again.error else ""
        return f": {again.variant.name} was not fully scored{why}".rstrip(".")
    others = [one.variant.name for one in evidence.run.results if one.again and one.again.status == "done"]
    if others:
        return f" for {evidence.run.baseline}; it was for {', '.join(others)}"
    return f" (qeval run {OPTION} measures it)" if evidence.run.source == "qeval" else ""


def _how(first: Result, again: Result) -> str:
    """By which path, as far as both are known."""
    one, two = (result.provenance for result in (first, again))
    if one is None or two is None or not two.engine:
        return "by another path"
    instead = f" instead of {one.engine}" if one.engine not in ("", two.engine) else ""
    size = f", batch size {two.batch_size}" if two.batch_size else ""
    return f"(engine {two.engine}{instead}{size}, items in another order)"


def _of_row(floor: Floor) -> str:
    change = difference(floor)
    if floor.flips is None:
        return f"{floor.row.title} {change}"
    return f"{floor.row.title} {floor.flips} of {floor.n} answers changed ({share(floor)}), {change}"


def difference(floor: Floor) -> str:
    """The difference of the two scorings in points, or as a perplexity ratio."""
    if floor.row.kind == "perplexity":
        return f"perplexity {numbers.ratio(floor.delta)}"
    return f"{wording.DELTA} {numbers.signed_points(floor.delta)} points"


def share(floor: Floor) -> numbers.Numeral:
    """The share of answers that changed."""
    return numbers.percent(floor.flips / floor.n if floor.flips is not None and floor.n else None)


@dataclass(frozen=True)
class Near:
    """That a variant is within twice the noise floor, in sentences: `where` names the rows with their floors,
    `caveat` says that this decides nothing; `proved` is whether a loss is proved on such a row."""

    where: str
    caveat: str
    proved: bool


def near(evidence: Evidence, variant: str) -> Near | None:
    """On which rows (tasks, the average) a variant is within twice the noise floor; None where on none."""
    found = {row.id for row in within(evidence, variant)}
    if not found:
        return None
    own = [_reach(floor) for floor in floors(evidence) if floor.row.id in found]
    where = ", ".join(own[:_MOST_ROWS]) + (f" and {len(own) - _MOST_ROWS} more" * (len(own) > _MOST_ROWS))
    proved = any((one := evidence.findings.get((variant, row))) and one.claim < 0 for row in found)
    return Near(f"Within twice the noise floor on {where}.", _NO_VERDICT, proved)


def _reach(floor: Floor) -> str:
    """A row with how far its difference moves by itself: "arc (floor ±1.00 points)"."""
    if floor.row.kind == "perplexity":
        return f"{floor.row.title} (floor {numbers.ratio(-floor.reach)})"
    return f"{floor.row.title} (floor ±{numbers.points(floor.reach)} points)"
