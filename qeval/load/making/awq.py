"""Quantising by AWQ (Lin et al., arXiv 2306.00978): scales and clipping found by search, then rounding.

A channel of activations that is large makes its weights matter more. They are multiplied by a scale s before
rounding, and what produces the channel (a norm, or a linear layer) is divided by it, which leaves the model
the function it was. s is m^a, with m the mean magnitude of each channel and a the power out of 20 that gives
the least error of the layers' outputs; then each group's range is clipped where that makes the error less.

The error is that over all calibration tokens, and exact: the squared error of x D, D the change of a weight,
summed over tokens is tr(Dᵀ G D) with G = Σ xᵀx, so that a layer is known by G and tokens need not be kept.
As in the paper's code, activations are those of the model before quantising; queries and keys are not
clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qeval.base.errors import QevalError
from qeval.load.making import room, walk
from qeval.load.making.gptq import left_plain
from qeval.load.making.kept import Blocks, write_model, written_beside
from qeval.load.making.packing import awq_tensors
from qeval.load.making.sums import Sums, coarse_products
from qeval.load.reading.grid import round_to_nearest, to_grid
from qeval.load.reading.layers import divide

POWERS = 20
"""Steps of the power a in [0, 1)."""
SHRINKS = tuple(1 - step / 20 for step in range(10))
"""Shares of a group's largest weight at which its range is tried to be clipped."""
PAIRS = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("self_attn.v_proj", ("self_attn.o_proj",)),
    ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ("mlp.up_proj", ("mlp.down_proj",)),
)
"""What produces the channels that layers read, and those layers."""
UNCLIPPED = ("self_attn.q_proj", "self_attn.k_proj")
PACK = 8  # output features that share a packed integer


@dataclass(frozen=True)
class Plan:
    """How to quantise: see the options of `awq`. `group_size` divides every layer. `plain` are the names of
    layers, in full, that are not rounded."""

    bits: int
    group_size: int
    plain: frozenset[str] = frozenset()

    def round(self, weight: Tensor) -> Tensor:
        """The nearest points of the grid to `weight` (out, in)."""
        return round_to_nearest(weight, self.bits, self.group_size, symmetric=False)


def search(
    model: Any, windows: list[list[int]], plan: Plan, work: Path, progress: Callable[[str], None]
) -> None:
    """Scale, clip and round the weights of every block so that it costs least.

    `windows` are (samples, length) token ids. A finished block is packed and kept in `work`, and a second
    call goes on from there; in the model norms hold their scales then. Raises QevalError for layers that
    cannot be quantised, and for a full disk.
    """
    name, blocks = walk.find_blocks(model)
    for index, block in enumerate(blocks):
        _check(block, walk.wanted(block, f"{name}.{index}.", plan.plain), plan)
    with torch.no_grad(), written_beside(work) as kept:
        states, keywords = walk.capture(model, blocks[0], torch.tensor(windows))
        for index, block in enumerate(blocks):
            progress(f"awq: block {index + 1} of {len(blocks)}")
            prefix = f"{name}.{index}."
            layers = walk.wanted(block, prefix, plan.plain)
            with room.on(model.device, block):
                if kept.has(index):
                    walk.go_on(block, states, keywords)
                    block.load_state_dict(kept.aside(index), strict=False)
                else:
                    seen = _observe(block, states, keywords)
                    _search_block(block, layers, seen, plan)
                    kept.keep(index, _packed(layers, prefix, plan), _aside(block, layers))


def _check(block: nn.Module, layers: dict[str, nn.Linear], plan: Plan) -> None:
    """Refuse a block with other layers than `PAIRS` names, or where those of `layers` are of a size that the
    packing cannot hold."""
    if {name for name, _ in walk.linears(block)} != {name for _, names in PAIRS for name in names}:
        raise QevalError(
            f"AWQ is made here for blocks like Llama's only, and {type(block).__name__} has other layers.",
            "Use a ready checkpoint, awq@<Hub id or directory>, or gptq.",
        )
    for name, layer in layers.items():
        divide(name, layer.in_features, plan.group_size)
        if layer.out_features % PACK:
            raise QevalError(
                f"AWQ packs {PACK} outputs together, and {name} has {layer.out_features}.", "Use gptq."
            )


def _observe(block: nn.Module, states: list[Tensor], keywords: list[dict[str, Any]]) -> dict[str, Sums]:
    """Let the block go on with the states; returns what the first layer of each pair's second part saw, by
    that layer's name."""
    seen = {names[0]: Sums(magnitudes=True) for _, names in PAIRS}

    def watch(told: Sums) -> Callable[..., None]:
        return lambda _, arguments: told.add(arguments[0])

    handles = [
        block.get_submodule(name).register_forward_pre_hook(watch(told)) for name, told in seen.items()
    ]
    try:
        walk.go_on(block, states, keywords)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _search_block(block: nn.Module, wanted: Collection[str], seen: dict[str, Sums], plan: Plan) -> None:
    """Scale the block's layers and clip those that are `wanted` quantised. Scaling for one pair changes what
    another's layers read by nothing but that scale, so that what was seen before stays true. For layers that
    all stay plain nothing is scaled; one that stays plain beside others bears their scale."""
    for source_name, names in PAIRS:
        source, layers = block.get_submodule(source_name), [block.get_submodule(name) for name in names]
        told = seen.pop(names[0])
        rounded = [block.get_submodule(name) for name in names if name in wanted]
        if not rounded:
            continue
        gram = torch.as_tensor(told.gram) / told.tokens
        channels = _channels(block, source, layers[0])
        magnitude = _mean_by(channels, torch.as_tensor(told.magnitude) / told.tokens)
        scale = best_scale([layer.weight.float() for layer in rounded], gram, magnitude, plan)
        _absorb(source, layers, scale, channels)
        gram = gram / scale[:, None] / scale
        for name, layer in zip(names, layers, strict=True):
            if name in wanted and name not in UNCLIPPED:
                layer.weight.data = clip(layer.weight.float(), gram, plan).to(layer.weight.dtype)


def _channels(block: nn.Module, source: nn.Module, layer: nn.Linear) -> Tensor:
    """Which output of `source` each input of `layer` comes from, (in,). In grouped-query attention each value
    head is read by several query heads, one after the other."""
    made, device = len(source.weight), layer.weight.device
    if made == layer.in_features:
        return torch.arange(made, device=device)
    heads = torch.arange(made, device=device).reshape(-1, block.self_attn.head_dim)
    return heads.repeat_interleave(layer.in_features // made, 0).reshape(-1)


def _mean_by(channels: Tensor, values: Tensor) -> Tensor:
    """Each of `values` (in,) replaced by the mean over those of the same channel."""
    count = int(channels.max()) + 1
    sums = values.new_zeros(count).index_add(0, channels, values)
    return (sums / channels.bincount(minlength=count))[channels]


def best_scale(weights: list[Tensor], gram: Tensor, magnitude: Tensor, plan: Plan) -> Tensor:
    """The scale (in,) = magnitude^a of equations 4 and 5 of the paper, as its code brings it about 1.

    `weights` are (out, in) of the layers that read the same channels, `gram` (in, in) the mean of xᵀx, and
    `magnitude` (in,) the mean of |x|. With a = 0, the first tried, nothing is scaled.
    """
    best, least = torch.ones_like(magnitude), float("inf")
    with coarse_products(gram.device):
        for step in range(POWERS):
            scale = magnitude.pow(step / POWERS).clamp(min=1e-4)
            scale = scale / (scale.max() * scale.min()).sqrt()
            changes = (plan.round(weight * scale) / scale - weight for weight in weights)
            error = sum(float(((change @ gram) * change).sum()) for change in changes)
            if error < least:
                best, least = scale, error
    return best


def _absorb(source: nn.Module, layers: list[nn.Linear], scale: Tensor, channels: Tensor) -> None:
    """Multiply the inputs of `layers` by `scale` (in,) and divide the outputs of `source` by it."""
    for layer in layers:
        layer.weight.data = (layer.weight.float() * scale).to(layer.weight.dtype)
    made = scale.new_ones(len(source.weight)).index_copy(0, channels, scale)
    for parameter in source.parameters(recurse=False):
        shape = (-1, *[1] * (parameter.dim() - 1))
        parameter.data = (parameter.float() / made.reshape(shape)).to(parameter.dtype)


def clip(weight: Tensor, gram: Tensor, plan: Plan) -> Tensor:
    """`weight` (out, in) with the range of each group of a row clipped where rounding then costs less.

    The cost is the squared error of the group's part of the output, by the blocks of `gram` (in, in) on its
    diagonal.
    """
    groups = weight.reshape(len(weight), -1, plan.group_size)
    at = torch.arange(groups.shape[1], device=weight.device)
    blocks = gram.reshape(*groups.shape[1:], *groups.shape[1:])[at, :, at]  # (groups, size, size)
    largest = groups.abs().amax(-1, keepdim=True)
    best, least = groups, torch.full_like(largest, float("inf"))
    for shrink in SHRINKS:
        clipped = torch.maximum(torch.minimum(groups, shrink * largest), -shrink * largest)
        change = plan.round(clipped.reshape(weight.shape)).reshape(groups.shape) - groups
        error = (torch.einsum("rgi,gij->rgj", change, blocks) * change).sum(-1, keepdim=True)
        best, least = torch.where(error < least, clipped, best), torch.minimum(error, least)
    return best.reshape(weight.shape)


def _packed(layers: dict[str, nn.Linear], prefix: str, plan: Plan) -> dict[str, Tensor]:
    """Layers of a block, rounded, in AutoAWQ's gemm packing, which plain transformers loads."""
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        codes, scale, zero = to_grid(layer.weight, plan.bits, plan.group_size, symmetric=False)
        codes = codes.reshape(layer.weight.shape)
        tensors = awq_tensors(layer, codes, scale.squeeze(-1), zero.squeeze(-1))
        found |= {f"{prefix}{name}.{part}": tensor for part, tensor in tensors.items()}
    return found


def _aside(block: nn.Module, layers: Collection[str]) -> dict[str, Tensor]:
    """What scaling changed of a block besides the layers that are packed."""
    state = block.state_dict()
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in layers}


def _left_plain(plan: Plan) -> dict[str, Any]:
    """The settings that tell transformers and gptqmodel which layers are plain; none where none is."""
    if not plan.plain:
        return {}
    return {"modules_to_not_convert": sorted(plan.plain), "dynamic": left_plain(plan.plain)}


def save(model: Any, tokenizer: Any, plan: Plan, work: Path, target: Path) -> None:
    """Write the checkpoint out of the blocks in `work` and the rest of the model."""
    _, blocks = walk.find_blocks(model)
    model.config.quantization_config = {
        "quant_method": "awq",
        "version": "gemm",
        "bits": plan.bits,
        "group_size": plan.group_size,
        "zero_point": True,
        **_left_plain(plan),
    }
    packed = set(walk.every_linear(model)) - plan.plain
    write_model(model, Blocks(work), len(blocks), packed, target)
    tokenizer.save_pretrained(target)
