"""How fast this machine multiplies matrices of a model's shapes, measured in a moment."""

from __future__ import annotations

import time

SECONDS = 1.0
"""How long a measurement takes: shorter ones say little of a machine that does other things as well."""
ROWS_CPU, ROWS_GPU = 512, 16384
"""Tokens that are multiplied at a time, about as many as the engine feeds."""


def products(device: str, width: int, inner: int, dtype: str) -> float:
    """Floating-point operations a second of products of tokens with the weights of a layer, on average. What
    else runs on the machine slows them as it will slow scoring."""
    import torch

    gpu = device.startswith("cuda")
    given = torch.ones((ROWS_GPU if gpu else ROWS_CPU, width), device=device, dtype=getattr(torch, dtype))
    weight = torch.ones((inner, width), device=device, dtype=getattr(torch, dtype))

    def once() -> None:
        torch.nn.functional.linear(given, weight)
        if gpu:
            torch.cuda.synchronize(device)

    with torch.no_grad():
        once()
        count, spent, begun = 0, 0.0, time.perf_counter()
        while spent < SECONDS:
            once()
            count, spent = count + 1, time.perf_counter() - begun
    return 2.0 * len(given) * width * inner * count / spent
