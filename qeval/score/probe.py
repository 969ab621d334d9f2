"""How fast this machine does what a model of some shape consists of, measured in a moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SECONDS = 0.3
"""How long a measurement takes, once everything is warm."""
ROWS_CPU, ROWS_GPU = 512, 16384
"""Tokens that are multiplied at a time: on a GPU about as many as the engine feeds, on a CPU so many that
what they are made into leaves a core's caches, as it does where more are fed."""
WIDEST, MOST_WORDS = 2048, 8192
"""The width of the largest layers that a CPU is measured by, and the most words of their head: a third of a
second must do, and a product of larger ones is no faster."""
FEW, READ_BYTES = 16, 2**27
"""The tokens of a short pass, and the weights that one reads to tell how fast: more than a core's caches."""
SOME = 64
"""The positions whose logits are compared at a time, nearly as many as fidelity takes."""
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Parts:
    """What a CPU does in a second of each part of a model: operations of the `body`'s products, with what is
    done between them, of `attention` by tiles, of the `head`'s products, normalised, and of those of two
    heads whose logits are `compared`; `reading`: bytes of weights in a pass of so few tokens that it waits
    for nothing else."""

    body: float
    attention: float
    head: float
    compared: float
    reading: float


Way = Callable[[], object]


@cache
def parts(width: int, inner: int, heads: int, groups: int, vocabulary: int, dtype: str) -> Parts:
    """The parts of a model of such a shape, whose `heads` share the keys of so many `groups`: each step by
    the fastest of its turns, which is what the machine does when nothing else is at it."""
    import torch

    wide, kind = min(width, WIDEST), getattr(torch, dtype)
    deep, words = min(inner, 3 * wide), min(vocabulary, MOST_WORDS)
    given = torch.ones((ROWS_CPU, wide), dtype=kind)
    square, up = torch.ones((wide, wide), dtype=kind), torch.ones((deep, wide), dtype=kind)
    middle, down = torch.ones((ROWS_CPU, deep), dtype=kind), torch.ones((wide, deep), dtype=kind)
    few = torch.ones((FEW, wide), dtype=kind)
    many = torch.ones((READ_BYTES // (wide * kind.itemsize), wide), dtype=kind)
    size = max(1, width // heads)
    some = max(1, wide // size)  # of the heads
    attend, attending = _attention(some, max(1, some * groups // heads), size, kind)
    linear = torch.nn.functional.linear
    with torch.no_grad():
        across, wider, back, between, attended, headed, beside, read = _fastest(
            lambda: linear(given, square),
            lambda: linear(given, up),
            lambda: linear(middle, down),
            lambda: _between(given, middle),
            attend,
            lambda: _chosen(linear(given, many[:words])),
            lambda: _beside(linear(given[:SOME], many[:words]), linear(given[:SOME], many[:words])),
            lambda: linear(few, many),
            threads=torch.get_num_threads(),
        )
    crosses = 2 + 2 * groups / heads
    products = 2.0 * ROWS_CPU * wide * (crosses * wide + 3 * deep)
    return Parts(
        body=products / (crosses * across + 2 * wider + back + between),
        attention=attending / attended,
        head=2.0 * ROWS_CPU * wide * min(words, len(many)) / headed,
        compared=4.0 * SOME * wide * min(words, len(many)) / beside,
        reading=many.nbytes / read,
    )


def _fastest(*ways: Way, threads: int = 0) -> list[float]:
    """The seconds of each way, the fastest of some turns. Where so many `threads` of the processor share a
    way and even the fastest turn took longer than all they spent, others kept it waiting: then a thread's
    part of the least that was spent counts."""
    found = [(float("inf"), float("inf"))] * len(ways)
    turns, end = 0, time.perf_counter() + SECONDS
    while turns < LEAST_ROUNDS or time.perf_counter() < end:
        for at, way in enumerate(ways):
            begun, before = time.perf_counter(), time.process_time()
            way()
            took, spent = time.perf_counter() - begun, time.process_time() - before
            found[at] = min(found[at][0], took), min(found[at][1], spent)
        turns += 1
    return [spent / threads if threads and took > spent else took for took, spent in found]


def _between(given: torch.Tensor, middle: torch.Tensor) -> object:
    """What a layer does beside its products: it normalises twice, turns its queries and keys by their places,
    adds twice, and bends what is within."""
    import torch

    def normed(x: torch.Tensor) -> torch.Tensor:
        return given * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))

    turned = given * given + torch.cat((-given, given[:, :0]), -1) * given
    return (
        normed(given),
        normed(given),
        turned + given,
        given + given,
        torch.nn.functional.silu(middle) * middle,
    )


def _attention(heads: int, groups: int, size: int, kind: torch.dtype) -> tuple[Way, float]:
    """The engine's attention of a tile to itself and to as many tokens before it, and its operations."""
    import torch

    from qeval.score.engine.tiles import TILE, Tile, attend

    query = torch.ones((groups, max(1, heads // groups), TILE, size), dtype=kind)
    key = torch.ones((groups, 2 * TILE, size), dtype=kind)
    tile = Tile(0, TILE, torch.arange(2 * TILE), torch.zeros((TILE, 2 * TILE), dtype=kind))
    return lambda: attend(query, key, key, tile, None, None), 8.0 * heads * size * TILE * TILE


def _chosen(logits: torch.Tensor) -> object:
    """What becomes of logits: their log-probabilities, and which is the greatest."""
    import torch

    return torch.log_softmax(logits.float(), -1), logits.argmax(-1)


def _beside(first: torch.Tensor, second: torch.Tensor) -> object:
    """What fidelity makes of two models' logits."""
    import torch

    from qeval.score.fidelity.divergence import compare

    return compare(first, second, torch.zeros(len(first), dtype=torch.int64))


def products(device: str, width: int, inner: int, dtype: str) -> float:
    """Floating-point operations a second of a GPU's products of tokens with the weights of a layer: the
    fastest of as many as fit the time."""
    import torch

    given = torch.ones((ROWS_GPU, width), device=device, dtype=getattr(torch, dtype))
    weight = torch.ones((inner, width), device=device, dtype=getattr(torch, dtype))

    def once() -> None:
        torch.nn.functional.linear(given, weight)
        torch.cuda.synchronize(device)

    with torch.no_grad():
        (fastest,) = _fastest(once)
    return 2.0 * ROWS_GPU * width * inner / fastest


def free_share(threads: int) -> float:
    """The share of a CPU's time that so many threads get, by what ran on this machine in the last minute,
    this process not counted; 1 where that cannot be told."""
    try:
        others = max(0.0, os.getloadavg()[0] - 1.0)
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):
        return 1.0
    return min(1.0, cores / (others + threads))
