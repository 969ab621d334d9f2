"""The letters that were chosen and the calibration of answers, in words, for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.names import short
from qeval.compare.choices import Choices, Chosen, choices_of
from qeval.compare.evidence import Evidence


@dataclass(frozen=True)
class Letter:
    """How often a variant chose one place: its share, its difference from the baseline's with an interval, ""
    where there is none, and whether it is proved, all shifts of the report looked at."""

    share: str
    delta: str = ""
    interval: str = ""
    moved: bool = False


@dataclass(frozen=True)
class ToldChoices:
    """One task: `letters` are the headings, `right` the shares of right answers, `rows` (variant, its
    letters, how many points moved in all); `calibration` are rows under `headers`."""

    task: str
    id: str
    n: str
    letters: tuple[str, ...]
    right: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Letter, ...], str], ...]
    sentence: str
    calibration: tuple[tuple[str, ...], ...]
    found: Choices

    @property
    def headers(self) -> tuple[str, ...]:
        """The headings of `calibration`."""
        less = f"ECE minus {short(self.found.chosen[0].variant)}'s"
        return ("Variant", "Items", "Answered correctly", "Mean confidence", "ECE", less)


def told(evidence: Evidence, known: Sequence[ToldChoices] = ()) -> tuple[ToldChoices, ...]:
    """Every row of multiple-choice questions that the evidence holds items of; `known` are those of the same
    samples against another baseline."""
    return tuple(_told(found) for found in choices_of(evidence, [one.found for one in known]))


def _told(found: Choices) -> ToldChoices:
    return ToldChoices(
        found.row.title,
        found.row.id,
        numbers.count(found.chosen[0].n),
        tuple(map(_letter, range(len(found.right)))),
        tuple(numbers.points(share, 1) for share in found.right),
        tuple((one.variant, _letters(one), _moved(one)) for one in found.chosen),
        _sentence(short(found.chosen[0].variant), found.chosen[1:]),
        _calibration(found.chosen),
        found,
    )


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _letters(one: Chosen) -> tuple[Letter, ...]:
    if not one.shifts:
        return tuple(Letter(numbers.points(share, 1)) for share in one.shares)
    return tuple(
        Letter(
            numbers.points(share, 1),
            numbers.signed_points(shift.delta),
            numbers.interval_points(shift.low, shift.high),
            bool(shift.claim),
        )
        for share, shift in zip(one.shares, one.shifts, strict=True)
    )


def _moved(one: Chosen) -> str:
    return numbers.points(one.moved, 2) if one.shifts else ""


def _sentence(reference: str, candidates: Sequence[Chosen]) -> str:
    """The greatest shift of a letter that is proved; that there is none."""
    moved = [(one.variant, shift) for one in candidates for shift in one.shifts if shift.claim]
    if not moved:
        return f"No variant is proved to favour other letters than {reference} does."
    name, most = max(moved, key=lambda pair: abs(pair[1].delta))
    often = "more" if most.delta > 0 else "less"
    reach = numbers.interval_points(most.low, most.high)
    change = numbers.points(abs(most.delta), 2)
    return (
        f"{name} chooses {_letter(most.place)} {change} points {often} often than {reference} ({reach}): "
        "the largest shift."
    )


def _calibration(chosen: Sequence[Chosen]) -> tuple[tuple[str, ...], ...]:
    base = chosen[0].calibration
    rows = []
    for one in chosen:
        own = one.calibration
        if own is not None:
            less = "" if one is chosen[0] or base is None else numbers.signed_points(own.ece - base.ece)
            shown = (numbers.points(value) for value in (own.right, own.confidence, own.ece))
            rows.append((one.variant, numbers.count(own.n), *shown, less))
    return tuple(rows)
