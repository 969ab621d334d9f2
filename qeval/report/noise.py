"""How far numbers move by themselves, for every format: the noise floor, and what a scheme's seed moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qeval.base import numbers
from qeval.compare import noise, spread
from qeval.compare.evidence import Evidence

FLOOR_HEADERS = ("Task", "Items", "Changed", "Share", "Δ")
SEED_HEADERS = ("Variant", "Task", "Seeds", "Least", "Median", "Greatest")


@dataclass(frozen=True)
class Noise:
    """What a report says of noise. `sentence` states the floor or that there is none, `within` by variant who
    is no further from the baseline than twice that; `floor` and `seeds` are the rows of two tables, and
    `seed_sentences` what the second one means."""

    sentence: str
    within: Mapping[str, str]
    floor: tuple[tuple[str, ...], ...]
    seeds: tuple[tuple[str, ...], ...]
    seed_sentences: tuple[str, ...]


def noise_of(evidence: Evidence) -> Noise:
    """All of it, in words."""
    names = [result.variant.name for result in evidence.candidates]
    return Noise(
        sentence=noise.sentence(evidence),
        within={name: _within(evidence, name) for name in names},
        floor=tuple(_floor_row(one) for one in noise.floors(evidence)),
        seeds=tuple(_seed_row(one) for one in spread.spreads(evidence)),
        seed_sentences=spread.sentences(evidence),
    )


def _within(evidence: Evidence, variant: str) -> str:
    """Where a variant is within twice the floor; that it decides nothing only beside a proved loss there."""
    near = noise.near(evidence, variant)
    if near is None:
        return ""
    return f"{near.where} {near.caveat}" if near.proved else near.where


def _floor_row(floor: noise.Floor) -> tuple[str, ...]:
    delta = (
        numbers.ratio(floor.delta) if floor.row.kind == "perplexity" else numbers.signed_points(floor.delta)
    )
    return (
        floor.row.title,
        numbers.count(floor.n),
        numbers.count(floor.flips),
        noise.share(floor),
        delta,
    )


def _seed_row(one: spread.Spread) -> tuple[str, ...]:
    words = numbers.ratio if one.row.kind == "perplexity" else numbers.signed_points
    least, greatest = (one.high, one.low) if one.row.kind == "perplexity" else (one.low, one.high)
    return (
        one.variant,
        one.row.title,
        numbers.count(len(one.deltas)),
        words(least),
        words(one.median),
        words(greatest),
    )


def as_data(evidence: Evidence) -> dict[str, Any]:
    """The same for programs: numbers as they are, in the units of a comparison."""
    base = evidence.baseline
    return {
        "measured": bool(noise.floors(evidence)),
        "sentence": noise.sentence(evidence),
        "variant": base.again.variant.name if base.again else None,
        "floor": [_floor_data(one) for one in noise.floors(evidence)],
        "within_twice": [
            {"variant": result.variant.name, "task": row.id}
            for result in evidence.candidates
            for row in noise.within(evidence, result.variant.name)
        ],
        "seeds": [_seed_data(one) for one in spread.spreads(evidence)],
        "seed_sentences": list(spread.sentences(evidence)),
    }


def _floor_data(floor: noise.Floor) -> dict[str, Any]:
    return {
        "task": floor.row.id,
        "level": floor.row.level,
        "kind": floor.row.kind,
        "n": floor.n,
        "flips": floor.flips,
        "share": floor.flips / floor.n if floor.flips is not None and floor.n else None,
        "delta": floor.delta,
        "reach": floor.reach,
        "ratio": numbers.exp(-floor.delta) if floor.row.kind == "perplexity" else None,
    }


def _seed_data(one: spread.Spread) -> dict[str, Any]:
    return {
        "variant": one.variant,
        "task": one.row.id,
        "level": one.row.level,
        "kind": one.row.kind,
        "deltas": list(one.deltas),
        "low": one.low,
        "median": one.median,
        "high": one.high,
    }
