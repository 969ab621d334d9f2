"""Quantising by GPTQ: our own walk through the blocks around gptqmodel's solver.

Linear layers that read the same tensor (q, k and v; gate and up) are solved together, on activations that
passed through everything quantised before them, as the paper's code does (Frantar et al., arXiv 2210.17323);
samples go through in batches. That takes fewer forward passes than one per layer, and on a small machine
those are most of the time. Such layers have one Hessian, which is summed once. On a GPU their rows are one
matrix to the solver: rows do not know of each other, and the order of columns depends on the Hessian alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qeval.load.making import room, walk
from qeval.load.making.columns import launched_at_once
from qeval.load.making.kept import Blocks, write_model, written_beside
from qeval.load.making.packing import Grid, check_packable, gptq_tensors, unpack_rows
from qeval.load.making.sums import Sums
from qeval.load.reading.layers import divide


@dataclass(frozen=True)
class Plan:
    """How to quantise: see the options of `gptq`. `group_size` divides every layer or is -1. `plain` are the
    names of layers, in full, that stay as they are."""

    bits: int
    group_size: int
    act_order: bool
    group_aware: bool
    damp: float
    symmetric: bool
    plain: frozenset[str] = frozenset()

    @property
    def reorders_within(self) -> bool:
        """Whether gptqmodel takes columns by activation and stores them in their own order."""
        return self.group_aware and not self.act_order and self.group_size > 0

    @property
    def form(self) -> str:
        """The format of the files: "gptq" stores zero points less one, which a zero point of 0 forbids."""
        return "gptq" if self.symmetric else "gptq_v2"


def quantise(
    model: Any, windows: list[list[int]], plan: Plan, work: Path, progress: Callable[[str], None]
) -> dict[str, Grid]:
    """Solve every linear layer of every block but those that stay plain; weights become their quantised
    values in place.

    Returns the grids by layer name, on the CPU. A finished block is packed and kept in `work`, and a second
    call goes on from there. Raises QevalError for a model without such blocks, layers that cannot be packed,
    and a full disk.
    """
    with torch.no_grad(), launched_at_once(), written_beside(work) as kept:
        return _quantise(model, torch.tensor(windows), plan, kept, progress)


def _quantise(
    model: Any, tokens: Tensor, plan: Plan, kept: Blocks, progress: Callable[[str], None]
) -> dict[str, Grid]:
    name, blocks = walk.find_blocks(model)
    states, keywords = walk.capture(model, blocks[0], tokens)
    solved: dict[str, Grid] = {}
    for index, block in enumerate(blocks):
        progress(f"gptq: block {index + 1} of {len(blocks)}")
        prefix = f"{name}.{index}."
        with room.on(model.device, block):
            if kept.has(index):
                found = _restore(block, prefix, kept.tensors(index), kept.aside(index), plan)
            else:
                layers = walk.wanted(block, prefix, plan.plain)
                found = _solve_block(block, layers, (states, keywords), plan)
                kept.keep(index, _packed(block, prefix, found, plan), _aside(found))
            solved |= {f"{prefix}{layer}": grid.to("cpu") for layer, grid in found.items()}
            if index + 1 < len(blocks):
                walk.go_on(block, states, keywords)
    return solved


def _solve_block(
    block: nn.Module,
    layers: Collection[str],
    told: tuple[list[Tensor], list[dict[str, Any]]],
    plan: Plan,
) -> dict[str, Grid]:
    """Solve those of the block's `layers` group by group, in the order in which they run; `told` are the
    states that enter it, and the keywords it is called with."""
    states, keywords = told
    solved: dict[str, Grid] = {}
    for every in walk.groups(block, states[0][:1], walk.first_of_batch(keywords[0])):
        group = {name: layer for name, layer in every.items() if name in layers}
        if not group:
            continue
        for name, layer in group.items():
            divide(name, layer.in_features, plan.group_size)
            check_packable(name, layer)
        sums = _feed(block, group, states, keywords)
        solved |= solve_group(group, sums, plan, joined=next(iter(group.values())).weight.is_cuda)
    return solved


def _feed(
    block: nn.Module, group: dict[str, nn.Linear], states: list[Tensor], keywords: list[dict[str, Any]]
) -> Sums:
    """The sums over every input of the group, whose layers all read the same tensor."""
    told = Sums()

    def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        told.add(arguments[0])
        raise walk.Stop

    handle = next(iter(group.values())).register_forward_pre_hook(hook)
    try:
        for state, keyword in zip(states, keywords, strict=True):
            walk.until_stop(block, state, **keyword)
    finally:
        handle.remove()
    return told


def solve_group(group: dict[str, nn.Linear], told: Sums, plan: Plan, *, joined: bool) -> dict[str, Grid]:
    """Solve layers that read the same tensor; `joined` as one matrix, which saves all but one inverse."""
    if not joined:
        return {name: _solve(layer, told, plan) for name, layer in group.items()}
    layers = list(group.values())
    rows = [layer.out_features for layer in layers]
    whole = nn.Linear(layers[0].in_features, sum(rows), bias=False, device="meta")
    whole.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    grid = _solve(whole, told, plan)
    for layer, weight in zip(layers, whole.weight.split(rows), strict=True):
        layer.weight.data.copy_(weight)
    parts = zip(grid.scale.split(rows), grid.zero.split(rows), strict=True)
    return {name: Grid(scale, zero, grid.g_idx) for name, (scale, zero) in zip(group, parts, strict=True)}


def _solve(layer: nn.Linear, told: Sums, plan: Plan) -> Grid:
    """Have gptqmodel's solver put a layer's weights on a grid."""
    solver = _solver(layer, plan)
    solver.H = torch.as_tensor(told.gram) * (2.0 / told.tokens)  # gptqmodel's scale; its own, to write into
    solver.nsamples = told.tokens
    scale, zero, g_idx, *_ = solver.hf_quantize(
        percdamp=plan.damp, group_size=plan.group_size, actorder=plan.act_order
    )
    solver.free()
    return Grid(scale, zero, g_idx)


def _solver(layer: nn.Linear, plan: Plan) -> Any:
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    solver = GPTQ(
        layer,
        qcfg=QuantizeConfig(
            bits=plan.bits,
            group_size=plan.group_size,
            desc_act=plan.act_order,
            act_group_aware=plan.reorders_within,
            sym=plan.symmetric,
            damp_percent=plan.damp,
            offload_to_disk=False,
        ),
    )
    solver.quantizer.configure(perchannel=True)
    return solver


def _packed(block: nn.Module, prefix: str, solved: dict[str, Grid], plan: Plan) -> dict[str, Tensor]:
    """The tensors of a solved block as the checkpoint holds them."""
    less_one = plan.form == "gptq"
    return {
        f"{prefix}{name}.{part}": tensor
        for name, grid in solved.items()
        for part, tensor in gptq_tensors(
            block.get_submodule(name), grid, plan.bits, less_one=less_one
        ).items()
    }


def _aside(solved: dict[str, Grid]) -> dict[str, Tensor]:
    """The grids in full, which the checkpoint holds in 16 bits."""
    return {
        f"{name}|{part}": getattr(grid, part)
        for name, grid in solved.items()
        for part in ("scale", "zero", "g_idx")
    }


def _restore(
    block: nn.Module, prefix: str, packed: dict[str, Tensor], aside: dict[str, Tensor], plan: Plan
) -> dict[str, Grid]:
    """The grids of a block that was kept, with its weights put back."""
    solved = {}
    for name, layer in walk.linears(block):
        if f"{name}|scale" in aside:
            parts = (aside[f"{name}|{part}"].to(layer.weight.device) for part in ("scale", "zero", "g_idx"))
            solved[name] = grid = Grid(*parts)
            words = packed[f"{prefix}{name}.qweight"].to(layer.weight.device)
            codes = unpack_rows(words, plan.bits).T
            layer.weight.data.copy_(grid.weight(codes, layer.weight.dtype))
    return solved


def left_plain(names: Collection[str]) -> dict[str, dict[str, Any]]:
    """The layers `names` as gptqmodel writes that it does not quantise them."""
    return {f"-:^{re.escape(name)}$": {} for name in sorted(names)}


def save(model: Any, tokenizer: Any, solved: Collection[str], plan: Plan, work: Path, target: Path) -> None:
    """Write the checkpoint out of the blocks in `work` and the rest of the model, whose layers `solved` they
    hold; plain transformers loads it, and so does gptqmodel.

    Transformers (optimum) quantises those layers whose names end with one of a list, so that names in full
    tell single layers of single blocks.
    """
    from optimum.gptq import GPTQQuantizer

    name, blocks = walk.find_blocks(model)
    settings = GPTQQuantizer(
        bits=plan.bits,
        group_size=plan.group_size,
        damp_percent=plan.damp,
        desc_act=plan.act_order,
        act_group_aware=plan.reorders_within,
        sym=plan.symmetric,
        format=plan.form,
        block_name_to_quantize=name,
    ).to_dict()
    if plan.plain:
        settings |= {"modules_in_block_to_quantize": [sorted(solved)], "dynamic": left_plain(plan.plain)}
    model.config.quantization_config = settings
    write_model(model, Blocks(work), len(blocks), set(solved), target)
    told = json.dumps(settings, indent=2)
    (target / "quantize_config.json").write_text(told, "utf-8")
    tokenizer.save_pretrained(target)
