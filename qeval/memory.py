"""Whether a model fits into memory, estimated before its weights are read."""

from __future__ import annotations

from pathlib import Path

from qeval.errors import QevalError
from qeval.schemes.spec import Order, SchemeSpec
from qeval.sources import read_config, weight_files_bytes

SPARE = 1.1
"""Room for buffers and activations beyond the weights."""
GIB = 2**30
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_fits(order: Order, spec: SchemeSpec) -> None:
    """Raise QevalError where the weights will not fit; silent where their size cannot be told."""
    needed = estimate(order, spec)
    free = free_bytes(order.device)
    if needed is not None and free is not None and needed > free:
        raise QevalError(
            f"{order.source.path} as {spec.name} needs about {needed / GIB:.1f} GiB of memory, and"
            f" {order.device} has {free / GIB:.1f} GiB free.",
            "Use a machine with more memory, a smaller model, or a scheme of fewer bits.",
        )


def estimate(order: Order, spec: SchemeSpec) -> int | None:
    """Bytes that loading takes at its peak, None where the weight files' size is not known.

    A ready checkpoint takes its files' size. Otherwise the files tell the number of weights, each of
    which takes the compute type's bytes, or the scheme's bits where the library quantises on the way in;
    a scheme that quantises here first holds the plain model.
    """
    files = weight_files_bytes(order.source)
    if files is None:
        return None
    if order.ready:
        return int(files * SPARE)
    count = files / _BYTES.get(str(read_config(order.source).get("dtype") or _torch_dtype(order)), 2)
    each: float = max(_BYTES[order.compute], _BYTES[order.store])
    if spec.weight_bits is not None and spec.make is None and order.device != "cpu":
        each = spec.weight_bits / 8
    return int(count * each * SPARE)


def _torch_dtype(order: Order) -> str:
    return str(read_config(order.source).get("torch_dtype") or "float16")


def free_bytes(device: str) -> int | None:
    """Free memory of a device, None where it cannot be told."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if device != "cpu":
        return None
    import psutil  # type: ignore[import-untyped]  # a dependency of accelerate

    free = int(psutil.virtual_memory().available)
    for limit in _CGROUPS:  # a container may be allowed less than the machine has
        try:
            free = min(free, int(limit.read_text("utf-8")))
        except (OSError, ValueError):
            continue
    return free
