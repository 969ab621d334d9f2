"""A terminal session as a picture that moves: recorded in a pseudo terminal, drawn as SVG without a script.

    python docs/cast.py record docs/images/demo.cast 'qeval run --model demo ...' 'qeval gate ...'
    python docs/cast.py draw docs/images/demo.cast docs/images/demo.svg

The recording is an asciicast of version 2 (https://docs.asciinema.org/manual/asciicast/v2/): any player of
those plays it, at its true speed. In the picture pauses are shortened to `LONGEST` seconds, and a session
that is then longer than `MOST` seconds runs faster, so that whoever reads on sees its end; the clock that a
command shows tells the truth.
"""

from __future__ import annotations

import codecs
import fcntl
import itertools
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

COLUMNS, ROWS = 80, 30
LONGEST = 1.2
"""Seconds that a pause of the recording lasts in the picture, at most."""
MOST = 30.0
"""Seconds in which the picture shows a session, at most."""
LAST = 8.0
"""Seconds for which the last screen stands."""
_WIDE, _HIGH, _EDGE = 8.4, 18.0, 16.0
COLOURS = {
    "default": "#d7dce2",
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
    "white": "#ffffff",
    "black": "#8b949e",
    "brightblack": "#8b949e",
}
BOLD, HIDDEN = ' font-weight="700"', ' visibility="hidden"'
Event = tuple[float, str]


def record(to: Path, commands: Sequence[str]) -> None:
    """Run commands of a shell one after another in a terminal of COLUMNS by ROWS; keep what they print."""
    begun = time.monotonic()
    lines = [
        json.dumps([round(time.monotonic() - begun, 3), "o", text])
        for command in commands
        for text in itertools.chain([f"\x1b[1m$ {command}\x1b[0m\r\n"], _printed(command))
    ]
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "qeval"}
    to.write_text("\n".join([json.dumps(head), *lines]) + "\n", "utf-8")


def _printed(command: str) -> Iterator[str]:
    """What a command prints, as it comes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    around = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with subprocess.Popen(command, shell=True, stdin=theirs, stdout=theirs, stderr=theirs, env=around):  # noqa: S602
        os.close(theirs)
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # how Linux tells that nobody holds the other side any more
                break
            if not read:
                break
            yield decoder.decode(read)
    os.close(ours)


def events(cast: Path) -> list[Event]:
    """What a recording prints, and the seconds at which the picture shows it."""
    shown, before, now = [], 0.0, 0.0
    for line in cast.read_text("utf-8").splitlines()[1:]:
        at, kind, text = json.loads(line)
        if kind == "o":
            now += min(at - before, LONGEST)
            before = at
            shown.append((now, text))
    faster = max(1.0, now / MOST)
    return [(at / faster, text) for at, text in shown]


def screens(shown: Iterable[Event], least: float = 0.1) -> list[tuple[float, list[str]]]:
    """The screens that follow each other, at least so many seconds apart: when, and each row's drawing."""
    import pyte

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    found: list[tuple[float, list[str]]] = []
    begun: float | None = None
    for (at, text), (following, _) in itertools.pairwise([*shown, (float("inf"), "")]):
        stream.feed(text)
        begun = at if begun is None else begun
        if following - begun < least:
            continue
        rows = [_row(screen.buffer[number]) for number in range(ROWS)]
        if not found or rows != found[-1][1]:
            found.append((begun, rows))
        begun = None
    return found


def _row(cells: Any) -> str:
    """A row of a screen: the runs of cells that look alike."""
    parts: list[tuple[tuple[str, bool], int, str]] = []
    for place in range(COLUMNS):
        cell = cells[place]
        look = (COLOURS.get(cell.fg, COLOURS["default"]), bool(cell.bold))
        if parts and parts[-1][0] == look:
            parts[-1] = (look, parts[-1][1], parts[-1][2] + cell.data)
        else:
            parts.append((look, place, cell.data))
    return "".join(
        f'<tspan x="{_EDGE + place * _WIDE:g}" fill="{colour}"{BOLD if bold else ""}'
        f' textLength="{len(text.rstrip()) * _WIDE:g}">{escape(text.rstrip())}</tspan>'
        for (colour, bold), place, text in parts
        if text.strip()
    )


def drawn(found: Sequence[tuple[float, list[str]]]) -> str:
    """The screens as an SVG that shows one after another, again and again; the last alone where a reader asks
    for less motion. Rows that come again are drawn once."""
    total = found[-1][0] + LAST
    different = dict.fromkeys(row for _, rows in found for row in rows if row)
    names = {row: f"r{number}" for number, row in enumerate(different)}
    rows = "".join(f'<text id="{name}" xml:space="preserve">{row}</text>' for row, name in names.items())
    style, groups = [], []
    for number, (at, lines) in enumerate(found):
        last = number + 1 == len(found)
        begin, end = 100 * at / total, 100 * (total if last else found[number + 1][0]) / total
        gone = "" if last else f"{end + 0.001:.3f}%,100%{{visibility:hidden}}"
        style.append(
            f"@keyframes f{number}{{0%,{begin:.3f}%{{visibility:hidden}}"
            f"{begin + 0.001:.3f}%,{end:.3f}%{{visibility:visible}}{gone}}}"
            f"#f{number}{{animation:f{number} {total:.2f}s step-end infinite}}"
        )
        uses = "".join(
            f'<use href="#{names[row]}" y="{_EDGE + 2 * _HIGH + place * _HIGH:g}"/>'
            for place, row in enumerate(lines)
            if row
        )
        groups.append(f'<g id="f{number}"{"" if last else HIDDEN}>{uses}</g>')
    width, height = COLUMNS * _WIDE + 2 * _EDGE, (ROWS + 2) * _HIGH + 2 * _EDGE
    still = "@media (prefers-reduced-motion:reduce){g{animation:none!important}}"
    dots = "".join(
        f'<circle cx="{_EDGE + 6 + 18 * place:g}" cy="18" r="5.5" fill="{colour}"/>'
        for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" role="img" aria-label="A session of qeval in a terminal"'
        ' font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="14">'
        f"<style>{''.join(style)}{still}</style><defs>{rows}</defs>"
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>{dots}{"".join(groups)}</svg>\n'
    )


if __name__ == "__main__":
    what, cast, *rest = sys.argv[1:]
    if what == "record":
        record(Path(cast), rest)
    else:
        Path(rest[0]).write_text(drawn(screens(events(Path(cast)))), "utf-8")
