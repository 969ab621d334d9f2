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
                f"{name} of the baseline is missing from the variant: they cannot be compared part by part.",
                "Blame needs two models of the same architecture.",
            )
        if name in quantised or (name and _own(module) and _differs(module, other)):
            found.append(name)
    if not found:
        raise QevalError("The variant's numbers are exactly the baseline's: there is nothing to blame.", "")
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
    """The groups of modules. `linears` are the names of linear layers. Where other modules were changed with
    them, as AWQ does, those that share a scale stay together, which no smaller group means anything without.
    Raises QevalError where it is not known which do: then only whole layers hold together."""
    others = [name for name in names if name not in linears]
    halves = _halves(names, blocks) if others and by != "layer" else {}
    inside = [name for name in names if _index(name, blocks) is not None]
    if others and by != "layer" and not halves.keys() >= {*others, *inside}:
        raise QevalError(
            f"{others[0]} was changed besides the linear layers, and it is not known which of them share a"
            " scale with it: a single module of such a model, put into the baseline, means nothing.",
            "Use --by layer.",
        )
    made: dict[str, list[str]] = {}
    for name in names:
        made.setdefault(_label(halves.get(name, name), blocks, by), []).append(name)
    return tuple(Group(label, tuple(members), _first(members, blocks)) for label, members in made.items())


def _halves(names: Sequence[str], blocks: str) -> dict[str, str]:
    """For each module of a block that belongs to one of its halves a name of that half."""
    halves, found = _tied(), {}
    for name in names:
        place = _index(name, blocks)
        inner = name.removeprefix(f"{blocks}.{place}.")
        half = next((half for half in halves if inner in half), None)
        if place is None or half is None:
            continue
        layers, norms = (
            [part for part in sorted(half) if ("." in part) is inside] for inside in (True, False)
        )
        parts = dict.fromkeys(layer.rpartition(".")[0] for layer in layers)
        found[name] = f"{blocks}.{place}.{'+'.join(parts)} with {'+'.join(norms)}"
    return found


def _tied() -> list[set[str]]:
    """The halves of a block whose modules AWQ's scales tie to one another: a norm and the layers that read it
    share one, and of those one shares another with the layer that reads it."""
    from qeval.load.making.awq import PAIRS

    halves: list[set[str]] = []
    for source, layers in PAIRS:
        pair = {source, *layers}
        apart = [half for half in halves if not half & pair]
        halves = [*apart, pair.union(*(half for half in halves if half & pair))]
    return halves


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


def skip_words(group: Group, every: Sequence[str], blocks: str, by: By) -> tuple[str, ...]:
    """The words of skip_modules that name those of a group that are among the `every` quantised modules, and
    no other of them: kinds by how their names end, else the parts of a layer all of whose modules belong to
    it, or modules in full."""
    mine = [name for name in group.modules if name in every]
    if by == "kind":
        return tuple(dict.fromkeys(_label(name, blocks, by) for name in mine))
    words = []
    for name in mine:
        parent = name.rpartition(".")[0]
        inside = [one for one in every if one.startswith(f"{parent}.")]
        whole = len(inside) > 1 and set(inside) <= set(mine)
        words.append(parent if whole else name)
    return tuple(dict.fromkeys(words))
