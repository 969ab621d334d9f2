"""How a variant is fed, decided before it is loaded: from its configuration and the device alone."""

from __future__ import annotations

from pathlib import Path

from qeval.base.messages import Job
from qeval.base.packing import Packing
from qeval.load.device import device_kind, gpu_total, resolve_dtypes, threads
from qeval.load.memory import host_bytes, weights
from qeval.load.model import base_of
from qeval.load.placement import BYTES, Placement, Room, place, sizes_of
from qeval.load.schemes import SCHEMES
from qeval.load.source import read_config
from qeval.score.engine import memory, shards


def placed(job: Job) -> Placement:
    """Where the weights of a job's variant will lie, by the memory of its device and of this machine."""
    settings = job.settings
    gpu = gpu_total(settings.device) if settings.device.startswith("cuda") else None
    sizes = sizes_of(job.variant, settings.dtype, settings.device, Path(job.cache_dir))
    return place(
        job.variant,
        sizes,
        Room(gpu, host_bytes()),
        settings.placement,
        materialize=settings.materialize,
        gpus=settings.gpus,
    )


def decide(job: Job, tokens: int) -> Packing:
    """The packing of a job's variant, of all whose requests hold so many `tokens` counted one by one.

    Weights are taken for unpacked where they are scored so, and all schemes of a model are fed alike then.
    What a run found out before about the same packing (the rung, shards that do not fit) is taken over; half
    of it too, where memory ran out.
    """
    device = job.settings.device
    found = packing_of(
        job,
        tokens,
        placed(job),
        device,
        kind=device_kind(device),
        total=memory.total_memory(device),
        threads=threads(device),
    )
    known = job.packing
    return known if known is not None and (found.same_as(known) or found.halved.same_as(known)) else found


def packing_of(
    job: Job, tokens: int, where: Placement, device: str, *, kind: str, total: int, threads: int
) -> Packing:
    """The packing on a device that need not be here: its `kind` and `total` memory in bytes."""
    settings = job.settings
    source = base_of(job.variant, Path(job.cache_dir))
    config = read_config(source)
    size = BYTES[resolve_dtypes(SCHEMES[job.variant.scheme.kind], settings.dtype, device)[1]]
    on_gpu = device.startswith("cuda")
    count = int(weights(source)) if on_gpu else 0
    limits = memory.limits_of(
        device.partition(":")[0],
        total,
        (where.on_device or count * size) if on_gpu else 0,
        memory.token_bytes(config.get("text_config") or config, size),
        batch_size=None if settings.batch_size == "auto" else int(settings.batch_size),
    )
    compiled = memory.compiling_pays(device.partition(":")[0], count, tokens)
    return Packing(
        device=kind,
        threads=threads,
        budget=limits.budget,
        batch_size=limits.batch_size,
        shard=shards.PASSES,
        compiled=compiled,
        by_block=compiled,
    )


def in_words(packing: Packing, *, tokens: bool) -> list[str]:
    """A sentence for each task of which memory did not hold a shard; `tokens`: sizes count tokens, not
    sequences."""
    least: dict[str, int] = {}
    usual = packing.budget if tokens else packing.batch_size
    for one in packing.smaller:
        for task in one.tasks if one.size < usual else ():
            least[task] = min(one.size, least.get(task, one.size))
    unit = "tokens" if tokens else "sequences"
    return [
        f"Memory ran out in {task}: some of it was fed in pieces of at most {size} {unit}, which moves sums"
        " in the last digits."
        for task, size in sorted(least.items())
    ]
