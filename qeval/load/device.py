"""The device that is calculated on, and the types that are calculated in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qeval.base.errors import LostDeviceError, UsageError
from qeval.load.spec import SchemeSpec

DTYPES = {
    "auto": "auto",
    "fp16": "float16",
    "float16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp32": "float32",
    "float32": "float32",
}
"""What `--dtype` takes, and torch's names."""


_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
"""What `--device` takes."""
NODES = Path("/dev")
"""Where a driver's devices stand."""


def check_device(asked: str) -> None:
    """Raise UsageError for what is no device on any machine, and for Apple's. Imports no torch."""
    if asked.partition(":")[0] == "mps":
        raise UsageError(
            "Apple's GPUs (mps) are not used: their numbers were never checked against a CPU's.",
            "Use --device cpu.",
        )
    if not _DEVICE.fullmatch(asked):
        raise UsageError(
            f"There is no device {asked!r} here.", "Use auto or cpu; qeval doctor shows what there is."
        )


def check_dtype(asked: str) -> None:
    """Raise UsageError for what is no type to calculate in."""
    if asked not in DTYPES:
        raise UsageError(f"There is no dtype {asked!r}.", f"Use one of: {', '.join(DTYPES)}.")


def resolve_device(asked: str) -> str:
    """A torch device name; auto is the first NVIDIA GPU if there is one. Raises LostDeviceError for one that
    is not here, and what `check_device` raises."""
    check_device(asked)
    if asked == "cpu":
        return asked
    import torch

    if asked == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise LostDeviceError(
            f"There is no device {asked!r} here.", "Use auto or cpu; qeval doctor shows what there is."
        ) from error
    return "cuda:0" if asked == "cuda" else asked


def overlooked() -> str | None:
    """A sentence where this machine has an NVIDIA GPU that torch cannot use, so that auto means the CPU."""
    import torch

    if torch.cuda.is_available() or not any(NODES.glob("nvidia[0-9]*")):
        return None
    why = "its driver does not answer" if torch.version.cuda else "torch is installed without CUDA"
    return f"There is an NVIDIA GPU, but {why}: the CPU calculates. qeval doctor shows what is found."


def resolve_dtypes(spec: SchemeSpec, asked: str, device: str) -> tuple[str, str]:
    """What plain weights are rounded to, and what is calculated in. Raises UsageError for no type."""
    check_dtype(asked)
    wanted = DTYPES[asked]
    store = spec.dtype if wanted == "auto" or not spec.quantised else wanted
    if wanted != "auto":
        return store, wanted
    return store, "float32" if device == "cpu" else store


def limit_memory(device: str, most: int | None) -> None:
    """Let this process take at most so many bytes of a GPU; None: all. Raises UsageError where there is none
    to be limited."""
    if most is None:
        return
    if not device.startswith("cuda"):
        raise UsageError(f"--gpu-memory limits a GPU, and the device is {device}.", "Leave it out.")
    import torch

    _refuse_segments()
    torch.empty(1, device=device)  # settles how memory is taken; gptqmodel would have its say when imported
    share = most / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)


def _refuse_segments() -> None:
    """Keep torch from taking memory in segments that grow, which heed no limit."""
    asked = [name for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF") if os.environ.get(name)]
    for name in asked or ["PYTORCH_ALLOC_CONF"]:
        told = os.environ.get(name, "").replace("expandable_segments:True", "expandable_segments:False")
        os.environ[name] = told or "expandable_segments:False"


def gpu_total(device: str) -> int:
    """Bytes of a GPU's memory, as far as `limit_memory` lets this process take them."""
    import torch

    whole = torch.cuda.get_device_properties(device).total_memory
    share: float = torch.cuda.get_per_process_memory_fraction(device)
    return round(int(whole) * share)


def gpu_free(device: str) -> int:
    """Bytes of a GPU that this process can still take, what torch keeps for later included."""
    import torch

    taken, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return int(min(torch.cuda.mem_get_info(device)[0] + kept, gpu_total(device)) - taken)


def device_name(device: str) -> str:
    """What a device is, in words a reader of a report knows."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    if device != "cpu":
        return device
    return f"CPU: {_cpu_name()}"


def device_kind(device: str) -> str:
    """What of a device decides how sums are rounded: a GPU's name, a CPU's instruction set."""
    if device != "cpu":
        return device_name(device)
    import torch

    return f"CPU {torch.backends.cpu.get_cpu_capability()}"


def threads(device: str) -> int:
    """The threads that share a sum on a CPU; 0 on other devices."""
    import torch

    return torch.get_num_threads() if device == "cpu" else 0


def take_threads(count: int | None) -> None:
    """Have sums on a CPU shared by so many threads; None: by as many as torch takes."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _cpu_name() -> str:
    import os
    import platform

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    found = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{found}, {os.cpu_count()} cores"
