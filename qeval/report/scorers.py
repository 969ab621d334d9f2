"""By what cells were scored that another run, version or machine made than a run names for itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Cell, Result, Run
from qeval.base.scored import Scored

_MOST_NAMES = 4


@dataclass(frozen=True)
class Other:
    """Cells of a variant that were scored by something else than the run names: `what` it was in words, and
    whether these are `alike` but for the day."""

    variant: str
    what: str
    cells: tuple[Cell, ...]
    alike: bool


def others(run: Run, result: Result) -> tuple[Other, ...]:
    """The cells of a result that tell of another version of qeval than the run's last, of another device or
    other packages than the result's, of a day before the run began, or of nothing, though they were taken
    over; those of one making together."""
    found: dict[tuple[str, bool], list[Cell]] = {}
    for cell in result.cells:
        if cell.scored is not None and (told := _different(run, result, cell.scored)):
            found.setdefault(told, []).append(cell)
    return tuple(
        Other(result.variant.name, what, tuple(cells), alike) for (what, alike), cells in found.items()
    )


def _different(run: Run, result: Result, scored: Scored) -> tuple[str, bool] | None:
    """What else scored a cell, in words, and whether that is the day alone; None where nothing else did."""
    if not scored.qeval:
        return "a version of qeval that is not known", False
    ours = run.qeval_version.rpartition(", ")[2]
    made = result.provenance
    device = made is not None and scored.device not in {"", made.device}
    packages = [] if made is None else list(_packages(scored.versions, made.versions))
    day = scored.when[:10]
    words = [f"qeval {scored.qeval}", *packages, *([f"on {scored.device}"] if device else [])]
    same = scored.qeval == ours and not device and not packages
    if same and (not run.created or day >= run.created[:10]):
        return None
    return f"{', '.join(words)} on {day}", same


def _packages(theirs: dict[str, str], ours: dict[str, str]) -> Iterable[str]:
    """Packages of another version than ours; of those that only one of both tells, nothing is known."""
    return (f"{name} {theirs[name]}" for name in theirs if ours.get(name, theirs[name]) != theirs[name])


def fact(run: Run, result: Result) -> str:
    """What else scored tasks of a result, for its provenance; "" where nothing else did."""
    told = [f"{_of(one, result)} by {one.what}" for one in others(run, result)]
    return "; ".join(told)


def sentences(run: Run) -> Iterator[str]:
    """What a reader must know of it: each thing that scored other cells than the run names, once."""
    found: dict[str, list[str]] = {}
    for result in run.results:
        for one in others(run, result):
            if not one.alike:
                found.setdefault(one.what, []).append(f"{_of(one, result)} of {short(one.variant)}")
    for what, told in found.items():
        yield f"Scored by {what}: {_some(told)}."


def _of(one: Other, result: Result) -> str:
    """How many of a result's tasks these are."""
    count, every = len(one.cells), len(result.cells)
    if count == every:
        return "the only task" if every == 1 else f"all {numbers.count(every)} tasks"
    return f"{numbers.count(count)} of {numbers.count(every)} tasks"


def _some(told: Sequence[str]) -> str:
    more = len(told) - _MOST_NAMES
    rest = f" and tasks of {more} more variant{'' if more == 1 else 's'}" if more > 0 else ""
    return ", ".join(told[:_MOST_NAMES]) + rest
