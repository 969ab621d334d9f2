"""A process that counts what a plan's variants would calculate, and says how long it takes, in JSON."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from qeval.base.errors import QevalError
from qeval.base.messages import Job
from qeval.base.packing import Packing
from qeval.load import rates
from qeval.load.device import resolve_device
from qeval.load.placement import Room, place, sizes_of
from qeval.score import forecast, prospect
from qeval.score.counts import counted
from qeval.score.fidelity import prospect as fidelity
from qeval.score.forecast import Phases
from qeval.score.inputs import questions
from qeval.score.packing import decide, packing_of
from qeval.score.verify import Proof
from qeval.score.worker import import_libraries


class Asked(msgspec.Struct, frozen=True):
    """The jobs of a plan's variants, the baseline first, and the GPU that is meant: a name of `load.rates`,
    or `rates.HERE` for the device of this machine. `memory`: the most of a GPU that is taken."""

    jobs: tuple[Job, ...]
    gpu: str
    memory: int | None = None


class Forecast(msgspec.Struct, frozen=True):
    """What a variant is predicted to take: seconds by phase, of scoring also by row, the tokens that go
    through the model of how many there are in all requests, and the items there are of each leaf task."""

    variant: str
    seconds: Phases
    rows: dict[str, float]
    fed: int
    tokens: int
    items: dict[str, int]


class Told(msgspec.Struct, frozen=True):
    """The forecasts and where the rate comes from, or why there are none."""

    forecasts: tuple[Forecast, ...] = ()
    how: str = ""
    message: str = ""
    hint: str = ""


def tell(asked: Asked) -> Told:
    """The forecasts of the variants, one after the other. Raises what `inputs.questions` raises, and
    QevalError for a model whose files do not tell its size."""
    found, how = [], ""
    if asked.gpu == rates.HERE:
        import_libraries()  # as a run's first worker does, so that the clock has seen what that takes here
    for turn, job in enumerate(asked.jobs):
        one, how = _forecast(job, asked, first=turn == 0)
        found.append(one)
    return Told(tuple(found), how)


def _forecast(job: Job, asked: Asked, *, first: bool) -> tuple[Forecast, str]:
    elsewhere = asked.gpu != rates.HERE
    device = "cuda:0" if elsewhere else resolve_device("auto")
    job = msgspec.structs.replace(job, settings=replace(job.settings, device=device))
    model = prospect.shape_of(job)
    if model is None:
        raise QevalError(
            f"The files of {job.variant.model} do not say how large the model is.",
            "Name a directory with config.json and weights, or leave out --gpu.",
        )
    prepared = questions(job, lambda _: None)
    tokens = sum(len(request.tokens) for part in prepared for request in part.requests)
    packing = _elsewhere(job, asked, tokens) if elsewhere else decide(job, tokens)
    proof = Proof(job.verify, job.settings.seed)
    proof.choose(prepared)
    work = counted(prepared, packing, verify=proof, vocabulary=model.vocabulary)
    speed = forecast.of_gpu(rates.named(asked.gpu)) if elsewhere else None
    speed = speed or prospect.speed_here(job, model, model.flops(work.scoring))
    leaves = len(prepared)
    rest = prospect.after_questions(
        job, work, model, speed, packing, leaves, first=first, elsewhere=elsewhere
    )
    if beside := fidelity.expected(job, model, speed):
        rest["fidelity"] = beside
    rows = {name: forecast.scoring(row, model, speed, packing) for name, row in work.rows.items()}
    whole = forecast.whole(work, leaves, speed, rest, first=first)
    items = {part.task.name: part.n_available for part in prepared}
    return Forecast(job.variant.name, whole, rows, work.scoring.fed, tokens, items), speed.how


def _elsewhere(job: Job, asked: Asked, tokens: int) -> Packing:
    """The packing on a GPU that is not here, with as much host memory as it takes."""
    gpu = rates.named(asked.gpu)
    total = min(gpu.bytes, asked.memory or gpu.bytes)
    settings = job.settings
    sizes = sizes_of(job.variant, settings.dtype, settings.device, Path(job.cache_dir))
    where = place(job.variant, sizes, Room(total, None), settings.placement)
    return packing_of(job, tokens, where, settings.device, kind=asked.gpu, total=total, threads=0)


def main() -> None:
    """Read what is asked and answer; what libraries print goes to standard error."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    try:
        told = tell(asked)
    except QevalError as error:
        told = Told(message=error.message, hint=error.hint)
    pipe.write(msgspec.json.encode(told))
    pipe.flush()
    os._exit(0)  # libraries take seconds to be taken down


if __name__ == "__main__":
    main()
