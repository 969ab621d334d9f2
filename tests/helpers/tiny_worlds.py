"""A tiny model, calibration text and a cache, for tests of schemes that make checkpoints."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_models import WORDS, save_llama

from qeval.base.records import Scheme, Variant
from qeval.load import model as models

QUIET = [
    pytest.mark.torch,
    # the libraries' own, about each other
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
"""The marks of a file whose tests use gptqmodel."""


@dataclass
class World:
    """What the tests of a file share: `kind` is the scheme, `options` are given with every scheme made."""

    kind: str
    options: dict[str, Any]
    model: Path
    text: Path
    cache: Path
    said: list[str]
    device: str = "cpu"

    def scheme(self, **options: Any) -> Scheme:
        return Scheme(self.kind, {**self.options, "calibration": str(self.text), **options})

    def make(self, model: Path | None = None, **options: Any) -> Path:
        return models.make_checkpoint(
            str(model or self.model),
            self.scheme(**options),
            device=self.device,
            cache_dir=self.cache,
            progress=self.said.append,
        )

    def load(self, scheme: Scheme, **settings: Any) -> models.Loaded:
        return models.load(
            Variant("v", str(self.model), scheme), device="cpu", cache_dir=self.cache, **settings
        )


def new_world(place: Path, kind: str, options: dict[str, Any]) -> World:
    text = place / "text.txt"
    text.write_text(" ".join(random.Random(0).choices(WORDS, k=400)))
    return World(kind, options, save_llama(place / "llama"), text, place / "cache", [])


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(20)[None] % 24).logits.float()
