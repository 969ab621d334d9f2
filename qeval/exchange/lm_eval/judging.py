"""What judges an imported task: the suite's metric and filter, or those that the rules prefer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.records import Kind, Task
from qeval.exchange.lm_eval.results import TaskResults
from qeval.exchange.lm_eval.samples import Format, Line, metric_names
from qeval.score.harness.rules import (
    DEFAULT_AGGREGATIONS,
    PERPLEXITIES,
    judging_filter,
    judging_metric,
    kind_of,
)


def judged(
    wanted: Task, lines: Sequence[Line], said: TaskResults, *, ours: bool
) -> tuple[Task, Format, list[Line]]:
    """The task with metric, filter and kind filled in, how to read its lines, and the lines of that filter.

    An empty metric or filter of `wanted` is chosen as for a task that qeval scores itself.

    Raises UsageError for a metric or filter that the samples lack, QevalError for a metric that judges no
    items.
    """
    metric, aggregation = wanted.metric or "acc", "mean"
    if lines:
        known = _aggregations(lines, said.config)
        if wanted.metric and wanted.metric not in known:
            raise UsageError(
                f"The samples of {wanted.name} have no score {wanted.metric!r} for each item.",
                did_you_mean(wanted.metric, known),
            )
        metric = judging_metric(wanted.name, wanted.metric, known, said.rises)
        aggregation = known[metric]
    filters = list(dict.fromkeys(str(line.get("filter", "none")) for line in lines)) or ["none"]
    chosen = judging_filter(wanted.name, wanted.filter, filters)
    kept = [line for line in lines if line.get("filter", "none") == chosen]
    task = replace(wanted, metric=metric, filter=chosen, kind=_kind(wanted, metric, aggregation, kept))
    return task, _format(metric, aggregation, said.config, ours=ours), kept


def _format(metric: str, aggregation: str, config: Mapping[str, Any], *, ours: bool) -> Format:
    return Format(
        metric,
        aggregation,
        str(config.get("output_type") or "multiple_choice"),
        str(config.get("target_delimiter", " ")),
        str(config.get("fewshot_delimiter") or "\n\n"),
        ours,
    )


def _kind(wanted: Task, metric: str, aggregation: str, lines: Sequence[Line]) -> Kind:
    """A suite that knows the metric for a score of a task's own making is believed."""
    binary = wanted.kind != "score" and all(_is_binary(line.get(metric)) for line in lines)
    return kind_of(metric, aggregation, binary=binary)


def _is_binary(value: Any) -> bool:
    """0 or 1; what is no number says nothing against it."""
    return value is None or value in (0, 1) or value != value  # noqa: PLR0124 - NaN


def _aggregations(lines: Sequence[Line], config: Mapping[str, Any]) -> dict[str, str]:
    """The metrics that have a score for each item, those of the configuration first, and how lm-eval
    aggregates each."""
    listed = {str(entry["metric"]): entry.get("aggregation") for entry in config.get("metric_list") or ()}
    seen = dict.fromkeys(name for line in lines for name in metric_names(line))
    found = {}
    for name in (name for name in {**listed, **seen} if name in seen):
        how = _plain_name(str(listed.get(name) or DEFAULT_AGGREGATIONS.get(name, "mean")))
        values = [line[name] for line in lines if line.get(name) is not None]
        if all(_is_score(value, how) for value in values):
            found[name] = how
    return found


def _plain_name(aggregation: str) -> str:
    """The name of a function where lm-eval wrote its source."""
    function = re.search(r"def (\w+)", aggregation)
    return f"{function.group(1)}()" if function else aggregation


def _is_score(value: Any, aggregation: str) -> bool:
    """A number, or a log-likelihood and a weight."""
    if isinstance(value, list):
        return aggregation in PERPLEXITIES and len(value) == 2 and all(_is_number(part) for part in value)  # noqa: PLR2004 - a pair
    return _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
