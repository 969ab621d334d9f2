"""Reading what the next variant will need while another one is at work."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from qeval.ask.order import Order
from qeval.base.errors import QevalError
from qeval.base.messages import Event, Fed, Progress
from qeval.base.records import Variant
from qeval.run.executors import Prepare
from qeval.run.seats import Seat

Listener = Callable[[Variant, Event], None]

SHARE = 0.5
"""The part of free memory that files which are read ahead may take."""


def ahead_of(order: Order, seat: Seat, prepare: Prepare, listen: Listener) -> Listener:
    """A listener that has the next variant's worker get ready, and its files read, once one scores on a GPU;
    what a CPU scores would only wait for it."""
    on_gpu = False
    turns = sorted(order.variants, key=lambda variant: variant.name != order.baseline)
    after = {one.name: later for one, later in pairwise(turns)}

    def hear(variant: Variant, event: Event) -> None:
        nonlocal on_gpu
        if isinstance(event, Fed):
            on_gpu = not event.packing.device.startswith("CPU")
        if isinstance(event, Progress) and on_gpu and (later := after.pop(variant.name, None)):
            prepare(seat.environment)
            read_ahead(later)
        listen(variant, event)

    return hear


def read_ahead(variant: Variant) -> threading.Thread | None:
    """Have the system read a variant's local files into memory that is free, in a thread, which is returned:
    loading then waits for no disk. Nothing is done where there is no room, or no such call (macOS)."""
    from qeval.load.resolve import local_files
    from qeval.load.toy import is_toy

    if is_toy(variant.model) or not hasattr(os, "posix_fadvise"):
        return None
    files, size = list[Path](), 0
    with contextlib.suppress(QevalError, OSError):  # what is wrong is said when the variant's turn comes
        files = [file for file in local_files(variant) if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    if not 0 < size <= SHARE * _free():
        return None
    thread = threading.Thread(target=_read, args=([str(file) for file in files],), daemon=True)
    thread.start()
    return thread


def _free() -> int:
    from qeval.load.memory import free_bytes

    return free_bytes("cpu") or 0


def _read(files: list[str]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            handle = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(handle)
