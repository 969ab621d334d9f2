"""How much to feed at once, by a device's size and a model's shape, and what to say when it was too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qeval.base.errors import QevalError

PASS_OVERHEAD = 64
"""What starting a forward pass costs, in tokens, where chunks are not padded."""
CPU_BUDGET = 4096
LEAST_TOKENS, MOST_TOKENS = 1024, 16384
"""The shortest chunk that a GPU is asked to try first, and the longest: it is busy long before."""
SHARE = 0.25
"""The share of the memory left beside the weights that a chunk's activations may take."""
SHARED = 4
"""How many times fewer tokens a tree feeds, at the least, on the suites that are long enough to matter."""
COMPILE_SECONDS = 60.0
"""What compiling must save to be worth its half minute."""
SAVED_SECONDS_PER_FLOP = 1 / 415e12 - 1 / 540e12
"""By an H100's rates with and without torch.compile. A slower GPU saves more: this errs towards not."""


@dataclass(frozen=True)
class Limits:
    """budget: tokens per chunk of the tree. batch_size: sequences per plain batch. check_tokens: how many
    tokens of real requests the self-check may score."""

    budget: int
    batch_size: int
    check_tokens: int


def limits(lm: Any, budget: int | None = None, batch_size: int | None = None) -> Limits:
    """Limits for a model on its device, by the device's whole memory, which is the same in every run.

    What is free at the moment would differ between a run and its continuation, and so would the chunks.
    """
    if lm.device.type != "cuda":
        return Limits(budget or CPU_BUDGET, batch_size or 4, 600)
    return Limits(budget or _cuda_budget(lm), batch_size or 16, 6000)


def _cuda_budget(lm: Any) -> int:
    """The largest power of two, within LEAST_TOKENS and MOST_TOKENS, whose activations fit their share."""
    import torch

    total = torch.cuda.get_device_properties(lm.device).total_memory
    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    room = SHARE * max(0.0, 0.95 * total - weights)
    tokens = MOST_TOKENS
    while tokens > LEAST_TOKENS and tokens * token_bytes(lm) > room:
        tokens //= 2
    return tokens


def token_bytes(lm: Any) -> int:
    """An estimate from above of the activations of one token while one layer runs, in bytes."""
    config, size = lm.config, next(lm.model.parameters()).element_size()
    hidden = getattr(config, "hidden_size", 4096)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    experts = getattr(config, "num_experts_per_tok", None) or 1
    # Residual, norm, query, key, value, attention's output and float32 copies: about 12 vectors of the
    # hidden size; gate, up and their product: 3 of the inner one. Weights that are unpacked for a layer
    # (4-bit ones) do not grow with the tokens.
    vectors: int = 12 * hidden + 3 * inner * int(experts)
    return int(max(size, 2) * vectors)


def compiling_pays(lm: Any, expected_tokens: int | None) -> bool:
    """Whether compiling the body saves more time than it takes, over a whole run's requests."""
    if expected_tokens is None or lm.device.type != "cuda" or getattr(lm.model, "is_quantized", False):
        return False
    flops = 2.0 * sum(p.numel() for p in lm.model.parameters()) * expected_tokens / SHARED
    return bool(flops * SAVED_SECONDS_PER_FLOP > COMPILE_SECONDS)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def free() -> None:
    """Give cached device memory back."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def too_long(n: int) -> QevalError:
    """The error for a sequence that does not fit in memory by itself."""
    return QevalError(
        f"A single sequence of {n} tokens does not fit in memory.",
        "Use a device with more memory, or a scheme with fewer bits.",
    )
