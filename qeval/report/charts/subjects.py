"""The members of a group: as measured and shrunken, most harmed first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qeval.base.names import short
from qeval.base.records import Run
from qeval.report.charts.drawing import (
    HOVER,
    INK,
    LONGEST_NAME,
    ONCE,
    SOFT,
    WIDE,
    Chart,
    Spec,
    colour_scale,
    draw,
    hover,
)
from qeval.report.context import Context
from qeval.report.subjects import Subject


def subjects(context: Context) -> Iterable[Chart]:
    """For each group, every member's difference by variant, shrunken, the most harmed on top."""
    for group in dict.fromkeys(subject.group for subject in context.subjects):
        members = [subject for subject in context.subjects if subject.group == group]
        if len({member.subject for member in members}) > 1:
            yield _subject_chart(context.run, group, members)


def _subject_chart(run: Run, group: str, members: Sequence[Subject]) -> Chart:
    order = _harmed_first(members)
    title = f"{group} by subject"
    alt = (
        f"{title}: {len(order)} subjects, Δ pulled towards the mean. On average over variants "
        f"the most harmed is {order[0]}, the least {order[-1]}. The table below has every number."
    )
    values = [
        {
            "variant": short(m.variant, LONGEST_NAME),
            "subject": f"{m.subject} ({m.n})",
            "shrunk": 100 * m.shrunk,
            "raw": 100 * m.value,
            "mean": 100 * m.mean,
            "hover": hover(f"{m.variant}, {m.subject}: {m.shrunk_text}, measured {m.delta} ({m.interval})"),
        }
        for m in members
    ]
    labels = {m.subject: f"{m.subject} ({m.n})" for m in members}
    names = [labels[name] for name in order]
    return draw(f"subjects-{group}", title, alt, _subject_panels(run, values, names))


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


def _subject_panels(run: Run, values: list[Spec], order: list[str]) -> Spec:
    """A panel a variant: what was measured hollow, what is left of it after shrinking filled, the mean
    to which they are pulled dashed; an axis above and one below."""
    names = list(dict.fromkeys(value["variant"] for value in values))
    columns = min(len(names), 5)
    y = _subjects_axis(order, 230)
    x = {"type": "quantitative", "title": "points", "axis": {"tickCount": 5, "grid": False}}
    color = {"field": "variant", "type": "nominal", "legend": None, "scale": colour_scale(run, names)}
    hollow = {"type": "point", "size": 16, "opacity": 0.6, "strokeWidth": 1}
    filled = {"type": "point", "filled": True, "size": 38, "opacity": 1}
    dashed = {"type": "tick", "orient": "vertical", "color": INK, "size": 8, "thickness": 1}
    above = {**x, "axis": {"tickCount": 5, "grid": False, "orient": "top"}}
    return {
        "data": {"values": values},
        "facet": {
            "field": "variant",
            "type": "nominal",
            "sort": names,
            "title": None,
        },
        "columns": columns,
        "spacing": 16,
        "spec": {
            "width": max(60, (WIDE - 270) // columns - 16),
            "height": {"step": 15},
            "layer": [
                {**ONCE, "mark": {"type": "rule", "color": SOFT}, "encoding": {"x": {**above, "datum": 0}}},
                {"mark": dashed, "encoding": {"y": y, "x": {**x, "field": "mean"}}},
                {"mark": hollow, "encoding": {"y": y, "x": {**x, "field": "raw"}, "color": color}},
                {
                    "mark": filled,
                    "encoding": {
                        "y": y,
                        "x": {**x, "field": "shrunk"},
                        "color": color,
                        "description": HOVER,
                    },
                },
            ],
            "resolve": {"axis": {"x": "independent"}},
        },
    }
