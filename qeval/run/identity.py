"""What an order is, to the last file that can change its numbers: identities, context, and the run's id."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from qeval.ask.order import Order
from qeval.base import contents, elsewhere
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.names import slug
from qeval.base.places import tasks_dir
from qeval.base.reading import content
from qeval.base.records import Policy, Variant
from qeval.base.rules import FIDELITY_LIMITS
from qeval.base.settings import WRITING
from qeval.load.toy import is_toy
from qeval.load.versions import version_of


def identities(order: Order, refused: dict[str, QevalError]) -> dict[str, dict[str, Any]]:
    """What each variant is, by name; one that cannot be found (a checkpoint, a revision, a text) joins
    `refused`. Raises its QevalError where it is the baseline, or where nothing is left to compare."""
    found: dict[str, dict[str, Any]] = {}
    for variant in order.variants:
        try:
            found[variant.name] = identity_of(variant, order)
        except QevalError as error:
            if variant.name == order.baseline:
                raise
            refused.setdefault(variant.name, error)
            found[variant.name] = {"refused": str(error)}
    if refused and len(refused) == len(order.variants) - 1:
        raise next(iter(refused.values()))
    return found


def identity_of(variant: Variant, order: Order) -> dict[str, Any]:
    """What a variant of an order is. Raises QevalError where it cannot be found."""
    if is_toy(variant.model):
        _check_names(variant)
        return {"model": variant.model, "scheme": msgspec.to_builtins(variant.scheme)}
    from qeval.load.resolve import identity

    mirror = order.settings.datasets_dir
    return identity(variant, order.cache_dir, Path(mirror) if mirror else None)


def _check_names(variant: Variant) -> None:
    """Refuse the toy what would be no checkpoint and no adapter of a model either."""
    if variant.adapter is None and variant.scheme.checkpoint is None:
        return
    from qeval.load import adapter, source

    beside = adapter.split(variant.adapter)[0].path if variant.adapter else None
    for name in filter(None, (beside, variant.scheme.checkpoint)):
        source.check_name(name)


def context_of(order: Order) -> dict[str, Any]:
    """What can change a task's items: lm-eval, the mirror of data sets, tasks of one's own.

    A cell is known by the questions themselves; this is for telling that a whole order is finished, without
    building them.
    """
    mirror = order.settings.datasets_dir
    toy = is_toy(order.variants[0].model)  # it invents the items of every task but ours
    own = not toy or any(task.name.startswith("qeval_") for task in order.suite.tasks)
    mine = order.own_tasks if not toy else None
    outside = [
        path for folder in (tasks_dir() if own else None, mine) if folder for path in elsewhere.named(folder)
    ]
    return {
        "lm_eval": version_of("lm_eval"),  # None where it is not there, and only the toy can be asked
        "datasets_dir": fingerprint(Path(mirror)) if mirror else None,
        "tasks_dir": fingerprint(tasks_dir()) if own else None,
        **({"own_tasks": fingerprint(mine)} if mine else {}),
        **({"elsewhere": _state(outside, Path("/"))} if outside else {}),
    }


def fingerprint(folder: Path) -> str:
    """A hash of the names and contents of the files below `folder`; of data files that are no text, of what
    changes whenever they do, for a mirror may hold more than can be read."""
    return _state(elsewhere.files_below(folder), folder)


def _state(files: list[Path], root: Path) -> str:
    seen = hashlib.sha256()
    for path in files:
        small = path.suffix in {".yaml", ".yml", ".jsonl", ".json", ".py", ".txt", ".md"}
        state = hashlib.sha256(content(path, None)).hexdigest() if small else contents.stamp(path)
        seen.update(f"{path.relative_to(root)}\0{state}\0".encode())
    return seen.hexdigest()


def _asked(policy: Policy | None) -> Any:
    """A policy as plain data, without what says only that nothing was asked for, so that a run keeps its id
    when a new forgiveness is invented."""
    if policy is None:
        return None
    usual: dict[str, Any] = {"required": True, "ungated": (), **dict.fromkeys(_FORGIVEN, False)}
    usual |= dict.fromkeys(FIDELITY_LIMITS)
    plain = msgspec.to_builtins(policy)
    plain["rules"] = [_without(rule, usual) for rule in plain["rules"]]
    return _without(plain, usual)


_FORGIVEN = ("allow_different_models", "allow_unproved_model", "allow_identical", "allow_unquantised")


def _without(plain: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in usual or value != usual[key]}


_NOT_ASKED: dict[str, Any] = {
    "allow_unused": (),
    "framed": False,
    "placement": "auto",
    "gpu_memory": None,
    "gpus": 1,
    **dict.fromkeys(WRITING),
}
"""Settings that a run's id holds only where they were asked for: it is older than they are."""


def run_id(order: Order, identities: dict[str, dict[str, Any]], context: dict[str, Any]) -> str:
    """Readable, and the same for the same command on the same models: that is how a run resumes."""
    spec = {
        "variants": order.variants,
        "identities": identities,
        "context": context,
        "suite": order.suite,
        "settings": _without(msgspec.to_builtins(order.settings), _NOT_ASKED),
        "baseline": order.baseline,
        "policy": _asked(order.policy),
    }
    return f"{slug(order.variants[0].model)}-{slug(order.suite.name, 20)}-{digest(spec)[:8]}"
