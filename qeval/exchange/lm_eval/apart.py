"""Reading large files of samples in two processes at a time, for a command of its own has no more to do."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from qeval.base.errors import QevalError

LARGE = 64 << 20
"""Bytes of samples from which on it pays: starting a process takes as long as reading some 10 MB."""
_PROCESSES = 2

Each = Callable[..., Iterable[Any]]
"""As `map`: a function of this package, and its arguments one list each."""


@contextlib.contextmanager
def each(size: int) -> Iterator[Each]:
    """As `map`, in processes of its own where `size` bytes are to be read and there is more than one core.

    What a call raises is raised here, and the calls that were not begun are dropped. Raises QevalError where
    a process is ended from outside. The processes end with this one, however it ends.
    """
    if size < LARGE or _cores() < _PROCESSES:
        yield map
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(_PROCESSES, get_context("spawn"), initializer=_begin)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise QevalError(
            "A process that read samples was ended from outside.",
            "Run it again; if memory ran out, take a larger machine or import fewer tasks at a time.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    """Ctrl-C ends it without a word; and where nobody waits any more, there is nobody to read for."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
