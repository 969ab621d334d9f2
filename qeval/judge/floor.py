"""Limits that lie below twice the noise floor, said alike by a plan and by a gate, which decides them all the
same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from qeval.base import numbers
from qeval.base.records import Decision, Kind
from qeval.base.rules import describe
from qeval.compare import noise
from qeval.compare.evidence import Evidence
from qeval.judge.plan import MARGINS, Planned


def of_plan(rows: Sequence[Planned], evidence: Evidence) -> tuple[str, ...]:
    """A sentence for each row of a plan with such a limit, without a policy with such margins; where no floor
    was measured, that there is none."""
    found = _floors(evidence)
    if not found:
        return (noise.sentence(evidence),)
    told = (
        sentence
        for row in rows
        if row.task in found
        for sentence in below(row.task, row.kind, row.limit, row.allowed, found[row.task])
    )
    return tuple(dict.fromkeys(told))


def of_gate(decisions: Sequence[Decision], evidence: Evidence) -> tuple[str, ...]:
    """A sentence for each row with such a limit that a gate judged by; none where no floor was measured."""
    found, titles = _floors(evidence), evidence.titles
    told = (
        sentence
        for one in decisions
        if one.task in found and one.comparison is not None and one.allowed is not None
        for sentence in below(
            titles[one.task], one.comparison.kind, describe(one.rule), one.allowed, found[one.task]
        )
    )
    return tuple(dict.fromkeys(told))


def _floors(evidence: Evidence) -> Mapping[str, noise.Floor]:
    return {floor.row.id: floor for floor in noise.floors(evidence)}


def below(name: str, kind: Kind, limit: str, allowed: float | None, floor: noise.Floor) -> Iterator[str]:
    """The sentence on one limit, if it lies below twice the floor. `limit` is the rule in words, "" for the
    margins that a plan speaks of without one; `allowed` the loss allowed in the unit of Comparison, of flips
    a share of the answers."""
    twice, most = noise.TWICE * floor.reach, allowed or 0.0
    if limit.startswith("max_flips"):
        share = noise.TWICE * (floor.flips or 0) / floor.n
        if _less(most, share):
            yield _said(name, f"{numbers.percent(most)} flips", f"{numbers.percent(share)} flips")
    elif limit and allowed is not None:
        if _less(most, twice):
            drop = "" if kind == "perplexity" else "a drop of "
            yield _said(name, f"{drop}{_loss(kind, most, twice)}", _loss(kind, twice, most))
    elif not limit and kind != "perplexity":
        small = [points for points in MARGINS if _less(points / 100, twice)]
        if small:
            asked = " or ".join(f"{points:g}" for points in small)
            yield _said(name, f"a drop of {asked} points", _loss(kind, twice, small[-1] / 100))


def _less(margin: float, twice: float) -> bool:
    """Whether a margin is below twice the floor; one that is exactly that is not."""
    return margin < twice and not math.isclose(margin, twice, rel_tol=1e-9)


def _said(name: str, asked: str, twice: str) -> str:
    return (
        f"{name}: {asked} is below twice the noise floor ({twice}): the gate decides it all the same, but"
        " scoring the same weights twice may differ by as much."
    )


def _loss(kind: Kind, loss: float, other: float) -> str:
    """A loss in its unit, with as many digits as tell it from another one."""
    if kind == "perplexity":
        return str(numbers.ratio(-loss, (-other,)))
    digits = numbers.digits_to_keep(100 * loss, (100 * other,), round_limits=True)
    return f"{numbers.points(loss, digits)} points"
