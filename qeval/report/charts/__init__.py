"""The charts: each a Vega-Lite specification (plain data), drawn to SVG offline by vl-convert.

One specification gives the SVG files beside a Markdown report (plain colours on white) and the pictures
inside the HTML page, where colours are the page's own, so that they follow light and dark mode.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qeval.report.context import Context, Figure, Line, Subject
from qeval.report.costs import Axis, axes, pareto

Spec = dict[str, Any]

VEGA_LITE = "6.1"
WIDE, NARROW = 1152, 360
# Colours of the charts and the page's variables that take their place.
COLOURS = {
    "#ffffff": "var(--paper)",
    "#1b1f24": "var(--ink)",
    "#5b6470": "var(--soft)",
    "#d9dde2": "var(--line)",
    "#3457a6": "var(--accent)",
    "#b3261e": "var(--bad)",
    "#2e6b3f": "var(--good)",
    "#8a5a00": "var(--warn)",
}
PAPER, INK, SOFT, LINE, ACCENT, BAD, GOOD, WARN = COLOURS
SHAPES = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
WIDE_APART = 10
"""Ratios more than so many times as large as others stand on a logarithmic axis."""
_FONT = "Arial, Helvetica, Liberation Sans, sans-serif"
_LONGEST_NAME = 36
_LARGEST = 20.0  # nats a word; a text beyond it has no place on an axis


@dataclass(frozen=True)
class Chart:
    """A picture and what it says in words. `svg` is for a page, `file` for a file of its own;
    `narrow` is the same for a small screen, "" where the wide one serves."""

    id: str
    title: str
    alt: str
    file: str
    svg: str
    narrow: str = ""


def charts(context: Context) -> tuple[Chart, ...]:
    """Every chart that the context has data for, in the page's order."""
    made = [*_cost_charts(context), *_forest(context), *_subjects(context), *_documents(context)]
    return tuple(made)


def draw(identity: str, title: str, alt: str, wide: Spec, narrow: Spec | None = None) -> Chart:
    """A chart from its specification, and from a second one for small screens."""
    file = to_svg(wide)
    return Chart(identity, title, alt, file, for_page(file), for_page(to_svg(narrow)) if narrow else "")


def to_svg(spec: Spec) -> str:
    """The specification as an SVG document, drawn without network or browser."""
    whole = {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.0.json",
        "config": _CONFIG,
        "background": PAPER,
        **spec,
    }
    return _drawn(json.dumps(whole))


@functools.lru_cache(maxsize=128)
def _drawn(spec: str) -> str:
    """Drawing takes most of a report's time, so a report in two formats draws each chart once."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(json.loads(spec), vl_version=VEGA_LITE))


def for_page(svg: str) -> str:
    """The drawing as a part of a page: the page's colours, one picture to a screen reader, and short.

    Only tags are touched: what stands between them may be a name that a user gave.
    """
    body = _TAG.sub(lambda found: _short_tag(found[0]), svg)
    return _EMPTY.sub("", body).replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


_TAG = re.compile(r'<(?:[^<>"]|"[^"]*")*>')
_NEEDLESS = re.compile(
    r' (?:role|class|aria-[a-z]+|xmlns|xmlns:xlink|version)="[^"]*"'
    r'| (?:pointer-events="none"|stroke-miterlimit="10"|opacity="1"|font-weight="normal"|stroke-width="1")'
)
_EMPTY = re.compile(r'<path(?: display="none"| d=""| d="M0,0h0v0h0Z")+ ?(?:/>|></path>)|<g></g>')


def _short_tag(tag: str) -> str:
    """The tag without what a drawing in a page needs not, in the page's colours."""
    for colour, variable in COLOURS.items():
        tag = tag.replace(f'"{colour}"', f'"{variable}"')
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", _NEEDLESS.sub("", tag))


_CONFIG: Spec = {
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "titlePadding": 10,
        "labelFontSize": 12,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelLimit": 260,
    },
    "header": {
        "labelColor": INK,
        "labelFontSize": 12,
        "labelFontWeight": "bold",
        "titleColor": SOFT,
        "labelLimit": 240,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": SOFT,
        "labelFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "labelLimit": 240,
        "symbolSize": 90,
    },
    "text": {"color": INK, "fontSize": 12},
}


def short(name: str) -> str:
    """A variant's name for a chart, its middle left out where it is long."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:20]}…{name[-15:]}"


def _shape_scale(names: Sequence[str]) -> Spec:
    return {"domain": list(names), "range": [SHAPES[place % len(SHAPES)] for place in range(len(names))]}


# --- quality against cost ------------------------------------------------------------------------


def _cost_charts(context: Context) -> Iterable[Chart]:
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
                    "name": short(line.name),
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
        "scale": _shape_scale([point["name"] for point in points]),
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


def _scale(reached: Sequence[float], *, ratios: bool) -> Spec:
    """A scale for these values; logarithmic for ratios far apart, lest a ruined variant hide the others."""
    if ratios and max(reached) > WIDE_APART * min(reached):
        return {"type": "log", "nice": False, "padding": 8}
    return {"zero": False, "nice": True, "padding": 8}


# --- deltas with intervals -----------------------------------------------------------------------


def _forest(context: Context) -> Iterable[Chart]:
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
            yield _forest_chart(rows, is_perplexity=is_perplexity)


def _drawable(figure: Figure) -> bool:
    c = figure.comparison
    return c is not None and all(math.isfinite(value) for value in (c.delta, c.low, c.high))


def _forest_row(line: Line, task: str, figure: Figure) -> Spec:
    c = figure.comparison
    assert c is not None  # noqa: S101 - _drawable has looked
    points = c.kind != "perplexity"
    values = [100 * v if points else math.exp(-v) for v in (c.delta, c.low, c.high)]
    margin = figure.margin
    allowed = None if margin is None else (100 * margin if points else math.exp(-margin))
    return {
        "variant": short(line.name),
        "task": task,
        "delta": values[0],
        "low": min(values[1:]),
        "high": max(values[1:]),
        "margin": allowed,
        "text": figure.delta,
        "interval": figure.interval,
    }


def _forest_chart(rows: list[Spec], *, is_perplexity: bool) -> Chart:
    zero = 1.0 if is_perplexity else 0.0
    unit = (
        "perplexity ratio, above 1 is worse"
        if is_perplexity
        else "difference from the baseline in points, below 0 is worse"
    )
    title = "Perplexity ratios with intervals" if is_perplexity else "Differences with intervals"
    alt = (
        f"{title}. "
        + "; ".join(f"{r['task']}, {r['variant']}: {r['text']} ({r['interval']})" for r in rows)
        + "."
    )
    identity = "forest-perplexity" if is_perplexity else "forest"
    specs = [_forest_spec(rows, zero, unit, width) for width in (WIDE, NARROW)]
    return draw(identity, title, alt, *specs)


def _forest_spec(rows: list[Spec], zero: float, unit: str, width: int) -> Spec:
    """A panel a task, a line a variant; the zero line solid, the allowed loss a tick."""
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
        "title": unit,
        "scale": _scale([*reached, zero], ratios=zero == 1),
        "axis": {"tickCount": 8 if wide else 4, "grid": True, "titleLimit": width},
    }
    return {
        "data": {"values": rows},
        "facet": {"row": {"field": "task", "type": "nominal", "sort": tasks, "header": header}},
        "spacing": 16,
        "spec": {
            "width": width - (330 if wide else 110),
            "height": {"step": 20},
            "layer": _forest_layers(rows, zero, names, x, _names_axis(names, 180 if wide else 90)),
        },
    }


def _names_axis(names: list[str], room: int) -> Spec:
    """Variants from top to bottom, without lines of the axis' own."""
    axis = {"domain": False, "ticks": False, "labelColor": INK, "labelLimit": room}
    return {"field": "variant", "type": "nominal", "sort": names, "title": None, "axis": axis}


def _forest_layers(rows: list[Spec], zero: float, names: list[str], x: Spec, y: Spec) -> list[Spec]:
    shape = {"field": "variant", "type": "nominal", "legend": None, "scale": _shape_scale(names)}
    line = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    dot = {"type": "point", "filled": True, "color": ACCENT, "size": 55, "opacity": 1}
    layers = [
        {"mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**x, "datum": zero}}},
        {"mark": {"type": "rule", "color": ACCENT, "strokeWidth": 2}, "encoding": line},
        {"mark": dot, "encoding": {"y": y, "x": {**x, "field": "delta"}, "shape": shape}},
    ]
    if any(row["margin"] is not None for row in rows):
        tick = {"type": "tick", "color": BAD, "thickness": 2, "size": 15}
        here = [{"filter": "datum.margin !== null"}]
        layers.append({"mark": tick, "transform": here, "encoding": {"y": y, "x": {**x, "field": "margin"}}})
    return layers


# --- members of a group --------------------------------------------------------------------------


def _subjects(context: Context) -> Iterable[Chart]:
    """For each group, every member's difference by variant, shrunken, the most harmed on top."""
    for group in dict.fromkeys(subject.group for subject in context.subjects):
        members = [subject for subject in context.subjects if subject.group == group]
        if len({member.subject for member in members}) > 1:
            yield _subject_chart(group, members)


def _subject_chart(group: str, members: Sequence[Subject]) -> Chart:
    order = _harmed_first(members)
    title = f"{group} by subject"
    alt = (
        f"{title}: {len(order)} subjects, differences shrunken to the mean. On average over variants "
        f"the most harmed is {order[0]}, the least {order[-1]}. The table below has every number."
    )
    values = [
        {
            "variant": short(m.variant),
            "subject": f"{m.subject} ({m.n})",
            "shrunk": 100 * m.shrunk,
            "raw": 100 * m.value,
        }
        for m in members
    ]
    labels = {m.subject: f"{m.subject} ({m.n})" for m in members}
    names = [labels[name] for name in order]
    wide, narrow = _subject_panels(values, names), _subject_panel(values, names)
    return draw(f"subjects-{group}", title, alt, wide, narrow)


def _harmed_first(members: Sequence[Subject]) -> list[str]:
    """Subjects by their mean shrunken difference over variants, then by the measured one."""
    sums: dict[str, tuple[float, float]] = {}
    for member in members:
        shrunk, value = sums.get(member.subject, (0.0, 0.0))
        sums[member.subject] = (shrunk + member.shrunk, value + member.value)
    return sorted(sums, key=lambda name: (round(sums[name][0], 9), sums[name][1], name))


def _subjects_axis(order: list[str], room: int) -> Spec:
    axis = {
        "labelFontSize": 11,
        "labelLimit": room,
        "grid": True,
        "gridOpacity": 0.5,
        "domain": False,
        "ticks": False,
    }
    return {"field": "subject", "type": "nominal", "sort": order, "title": None, "axis": axis}


def _subject_panels(values: list[Spec], order: list[str]) -> Spec:
    """A panel a variant: what was measured hollow, what is left of it after shrinking filled."""
    names = list(dict.fromkeys(value["variant"] for value in values))
    columns = min(len(names), 5)
    y = _subjects_axis(order, 230)
    x = {"type": "quantitative", "title": "points", "axis": {"tickCount": 5, "grid": False}}
    hollow = {"type": "point", "color": SOFT, "size": 14, "opacity": 0.55, "strokeWidth": 1}
    filled = {"type": "point", "filled": True, "color": ACCENT, "size": 38, "opacity": 1}
    return {
        "data": {"values": values},
        "facet": {"field": "variant", "type": "nominal", "sort": names, "title": None},
        "columns": columns,
        "spacing": 16,
        "spec": {
            "width": max(60, (WIDE - 270) // columns - 16),
            "height": {"step": 15},
            "layer": [
                {"mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**x, "datum": 0}}},
                {"mark": hollow, "encoding": {"y": y, "x": {**x, "field": "raw"}}},
                {"mark": filled, "encoding": {"y": y, "x": {**x, "field": "shrunk"}}},
            ],
        },
    }


def _subject_panel(values: list[Spec], order: list[str]) -> Spec:
    """All variants in one narrow panel, told apart by their shapes."""
    names = list(dict.fromkeys(value["variant"] for value in values))
    x = {"type": "quantitative", "title": "difference in points", "axis": {"tickCount": 5, "grid": False}}
    legend = {"title": None, "columns": 2, "orient": "top"}
    shape = {"field": "variant", "type": "nominal", "scale": _shape_scale(names), "legend": legend}
    mark = {"type": "point", "filled": False, "color": ACCENT, "size": 30, "opacity": 1, "strokeWidth": 1.2}
    y = _subjects_axis(order, 205)
    return {
        "data": {"values": values},
        "width": NARROW - 210,
        "height": {"step": 15},
        "layer": [
            {"mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**x, "datum": 0}}},
            {"mark": mark, "encoding": {"y": y, "x": {**x, "field": "shrunk"}, "shape": shape}},
        ],
    }


# --- perplexity document by document -------------------------------------------------------------


def _documents(context: Context) -> Iterable[Chart]:
    """For each perplexity task, every text's ratio by variant."""
    for task in dict.fromkeys(group.task for group in context.documents):
        groups = [group for group in context.documents if group.task == task and group.documents]
        if groups:
            values = [
                {"variant": short(g.variant), "ratio": math.exp(-d.delta), "weight": d.weight}
                for g in groups
                for d in g.documents
                if abs(d.delta) < _LARGEST
            ]
            alt = (
                f"{task}, each text's perplexity ratio. "
                + "; ".join(f"{g.variant}: {g.worse} of {len(g.documents)} texts got worse" for g in groups)
                + "."
            )
            specs = [_document_spec(values, width) for width in (WIDE, NARROW)]
            yield draw(f"documents-{task}", f"{task}: each text's perplexity ratio", alt, *specs)


def _document_spec(values: list[Spec], width: int) -> Spec:
    """A line a variant, a stroke a text."""
    names = list(dict.fromkeys(value["variant"] for value in values))
    wide = width == WIDE
    x = {
        "type": "quantitative",
        "title": "perplexity ratio (a stroke a text); above 1 is worse",
        "scale": _scale([1.0, *(value["ratio"] for value in values)], ratios=True),
        "axis": {"tickCount": 8 if wide else 4, "titleLimit": width},
    }
    stroke = {"type": "tick", "color": ACCENT, "opacity": 0.55, "thickness": 1.5, "size": 20}
    y = _names_axis(names, 180 if wide else 90)
    return {
        "data": {"values": values},
        "width": width - (200 if wide else 110),
        "height": {"step": 34},
        "layer": [
            {"mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**x, "datum": 1}}},
            {"mark": stroke, "encoding": {"y": y, "x": {**x, "field": "ratio"}}},
        ],
    }
