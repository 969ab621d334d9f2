"""Divergence by the baseline's confidence and by place in the window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from qeval.base.names import short
from qeval.compare.fidelity import Bin, Row
from qeval.report.charts.drawing import (
    ACCENT,
    LONGEST_NAME,
    NARROW,
    WIDE,
    Chart,
    Spec,
    draw,
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
        yield _chart(f"fidelity-confidence-{name}", name, confidence, rows, lambda row: row.by_confidence)
        yield _chart(
            f"fidelity-position-{name}", name, "place in the window", rows, lambda row: row.by_position
        )


def _chart(
    identity: str, name: str, what: str, rows: Sequence[Row], bins: Callable[[Row], Sequence[Bin]]
) -> Chart:
    values = [
        {
            "variant": short(row.variant, LONGEST_NAME),
            "x": (part.low + part.high) / 2,
            "kl": max(part.kl, _LEAST),
        }
        for row in rows
        for part in bins(row)
    ]
    title = f"{name}: mean KL by {what}"
    alt = f"{title}. " + "; ".join(f"{row.variant}: {nats(row.kl.value)} nats over all" for row in rows) + "."
    return draw(identity, title, alt, _spec(values, what, WIDE), _spec(values, what, NARROW))


def _spec(values: list[Spec], what: str, width: int) -> Spec:
    names = list(dict.fromkeys(value["variant"] for value in values))
    x = {"field": "x", "type": "quantitative", "title": what, "axis": {"titleLimit": width, "tickCount": 6}}
    y = {
        "field": "kl",
        "type": "quantitative",
        "title": "mean KL, nats",
        "scale": {"type": "log", "nice": False, "padding": 8},
        "axis": {"tickCount": 5, "format": "~e"},
    }
    shape = {"field": "variant", "type": "nominal", "scale": shape_scale(names), "title": None}
    return {
        "data": {"values": values},
        "width": width - (100 if width == WIDE else 80),
        "height": 240,
        "layer": [
            {
                "mark": {"type": "line", "color": ACCENT, "opacity": 0.5, "strokeWidth": 1.5},
                "encoding": {"x": x, "y": y, "detail": {"field": "variant", "type": "nominal"}},
            },
            {
                "mark": {"type": "point", "filled": True, "color": ACCENT, "size": 70, "opacity": 0.9},
                "encoding": {"x": x, "y": y, "shape": shape},
            },
        ],
    }
