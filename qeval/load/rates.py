"""What GPUs calculate and hold, by their makers' data sheets, for predictions before one is rented."""

from __future__ import annotations

from dataclasses import dataclass

from qeval.base.errors import UsageError, did_you_mean

GIB = 2**30
HERE = "here"
"""What `--gpu` calls the device of this machine."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: the words by which a driver's name of it is known, its memory in GiB, its published TFLOP/s of
    dense products of 16-bit numbers added up in 32 bits, and where those are published."""

    words: tuple[str, ...]
    memory: int
    peak: float
    source: str
    measured: bool = False

    @property
    def bytes(self) -> int:
        """Its memory in bytes."""
        return self.memory * GIB


_ADA = "NVIDIA Ada GPU Architecture white paper, v2.1"
_AMPERE = "NVIDIA Ampere GA102 GPU Architecture white paper, v2"
GPUS: dict[str, Gpu] = {
    "h100": Gpu(("H100",), 80, 989.4, "NVIDIA H100 data sheet, SXM", measured=True),
    "h100-pcie": Gpu(("H100", "PCIe"), 80, 756, "NVIDIA H100 data sheet, PCIe"),
    "h200": Gpu(("H200",), 141, 989.4, "NVIDIA H200 data sheet, SXM", measured=True),
    "b200": Gpu(("B200",), 180, 2250, "NVIDIA DGX B200 data sheet, an eighth"),
    "a100": Gpu(("A100", "80GB"), 80, 312, "NVIDIA A100 data sheet"),
    "a100-40gb": Gpu(("A100", "40GB"), 40, 312, "NVIDIA A100 data sheet"),
    "l40s": Gpu(("L40S",), 48, 362, "NVIDIA L40S data sheet"),
    "l4": Gpu(("L4",), 24, 121, "NVIDIA L4 data sheet"),
    "a10": Gpu(("A10",), 24, 125, "NVIDIA A10 data sheet"),
    "rtx5090": Gpu(("RTX 5090",), 32, 209.5, "NVIDIA RTX Blackwell GPU Architecture white paper"),
    "rtx4090": Gpu(("RTX 4090",), 24, 165.2, _ADA),
    "rtx3090": Gpu(("RTX 3090",), 24, 71, _AMPERE),
    "a6000": Gpu(("RTX A6000",), 48, 154.8, _AMPERE),
    "v100": Gpu(("V100",), 32, 125, "NVIDIA V100 data sheet, SXM2"),
    "t4": Gpu(("T4",), 16, 65, "NVIDIA T4 data sheet"),
}
"""By the words of `--gpu`. Peaks are dense: half of what is told with sparsity."""


def named(word: str) -> Gpu:
    """The GPU of that name. Raises UsageError where none is known."""
    found = GPUS.get(word.lower().replace("_", "-").replace(" ", ""))
    if found is None:
        names = (*GPUS, HERE)
        raise UsageError(f"No figures are known for a GPU {word!r}.", did_you_mean(word, names))
    return found


def by_driver(driver: str) -> tuple[str, Gpu] | None:
    """The GPU that a driver calls so, with its name here; the one that most words fit. None: none does."""
    told = driver.replace("-", " ").split()
    fitting = [
        (len(gpu.words), name)
        for name, gpu in GPUS.items()
        if all(set(word.split()) <= set(told) for word in gpu.words)
    ]
    if not fitting:
        return None
    name = max(fitting)[1]
    return name, GPUS[name]
