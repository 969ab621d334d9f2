"""The one way in which commands print: no text steers a terminal or a CI runner, whoever wrote it."""

from __future__ import annotations

import json
from typing import Any

import click

from qeval.base.private import withheld
from qeval.base.text import printable, printable_json


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text for a person, on stderr where it is no data."""
    click.echo(printable(withheld(text)), err=err, nl=nl)


def say_json(text: str) -> None:
    """Print a JSON document on stdout; what a terminal would obey stands in it as JSON escapes it."""
    click.echo(printable_json(withheld(text)))


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    say_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
