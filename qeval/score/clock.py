"""Where the time of a worker goes: every second from its start belongs to one phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    import psutil  # type: ignore[import-untyped]  # comes with accelerate

    return Clock(earlier=max(0.0, time.time() - psutil.Process().create_time()))


CLOCK = of_process()
"""This process's."""
phase = CLOCK.phase
