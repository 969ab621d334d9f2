"""Reliability: how often answers were right against how sure the model was of them, a line a variant."""

from __future__ import annotations

from collections.abc import Iterable

from qeval.base import numbers
from qeval.base.names import short
from qeval.compare.choices import Chosen
from qeval.report.charts.drawing import (
    HOVER,
    LONGEST_NAME,
    NARROW,
    SOFT,
    Chart,
    Spec,
    colour_scale,
    draw,
    hover,
    labels_at_ends,
    names_beside,
    shape_scale,
)
from qeval.report.choices import ToldChoices
from qeval.report.context import Context

_FEWEST = 10
"""Bins with fewer items are left out: their share right is noise."""
_SIDE = 340


def reliability(context: Context) -> Iterable[Chart]:
    """One plot for each task of multiple-choice questions."""
    for told in context.choices:
        chosen = [one for one in told.found.chosen if one.calibration is not None]
        values = [value for one in chosen for value in _values(one)]
        if values:
            yield _chart(context, told, values, chosen)


def _values(one: Chosen) -> list[Spec]:
    bins = one.calibration.bins if one.calibration else ()
    return [
        {
            "variant": short(one.variant, LONGEST_NAME),
            "sure": 100 * part.confidence,
            "right": 100 * part.right,
            "hover": hover(
                f"{one.variant}: {numbers.percent(part.right)} right at a mean confidence of "
                f"{numbers.percent(part.confidence)}, {part.n} items"
            ),
        }
        for part in bins
        if part.n >= _FEWEST
    ]


def _chart(context: Context, told: ToldChoices, values: list[Spec], chosen: list[Chosen]) -> Chart:
    title = f"{told.task}: share right against confidence"
    eces = [(one.variant, one.calibration.ece) for one in chosen if one.calibration]
    each = "; ".join(f"{name}: ECE {numbers.points(ece)} points" for name, ece in eces)
    names = list(dict.fromkeys(value["variant"] for value in values))
    specs = [_spec(context, values, names, width) for width in (_SIDE + 260, NARROW)]
    return draw(f"reliability-{told.id}", title, f"{title}. {each}.", *specs)


def _spec(context: Context, values: list[Spec], names: list[str], width: int) -> Spec:
    """A square with its diagonal, and names where the lines end."""
    side = _SIDE if width > NARROW else width - 150
    axis = {"tickCount": 6, "titleLimit": width}
    x = {"type": "quantitative", "scale": {"domain": [0, 100], "nice": False}, "axis": axis}
    sure = {**x, "field": "sure", "title": "confidence, %"}
    right = {**x, "field": "right", "title": "right, %"}
    known = {"field": "variant", "type": "nominal", "legend": None}
    colour = {**known, "scale": colour_scale(context.run, names)}
    shape = {**known, "scale": shape_scale(names)}
    diagonal = [{"sure": 0, "right": 0}, {"sure": 100, "right": 100}]
    last = {value["variant"]: value["right"] for value in values}
    ends = [{"variant": name, "right": at} for name, at in labels_at_ends(last, 100 * 14 / side).items()]
    return {
        "width": side,
        "height": side,
        "data": {"values": values},
        "layer": [
            {
                "data": {"values": diagonal},
                "mark": {"type": "line", "color": SOFT, "strokeDash": [3, 3], "strokeWidth": 1},
                "encoding": {"x": sure, "y": right},
            },
            {
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {"x": sure, "y": right, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
                "encoding": {
                    "x": sure,
                    "y": right,
                    "color": colour,
                    "shape": shape,
                    "description": HOVER,
                },
            },
            names_beside(ends, side, right, colour),
        ],
    }
