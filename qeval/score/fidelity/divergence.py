"""How far one distribution is from another, position by position, from their logits, without a table of
probabilities: sums over blocks of the vocabulary, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qeval.base.fidelity import FIRST

if TYPE_CHECKING:
    import torch

BLOCK = {"cuda": 8192, "cpu": 1024}
"""Tokens of the vocabulary that are taken at once: on a CPU so many that a block stays in its caches."""
CLAMP = 16.0
"""What llama.cpp cuts: logits this far below the greatest, and tokens less likely than e to its negative."""


@dataclass(frozen=True, eq=False)
class Compared:
    """Columns (r,): see `base.fidelity.Positions`; sums are float64."""

    kl: torch.Tensor
    kl_reverse: torch.Tensor
    log_p: torch.Tensor
    log_q: torch.Tensor
    top_p: torch.Tensor
    top_q: torch.Tensor
    rank: torch.Tensor
    entropy: torch.Tensor
    confidence: torch.Tensor
    ordered: torch.Tensor


def compare(
    first: torch.Tensor, second: torch.Tensor, targets: torch.Tensor, *, clamp: bool = False
) -> Compared:
    """The baseline's logits (r, v) against the variant's (r, v), and the tokens (r,) that stand there.

    With a = e^(x - max x), A = sum a: KL(p || q) = sum a (x - y) / A - (lse x - lse y), so a block needs one
    exponential of each side, and equal logits give exactly 0. All sums are in float64. A logit that is not
    finite makes its row's numbers NaN. `clamp`: KL as llama.cpp's tool counts it against its stored logits.
    """
    import torch

    step = BLOCK.get(first.device.type, BLOCK["cuda"])
    (best_p, top_p), (best_q, top_q) = (_first(logits) for logits in (first, second))
    most_p, most_q = best_p[:, :1].double(), best_q[:, :1].double()
    chosen = second.gather(1, top_p[:, :1])
    sums = torch.zeros((6, len(first)), dtype=torch.float64, device=first.device)
    for at in range(0, first.shape[1], step):
        x = first[:, at : at + step].double()
        y = second[:, at : at + step].double()
        sums[5] += (second[:, at : at + step] > chosen).sum(1)
        difference = x - y
        a, b = (x - most_p).exp_(), (y - most_q).exp_()
        sums[0] += a.sum(1)
        sums[1] += b.sum(1)
        sums[2] += (a * difference).sum(1)
        sums[3] += (b * difference).sum(1)
        sums[4] += a.mul_(x.sub_(most_p)).sum(1)
    mass_p, mass_q = sums[0], sums[1]
    lse_p, lse_q = most_p[:, 0] + mass_p.log(), most_q[:, 0] + mass_q.log()
    apart = lse_p - lse_q
    log_p = first.gather(1, targets[:, None])[:, 0].double() - lse_p
    log_q = second.gather(1, targets[:, None])[:, 0].double() - lse_q
    return Compared(
        kl=_clamped(first, second, most_p, lse_p, lse_q) if clamp else sums[2] / mass_p - apart,
        kl_reverse=apart - sums[3] / mass_q,
        log_p=log_p,
        log_q=log_q,
        top_p=top_p[:, 0],
        top_q=top_q[:, 0],
        rank=sums[5].long(),
        entropy=mass_p.log() - sums[4] / mass_p,
        confidence=1 / mass_p,
        ordered=(top_p == top_q).all(1),
    )


def _first(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The greatest logits of each row and their tokens, (r, FIRST) each; of equal ones the lower token
    first."""
    import torch

    values, tokens = logits.topk(min(FIRST, logits.shape[1]), dim=1)
    tokens, order = tokens.sort(1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, torch.gather(tokens, 1, order)


def _clamped(
    first: torch.Tensor, second: torch.Tensor, most: torch.Tensor, lse_p: torch.Tensor, lse_q: torch.Tensor
) -> torch.Tensor:
    """KL over the tokens that llama.cpp keeps: logits are raised to 16 below the greatest, and terms of a
    probability below e^-16 left out."""
    import torch

    total = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    step = BLOCK.get(first.device.type, BLOCK["cuda"])
    for at in range(0, first.shape[1], step):
        log_p = first[:, at : at + step].double().maximum(most - CLAMP) - lse_p[:, None]
        log_q = second[:, at : at + step].double() - lse_q[:, None]
        total += torch.where(log_p > -CLAMP, log_p.exp() * (log_p - log_q), 0.0).sum(1)
    return total
