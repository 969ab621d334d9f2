"""Divergence by the baseline's confidence and by place in the window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from qeval.base.names import short
from qeval.base.records import Run
from qeval.compare.fidelity import Bin, Row
from qeval.report.charts.drawing import (
    HOVER,
    LONGEST_NAME,
    NARROW,
    WIDE,
    Chart,
    Spec,
    colour_scale,
    draw,
    hover,
    labels_at_ends,
    names_beside,
    shape_scale,
)
from qeval.report.context import Context
from qeval.report.fidelity import nats

_LEAST = 1e-9
"""What has no place on a logarithmic axis is drawn here."""


def fidelity(context: Context) -> Iterable[Chart]:
    """Two charts for each protocol."""
    found = context.fidelity.found
    for name in found.protocols:
        rows = [row for row in found.of(name) if row.role == "candidate"]
        confidence = "the baseline's probability of its most likely token"
        yield _chart(
            context.run, f"fidelity-confidence-{name}", name, confidence, rows, lambda row: row.by_confidence
        )
        place = "place in the window"
        yield _chart(context.run, f"fidelity-position-{name}", name, place, rows, lambda row: row.by_position)


def _chart(
    run: Run,
    identity: str,
    name: str,
    what: str,
    rows: Sequence[Row],
    bins: Callable[[Row], Sequence[Bin]],
) -> Chart:
    values = [
        {
            "variant": short(row.variant, LONGEST_NAME),
            "x": (part.low + part.high) / 2,
            "kl": max(part.kl, _LEAST),
            "hover": hover(f"{row.variant}: {nats(part.kl)} nats"),
        }
        for row in rows
        for part in bins(row)
    ]
    title = f"{name}: mean KL by {what}"
    alt = f"{title}. " + "; ".join(f"{row.variant}: {nats(row.kl.value)} nats over all" for row in rows) + "."
    return draw(identity, title, alt, *(_spec(run, values, what, width) for width in (WIDE, NARROW)))


def _spec(run: Run, values: list[Spec], what: str, width: int) -> Spec:
    names = list(dict.fromkeys(value["variant"] for value in values))
    x = {"field": "x", "type": "quantitative", "title": what, "axis": {"titleLimit": width, "tickCount": 6}}
    y = {
        "field": "kl",
        "type": "quantitative",
        "title": "mean KL, nats",
        "scale": {"type": "log", "nice": False, "padding": 8},
        "axis": {"tickCount": 5, "format": "~e"},
    }
    known = {"field": "variant", "type": "nominal", "legend": None}
    colour, shape = ({**known, "scale": one} for one in (colour_scale(run, names), shape_scale(names)))
    room = 190 if width == WIDE else 110
    return {
        "data": {"values": values},
        "width": width - room,
        "height": 240,
        "layer": [
            {
                "mark": {"type": "line", "opacity": 0.6, "strokeWidth": 1.5},
                "encoding": {"x": x, "y": y, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.9},
                "encoding": {"x": x, "y": y, "shape": shape, "color": colour, "description": HOVER},
            },
            _ends(values, names, width - room, y, colour),
        ],
    }


def _ends(values: list[Spec], names: list[str], width: int, y: Spec, colour: Spec) -> Spec:
    last = {name: [value for value in values if value["variant"] == name][-1]["kl"] for name in names}
    bottom, top = (reached(value["kl"] for value in values) for reached in (min, max))
    apart = max((math.log(top) - math.log(bottom)) * 14 / 224, 1e-6)
    placed = labels_at_ends({name: math.log(kl) for name, kl in last.items()}, apart)
    ends = [{"variant": name, "kl": math.exp(at)} for name, at in placed.items()]
    return names_beside(ends, width, y, colour)
