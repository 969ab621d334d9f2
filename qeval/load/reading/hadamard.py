"""The Hadamard transforms of QuIP#, for every width that its published Llama and Mistral models have.

A width n is split into k * 2^j. The vector stands as k rows of 2^j, each row goes through Sylvester's matrix,
then the k rows through a matrix of order k, and all is divided by sqrt(n) (Tseng et al., arXiv 2402.04396;
Cornell-RelaxML/quip-sharp, lib/utils/matmul_had.py). Which matrix of order k it is counts, since there are
many that are not equivalent. Those here are built from their definitions: Paley (1933), Williamson (1944).
The rows of Williamson's circulants are those of N. J. A. Sloane's library of Hadamard matrices, which QuIP#
takes its own from.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from qeval.base.errors import QevalError

BLOCK = 64
PALEY_1 = (12, 20, 60, 108, 140)
PALEY_2 = (28, 36)
WILLIAMSON = {
    # First rows of the symmetric circulants A, B, C, D: the first half, the rest mirrors it.
    52: ("+-+--++", "+---+++", "++-+--+", "+----+-"),
    156: ("+++--+-+-----+--++--", "++++---+--++----+-+-", "+++--++-+---+-+--+--", "+---++-+-+-----+++-+"),
    172: (
        "+---++--++++-+-+++-++-",
        "++-++++++----+-+--++-+",
        "+++-+-++--+-+-++++-+--",
        "++---++++-+--+--++----",
    ),
}
ORDERS = sorted((1, *PALEY_1, *PALEY_2, *WILLIAMSON))


def transform(values: Tensor) -> Tensor:
    """H x / sqrt(n) for every x along the last axis of `values` (..., n), in its own floating type.

    Orthogonal; where n is no power of two, H is not symmetric. Raises QevalError for a width without a
    matrix.
    """
    width = values.shape[-1]
    small = matrix(order_of(width)).to(values)
    rows = sylvester(values.reshape(-1, len(small), width // len(small)))
    return (small @ rows).reshape(values.shape) / width**0.5


def order_of(width: int) -> int:
    """The order k of the small matrix: 1 for a power of two, else 4 times the odd part of `width`.

    Raises QevalError where it is none of ORDERS.
    """
    odd = width // (width & -width) if width > 0 else 0
    order = 1 if odd == 1 else 4 * odd
    if order not in ORDERS or width % order:
        raise QevalError(
            f"A layer is {width} wide, and no Hadamard matrix is known here that QuIP# uses for that width.",
            f"Use a model whose widths are powers of two times one of: {', '.join(map(str, ORDERS))}.",
        )
    return order


def sylvester(values: Tensor) -> Tensor:
    """Sylvester's matrix times every vector along the last axis, a power of two long; not normalised.

    It is a Kronecker product of smaller ones, so that BLOCK coordinates at a time are multiplied.
    """
    length = values.shape[-1]
    block = min(length, BLOCK)
    rows = values.reshape(*values.shape[:-1], -1, block) @ _sylvester_matrix(block).to(values)
    if length > block:
        rows = sylvester(rows.mT).mT
    return rows.reshape(values.shape)


@cache
def _sylvester_matrix(size: int) -> Tensor:
    if size == 1:
        return torch.ones(1, 1)
    return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), _sylvester_matrix(size // 2))


@cache
def matrix(order: int) -> Tensor:
    """The matrix (order, order) of +1 and -1, float32: H H^T = order * I. `order` is one of ORDERS."""
    if order in PALEY_1:
        return _paley_1(order - 1)
    if order in PALEY_2:
        return _paley_2(order // 2 - 1)
    return _williamson(*WILLIAMSON[order]) if order in WILLIAMSON else torch.ones(1, 1)


def _residues(prime: int) -> Tensor:
    """Jacobsthal's matrix: the Legendre symbol of i - j in row i, column j."""
    squares = {number * number % prime for number in range(1, prime)}
    symbols = torch.tensor([0.0] + [1.0 if number in squares else -1.0 for number in range(1, prime)])
    steps = torch.arange(prime)
    return symbols[(steps[:, None] - steps[None, :]) % prime]


def _bordered(core: Tensor, top: float) -> Tensor:
    """`core` with a first row of `top` and a first column of 1 around it, 0 in the corner."""
    size = len(core) + 1
    whole = torch.zeros(size, size)
    whole[0, 1:], whole[1:, 0], whole[1:, 1:] = top, 1, core
    return whole


def _paley_1(prime: int) -> Tensor:
    """I + S, where S is the skew matrix of the residues of a prime of the form 4a + 3; order prime + 1."""
    return torch.eye(prime + 1) + _bordered(_residues(prime), -1)


def _paley_2(prime: int) -> Tensor:
    """(S + I, S - I; S - I, -S - I), S symmetric, of a prime of the form 4a + 1; order 2 (prime + 1)."""
    symmetric, one = _bordered(_residues(prime), 1), torch.eye(prime + 1)
    plus, minus = symmetric + one, symmetric - one
    return torch.cat((torch.cat((plus, minus), 1), torch.cat((minus, -plus), 1)))


def _williamson(*halves: str) -> Tensor:
    """Williamson's array of four symmetric circulants, given by the first halves of their first rows."""
    a, b, c, d = (_circulant(half + half[:0:-1]) for half in halves)
    array = ((a, b, c, d), (-b, a, -d, c), (-c, d, a, -b), (-d, -c, b, a))
    return torch.cat([torch.cat(row, 1) for row in array])


def _circulant(signs: str) -> Tensor:
    row = torch.tensor([1.0 if sign == "+" else -1.0 for sign in signs])
    return torch.stack([row.roll(at) for at in range(len(row))])
