"""Blame (score.blame.blaming.Blamed) in words, as data and as a picture."""

from __future__ import annotations

import dataclasses
from typing import Any

from qeval.base import layout, numbers
from qeval.base.layout import Column
from qeval.base.names import scheme_text
from qeval.base.records import Scheme
from qeval.base.text import one_line
from qeval.report.charts.drawing import ACCENT, LONGEST_NAME, WIDE, Spec, to_svg
from qeval.report.fidelity import nats

MOST = 40
"""Groups that a picture and a terminal show."""


def table(found: Any, scheme: Scheme, width: int | None = None) -> str:
    """The table of groups in so many columns, the sum against the whole, and the list to paste."""
    heads = (found.by, "KL alone, nats", "of the sum", "weights", "bits", "plain adds, bits/weight")
    lines = [_line(found, one) for one in found.groups[:MOST]]
    columns = [
        Column(title, "right" if place else "left", goes, leads=not place)
        for place, (title, goes) in enumerate(zip(heads, _GOES, strict=True))
    ]
    return "\n".join([layout.table(columns, lines, width), "", *sentences(found, scheme)])


_GOES = (0, 0, 0, 2, 1, 0)
"""Which columns give way first on a narrow terminal."""


def _line(found: Any, one: Any) -> list[str]:
    return [
        one_line(one.name),
        nats(one.kl),
        numbers.percent(one.kl / found.total if found.total else None),
        numbers.count(one.weights),
        numbers.plain(one.bits),
        numbers.plain(one.added / found.weights, 3),
    ]


def sentences(found: Any, scheme: Scheme) -> list[str]:
    """What the numbers add up to, and what to do about it."""
    more = len(found.groups) - MOST
    lines = [f"{more} more groups are in the JSON output (--json)."] if more > 0 else []
    ratio = found.total / found.whole if found.whole else 0.0
    lines.append(
        f"All together: {nats(found.whole)} nats by {found.protocol} ({numbers.count(found.n)} positions);"
        f" the groups alone add up to {nats(found.total)}, {numbers.plain(ratio)} times that. A swap of"
        f" nothing is exactly {found.control:g}."
    )
    if not found.suggested:
        return lines
    share = found.predicted / found.whole if found.whole else 0.0
    bits = "" if found.bits is None else f" from {numbers.plain(found.bits)} bits a weight"
    added = sum(one.added for one in found.groups if one.name in found.suggested) / found.weights
    lines.append(
        f"Leaving {', '.join(found.suggested)} plain would add {numbers.plain(added, 3)}{bits} and leave"
        f" about {numbers.percent(share, 0)} of the divergence."
    )
    if found.words:
        lines.append(f"Try: --schemes '{pasted(scheme, found.words)}'")
    else:
        lines.append(f"{scheme_text(scheme)} leaves no modules out by itself, so this is a table only.")
    return [one_line(line) for line in lines]


def pasted(scheme: Scheme, words: str) -> str:
    """The scheme as --schemes takes it, with these modules left out beside those that it leaves out."""
    before = str(scheme.options.get("skip_modules", ""))
    options = {**scheme.options, "skip_modules": f"{before}+{words}" if before else words}
    return scheme_text(dataclasses.replace(scheme, options=options))


def as_data(found: Any, scheme: Scheme) -> dict[str, Any]:
    """The same for programs."""
    made = dataclasses.asdict(found)
    groups = [{**row, "added": one.added} for row, one in zip(made["groups"], found.groups, strict=True)]
    paste = pasted(scheme, found.words) if found.words else None
    return {**made, "groups": groups, "sum": found.total, "schemes": paste}


def chart(found: Any) -> str:
    """The groups as bars, an SVG document."""
    values = [
        {"group": one.name[-LONGEST_NAME:], "kl": one.kl, "place": place}
        for place, one in enumerate(found.groups[:MOST])
    ]
    spec: Spec = {
        "data": {"values": values},
        "width": WIDE - 320,
        "height": {"step": 20},
        "title": f"{found.variant}: KL of each {found.by} alone, nats",
        "mark": {"type": "bar", "color": ACCENT},
        "encoding": {
            "y": {"field": "group", "type": "nominal", "sort": {"field": "place"}, "title": None},
            "x": {"field": "kl", "type": "quantitative", "title": "KL alone, nats"},
        },
    }
    return to_svg(spec)
