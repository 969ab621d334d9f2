"""What is there of each task and variant, and what judges it: all that is settled before a cell is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from qeval.base.errors import QevalError
from qeval.base.records import Suite, Task
from qeval.exchange.lm_eval.apart import Each
from qeval.exchange.lm_eval.groups import Groups, around, group_of, grouped
from qeval.exchange.lm_eval.judging import Judge, Wishes, check_wishes, choose
from qeval.exchange.lm_eval.results import AS_TABLE, ResultsFile, strange
from qeval.exchange.lm_eval.survey import Survey, survey
from qeval.exchange.lm_eval.unsampled import published
from qeval.exchange.lm_eval.variants import Measured

_SHOWN = 4


@dataclass
class Draft:
    """What is known so far of all variants, the baseline first. `surveys` go by variant and task, `tasks` and
    `judges` by task; `left` holds why a task is left out, by variant (for all of them, under "") and task;
    `counted` from what file it is known how many items a variant's task has, where its own does not tell."""

    variants: Sequence[Measured]
    groups: Groups
    suite: Suite | None
    surveys: dict[str, dict[str, Survey]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    judges: dict[str, Judge] = field(default_factory=dict)
    left: dict[str, dict[str, str]] = field(default_factory=dict)
    counted: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def of_task(self, task: str) -> list[Survey]:
        """The task's surveys, the baseline's first."""
        return [some[task] for some in self.surveys.values() if task in some]

    def name_of(self, survey: Survey) -> str:
        """The variant that a survey is of."""
        return next(name for name, some in self.surveys.items() if some.get(survey.task) is survey)


def look_through(draft: Draft, variant: Measured, each: Each) -> None:
    """Look through the files of a variant, `each` as `apart.each` gives it."""
    found, left = draft.surveys.setdefault(variant.name, {}), draft.left.setdefault(variant.name, {})
    there: dict[str, Task] = {}
    for task, results in variant.newest.items():
        wanted = _wanted(draft, task)
        if wanted is None:
            continue
        if task not in results.table["results"]:
            left[task] = f"{results.path} has no result of it"
        else:
            there[task] = wanted
    surveys = each(_surveyed, [variant.newest[task] for task in there], there)
    for (task, wanted), one in zip(there.items(), surveys, strict=True):
        draft.tasks.setdefault(task, wanted)
        if one is None:
            left[task] = _uncounted(variant.newest[task])
        elif any(one.items.values()):
            found[task] = one
        else:
            left[task] = f"{one.path} has no item with a score"


def _uncounted(results: ResultsFile) -> str:
    return f"no samples beside {results.path}, which does not tell of how many items"


def count_by_others(draft: Draft) -> None:
    """Take how many items a task has from another variant, where one's own files do not tell it: a score of 0
    or 1 has no standard error. It is as many where both were scored by one version of the task, with the same
    limit; `draft.counted` keeps from whom."""
    for variant in draft.variants:
        left = draft.left[variant.name]
        for task, results in variant.newest.items():
            if left.get(task) != _uncounted(results):
                continue
            other = next((one for one in draft.of_task(task) if _as_many(results, one)), None)
            found = other and published(results, task, next(iter(other.items.values())))
            if other and found:
                del left[task]
                draft.surveys[variant.name][task] = found
                as_many = f"so as many as in {other.results.path.name}"
                draft.counted[variant.name][task] = (
                    f"{results.path} does not tell of how many items, {as_many}"
                )


def _as_many(results: ResultsFile, other: Survey) -> bool:
    """Whether a task has the same items in these results as in another variant's: where either tells no
    version or no limit, nobody knows."""
    version, said = results.task(other.task).version, (results.config, other.results.config)
    if version in ("", None) or version != other.said.version or not all("limit" in one for one in said):
        return False
    return bool(said[0]["limit"] == said[1]["limit"])


def _surveyed(results: ResultsFile, task: str) -> Survey | None:
    """What is there of a task; None where neither samples tell it nor the results are enough.

    Raises QevalError for what lm-eval never writes, whatever it is.
    """
    try:
        return survey(results, task) if results.has_samples(task) else published(results, task)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise strange(results, task, error) from error


def _wanted(draft: Draft, task: str) -> Task | None:
    """What the suite asks of a task or of its group; an empty metric where there is no suite."""
    group, category = group_of(task, draft.groups)
    if draft.suite is None:
        return Task(task, "", filter="", group=group, category=category)
    for wanted in draft.suite.tasks:
        if wanted.name == task:
            return wanted
        if wanted.name == group:
            return replace(wanted, name=task, group=group, category=category)
    return None


def judge(draft: Draft, wishes: Wishes) -> None:
    """Choose what judges each task. Raises QevalError where no task is left."""
    surveys = [one for some in draft.surveys.values() for one in some.values()]
    places = {*draft.tasks, *(group for task in draft.tasks for group in around(task, draft.groups))}
    check_wishes(wishes, places, surveys)
    wishes = wishes.within(draft.groups, draft.tasks)
    every = draft.left.setdefault("", {})
    for task, wanted in list(draft.tasks.items()):
        if not draft.of_task(task):
            del draft.tasks[task]
            continue
        try:
            chosen = choose(wanted, draft.of_task(task), wishes)
        except QevalError as error:
            if type(error) is not QevalError or wanted.metric or wishes.metric_of(wanted):
                raise
            every[task] = error.message.rstrip(".")
            del draft.tasks[task]
            continue
        draft.judges[task] = chosen
        draft.tasks[task] = replace(wanted, metric=chosen.metric, filter=chosen.filter, kind=chosen.kind)
    _refuse_nothing(draft)
    draft.tasks, lacking = grouped(draft.tasks, draft.groups)
    left = {task for some in draft.left.values() for task in some}
    every.update({task: why for task, why in lacking.items() if task not in left})


def _refuse_nothing(draft: Draft) -> None:
    """Raises QevalError for a variant of which no task is left."""
    for variant in draft.variants:
        if any(task in draft.tasks for task in draft.surveys[variant.name]):
            continue
        reasons = {**draft.left[""], **draft.left[variant.name]}
        mine = [
            f"{tasks}: {why}"
            for tasks, why in by_reason({task: reasons[task] for task in reasons if task in variant.newest})
        ]
        if not mine:
            raise QevalError(
                f"{variant.name} has results for none of the suite's tasks.", "Name another suite, or none."
            )
        raise QevalError(f"{variant.name} has no task that can be judged. {'; '.join(mine)}.", AS_TABLE)


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """The tasks that are left out for one reason, in words, and the reason."""
    tasks: dict[str, list[str]] = {}
    for task, why in reasons.items():
        tasks.setdefault(why, []).append(task)
    return [(listed(names), why) for why, names in tasks.items()]


def listed(tasks: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    rest = len(tasks) - _SHOWN
    more = f" and {rest} more task{'s' * (rest > 1)}" if rest > 0 else ""
    return f"{', '.join(tasks[:_SHOWN])}{more}"
