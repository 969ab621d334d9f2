"""The rows that a run has (tasks, groups, means), their names in words, and each variant's score on them.

Rows are read from the cells, for only they know a group's members, metrics and categories.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qeval.base.records import Cell, Comparison, Kind, Level, Result, Run, Task

AVERAGE = "average"
MACRO = "_macro"
Index = Mapping[tuple[str, str], Comparison]


@dataclass(frozen=True)
class Row:
    """One thing that is scored. `id` is as in `Comparison.task`; `members` are the leaf tasks behind it."""

    id: str
    level: Level
    kind: Kind
    members: tuple[Task, ...]

    @property
    def title(self) -> str:
        """The name in tables."""
        if self.level == "macro":
            return f"{self.id.removesuffix(MACRO)} (mean of {len(self.members)})"
        return f"{self.id} (all items)" if self.level == "pooled" else self.id

    @property
    def measure(self) -> str:
        """What the number is: "acc_norm, 25-shot", or how a mean is made."""
        if self.level == "average":
            return "unweighted mean"
        words = sorted({task.metric.removesuffix(",none") for task in self.members} - {""})
        shots = {task.num_fewshot for task in self.members}
        if len(shots) == 1 and (number := shots.pop()) is not None:
            words.append(f"{number}-shot")
        return ", ".join(words + {"macro": ["unweighted"], "pooled": ["size-weighted"]}.get(self.level, []))


@dataclass(frozen=True)
class Score:
    """A variant's score on a row: sum(value) / sum(weight), or the mean of members; of `n` items."""

    score: float
    n: int
    n_available: int


def leaves_of(run: Run) -> dict[str, Task]:
    """Every leaf task that any variant has a cell of, by name; those of finished variants first."""
    found: dict[str, Task] = {}
    for result in sorted(run.results, key=lambda result: result.status != "done"):
        for cell in result.cells:
            found.setdefault(cell.task.name, cell.task)
    return found


def groups_of(run: Run) -> dict[str, tuple[Task, ...]]:
    """The members of each group that the suite names, by group."""
    named = {task.name for task in run.suite.tasks}
    found: dict[str, list[Task]] = {}
    for task in leaves_of(run).values():
        if task.group in named and task.group is not None and task.group != task.name:
            found.setdefault(task.group, []).append(task)
    return {group: tuple(members) for group, members in found.items()}


def rows_of(run: Run) -> tuple[Row, ...]:
    """The summary's rows: tasks in the suite's order, groups twice, the average, perplexities.

    A task of the suite that nobody scored has a row too.
    """
    leaves, groups = leaves_of(run), groups_of(run)
    rows: list[Row] = []
    for task in run.suite.tasks:
        rows += (
            _group_rows(task.name, groups[task.name])
            if task.name in groups
            else [_leaf(leaves.get(task.name, task))]
        )
    inside = {member.name for members in groups.values() for member in members}
    known = {row.id for row in rows} | inside
    rows += [_leaf(leaf) for leaf in leaves.values() if leaf.name not in known]
    scored = [row for row in rows if row.kind != "perplexity"]
    return (*scored, *_average(run, rows), *(row for row in rows if row.kind == "perplexity"))


def _leaf(task: Task) -> Row:
    return Row(task.name, "task", task.kind, (task,))


def _group_rows(group: str, members: tuple[Task, ...]) -> list[Row]:
    """A group's unweighted mean first (the leaderboard's number), then all its items together."""
    kind = members[0].kind
    return [Row(group + MACRO, "macro", kind, members), Row(group, "pooled", kind, members)]


def _average(run: Run, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The suite's mean, where it has one of more than one row."""
    members = [task for row in rows if row.id in run.suite.average for task in row.members]
    return (Row(AVERAGE, "average", "score", tuple(members)),) if len(run.suite.average) > 1 else ()


def subject_rows(run: Run) -> tuple[Row, ...]:
    """A row for each member of each group."""
    groups = groups_of(run).values()
    return tuple(Row(task.name, "subtask", task.kind, (task,)) for members in groups for task in members)


def score_of(run: Run, result: Result, row: Row) -> Score | None:
    """What the variant scored on the row, from its stored cells; None unless every member is there."""
    if row.level == "average":
        return _mean_of_rows(run, result)
    found = [cell for task in row.members if (cell := cell_of(result, task)) is not None and cell.n]
    if not found or len(found) < len(row.members):
        return None
    return _joined(found, weighted=row.level != "macro")


def _mean_of_rows(run: Run, result: Result) -> Score | None:
    """The mean over the suite's `average` list; None unless all of them are there."""
    by_id = {row.id: row for row in rows_of(run) if row.level != "average"}
    scores = [score_of(run, result, by_id[name]) for name in run.suite.average if name in by_id]
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(run.suite.average):
        return None
    mean = math.fsum(score.score for score in known) / len(known)
    return Score(mean, sum(score.n for score in known), sum(score.n_available for score in known))


def _joined(cells: Iterable[Cell], *, weighted: bool) -> Score:
    """Members' scores as one: weighted by their numbers of items, or not at all."""
    kept = list(cells)
    weights = [cell.n if weighted else 1 for cell in kept]
    score = math.fsum(w * cell.score for w, cell in zip(weights, kept, strict=True)) / sum(weights)
    return Score(score, sum(cell.n for cell in kept), sum(cell.n_available for cell in kept))


def cell_of(result: Result | None, task: Task) -> Cell | None:
    """The cell of `task` among a variant's cells."""
    if result is None:
        return None
    return next((cell for cell in result.cells if cell.task.name == task.name), None)


def result_of(run: Run, name: str) -> Result | None:
    """The result of the variant called `name`."""
    return next((result for result in run.results if result.variant.name == name), None)


def index(comparisons: Iterable[Comparison]) -> Index:
    """Comparisons by (variant, row id)."""
    return {(comparison.variant, comparison.task): comparison for comparison in comparisons}
