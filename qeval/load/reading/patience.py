"""An end to what may never end: a compiler that hangs, a lock that stays, a download that stands still."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

DOWNLOAD = 60
"""Seconds after which a download that stands still has failed."""
AGAIN = 5.0
"""Seconds after which what outlives the end is ended once more."""


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what is done within where it takes longer, and end the processes it started.

    The error is raised by a signal, in the main thread of a Unix process: it ends waiting, for a process or
    for a file, at any place in Python. Elsewhere only the processes are ended, which their callers notice.
    Code in C is not interrupted.
    """
    began, before = time.monotonic(), {child.pid for child in _children()}
    over = threading.Event()
    timer = threading.Timer(seconds, _end, (before, over))
    timer.daemon = True
    before_socket = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD)
    timer.start()
    try:
        with _alarm(seconds):
            yield
    finally:
        timer.cancel()
        over.set()
        if time.monotonic() - began >= seconds:
            _kill(before)
        socket.setdefaulttimeout(before_socket)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Within it TimeoutError is raised after some seconds, and again where somebody swallows it."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done within {seconds:g} seconds")

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # of the end too, where it rings before it is turned off
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # somebody else's alarm, which goes on
            left -= time.monotonic() - began
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.01), interval)


def _end(before: set[int], over: threading.Event) -> None:
    """End the processes that were started since, again and again until `over` is set."""
    while True:
        _kill(before)
        if over.wait(AGAIN):
            return


def _kill(before: set[int]) -> None:
    """End the processes that this one has started, and those that they have, but for the ones of before."""
    for child in _children():
        if child.pid not in before:
            with suppress(Exception):  # it has ended by itself
                child.kill()


def _children() -> list[Any]:
    import psutil  # type: ignore[import-untyped]  # a dependency of accelerate

    return list(psutil.Process(os.getpid()).children(recursive=True))
