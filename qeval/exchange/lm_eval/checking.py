"""Whether samples agree with the results beside them: as many items as the limit lets, the same mean, finite
numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qeval.base import numbers
from qeval.base.errors import QevalError
from qeval.base.reading import whole
from qeval.exchange.lm_eval.judging import Judge
from qeval.exchange.lm_eval.results import AGAIN
from qeval.exchange.lm_eval.survey import Survey
from qeval.exchange.readers import inspect
from qeval.exchange.readers.shape import UNPROVED
from qeval.score.harness.rules import PERPLEXITIES

_TOLERANCE = 1e-6
"""What sums in another order, and files of fewer digits, may differ by."""
_OTHER_RUN = (
    "Lay the samples of that very run beside its results, or move them away: without them the results are "
    "read as scores."
)


def check(survey: Survey, judge: Judge) -> tuple[str, ...]:
    """What stays unproved of a task that agrees with its results file.

    Raises QevalError where it does not agree, or where a score that judges is no finite number.
    """
    column = survey.columns[judge.metric, judge.filter]
    if column.bad:
        raise QevalError(
            f"{survey.path}: {survey.task}, {column.bad}, which is no {judge.metric}.",
            "The model or the writer of the file gave no number there: run lm_eval again, for instance with "
            "another dtype.",
        )
    _check_count(survey, judge)
    told = survey.said.config.get(UNPROVED) or ()
    return (*_check_mean(survey, judge), *_unknown_size(survey), *(f"{survey.task}: {one}" for one in told))


def _check_count(survey: Survey, judge: Judge) -> None:
    n, count = survey.items[judge.filter], survey.said.count
    valued = max(column.n for (_, name), column in survey.columns.items() if name == judge.filter)
    size, scored = count.get("original"), count.get("effective")
    if size is not None and n > size:
        raise QevalError(
            f"{survey.path} has {n} items, and {survey.task} has only {size}.", _remedy(survey, AGAIN)
        )
    if scored is not None and scored not in (n, valued):
        raise QevalError(
            f"{survey.path} has {n} items, and {survey.results.path.name} says that {scored} were scored.",
            _remedy(survey, _OTHER_RUN),
        )
    _check_limit(survey, n)


def _check_limit(survey: Survey, n: int) -> None:
    """Raises QevalError for more items than the recorded limit lets: a part would pass for the whole."""
    limit, size = survey.results.config.get("limit"), survey.said.count.get("original")
    if survey.results.ours or not isinstance(limit, int | float) or isinstance(limit, bool):
        return
    most = int(limit) if limit >= 1 else None if size is None else math.ceil(limit * size)
    if most is not None and n > most:
        raise QevalError(
            f"{survey.path} has {n} items of {survey.task}, and {survey.results.path.name} says that a limit "
            f"of {limit:g} was set, which lets {most}.",
            _remedy(survey, _OTHER_RUN),
        )


def _remedy(survey: Survey, usual: str) -> str:
    """The `usual` remedy; a log of inspect holds its samples itself, and nobody can move them away."""
    if survey.results.writer != inspect.WRITER:
        return usual
    return f"Run inspect eval again, or leave {survey.path.name} out: name the others."


def _check_mean(survey: Survey, judge: Judge) -> Iterator[str]:
    """Raises QevalError for another mean than the results'; yields what to say where they tell none."""
    column, name = survey.columns[judge.metric, judge.filter], f"{judge.metric},{judge.filter}"
    said = survey.said.metrics.get(name)
    if said is None:
        yield (
            f"{survey.task}: {survey.results.path.name} tells no {name}, so nothing proves that the samples "
            "beside it are of the same run."
        )
        return
    mean = as_lm_eval_says(column.score, judge.aggregation)
    close = isinstance(said, int | float) and math.isclose(mean, said, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if not close:
        raise QevalError(
            f"{survey.path}: the mean of {name} is {mean:.6g}, and {survey.results.path.name} says {said}.",
            _remedy(survey, _OTHER_RUN),
        )


def as_lm_eval_says(score: float, aggregation: str) -> float:
    """A score in lm-eval's own measure."""
    if aggregation == "bits_per_byte":
        return -score / math.log(2)
    return numbers.exp(-score) if aggregation in PERPLEXITIES else score


def _unknown_size(survey: Survey) -> Iterator[str]:
    """What only the number of items of the whole task could prove, where it is not recorded: that nothing is
    missing, and that nothing was put in twice."""
    config = survey.results.config
    if "original" in survey.said.count:
        return
    numbers = [number for name in survey.keys if (number := whole(name)) is not None]
    if survey.results.writer == "lm-eval" and max(numbers, default=-1) >= len(survey.keys):
        there = f"its items are numbered up to {max(numbers)} and there are {len(survey.keys)}"
        yield f"{survey.task}: {there}: some are missing, and of how many is not recorded."
    if "limit" not in config or config["limit"] is not None:
        yield f"{survey.task}: scored with a limit or nobody knows, and of how many items is not recorded."
    if survey.copies:
        yield f"{survey.task}: {survey.copies} items are copies of others, and of how many is not recorded."
