"""Where the time of a worker goes: every second from its start belongs to one phase."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STARTING = "starting"
"""The phase that a process is in until it says otherwise: Python and its first imports."""


class Clock:
    """Seconds by phase. Phases nest, and while an inner one lasts the outer one's time stands still, so that
    all together are the whole."""

    def __init__(self, now: Callable[[], float] = time.monotonic, earlier: float = 0.0) -> None:
        self.now = now
        self.found = {STARTING: earlier}
        self.open = [STARTING]
        self.since = now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Within it, time is `name`'s."""
        self._book()
        self.open.append(name)
        try:
            yield
        finally:
            self._book()
            self.open.pop()

    def spent(self, name: str) -> float:
        """Seconds of a phase so far."""
        self._book()
        return self.found.get(name, 0.0)

    def all(self) -> dict[str, float]:
        """Seconds of every phase so far, in the order in which they began, to the hundredth."""
        self._book()
        return {name: round(seconds, 2) for name, seconds in self.found.items() if seconds >= 0.005}  # noqa: PLR2004 - half of that

    def _book(self) -> None:
        now = self.now()
        self.found[self.open[-1]] = self.found.get(self.open[-1], 0.0) + now - self.since
        self.since = now


def of_process() -> Clock:
    """A clock that counts from the start of this process."""
    return Clock(earlier=max(0.0, _age()))


def _age() -> float:
    """Seconds since this process began, to the hundredth where Linux tells when in ticks since it was booted.
    psutil adds the time of booting, which Linux tells in whole seconds."""
    try:
        began = int(Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
        booted = float(Path("/proc/uptime").read_text("utf-8").split()[0])
        return booted - began / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # another system
        import psutil  # type: ignore[import-untyped]  # comes with accelerate

        return time.time() - float(psutil.Process().create_time())


CLOCK = of_process()
"""This process's."""
phase = CLOCK.phase
