"""Quantising by GPTQ: our own walk through the blocks around gptqmodel's solver.

Linear layers that read the same tensor (q, k and v; gate and up) are solved together, on activations that
passed through everything quantised before them, as the paper's code does (Frantar et al., arXiv 2210.17323);
samples go through in batches. That takes fewer forward passes than one per layer, and on a small machine
those are most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qeval.load.making import walk
from qeval.load.reading.layers import divide


@dataclass(frozen=True)
class Plan:
    """How to quantise: see the options of `gptq`. `group_size` divides every layer or is -1."""

    bits: int
    group_size: int
    act_order: bool
    group_aware: bool
    damp: float
    symmetric: bool

    @property
    def reorders_within(self) -> bool:
        """Whether gptqmodel takes columns by activation and stores them in their own order."""
        return self.group_aware and not self.act_order and self.group_size > 0


def quantise(
    model: Any, windows: list[list[int]], plan: Plan, work: Path, progress: Callable[[str], None]
) -> dict[str, tuple[Any, ...]]:
    """Solve every linear layer of every block; weights become their quantised values in place.

    Returns, by layer name, what packing needs: (quantizer, scale, zero, g_idx). A finished block is kept
    in `work`, and a second call goes on from there. Raises QevalError for a model without such blocks.
    """
    with torch.no_grad():
        return _quantise(model, torch.tensor(windows), plan, work, progress)


def _quantise(
    model: Any, tokens: Tensor, plan: Plan, work: Path, progress: Callable[[str], None]
) -> dict[str, tuple[Any, ...]]:
    name, blocks = walk.find_blocks(model)
    states, keywords = walk.capture(model, blocks[0], tokens)
    solved: dict[str, tuple[Any, ...]] = {}
    for index, block in enumerate(blocks):
        progress(f"gptq: block {index + 1} of {len(blocks)}")
        kept = work / f"block-{index:04d}.safetensors"
        found = _restore(block, kept, plan) if kept.is_file() else _solve_block(block, states, keywords, plan)
        if not kept.is_file():
            _keep(block, found, kept)
        solved |= {f"{name}.{index}.{layer}": result for layer, result in found.items()}
        states = [
            walk.primary(block(state, **keyword)) for state, keyword in zip(states, keywords, strict=True)
        ]
    return solved


def _solve_block(
    block: nn.Module, states: list[Tensor], keywords: list[dict[str, Any]], plan: Plan
) -> dict[str, tuple[Any, ...]]:
    """Solve the block's layers group by group, in the order in which they run."""
    solved: dict[str, tuple[Any, ...]] = {}
    for group in walk.groups(block, states[0][:1], walk.first_of_batch(keywords[0])):
        solvers = {name: _solver(name, layer, plan) for name, layer in group.items()}
        _feed(block, group, solvers, states, keywords)
        for name, solver in solvers.items():
            scale, zero, order, *_ = solver.hf_quantize(
                percdamp=plan.damp, group_size=plan.group_size, actorder=plan.act_order
            )
            solved[name] = (solver.quantizer, scale.cpu(), zero.cpu(), order.cpu())
            solver.free()
    return solved


def _solver(name: str, layer: nn.Linear, plan: Plan) -> Any:
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    divide(name, layer.in_features, plan.group_size)
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


def _feed(
    block: nn.Module,
    group: dict[str, nn.Linear],
    solvers: dict[str, Any],
    states: list[Tensor],
    keywords: list[dict[str, Any]],
) -> None:
    """Let the solvers see every input of the group, whose layers all read the same tensor."""

    def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        for solver in solvers.values():
            solver.add_batch(arguments[0].data, None)
        raise walk.Stop

    handle = next(iter(group.values())).register_forward_pre_hook(hook)
    try:
        for state, keyword in zip(states, keywords, strict=True):
            walk.until_stop(block, state, **keyword)
    finally:
        handle.remove()


def _keep(block: nn.Module, solved: dict[str, tuple[Any, ...]], path: Path) -> None:
    """Write a solved block's weights and grids, whole or not at all."""
    layers = dict(walk.linears(block))
    tensors: dict[str, Tensor] = {}
    for name, (_, scale, zero, order) in solved.items():
        parts = {"weight": layers[name].weight.data, "scale": scale, "zero": zero, "g_idx": order}
        tensors |= {f"{name}|{part}": tensor.contiguous().cpu() for part, tensor in parts.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def _restore(block: nn.Module, path: Path, plan: Plan) -> dict[str, tuple[Any, ...]]:
    """What `_keep` wrote, with the weights put back into the block."""
    tensors = load_file(path)
    solved = {}
    for name, layer in walk.linears(block):
        if f"{name}|scale" in tensors:
            layer.weight.data.copy_(tensors[f"{name}|weight"])
            parts = (tensors[f"{name}|{part}"] for part in ("scale", "zero", "g_idx"))
            solved[name] = (_solver(name, layer, plan).quantizer, *parts)
    return solved


def pack_and_save(
    model: Any, tokenizer: Any, solved: dict[str, tuple[Any, ...]], plan: Plan, target: Path
) -> None:
    """Replace the layers by packed ones and write a checkpoint that plain transformers loads."""
    from optimum.gptq import GPTQQuantizer

    packer = GPTQQuantizer(
        bits=plan.bits,
        group_size=plan.group_size,
        damp_percent=plan.damp,
        desc_act=plan.act_order,
        act_group_aware=plan.reorders_within,
        sym=plan.symmetric,
        format="gptq_v2",  # what the solver calculates in; save() writes the usual "gptq"
        block_name_to_quantize=walk.find_blocks(model)[0],
    )
    packer.pack_model(model, dict(solved))
    model.is_quantized, model.quantization_method = True, packer.quant_method
    packer.save(model, str(target))
    model.config.quantization_config = packer.to_dict()
    model.config.save_pretrained(target)
    tokenizer.save_pretrained(target)
