"""Which metric of a live lm-eval task judges it, and of what kind its values are: what `rules` asks for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qeval.base.records import Task
from qeval.score.harness.rules import BINARY, MEANS, PERPLEXITIES, judging_filter, judging_metric, kind_of

_PROBES = 32


def chosen(task: Task, lm_task: Any) -> Task:
    """`task` with its metric, filter and kind filled in from lm-eval's task object.

    Raises what `rules.judging_metric` and `rules.judging_filter` raise.
    """
    aggregations = aggregation_names(lm_task)
    rises = {str(name): bool(more) for name, more in lm_task.higher_is_better().items()}
    metric = judging_metric(task.name, task.metric, aggregations, rises)
    filters = [str(ensemble.name) for ensemble in lm_task._filters]  # noqa: SLF001 - lm-eval gives no other way
    binary = metric in BINARY and _binary(metric, lm_task)
    kind = kind_of(metric, aggregations[metric], binary=binary)
    return replace(task, metric=metric, filter=judging_filter(task.name, task.filter, filters), kind=kind)


def aggregation_names(lm_task: Any) -> dict[str, str]:
    """The task's metrics in its order, each with lm-eval's name for how its values become one number. A
    function that only bears the name of one of lm-eval's is called by its module too."""
    from lm_eval.api import metrics

    known = {getattr(metrics, name): name for name in (*MEANS, *PERPLEXITIES)}
    return {
        str(metric): known.get(how) or _strange(how, known.values())
        for metric, how in lm_task.aggregation().items()
    }


def _strange(how: Any, taken: Any) -> str:
    name = str(getattr(how, "__name__", how))
    return f"{how.__module__}.{name}" if name in taken else name


def _binary(metric: str, lm_task: Any) -> bool:
    """Whether nothing speaks against a metric being 0 or 1: lm-eval's own always are, but TruthfulQA's mc2
    calls a probability "acc", so a task's own function is asked what it makes of made-up answers."""
    own = callable(lm_task.config.process_results) if hasattr(lm_task, "config") else False
    if not own or lm_task.OUTPUT_TYPE == "generate_until":
        return True
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
