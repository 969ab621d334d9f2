"""Where and by whom a run is scored: which words of the command go together."""

from __future__ import annotations

import os
from typing import Any, Literal

from qeval.base.errors import UsageError

CLUSTERS = frozenset({"slurm", "ray"})
"""Executors whose workers sit elsewhere: what this machine has does not count."""
_NEEDS = {"dry_run": "slurm", "sbatch_args": "slurm", "ray_address": "ray", "no_shared_store": "ray"}
"""Options that concern one executor alone."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check(executor: str, **asked: object) -> None:
    """Raise UsageError for words that an executor has no use for."""
    if asked.pop("wait") and executor != "slurm" and not asked["finish"]:
        raise UsageError(
            "--wait applies only to --executor slurm and --finish.", "Add one of them, or leave it out."
        )
    for name, value in asked.items():
        needed = _NEEDS.get(name)
        if value and needed is not None and executor != needed:
            raise UsageError(
                f"{_word(name)} concerns --executor {needed}.", f"Add it, or leave out {_word(name)}."
            )
        if value and needed is None and executor != "local":
            raise UsageError(
                f"{_word(name)} and --executor {executor} exclude each other.", "Leave one of them out."
            )


def check_fidelity(*, elsewhere: bool, fidelity: str | None, limit: int | None) -> None:
    """Raise UsageError where fidelity is asked of workers elsewhere: what it keeps lies on one machine."""
    if elsewhere and (fidelity not in {None, "none"} or limit is not None):
        raise UsageError(
            "Fidelity is measured on one machine.",
            "Leave --fidelity out; measure it later: qeval fidelity RUN",
        )


def device_of(
    model: str, device: str, devices: str | None, workers: int | None, threads: int | None
) -> dict[str, str]:
    """The device that one worker or several mean. Raises UsageError where their words exclude each other, or
    ask for more than this machine has."""
    from qeval.load.toy import is_toy

    if devices is not None and (workers is not None or device != "auto"):
        other = "--workers" if workers is not None else "--device"
        raise UsageError(f"--devices and {other} exclude each other.", "Leave one of them out.")
    if devices is not None and is_toy(model):
        raise UsageError("The toy does not use a GPU.", "Use --workers N.")
    if workers is not None and device not in {"auto", "cpu"}:
        raise UsageError("--workers share the CPU.", "Use --devices for several GPUs.")
    if threads is not None and workers is None and device != "cpu":
        raise UsageError("--threads applies to the CPU only.", "Add --workers N, or --device cpu.")
    if (wanted := (workers or 1) * (threads or 1)) > cores():
        raise UsageError(
            f"{workers or 1} workers of {threads or 1} threads are more than the {cores()} cores here.",
            f"Ask for {cores()} in all at most, not {wanted}.",
        )
    return {} if workers is None else {"device": "cpu"}


def check_spread(model: str, settings: dict[str, Any], others: dict[str, bool]) -> None:
    """Raise UsageError where a variant is to lie on several GPUs and something else says that it does not."""
    if settings.get("gpus", 1) == 1:
        return
    against = {
        **others,
        "--device": settings.get("device", "auto") != "auto",
        "--placement streamed": settings.get("placement") == "streamed",
    }
    for words in (words for words, said in against.items() if said):
        raise UsageError(f"--gpus-per-variant and {words} exclude each other.", "Leave one of them out.")
    from qeval.load.toy import is_toy

    if is_toy(model):
        raise UsageError("The toy does not use a GPU.", "Leave out --gpus-per-variant.")


def only(*, prepare: bool, finish: bool, **scoring: object) -> Literal["", "prepare", "finish"]:
    """What is done of a run that others score. Raises UsageError for words that this has no use for."""
    if not (prepare or finish):
        return ""
    if prepare and finish:
        raise UsageError("--prepare and --finish exclude each other.", "Leave one of them out.")
    for name, value in scoring.items():
        if value is not None:
            how = "a run that others score" if prepare else "--finish"
            raise UsageError(f"{_word(name)} and {how} exclude each other.", "Leave one of them out.")
    return "prepare" if prepare else "finish"


def _word(name: str) -> str:
    return f"--{name.replace('_', '-')}"
