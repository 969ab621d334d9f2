"""Whether a model fits into memory, estimated before its weights are read."""

from __future__ import annotations

import sys
from pathlib import Path

from qeval.base.errors import QevalError
from qeval.load.device import gpu_free
from qeval.load.source import Source, read_config, weight_files_bytes
from qeval.load.spec import Recipe, SchemeSpec

SPARE = 1.1
"""Room for buffers and activations beyond the weights."""
USUAL_BITS = 4.5
"""Of a weight in quantised files of which nothing better is known: 4, and a 16-bit scale for every 32."""
_FEWEST_BITS = 2  # that any scheme has
GIB = 2**30
PROCESS_NOTE = "On a CPU, peak memory is that of the variant's whole process: libraries and loading included."
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_fits(recipe: Recipe, spec: SchemeSpec) -> None:
    """Raise QevalError where the weights will not fit where they are to lie; silent where their size cannot
    be told."""
    needed = estimate(recipe, spec)
    free = free_bytes(recipe.held)
    if needed is not None and free is not None and needed > free:
        raise QevalError(
            f"{recipe.source.path} as {spec.name} needs about {needed / GIB:.1f} GiB of memory, and"
            f" {recipe.held} has {free / GIB:.1f} GiB free.",
            _fitting(recipe, spec, free),
        )


def _fitting(recipe: Recipe, spec: SchemeSpec, free: int) -> str:
    """What would fit into so many bytes, to end an error."""
    if spec.make is not None and not recipe.ready:
        return (
            f"Make it where there is more memory, with qeval quantize, and name the directory:"
            f" {spec.name}@DIRECTORY."
        )
    count = weights(recipe.base)
    bits = 8 * free / SPARE / count if count else 0.0
    within = f"; at most {bits:.1f} of a weight would fit" if bits >= _FEWEST_BITS else ""
    return f"Use a machine with more memory, a smaller model, or a scheme of fewer bits{within}."


def estimate(recipe: Recipe, spec: SchemeSpec) -> int | None:
    """Bytes that loading takes at its peak, None where the weight files' size is not known.

    A ready checkpoint takes its files' size, and where it is unpacked the plain weights of the model as
    well: as many as the model's files tell, else as its own do. Otherwise the files tell the number of
    weights, each of which takes the compute type's bytes, or the scheme's bits where the library quantises on
    the way in; a scheme that quantises here first holds the plain model, and so does one that packs experts.
    """
    files = weight_files_bytes(recipe.source, str(recipe.options.get("file") or spec.files))
    if files is None:
        return None
    each: float = max(_BYTES[recipe.compute], _BYTES[recipe.store])
    if recipe.ready:
        count = weights(recipe.base) or 8 * files / (spec.weight_bits or USUAL_BITS)
        plain = count * each if spec.unpacks(recipe.options) else 0
        return int((files + plain) * SPARE)
    on_the_way = spec.make is None and recipe.device != "cpu" and not _is_mixture(recipe.source)
    if spec.weight_bits is not None and on_the_way:
        each = spec.weight_bits / 8
    return int(weights(recipe.source) * each * SPARE)


def _is_mixture(source: Source) -> bool:
    """Whether a model has stacks of experts, which are packed, if at all, once the plain model is loaded."""
    config = read_config(source)
    text = config.get("text_config") or config
    return any(text.get(name) for name in ("num_local_experts", "num_experts", "n_routed_experts"))


def weights(plain: Source) -> float:
    """The number of weights of a model that is not quantised, by its files; 0 where it cannot be told."""
    config = read_config(plain)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float16")
    return (weight_files_bytes(plain) or 0) / _BYTES.get(dtype, 2)


def free_bytes(device: str) -> int | None:
    """Free memory of a device, None where it cannot be told."""
    if device.startswith("cuda"):
        return gpu_free(device)
    if device != "cpu":
        return None
    import psutil  # type: ignore[import-untyped]  # a dependency of accelerate

    return min(int(psutil.virtual_memory().available), *_allowed())


def host_bytes() -> int:
    """The memory of this machine, as far as this process may use it."""
    import psutil

    return min(int(psutil.virtual_memory().total), *_allowed())


def _allowed() -> list[int]:
    """What a container allows, which may be less than the machine has."""
    found = [sys.maxsize]
    for limit in _CGROUPS:
        try:
            found.append(int(limit.read_text("utf-8")))
        except (OSError, ValueError):
            continue
    return found


def peak_bytes(device: str) -> int | None:
    """Bytes held at most so far: by tensors on a GPU, by the whole process on a CPU; None elsewhere."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return peak_of_process() if device == "cpu" else None


def forget_peak(device: str) -> None:
    """Let `peak_bytes` of a GPU begin anew, with what is held now; a process does not forget its own."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_of_process() -> int | None:
    """Bytes of memory that this process has held at most so far; None where the system does not tell.

    Linux tells it of the process itself; its ru_maxrss begins with what the parent process held.
    """
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        return _ru_maxrss()


def _ru_maxrss() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(found if sys.platform == "darwin" else found * 1024)  # bytes on macOS, KiB elsewhere
