"""Which of a task's metrics judges it, and of what kind its values are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.records import Kind, Task

_PREFERRED = ("acc_norm", "acc", "exact_match", "word_perplexity")
_BINARY = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
# lm-eval says "mean" of these too, but what it averages are no numbers.
_NOT_NUMBERS = frozenset({"likelihood", "bypass"})
_PROBES = 32


def chosen(task: Task, lm_task: Any) -> Task:
    """`task` with its metric, filter and kind filled in from lm-eval's task object.

    Raises UsageError for a metric or filter the task has not, QevalError for a metric that does not judge
    item by item (BLEU of a corpus, F1 of a whole split) or of which less is better.
    """
    metric = task.metric or _primary(task.name, lm_task)
    if metric not in lm_task.aggregation():
        raise UsageError(
            f"The task {task.name!r} has no metric {metric!r}.",
            did_you_mean(metric, [str(name) for name in lm_task.aggregation()]),
        )
    reason = _refusal(metric, lm_task)
    if reason:
        others = ", ".join(_per_item(lm_task)) or "none"
        raise QevalError(
            f"The metric {metric!r} of task {task.name!r} cannot be compared item by item: {reason}.",
            f"Metrics of this task that can: {others}.",
        )
    return replace(task, metric=metric, filter=_filter(task, lm_task), kind=_kind(metric, lm_task))


def _primary(name: str, lm_task: Any) -> str:
    possible = _per_item(lm_task)
    for metric in (*_PREFERRED, *possible):
        if metric in possible:
            return metric
    raise QevalError(
        f"The task {name!r} has no metric that judges item by item.",
        f"It has {', '.join(map(str, lm_task.aggregation())) or 'none'}; choose another task.",
    )


def _per_item(lm_task: Any) -> list[str]:
    return [str(metric) for metric in lm_task.aggregation() if not _refusal(metric, lm_task)]


def _refusal(metric: str, lm_task: Any) -> str:
    """Why a metric cannot judge items one by one, "" if it can."""
    aggregation = lm_task.aggregation()[metric]
    if aggregation in _perplexities():
        return ""
    if aggregation not in _means() or metric in _NOT_NUMBERS:
        return f"it is one number for all items ({getattr(aggregation, '__name__', aggregation)})"
    if not lm_task.higher_is_better().get(metric, True):
        return "less of it is better"
    return ""


def _means() -> tuple[Callable[..., Any], ...]:
    from lm_eval.api import metrics

    return (metrics.mean, metrics.nanmean)


def _perplexities() -> tuple[Callable[..., Any], ...]:
    from lm_eval.api import metrics

    return (metrics.weighted_perplexity, metrics.bits_per_byte, metrics.perplexity)


def _filter(task: Task, lm_task: Any) -> str:
    names = [str(ensemble.name) for ensemble in lm_task._filters]  # noqa: SLF001 - lm-eval gives no other way
    if task.filter in names:
        return task.filter
    if task.filter == "none":
        return names[0]  # the default of Task; the task has filters of its own
    raise UsageError(
        f"The task {task.name!r} has no filter {task.filter!r}.", did_you_mean(task.filter, names)
    )


def _kind(metric: str, lm_task: Any) -> Kind:
    if lm_task.aggregation()[metric] in _perplexities():
        return "perplexity"
    if metric not in _BINARY:
        return "score"
    own = callable(lm_task.config.process_results) if hasattr(lm_task, "config") else False
    if not own or lm_task.OUTPUT_TYPE == "generate_until":
        return "accuracy"
    return "accuracy" if _binary(metric, lm_task) else "score"


def _binary(metric: str, lm_task: Any) -> bool:
    """Whether a task's own function gives 0 or 1 for made-up answers to its first documents: TruthfulQA's
    mc2 calls a probability "acc"."""
    draw = random.Random(0)  # noqa: S311 - nothing secret
    values: list[float] = []
    for _, document in zip(range(_PROBES), lm_task.eval_docs, strict=False):
        answers = [(-30 * draw.random(), draw.random() < 0.5) for _ in range(_asked(lm_task, document))]  # noqa: PLR2004 - a coin
        try:
            values.append(float(lm_task.process_results(document, answers)[metric]))
        except (KeyError, TypeError, ValueError, IndexError):
            return False
    return all(value in (0.0, 1.0) for value in values)


def _asked(lm_task: Any, document: Any) -> int:
    if lm_task.OUTPUT_TYPE != "multiple_choice":
        return 1
    choices: Sequence[str] = lm_task.doc_to_choice(document)
    return len(choices)
