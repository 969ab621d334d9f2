"""The differences and their intervals, a line for each variant and row."""

from __future__ import annotations

import math
from collections.abc import Iterable

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Run
from qeval.report.charts.drawing import (
    BAD,
    HOVER,
    INK,
    LONGEST_NAME,
    NARROW,
    ONCE,
    SOFT,
    WIDE,
    Chart,
    Spec,
    colour_scale,
    draw,
    hover,
    scale,
    shape_scale,
)
from qeval.report.context import Context, Line
from qeval.report.figures import Figure


def forest(context: Context) -> Iterable[Chart]:
    """One forest plot of all tasks scored in points, and one of perplexities."""
    for is_perplexity in (False, True):
        rows = [
            _forest_row(line, column.title, figure)
            for place, column in enumerate(context.columns)
            if column.is_perplexity == is_perplexity
            for line in context.candidates
            if (figure := line.figures[place]) and _drawable(figure)
        ]
        if rows:
            yield _forest_chart(context.run, rows, is_perplexity=is_perplexity)


def _drawable(figure: Figure) -> bool:
    c = figure.comparison
    return c is not None and all(math.isfinite(value) for value in (c.delta, c.low, c.high))


def _forest_row(line: Line, task: str, figure: Figure) -> Spec:
    c = figure.comparison
    assert c is not None  # noqa: S101 - _drawable has looked
    points = c.kind != "perplexity"
    values = [100 * v if points else numbers.exp(-v) for v in (c.delta, c.low, c.high)]
    margin = figure.margin
    allowed = None if margin is None else (100 * margin if points else numbers.exp(-margin))
    return {
        "variant": short(line.name, LONGEST_NAME),
        "task": task,
        "delta": values[0],
        "low": min(values[1:]),
        "high": max(values[1:]),
        "margin": allowed,
        "text": figure.delta,
        "interval": figure.interval,
        "hover": hover(f"{task}, {line.name}: {figure.delta} ({figure.interval})"),
    }


def _forest_chart(run: Run, rows: list[Spec], *, is_perplexity: bool) -> Chart:
    zero = 1.0 if is_perplexity else 0.0
    unit = (
        "perplexity ratio, above 1 is worse"
        if is_perplexity
        else "Δ from the baseline in points, below 0 is worse"
    )
    title = "Perplexity ratios with intervals" if is_perplexity else "Δ with intervals"
    alt = (
        f"{title}. "
        + "; ".join(f"{r['task']}, {r['variant']}: {r['text']} ({r['interval']})" for r in rows)
        + "."
    )
    identity = "forest-perplexity" if is_perplexity else "forest"
    specs = [_forest_spec(run, rows, zero, unit, width) for width in (WIDE, NARROW)]
    return draw(identity, title, alt, *specs)


def _forest_spec(run: Run, rows: list[Spec], zero: float, unit: str, width: int) -> Spec:
    """A panel a task with its own axis, a line a variant; the zero line solid, the allowed loss a tick."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    wide = width == WIDE
    header = {
        "title": None,
        "labelOrient": "left" if wide else "top",
        "labelAngle": 0,
        "labelAlign": "left",
        "labelAnchor": "middle" if wide else "start",
        "labelPadding": 30 if wide else 2,
    }
    reached = [row[key] for row in rows for key in ("low", "high", "margin") if row[key] is not None]
    x = {
        "type": "quantitative",
        "title": None,
        "scale": scale([*reached, zero], ratios=zero == 1),
        "axis": {"tickCount": 8 if wide else 4, "grid": True, "titleLimit": width},
    }
    return {
        "data": {"values": rows},
        "facet": {"row": {"field": "task", "type": "nominal", "sort": tasks, "header": header}},
        "spacing": 16,
        "title": {
            "text": unit,
            "anchor": "start",
            "fontSize": 12,
            "fontWeight": "normal",
            "color": SOFT,
            "limit": width,
        },
        "resolve": {"axis": {"x": "independent"}},
        "spec": {
            "width": width - (330 if wide else 110),
            "height": {"step": 20},
            "layer": _forest_layers(run, rows, zero, names, x, names_axis(names, 180 if wide else 90)),
        },
    }


def names_axis(names: list[str], room: int) -> Spec:
    """Variants from top to bottom, without lines of the axis' own."""
    axis = {"domain": False, "ticks": False, "labelColor": INK, "labelLimit": room}
    return {"field": "variant", "type": "nominal", "sort": names, "title": None, "axis": axis}


def _forest_layers(run: Run, rows: list[Spec], zero: float, names: list[str], x: Spec, y: Spec) -> list[Spec]:
    colour = {"field": "variant", "type": "nominal", "legend": None, "scale": colour_scale(run, names)}
    shape = {"field": "variant", "type": "nominal", "legend": None, "scale": shape_scale(names)}
    seen = {"color": colour, "description": HOVER}
    line = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, **seen}
    dot = {"type": "point", "filled": True, "size": 55, "opacity": 1}
    layers = [
        {**ONCE, "mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**x, "datum": zero}}},
        {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": line},
        {"mark": dot, "encoding": {"y": y, "x": {**x, "field": "delta"}, "shape": shape, **seen}},
    ]
    if any(row["margin"] is not None for row in rows):
        tick = {"type": "tick", "color": BAD, "thickness": 2, "size": 15}
        here = [{"filter": "datum.margin !== null"}]
        layers.append({"mark": tick, "transform": here, "encoding": {"y": y, "x": {**x, "field": "margin"}}})
    return layers
