"""The linear layers of a model that schemes take, and the sizes of groups that divide their inputs."""

from __future__ import annotations

from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading import kept


def linears(model: Any) -> list[tuple[str, Any]]:
    """The plain linear layers of a model with their names, all but the head and those that transformers keeps
    in float32."""
    from torch import nn

    head, stay = model.get_output_embeddings(), kept.names(model)
    return [
        (name, module)
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and f"{name}.weight" not in stay
    ]


def divide(name: str, features: int, group_size: int) -> int:
    """The size of the layer's groups; -1 stands for all its inputs. QevalError where it does not divide."""
    group = features if group_size == -1 else group_size
    if group < 1 or features % group:
        raise QevalError(
            f"A group size of {group_size} does not divide the {features} inputs of {name}.",
            f"Use one that does, for instance group_size={divisor(features)}.",
        )
    return group


def divisor(features: int) -> int:
    """The largest power of two up to 128 that divides `features`."""
    return min(128, features & -features)
