"""The modules in which a variant differs from its baseline, and the groups that are swapped together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qeval.base.errors import QevalError
from qeval.load.reading.proof import quantised_modules

if TYPE_CHECKING:
    from torch import Tensor, nn

By = Literal["layer", "kind", "module"]
OUTSIDE = "outside of the layers"
_PLACE = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Group:
    """Modules that are swapped together: their names, and the first block that holds one of them (None: one
    lies before the blocks, or behind them)."""

    name: str
    modules: tuple[str, ...]
    block: int | None


def differing(base: nn.Module, variant: nn.Module) -> tuple[str, ...]:
    """The names of the modules that hold other numbers, or other kinds of numbers, in the variant: the
    quantised ones, and plain ones that were changed beside them. Raises QevalError for a model of other
    modules."""
    theirs = dict(variant.named_modules())
    quantised = set(quantised_modules(variant))
    found: list[str] = []
    for name, module in base.named_modules():
        if any(name.startswith(f"{above}.") for above in found[-1:]):
            continue
        other = theirs.get(name)
        if other is None:
            raise QevalError(
                f"{name} of the baseline is missing in the variant: the two cannot be compared part by part.",
                "Blame needs two models that are built alike.",
            )
        if name in quantised or (name and _own(module) and _differs(module, other)):
            found.append(name)
    if not found:
        raise QevalError("The variant's numbers are the baseline's own: there is nothing to blame.", "")
    return tuple(found)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _differs(module: nn.Module, other: nn.Module) -> bool:
    import torch

    mine, theirs = dict(_own(module)), dict(_own(other))
    if mine.keys() != theirs.keys() or type(module) is not type(other):
        return True
    return any(
        one.shape != theirs[name].shape or not torch.equal(one, theirs[name].to(one.device, one.dtype))
        for name, one in mine.items()
    )


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """A model's blocks, its longest list of modules, and their name. Raises QevalError for a model without
    any."""
    from torch import nn

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise QevalError(
            f"{type(model).__name__} has no list of blocks that could be swapped one by one.",
            "Use qeval fidelity.",
        )
    return max(lists, key=lambda pair: len(pair[1]))


def grouped(names: Sequence[str], blocks: str, by: By, linears: set[str]) -> tuple[Group, ...]:
    """The groups of modules. `linears` are the names of linear layers. Raises QevalError where other modules
    were changed with them, for then only whole layers hold together."""
    others = [name for name in names if name not in linears]
    if others and by != "layer":
        raise QevalError(
            f"{others[0]} was changed beside the linear layers, as AWQ does: a single module of such a model,"
            " put into the baseline, means nothing.",
            "Use --by layer.",
        )
    made: dict[str, list[str]] = {}
    for name in names:
        made.setdefault(_label(name, blocks, by), []).append(name)
    return tuple(Group(label, tuple(members), _first(members, blocks)) for label, members in made.items())


def _label(name: str, blocks: str, by: By) -> str:
    place = _index(name, blocks)
    if by == "module":
        return name
    if by == "kind":
        return name.removeprefix(f"{blocks}.{place}.") if place is not None else name
    return f"{blocks}.{place}" if place is not None else OUTSIDE


def _index(name: str, blocks: str) -> int | None:
    found = re.match(rf"{re.escape(blocks)}\.(\d+)\.", f"{name}.")
    return int(found[1]) if found else None


def _first(names: Sequence[str], blocks: str) -> int | None:
    places = [_index(name, blocks) for name in names]
    known = [place for place in places if place is not None]
    return min(known) if len(known) == len(places) else None


def skip_words(group: Group, every: Sequence[str], by: By) -> tuple[str, ...]:
    """The words of skip_modules that name a group and no other of the `every` modules: a kind by how its
    names end, else the parts of a layer all of whose modules belong to it, or modules in full."""
    if by == "kind":
        return (group.name,)
    words = []
    for name in group.modules:
        parent = name.rpartition(".")[0]
        inside = [one for one in every if one.startswith(f"{parent}.")]
        whole = len(inside) > 1 and set(inside) <= set(group.modules)
        words.append(parent if whole else name)
    return tuple(dict.fromkeys(words))
