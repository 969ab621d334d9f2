"""How a run was asked for, beyond model, schemes and suite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a run was asked for, beyond model, schemes and suite; None and "auto" mean chosen by qeval.
    `allow_unused` are globs of tensors that a checkpoint may hold though the model has no place for them.
    `placement` is "auto", "resident" (on the device) or "streamed" (from host memory, layer by layer);
    `gpu_memory` the most bytes of a GPU that are taken."""

    seed: int = 1234
    limit: int | None = None
    batch_size: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    engine: str = "tree"
    chat_template: bool = False
    materialize: bool = True
    trust_remote_code: bool = False
    datasets_dir: str | None = None
    allow_unused: tuple[str, ...] = ()
    framed: bool = False  # perplexities are those of texts inside the chat template
    max_gen_toks: int | None = None  # of each text; None: the task's own, else lm-eval's 256
    repeats: int | None = None  # texts of each item, whose value is the mean over them; None: one
    temperature: float | None = None  # texts are drawn, with it; None: as the task says
    think_end: str | None = None  # lm-eval's think_end_token; None: the markers that the tokenizer tells
    placement: str = "auto"
    gpu_memory: int | None = None
    gpus: int = 1  # how many GPUs the weights of a variant lie on


WRITING = ("max_gen_toks", "repeats", "temperature", "think_end")
"""The settings that concern nothing but texts that a model writes, None where they were not asked for."""
