"""What the variants of a model take in memory, and where their weights would lie: a part of `qeval plan`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qeval.base.errors import QevalError, UsageError

if TYPE_CHECKING:
    from qeval.base.records import Variant
    from qeval.load.placement import Placement, Sizes
    from qeval.run.seats import Seats

MIB = 2**20


class Need(NamedTuple):
    """A variant, its sizes (None where its files do not tell) and its placement. `chunk`: the bytes that
    scoring takes of a GPU beside the weights; None where there is none."""

    variant: Variant
    sizes: Sizes | None
    placement: Placement
    chunk: int | None = None


def needs(
    *,
    model: str | None,
    schemes: str,
    revision: str | None,
    placement: str,
    gpu_memory: int | None,
    gpus: int = 1,
    elsewhere: bool = False,
    on_cpu: bool = False,
) -> list[Need]:
    """What each variant takes; nothing without a model. `elsewhere`: on another machine, of which only the
    GPU's memory is known; `on_cpu`: whatever GPUs there are. Raises QevalError for the first that fits
    nowhere."""
    from qeval.load.toy import is_toy

    if model is None:
        if gpu_memory is not None or placement != "auto" or gpus > 1:
            raise UsageError("Memory is planned for a model, and none is named.", "Add --model.")
        return []
    variants = _variants(model, schemes, revision)
    if is_toy(model):
        _check_toy(model, gpus)
        return []
    if gpus > 1 and placement == "streamed":
        raise UsageError(
            "--gpus-per-variant and --placement streamed exclude each other.", "Leave one of them out."
        )
    found = [
        _need(variant, placement, gpu_memory, gpus, elsewhere=elsewhere, on_cpu=on_cpu)
        for variant in variants
    ]
    for need in found:
        if need.placement.refused is not None:
            raise need.placement.refused
    return found


def _variants(model: str, schemes: str, revision: str | None) -> list[Variant]:
    from qeval.ask.model import split_revision
    from qeval.base.records import Variant
    from qeval.load.checks import check_options
    from qeval.load.schemes import parse_schemes

    model, revision = split_revision(model, revision)
    found = [Variant(name, model, scheme, revision) for name, scheme in parse_schemes(schemes)]
    for variant in found:
        check_options(variant.scheme)
    return found


def _check_toy(model: str, gpus: int) -> None:
    """Raise UsageError for a toy that does not exist, and for what `qeval run` refuses it."""
    from qeval.ask.placing import check_spread
    from qeval.load.toy import parse

    parse(model)
    check_spread(model, {"gpus": gpus}, {})


def _need(
    variant: Variant, asked: str, gpu_memory: int | None, gpus: int, *, elsewhere: bool, on_cpu: bool
) -> Need:
    from qeval.base.places import cache_dir
    from qeval.load.memory import host_bytes
    from qeval.load.placement import Room, place, sizes_of

    here = None if elsewhere or on_cpu else gpu_here()
    gpu = min(here or gpu_memory, gpu_memory) if gpu_memory and not on_cpu else here
    host = None if elsewhere else host_bytes()
    sizes = sizes_of(variant, "auto", "cuda" if gpu else "cpu", cache_dir())
    where = place(variant, sizes, Room(gpu, host), asked, gpus=gpus)
    fed = gpu is not None and sizes is not None and where.refused is None
    return Need(variant, sizes, where, _chunk(variant, where, gpu or 0) if fed else None)


def _chunk(variant: Variant, where: Placement, gpu: int) -> int:
    """What scoring takes of a GPU of so many bytes beside a variant's weights, by the chunks that it would be
    fed in."""
    from qeval.base.places import cache_dir
    from qeval.load.device import resolve_dtypes
    from qeval.load.model import base_of
    from qeval.load.placement import BYTES
    from qeval.load.schemes import SCHEMES
    from qeval.load.source import read_config
    from qeval.score.engine import memory

    config = read_config(base_of(variant, cache_dir()))
    text = config.get("text_config") or config
    size = BYTES[resolve_dtypes(SCHEMES[variant.scheme.kind], "auto", "cuda")[1]]
    limits = memory.limits_of("cuda", gpu, where.on_device, memory.token_bytes(text, size))
    return memory.chunk_bytes(text, size, limits.budget)


def workers_begun(
    variants: Sequence[Variant], wanted: Mapping[str, Any], devices: str | None, workers: int | None
) -> Seats | None:
    """The workers that `qeval run` would begin here with these words, and what it would say of them, by the
    very function that it asks. None where no variant is planned, or for variants of several GPUs each, which
    need not be here. Raises QevalError where the run would, if these words say where."""
    from qeval.ask.order import Order
    from qeval.base.places import cache_dir
    from qeval.base.records import Suite, Task
    from qeval.base.settings import Settings
    from qeval.run import room, seats

    if not variants or (wanted["gpus"] > 1 and devices is None):
        return None
    order = Order(
        variants=tuple(variants),
        baseline=variants[0].name,
        suite=Suite("", (Task("", ""),)),  # of some task: what asks nothing takes no GPU
        settings=Settings(**{name: wanted[name] for name in ("placement", "gpu_memory", "gpus")}),
        runs_dir=Path(),
        cache_dir=cache_dir(),
        devices=devices,
        workers=workers,
    )
    try:
        return room.holding(order, seats.seats(order))
    except QevalError:
        if devices is None and workers is None:
            return None  # a plan need not be of this machine
        raise


def gpu_here() -> int | None:
    """Bytes of the first GPU of this machine, as its driver tells it; None where there is none."""
    command = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return int(told.split()[0]) * MIB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def table(found: Sequence[Need], width: int | None = None) -> str:
    """A row per variant in so many columns, and the sentences of what is streamed."""
    from qeval.base import layout, numbers
    from qeval.base.layout import Column

    head = ["variant", "weights", "on the device", "while scoring", "in host memory", "placement"]
    rows = [[need.variant.name, *map(numbers.size, _bytes(need).values()), _where(need)] for need in found]
    columns = [Column(title, leads=title == "variant") for title in head]
    text = layout.table(columns, [[str(cell) for cell in row] for row in rows], width)
    said = [f"{need.variant.name}: {need.placement.sentence}" for need in found if need.placement.sentence]
    note = "Weights count in the type that is calculated in, those of 4 bits too; a file may take less."
    return "\n\n".join([text, "\n".join([note, *said])])


def document(found: Sequence[Need]) -> list[dict[str, Any]]:
    """The same as JSON-able data; sizes in bytes, null where the files do not tell."""
    return [
        {
            "variant": need.variant.name,
            **_bytes(need),
            "placement": _where(need),
            "sentence": need.placement.sentence,
        }
        for need in found
    ]


def _where(need: Need) -> str:
    return need.placement.name or "resident"


def _bytes(need: Need) -> dict[str, int | None]:
    """All weights as they are calculated with, what of them lies on the device, what a GPU holds with what
    scoring takes, what of the weights lies in host memory."""
    sizes, where = need.sizes, need.placement
    if sizes is None:
        return dict.fromkeys(("weights", "on_device", "scoring", "in_host"))
    return {
        "weights": sizes.plain,
        "on_device": where.on_device,
        "scoring": None if need.chunk is None else where.on_device + need.chunk,
        "in_host": sizes.packed if where.streamed else 0,
    }


def workers_document(found: Seats | None) -> dict[str, Any]:
    """The workers that would be begun as JSON-able data, to stand beside the memory."""
    return {} if found is None else {"workers": {"begun": len(found.all), "sentence": found.note}}
