"""Margins of a plan that lie below twice the noise floor of the run that it starts from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from qeval.base import numbers
from qeval.compare import noise
from qeval.compare.evidence import Evidence
from qeval.judge.plan import MARGINS, Planned


def undecidable(rows: Sequence[Planned], evidence: Evidence) -> tuple[str, ...]:
    """A sentence for each row with such a margin: two scorings of the same weights differ by as much, so no
    verdict there tells of the weights. Where the floor was not measured, that it was not."""
    found = _floors(evidence)
    if not found:
        return (noise.sentence(evidence),)
    told = (line for row in rows if row.task in found for line in _sentences(row, found[row.task]))
    return tuple(dict.fromkeys(told))


def held_to_noise(rows: Sequence[Planned], evidence: Evidence) -> tuple[Planned, ...]:
    """The rows, none of which is called provable where its limit lies below twice the noise floor."""
    found = _floors(evidence)
    return tuple(
        replace(row, answer="below noise")
        if row.answer == "provable" and row.task in found and any(_sentences(row, found[row.task]))
        else row
        for row in rows
    )


def _floors(evidence: Evidence) -> dict[str, noise.Floor]:
    return {floor.row.id: floor for floor in noise.floors(evidence)}


def _sentences(row: Planned, floor: noise.Floor) -> Iterator[str]:
    twice, allowed = noise.TWICE * floor.reach, row.allowed or 0.0
    if row.limit.startswith("max_flips"):
        share = noise.TWICE * (floor.flips or 0) / floor.n
        if _less(allowed, share):
            yield _below(row, f"{numbers.percent(allowed)} flips", f"{numbers.percent(share)} flips")
    elif row.limit:
        if _less(allowed, twice):
            yield _below(row, _asked(row, allowed, twice), _loss(row, twice, allowed))
    elif row.kind != "perplexity":
        small = [points for points in MARGINS if _less(points / 100, twice)]
        if small:
            asked = " or ".join(f"{points:g}" for points in small)
            yield _below(row, f"a drop of {asked} points", _loss(row, twice, small[-1] / 100))


def _less(margin: float, twice: float) -> bool:
    """Whether a margin is below twice the floor; one that is exactly that is not."""
    return margin < twice and not math.isclose(margin, twice, rel_tol=1e-9)


def _below(row: Planned, asked: str, twice: str) -> str:
    return f"{row.task}: {asked} is below twice the noise floor ({twice}), so it cannot be decided."


def _asked(row: Planned, loss: float, other: float) -> str:
    """The limit in words."""
    return ("" if row.kind == "perplexity" else "a drop of ") + _loss(row, loss, other)


def _loss(row: Planned, loss: float, other: float) -> str:
    """A loss in its unit, with as many digits as tell it from another one."""
    if row.kind == "perplexity":
        return str(numbers.ratio(-loss, (-other,)))
    digits = numbers.digits_to_keep(100 * loss, (100 * other,), round_limits=True)
    return f"{numbers.points(loss, digits)} points"
