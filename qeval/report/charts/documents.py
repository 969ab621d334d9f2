"""Perplexity text by text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
from qeval.report.documents import Document

MOST = 1000
"""Ticks that a chart has of all variants together; a page holds two drawings of it, at 90 bytes a tick."""


def documents(context: Context) -> Iterable[Chart]:
    """For each perplexity task, every text's ratio by variant."""
    for task in dict.fromkeys(group.task for group in context.documents):
        groups = [group for group in context.documents if group.task == task and group.documents]
        if groups:
            most = max(MOST // len(groups), 2)
            values = [
                {
                    "variant": short(g.variant, LONGEST_NAME),
                    "ratio": numbers.exp(-d.delta),
                    "weight": d.weight,
                    "hover": hover(f"{g.variant}, text {d.key}: {d.ratio}"),
                }
                for g in groups
                for d in spread(g.documents, most)
                if abs(d.delta) < LARGEST
            ]
            alt = (
                f"{task}, each text's perplexity ratio. "
                + "; ".join(f"{g.variant}: {g.worse} of {len(g.documents)} texts got worse" for g in groups)
                + "."
            )
            texts = max(len(group.documents) for group in groups)
            told = (
                f"{most} of {texts} documents, the ends among them"
                if texts > most
                else "one tick per document"
            )
            titles = {WIDE: f"perplexity ratio ({told}); above 1 is worse", NARROW: f"ratio ({told})"}
            specs = [_document_spec(context.run, values, title, width) for width, title in titles.items()]
            yield draw(f"documents-{task}", f"{task}: each text's perplexity ratio", alt, *specs)


def spread(documents: Sequence[Document], most: int) -> Sequence[Document]:
    """At most so many of the documents, evenly by rank: the first, the last, and every so-manieth between."""
    if len(documents) <= most:
        return documents
    step = (len(documents) - 1) / (most - 1)
    return [documents[round(place * step)] for place in range(most)]


def _document_spec(run: Run, values: list[Spec], title: str, width: int) -> Spec:
    """A line a variant, one tick per document; the axis' title says of how many."""
    names = list(dict.fromkeys(value["variant"] for value in values))
    wide = width == WIDE
    x = {
        "type": "quantitative",
        "title": title,
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
