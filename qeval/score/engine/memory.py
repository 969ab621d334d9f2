"""How much to feed at once, by a device's size and a model's shape, and what to say when it was too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qeval.base.errors import BrokenDeviceError, QevalError
from qeval.load.device import gpu_total

PASS_OVERHEAD = 64
"""What starting a forward pass costs, in tokens, where chunks are not padded."""
CPU_BUDGET = 4096
LEAST_TOKENS, MOST_TOKENS = 256, 16384
"""The shortest chunk that a GPU is asked to try first, and the longest: it is busy long before."""
SHARE = 0.25
"""The share of the memory left beside the weights that a chunk's activations may take."""
LIVE_HIDDEN, LIVE_INNER = 5, 3
"""How many vectors of a block's width, and of its feed-forward layer's, a token has at once on a GPU: Llama 2
took 1.6, 2.05 and 3.6 GiB beside 7, 13 and 70 billion weights, in chunks of 16384 (benchmarks/RESULTS.md)."""
SHARED = 4
"""How many times fewer tokens a tree feeds, at the least, on the suites that are long enough to matter."""
LOGITS_BYTES = 2**32
"""The most that the self-check spends on the logits of one sequence."""
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
    """Limits for a model on its device, by the device's whole memory, which is the same in every run."""
    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    each = token_bytes(getattr(lm.config, "__dict__", {}), next(lm.model.parameters()).element_size())
    return limits_of(lm.device.type, total_memory(lm.device), weights, each, budget, batch_size)


def limits_of(
    device: str,
    memory: int,
    weights: int,
    token: int,
    budget: int | None = None,
    batch_size: int | None = None,
) -> Limits:
    """Limits by the kind of a device, its memory, the model's weights and a token's activations, in bytes.

    What is free at the moment would differ between a run and its continuation, and so would the chunks.
    """
    if device != "cuda":
        return Limits(budget or CPU_BUDGET, batch_size or 4, 600)
    return Limits(budget or _cuda_budget(memory, weights, token), batch_size or 16, 6000)


def total_memory(device: Any) -> int:
    """A GPU's memory in bytes, as far as it may be used; 0 for other devices, whose limits do not depend on
    it."""
    import torch

    return gpu_total(str(device)) if torch.device(device).type == "cuda" else 0


def _cuda_budget(memory: int, weights: int, token: int) -> int:
    """The largest power of two, within LEAST_TOKENS and MOST_TOKENS, whose activations fit their share."""
    room = SHARE * max(0.0, 0.95 * memory - weights)
    tokens = MOST_TOKENS
    while tokens > LEAST_TOKENS and tokens * token > room:
        tokens //= 2
    return tokens


def token_bytes(config: Mapping[str, Any], size: int) -> int:
    """An estimate from above of the activations of one token while one layer runs, in bytes.

    `config` is a text model's configuration, `size` the bytes of a number that is calculated with.
    """
    hidden, inner = _sizes(config)
    # Residual, norm, query, key, value, attention's output and float32 copies: about 12 vectors of the
    # hidden size; gate, up and their product: 3 of the inner one. Weights that are unpacked for a layer
    # (4-bit ones) do not grow with the tokens.
    return max(size, 2) * (12 * hidden + 3 * inner)


def chunk_bytes(config: Mapping[str, Any], size: int, tokens: int) -> int:
    """What feeding a chunk of so many tokens takes of a GPU beside the weights, in bytes, as it was measured:
    the activations of one layer, or a slice of logits with the float32 table of its half.

    `config` is a text model's configuration, `size` the bytes of a number that is calculated with.
    """
    from qeval.score.engine.body import LOGITS_BYTES as SLICE

    hidden, inner = _sizes(config)
    vocabulary = int(config.get("vocab_size") or 0)
    layer = tokens * size * (LIVE_HIDDEN * hidden + LIVE_INNER * inner)
    rows = min(tokens, SLICE["cuda"] // (4 * max(vocabulary, 1)))
    return max(layer, tokens * size * hidden + rows * vocabulary * (size + 2))


def _sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    """The width of a block, and of what its feed-forward layers calculate for one token."""
    hidden = _first(config, ("hidden_size", "n_embd", "d_model", "dim"), 4096)
    inner = _first(config, ("intermediate_size", "ffn_dim", "n_inner"), 4 * hidden)
    return hidden, inner * _first(config, ("num_experts_per_tok",), 1)


def _first(config: Mapping[str, Any], names: Sequence[str], otherwise: int) -> int:
    """The first of these that the configuration has; the largest where it has one a layer, as Gemma 3n."""
    found = next((config[name] for name in names if config.get(name)), otherwise)
    return max(map(int, found)) if isinstance(found, (list, tuple)) else int(found)


def longest_checked(lm: Any) -> int:
    """The longest sequence, in tokens, of which a plain forward's float32 logits are worth their memory."""
    return int(LOGITS_BYTES // (4 * max(lm.vocabulary, 1)))


def compiling_pays(device: str, parameters: int, tokens: int) -> bool:
    """Whether compiling saves more time than it takes, over all tokens of a run counted one by one."""
    flops = 2.0 * parameters * tokens / SHARED
    return device == "cuda" and flops * SAVED_SECONDS_PER_FLOP > COMPILE_SECONDS


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


BROKEN = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable",
    "hardware",
    "has fallen off the bus",
)
"""What CUDA says, within an error, after which a process gets nothing more out of its GPU."""


def refuse_broken(error: BaseException) -> None:
    """Raise BrokenDeviceError where an error says that the GPU gave up, or where it answers no more: nothing
    else can be tried in this process then."""
    if ran_out(error) or not isinstance(error, RuntimeError):
        return
    text = " ".join(str(error).split("\n")[0].split())
    if "CUDA" in text and (any(word in text for word in BROKEN) or not _answers()):
        raise BrokenDeviceError(
            f"The GPU failed in the middle of the work: {text.rstrip('.')}.",
            "Run the same command again: what was finished is kept. Where it fails again, look at the driver,"
            " or take another path with --engine plain.",
        ) from error


def _answers() -> bool:
    """Whether the GPU, if there is one at work, still does what it is told."""
    import torch

    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def free() -> None:
    """Give cached device memory back."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class TooLongError(QevalError):
    """A sequence of n tokens does not fit in memory by itself."""

    def __init__(self, n: int) -> None:
        super().__init__(
            f"A single sequence of {n} tokens does not fit in memory.",
            "Use a device with more memory, or a scheme with fewer bits.",
        )
