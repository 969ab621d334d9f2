"""Quality against cost: a scatter for each cost that tells the variants apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Run
from qeval.report.charts.drawing import (
    HOVER,
    INK,
    LONGEST_NAME,
    NARROW,
    ONCE,
    PAPER,
    SOFT,
    WIDE,
    Chart,
    Spec,
    colour_scale,
    draw,
    hover,
    shape_scale,
)
from qeval.report.context import Context
from qeval.report.costs import Axis, axes, pareto
from qeval.report.figures import Column, Figure

_HEIGHT = 320


def cost_charts(context: Context) -> Iterable[Chart]:
    """One scatter for each cost that tells the variants apart."""
    place = _quality_place(context)
    if place is None:
        return
    for axis in axes(context.run):
        points = _cost_points(context, axis, place)
        if len(points) > 1:
            yield _cost_chart(context.run, axis, points, context.columns[place])


def _quality_place(context: Context) -> int | None:
    """Which column measures quality: the average, else the first that is no perplexity, else the first."""
    columns = list(enumerate(context.columns))
    ranked = sorted(
        columns, key=lambda pair: (pair[1].row.level != "average", pair[1].is_perplexity, pair[0])
    )
    return ranked[0][0] if ranked else None


def _cost_points(context: Context, axis: Axis, place: int) -> list[Spec]:
    points, falls = [], context.columns[place].is_perplexity
    for line, result in (
        (line, r) for line in context.lines for r in context.run.results if r.variant.name == line.name
    ):
        cost, figure = axis.value(result), line.figures[place]
        delta = (
            0.0 if line.is_baseline else (figure.comparison.delta if figure and figure.comparison else None)
        )
        if cost is not None and delta is not None and math.isfinite(delta):
            points.append(
                {
                    "name": short(line.name, LONGEST_NAME),
                    "cost": cost,
                    "baseline": line.is_baseline,
                    "hover": hover(f"{line.name}: {cost:.4g} {axis.unit}, {_said(delta, falls=falls)}"),
                    "said": _said(delta, falls=falls),
                    **_spread(figure, delta, falls=falls),
                }
            )
    return points


def _said(delta: float, *, falls: bool) -> str:
    return f"{numbers.ratio(delta)} of perplexity" if falls else f"{100 * delta:+.2f} points"


def _spread(figure: Figure | None, delta: float, *, falls: bool) -> Spec:
    """The delta and its bounds in points, of a perplexity (which `falls` where it gets better) as ratios."""
    comparison = figure.comparison if figure else None
    low, high = (comparison.low, comparison.high) if comparison else (delta, delta)
    bounds = (low if math.isfinite(low) else delta, high if math.isfinite(high) else delta)
    shown = [numbers.exp(-value) if falls else 100 * value for value in (delta, *bounds)]
    return dict(zip(("delta", "low", "high"), shown, strict=True))


def _cost_chart(run: Run, axis: Axis, points: list[Spec], column: Column) -> Chart:
    quality, falls = column.title, column.is_perplexity
    gains = [(p["cost"], -p["delta"] if falls else p["delta"]) for p in points]
    order = pareto(gains, lower_is_better=axis.lower_is_better)
    front = [points[place] for place in order]
    marked = [{**point, "front": place in order} for place, point in enumerate(points)]
    title = f"{quality} against {axis.title.lower()}"
    each = "; ".join(f"{p['name']}: {p['cost']:.4g} {axis.unit}, {p['said']}" for p in points)
    best = ", ".join(point["name"] for point in front)
    alt = f"{title}. {each}. On the Pareto front, beaten by no other in both: {best}."
    specs = [_cost_spec(run, marked, front, axis, column, width) for width in (WIDE - 60, NARROW - 56)]
    return draw(f"cost-{axis.id}", title, alt, *specs)


def _cost_spec(
    run: Run, points: list[Spec], front: list[Spec], axis: Axis, column: Column, width: int
) -> Spec:
    """Points with intervals; those on the front are filled and joined by steps. Costs begin at 0, so that
    what lies twice as far costs twice as much. What is better lies higher."""
    falls = column.is_perplexity
    places = {"x": _cost_channel(axis, width), "y": _delta_channel(column)}
    names = [point["name"] for point in points]
    known = {"field": "name", "type": "nominal", "legend": None}
    colour = {**known, "scale": colour_scale(run, names)}
    return {
        "width": width,
        "height": _HEIGHT,
        "data": {"values": _labelled(points, width, falls=falls)},
        "layer": [
            _rule_at(1.0 if falls else 0.0, "y"),
            _front_line(front, places, lower_is_better=axis.lower_is_better),
            _intervals(places, colour),
            _dots(places, colour, {**known, "scale": shape_scale(names)}),
            _names(places),
        ],
    }


def _cost_channel(axis: Axis, width: int) -> Spec:
    better = "less is better" if axis.lower_is_better else "more is better"
    return {
        "field": "cost",
        "type": "quantitative",
        "title": f"{axis.title} ({axis.unit}), {better}",
        "scale": {"zero": True, "nice": True},
        "axis": {"grid": False, "tickCount": 8 if width > NARROW else 4},
    }


def _delta_channel(column: Column) -> Spec:
    falls = column.is_perplexity
    return {
        "field": "delta",
        "type": "quantitative",
        "scale": {"zero": not falls, "padding": 14, **({"reverse": True} if falls else {})},
        "axis": _top_title(column),
    }


def _front_line(front: list[Spec], places: Spec, *, lower_is_better: bool) -> Spec:
    """The steps that join the points of the front."""
    step = "step-after" if lower_is_better else "step-before"
    line = {"type": "line", "color": SOFT, "strokeDash": [2, 3], "interpolate": step}
    order = {"field": "cost", "type": "quantitative"}
    return {"data": {"values": front}, "mark": line, "encoding": {**places, "order": order}}


def _intervals(places: Spec, colour: Spec) -> Spec:
    ends = {"y": {**places["y"], "field": "low"}, "y2": {"field": "high"}}
    return {
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {"x": places["x"], **ends, "color": colour},
    }


def _dots(places: Spec, colour: Spec, shape: Spec) -> Spec:
    """The points, hollow where another beats them in both."""
    fill = {"condition": {"test": "!datum.front", "value": PAPER}, **colour}
    return {
        "mark": {"type": "point", "size": 90, "strokeWidth": 1.5, "opacity": 1},
        "encoding": {**places, "shape": shape, "stroke": colour, "fill": fill, "description": HOVER},
    }


def _names(places: Spec) -> Spec:
    moved = {name: {"expr": f"datum.{name}"} for name in ("align", "dx", "dy")}
    return {
        "mark": {"type": "text", **moved, "color": INK},
        "encoding": {**places, "text": {"field": "name"}},
    }


def _top_title(column: Column) -> Spec:
    """An upright axis whose title lies above it, where it can be read without turning one's head."""
    shown = "ratio to the baseline, above 1 is worse" if column.is_perplexity else "Δ in points"
    return {
        "title": f"{column.title}: {shown}",
        "titleAngle": 0,
        "titleAlign": "left",
        "titleAnchor": "end",
        "titleBaseline": "bottom",
        "titleX": 0,
        "titleY": -10,
        "domain": False,
        "grid": True,
        "ticks": False,
        "tickCount": 6,
    }


def _rule_at(value: float, channel: str) -> Spec:
    encoding = {channel: {"datum": value, "type": "quantitative"}}
    return {**ONCE, "mark": {"type": "rule", "color": SOFT, "strokeWidth": 1}, "encoding": encoding}


_AROUND = ((10, -9), (10, 12), (-10, -9), (-10, 12), (10, -22), (10, 25), (-10, -22), (-10, 25))
"""Where a name may stand beside its mark, in pixels; to the left it ends there."""


def _labelled(points: list[Spec], width: int, *, falls: bool = False) -> list[Spec]:
    """The points, each with a place for its name where it covers no mark and no other name, if there is one.

    Pixels are reckoned from the values: letters of 6.5 pixels, heights from the lowest to the highest
    bound, or where less is better from the highest to the lowest."""
    right = max(point["cost"] for point in points) or 1.0
    bounds = [p[name] for p in points for name in ("low", "high")]
    top, bottom = (min(bounds), max(bounds)) if falls else (max(bounds), min(bounds))
    at = [(width * p["cost"] / right, _HEIGHT * (p["delta"] - top) / ((bottom - top) or 1)) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    made = []
    for point, (x, y) in zip(points, at, strict=True):
        boxes = [_box(x + dx, y + dy, len(point["name"]), left=dx < 0) for dx, dy in _AROUND]
        free = [place for place, box in enumerate(boxes) if not any(_meet(box, other) for other in taken)]
        place = free[0] if free else 0
        taken.append(boxes[place])
        dx, dy = _AROUND[place]
        made.append({**point, "dx": dx, "dy": dy, "align": "right" if dx < 0 else "left"})
    return made


def _box(x: float, y: float, letters: int, *, left: bool) -> tuple[float, float, float, float]:
    long = 6.5 * letters
    return (x - long if left else x, y - 7, x if left else x + long, y + 7)


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
