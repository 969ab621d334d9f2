"""How many workers this machine's memory has room for, where each holds the weights of its variant in it."""

from __future__ import annotations

from qeval.ask.order import Order
from qeval.base.errors import QevalError
from qeval.base.numbers import size
from qeval.base.records import Variant
from qeval.load import memory
from qeval.load.placement import Room, place, sizes_of
from qeval.run import gpus
from qeval.run.seats import Seats

_MIB = 2**20


def holding(order: Order, places: Seats) -> Seats:
    """As many of the seats as host memory holds the weights of, at the most that any variant keeps there, and
    a sentence where those are fewer. One is left in any case: a variant that does not fit alone is told of
    by its worker."""
    if len(places.all) < 2:  # noqa: PLR2004 - one is no plan
        return places
    try:
        held = {
            variant.name: held_of(order, variant, on_gpu=bool(places.all[0].device))
            for variant in order.variants
        }
    except QevalError:
        return places  # what is wrong with the model is told where it is read
    name = max(held, key=held.__getitem__)
    host = memory.host_bytes()
    room = max(1, host // held[name]) if held[name] else len(places.all)
    if room >= len(places.all):
        return places
    begun = f"{room} of {len(places.all)} workers {'is' if room == 1 else 'are'} begun"
    said = f"{begun}: each may hold {size(held[name])} of host memory ({name}), and there are {size(host)}."
    return Seats(places.all[:room], f"{places.note} {said}".strip())


def held_of(order: Order, variant: Variant, *, on_gpu: bool) -> int:
    """Bytes of host memory that a worker of a variant takes for its weights: on a CPU all, on a GPU what is
    streamed; 0 where its files do not tell. Raises what reading the model's files raises."""
    settings = order.settings
    if settings.gpus > 1:
        return 0  # they pass through, and lie on GPUs
    sizes = sizes_of(variant, settings.dtype, "cuda" if on_gpu else "cpu", order.cache_dir)
    if sizes is None:
        return 0
    if not on_gpu:
        return sizes.packed
    there = [gpu.memory * _MIB for gpu in gpus.visible() if gpu.memory]
    limits = [*there[:1], *([settings.gpu_memory] if settings.gpu_memory else [])]
    where = place(
        variant,
        sizes,
        Room(min(limits, default=None), None),
        settings.placement,
        materialize=settings.materialize,
    )
    return sizes.packed if where.streamed else 0
