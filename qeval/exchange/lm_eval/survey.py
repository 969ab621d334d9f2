"""What a task's file of samples holds, before anything is chosen: filters, metrics and their means."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.logged import listed_arguments
from qeval.exchange.lm_eval.lines import HASHES, Line, read_lines, sample_bytes
from qeval.exchange.lm_eval.results import AGAIN, JUDGED_BY, UNFILTERED, ResultsFile, TaskResults
from qeval.exchange.lm_eval.samples import metric_names
from qeval.score.harness.rules import DEFAULT_AGGREGATIONS, PERPLEXITIES, weighed


@dataclass(frozen=True)
class Column:
    """One metric by one filter. `score` is sum(value) / sum(weight), NaN without any weight; `n` items have
    a value; `low` and `high` are the least and the greatest; `binary`: each is 0 or 1. `bad` names the first
    item whose value is no finite number, or no log-likelihood where one belongs."""

    score: float
    n: int
    low: float
    high: float
    binary: bool
    bad: str = ""


@dataclass(frozen=True)
class Survey:
    """One task of one variant. `aggregations` are the metrics with a score for each item, and how lm-eval
    aggregates each; `items` counts the lines of each filter, in the order of the task's filters; `copies`
    are those of the first filter that are in all hashes what another is, under another number. `published`:
    there are no samples, and the columns hold what the results say. `asked` has of each document a digest of
    all that the model was given, prompts and choices, and of the right answer; empty where the samples do not
    hold that. `keys` are the numbers of the documents of the first filter."""

    results: ResultsFile
    task: str
    path: Path
    said: TaskResults
    aggregations: Mapping[str, str]
    items: Mapping[str, int]
    columns: Mapping[tuple[str, str], Column]
    copies: int = 0
    published: bool = False
    asked: Mapping[str, bytes] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    @property
    def judged_by(self) -> tuple[str, str] | None:
        """The metric and the filter that judged the task, where qeval wrote the files."""
        told = (self.said.config.get("metadata") or {}).get(JUDGED_BY) if self.results.ours else None
        return (str(told[0]), str(told[1])) if told else None

    @property
    def rises(self) -> dict[str, bool]:
        """Whether more of a metric is better, of those of which the files say it; a null says nothing."""
        listed = [(entry["metric"], entry.get("higher_is_better")) for entry in metric_list(self.said)]
        told = (*listed, *self.said.rises.items())
        return {str(name): bool(more) for name, more in told if more is not None}


def survey(results: ResultsFile, task: str) -> Survey:
    """Look through the samples of a task. Raises QevalError where the file is damaged or has items twice."""
    path, said = results.samples_of(task), results.task(task)
    parts = by_filter(path, read_lines(path, sample_bytes(results, task)), said)
    lines = [line for some in parts.values() for line in some]
    aggregations = _aggregations(lines, said)
    columns = {
        (metric, name): _column(some, metric, how)
        for metric, how in aggregations.items()
        for name, some in parts.items()
    }
    items = {name: len(some) for name, some in parts.items()}
    asked = {} if results.ours else _asked(next(iter(parts.values()), ()))
    copies, keys = _copies(parts), tuple(str(line["doc_id"]) for line in next(iter(parts.values()), ()))
    return Survey(results, task, path, said, aggregations, items, columns, copies, asked=asked, keys=keys)


def _asked(lines: Sequence[Line]) -> dict[str, bytes]:
    """A digest of what the model was given of each document; none where any of them lacks it."""
    if not all(line.get("arguments") for line in lines):
        return {}
    return {str(line["doc_id"]): _digest(line) for line in lines}


def _digest(line: Line) -> bytes:
    """Of a context that several choices follow once; and of the right answer, whatever its hash says."""
    asked = listed_arguments(line["arguments"])
    first = asked[0][0] if asked and asked[0] else None
    short = [[None, *some[1:]] if some and some[0] == first else some for some in asked]
    told = json.dumps([first, short, str(line.get("target"))], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=8).digest()


def _copies(parts: Mapping[str, Sequence[Line]]) -> int:
    lines = next(iter(parts.values()), ())
    return len(lines) - len({tuple(str(line[name]) for name in HASHES) for line in lines})


# --- filters ------------------------------------------------------------------------------------


def by_filter(path: Path, lines: Sequence[Line], said: TaskResults) -> dict[str, list[Line]]:
    """The lines of each filter, filters in the order of the task's configuration.

    Up to version 0.4.6 lm-eval wrote each document once for each filter and did not say for which: the first
    time is then the first filter's, and so on.

    Raises QevalError where a document is there twice for a filter, or not for each.
    """
    listed = [str(entry["name"]) for entry in said.config.get("filter_list") or ()] or [UNFILTERED]
    told = [line for line in lines if "filter" in line]
    if told and len(told) < len(lines):
        raise QevalError(f"{path}: some lines name a filter and others do not.", AGAIN)
    parts = _told(lines, listed) if told else _counted(path, lines, listed)
    for name, some in parts.items():
        _refuse_twice(path, name, some)
    return parts


def _told(lines: Sequence[Line], listed: Sequence[str]) -> dict[str, list[Line]]:
    parts: dict[str, list[Line]] = {}
    for line in lines:
        parts.setdefault(str(line["filter"]), []).append(line)
    return {name: parts[name] for name in (*listed, *parts) if name in parts}


def _counted(path: Path, lines: Sequence[Line], listed: Sequence[str]) -> dict[str, list[Line]]:
    times: Counter[str] = Counter()
    parts: dict[str, list[Line]] = {name: [] for name in listed}
    for line in lines:
        key = str(line["doc_id"])
        if times[key] == len(listed):
            raise _wrong_count(path, key, times[key] + 1, listed)
        parts[listed[times[key]]].append(line)
        times[key] += 1
    odd = next((key for key, count in times.items() if count != len(listed)), None)
    if odd is not None:
        raise _wrong_count(path, odd, times[odd], listed)
    return parts


def _wrong_count(path: Path, key: str, count: int, listed: Sequence[str]) -> QevalError:
    filters = f"{len(listed)} filter{'s' * (len(listed) > 1)} ({', '.join(listed)})"
    often = f"{count} times or more" if count > len(listed) else f"{count} times"
    return QevalError(f"{path} has item {key} {often}, where the task has {filters}.", AGAIN)


def _refuse_twice(path: Path, name: str, lines: Sequence[Line]) -> None:
    times = Counter(str(line["doc_id"]) for line in lines)
    again = next((key for key, count in times.items() if count > 1), None)
    if again is not None:
        raise QevalError(
            f"{path} has item {again} {times[again]} times for one filter ({name}): items are not unique.",
            AGAIN,
        )


# --- metrics ------------------------------------------------------------------------------------


def metric_list(said: TaskResults) -> Iterator[Mapping[str, Any]]:
    """The metrics of a task's configuration."""
    return (entry for entry in said.config.get("metric_list") or () if "metric" in entry)


def _aggregations(lines: Sequence[Line], said: TaskResults) -> dict[str, str]:
    """The metrics that have a score for each item, those of the configuration first, and how lm-eval
    aggregates each."""
    seen = list(dict.fromkeys(name for line in lines for name in metric_names(line)))
    return {
        name: how
        for name, how in aggregated(seen, said).items()
        if all(_is_score(line[name], how) for line in lines if name in line)
    }


def aggregated(seen: Sequence[str], said: TaskResults) -> dict[str, str]:
    """How lm-eval aggregates each of these metrics, those of the configuration first."""
    told = {str(entry["metric"]): entry.get("aggregation") for entry in metric_list(said)}
    names = [*(name for name in told if name in seen), *(name for name in seen if name not in told)]
    return {
        name: _plain_name(str(told.get(name) or DEFAULT_AGGREGATIONS.get(name, "mean"))) for name in names
    }


def _plain_name(aggregation: str) -> str:
    """The name of a function where lm-eval wrote its source."""
    function = re.search(r"def (\w+)", aggregation)
    return f"{function.group(1)}()" if function else aggregation


def _is_score(value: Any, aggregation: str) -> bool:
    """A number, or a log-likelihood and a weight; a null stands where a number was."""
    if isinstance(value, list):
        return aggregation in PERPLEXITIES and len(value) == 2 and all(_is_number(part) for part in value)  # noqa: PLR2004 - a pair
    return _is_number(value)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _column(lines: Sequence[Line], metric: str, how: str) -> Column:
    """One metric of the lines of one filter; a line that does not mention it has no value."""
    found = [(line["doc_id"], line[metric]) for line in lines if metric in line]
    bad = next((f"item {key} is {value}" for key, value in found if not _is_possible(value, how)), "")
    if bad:
        return Column(math.nan, 0, math.nan, math.nan, binary=False, bad=bad)
    pairs = [weighed(value, how) for _, value in found]
    weight = math.fsum(weight for _, weight in pairs)
    values = [value for value, weight in pairs if weight]
    return Column(
        score=math.fsum(value for value, _ in pairs) / weight if weight else math.nan,
        n=len(values),
        low=min(values, default=math.nan),
        high=max(values, default=math.nan),
        binary=all(value in (0, 1) for value in values),
    )


def _is_possible(value: Any, how: str) -> bool:
    """A finite number, or one that lm-eval leaves out of the mean; of log-likelihoods none above 0."""
    if isinstance(value, list):
        return all(map(_is_finite, value)) and value[0] <= 0 < value[1]
    if how == "nanmean" and isinstance(value, float) and math.isnan(value):
        return True
    return _is_finite(value) and (how not in PERPLEXITIES or value <= 0)


def _is_finite(value: Any) -> bool:
    try:
        return value is not None and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
