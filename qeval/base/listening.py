"""Listens to what libraries warn of, and makes sentences of what changes a model, a question or a number.

Libraries warn by the dozen, and their output goes into a log that nobody reads. What says that something
else was loaded, asked or calculated than one would think stands in the table below, and reaches the notes;
all else stays in the log.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

LIBRARIES = (
    "",
    "transformers",
    "lm_eval",
    "torch",
    "logbar",
    "peft",
    "bitsandbytes",
    "optimum",
    "accelerate",
)
"""Loggers whose records are heard; the first is the root, which most others lead to."""
KEYS = "missing and unexpected keys"
_LONGEST = 240


class Pattern(NamedTuple):
    """A kind of warning: what it concerns, how it is known, and what is said of it. `{0}` is the whole
    warning in a line, `{1}` and so on are the groups of the expression."""

    concerns: str
    known_by: re.Pattern[str]
    sentence: str


def _pattern(concerns: str, known_by: str, sentence: str = "{0}") -> Pattern:
    return Pattern(concerns, re.compile(known_by), sentence)


PATTERNS = (
    # --- what is loaded
    _pattern(
        KEYS,
        r"LOAD REPORT.*? from: (\S+) (.*)",
        "transformers' report on loading {1}: {2}",
    ),
    _pattern(
        KEYS,
        r"[Ss]ome weights of (.+?) were not (initialized from|used when initializing) ?(.*)",
        "Some weights of {1} were not {2} {3}",
    ),
    _pattern(KEYS, r"[Ff]ound missing adapter keys|Adapter name .* prefix"),
    _pattern(
        "tied weights", r"specifies to tie .* (will NOT tie|both are absent)|checkpoint seems? corrupted"
    ),
    _pattern("another model class", r"You are using a model of type .* to instantiate a model of type"),
    _pattern("another model class", r"has 'model_type=.*' but you overrode it"),
    _pattern("quantisation left out", r"Unknown quantization type, got .*skip the quantization"),
    _pattern("quantisation left out", r"(no linear modules were found|not compatible with .* quantization)"),
    _pattern("positions", r"rope_parameters`?'s|RoPE scaling factor|[Uu]nrecognized keys in `rope"),
    _pattern("configuration", r"Model config: .* must be `None` or an integer within the vocabulary"),
    _pattern("new embeddings", r"new (embeddings|lm_head weights) will be initialized"),
    # --- what is asked
    _pattern("tokenizer", r"with an incorrect regex pattern"),
    _pattern("tokenizer", r"tokenizer class you load from this checkpoint is not the same"),
    _pattern("tokenizer", r"`tokenizer_class` is `.*` but `tokenizer.json` is"),
    _pattern("tokenizer", r"Special tokens have been added in the vocabulary"),
    _pattern("tokenizer", r"Falling back to (raw SentencePiece|TikToken) extract"),
    _pattern(
        "truncation",
        r"Combined length of context .* exceeds model's maximum length \((\d+)\)",
        "lm-eval cuts questions from the left where they are longer than the model accepts ({1} tokens).",
    ),
    _pattern(
        "truncation",
        r"Left truncation applied.*truncating to last (\d+) tokens",
        "lm-eval cuts contexts from the left to {1} tokens.",
    ),
    _pattern("truncation", r"is longer than the specified maximum sequence length"),
    _pattern("template", r"[Nn]o chat template is (set|defined)"),
    _pattern("template", r"Failed to apply chat template"),
    _pattern("template", r"chat_template was called with|Chat template name provided"),
    _pattern("template", r"Applied prompt returns empty string"),
    _pattern("examples", r"using test_docs as fewshot_docs"),
    _pattern("examples", r"fewshot_split is None"),
    _pattern("answers", r"Label index was not in within range"),
    _pattern("decoding", r"generation flags are not valid"),
    _pattern("decoding", r"Unfeasible length constraints|model-agnostic default `max_length`"),
    _pattern("decoding", r"Both `max_new_tokens` .* `max_length`"),
    # --- what is calculated
    _pattern("padding", r"right-padding was detected|attention mask (is|and the pad token id were) not set"),
    _pattern("attention", r"Automatically falling back to `\S+` instead of"),
    _pattern("attention", r"not support setting its attention implementation dynamically"),
    _pattern("attention", r"[Ss]liding [Ww]indow [Aa]ttention is enabled but not implemented"),
    _pattern("attention", r"only supports torch\.float16 and torch\.bfloat16"),
    _pattern("kernels", r"[Ff]all(ing|s)? ?back to|using the fallback|[Ff]ell back"),
    _pattern("kernels", r"fast (path|kernels?|implementation)s? (is|are) not available"),
    _pattern("kernels", r"hub usage is disabled|[Cc]ould not (load|find|fetch).* kernel"),
    _pattern("kernels", r"recompile_limit|cache_size_limit|[Tt]riton (is )?not (found|available)"),
    _pattern("kernels", r"inputs will be cast from \S+ to float16"),
    _pattern("kernels", r"weight was quantized from a \[K, N\] tensor"),
    _pattern("remote code", r"A new version of the following files was downloaded"),
)
"""The warnings that reach the notes, by what they concern. The first that fits counts."""


class Heard:
    """The sentences for what was heard, each kind of warning once."""

    def __init__(self) -> None:
        self._found: dict[Pattern, str] = {}
        self._told: set[str] = set()

    def hear(self, text: str) -> None:
        """Keep a library's warning, if it is one that matters and the first of its kind."""
        line = _in_a_line(text)
        for pattern in PATTERNS:
            match = pattern.known_by.search(line)
            if match is not None:
                parts = [part or "" for part in match.groups()]
                self._found.setdefault(pattern, _short(pattern.sentence.format(line, *parts)))
                return

    def told(self, sentences: Iterable[str]) -> None:
        """Leave out sentences that stand in the notes already."""
        self._told.update(sentences)

    def forget(self, concerns: str) -> None:
        """Leave out what was heard of something of which the notes tell in other words."""
        self._found = {kind: text for kind, text in self._found.items() if kind.concerns != concerns}

    def drain(self) -> tuple[str, ...]:
        """What was heard and not yet told."""
        new = tuple(text for text in dict.fromkeys(self._found.values()) if text not in self._told)
        self._told.update(new)
        return new


def _in_a_line(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def _short(sentence: str) -> str:
    cut = sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 1]}…"
    return cut if cut.endswith((".", "…", "!")) else f"{cut}."


class _Ear(logging.Handler):
    def __init__(self, heard: Heard) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.hear(record.getMessage())


@contextmanager
def listening() -> Iterator[Heard]:
    """Within it what libraries log or warn of is heard, even where a logger was told to be quiet."""
    heard = Heard()
    ear = _Ear(heard)
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    show = warnings.showwarning

    def hear(message: Warning | str, *given: Any, **more: Any) -> None:
        heard.hear(str(message))
        show(message, *given, **more)

    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(min(logger.level, logging.WARNING))
        logger.addHandler(ear)
    warnings.showwarning = hear
    try:
        yield heard
    finally:
        warnings.showwarning = show
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(ear)
            logger.setLevel(level)
