"""A task of which only the results are there: its score, of how many items, and how sure it is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qeval.base.records import Cell, Task
from qeval.base.sizes import size_of
from qeval.exchange.lm_eval.alike import conditions_of
from qeval.exchange.lm_eval.judging import Judge
from qeval.exchange.lm_eval.results import ResultsFile, TaskResults
from qeval.exchange.lm_eval.survey import Column, Survey, aggregated
from qeval.exchange.units import Published, stored
from qeval.score.harness.rules import BINARY, PERPLEXITIES

_NEAR = 1e-4
"""How far from a whole number a count may come out that is worked out from rounded figures."""
_EXACT = 1e-5
"""How far where there are more than _DIGITS digits."""
_DIGITS = 8
_STDERR = "_stderr"
_RIGHT_OR_WRONG = BINARY | {"mc1", "multiple_choice_grade"}


def published(results: ResultsFile, task: str, known: int | None = None) -> Survey | None:
    """What the results say of a task, as if it had been seen in samples; None where nothing tells how many
    items are behind its scores. `known`: how many there are where the results do not tell."""
    said = results.task(task)
    n = _count(results, task, said) or known
    if n is None:
        return None
    found = _numbers(said)
    hows = aggregated(list(dict.fromkeys(metric for metric, _ in found)), said)
    columns = {
        (metric, name): _column(metric, value, hows[metric], n) for (metric, name), value in found.items()
    }
    names = _filters(said, [name for _, name in found])
    complete = {
        metric: how for metric, how in hows.items() if all((metric, name) in columns for name in names)
    }
    return Survey(
        results, task, results.path, said, complete, dict.fromkeys(names, n), columns, published=True
    )


def _numbers(said: TaskResults) -> dict[tuple[str, str], float]:
    """Each finite number that the results tell, by metric and filter; no standard errors."""
    pairs = ((name.partition(","), value) for name, value in said.metrics.items())
    return {
        (metric, name): float(value)
        for (metric, _, name), value in pairs
        if name and not metric.endswith(_STDERR) and _is_finite(value)
    }


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _filters(said: TaskResults, seen: list[str]) -> list[str]:
    """The filters, in the order of the task's configuration."""
    told = [str(entry["name"]) for entry in said.config.get("filter_list") or ()]
    return [*(name for name in told if name in seen), *dict.fromkeys(x for x in seen if x not in told)]


def _column(metric: str, value: float, how: str, n: int) -> Column:
    score = _log_likelihood(value, how) if how in PERPLEXITIES else value
    whole = math.isclose(value * n, round(value * n), abs_tol=max(_NEAR, _NEAR * n))
    return Column(score, n if math.isfinite(score) else 0, score, score, binary=metric in BINARY and whole)


def _log_likelihood(value: float, how: str) -> float:
    if how == "bits_per_byte":
        return -value * math.log(2)
    return -math.log(value) if value > 0 else math.nan


# --- how many items there are -------------------------------------------------------------------


def _count(results: ResultsFile, task: str, said: TaskResults) -> int | None:
    """The items that were scored: as the results say (since 0.4.3), those of the whole task where there was
    no limit, or as many as the standard error of a 0/1 metric proves; None where nobody knows."""
    told = said.count.get("effective")
    if isinstance(told, int) and told > 0:
        return told
    whole = size_of(task) if _unlimited(results) else None
    return whole or next((n for n in _proved(said) if n is not None), None)


def _proved(said: TaskResults) -> Iterator[int | None]:
    """What the standard error of each metric proves, those first that are 0 or 1 by their names. Of any other
    only digits prove that it is: to so many, no mean of other numbers comes out like one."""
    pairs = [(key, error) for key in _numbers(said) if (error := _error(said, *key)) is not None]
    pairs.sort(key=lambda pair: pair[0][0] not in _RIGHT_OR_WRONG)
    for (metric, name), error in pairs:
        score = float(said.metrics[f"{metric},{name}"])
        if metric in _RIGHT_OR_WRONG:
            yield _counted(score, error)
        elif error != round(error, _DIGITS):
            yield _counted(score, error, _EXACT)


def _error(said: TaskResults, metric: str, name: str) -> float | None:
    found: Any = said.metrics.get(f"{metric}{_STDERR},{name}")
    return float(found) if _is_finite(found) and found > 0 else None


def _counted(score: float, error: float, within: float = 0.01) -> int | None:
    """The n of which lm-eval's standard error of a mean of 0s and 1s, sqrt(p(1 - p) / (n - 1)), is this one;
    None where that is no whole number to `within`, or would not be with so many right."""
    if not 0 < score < 1:
        return None
    n = score * (1 - score) / (error * error) + 1
    right = score * n
    off = {number: abs(number - round(number)) for number in (n, right)}
    near = all(by <= _NEAR * number for number, by in off.items()) and off[n] < within
    return round(n) if near and (within > _EXACT or off[right] < within) else None


def _unlimited(results: ResultsFile) -> bool:
    return "limit" in results.config and results.config["limit"] is None


# --- the cell -----------------------------------------------------------------------------------


def cell_of(name: str, found: Survey, task: Task, judge: Judge, unproved: tuple[str, ...]) -> Cell:
    """The score of a variant as a cell without items. `unproved` says what is not known of it."""
    said, n = found.said, found.items[judge.filter]
    column = found.columns[judge.metric, judge.filter]
    error = _error(said, judge.metric, judge.filter)
    told = json.dumps([name, task.name, judge.metric, judge.filter, column.score, n, error])
    return Cell(
        key=hashlib.sha256(told.encode()).hexdigest(),
        task=replace(task, kind=judge.kind),
        n=n,
        n_available=max(n, _available(found, n)),
        score=column.score,
        metrics=_sureness(found, judge, error, n),
        task_version=str(said.version),
        unproved=unproved,
        conditions=conditions_of(found, judge),
    )


def _available(found: Survey, n: int) -> int:
    told = found.said.count.get("original")
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    return size_of(found.task) or n


_ROUNDED = 1.01
"""How much greater a standard error may be written than it is."""


def _binomial(score: float, n: int) -> float:
    """lm-eval's standard error of n answers that are right or wrong."""
    return math.sqrt(score * (1 - score) / max(n - 1, 1))


def _sureness(found: Survey, judge: Judge, error: float | None, n: int) -> dict[str, float]:
    """What a standard error adds to the number of items, as `units.stored` keeps it; of right and wrong
    answers one that is greater than that of so many."""
    value = found.said.metrics[f"{judge.metric},{judge.filter}"]
    rises = judge.kind != "perplexity" or None
    where = f"{found.results.path}, {found.task}"
    if error is None or (judge.kind == "accuracy" and error <= _ROUNDED * _binomial(float(value), n)):
        return {}
    kept = stored(Published(judge.metric, float(value), n, rises, where), error)
    pairs = (("n_effective", kept.n_effective), ("stderr", kept.stderr))
    return {key: number for key, number in pairs if number is not None}
