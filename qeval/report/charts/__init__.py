"""The charts: each a Vega-Lite specification (plain data), drawn to SVG offline by vl-convert.

One specification gives the SVG files beside a Markdown report (plain colours on white) and the pictures
inside the HTML page, where colours are the page's own, so that they follow light and dark mode.
"""

from __future__ import annotations

from qeval.report.charts.cost import cost_charts
from qeval.report.charts.documents import documents
from qeval.report.charts.drawing import Chart
from qeval.report.charts.fidelity import fidelity
from qeval.report.charts.forest import forest
from qeval.report.charts.reliability import reliability
from qeval.report.charts.subjects import subjects
from qeval.report.context import Context

__all__ = ["Chart", "charts"]


def charts(context: Context) -> tuple[Chart, ...]:
    """Every chart that the context has data for, in the page's order."""
    made = [
        *cost_charts(context),
        *forest(context),
        *subjects(context),
        *documents(context),
        *fidelity(context),
        *reliability(context),
    ]
    return tuple(made)
