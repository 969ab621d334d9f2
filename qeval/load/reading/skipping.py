"""Modules that a scheme leaves plain: the option skip_modules, in the words that transformers takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from qeval.base.errors import QevalError, did_you_mean
from qeval.load.reading.experts import stacks
from qeval.load.reading.opening import outline
from qeval.load.spec import OptionSpec, Recipe

SKIP = OptionSpec(
    "skip_modules", str, "", "modules to leave plain beside the head, joined by +, such as down_proj+q_proj"
)
LATE_SKIP = replace(SKIP, late=True)
"""The same for schemes that got it later."""


def skipped(recipe: Recipe) -> list[str] | None:
    """The option skip_modules as transformers wants it, and the head; None leaves its default (the head).

    Raises QevalError for a word that no linear layer answers to, before weights are read.
    """
    words = str(recipe.options["skip_modules"])
    if recipe.ready or not words:
        return None
    from qeval.load.reading.proof import is_linear

    model = outline(recipe)
    head = model.get_output_embeddings()
    layers = {name: module for name, module in model.named_modules() if is_linear(module)}
    known = [*layers, *(stack.name for stack in stacks(model))]
    for word in words.split("+"):
        if not any(answers(name, word) for name in known):
            raise QevalError(
                f"skip_modules={word} names no linear layer of {recipe.source.path}.",
                did_you_mean(word, {name.rpartition(".")[2] for name in known}),
            )
    return [*words.split("+"), *(name for name, module in layers.items() if module is head)]


def answers(name: str, word: str) -> bool:
    """Whether transformers takes `word`, which can be a regular expression, for the module."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    try:
        return bool(word) and not should_convert_module(name, [word])
    except re.error:
        return False


def left_out(recipe: Recipe, names: Iterable[str]) -> frozenset[str]:
    """Those of the layers `names` that the option names. Raises QevalError where that leaves none over."""
    every = tuple(names)
    found = frozenset(name for name in every if kept_plain(recipe, name))
    if found and len(found) == len(every):
        raise QevalError(
            f"skip_modules={recipe.options['skip_modules']} leaves no layer of {recipe.source.path} to"
            " quantise.",
            "Name fewer modules, or score the plain model: fp16.",
        )
    return found


def kept_plain(recipe: Recipe, name: str) -> bool:
    """Whether a layer is one of those that the option names."""
    words = str(recipe.options.get("skip_modules", ""))
    return any(answers(name, word) for word in words.split("+"))
