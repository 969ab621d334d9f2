"""Signals that ask a command to stop as Ctrl-C does: of schedulers, and of a terminal that is closed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_SHELL_ADDS = 128  # to a signal's number, for the exit code of what it stopped
_NAMES = ("SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """Raised in the main thread by one of these signals; `exit_code` is what shells expect of it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = _SHELL_ADDS + number


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """While open, each of these signals raises Stopped; one that the process was told to ignore (by nohup,
    say) stays ignored, and in another thread than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (*numbers, signal.SIGINT)}
    for number in numbers:
        if before[number] == signal.SIG_DFL:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) in {_stop, _nothing}:
                signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    for each in (getattr(signal, name) for name in (*_NAMES, "SIGINT") if hasattr(signal, name)):
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, _nothing)  # a second one would break off what the first one ends
    raise Stopped(number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What a signal does then; what is started meanwhile does not inherit it, as it would SIG_IGN."""
