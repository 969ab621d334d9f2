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
_FRACTIONS = ("score", "n_effective", "stderr")
"""The columns of numbers that need not be whole: a comma stands for a point in no other."""
PERCENT = "percent"
"""What `plain` adds to a row whose score carries a per cent sign."""
_DECIMAL = re.compile(r"[+-]?\d+,\d+")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([.,' \u00a0\u202f]\d{3})+")


def plain(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row with its numbers as Python writes them: "65,2" is 65.2, and "65.2%" is 65.2 in per cent."""
    found = {
        name: _without_comma(value) if _may_have_comma(name, value) else value for name, value in row.items()
    }
    score = found.get("score")
    if not (isinstance(score, str) and score.endswith("%")):
        return found
    stderr = found.get("stderr")
    also = {"stderr": _number(stderr)} if isinstance(stderr, str) else {}
    return {**found, "score": _number(score), **also, PERCENT: True}


def grouped(name: Any, value: Any) -> bool:
    """Whether a number of items is written as thousands are, 1,172 or 1.172, which may be a fraction too."""
    if not isinstance(value, str) or name in ("score", "stderr") or not _GROUPED.fullmatch(value.strip()):
        return False
    return name != "n_effective" or "." not in value


def _may_have_comma(name: Any, value: Any) -> bool:
    return isinstance(value, str) and name in _FRACTIONS and not grouped(name, value)


def _without_comma(words: str) -> str:
    words = words.strip()
    number = _number(words)
    return words.replace(",", ".") if _DECIMAL.fullmatch(number) else words


def _number(words: str) -> str:
    return words.removesuffix("%").rstrip()
