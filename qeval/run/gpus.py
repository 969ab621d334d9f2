"""The NVIDIA GPUs of this machine as its driver tells of them, without torch, and which of them are meant."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qeval.base.errors import QevalError, UsageError

_QUERY = "index,uuid,name,memory.total,memory.used"
_FREE = 0.05
"""The share of a GPU's memory that a driver, or a screen, takes of one that is idle."""
_SECONDS = 30.0


@dataclass(frozen=True)
class Gpu:
    """A GPU: what CUDA_VISIBLE_DEVICES calls it, its name and memory (MiB), whether somebody is at it, and
    whether it is dead, for the driver lists others only."""

    word: str
    name: str = ""
    memory: int = 0
    busy: bool = False
    dead: bool = False


def assigned(environment: Mapping[str, str] = os.environ) -> str | None:
    """The name of the variable by which a person or a scheduler set the GPUs that are to be used, if any."""
    names = ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
    return next((name for name in names if environment.get(name) is not None), None)


def visible(environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs that a process of this environment sees, in its order; one that the driver does not know of is
    told of by its word alone."""
    there = _listed()
    name = assigned(environment)
    if name is None:
        return tuple(gpu for _, gpu in there)
    words = [word.strip() for word in environment[name].split(",") if word.strip()]
    if name != "CUDA_VISIBLE_DEVICES" and len(words) == len(there):
        return tuple(gpu for _, gpu in there)  # numbered anew for this job
    return tuple(_by_word(word, there) for word in words if word != "-1")


def chosen(asked: str, there: Sequence[Gpu]) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs of `--devices`: "all" that are idle and like the first of these, or those of the numbers; and
    a sentence on those left out, perhaps empty. Raises UsageError for one that is not there."""
    if asked == "all":
        return alike([gpu for gpu in there if not gpu.busy and not gpu.dead], there)
    numbers = _numbers(asked)
    if not there:
        raise UsageError("No GPU is found here.", "Leave out --devices; qeval doctor shows what there is.")
    for number in numbers:
        if number >= len(there):
            known = ", ".join(map(str, range(len(there))))
            raise UsageError(f"There is no GPU {number} here.", f"There are: {known}.")
    found = tuple(there[number] for number in numbers)
    if len(kinds := {(gpu.name, gpu.memory) for gpu in found if not gpu.dead}) > 1:
        names = ", ".join(sorted(name for name, _ in kinds))
        raise UsageError(
            f"--devices {asked} names different GPUs ({names}), whose numbers differ in the last digits.",
            "Name GPUs of one kind.",
        )
    return found, ""


def alike(idle: Sequence[Gpu], there: Sequence[Gpu]) -> tuple[tuple[Gpu, ...], str]:
    """The idle GPUs of the first one's kind, and a sentence on the others. Raises QevalError for none."""
    if not there:
        raise UsageError("No GPU is found here.", "Leave out --devices; qeval doctor shows what there is.")
    if not idle:
        raise QevalError("Every GPU here is busy.", "Wait, or name those to be used: --devices 0,1.")
    kind = (idle[0].name, idle[0].memory)
    same = tuple(gpu for gpu in idle if (gpu.name, gpu.memory) == kind)
    dead = sum(gpu.dead for gpu in there)
    counts = {"dead": dead, "busy": len(there) - len(idle) - dead, "of another kind": len(idle) - len(same)}
    left = [f"{count} {what}" for what, count in counts.items() if count]
    return same, f"Left alone: {', '.join(left)}." if left else ""


def _numbers(asked: str) -> list[int]:
    """The numbers of `--devices 0,1`. Raises UsageError for other words."""
    words = [word.strip() for word in asked.split(",")]
    if not all(word.isdigit() for word in words):
        raise UsageError(f"--devices {asked!r} is not a list of numbers.", "Write all, or e.g. 0,1.")
    if len(set(words)) < len(words):
        raise UsageError(f"--devices {asked} names a GPU twice.", "Name each once.")
    return [int(word) for word in words]


def _listed() -> list[tuple[int, Gpu]]:
    """What the driver lists, by its numbers; nothing where there is none, or it does not answer."""
    text = _asked("--query-gpu=" + _QUERY)
    at_work = set(_asked("--query-compute-apps=gpu_uuid").split())
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == len(_QUERY.split(",")) and parts[0].isdigit():
            index, uuid, name, total, used = parts
            memory = int(total) if total.isdigit() else 0
            taken = int(used) if used.isdigit() else 0
            found.append((int(index), Gpu(uuid, name, memory, uuid in at_work or taken > _FREE * memory)))
    return found


def _asked(query: str) -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    try:
        done = subprocess.run(
            [command, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _by_word(word: str, there: Sequence[tuple[int, Gpu]]) -> Gpu:
    """The GPU that a word of CUDA_VISIBLE_DEVICES means, called so."""
    for index, gpu in there:
        if (word.isdigit() and int(word) == index) or (word.startswith("GPU-") and gpu.word.startswith(word)):
            return Gpu(word, gpu.name, gpu.memory, gpu.busy)
    return Gpu(word, dead=bool(there) and not word.startswith("MIG-"))
