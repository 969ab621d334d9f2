"""Codes packed into integers, on any device, as the files of GPTQ and AWQ checkpoints hold them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qeval.base.errors import QevalError

WORD = 32
NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in each nibble of AutoAWQ's integers, the lowest first."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The grids of a layer: `scale` and `zero` (out, groups), and the group of each input, `g_idx` (in,)."""

    scale: Tensor
    zero: Tensor
    g_idx: Tensor

    def codes(self, weight: Tensor, bits: int) -> Tensor:
        """The codes (out, in) of a weight that lies on the grid but for the rounding of its type."""
        at = self.g_idx.long()
        scale, zero = self.scale[:, at], self.zero[:, at]
        return torch.round(weight.float() / scale + zero).clamp_(0, 2**bits - 1)

    def weight(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """What `codes` (out, in) stand for, as the solver calculates it."""
        at = self.g_idx.long()
        return (self.scale[:, at] * (codes - self.zero[:, at])).to(dtype)

    def to(self, device: torch.device | str) -> Grid:
        """The same on another device."""
        return Grid(self.scale.to(device), self.zero.to(device), self.g_idx.to(device))


def check_packable(name: str, layer: nn.Linear) -> None:
    """Raise QevalError for a layer of sizes that GPTQ's integers cannot hold."""
    for size, what in ((layer.in_features, "inputs"), (layer.out_features, "outputs")):
        if size % WORD:
            raise QevalError(
                f"GPTQ packs {WORD} values together, and {name} has {size} {what}.",
                "Use a scheme that packs nothing here, such as bnb4 or rtn.",
            )


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """`codes` (rows, columns) as int32 (rows * bits / 32, columns): a stream of bits down each column, the
    lowest first."""
    values = codes.to(torch.int64).reshape(-1, WORD, codes.shape[-1])
    words = values.new_zeros(len(values), bits, codes.shape[-1])
    for at in range(WORD):
        word, low = divmod(at * bits, WORD)
        words[:, word] |= values[:, at] << low
        if low + bits > WORD:
            words[:, word + 1] |= values[:, at] >> (WORD - low)
    return _int32(words).reshape(-1, codes.shape[-1])


def unpack_rows(words: Tensor, bits: int) -> Tensor:
    """The codes that `pack_rows` packed, as int64 (rows, columns)."""
    stored = (words.to(torch.int64) & 0xFFFFFFFF).reshape(-1, bits, words.shape[-1])
    values = stored.new_zeros(len(stored), WORD, words.shape[-1])
    for at in range(WORD):
        word, low = divmod(at * bits, WORD)
        values[:, at] = stored[:, word] >> low
        if low + bits > WORD:
            values[:, at] |= stored[:, word + 1] << (WORD - low)
    return (values & (2**bits - 1)).reshape(-1, words.shape[-1])


def _int32(words: Tensor) -> Tensor:
    """The lower 32 bits of int64, as int32."""
    words = words & 0xFFFFFFFF
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def gptq_tensors(layer: nn.Linear, grid: Grid, bits: int, *, less_one: bool) -> dict[str, Tensor]:
    """The tensors of a GPTQ checkpoint for a layer whose weight lies on `grid`; `less_one` tells whether zero
    points are stored less one, as the format "gptq" does for symmetric grids."""
    zero = grid.zero.round() - int(less_one)
    found = {
        "qweight": pack_rows(grid.codes(layer.weight, bits).T, bits),
        "qzeros": pack_rows(zero, bits).T,
        "scales": grid.scale.T.half(),
        "g_idx": grid.g_idx.to(torch.int32),
    }
    if layer.bias is not None:
        found["bias"] = layer.bias.half()
    return found


def awq_tensors(layer: nn.Linear, codes: Tensor, scale: Tensor, zero: Tensor) -> dict[str, Tensor]:
    """The tensors of a checkpoint in AutoAWQ's gemm packing: `codes` (out, in), `scale` and `zero`
    (out, groups), of 4 bits."""
    found = {"qweight": _nibbles(codes.T), "qzeros": _nibbles(zero.T), "scales": scale.T.half()}
    if layer.bias is not None:
        half = layer.bias.dtype in (torch.float16, torch.bfloat16)
        found["bias"] = layer.bias if half else layer.bias.half()
    return found


def _nibbles(codes: Tensor) -> Tensor:
    """(rows, outputs) of 0 to 15 as int32 (rows, outputs / 8), in AutoAWQ's order."""
    eights = codes.to(torch.int64).reshape(len(codes), -1, len(NIBBLES))
    words = eights.new_zeros(eights.shape[:2])
    for at, output in enumerate(NIBBLES):
        words |= eights[:, :, output] << (4 * at)
    return _int32(words)
