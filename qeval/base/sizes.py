"""How many items the tasks of the leaderboard suite have, as tasks/sizes.toml tells, and which share
texts."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from qeval.base.places import tasks_dir
from qeval.base.tables import read

FILE = "sizes.toml"
_Count = Annotated[int, msgspec.Meta(ge=1)]


class _Sizes(msgspec.Struct, forbid_unknown_fields=True):
    """Items of each task, and of each subject of MMLU by its category."""

    tasks: dict[str, _Count]
    mmlu: dict[str, dict[str, _Count]]


class Shared(NamedTuple):
    """How a task's items share texts: how many texts there are, and how many items stand under an item's text
    on average over items, itself included."""

    texts: int
    together: float


_sizes = msgspec.convert(read(tasks_dir() / FILE, "table of sizes"), _Sizes)
TASK_SIZES: dict[str, int] = _sizes.tasks
"""Task name -> items that are scored."""
DEMO_SIZES = {
    "qeval_facts": 120,
    "qeval_arithmetic": 100,
    "qeval_words": 100,
    "qeval_continuations": 100,
    "qeval_prose": 24,
}
"""Our own tasks, for a plan; not in sizes.toml, whose change would change the keys of cells, and no more
known to the toy than other tasks."""
MMLU_SUBJECTS: dict[str, tuple[int, str]] = {
    f"mmlu_{name}": (size, category)
    for category, subjects in _sizes.mmlu.items()
    for name, size in subjects.items()
}
"""Task name -> (items in the test split, category)."""
TASK_TEXTS = {
    "mmlu_formal_logic": Shared(106, 2.92),
    "mmlu_high_school_european_history": Shared(59, 3.17),
    "mmlu_high_school_us_history": Shared(66, 3.5),
    "mmlu_high_school_world_history": Shared(75, 3.47),
}
"""Task name -> what was counted on its test split; in the other tasks items hardly share texts. (Not in
sizes.toml, for a change of that file would change the keys of cells.)"""


def size_of(task: str) -> int | None:
    """The items of a task, of a subject of MMLU or of MMLU as a whole; None where that is not known."""
    if task == "mmlu":
        return sum(size for size, _ in MMLU_SUBJECTS.values())
    return MMLU_SUBJECTS[task][0] if task in MMLU_SUBJECTS else TASK_SIZES.get(task)
