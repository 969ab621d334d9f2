"""Whether the text that a checkpoint was calibrated on holds the questions that it is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

RUN = 8
"""Words in a row that are no chance: the least run that the GPT-3 paper (Brown et al. 2020, appendix C)
takes for an overlap of training text and benchmark, where it takes up to 13."""
SHARE = 0.8
"""Of a question's words in such runs: what the Llama 2 paper (Touvron et al. 2023, A.6) calls dirty."""
LEAST = 5
"""Words of a question that is looked at. One of fewer than `RUN` words must lie in the text as a whole."""


def held(text: str, questions: Sequence[str]) -> int:
    """How many questions lie in the text: at least `SHARE` of their words in runs of `RUN` words that it has.

    Case and punctuation do not count, nor words that every question begins or ends with, such as "Answer:".
    """
    words = _words(text)
    known = {size: set(_runs(words, size)) for size in range(LEAST, RUN + 1)}
    return sum(
        len(question) >= LEAST and _covered(question, known[min(len(question), RUN)]) >= SHARE
        for question in _without_template([_words(question) for question in questions])
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _without_template(questions: Sequence[list[str]]) -> list[list[str]]:
    if len(questions) == 1:
        return list(questions)
    head = _common(questions)
    rest = [question[head:] for question in questions]
    tail = _common([question[::-1] for question in rest])
    return [question[: len(question) - tail] for question in rest]


def _common(questions: Sequence[list[str]]) -> int:
    """How many words all of them begin with."""
    return sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, zip(*questions, strict=False)))


def _runs(words: Sequence[str], size: int) -> list[str]:
    return [" ".join(words[at : at + size]) for at in range(len(words) - size + 1)]


def _covered(words: Sequence[str], known: set[str]) -> float:
    """The share of the words that lie in a known run."""
    size = min(len(words), RUN)
    covered, end = 0, 0
    for at, run in enumerate(_runs(words, size)):
        if run in known:
            covered += at + size - max(at, end)
            end = at + size
    return covered / len(words)
