"""THE rows of a run (tasks, groups, means), their order and names, and each variant's score on them.

Whoever shows, judges, plans or watches rows takes them from here: one maker, one answer to which members a
group has, and one order: the suite's scored tasks (a group first as the mean of its members, then with all
its items together), their average, the perplexities, and last the members of groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.names import MACRO
from qeval.base.records import Cell, Kind, Level, Result, Run, Task

AVERAGE = "average"


@dataclass(frozen=True)
class Row:
    """One thing that is scored. `id` is as in `Comparison.task`.

    `members` are the leaf tasks behind it: of a plain task itself, of a group and its mean the group's
    members, of the average all that stand behind its `parts`, the ids of the rows whose mean it is. `whole`
    is False where nobody knows all members of a group, since no variant was finished: such a row has no
    score, nor has a group whose members are judged by different metrics.
    """

    id: str
    level: Level
    kind: Kind
    metric: str
    members: tuple[Task, ...] = ()
    parts: tuple[str, ...] = ()
    whole: bool = True

    @property
    def title(self) -> str:
        """The name in tables."""
        if self.level == "macro":
            of = f" of {len(self.members)}" if self.whole else ""
            return f"{self.id.removesuffix(MACRO)} (mean{of})"
        return f"{self.id} (all items)" if self.level == "pooled" else self.id

    @property
    def measure(self) -> str:
        """What the number is: "acc_norm, 25-shot", with the filter of answers, or how a mean is made."""
        if self.level == "average":
            return "unweighted mean"
        words = [self.judged_by] if self.judged_by else []
        shots = {task.num_fewshot for task in self.members}
        if len(shots) == 1 and (number := shots.pop()) is not None:
            words.append(f"{number}-shot")
        return ", ".join(words + {"macro": ["unweighted"], "pooled": ["size-weighted"]}.get(self.level, []))

    @property
    def judged_by(self) -> str:
        """The metric or metrics, each with the filter that the answers went through, if there is one."""
        return ", ".join(sorted({_judged_by(task) for task in self.members} - {""}))

    @property
    def headline(self) -> bool:
        """Whether it is a task of the suite as a whole: what a rule for "*" is about."""
        return self.level in ("task", "pooled")


def _judged_by(task: Task) -> str:
    """The metric, and the filter that the answers went through unless there is none."""
    metric = task.metric.removesuffix(",none")
    return f"{metric}, {task.filter}" if metric and task.filtered else metric


@dataclass(frozen=True)
class Group:
    """The members of a group of tasks, in order; `whole` where a finished variant tells all of them."""

    members: tuple[Task, ...]
    whole: bool = True


# --- which rows there are -----------------------------------------------------------------------


def rows_of(run: Run) -> tuple[Row, ...]:
    """Every row that the run's suite promises or a variant has. A task that nobody scored has one too."""
    return make_rows(run.suite.tasks, leaves_of(run), groups_of(run), run.suite.average)


def make_rows(
    tasks: Sequence[Task],
    leaves: Mapping[str, Task],
    groups: Mapping[str, Group],
    average: Sequence[str] = (),
) -> tuple[Row, ...]:
    """The rows of `tasks` (as a suite names them), of `leaves` that none of them covers, and their mean.

    `leaves` maps names of leaf tasks to what is known of them, `groups` names among `tasks` to members;
    `average` lists the ids of the rows whose mean is the average.
    """
    rows: list[Row] = []
    for task in tasks:
        group = groups.get(task.name) or (None if task.name in leaves else _unscored_group(task, average))
        rows += _group_rows(task, group) if group else [_plain(leaves.get(task.name, task), "task")]
    inside = [member for group in groups.values() for member in group.members]
    known = {row.id for row in rows} | {member.name for member in inside}
    rows += [_plain(leaf, "task") for leaf in leaves.values() if leaf.name not in known]
    scored = [row for row in rows if row.kind != "perplexity"]
    ends = [row for row in rows if row.kind == "perplexity"]
    return (*scored, *_average(rows, average), *ends, *(_plain(member, "subtask") for member in inside))


def _unscored_group(task: Task, average: Sequence[str]) -> Group | None:
    """A group whose mean the suite asks for while nobody has scored a member."""
    return Group((), whole=False) if task.name + MACRO in average else None


def _plain(task: Task, level: Level) -> Row:
    return Row(task.name, level, task.kind, task.metric, (task,))


def _group_rows(task: Task, group: Group) -> list[Row]:
    """A group's unweighted mean first (the leaderboard's number), then all its items together."""
    first = group.members[0] if group.members else task
    alike = len({(member.kind, member.metric) for member in group.members}) <= 1
    whole = group.whole and alike
    mean = Row(task.name + MACRO, "macro", first.kind, first.metric, group.members, whole=whole)
    return [mean, replace(mean, id=task.name, level="pooled")]


def _average(rows: Sequence[Row], average: Sequence[str]) -> list[Row]:
    """The suite's mean; of the kind of its parts, if they are of one kind. Scores and perplexities have none:
    the row is then not whole."""
    if not average:
        return []
    parts = [row for row in rows if row.id in average]
    kinds = {row.kind for row in parts}
    members = tuple(task for row in parts for task in row.members)
    kind: Kind = kinds.pop() if len(kinds) == 1 else "score"
    mixed = len({row.kind == "perplexity" for row in parts}) > 1
    whole = len(parts) == len(average) and all(row.whole for row in parts) and not mixed
    return [Row(AVERAGE, "average", kind, "mean", members, tuple(average), whole)]


def summary_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of a summary: no members of groups, and no average of a single row, which repeats it."""
    return tuple(row for row in rows if row.level != "subtask" and len(row.parts) != 1)


def subject_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The members of groups."""
    return tuple(row for row in rows if row.level == "subtask")


def leaves_of(run: Run) -> dict[str, Task]:
    """Every leaf task that any variant has a cell of, by name; those of finished variants first."""
    found: dict[str, Task] = {}
    for result in sorted(run.results, key=lambda result: result.status != "done"):
        for cell in result.cells:
            found.setdefault(cell.task.name, cell.task)
    return found


def groups_of(run: Run) -> dict[str, Group]:
    """The members of each group that the suite names, in order.

    Finished variants tell them. Where none is finished, what is there is half a group, which must not pass
    for a whole one.
    """
    named = {task.name for task in run.suite.tasks}
    found: dict[str, dict[str, Task]] = {}
    whole: set[str] = set()
    for result in run.results:
        for task in (cell.task for cell in result.cells):
            if task.group in named and task.group is not None and task.group != task.name:
                found.setdefault(task.group, {}).setdefault(task.name, task)
                whole |= {task.group} if result.status == "done" else set()
    return {name: Group(tuple(tasks.values()), name in whole) for name, tasks in found.items()}


# --- scores on them -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A variant's score on a row: sum(value) / sum(weight), or the mean of members; of `n` items."""

    score: float
    n: int
    n_available: int


def score_of(run: Run, result: Result, row: Row) -> Score | None:
    """What the variant scored on the row, from its stored cells; None unless every member is there."""
    if row.level == "average":
        return _mean_of_rows(run, result, row)
    found = [cell for task in row.members if (cell := cell_of(result, task)) is not None and cell.n]
    if not found or len(found) < len(row.members) or not row.whole:
        return None
    return _joined(found, weighted=row.level != "macro")


def _mean_of_rows(run: Run, result: Result, row: Row) -> Score | None:
    """The mean over the rows of the average; None unless all of them are there, and may have a mean."""
    if not row.whole:
        return None
    by_id = {one.id: one for one in rows_of(run)}
    scores = [score_of(run, result, by_id[name]) for name in row.parts if name in by_id]
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(row.parts):
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


def find_baseline(run: Run, name: str | None = None) -> Result:
    """The result that the others are compared with. Raises UsageError where it is not in the run."""
    name = run.baseline if name is None else name
    for result in run.results:
        if result.variant.name == name:
            return result
    known = [result.variant.name for result in run.results]
    raise UsageError(f"The run has no variant {name!r} to be the baseline.", did_you_mean(name, known))


def same_model(base: Result, result: Result) -> bool:
    """Whether the recorded models are the same: by name, revision and adapter, or by the files that were
    loaded. What was truly loaded from one place counts for more than the name: it may have changed since."""
    one, two = base.variant, result.variant
    if one.adapter != two.adapter or _loaded_otherwise(base, result):
        return False
    if one.model == two.model != "":
        return _may_be_equal(one.revision, two.revision)
    first, second = base.provenance, result.provenance
    if first is None or second is None or first.fingerprint is None:
        return False
    return first.fingerprint == second.fingerprint


def weights_of(result: Result, *, files: bool = False) -> str:
    """What `same_model` looks at, for a person: "org/model@revision with the adapter org/lora", and with
    `files` the hash of what was loaded."""
    variant, made = result.variant, result.provenance
    revision = (made.revision if made else None) or variant.revision
    adapter = f" with the adapter {variant.adapter}" if variant.adapter else ""
    hashed = f" (files {made.fingerprint[:8]})" if files and made and made.fingerprint else ""
    return (
        (variant.model or "a model without a name") + (f"@{revision}" if revision else "") + adapter + hashed
    )


def _loaded_otherwise(base: Result, result: Result) -> bool:
    """Whether the same place held other weights for the one than for the other."""
    one, two = base.provenance, result.provenance
    if one is None or two is None or one.model != two.model:
        return False
    alike = _may_be_equal(one.revision, two.revision) and _may_be_equal(one.fingerprint, two.fingerprint)
    return not alike


def _may_be_equal(one: str | None, two: str | None) -> bool:
    return one == two or None in (one, two)
