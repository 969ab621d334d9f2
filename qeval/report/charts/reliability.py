"""Reliability: how much more often answers were right than the model was sure of them, a line a variant.

The difference is drawn, not the share right: beside a diagonal that takes all the height, variants that
differ by a point or two are one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from qeval.base import numbers
from qeval.base.names import short
from qeval.compare.choices import Chosen
from qeval.report.charts.drawing import (
    HOVER,
    LONGEST_NAME,
    NARROW,
    ONCE,
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
            "off": 100 * (part.right - part.confidence),
            "hover": hover(
                f"{one.variant}: {numbers.percent(part.right)} right at a mean confidence of "
                f"{numbers.percent(part.confidence)}, {part.n} items"
            ),
        }
        for part in bins
        if part.n >= _FEWEST
    ]


def _chart(context: Context, told: ToldChoices, values: list[Spec], chosen: list[Chosen]) -> Chart:
    title = f"{told.task}: share right minus confidence"
    eces = [(one.variant, one.calibration.ece) for one in chosen if one.calibration]
    each = "; ".join(f"{name}: ECE {numbers.points(ece)} points" for name, ece in eces)
    names = list(dict.fromkeys(value["variant"] for value in values))
    specs = [_spec(context, values, names, width) for width in (_SIDE + 260, NARROW)]
    return draw(f"reliability-{told.id}", title, f"{title}. {each}.", *specs)


def _spec(context: Context, values: list[Spec], names: list[str], width: int) -> Spec:
    """A plot with a line where sure is right, and names where the lines end."""
    side = _SIDE if width > NARROW else width - 150
    axis = {"tickCount": 6, "titleLimit": width}
    low, high = _tens([0.0, *(value["off"] for value in values)])
    x_scale = {"domain": [_tens([value["sure"] for value in values])[0], 100], "nice": False}
    x = {"type": "quantitative", "scale": x_scale, "axis": axis}
    y = {"type": "quantitative", "scale": {"domain": [low, high], "nice": False}, "axis": axis}
    sure = {**x, "field": "sure", "title": "confidence, %"}
    off = {**y, "field": "off", "title": "right minus confidence, points"}
    known = {"field": "variant", "type": "nominal", "legend": None}
    colour = {**known, "scale": colour_scale(context.run, names)}
    shape = {**known, "scale": shape_scale(names)}
    last = {value["variant"]: value["off"] for value in values}
    room = 14 * (high - low) / side
    ends = [{"variant": name, "off": at} for name, at in labels_at_ends(last, room).items()]
    return {
        "width": side,
        "height": side,
        "data": {"values": values},
        "layer": [
            {
                **ONCE,
                "mark": {"type": "rule", "color": SOFT, "strokeDash": [3, 3], "strokeWidth": 1},
                "encoding": {"y": {**y, "datum": 0}},
            },
            {
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {"x": sure, "y": off, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
                "encoding": {
                    "x": sure,
                    "y": off,
                    "color": colour,
                    "shape": shape,
                    "description": HOVER,
                },
            },
            names_beside(ends, side, off, colour),
        ],
    }


def _tens(values: Sequence[float]) -> tuple[int, int]:
    """The least and the greatest, to the tens that hold them."""
    return 10 * math.floor(min(values) / 10), 10 * math.ceil(max(values) / 10)
