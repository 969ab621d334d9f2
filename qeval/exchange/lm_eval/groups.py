"""Which imported tasks form a group: its members are all there and are judged alike, or they stand alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from qeval.base.records import Task
from qeval.base.sizes import MMLU_SUBJECTS
from qeval.exchange.lm_eval.results import ResultsFile

Groups = Mapping[str, Sequence[str]]
"""What stands directly below each group."""


def groups_in(found: Sequence[ResultsFile]) -> Groups:
    """The groups that any of the files tells of: one that was made for a single task tells of none."""
    groups: dict[str, dict[str, None]] = {}
    for results in found:
        told = results.table.get("group_subtasks") or {}
        for name, below in (told or _by_name(results)).items():
            groups.setdefault(name, {}).update(dict.fromkeys(below))
    return {name: tuple(below) for name, below in groups.items() if below}


def _by_name(results: ResultsFile) -> dict[str, list[str]]:
    """MMLU as versions before 0.4 name its subjects; they knew no groups, and a part of it is none."""
    subjects = [task for task in results.tasks() if task.startswith(f"{_OLD_MMLU}-")]
    return {_OLD_MMLU: subjects} if len(subjects) == len(MMLU_SUBJECTS) else {}


_OLD_MMLU = "hendrycksTest"


def group_of(task: str, groups: Groups) -> tuple[str | None, str | None]:
    """The outermost group that a task belongs to, and the subgroup of it below which it stands."""
    path = _path(task, groups)
    return _place(path, path[-1]) if len(path) > 1 else (None, None)


def _path(task: str, groups: Groups) -> list[str]:
    """A task and the groups around it, the outermost last."""
    path = [task]
    while parent := next((name for name, below in groups.items() if path[-1] in below), None):
        if parent in path:
            break
        path.append(parent)
    return path


def _place(path: Sequence[str], group: str) -> tuple[str, str | None]:
    """A group of a task's path, and the short name of what stands below it there, if that is a group."""
    category = path[path.index(group) - 1] if path.index(group) > 1 else None
    return group, category.removeprefix(f"{group}::").removeprefix(f"{group}_") if category else None


def around(task: str, groups: Groups) -> list[str]:
    """The groups that a task belongs to, the innermost first."""
    return _path(task, groups)[1:]


def grouped(tasks: Mapping[str, Task], groups: Groups) -> tuple[dict[str, Task], dict[str, str]]:
    """Each task in the outermost sound group around it, or alone where there is none; and each task that a
    group lacks, with a sentence.

    A group is sound if its members are all there, else what is left of it would pass for the whole, and if
    they are judged alike: of one that mixes metrics only the groups within have a mean.
    """
    lacking = {
        leaf: f"{leaf} of the group {top} was not scored"
        for top in dict.fromkeys(task.group for task in tasks.values() if task.group)
        for leaf in dict.fromkeys(_leaves(top, groups))
        if leaf not in tasks
    }
    sound = {name for name in groups if _is_sound(name, tasks, groups)}
    return {name: _placed(task, groups, sound) for name, task in tasks.items()}, lacking


def _is_sound(group: str, tasks: Mapping[str, Task], groups: Groups) -> bool:
    leaves = set(_leaves(group, groups))
    members = [tasks[leaf] for leaf in leaves if leaf in tasks]
    return len(members) == len(leaves) and len({(one.metric, one.filter, one.kind) for one in members}) == 1


def _placed(task: Task, groups: Groups, sound: set[str]) -> Task:
    if task.group is None:
        return task
    path = _path(task.name, groups)
    best = next((name for name in reversed(path[1:]) if name in sound), None)
    group, category = _place(path, best) if best else (None, None)
    return replace(task, group=group, category=category)


def _leaves(name: str, groups: Groups, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The tasks below a group, however deep."""
    for below in groups.get(name, ()):
        if below in groups and below not in above:
            yield from _leaves(below, groups, (*above, name))
        else:
            yield below
