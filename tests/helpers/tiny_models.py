"""Tiny random Llama checkpoints with a tokenizer, saved as a user would have them; made on the spot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "tree",
    "and",
    "then",
    "saw",
    "red",
    "blue",
    "big",
    "small",
    "one",
    "two",
    "three",
]
LINEARS = 2 * 7  # two blocks of q, k, v, o, gate, up and down; the head comes on top


def save_tokenizer(directory: Path, **tokens: str | None) -> None:
    """A word tokenizer; `tokens` sets bos_token and others, None leaves one out."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    chosen = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None, **tokens}
    vocabulary = {word: at for at, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    known = {name: token for name, token in chosen.items() if token is not None}
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **known).save_pretrained(directory)


def save_llama(directory: Path, *, seed: int = 0, hidden: int = 64, **config: Any) -> Path:
    """A random Llama of two blocks in float16 with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {
        "vocab_size": 64,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.2,
        **config,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings)).half()
    model.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def to_hub_cache(cache: Path, model: str, snapshots: dict[str, Path]) -> dict[str, str]:
    """Lay directories out as the Hub cache does: `snapshots` maps branches to files; returns commits."""
    place = cache / f"models--{model.replace('/', '--')}"
    commits = {}
    for number, (branch, files) in enumerate(snapshots.items(), start=1):
        commits[branch] = f"{number:040x}"
        shutil.copytree(files, place / "snapshots" / commits[branch])
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / branch).write_text(commits[branch])
    return commits


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def save_model(directory: Path, seed: int = 0, **shape: Any) -> Path:
    """A random Llama that reads bytes, so that every choice of every item is a text of its own to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    save_llama(directory, seed=seed, vocab_size=300, max_position_embeddings=256, **shape)
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    reads = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    reads.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reads.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=reads, bos_token="<s>", eos_token="</s>").save_pretrained(
        directory
    )
    return directory
