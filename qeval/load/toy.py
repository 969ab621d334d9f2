"""The toy model's name and what may stand in its brackets; score/toy.py answers for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qeval.base.errors import UsageError, did_you_mean

_LONGEST = 3600.0
"""The most seconds that an answer of it may take."""


@dataclass(frozen=True)
class Toy:
    """What stands in the brackets of `toy[...]`."""

    items: int | None = None
    delay: float = 0.0
    fail: str = ""


def is_toy(model: str) -> bool:
    """Whether `model` is the toy."""
    return model == "toy" or model.startswith("toy[")


def parse(model: str) -> Toy:
    """Read `toy[items=50,delay=0.1,fail=bnb4]`. Raises UsageError for anything else."""
    inside = model.removeprefix("toy").removeprefix("[").removesuffix("]")
    toy = Toy()
    for part in filter(None, inside.split(",")):
        key, _, value = part.partition("=")
        kinds = {"items": int, "delay": float, "fail": str}
        if key not in kinds:
            raise UsageError(f"The toy has no option {key!r}.", did_you_mean(key, kinds))
        try:
            toy = replace(toy, **{key: kinds[key](value)})
        except ValueError as error:
            raise UsageError(f"toy: {key}={value!r} is not a number.", "Write e.g. toy[items=50].") from error
        if (toy.items is not None and toy.items < 1) or not 0 <= toy.delay <= _LONGEST:
            raise UsageError(f"toy: {key}={value!r} is not possible.", "Write e.g. toy[items=50,delay=0.1].")
    return toy
