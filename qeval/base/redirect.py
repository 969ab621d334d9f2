"""What libraries print while they work in this process, kept off the screen and out of stdout, in a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from qeval.base.text import printable


@contextlib.contextmanager
def libraries_to(log: Path) -> Iterator[Callable[[str], None]]:
    """Within it, everything printed goes to the file `log`, from C code too; yields a function that still
    tells the person at stderr something."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(log.open("w", encoding="utf-8"))
        screen = stack.enter_context(_kept(sys.stderr))
        for descriptor in (1, 2):
            stack.enter_context(_redirected(descriptor, noise.fileno()))
        stack.enter_context(contextlib.redirect_stdout(noise))
        stack.enter_context(contextlib.redirect_stderr(noise))
        yield lambda text: print(printable(text), file=screen, flush=True)


@contextlib.contextmanager
def _kept(stream: TextIO) -> Iterator[TextIO]:
    """The stream by a descriptor of its own, so that it goes on when the first one leads elsewhere."""
    try:
        descriptor = os.dup(stream.fileno())
    except OSError:  # a stream in memory
        yield stream
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as copy:
        yield copy


@contextlib.contextmanager
def _redirected(descriptor: int, to: int) -> Iterator[None]:
    """Within it the descriptor leads where `to` does."""
    before = os.dup(descriptor)
    try:
        os.dup2(to, descriptor)
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)
