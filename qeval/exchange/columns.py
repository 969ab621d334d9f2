"""The columns of a table of published scores, and how people write the numbers in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "variant": "the name that tables show",
    "task": "the task",
    "score": "a fraction, or in per cent where percent = true or 65.2% says so; a perplexity as it is",
    "right": "the number of right answers, in place of the score",
    "n": "the number of items behind the score",
    "model": "the model",
    "metric": "the metric",
    "num_fewshot": "the number of examples in the prompt",
    "n_available": "the number of items of the whole task, where n is fewer",
    "n_effective": "how many items of one task would say as much, for means of unlike subjects: at most n",
    "stderr": "the score's standard error, in the score's unit",
    "higher_is_better": "true or false, where the metric's name does not say",
    "baseline": "true in the rows of the variant that the others are compared with",
}
NEEDED = ("variant", "task", "n")
_NUMBERS = ("score", "right", "n", "num_fewshot", "n_available", "n_effective", "stderr")
PERCENT = "percent"
"""What `plain` adds to a row whose score carries a per cent sign."""
_DECIMAL = re.compile(r"[+-]?\d+,\d+")


def plain(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row with its numbers as Python writes them: "65,2" is 65.2, and "65.2%" is 65.2 in per cent."""
    found = {
        name: _without_comma(value) if name in _NUMBERS and isinstance(value, str) else value
        for name, value in row.items()
    }
    score = found.get("score")
    if not (isinstance(score, str) and score.endswith("%")):
        return found
    stderr = found.get("stderr")
    also = {"stderr": _number(stderr)} if isinstance(stderr, str) else {}
    return {**found, "score": _number(score), **also, PERCENT: True}


def _without_comma(words: str) -> str:
    words = words.strip()
    number = _number(words)
    return words.replace(",", ".") if _DECIMAL.fullmatch(number) else words


def _number(words: str) -> str:
    return words.removesuffix("%").rstrip()
