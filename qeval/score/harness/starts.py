"""Start tokens that stand twice: lm-eval sets one before a rolling text, some tokenizers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from qeval.base.records import Task
from qeval.score.engine.requests import Answer, TokenRequest
from qeval.score.harness.prepared import Outcome, PreparedTask

ONE_START = "_with_one_start"
"""What the names of metrics end in that are measured without the second start token."""


def with_one_start(prepared: PreparedTask) -> list[TokenRequest]:
    """The first window of each text with one start token instead of two; none unless all texts have two.

    The other windows begin within the text and are the same.
    """
    if prepared.output_type != "loglikelihood_rolling" or prepared.frame:
        return []
    spans = prepared.content.spans.tolist()
    firsts = [prepared.requests[begin] for begin, end in pairwise(spans) if end > begin]
    twice = [one.n_scored > 1 and bool(one.tokens[0] == one.tokens[1]) for one in firsts]
    if len(firsts) < len(spans) - 1 or not all(twice):
        return []
    return [TokenRequest(one.tokens[1:], one.n_scored - 1) for one in firsts]


def totals_with_one_start(
    prepared: PreparedTask, answers: Sequence[Any], one_start: Sequence[Answer]
) -> list[float]:
    """Each text's log-likelihood where its first window is that of `with_one_start`."""
    spans = prepared.content.spans.tolist()
    rest = [
        math.fsum(answer.loglikelihood for answer in answers[begin + 1 : end])
        for begin, end in pairwise(spans)
    ]
    return [first.loglikelihood + more for first, more in zip(one_start, rest, strict=True)]


def start_notes(outcome: Outcome, task: Task) -> list[str]:
    """A sentence with both numbers, where texts were measured with one start token too."""
    name = f"{task.metric},{task.filter}"
    without = outcome.metrics.get(f"{task.metric}{ONE_START},{task.filter}")
    if without is None:
        return []
    told = f"{task.metric} is {outcome.metrics[name]:.4g}; with one it is {without:.4g}."
    return [f"{task.name}: lm-eval and the tokenizer both begin a text with a start token, so {told}"]
