"""What a run would take in time, on the disk and in money, on a GPU that is named: a part of `qeval plan`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qeval.base.errors import QevalError, UsageError
from qeval.base.settings import Settings
from qeval.base.waiting import briefly

if TYPE_CHECKING:
    from qeval.ask.fidelity import FidelityWish
    from qeval.base.messages import FidelityJob, Job
    from qeval.base.records import Suite, Variant
    from qeval.score.counting import Forecast, Told

_WORKER = (sys.executable, "-m", "qeval.score.counting")
_COMMAND = 2.0  # seconds of the command itself: Python, hashing, the table


class Prediction(NamedTuple):
    """What variants would take: their forecasts, the bytes that each holds on the disk (None: not known), the
    GPU, where its rate comes from, and the price of an hour, if one was named."""

    told: Told
    disk: dict[str, int | None]
    gpu: str
    price: float | None

    @property
    def items(self) -> dict[str, int]:
        """How many items there are of each leaf task."""
        return self.told.forecasts[0].items

    @property
    def seconds(self) -> float:
        """Those of the whole command, one variant after the other."""
        return _COMMAND + sum(_whole(one) for one in self.told.forecasts)


def check(gpu: str | None, price: float | None, model: str | None) -> None:
    """Raise UsageError for words that make no sense together, before anything is counted."""
    from qeval.load.rates import named
    from qeval.load.toy import is_toy

    if price is not None and not 0 <= price < float("inf"):
        raise UsageError(f"An hour costs {price:g}?", "Write what an hour costs, e.g. --price-per-hour 2.49.")
    if gpu is None:
        if price is not None:
            raise UsageError("There is no time to price.", "Add --gpu, e.g. --gpu h100.")
        return
    if elsewhere(gpu):
        named(gpu)
    if model is None:
        raise UsageError("Time is predicted for a model, and none is named.", "Add --model.")
    if is_toy(model):
        raise UsageError("The toy takes too little time to predict.", "Leave out --gpu.")


def elsewhere(gpu: str | None) -> bool:
    """Whether a GPU is meant that need not be in this machine."""
    from qeval.load.rates import HERE

    return gpu is not None and gpu.lower() != HERE


def memory_of(gpu: str | None, asked: int | None) -> int | None:
    """The memory in bytes that placement goes by: the named GPU's, or less where less is asked for."""
    from qeval.load.rates import named

    if gpu is None or not elsewhere(gpu):
        return asked
    return min(named(gpu).bytes, asked or named(gpu).bytes)


def predict(
    variants: Sequence[Variant],
    suite: Suite,
    settings: Settings,
    *,
    gpu: str,
    memory: int | None,
    price: float | None,
    verify: int,
    own: Path | None = None,
    fidelity: FidelityWish | None = None,
) -> Prediction:
    """What the variants would take, the baseline first. Raises QevalError where tokens cannot be counted."""
    beside = _beside(fidelity, variants[0])
    jobs = tuple(_job(variant, suite, settings, verify, own, beside) for variant in variants)
    told = _counted(jobs, gpu, memory)
    disk = {job.variant.name: _disk(job) for job in jobs}
    return Prediction(told, disk, gpu, price)


def _beside(wish: FidelityWish | None, baseline: Variant) -> FidelityJob | None:
    """What is measured of fidelity, as the jobs of a run have it."""
    from qeval.base.messages import FidelityJob
    from qeval.store.inputs import LIMIT

    if wish is None or not wish.protocols:
        return None
    return FidelityJob(wish.protocols, wish.on_gpu, baseline.name, {}, wish.cache_limit or LIMIT)


def _job(
    variant: Variant,
    suite: Suite,
    settings: Settings,
    verify: int,
    own: Path | None,
    beside: FidelityJob | None,
) -> Job:
    from qeval.base.messages import Job
    from qeval.base.places import cache_dir, tasks_dir

    return Job(
        runs_dir="",
        run_id="",
        variant=variant,
        identity={},
        context={},
        tasks=suite.tasks,
        settings=settings,
        tasks_dir=str(tasks_dir()),
        cache_dir=str(cache_dir()),
        log="",
        verify=verify,
        own_tasks=str(own) if own else None,
        fidelity=beside,
    )


def _counted(jobs: tuple[Job, ...], gpu: str, memory: int | None) -> Told:
    """The answer of a process of its own, for what it imports takes long and is heavy."""
    import msgspec

    from qeval.score.counting import Asked, Told

    _check_data(jobs[0])
    asked = msgspec.json.encode(Asked(jobs, gpu.lower(), memory))
    done = subprocess.run(_WORKER, input=asked, capture_output=True, check=False, env=briefly(os.environ))
    if not done.stdout:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["It said nothing."]
        raise QevalError(
            f"Tokens could not be counted: {last[0][:300]}", "qeval doctor shows what is missing."
        )
    told = msgspec.json.decode(done.stdout, type=Told)
    if told.message:
        raise QevalError(told.message, told.hint)
    return told


def _check_data(job: Job) -> None:
    """Refuse to build the questions of a job of which data sets are missing. Raises QevalError."""
    from qeval.score.harness.absent import Reads, missing

    mirror, own = (Path(place) if place else None for place in (job.settings.datasets_dir, job.own_tasks))
    error = missing(Reads(job.tasks, own, Path(job.cache_dir), mirror))
    if error is not None:
        raise error


def _disk(job: Job) -> int | None:
    """Bytes of a variant's weight files, and of the checkpoint that is made of them."""
    from qeval.base.places import cache_dir
    from qeval.load.memory import USUAL_BITS, weights
    from qeval.load.model import base_of, read_from
    from qeval.load.resolve import made_here
    from qeval.load.schemes import SCHEMES
    from qeval.load.source import weight_files_bytes

    files = weight_files_bytes(read_from(job.variant, cache_dir()))
    if files is None or not made_here(job.variant):
        return files
    bits = SCHEMES[job.variant.scheme.kind].weight_bits or USUAL_BITS
    return files + int(weights(base_of(job.variant, cache_dir())) * bits / 8)


def _whole(one: Forecast) -> float:
    return sum(one.seconds.values())


# --- for a person and a machine


def table(found: Prediction, width: int | None = None) -> str:
    """A row for each variant and one for all, in so many columns; the sentences on where it comes from."""
    from qeval.base import layout, numbers
    from qeval.base.layout import Column

    head = [
        "variant",
        "time",
        "scoring",
        "before",
        "disk",
        *(["price"] if found.price is not None else []),
    ]
    rows = [
        [
            one.variant,
            numbers.duration(_whole(one)),
            numbers.duration(one.seconds.get("scoring", 0.0)),
            numbers.duration(_before(one)),
            numbers.size(found.disk[one.variant]),
            *_price(found.price, _whole(one)),
        ]
        for one in found.told.forecasts
    ]
    rows.append(["all", numbers.duration(found.seconds), "", "", "", *_price(found.price, found.seconds)])
    goes = {"scoring": 2, "before": 1}
    columns = [Column(title, goes=goes.get(title, 0), leads=title == "variant") for title in head]
    text = layout.table(columns, [[str(cell) for cell in row] for row in rows], width)
    return f"{text}\n\n{_sentence(found)}"


def _before(one: Forecast) -> float:
    """Seconds before the first answer."""
    later = ("scoring", "verifying", "storing", "costs", "fidelity")
    return sum(seconds for name, seconds in one.seconds.items() if name not in later)


def _price(price: float | None, seconds: float) -> list[str]:
    return [] if price is None else [f"{price * seconds / 3600:.2f}"]


def _sentence(found: Prediction) -> str:
    from qeval.load.rates import named

    where = f"on one {found.gpu}" if elsewhere(found.gpu) else "here"
    told = f"Time is that of one run {where}, without a download, at a rate {found.told.how}"
    if elsewhere(found.gpu) and not named(found.gpu).measured:
        told += f" ({named(found.gpu).peak:g} TFLOP/s, {named(found.gpu).source})"
    return f"{told}."


def document(found: Prediction) -> dict[str, Any]:
    """The same as JSON-able data: seconds, bytes, and money in the unit of the price."""
    return {
        "gpu": found.gpu,
        "rate": found.told.how,
        "seconds": found.seconds,
        "price": None if found.price is None else found.price * found.seconds / 3600,
        "variants": [
            {
                "variant": one.variant,
                "seconds": _whole(one),
                "phases": one.seconds,
                "rows": one.rows,
                "tokens": one.tokens,
                "fed": one.fed,
                "disk": found.disk[one.variant],
                "price": None if found.price is None else found.price * _whole(one) / 3600,
            }
            for one in found.told.forecasts
        ],
    }


def settings_of(
    limit: int | None, datasets_dir: Path | None, placement: str, memory: int | None, gpus: int = 1
) -> Settings:
    """How the run would be asked for."""
    place = str(datasets_dir.resolve()) if datasets_dir else None
    return Settings(limit=limit, datasets_dir=place, placement=placement, gpu_memory=memory, gpus=gpus)
