"""One colour for each variant, the same on the whole page, in its charts and in its scripts."""

from __future__ import annotations

from collections.abc import Mapping

from qeval.base.records import Run

LIGHT = (
    *("#5c6571", "#2f56a5", "#c2410c", "#0f766e", "#a21caf", "#4d7c0f"),
    *("#be123c", "#0369a1", "#92400e", "#6d28d9", "#a16207", "#db2777"),
)
"""On white, each at least 3 to 1 against it (WCAG 2.2, 1.4.11). A page's own variables --v0, --v1, ... take
their place, so that they follow light and dark; see colours.css."""


def place(at: int) -> int:
    """The number of a variant's colour, from its place in the run; they begin anew after the last."""
    return at % len(LIGHT)


def places(run: Run) -> Mapping[str, int]:
    """The number of each variant's colour, by name: it depends on the run's order alone, not on what is
    compared with what."""
    return {result.variant.name: place(at) for at, result in enumerate(run.results)}
