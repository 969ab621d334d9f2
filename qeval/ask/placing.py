"""Where and by whom a run is scored: which words of the command go together."""

from __future__ import annotations

from typing import Literal

from qeval.base.errors import UsageError

CLUSTERS = frozenset({"slurm", "ray"})
"""Executors whose workers sit elsewhere: what this machine has does not count."""
_NEEDS = {"dry_run": "slurm", "sbatch_args": "slurm", "ray_address": "ray", "no_shared_store": "ray"}
"""Options that concern one executor alone."""


def check(executor: str, **asked: object) -> None:
    """Raise UsageError for words that an executor has no use for."""
    if asked.pop("wait") and executor != "slurm" and not asked["finish"]:
        raise UsageError(
            "--wait concerns --executor slurm and --finish.", "Add one of them, or leave it out."
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
            "Leave --fidelity out; measure it later: qeval fidelity RUN.",
        )


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
