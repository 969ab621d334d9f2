"""The streams of a command: stdout that is closed or full, and names that its encoding does not have."""

from __future__ import annotations

import contextlib
import os
import sys

from qeval.base.errors import QevalError
from qeval.cli.speech import say


def check() -> None:
    """Make sure that there is a stdout, and that any name can be written to it.

    Raises QevalError where it is closed: what a command says would go nowhere, or into the next file that
    is opened, which gets its number.
    """
    _fill()
    if sys.stderr is None:  # for libraries and progress bars, which take it for granted
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        raise QevalError("Standard output is closed.", "Send it to a file, or to /dev/null.")


def _fill() -> None:
    """Let the numbers 0, 1 and 2 lead somewhere, so that no file of ours ever has one of them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is this one
            os.open(os.devnull, os.O_RDWR)


def tell(text: str) -> None:
    """A line on stderr, if that takes any."""
    with contextlib.suppress(OSError):
        say(text, err=True)


def abandon() -> None:
    """Send what is still to be written to stdout nowhere: its reader has gone, or its disk is full."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
