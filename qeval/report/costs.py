"""What the variants cost: a table, and the points of the quality-against-cost chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.records import ENOUGH_QUANTISED, Provenance, Result, Run

_MOST_MEASURES = 6
_LARGE = 2 * 2**30


@dataclass(frozen=True)
class Axis:
    """A cost by which variants can be laid out; `value` is None where it was not measured."""

    id: str
    title: str
    unit: str
    lower_is_better: bool
    value: Callable[[Result], float | None]


@dataclass(frozen=True)
class CostTable:
    """Measured costs, variants as rows; cells already formatted."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def axes(run: Run) -> tuple[Axis, ...]:
    """The costs that at least two variants have and that differ between them; what was measured on different
    hardware is none, for there only the weights can be compared."""
    weights = (
        _memory(
            "weights", "Size of weights", run, lambda r: r.provenance.weight_bytes if r.provenance else None
        ),
        Axis("bits", "Bits per weight", "bit", True, _bits),
    )
    measured = (
        _memory("peak", "Peak memory", run, lambda r: r.cost.peak_bytes if r.cost else None),
        Axis(
            "load", "Load time", "s", True, lambda result: result.cost.load_seconds if result.cost else None
        ),
        *(_measure(name, unit) for name, unit in _measures(run)),
    )
    known = (*weights, *(measured if comparable(run) else ()))
    return tuple(axis for axis in known if _tells(axis, run))


def comparable(run: Run) -> bool:
    """Whether all that was measured was measured on the same hardware."""
    return len(_hardware(run)) <= 1


def _hardware(run: Run) -> list[str]:
    return list(dict.fromkeys(result.cost.hardware for result in run.results if result.cost))


def _tells(axis: Axis, run: Run) -> bool:
    values = [value for result in run.results if (value := axis.value(result)) is not None]
    return len(set(values)) > 1


def _bits(result: Result) -> float | None:
    """Bits of a weight in the quantised layers; over the whole model where these are not most of it."""
    made = result.provenance
    if made is None:
        return None
    return made.bits_overall if made.mostly_plain else made.bits_per_weight


def _memory(identity: str, title: str, run: Run, read: Callable[[Result], int | None]) -> Axis:
    """An axis of bytes, in GiB where the greatest has several of them, else in MiB."""
    power, unit = (
        (30, "GiB")
        if max((read(result) or 0 for result in run.results), default=0) >= _LARGE
        else (20, "MiB")
    )

    def value(result: Result) -> float | None:
        number = read(result)
        return number / 2**power if number else None

    return Axis(identity, title, unit, True, value)


def _measure(name: str, unit: str) -> Axis:
    def value(result: Result) -> float | None:
        timing = result.cost.measures.get(name) if result.cost else None
        return timing.median if timing and timing.unit == unit else None

    return Axis(name, name.replace("/", ", "), unit, not is_rate(unit), value)


def is_rate(unit: str) -> bool:
    """Whether more is better: "tokens/s" is a rate, "ms/token" and "s" are times."""
    return unit.endswith(("/s", "/second"))


def _measures(run: Run) -> list[tuple[str, str]]:
    """The first few measures by name, with their units."""
    found = {
        name: timing.unit
        for result in run.results
        if result.cost
        for name, timing in result.cost.measures.items()
    }
    return list(found.items())[:_MOST_MEASURES]


def cost_table(run: Run) -> CostTable | None:
    """Everything measured, or None where nothing was."""
    if not any(result.cost for result in run.results):
        return None
    names = dict.fromkeys(n for r in run.results if r.cost for n in r.cost.measures)
    shares = any(r.provenance and r.provenance.quantised_share is not None for r in run.results)
    headers = (
        "Variant",
        "Weights",
        "Bits per weight",
        *(("Over the model", "Quantised share") if shares else ()),
        "Quantised layers",
        *(title for title, there in _known(run) if there),
        *(_heading(run, n) for n in names),
    )
    rows = tuple(_row(result, tuple(names), shares, _known(run)) for result in run.results)
    return CostTable(headers, rows, _notes(run))


def _heading(run: Run, name: str) -> str:
    units = {r.cost.measures[name].unit for r in run.results if r.cost and name in r.cost.measures}
    return f"{name.replace('/', ', ')} ({', '.join(sorted(units))})"


def _known(run: Run) -> tuple[tuple[str, bool], ...]:
    """The columns of what scoring itself measures, and whether any variant has something there."""
    costs = [result.cost for result in run.results if result.cost]
    load, peak = (
        any(values) for values in zip(*((c.load_seconds, c.peak_bytes) for c in costs), strict=True)
    )
    return ("Load (s)", load), ("Peak memory", peak)


def _row(
    result: Result, names: Sequence[str], shares: bool, known: Sequence[tuple[str, bool]]
) -> tuple[str, ...]:
    made, cost = result.provenance, result.cost
    bits = made.bits_per_weight if made else None
    fixed = (
        result.variant.name,
        numbers.size(made.weight_bytes if made else None),
        numbers.significant(bits),
        *(_overall(made) if shares else ()),
        ", ".join(made.modules) if made and made.modules else numbers.NONE,
    )
    load = numbers.significant(cost.load_seconds if cost else None)
    peak = numbers.size(cost.peak_bytes if cost else None)
    measured = (cell for cell, (_, there) in zip((load, peak), known, strict=True) if there)
    return (*fixed, *measured, *(_timing(result, name) for name in names))


def _overall(made: Provenance | None) -> tuple[str, str]:
    """Bits over the whole model, and the share of its weights that is quantised."""
    if made is None:
        return numbers.NONE, numbers.NONE
    return numbers.significant(made.bits_overall), numbers.percent(
        made.quantised_share, limits=(ENOUGH_QUANTISED,)
    )


def _timing(result: Result, name: str) -> str:
    """The median, with the least and the greatest: 12.3 (12.1 to 12.9)."""
    timing = result.cost.measures.get(name) if result.cost else None
    if timing is None:
        return numbers.NONE
    median, low, high = (numbers.significant(value) for value in (timing.median, timing.low, timing.high))
    return median if timing.repeats <= 1 else f"{median} ({low} to {high})"


def _notes(run: Run) -> tuple[str, ...]:
    hardware = "; ".join(_hardware(run))
    first = (
        f"Measured on {hardware}."
        if comparable(run)
        else f"Measured on different hardware, so not comparable: {hardware}."
    )
    notes = (note for result in run.results if result.cost for note in result.cost.notes)
    return (first, *_unmeasured(run), *dict.fromkeys(notes))


def _unmeasured(run: Run) -> tuple[str, ...]:
    """What has no column because it was measured for no variant, and what measures it."""
    lacks = [title.partition(" (")[0].lower() for title, there in _known(run) if not there]
    timed = any(result.cost and result.cost.measures for result in run.results)
    speed = () if timed else ("speed (qeval run --cost measures it)",)
    told = ", ".join((*lacks, *speed))
    return (f"Not measured: {told}.",) if told else ()


def pareto(points: Sequence[tuple[float, float]], *, lower_is_better: bool) -> list[int]:
    """Positions of the points (cost, quality) that no other beats in both, by cost."""
    direction = 1 if lower_is_better else -1
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (direction * points[i][0], -points[i][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front
