"""What judges an imported task, chosen once for all variants: the metric and filter that are wished for, else
those that the rules prefer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.records import Kind, Task
from qeval.exchange.lm_eval.groups import Groups, around
from qeval.exchange.lm_eval.samples import Format
from qeval.exchange.lm_eval.survey import Survey
from qeval.score.harness.rules import (
    MEANS,
    PERPLEXITIES,
    has_a_direction,
    judging_filter,
    judging_metric,
    kind_of,
    less_is_better,
    more_is_better,
)

_NOISE = 1e-9


@dataclass(frozen=True)
class Wishes:
    """What a person chose, by task or group; under "" for every task that has it."""

    metrics: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)

    def within(self, groups: Groups, tasks: Iterable[str]) -> Wishes:
        """They with each task's own: a wish for a group holds for all below it, an inner one's first."""
        every = [(task, around(task, groups)) for task in tasks]
        return Wishes(_spread(self.metrics, every), _spread(self.filters, every))

    def metric_of(self, task: Task) -> str:
        """The metric wished for this very task, else for its group, else for all."""
        return _own(self.metrics, task) or self.metrics.get("", "")


def _spread(wishes: Mapping[str, str], tasks: Sequence[tuple[str, Sequence[str]]]) -> dict[str, str]:
    own = {
        task: next((wishes[name] for name in (task, *above) if name in wishes), "") for task, above in tasks
    }
    return {**wishes, **{task: wish for task, wish in own.items() if wish}}


@dataclass(frozen=True)
class Judge:
    """What judges a task, for all variants."""

    metric: str
    aggregation: str
    filter: str
    kind: Kind

    def format(self, survey: Survey) -> Format:
        """How the samples of a variant are read."""
        config = survey.said.config
        return Format(
            self.metric,
            self.aggregation,
            str(config.get("output_type") or "multiple_choice"),
            str(config.get("target_delimiter", " ")),
            str(config.get("fewshot_delimiter") or "\n\n"),
            survey.results.ours,
            survey.judged_by in (None, (self.metric, self.filter)) and survey.results.ours,
        )


def choose(wanted: Task, surveys: Sequence[Survey], wishes: Wishes) -> Judge:
    """The metric and filter that judge a task, among those that all variants have.

    The first of `surveys` (the baseline's) gives the order in which metrics and filters are preferred, so
    that files which list them in another order are judged alike.

    Raises:
        UsageError: what a suite or a person wished for is not there.
        QevalError: no metric judges item by item, or the scores are on another scale than 0 to 1.
    """
    metric, how = _metric(wanted, surveys, wishes)
    name = _filter(metric, wanted, surveys, wishes)
    columns = [survey.columns[metric, name] for survey in surveys]
    binary = wanted.kind != "score" and all(column.binary for column in columns)
    kind = kind_of(metric, how, binary=binary)
    spread = [end for column in columns if column.n for end in (column.low, column.high)]
    if kind != "perplexity" and spread and not -_NOISE <= min(spread) <= max(spread) <= 1 + _NOISE:
        raise QevalError(
            f"its {metric} is not on 0 to 1 (items from {min(spread):g} to {max(spread):g}), and only "
            "fractions and perplexities are compared",
            "",
        )
    return Judge(metric, how, name, kind)


def _metric(wanted: Task, surveys: Sequence[Survey], wishes: Wishes) -> tuple[str, str]:
    first = surveys[0]
    shared = {
        name: how
        for name, how in first.aggregations.items()
        if all(survey.aggregations.get(name) == how for survey in surveys)
    }
    wish = wanted.metric or _own(wishes.metrics, wanted)
    if wish and wish not in shared:
        raise UsageError(
            f"The samples of {wanted.name} have no score {wish!r} for each item.", did_you_mean(wish, shared)
        )
    everywhere = wishes.metrics.get("", "")
    wish = (
        wish
        or (everywhere if everywhere in shared else "")
        or (_told(first)[0] if _told(first)[0] in shared else "")
    )
    wrong = {name: why for name, how in shared.items() if (why := _wrong_way(name, how, surveys))}
    right = {name: how for name, how in shared.items() if name not in wrong}
    if wish in wrong:
        raise QevalError(
            f"The metric {wish!r} of task {wanted.name!r} cannot be compared item by item: {wrong[wish]}.",
            f"Metrics of this task that can: {', '.join(right) or 'none'}.",
        )
    if wrong and wrong.keys() == _items_judged(shared):
        raise QevalError("; ".join(wrong.values()), "")
    metric = judging_metric(wanted.name, wish, right, {})
    return metric, right[metric]


def _items_judged(shared: Mapping[str, str]) -> set[str]:
    """The metrics that are means of what they say of each item."""
    return {name for name, how in shared.items() if how in MEANS or how in PERPLEXITIES}


def _wrong_way(metric: str, how: str, surveys: Sequence[Survey]) -> str:
    """Why a mean is not known to be one of which more is better, "" where it is: what the files of all
    variants and the metric's name say must agree, and one of them must say it."""
    if how not in MEANS:
        return ""
    said = {survey.rises[metric]: survey.results.path for survey in surveys if metric in survey.rises}
    more, falls = next(iter(said), None), less_is_better(metric)
    reasons = (
        (len(said) > 1, f"more {metric} is better in {said.get(True)}, and less in {said.get(False)}"),
        (
            more is False and more_is_better(metric),
            f"{said.get(False)} says that less {metric} is better, where its name says that more is",
        ),
        (
            more is True and falls,
            f"{said.get(True)} says that more {metric} is better, where its name says that less is",
        ),
        (more is False or falls, f"less {metric} is better"),
        (
            more is None and not has_a_direction(metric),
            f"nothing says whether more {metric} is better, or less",
        ),
    )
    return next((why for found, why in reasons if found), "")


def _filter(metric: str, wanted: Task, surveys: Sequence[Survey], wishes: Wishes) -> str:
    shared = [name for name in surveys[0].items if all(_has(survey, metric, name) for survey in surveys)]
    if not shared:
        raise QevalError("no filter of answers is the same for all variants", "")
    wish = _own(wishes.filters, wanted) or (wishes.filters.get("", "") if len(shared) > 1 else "")
    if wish or wanted.filtered:
        return judging_filter(wanted.name, wish or wanted.filter, shared)
    told = _told(surveys[0])[1]
    return judging_filter(wanted.name, told if told in shared else wanted.filter, shared)


def _has(survey: Survey, metric: str, name: str) -> bool:
    """Whether a filter has values of a metric, such as they are: of scorers each has its own."""
    column = survey.columns.get((metric, name))
    return column is not None and bool(column.n or column.bad)


def _told(survey: Survey) -> tuple[str, str]:
    """What judged a task in the run that qeval wrote the files of; empty for anybody else's."""
    return survey.judged_by or ("", "")


def _own(wishes: Mapping[str, str], task: Task) -> str:
    """The wish for this very task, else for its group."""
    return wishes.get(task.name) or wishes.get(task.group or task.name, "")


def check_wishes(wishes: Wishes, places: Collection[str], surveys: Sequence[Survey]) -> None:
    """Raises UsageError for a wish that concerns nothing: a task or group that is none of `places`, a name
    that none has."""
    for name in (name for some in (wishes.metrics, wishes.filters) for name in some if name):
        if name not in places:
            hint = did_you_mean(name, sorted(places))
            raise UsageError(f"There is no task {name!r} to choose for.", hint)
    for what, wish, known in (
        ("metric", wishes.metrics.get(""), {name for survey in surveys for name in survey.aggregations}),
        ("filter", wishes.filters.get(""), {name for survey in surveys for name in survey.items}),
    ):
        if wish and wish not in known:
            raise UsageError(f"No task has the {what} {wish!r}.", did_you_mean(wish, sorted(known)))


# --- the filters that do not judge --------------------------------------------------------------


def other_filters(task: str, judge: Judge, mine: Survey, baseline: Survey | None) -> Iterator[str]:
    """A sentence for each filter by which a variant, or its distance from the baseline, looks otherwise."""
    if judge.kind == "perplexity":
        return
    judged = _figures(judge.metric, judge.filter, mine, baseline)
    for name in mine.items:
        if not _has(mine, judge.metric, name) or name == judge.filter:
            continue
        figures = _figures(judge.metric, name, mine, baseline)
        if figures != judged:
            yield (
                f"{task} is judged by {judge.metric}, {judge.filter}: {judged}; by {name} it would be "
                f"{figures}. Choose with --filter."
            )


def _figures(metric: str, name: str, mine: Survey, baseline: Survey | None) -> str:
    column = mine.columns[metric, name]
    text = f"{100 * column.score:.2f} in {column.n} items"
    other = baseline.columns.get((metric, name)) if baseline and baseline is not mine else None
    return f"{text} (baseline {100 * other.score:.2f})" if other and other.n else text
