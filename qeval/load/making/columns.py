"""The innermost loop of gptqmodel's solver on a GPU: 128 columns in one launch instead of a thousand.

A column is rounded and its error spread over the columns after it before the next is rounded. That is ten
small kernels a column, and for the 23 thousand columns of a block of a 7B model their launches take most of
the solver's time. gptqmodel has a kernel of its own for it, which nvcc compiles on the spot; a CUDA graph of
the plain operations needs no compiler, and its numbers are those of the plain loop, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Columns that gptqmodel's solver takes at once."""


@contextmanager
def launched_at_once() -> Iterator[None]:
    """Within it gptqmodel's solver takes the columns of a matrix on a GPU by graphs, and builds no kernel."""
    try:
        from gptqmodel.quantization import gptq_cuda
    except ImportError:  # a version that has but the plain loop
        yield
        return
    before = gptq_cuda.block_update_available, gptq_cuda.gptq_block_update
    graphs: dict[Any, _Graph] = {}
    gptq_cuda.block_update_available = lambda: True
    gptq_cuda.gptq_block_update = partial(_by_graph, graphs)
    try:
        yield
    finally:
        gptq_cuda.block_update_available, gptq_cuda.gptq_block_update = before


def solve_columns(
    work: Tensor,
    hinv: Tensor,
    scale: Tensor,
    zero: Tensor,
    groups: Sequence[int],
    quantized: Tensor,
    errors: Tensor,
    losses: Tensor,
    steps: int,
) -> None:
    """Round the columns of `work` (rows, columns) in turn, spreading each one's error over those after it.

    `hinv` (columns, columns) is the part of the upper Cholesky factor of the Hessian's inverse; column i has
    the grid of `scale` and `zero` (groups, rows) at groups[i], with codes 0 to `steps`. Written: `quantized`
    the rounded columns, `errors` what the columns after this block are corrected by, `losses` the squared
    errors. The operations are those of gptqmodel's plain loop in their order, so that no bit differs.
    """
    for i, group in enumerate(groups):
        step, origin, factor = scale[group], zero[group], hinv[i, i]
        codes = torch.clamp(torch.round(work[:, i] / step) + origin, 0, steps)
        quantized[:, i] = step * (codes - origin)
        error = errors[:, i]
        torch.sub(work[:, i], quantized[:, i], out=error)
        losses[:, i] = error.square() / factor.square()
        error.div_(factor)
        work[:, i:] -= error.unsqueeze(1) * hinv[i, i:]


class _Graph:
    """`solve_columns` for matrices of one shape on tensors of its own, recorded once."""

    def __init__(self, work: Tensor, hinv: Tensor, scale: Tensor, groups: Sequence[int], steps: int) -> None:
        self.given = [torch.ones_like(tensor) for tensor in (work, hinv, scale, scale)]
        self.found = [torch.zeros_like(work) for _ in range(3)]
        (w, h, s, z), (q, e, c) = self.given, self.found
        run = partial(solve_columns, w, h, s, z, groups, q, e, c, steps)
        aside = torch.cuda.Stream(work.device)
        aside.wait_stream(torch.cuda.current_stream(work.device))
        with torch.cuda.stream(aside):
            run()  # what is prepared at a first use is not recorded
        torch.cuda.current_stream(work.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            run()

    def run(self, given: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        for own, theirs in zip(self.given, given, strict=True):
            own.copy_(theirs)
        self.graph.replay()
        for own, theirs in zip(self.found, found, strict=True):
            theirs.copy_(own)


def _by_graph(
    graphs: dict[Any, _Graph],
    work: Tensor,
    hinv: Tensor,
    scale: Tensor,
    zero: Tensor,
    column_group: Tensor,
    quantized: Tensor,
    errors: Tensor,
    losses: Tensor,
    maxq: int,
) -> None:
    """Gptqmodel's `gptq_block_update`, by a graph that is kept in `graphs`."""
    groups = tuple(column_group.tolist())
    key = (work.device, work.shape, groups, maxq)
    if key not in graphs:
        graphs[key] = _Graph(work, hinv, scale, groups, maxq)
    graphs[key].run((work, hinv, scale, zero), (quantized, errors, losses))
