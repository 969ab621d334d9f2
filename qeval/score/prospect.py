"""What a job will take: its questions counted, its device's rate looked up or measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base.messages import Expected, Job
from qeval.base.packing import Packing
from qeval.base.places import CHECKPOINTS
from qeval.base.work import Counted
from qeval.load import rates
from qeval.load.device import device_name, resolve_dtypes, threads
from qeval.load.making.checkpoint import calibration_of
from qeval.load.memory import weights
from qeval.load.model import base_of, read_from
from qeval.load.resolve import made_here
from qeval.load.schemes import SCHEMES
from qeval.load.source import read_config, weight_files_bytes
from qeval.score import forecast, probe
from qeval.score.clock import CLOCK
from qeval.score.counts import counted
from qeval.score.fidelity import prospect as fidelity
from qeval.score.verify import Proof

if TYPE_CHECKING:
    from qeval.score.harness.prepared import PreparedTask

USUAL_CPU = probe.Parts(body=1e11, attention=1e11, head=1e11, compared=5e10, reading=5e9)
"""What a CPU is taken to reach where there is so little to do that it is not measured."""
WORTH_MEASURING = 10.0
"""Seconds of scoring at that rate from which on it is."""


def expected(
    job: Job, prepared: Sequence[PreparedTask], wanted: Collection[str], packing: Packing, proof: Proof
) -> Expected | None:
    """What is still to come of a job whose questions are there, of the `wanted` leaf tasks; None where
    nothing is known of its model's arithmetic, or lm-eval's own code scores."""
    model = shape_of(job)
    if model is None or job.settings.engine != "tree":
        return None
    work = counted(prepared, packing, wanted=wanted, verify=proof, vocabulary=model.vocabulary)
    speed = speed_here(job, model, model.flops(work.scoring))
    rows = {name: forecast.scoring(row, model, speed, packing) for name, row in work.rows.items()}
    phases = after_questions(job, work, model, speed, packing, len(wanted))
    if beside := fidelity.expected(job, model, speed):
        phases["fidelity"] = beside
    return Expected(
        phases, speed.how, _by_leaf(rows, [part for part in prepared if part.task.name in wanted])
    )


def _by_leaf(rows: Mapping[str, float], parts: Sequence[PreparedTask]) -> dict[str, float]:
    """The seconds of rows shared among their leaf tasks by requests."""
    sizes = {part.task.name: max(len(part.requests), part.n) for part in parts}
    whole: dict[str, int] = {}
    for part in parts:
        row = part.task.group or part.task.name
        whole[row] = whole.get(row, 0) + sizes[part.task.name]
    return {
        part.task.name: rows[row] * sizes[part.task.name] / max(whole[row], 1)
        for part in parts
        for row in [part.task.group or part.task.name]
    }


def shape_of(job: Job) -> forecast.Shape | None:
    """The arithmetic of a job's model, by its files."""
    base = base_of(job.variant, Path(job.cache_dir))
    return forecast.shape(read_config(base), weights(base))


def after_questions(
    job: Job,
    work: Counted,
    model: forecast.Shape,
    speed: forecast.Speed,
    packing: Packing,
    leaves: int,
    *,
    first: bool = True,
    elsewhere: bool = False,
) -> forecast.Phases:
    """Seconds by phase; `elsewhere`: on a machine that has none of this one's checkpoints."""
    spec = SCHEMES[job.variant.scheme.kind]
    return forecast.after_questions(
        work,
        model,
        speed,
        packing,
        weights=bytes_of(job),
        spec=spec,
        made=made_here(job.variant) and (elsewhere or not _kept(job)),
        leaves=leaves,
        first=first,
        calibrated=_calibrated(job),
    )


def _calibrated(job: Job) -> int:
    """The tokens that a checkpoint of a job's variant is calibrated on, if it is made here."""
    told = SCHEMES[job.variant.scheme.kind].complete(job.variant.scheme.options)
    if "samples" not in told:
        return forecast.USUAL_TOKENS
    text = calibration_of(job.variant.model, told)
    return text.samples * text.length


def _kept(job: Job) -> bool:
    """Whether a checkpoint of this model and scheme was made here before, with whatever options."""
    slug = "".join(char if char.isalnum() else "-" for char in Path(job.variant.model).name.lower())
    return any((Path(job.cache_dir) / CHECKPOINTS).glob(f"{slug}-{job.variant.scheme.kind}-*"))


def bytes_of(job: Job) -> int:
    """Bytes of the weight files that a variant is read from; 0 where they cannot be told."""
    return weight_files_bytes(read_from(job.variant, Path(job.cache_dir))) or 0


def speed_here(job: Job, model: forecast.Shape, flops: float) -> forecast.Speed:
    """The speed of the device that a job is scored on; of a CPU, or a GPU without figures, by a measurement,
    unless there is little to do."""
    device = job.settings.device
    dtype = resolve_dtypes(SCHEMES[job.variant.scheme.kind], job.settings.dtype, device)[1]
    if device.startswith("cuda"):
        known = rates.by_driver(device_name(device))
        if known is not None:
            return forecast.of_gpu(known[1])
        return forecast.of_gpu_here(probe.products(device, model.width, model.inner, dtype))
    little = flops / USUAL_CPU.body < WORTH_MEASURING
    shape = (model.width, model.inner, model.heads, model.groups, model.vocabulary)
    parts = USUAL_CPU if little else probe.parts(*shape, dtype)
    free = probe.free_share(threads(device))
    starting = CLOCK.spent("starting")
    return forecast.of_cpu(parts, starting + CLOCK.spent("imports"), free, further=starting)
