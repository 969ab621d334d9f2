"""Where the workers of a run sit: one on each GPU, or several on the CPU; what each is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from qeval.ask.order import Order
from qeval.ask.placing import CLUSTERS, cores
from qeval.base.errors import UsageError
from qeval.base.messages import Job
from qeval.base.records import Run
from qeval.base.repeats import scorings
from qeval.load.toy import is_toy
from qeval.run import gpus


@dataclass(frozen=True)
class Seat:
    """Where a worker runs: its place among all, the environment that is its own, and the device that a real
    model is calculated on there (None: the run's)."""

    number: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None

    def seated(self, job: Job, threads: int | None) -> Job:
        """A job for the worker here."""
        settings = job.settings
        if self.device is not None and not is_toy(job.variant.model):
            settings = replace(settings, device=self.device)
        return msgspec.structs.replace(
            job, settings=settings, environment=dict(self.environment), threads=threads
        )


class Seats(NamedTuple):
    """The seats of a run, one at least, and a sentence about them that a person should read, or ""."""

    all: tuple[Seat, ...]
    note: str = ""


ALONE = Seats((Seat(),))
"""One worker, in the environment of the command, on the device that the run names."""


def seats(order: Order) -> Seats:
    """Where an order's workers sit, by its words and, where they say nothing, by what the environment sets.

    Raises UsageError where the words name GPUs that are not there.
    """
    if order.workers is not None:
        own = {"OMP_NUM_THREADS": str(order.threads or 1)}
        return Seats(tuple(Seat(number, own) for number in range(order.workers)))
    if order.devices is not None or order.settings.gpus > 1:
        found, note = gpus.chosen("all" if order.devices is None else order.devices, gpus.visible())
        return _grouped(found, note, order.settings.gpus)
    if order.settings.device != "auto" or is_toy(order.variants[0].model) or not order.suite.tasks:
        return ALONE
    return _unasked(gpus.visible(), gpus.assigned())


def _grouped(found: Sequence[gpus.Gpu], note: str, size: int) -> Seats:
    """Seats of `size` GPUs each. Raises UsageError where there are fewer."""
    if size > len(found):
        raise UsageError(
            f"--gpus-per-variant {size} asks for more GPUs than the {len(found)} that can be used here.",
            f"Ask for {len(found)} at most, or leave it out: what does not fit on one is streamed.",
        )
    groups = [found[i : i + size] for i in range(0, len(found) - size + 1, size)]
    if over := len(found) % size:
        note = f"{note} {over} of {len(found)} GPUs stay idle: each variant takes {size}.".strip()
    return Seats(tuple(map(_on, range(len(groups)), groups)), note)


def _unasked(there: Sequence[gpus.Gpu], by: str | None) -> Seats:
    """The seats where nothing was asked for: all GPUs if they were set `by` a variable, else one worker."""
    if len(there) < 2:  # noqa: PLR2004 - with one there is no choice
        return ALONE
    if by is None:
        idle = sum(not gpu.busy for gpu in there)
        return Seats(ALONE.all, _OFFER.format(idle) if idle > 1 else "")
    found, note = gpus.alike([gpu for gpu in there if not gpu.dead], there)
    if len(found) == 1:
        return Seats((_on(0, found),), note)
    said = f"{len(found)} GPUs are at work, for {by} is set; --device cuda takes one."
    return _grouped(found, f"{said} {note}".strip(), 1)


_OFFER = "{} GPUs stand idle here, and one is used; --devices all takes them."


def _on(number: int, some: Sequence[gpus.Gpu]) -> Seat:
    return Seat(number, {"CUDA_VISIBLE_DEVICES": ",".join(gpu.word for gpu in some)}, "cuda:0")


def threads(order: Order, run: Run) -> int | None:
    """The threads that each worker of a run calculates with on a CPU: those asked for, else those that it
    began with, for others move sums in the last digits, else one a worker; None: as many as torch takes."""
    if order.threads is not None:
        return order.threads
    known = [one.packing.threads for one in scorings(run) if one.packing and one.packing.threads]
    if known and known[0] <= cores():
        return known[0]
    elsewhere = order.only or order.executor in CLUSTERS  # where machines may have other numbers of cores
    return 1 if order.workers is not None or elsewhere else None
