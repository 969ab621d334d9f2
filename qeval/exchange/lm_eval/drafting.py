"""What is there of each task and variant, and what judges it: all that is settled before a cell is made."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass
class Draft:
    """What is known so far of all variants, the baseline first. `surveys` go by variant and task, `tasks` and
    `judges` by task; `left` holds why a task is left out, by variant (for all of them, under "") and task."""

    variants: Sequence[Measured]
    groups: Groups
    suite: Suite | None
    surveys: dict[str, dict[str, Survey]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    judges: dict[str, Judge] = field(default_factory=dict)
    left: dict[str, dict[str, str]] = field(default_factory=dict)

    def of_task(self, task: str) -> list[Survey]:
        """The task's surveys, the baseline's first."""
        return [some[task] for some in self.surveys.values() if task in some]


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
            file = variant.newest[task].path
            left[task] = f"no samples of {task} beside {file}, which does not tell of how many items"
        elif any(one.items.values()):
            found[task] = one
        else:
            left[task] = f"{one.path} is empty"


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
        mine = [f"{task}: {why}" for task, why in reasons.items() if task in variant.newest]
        if not mine:
            raise QevalError(
                f"{variant.name} has results for none of the suite's tasks.", "Name another suite, or none."
            )
        raise QevalError(f"{variant.name} has no task that can be judged. {'; '.join(mine)}.", AS_TABLE)
