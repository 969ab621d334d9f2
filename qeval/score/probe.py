"""How fast this machine multiplies matrices of a model's shapes, measured in a moment."""

from __future__ import annotations

import os
import time

SECONDS = 0.3
"""How long a measurement takes, once everything is warm."""
ROWS_CPU, ROWS_GPU = 512, 16384
"""Tokens that are multiplied at a time, about as many as the engine feeds."""


def products(device: str, width: int, inner: int, dtype: str) -> float:
    """Floating-point operations a second of products of tokens with the weights of a layer: the fastest of as
    many as fit the time, which is what the machine does when nothing else is at it."""
    import torch

    gpu = device.startswith("cuda")
    given = torch.ones((ROWS_GPU if gpu else ROWS_CPU, width), device=device, dtype=getattr(torch, dtype))
    weight = torch.ones((inner, width), device=device, dtype=getattr(torch, dtype))

    def once() -> float:
        begun = time.perf_counter()
        torch.nn.functional.linear(given, weight)
        if gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    with torch.no_grad():
        fastest, end = once(), time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            fastest = min(fastest, once())
    return 2.0 * len(given) * width * inner / fastest


def free_share(threads: int) -> float:
    """The share of a CPU's time that so many threads get, by what ran on this machine in the last minute,
    this process not counted; 1 where that cannot be told."""
    try:
        others = max(0.0, os.getloadavg()[0] - 1.0)
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):
        return 1.0
    return min(1.0, cores / (others + threads))
