"""Sums over the tokens that a layer reads: all that GPTQ and AWQ need to know of its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)


@dataclass
class Sums:
    """Over the tokens that were added: `gram` (in, in) of xᵀx and, where wanted, `magnitude` (in,) of |x|."""

    gram: Tensor | None = None
    magnitude: Tensor | None = None
    tokens: int = 0
    magnitudes: bool = False

    def add(self, inputs: Tensor) -> None:
        """Count `inputs` (..., in) in."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        product = gram(rows)
        self.gram = product if self.gram is None else self.gram.add_(product)
        self.tokens += len(rows)
        if self.magnitudes:
            total = rows.float().abs().sum(0)
            self.magnitude = total if self.magnitude is None else self.magnitude.add_(total)


def gram(rows: Tensor) -> Tensor:
    """The sum of xᵀx over `rows` (n, in), in float32.

    Products of 16-bit numbers are exact in float32, so that a GPU's 16-bit units, which add in float32, round
    nothing that float32 arithmetic would not.
    """
    if rows.is_cuda and rows.dtype in _HALVES:
        return torch.mm(rows.T, rows, out_dtype=torch.float32)
    wide = rows.float()
    return wide.T @ wide


@contextmanager
def coarse_products(device: torch.device) -> Iterator[None]:
    """Within it a GPU rounds the factors of float32 products to 11 bits (TF32), eight times as fast: enough
    to tell which of several errors is the least. Elsewhere nothing changes."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
