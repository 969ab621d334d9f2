"""A published number as records keep scores: a fraction or log-likelihood, more is better; or refused."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from qeval.base.errors import UsageError
from qeval.base.records import Kind
from qeval.score.harness.rules import has_a_direction, less_is_better, more_is_better

_MOST_ERROR = 0.5
_BITS = ("bits_per_byte", "bpb", "bits_per_character", "bpc")

_OF_PERPLEXITIES = re.compile(
    r"log|(?<![a-z])(ln|neg|negative|inverse|normali[sz]ed|relative|delta)(?![a-z])"
)
"""Words in the name of what is no perplexity, but made of one."""


@dataclass(frozen=True)
class Published:
    """A number as it was published, a percentage as a fraction, of `n` items. `rises`: whether more is
    better, None where only the metric's name can tell. `where` names its row."""

    metric: str
    score: float
    n: int
    rises: bool | None
    where: str


@dataclass(frozen=True)
class Stored:
    """The score as records keep it. `metric` is "1 - wer" where a fraction was turned round. A standard error
    becomes `n_effective`, the number of 0/1 items that would tell as much; of a perplexity it stays, as that
    of the log-likelihood."""

    metric: str
    score: float
    kind: Kind
    n_effective: float | None = None
    stderr: float | None = None


def is_perplexity(metric: str) -> bool:
    """Whether a metric is a perplexity, or the bits that are its logarithm, by its name."""
    words = set(re.findall(r"[a-z0-9]+", metric.lower()))
    return "perplexity" in metric.lower() or "ppl" in words or metric.lower() in _BITS


def rises(found: Published) -> bool:
    """Whether more of a published number is better.

    Raises UsageError where its metric and `rises` contradict each other, or neither says it.
    """
    falls = less_is_better(found.metric) or is_perplexity(found.metric)
    told = has_a_direction(found.metric) or is_perplexity(found.metric)
    contradicted = found.rises is False and more_is_better(found.metric) and told
    if (falls and found.rises) or contradicted:
        one, other = ("more", "less") if found.rises else ("less", "more")
        raise UsageError(
            f"{found.where} says that {one} {found.metric} is better, where its name says that {other} is.",
            "Leave higher_is_better out, or name what is measured.",
        )
    if found.rises is None and not told:
        raise UsageError(
            f"{found.where}: nothing says whether more {found.metric} is better, or less.",
            "Add a column higher_is_better with true or false.",
        )
    return not (falls or found.rises is False)


def stored(found: Published, stderr: float | None = None) -> Stored:
    """What is kept of a number and its standard error.

    Raises UsageError where nothing tells whether more is better (see `rises`), or it is on a scale that is
    not compared.
    """
    falls = not rises(found)
    if is_perplexity(found.metric):
        return _perplexity(found, stderr)
    if found.score > 1:
        raise UsageError(
            f"{found.where}: the score {found.score:g} is more than all items, so {found.metric} is not on "
            "0 to 1.",
            "If it is in per cent, write it as 65.2%, or say so of the whole table with --percent. What is "
            "on another scale cannot be compared: leave it out.",
        )
    score = 1 - found.score if falls else found.score
    return Stored(f"1 - {found.metric}" if falls else found.metric, score, "accuracy", _worth(found, stderr))


def _worth(found: Published, stderr: float | None) -> float | None:
    """How many 0/1 items have that standard error: p(1 - p) / stderr squared; unknown at 0 and 1. At most as
    many as there are: a smaller error, of a score that is not 0 or 1 for each item, is not made use of.

    Raises UsageError for an error that no score can have: even a single item's is at most a half, and the
    usual estimate of two items that differ as much as they can is no greater."""
    deviation = math.sqrt(found.score * (1 - found.score))
    if stderr is None or not deviation:
        return None
    if stderr > _MOST_ERROR:
        raise UsageError(
            f"{found.where}: a standard error of {stderr:g} is not possible of a score from 0 to 1.",
            "Write it in the unit of the score, in per cent where that is.",
        )
    ratio = deviation / stderr
    return min(ratio * ratio, float(found.n))


def _perplexity(found: Published, stderr: float | None) -> Stored:
    """Minus its logarithm, and that one's standard error. Raises UsageError for one that cannot be, and for
    what is made of a perplexity: a logarithm's logarithm would hide most of a loss."""
    score = found.score
    if _OF_PERPLEXITIES.search(found.metric.lower()):
        raise UsageError(
            f"{found.where}: {found.metric} is made of a perplexity, and is none.",
            "Write the perplexity itself, or bits_per_byte.",
        )
    if found.metric.lower() in _BITS:
        factor = math.log(2)
        return Stored(found.metric, -factor * score, "perplexity", stderr=stderr and factor * stderr)
    if score < 1:
        raise UsageError(f"{found.where}: a perplexity of {score:g} is not possible.", "It is at least 1.")
    return Stored(found.metric, -math.log(score), "perplexity", stderr=stderr and stderr / score)
