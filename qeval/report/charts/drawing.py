"""Drawing a Vega-Lite specification (plain data) as SVG, offline, by vl-convert; colours, names, scales."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from qeval.base.errors import MissingPackageError
from qeval.base.names import short
from qeval.base.records import Run
from qeval.base.text import one_line
from qeval.report import colours

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
VARIANTS = {colour: f"var(--v{place})" for place, colour in enumerate(colours.LIGHT)}
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
LONGEST_NAME = 36
LARGEST = 20.0  # nats a word; a text beyond it has no place on an axis


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


def draw(identity: str, title: str, alt: str, wide: Spec, narrow: Spec | None = None) -> Chart:
    """A chart from its specification, and from a second one for small screens."""
    file = to_svg(wide)
    small = for_page(_TITLE.sub("", to_svg(narrow))) if narrow else ""
    return Chart(identity, title, alt, file, for_page(file), small)


def to_svg(spec: Spec) -> str:
    """The specification as an SVG document, drawn without network or browser."""
    whole = {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.0.json",
        "config": _CONFIG,
        "background": PAPER,
        **spec,
    }
    return _HOVERED.sub(_titled, _drawn(json.dumps(_visible(whole))))


_HOVER = "hover: "
_HOVERED = re.compile(rf'<(\w+) aria-label="{_HOVER}([^"]*)"((?:[^<>"]|"[^"]*")*?)(?:/>|></\1>)')


def hover(words: str) -> str:
    """What a mark says where a pointer rests on it; the value of its `description`."""
    return _HOVER + words


ONCE: Spec = {"data": {"values": [{}]}}
"""For a layer that draws one line: without, Vega draws it once for each entry of the data."""
HOVER: Spec = {"field": "hover"}
"""The channel `description` of marks whose data have such words under that name."""


def _titled(mark: re.Match[str]) -> str:
    """A mark with its words as a title of its own, which browsers show."""
    tag, words, rest = mark.groups()
    return f"<{tag}{rest}><title>{words}</title></{tag}>"


def _visible(value: Any) -> Any:
    """Plain data, its texts on one line and visible: a control character in a name would end the process
    that draws it."""
    if isinstance(value, dict):
        return {key: _visible(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(entry) for entry in value]
    return one_line(value) if isinstance(value, str) else value


@functools.lru_cache(maxsize=128)
def _drawn(spec: str) -> str:
    """Drawing takes most of a report's time, so a report in two formats draws each chart once.

    Raises MissingPackageError where only what judging needs is installed."""
    try:
        import vl_convert
    except ImportError as error:
        raise MissingPackageError(
            "A report's charts are drawn by vl-convert-python, which is not installed.",
            "Install it with: pip install vl-convert-python",
        ) from error

    return str(vl_convert.vegalite_to_svg(json.loads(spec), vl_version=VEGA_LITE))


def for_page(svg: str) -> str:
    """The drawing as a part of a page: the page's colours, one picture to a screen reader, and short.

    Only tags are touched: what stands between them may be a name that a user gave.
    """
    body = _EMPTY.sub("", _TAG.sub(lambda found: _short_tag(found[0]), svg))
    marks = _CIRCLE.sub(_round, _ENDED.sub(r"\1/>", body))
    return _MARKS.sub(_hoisted, marks).replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


_WITHIN = r'(?:[^<>"]|"[^"]*")*'
_TAG = re.compile(f"<{_WITHIN}>")
_NEEDLESS = re.compile(
    r' (?:role|class|aria-[a-z]+|xmlns|xmlns:xlink|version|font-family)="[^"]*"'
    r'| (?:pointer-events="none"|stroke-miterlimit="10"|opacity="1"|font-weight="normal"|stroke-width="1")'
)
_PAINT = COLOURS | VARIANTS
_PAINTED = re.compile(f'"({"|".join(_PAINT)})"')
_LONG_NUMBER = re.compile(r"\d+\.\d{3,}")
_ENDED = re.compile(rf"(<(path|line|rect|circle){_WITHIN})></\2>")
_CIRCLE = re.compile(
    r'<path transform="translate\(([-\d.]+),([-\d.]+)\)" d="M([\d.]+),0A\3,\3,0,1,1,-\3,0A\3,\3,0,1,1,\3,0"'
    r'((?: [\w-]+="[^"]*")*)(?:/>|>(<title>[^<]*</title>)</path>)'
)
"""A circle as Vega draws it: half of a large report's drawings."""
_MARK = rf"<(?:path|line|rect|circle|text){_WITHIN}(?:/>|>(?:<title>)?[^<]*(?:</title>)?</\w+>)"
_EACH = re.compile(_MARK)
_MARKS = re.compile(rf"<g>((?:{_MARK})+)</g>")
_LOOK = re.compile(r' (?:(?:fill|stroke)(?:-[a-z]+)?|font-size|text-anchor)="[^"]*"')


def _round(path: re.Match[str]) -> str:
    x, y, radius, rest, title = path.groups()
    end = f">{title}</circle>" if title else "/>"
    return f'<circle cx="{x}" cy="{y}" r="{radius}"{rest}{end}'


def _hoisted(group: re.Match[str]) -> str:
    """A group of marks, each look said once for all that follow one another in it: a thousand marks have a
    handful of looks."""
    marks = [_TAG.sub(lambda tag: _one_paint(tag[0]), mark, count=1) for mark in _EACH.findall(group[1])]
    runs = [(look, list(alike)) for look, alike in groupby(marks, _look)]
    made = [f"<g{look}>{''.join(map(_bare, alike))}</g>" if look else "".join(alike) for look, alike in runs]
    return made[0] if len(made) == 1 and runs[0][0] else f"<g>{''.join(made)}</g>"


def _look(mark: str) -> str:
    """The attributes of a mark that a group can hand down to it."""
    return "".join(_LOOK.findall(_TAG.findall(mark)[0]))


def _bare(mark: str) -> str:
    """A mark without them."""
    return _TAG.sub(lambda tag: _LOOK.sub("", tag[0]), mark, count=1)


def _one_paint(tag: str) -> str:
    """The tag of a mark, which if it is only filled or only outlined has the opacity of that paint: a group
    hands this down."""
    filled, drawn = ' fill="' in tag, ' stroke="' in tag
    if not drawn:
        tag = re.sub(r' stroke-width="[^"]*"', "", tag)
    return tag.replace(" opacity=", f" {'fill' if filled else 'stroke'}-opacity=") if filled != drawn else tag


_TITLE = re.compile(r"<title>[^<]*</title>")
"""What a pointer shows; a small screen has none, and its tables hold the same."""
_EMPTY = re.compile(r'<path(?: display="none"| d=""| d="M0,0h0v0h0Z")+ ?(?:/>|></path>)|<g></g>')


def _short_tag(tag: str) -> str:
    """The tag without what a drawing in a page needs not, in the page's colours."""
    painted = _PAINTED.sub(lambda found: f'"{_PAINT[found[1]]}"', tag)
    return _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", _NEEDLESS.sub("", painted))


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


def colour_scale(run: Run, names: Sequence[str]) -> Spec:
    """The colour of each of these variants, by its name as charts show it: the same in every chart."""
    known = colours.places(run)
    by_name = {short(name, LONGEST_NAME): colours.LIGHT[place] for name, place in known.items()}
    return {"domain": list(names), "range": [by_name.get(name, ACCENT) for name in names]}


def shape_scale(names: Sequence[str]) -> Spec:
    """A shape for each variant, the same in every chart."""
    return {"domain": list(names), "range": [SHAPES[place % len(SHAPES)] for place in range(len(names))]}


def scale(reached: Sequence[float], *, ratios: bool) -> Spec:
    """A scale for these values; logarithmic for ratios far apart, lest a ruined variant hide the others."""
    if ratios and max(reached) > WIDE_APART * min(reached):
        return {"type": "log", "nice": False, "padding": 8}
    return {"zero": False, "nice": True, "padding": 8}


def labels_at_ends(ends: Mapping[str, float], apart: float) -> dict[str, float]:
    """Where the names of lines stand that end at these heights: beside their ends, the lower ones pushed down
    so that each lies at least `apart` below the one above."""
    placed: dict[str, float] = {}
    for name, height in sorted(ends.items(), key=lambda pair: -pair[1]):
        lowest = min(placed.values(), default=math.inf)
        placed[name] = min(height, lowest - apart)
    return placed


def names_beside(ends: Sequence[Spec], width: int, y: Spec, colour: Spec) -> Spec:
    """A layer that writes `variant` of each of `ends` at its height, right of a plot of this width."""
    mark = {"type": "text", "align": "left", "dx": 8, "fontSize": 11}
    text = {"field": "variant", "type": "nominal"}
    encoding = {"x": {"value": width}, "y": y, "color": colour, "text": text}
    return {"data": {"values": list(ends)}, "mark": mark, "encoding": encoding}
