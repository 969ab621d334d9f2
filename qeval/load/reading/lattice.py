"""The lattice codebooks of QuIP# and their packing: from a layer's stored tensors to its plain weights.

E8P (Tseng et al., arXiv 2402.04396) has 2^16 points of E8 + 1/4, so that 16 bits stand for 8 weights. In
which order the patterns stand, which bit is which sign, and how four codes share a word is as in the authors'
repository, Cornell-RelaxML/quip-sharp (lib/codebook, quiptools), in the versions named in CODEBOOKS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from qeval.load.reading.hadamard import transform

WIDTH = 8
"""Weights of one code."""
ROWS, COLUMNS = 16, 64
"""The tile that E8P codes are packed in; it divides every packed layer."""
SIGN_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of the 8 coordinates each of a code's low 8 bits negates, from the lowest bit on."""
NORM_12 = (
    "123 023 013 012 367 357 347 356 346 345 267 257 247 256 246 245"
    " 167 157 147 156 146 045 067 057 047 056 046 014 237"
)
"""The 29 patterns of squared norm 12: the three coordinates that are 1/2, where the other five are 3/2."""


@dataclass(frozen=True)
class Codebook:
    """A codebook of the authors' repository: `number` and `version` are those that its checkpoints carry.

    `residual` is the codebook of what E8P leaves over, if any; its points are divided by `scale`, unless
    the checkpoint names another number. `bits` is what the codes take per weight.
    """

    number: int
    version: int
    bits: int
    residual: str = ""
    scale: float = 1.0


CODEBOOKS = {
    "E8P12": Codebook(7, 1, 2),
    "E8P12RVQ3B": Codebook(18, 0, 3, "E81B", 2.04),
    "E8P12RVQ4B": Codebook(17, 1, 4, "E8P", 3.45),
}


def patterns() -> Tensor:
    """The 256 patterns of absolute values (256, 8): 227 of squared norm up to 10 in lexicographic order,
    then NORM_12. All are halves of odd numbers."""
    values = torch.cartesian_prod(*[torch.tensor([0.5, 1.5, 2.5])] * WIDTH)
    small = values[values.square().sum(1) <= 10]  # noqa: PLR2004  # the paper's bound
    rest = torch.full((len(NORM_12.split()), WIDTH), 1.5)
    for row, places in zip(rest, NORM_12.split(), strict=True):
        row[[int(place) for place in places]] = 0.5
    return torch.cat((small, rest))


@cache
def e8p() -> Tensor:
    """The points of E8P (65536, 8) by code, float32.

    The high byte of a code names the pattern. Seven bits of the low one negate coordinates, in SIGN_ORDER.
    The parity of the low byte is the shift: 1/4 if it is even, else -1/4. Coordinate 0 is negated as makes
    the number of negations even; they start from the pattern, or where its sum is odd from the pattern with
    its last coordinate negated, so that the sum before the shift is always even.
    """
    codes = torch.arange(2**16)
    base = patterns()
    base[:, -1] *= 1 - 2 * (base.sum(1) % 2)
    bits = torch.stack([codes >> bit & 1 for bit in range(WIDTH)], 1)
    odd = bits.sum(1) % 2
    bits[:, 0] ^= odd
    negated = torch.empty_like(bits)
    negated[:, list(SIGN_ORDER)] = bits
    return base[codes >> 8] * (1 - 2 * negated) + (0.25 - 0.5 * odd)[:, None]


@cache
def e81b() -> Tensor:
    """The 256 points of the 1-bit codebook (256, 8) by code: 0, the 112 and the 128 points of E8 of squared
    norm 2 (integers first, each in lexicographic order), and 15 of the 16 of norm 4 on the axes."""
    found = []
    for values in ([-1.0, 0.0, 1.0], [-0.5, 0.5]):
        points = torch.cartesian_prod(*[torch.tensor(values)] * WIDTH)
        found.append(points[(points.sum(1) % 2 == 0) & (points.square().sum(1) <= 2)])  # noqa: PLR2004
    axes = 2 * torch.eye(WIDTH)
    return torch.cat((*found, axes, -axes[:-1]))


def unpack_e8p(words: Tensor) -> Tensor:
    """The codes (rows, columns / 8) in packed 64-bit words (rows, columns / 32).

    A word holds two rows by two codes of 8 columns: in its low half the four patterns, byte i for row
    i mod 2 and code i / 2; in its high half bit 4 j + i is bit j of code i's low byte. Words stand in tiles
    of 8 row pairs by 4, tile after tile along the rows.
    """
    rows, columns = words.shape[0], words.shape[1] * 32
    tiles = words.reshape(rows // ROWS, columns // COLUMNS, 8, 4)
    pairs = tiles.transpose(1, 2).reshape(rows // 2, columns // 16)
    codes = torch.empty(rows // 2, 2, columns // 16, 2, dtype=torch.int64, device=words.device)
    for part in range(4):
        low = sum((pairs >> (32 + 4 * bit + part) & 1) << bit for bit in range(WIDTH))
        codes[:, part % 2, :, part // 2] = (pairs >> (8 * part) & 255) << 8 | low
    return codes.reshape(rows, columns // WIDTH)


def unpack_e81b(words: Tensor) -> Tensor:
    """The codes (rows, columns / 8) in packed 64-bit words (rows, columns / 64), the lowest byte first."""
    return torch.stack([words >> (8 * byte) & 255 for byte in range(8)], -1).reshape(len(words), -1)


def points(words: Tensor, codebook: Codebook, residual_scale: float) -> Tensor:
    """The lattice points (rows, columns) of a layer's Qidxs, float32. `residual_scale` above 0 replaces the
    codebook's own."""
    scale = residual_scale if residual_scale > 0 else codebook.scale
    first, rest = words.tensor_split([words.shape[1] * 2 // codebook.bits], dim=1)
    found = _look_up(e8p(), unpack_e8p(first))
    if codebook.residual == "E8P":
        found += _look_up(e8p(), unpack_e8p(rest)) / scale
    elif codebook.residual == "E81B":
        found += _look_up(e81b(), unpack_e81b(rest)) / scale
    return found


def _look_up(book: Tensor, codes: Tensor) -> Tensor:
    return book.to(codes.device)[codes].reshape(len(codes), -1)


def dequantise(tensors: Mapping[str, Tensor], codebook: Codebook, residual_scale: float = -1) -> Tensor:
    """The weights (outputs, inputs) of one stored layer, float32.

    W = diag(SV) H (Wscale P + A B) H^T diag(SU / scaleWH), with the lattice points P, the normalised Hadamard
    matrices H of the two widths, and A B and scaleWH where the layer has them. Rows of a fused layer are not
    yet multiplied by its fuse_scales. Raises QevalError for a width without a Hadamard matrix.
    """
    left, right = tensors["SV"].float(), tensors["SU"].float()
    core = points(tensors["Qidxs"], codebook, residual_scale) * tensors["Wscale"].float()
    if "A" in tensors:
        core += tensors["A"].float() @ tensors["B"].float()
    if "scaleWH" in tensors:
        right = right / tensors["scaleWH"].float()
    return transform(transform(core).T).T * left[:, None] * right
