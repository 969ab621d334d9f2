"""Which imported tasks form a group: its members are all there and are judged alike, or they stand alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from qeval.base.records import Task
from qeval.exchange.lm_eval.results import ResultsFile

Groups = Mapping[str, Sequence[str]]
"""What stands directly below each group."""


def groups_in(found: Sequence[ResultsFile]) -> Groups:
    """The groups that any of the files tells of: one that was made for a single task tells of none."""
    groups: dict[str, dict[str, None]] = {}
    for results in found:
        for name, below in (results.table.get("group_subtasks") or {}).items():
            groups.setdefault(name, {}).update(dict.fromkeys(below))
    return {name: tuple(below) for name, below in groups.items() if below}


def group_of(task: str, groups: Groups) -> tuple[str | None, str | None]:
    """The outermost group that a task belongs to, and the subgroup of it below which it stands."""
    path = [task]
    while parent := next((name for name, below in groups.items() if path[-1] in below), None):
        if parent in path:
            break
        path.append(parent)
    if len(path) == 1:
        return None, None
    top = path[-1]
    category = path[-2] if len(path) > 2 else None  # noqa: PLR2004 - task, subgroup, group
    short = category.removeprefix(f"{top}::").removeprefix(f"{top}_") if category else None
    return top, short


def grouped(tasks: Mapping[str, Task], groups: Groups) -> tuple[dict[str, Task], dict[str, str]]:
    """The tasks, those of no true group standing alone; and each task that a group lacks, with a sentence.

    A group of which members are missing is none, else what is left of it would pass for the whole.
    """
    lacking: dict[str, str] = {}
    broken = set()
    for top in dict.fromkeys(task.group for task in tasks.values() if task.group):
        members = [task for task in tasks.values() if task.group == top]
        missing = [leaf for leaf in dict.fromkeys(_leaves(top, groups)) if leaf not in tasks]
        lacking |= {leaf: f"{leaf} of the group {top} was not scored" for leaf in missing}
        if missing or len({(task.metric, task.filter, task.kind) for task in members}) > 1:
            broken.add(top)
    alone = {
        name: replace(task, group=None, category=None) if task.group in broken else task
        for name, task in tasks.items()
    }
    return alone, lacking


def _leaves(name: str, groups: Groups, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The tasks below a group, however deep."""
    for below in groups.get(name, ()):
        if below in groups and below not in above:
            yield from _leaves(below, groups, (*above, name))
        else:
            yield below
