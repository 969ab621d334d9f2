"""Grids of evenly spaced points, and the linear layer whose weights were rounded to any grid in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RoundedLinear(nn.Linear):  # type: ignore[misc]  # torch is not followed by mypy
    """A plain linear layer, calculated as one. `bits_per_weight` is what packing would take, scales and
    zeros included, and `quantization` how its weights were rounded."""

    bits_per_weight: float
    quantization: dict[str, Any]


def mark_rounded(linear: nn.Linear, bits_per_weight: float, quantization: dict[str, Any]) -> None:
    """Make a layer say that its weights were rounded."""
    linear.__class__ = RoundedLinear  # keeps parameter, hooks and name; the forward is the same
    linear.bits_per_weight, linear.quantization = bits_per_weight, quantization


def round_to_nearest(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> Tensor:
    """The nearest points to `weight` (out, in) of its grid; see `to_grid`. Returned in the weight's dtype."""
    codes, scale, zero = to_grid(weight, bits, group_size, symmetric)
    return ((codes - zero) * scale).reshape(weight.shape).to(weight.dtype)


def to_grid(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The codes of `weight` (out, in), as (out, groups, group_size), and the scale and zero of each group of
    inputs, as (out, groups, 1): the nearest points are (code - zero) * scale.

    Symmetric: codes -2^(b-1)..2^(b-1)-1 and the scale max|w| / (2^(b-1) - 1/2), which costs neither end
    a whole step. Otherwise: codes 0..2^b-1 over the group's range widened to hold 0. The scale is rounded
    to float16, as packing would. Whole numbers of float32, in which all is calculated; symmetric codes and
    their zero are shifted by 2^(b-1).
    """
    groups = weight.float().reshape(weight.shape[0], -1, group_size)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    steps = 2**bits - 1
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scale = (span / steps).half().float().clamp(min=2**-24)
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else torch.round(-low / scale).clamp(0, steps)
    return (torch.round(groups / scale) + zero).clamp(0, steps), scale, zero
