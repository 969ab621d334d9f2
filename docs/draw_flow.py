"""Draws docs/images/flow.svg, the picture of docs/how-it-works.md: `python docs/draw_flow.py`.

The stages and what passes between them stand here; tests/test_house.py has the arrows between folders.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

STAGES = (
    ("ask", "words become", "an Order"),
    ("load", "a Variant becomes", "a proved model"),
    ("score", "questions become", "Samples"),
    ("store", "Samples become", "cells on disk"),
    ("compare", "two variants become", "Evidence"),
    ("judge", "rules become", "Decisions"),
    ("report", "Evidence becomes", "pages"),
)
WORKER, LAPTOP = (1, 2), (4, 6)  # first and last stage of each frame
WIDTH, HEIGHT, GAP, LEFT, TOP = 148, 78, 24, 20, 74
FONT = 'font-family="Arial, Helvetica, Liberation Sans, sans-serif"'
INK, SOFT, ACCENT, PAPER = "#1b1f24", "#5b6470", "#3457a6", "#ffffff"


def left(place: int) -> int:
    """The left edge of a stage's box."""
    return LEFT + place * (WIDTH + GAP)


def text(x: float, y: float, words: str, size: int = 13, weight: str = "normal", colour: str = INK) -> str:
    """Words, centred."""
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="middle"'
    return f'<text x="{x:g}" y="{y:g}" {FONT} {style}>{escape(words)}</text>'


def box(place: int) -> str:
    """A stage: its folder's name and what it does."""
    name, does, to = STAGES[place]
    x, middle = left(place), left(place) + WIDTH / 2
    size = f'x="{x}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        text(middle, TOP + 26, name, 16, "bold"),
        text(middle, TOP + 48, does),
        text(middle, TOP + 65, to),
    ]
    return f'<rect {size} rx="8" fill="{PAPER}" stroke="{ACCENT}"/>' + "".join(lines)


def arrow(place: int) -> str:
    """From a stage to the next."""
    x, y = left(place) + WIDTH, TOP + HEIGHT / 2
    line = f'<path d="M{x + 3},{y}h{GAP - 10}" stroke="{SOFT}" stroke-width="1.5" fill="none"/>'
    return line + f'<path d="M{x + GAP - 9},{y - 5}l7,5l-7,5z" fill="{SOFT}"/>'


def frame(first: int, last: int, words: str, y: int, height: int) -> str:
    """A dashed frame around some stages."""
    x, width = left(first) - 10, left(last) + WIDTH - left(first) + 20
    style = f'rx="10" fill="none" stroke="{SOFT}" stroke-dasharray="5 4"'
    rectangle = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" {style}/>'
    return rectangle + text(x + width / 2, y - 8, words, 12, colour=SOFT)


def picture() -> str:
    """The whole drawing."""
    width, height = left(len(STAGES)) + LEFT - GAP, TOP + HEIGHT + 60
    parts = [box(place) for place in range(len(STAGES))]
    parts += [arrow(place) for place in range(len(STAGES) - 1)]
    around = (TOP - 14, HEIGHT + 28)
    parts.append(frame(*WORKER, "one process for each variant; needs torch", *around))
    parts.append(frame(*LAPTOP, "any laptop; needs no torch", *around))
    ways = "cli opens the door · run conducts · exchange speaks to lm-eval and the Hub · base is the ground"
    parts.append(text(width / 2, TOP + HEIGHT + 46, ways, 13, colour=SOFT))
    size = f'width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size}>'
    return f'{head}<rect {size} fill="{PAPER}"/>{"".join(parts)}</svg>\n'


if __name__ == "__main__":
    (Path(__file__).parent / "images" / "flow.svg").write_text(picture(), encoding="utf-8")
