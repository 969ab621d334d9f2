"""Whether samples agree with themselves: right where their log-likelihoods, or the texts beside, say it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qeval.base.reading import whole
from qeval.base.records import Samples
from qeval.compare.conditions import SCORED
from qeval.exchange.lm_eval.judging import Judge
from qeval.exchange.lm_eval.lines import Line
from qeval.exchange.lm_eval.results import UNFILTERED
from qeval.exchange.lm_eval.survey import Survey, metric_list

_TIE = 1e-6
"""Log-likelihoods that are nearer to each other, relatively, count as alike."""
_REMOVED = frozenset([",", r"\$", "(?s).*#### ", r"\.$"])
"""The expressions of `regexes_to_ignore` that are tried: those of lm-eval's own tasks. A file is from
anywhere, and others may take for ever."""


def contradicted(
    survey: Survey, judge: Judge, samples: Samples, lines: Sequence[Line], choices: Sequence[Sequence[str]]
) -> Iterator[str]:
    """A sentence where items count as right or wrong against their own log-likelihoods, or their own texts.
    `choices` are the texts of each item's.

    Only of lm-eval's plain `acc` of one right choice, which is the most likely one whatever its length; where
    two are alike either may be it. And of its plain `exact_match` with one right text. What a task's own
    function makes of the answers is not looked at.
    """
    config = survey.said.config
    if "process_results" in config or survey.results.writer != "lm-eval":
        return
    if (judge.metric, config.get("output_type")) == ("exact_match", "generate_until"):
        yield from _texts_against(survey, samples, lines)
    if (judge.metric, judge.filter, config.get("output_type")) != ("acc", UNFILTERED, SCORED[0]):
        return
    wrong = [
        str(line["doc_id"])
        for at, line in enumerate(lines)
        if _against(float(samples.value[at]), samples.scores[at], str(line.get("target", "")), choices[at])
    ]
    if wrong:
        yield (
            f"{survey.task}: acc is not what the log-likelihoods beside it say, of item {wrong[0]} first and "
            f"of {len(wrong)} in all, so nothing proves that it was measured."
        )


def _against(value: float, scores: Sequence[float], target: str, choices: Sequence[str]) -> bool:
    """Whether an item is right though another choice is surely likelier than the right one, or wrong though
    none is."""
    gold = whole(target)
    known = gold is not None and str(gold) == target and target not in choices and len(scores) == len(choices)
    if not known or gold is None or not 0 <= gold < len(scores) or value not in (0, 1):
        return False
    others = max((score for at, score in enumerate(scores) if at != gold), default=-math.inf)
    apart = _TIE * max(1.0, abs(others)) if math.isfinite(others) else 0.0
    return scores[gold] < others - apart if value else scores[gold] > others + apart


def _texts_against(survey: Survey, samples: Samples, lines: Sequence[Line]) -> Iterator[str]:
    config = survey.said.config
    entry = next((one for one in metric_list(survey.said) if one["metric"] == "exact_match"), {})
    removed = entry.get("regexes_to_ignore") or ()
    if config.get("doc_to_choice") is not None or survey.results.ours or not set(removed) <= _REMOVED:
        return
    wrong = [
        str(line["doc_id"])
        for at, line in enumerate(lines)
        if _text_against(float(samples.value[at]), line, removed, entry)
    ]
    if wrong:
        yield (
            f"{survey.task}: exact_match is not what the texts beside it say, of item {wrong[0]} first and "
            f"of {len(wrong)} in all, so nothing proves that it was measured."
        )


def _text_against(value: float, line: Line, removed: Sequence[str], entry: Mapping[str, Any]) -> bool:
    """Whether an answer is right though it is another text than the right one in more than signs and letters'
    case, or wrong though it is that very text."""
    left, target = line.get("filtered_resps"), line.get("target")
    answer = left[0] if isinstance(left, list) and left else None
    if not (isinstance(answer, str) and isinstance(target, str)) or target.startswith("["):
        return False
    if value != 1:
        return value == 0 and answer == target
    one, two = (_bare(text, removed) for text in (answer, target))
    if entry.get("ignore_numbers"):
        one, two = (re.sub(r"\d", "", text) for text in (one, two))
    return one != two


def _bare(text: str, removed: Sequence[str]) -> str:
    """Its letters and digits."""
    for expression in removed:
        text = re.sub(expression, "", text)
    return "".join(letter for letter in text.lower() if letter.isalnum())
