"""How many items the rows of a suite have, and how much of them changes: what a plan starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qeval.base.errors import UsageError
from qeval.base.records import Run, Suite, Task
from qeval.base.sizes import MMLU_SUBJECTS, TASK_SIZES
from qeval.compare.evidence import Evidence
from qeval.compare.pairs import Pairs
from qeval.compare.rows import AVERAGE, MACRO, Group, Row, groups_of, make_rows


@dataclass(frozen=True)
class Churn:
    """What a run tells of a row: the mean square of the items' differences (for 0/1 scores the share of
    items that changed between right and wrong), flips as a share of items (None where there are none),
    the baseline's score, and the variant it was measured on."""

    square: float
    flips: float | None
    baseline: float
    variant: str


@dataclass(frozen=True)
class Size:
    """How many items a row has. `worth` is how many items of a plain task would tell as much: for a mean
    of members of unlike sizes it is less than `n`. `group` is the task that it is a member of."""

    n: int
    worth: float
    group: str = ""


def sizes(suite: Suite, given: Mapping[str, int] | None = None, run: Run | None = None) -> dict[str, Size]:
    """The size of every row that the suite promises, by row id: from `given` (items per task), from what
    `run` found, or from what is known of public tasks; cut to the tasks' limits.

    Raises UsageError for a task whose size is nowhere to be found.
    """
    known = {**TASK_SIZES, **{name: size for name, (size, _) in MMLU_SUBJECTS.items()}}
    if run is not None:
        known.update((cell.task.name, cell.n_available) for r in run.results for cell in r.cells)
    known.update(given or {})
    found: dict[str, Size] = {}
    for task in suite.tasks:
        found.update(_task_sizes(task, known, _members(task, run, known)))
    parts = [found[name] for name in suite.average if name in found]
    if parts and len(parts) == len(suite.average):
        found[AVERAGE] = _mean_size(parts)
    return found


def _members(task: Task, run: Run | None, known: Mapping[str, int]) -> tuple[str, ...]:
    """The names of a group's members, none for a plain task."""
    if run is not None and (group := groups_of(run).get(task.name)) and group.whole:
        return tuple(member.name for member in group.members)
    return tuple(MMLU_SUBJECTS) if task.name == "mmlu" and task.name not in known else ()


def _task_sizes(task: Task, known: Mapping[str, int], members: Sequence[str]) -> dict[str, Size]:
    if not members:
        return {task.name: _size(task, task.name, known)}
    parts = {name: replace(_size(task, name, known), group=task.name) for name in members}
    total = sum(part.n for part in parts.values())
    group = {task.name: Size(total, total), task.name + MACRO: _mean_size(list(parts.values()))}
    return {**group, **parts}


def _size(task: Task, name: str, known: Mapping[str, int]) -> Size:
    if name not in known:
        raise UsageError(
            f"Nobody has said how many items {name} has.",
            f"Write --n {name}=1000, or measure it with --from RUN.",
        )
    n = known[name] if task.limit is None else min(known[name], task.limit)
    return Size(n, n)


def _mean_size(parts: Sequence[Size]) -> Size:
    spread = sum(1 / part.worth if part.worth else math.inf for part in parts)
    return Size(sum(part.n for part in parts), len(parts) ** 2 / spread)


def rows_of_sizes(suite: Suite, sizes: Mapping[str, Size]) -> tuple[Row, ...]:
    """The rows that the suite promises, as far as their sizes are known."""
    groups: dict[str, Group] = {}
    for task in suite.tasks:
        members = tuple(
            replace(task, name=name, group=task.name)
            for name, size in sizes.items()
            if size.group == task.name
        )
        if members:
            groups[task.name] = Group(members)
    rows = make_rows(suite.tasks, {}, groups, suite.average)
    return tuple(row for row in rows if row.id in sizes)


def measure(evidence: Evidence) -> dict[str, Churn]:
    """The churn of every row of a run, by row id, of the candidate that changes most there.

    Published scores tell nothing of churn.
    """
    found: dict[str, Churn] = {}
    for row in evidence.pairs.values():
        if row.values is not None:
            one = _churn(row)
            if row.task not in found or one.square > found[row.task].square:
                found[row.task] = one
    return found


def _churn(row: Pairs) -> Churn:
    values = row.values
    assert values is not None  # noqa: S101 - the caller looked
    total = float(values.weight.sum())
    residual = values.candidate - values.baseline - row.delta * values.weight
    square = float((residual**2).sum()) * row.n / total**2
    return Churn(square, None if row.flips is None else row.flips / row.n, row.baseline, row.variant)
