"""Quality against cost: a scatter for each cost that tells the variants apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

from qeval.base.names import short
from qeval.report.charts.drawing import (
    ACCENT,
    INK,
    LONGEST_NAME,
    NARROW,
    PAPER,
    SOFT,
    WIDE,
    Chart,
    Spec,
    draw,
    shape_scale,
)
from qeval.report.context import Context
from qeval.report.costs import Axis, axes, pareto
from qeval.report.figures import Figure


def cost_charts(context: Context) -> Iterable[Chart]:
    """One scatter for each cost that tells the variants apart."""
    place = _quality_place(context)
    if place is None:
        return
    for axis in axes(context.run):
        points = _cost_points(context, axis, place)
        if len(points) > 1:
            yield _cost_chart(axis, points, context.columns[place].title)


def _quality_place(context: Context) -> int | None:
    """Which column measures quality: the average, else the first that is no perplexity, else the first."""
    columns = list(enumerate(context.columns))
    ranked = sorted(
        columns, key=lambda pair: (pair[1].row.level != "average", pair[1].is_perplexity, pair[0])
    )
    return ranked[0][0] if ranked else None


def _cost_points(context: Context, axis: Axis, place: int) -> list[Spec]:
    points = []
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
                    **_spread(figure, delta),
                }
            )
    return points


def _spread(figure: Figure | None, delta: float) -> Spec:
    """The delta and its bounds in points (perplexities: in per cent of log-likelihood's exponent)."""
    comparison = figure.comparison if figure else None
    low, high = (comparison.low, comparison.high) if comparison else (delta, delta)
    bounds = (low if math.isfinite(low) else delta, high if math.isfinite(high) else delta)
    return {"delta": 100 * delta, "low": 100 * bounds[0], "high": 100 * bounds[1]}


def _cost_chart(axis: Axis, points: list[Spec], quality: str) -> Chart:
    order = pareto([(p["cost"], p["delta"]) for p in points], lower_is_better=axis.lower_is_better)
    front = [points[place] for place in order]
    marked = [{**point, "front": place in order} for place, point in enumerate(points)]
    title = f"{quality} against {axis.title.lower()}"
    each = "; ".join(f"{p['name']}: {p['cost']:.4g} {axis.unit}, {p['delta']:+.2f} points" for p in points)
    best = ", ".join(point["name"] for point in front)
    alt = f"{title}. {each}. On the Pareto front, beaten by no other in both: {best}."
    specs = [_cost_spec(marked, front, axis, quality, width) for width in (WIDE - 60, NARROW - 56)]
    return draw(f"cost-{axis.id}", title, alt, *specs)


def _cost_spec(points: list[Spec], front: list[Spec], axis: Axis, quality: str, width: int) -> Spec:
    """Points with intervals; those on the front are filled and joined by steps."""
    better = "less is better" if axis.lower_is_better else "more is better"
    x = {
        "field": "cost",
        "type": "quantitative",
        "title": f"{axis.title} ({axis.unit}), {better}",
        "scale": {"zero": False, "padding": 30},
        "axis": {"grid": False, "tickCount": 8 if width > NARROW else 4},
    }
    y = {
        "field": "delta",
        "type": "quantitative",
        "scale": {"zero": True, "padding": 14},
        "axis": _top_title(quality),
    }
    fill = {"condition": {"test": "datum.front", "value": ACCENT}, "value": PAPER}
    shape = {
        "field": "name",
        "type": "nominal",
        "legend": None,
        "scale": shape_scale([point["name"] for point in points]),
    }
    step = "step-after" if axis.lower_is_better else "step-before"
    line = {"type": "line", "color": SOFT, "strokeDash": [2, 3], "interpolate": step}
    dot = {"type": "point", "size": 90, "stroke": ACCENT, "strokeWidth": 1.5, "opacity": 1}
    order = {"field": "cost", "type": "quantitative"}
    return {
        "width": width,
        "height": 320,
        "data": {"values": points},
        "layer": [
            _rule_at(0.0, "y"),
            {"data": {"values": front}, "mark": line, "encoding": {"x": x, "y": y, "order": order}},
            {
                "mark": {"type": "rule", "color": ACCENT, "strokeWidth": 1.5},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {"mark": dot, "encoding": {"x": x, "y": y, "shape": shape, "fill": fill}},
            {
                "mark": {"type": "text", "align": "left", "dx": 10, "dy": -9, "color": INK},
                "encoding": {"x": x, "y": y, "text": {"field": "name"}},
            },
        ],
    }


def _top_title(quality: str) -> Spec:
    """An upright axis whose title lies above it, where it can be read without turning one's head."""
    return {
        "title": f"{quality}: difference in points",
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
    return {"mark": {"type": "rule", "color": SOFT, "strokeWidth": 1}, "encoding": encoding}
