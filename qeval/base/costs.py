"""What it costs to hold and run a variant: time and memory, measured."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timing:
    """A measured quantity: the median of `repeats`, with the least and the greatest; in `unit`."""

    median: float
    low: float
    high: float
    repeats: int
    unit: str


@dataclass(frozen=True)
class Cost:
    """What a variant costs to hold and run on `hardware`. `measures` maps a name such as
    "prefill/batch=1/prompt=512" or "generate/batch=16/new=30/cache=on" to its Timing;
    `load_seconds` and `peak_bytes` stand alone: memory while scoring (while measuring, where nothing is
    scored), on a CPU that of the whole process."""

    hardware: str
    load_seconds: float | None = None
    peak_bytes: int | None = None
    measures: dict[str, Timing] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
