"""The one way in which commands print: no text steers a terminal or a CI runner, whoever wrote it.

On a terminal lines go on between words, and verdicts are coloured; into a pipe or a file goes plain text, a
sentence on a line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from typing import Any

import click

from qeval.base.layout import fitted
from qeval.base.private import withheld
from qeval.base.text import printable, printable_json

_COLOURS = {
    "green": ("PASS", "✓", "="),
    "red": ("FAIL", "✕", "▼", "!"),
    "yellow": ("INCONCLUSIVE", "?", "≈"),
    "magenta": ("MISSING", "∅"),
    "cyan": ("▲",),
}
_OF = {word: colour for colour, words in _COLOURS.items() for word in words}
_WORD = re.compile(r"\b(PASS|FAIL|INCONCLUSIVE|MISSING)\b(?!\w)")
_MARKED = re.compile(r"^(?:([✓✕?∅▼≈▲=])|(!)(?= .*: Did not run\.)) \S.*?: .*?[.:](?= |$)", re.MULTILINE)
_CELL = re.compile(r"(?<=  )([✓✕?∅▼≈▲=]) [a-z]+$", re.MULTILINE)
"""A verdict in the last column of a table."""
_SIGN = re.compile(r"(?<=\d )([✓✕?∅▼≈▲=])$", re.MULTILINE)
"""A verdict's sign alone, behind the number at the end of a line."""
_LEAST_WIDTH = 40


def say(text: str, *, err: bool = False, nl: bool = True, paint: bool = False) -> None:
    """Print a text for a person, on stderr where it is no data; `paint`: with its verdicts in colour."""
    shown = printable(fitted(printable(withheld(text)), width(err=err)))
    colours = coloured(err=err)
    click.echo(painted(shown) if paint and colours else shown, err=err, nl=nl, color=colours)


def width(*, err: bool = False) -> int | None:
    """The columns that there are for a text: the terminal's, or what COLUMNS says; None where what is printed
    goes into a pipe or a file."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return max(int(asked), _LEAST_WIDTH)
    if not _on_terminal(err=err):
        return None
    return max(shutil.get_terminal_size((80, 24)).columns, _LEAST_WIDTH)


def coloured(*, err: bool = False) -> bool:
    """Whether colours are wanted: never under NO_COLOR, always under FORCE_COLOR or CLICOLOR_FORCE, else on a
    terminal that has some."""
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "0") not in {"", "0"} for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return os.environ.get("TERM") != "dumb" and _on_terminal(err=err)


def _on_terminal(*, err: bool) -> bool:
    stream = sys.stderr if err else sys.stdout
    return stream is not None and stream.isatty()


def painted(text: str) -> str:
    """The text with its verdicts in colour: words in capitals, what follows a mark at the start of a line,
    and a mark with its word at the end of a table's row."""
    text = _MARKED.sub(lambda found: _in_colour(found[0], _OF[found[1] or found[2]]), text)
    text = _SIGN.sub(lambda found: _in_colour(found[0], _OF[found[1]]), text)
    text = _CELL.sub(lambda found: _in_colour(found[0], _OF[found[1]]), text)
    return _WORD.sub(lambda found: _in_colour(found[0], _OF[found[1]]), text)


def _in_colour(text: str, colour: str) -> str:
    return click.style(text, fg=colour, bold=True)


def say_json(text: str) -> None:
    """Print a JSON document on stdout; what a terminal would obey stands in it as JSON escapes it."""
    click.echo(printable_json(withheld(text)))


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    say_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
