"""Where tasks of one's own lie: in a folder that is named, or beside the suite's file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from qeval.base.errors import UsageError

if TYPE_CHECKING:
    from qeval.ask.order import Order
    from qeval.base.records import Suite

_FILES = (".toml", ".yaml", ".yml")


def own_tasks(
    asked: Path | None, suite: Suite, name: str | None, runs_dir: Path | None = None
) -> Path | None:
    """The folder of tasks that do not come with qeval or lm-eval; None where there is none.

    It is the one that was `asked` for, else that of the suite's file `name`, where a YAML file beside it is
    one of the suite's tasks. Raises UsageError where runs are kept below it: each would change it.
    """
    folder = asked or _beside(suite, name)
    if folder is None:
        return None
    folder = folder.resolve()
    if runs_dir is not None and runs_dir.resolve().is_relative_to(folder):
        raise UsageError(
            f"The runs directory {runs_dir} lies in the folder of your tasks, {folder}, where everything"
            " counts as part of them.",
            "Move the tasks, and the suite if it lies there, into a folder of their own, or keep the runs"
            " elsewhere with --runs-dir.",
        )
    return folder


def items_here(folder: Path | None, suite: Suite) -> dict[str, int]:
    """How many items tasks in a folder of one's own have, by task, as far as their own files tell."""
    from qeval.score.harness.catalogue import scan
    from qeval.score.harness.written import items_of

    files = scan(folder).files if folder is not None else {}
    counts = {task.name: items_of(Path(files[task.name])) for task in suite.tasks if task.name in files}
    return {name: count for name, count in counts.items() if count}


def names_at_hand(folder: Path | None, name: str | None) -> frozenset[str]:
    """The tasks in a folder of one's own, or beside the suite's file `name`: those that a misspelt one most
    likely means."""
    from qeval.base.places import at_home
    from qeval.score.harness.catalogue import names_in, scan

    if folder is not None:
        return scan(folder).names
    return names_in(at_home(name).parent) if _is_file(name) else frozenset()


def told(order: Order) -> Iterator[str]:
    """A sentence where tasks of one's own are read, and their Python is run, for whoever typed no folder."""
    from qeval.load.toy import is_toy

    if order.own_tasks is not None and not is_toy(order.variants[0].model):
        yield f"Tasks are looked for in {order.own_tasks} first; Python that their YAML names is run."


def of_the_toy(order: Order) -> Iterator[str]:
    """What the toy does not look at: the questions of tasks of one's own, and without lm-eval whether there
    are tasks of such names."""
    from qeval.load.toy import is_toy, parse
    from qeval.score.toy import DEFAULT_ITEMS

    model = order.variants[0].model
    if not is_toy(model):
        return
    if order.own_tasks is not None:
        n = parse(model).items or DEFAULT_ITEMS
        n = min([n, *(task.limit for task in order.suite.tasks if task.limit)])
        yield f"The toy answers {n} invented items for each task, whatever the task holds."
    if unknown := _unknown(order):
        yield f"Names of tasks were not checked, for lm-eval is not installed: {', '.join(unknown)}."


def harness_is_here() -> bool:
    """Whether lm-eval is installed; it is not imported."""
    try:
        return find_spec("lm_eval") is not None
    except ImportError:  # a finder that forbids it
        return False


def nearest(tasks: Sequence[str]) -> str:
    """The task that is nearly named by the first of these names that is none; "" where all are tasks, or none
    is nearly named."""
    from difflib import get_close_matches  # takes 10 ms, and is needed only before an error

    from qeval.base.places import cache_dir, tasks_dir
    from qeval.base.sizes import DEMO_SIZES, MMLU_SUBJECTS, TASK_SIZES
    from qeval.score.harness.catalogue import known_tasks

    known = {"mmlu", *TASK_SIZES, *MMLU_SUBJECTS, *DEMO_SIZES}
    if harness_is_here():
        known |= known_tasks(tasks_dir(), cache_dir())
    wrong = [name for name in tasks if name not in known]
    near = get_close_matches(wrong[0], sorted(known), n=1, cutoff=_ALIKE) if wrong else []
    return near[0] if near else ""


_ALIKE = 0.75


def _unknown(order: Order) -> list[str]:
    """Tasks of which nobody here can say whether they exist, where lm-eval is not installed."""
    from qeval.base.places import tasks_dir
    from qeval.base.sizes import MMLU_SUBJECTS, TASK_SIZES
    from qeval.score.harness.catalogue import scan

    if harness_is_here():
        return []
    folders = [tasks_dir(), *([order.own_tasks] if order.own_tasks is not None else [])]
    known = {"mmlu", *TASK_SIZES, *MMLU_SUBJECTS}.union(*(scan(folder).names for folder in folders))
    return [task.name for task in order.suite.tasks if task.name not in known]


def _beside(suite: Suite, name: str | None) -> Path | None:
    from qeval.base.places import at_home
    from qeval.score.harness.catalogue import names_in

    if not _is_file(name):
        return None
    folder = at_home(name).parent
    return folder if names_in(folder) & {task.name for task in suite.tasks} else None


def _is_file(name: str | None) -> TypeGuard[str]:
    """Whether a suite is named by its file."""
    return name is not None and name.endswith(_FILES)
