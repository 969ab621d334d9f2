"""Perplexity text by text."""

from __future__ import annotations

from collections.abc import Iterable

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Run
from qeval.report.charts.drawing import (
    HOVER,
    LARGEST,
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
)
from qeval.report.charts.forest import names_axis
from qeval.report.context import Context


def documents(context: Context) -> Iterable[Chart]:
    """For each perplexity task, every text's ratio by variant."""
    for task in dict.fromkeys(group.task for group in context.documents):
        groups = [group for group in context.documents if group.task == task and group.documents]
        if groups:
            values = [
                {
                    "variant": short(g.variant, LONGEST_NAME),
                    "ratio": numbers.exp(-d.delta),
                    "weight": d.weight,
                    "hover": hover(f"{g.variant}, text {d.key}: {d.ratio}"),
                }
                for g in groups
                for d in g.documents
                if abs(d.delta) < LARGEST
            ]
            alt = (
                f"{task}, each text's perplexity ratio. "
                + "; ".join(f"{g.variant}: {g.worse} of {len(g.documents)} texts got worse" for g in groups)
                + "."
            )
            specs = [_document_spec(context.run, values, width) for width in (WIDE, NARROW)]
            yield draw(f"documents-{task}", f"{task}: each text's perplexity ratio", alt, *specs)


def _document_spec(run: Run, values: list[Spec], width: int) -> Spec:
    """A line a variant, one tick per document."""
    names = list(dict.fromkeys(value["variant"] for value in values))
    wide = width == WIDE
    x = {
        "type": "quantitative",
        "title": "perplexity ratio (one tick per document); above 1 is worse",
        "scale": scale([1.0, *(value["ratio"] for value in values)], ratios=True),
        "axis": {"tickCount": 8 if wide else 4, "titleLimit": width},
    }
    stroke = {"type": "tick", "opacity": 0.55, "thickness": 1.5, "size": 20}
    y = names_axis(names, 180 if wide else 90)
    colour = {"field": "variant", "type": "nominal", "legend": None, "scale": colour_scale(run, names)}
    return {
        "data": {"values": values},
        "width": width - (200 if wide else 110),
        "height": {"step": 34},
        "layer": [
            {**ONCE, "mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**x, "datum": 1}}},
            {
                "mark": stroke,
                "encoding": {"y": y, "x": {**x, "field": "ratio"}, "color": colour, "description": HOVER},
            },
        ],
    }
