"""How many items the rows of a suite have, and how much of them changes: what a plan starts from."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qeval.base.errors import UsageError
from qeval.base.names import MACRO
from qeval.base.records import Run, Suite, Task
from qeval.base.sizes import DEMO_SIZES, MMLU_SUBJECTS, TASK_SIZES, TASK_TEXTS, Shared
from qeval.compare import stats
from qeval.compare.evidence import Evidence
from qeval.compare.interval import interval
from qeval.compare.pairs import Pairs
from qeval.compare.rows import AVERAGE, Group, Row, groups_of, make_rows

_MORE = 1 + 1e-9


class UnknownSizesError(UsageError):
    """Tasks whose size is nowhere to be found; `words` are the options that would tell them."""

    def __init__(self, message: str, hint: str, words: str, tasks: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.words = words
        self.tasks = tuple(tasks)


@dataclass(frozen=True)
class Churn:
    """What a run tells of a row: the mean square of the items' differences (for 0/1 scores the share of
    items that changed between right and wrong), flips as a share of items (None where there are none),
    the baseline's score, and the variant it was measured on. `design` is how many times the variance that
    items alone would have the difference has, where they share texts; `pairs` are the row's own, for its
    interval."""

    square: float
    flips: float | None
    baseline: float
    variant: str
    design: float = 1.0
    pairs: Pairs | None = None

    def error(self) -> float:
        """The standard error of the row's difference, texts and weights counted."""
        values = self.pairs.values if self.pairs else None
        if values is None:
            return math.inf
        return stats.paired_standard_error(values.baseline, values.candidate, values.weight, values.cluster)

    def reach(self, confidence: float) -> float:
        """How far the gate's own interval reaches, to its wider side, under a rule of this confidence."""
        if self.pairs is None:
            return math.inf
        low, high, _ = interval(self.pairs, 2 * confidence - 1)
        return max(self.pairs.delta - low, high - self.pairs.delta)


@dataclass(frozen=True)
class Size:
    """How many items a row has. `worth` is how many items of a plain task would tell as much: for a mean
    of members of unlike sizes it is less than `n`. `group` is the task that it is a member of.

    `texts` counts the texts where items share some, None where each stands alone. `together` is how many
    times the variance of items alone the score has if the items of a text change as one; `unit` the share in
    the score of a text (an item alone), usual where it weighs most; 0 stands for 1 / n.
    """

    n: int
    worth: float
    group: str = ""
    texts: int | None = None
    together: float = 1.0
    unit: float = 0.0

    @property
    def share(self) -> float:
        """The share in the score of a text, or an item alone, usual where it weighs most."""
        return min(self.unit or (1 / self.n if self.n else 1.0), 1.0)

    @property
    def by_units(self) -> bool:
        """Whether texts, or items of small members, weigh more than an item does on average."""
        return self.unit * self.n > _MORE


def sizes(
    suite: Suite,
    given: Mapping[str, int] | None = None,
    run: Run | None = None,
    shared: Mapping[str, Shared] | None = None,
) -> dict[str, Size]:
    """The size of every row that the suite promises, by row id: from `given` (items per task), from what
    `run` found, or from what is known of public tasks; cut to the tasks' limits. `shared` tells how the
    items of leaf tasks share texts, where a run does.

    Raises UnknownSizesError for tasks whose size is nowhere to be found.
    """
    known = {**DEMO_SIZES, **TASK_SIZES, **{name: size for name, (size, _) in MMLU_SUBJECTS.items()}}
    if run is not None:
        known.update((cell.task.name, cell.n_available) for r in run.results for cell in r.cells)
    known.update(given or {})
    _check_known(suite, run, known)
    texts = {**_public_texts(known, run), **(shared or {})}
    found: dict[str, Size] = {}
    for task in suite.tasks:
        found.update(_task_sizes(task, known, _members(task, run, known), texts))
    parts = [found[name] for name in suite.average if name in found]
    if parts and len(parts) == len(suite.average):
        found[AVERAGE] = _mean_size(parts)
    return found


def _public_texts(known: Mapping[str, int], run: Run | None) -> dict[str, Shared]:
    """How the items of public tasks share texts, for as many as are known; those of a run tell of theirs."""
    scored = {cell.task.name for result in run.results for cell in result.cells} if run else set()
    return {
        name: one._replace(texts=math.ceil(one.texts * known[name] / MMLU_SUBJECTS[name][0]))
        for name, one in TASK_TEXTS.items()
        if name not in scored
    }


def _members(task: Task, run: Run | None, known: Mapping[str, int]) -> tuple[str, ...]:
    """The names of a group's members, none for a plain task."""
    if run is not None and (group := groups_of(run).get(task.name)) and group.whole:
        return tuple(member.name for member in group.members)
    return tuple(MMLU_SUBJECTS) if task.name == "mmlu" and task.name not in known else ()


def _check_known(suite: Suite, run: Run | None, known: Mapping[str, int]) -> None:
    wanted = [name for task in suite.tasks for name in (_members(task, run, known) or (task.name,))]
    missing = [name for name in dict.fromkeys(wanted) if name not in known]
    if missing:
        has = "has" if len(missing) == 1 else "have"
        words = " ".join(f"--n {shlex.quote(name)}=1000" for name in missing)
        raise UnknownSizesError(
            f"It is not known how many items {', '.join(missing)} {has}.",
            f"Say it with: {words} (1000 stands for the number), or take a run's with: --from RUN",
            words,
            missing,
        )


def _task_sizes(
    task: Task, known: Mapping[str, int], members: Sequence[str], texts: Mapping[str, Shared]
) -> dict[str, Size]:
    if not members:
        return {task.name: _size(task, task.name, known, texts)}
    parts = {name: replace(_size(task, name, known, texts), group=task.name) for name in members}
    every = list(parts.values())
    return {task.name: _pooled_size(every), task.name + MACRO: _mean_size(every), **parts}


def _size(task: Task, name: str, known: Mapping[str, int], texts: Mapping[str, Shared]) -> Size:
    n = known[name] if task.limit is None else min(known[name], task.limit)
    shared = texts.get(name)
    if shared is None or not n:
        return Size(n, n)
    count = max(round(shared.texts * n / known[name]), 1)
    return Size(n, n, texts=count, together=shared.together, unit=shared.together / n)


def _pooled_size(parts: Sequence[Size]) -> Size:
    """Every item of a group counts the same."""
    n = sum(part.n for part in parts)
    together = sum(part.n * part.together for part in parts) / n if n else 1.0
    return Size(n, n, texts=_all_texts(parts), together=together, unit=together / n if n else 0.0)


def _mean_size(parts: Sequence[Size]) -> Size:
    """Every part counts the same, so the items of a small one weigh more."""
    spread = sum(1 / part.worth if part.worth else math.inf for part in parts)
    wider = sum(part.together / part.worth if part.worth else math.inf for part in parts)
    return Size(
        sum(part.n for part in parts),
        len(parts) ** 2 / spread,
        texts=_all_texts(parts),
        together=wider / spread if math.isfinite(spread) else 1.0,
        unit=max(part.share for part in parts) / len(parts),
    )


def _all_texts(parts: Sequence[Size]) -> int | None:
    """The texts of all parts, an item alone being one; None where every item is."""
    if all(part.texts is None for part in parts):
        return None
    return sum(part.n if part.texts is None else part.texts for part in parts)


def shared_texts(evidence: Evidence) -> dict[str, Shared]:
    """How the items of each leaf task of a run share texts, where they do."""
    found = {}
    for row in evidence.pairs.values():
        if row.level in ("task", "subtask") and row.values is not None:
            sizes = np.bincount(row.values.cluster) if row.values.cluster is not None else np.ones(row.n)
            found[row.task] = Shared(int(np.count_nonzero(sizes)), float((sizes**2).sum() / row.n))
    return {task: one for task, one in found.items() if one.together > 1}


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
    flips = None if row.flips is None else row.flips / row.n
    return Churn(square, flips, row.baseline, row.variant, _design(row), row)


def _design(row: Pairs) -> float:
    """How many times the variance of items alone the row's difference has, from how they changed together."""
    values = row.values
    if values is None or values.cluster is None:
        return 1.0
    residual = values.candidate - values.baseline - row.delta * values.weight
    if values.stratum is not None:  # in a mean of members, an item counts by its member's size
        residual = residual / np.bincount(values.stratum)[values.stratum]
    alone = float((residual**2).sum())
    together = float((np.bincount(values.cluster, residual) ** 2).sum())
    return max(together / alone, 1.0) if alone else 1.0
