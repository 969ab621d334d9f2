"""Which score of the choices decided: the log-likelihood itself, or divided by the choice's length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

PLAIN, CHARACTERS, BYTES, UNKNOWN = "plain", "characters", "bytes", ""

LENGTHS: Mapping[str, Callable[[str], int]] = {
    PLAIN: lambda _: 1,
    CHARACTERS: len,
    BYTES: lambda text: len(text.encode("utf-8", "replace")),
}
"""What lm-eval divides a choice's log-likelihood by, from the choice without the delimiter before it."""
_FIRST = {"acc_norm": (CHARACTERS, PLAIN), "acc_bytes": (BYTES, PLAIN), "acc": (PLAIN,)}

Answered = tuple[Sequence[str], Sequence[tuple[str, Sequence[float]]]]
"""An item's choices, and for each variant its answer and the log-likelihoods of the choices."""


def lengths(way: str, choices: Sequence[str]) -> tuple[int, ...]:
    """What each choice's log-likelihood is divided by. A blank before a choice is the delimiter, no part of
    it: lm-eval counts without."""
    return tuple(LENGTHS[way](choice.removeprefix(" ")) for choice in choices)


def ways(metric: str) -> tuple[str, ...]:
    """The ways that may decide by this metric, the first that is proved is taken."""
    return _FIRST.get(metric, (PLAIN,))


def decided_by(metric: str, items: Iterable[Answered]) -> str:
    """The way by which the answers of these items were chosen, as far as they prove it.

    A way is taken only where its highest score is the answer of every variant on every item, the first of
    equal ones winning, as lm-eval has it; UNKNOWN where none is. So mutual information, whose second score is
    not stored, and choices cut or altered are never explained by a score that did not decide.
    """
    known = list(items)
    return next(
        (way for way in ways(metric) if known and all(_explains(way, item) for item in known)), UNKNOWN
    )


def _explains(way: str, item: Answered) -> bool:
    choices, variants = item
    divisors = lengths(way, choices)
    return all(
        answer == str(best(scores, divisors)) for answer, scores in variants if len(scores) == len(divisors)
    )


def best(scores: Sequence[float], divisors: Sequence[int]) -> int:
    """The choice whose divided score is the highest, the first of equal ones; -1 where there is none. A
    choice without length has minus infinity."""
    ranked = divided(scores, divisors)
    return ranked.index(max(ranked)) if ranked else -1


def divided(scores: Sequence[float], divisors: Sequence[int]) -> list[float]:
    """The scores by their divisors; minus infinity for a choice without length."""
    return [score / by if by else float("-inf") for score, by in zip(scores, divisors, strict=True)]
