"""Traces: the baseline's greedy answers to prompts, which its variants are then made to follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qeval.score.engine.body import CausalModel


def answers(
    lm: CausalModel,
    prompts: Sequence[Sequence[int]],
    most: int,
    known: int,
    told: Callable[[int], None],
) -> list[list[int]]:
    """The `most` tokens, or fewer where it ends, that a model finds likeliest one after the other behind each
    prompt, of the first `known` ones: others are padding. The one that ends an answer belongs to it."""
    import torch
    from transformers import GenerationConfig

    ends = _ends(lm)
    plain = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=most,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        repetition_penalty=1.0,
        suppress_tokens=list(range(known, lm.vocabulary)) or None,
    )
    found = []
    for number, prompt in enumerate(prompts):
        tokens = torch.tensor([list(prompt)], device=lm.device)
        with torch.no_grad():
            out = _generate(lm.model, tokens, plain)
        found.append(out[0, len(prompt) :].tolist())
        told(number)
    return found


def _generate(model: Any, tokens: Any, settings: Any) -> Any:
    """The model's own loop, under these settings and nothing else of its own."""
    before = getattr(model, "generation_config", None)
    model.generation_config = settings
    try:
        import torch

        return model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)
    finally:
        model.generation_config = before


def _ends(lm: CausalModel) -> list[int]:
    """The tokens that end an answer."""
    settings = getattr(lm.model, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    return list(found) if isinstance(found, list) else [] if found is None else [found]
