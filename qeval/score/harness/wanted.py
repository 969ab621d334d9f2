"""Which data sets of the Hub a suite's tasks read, and which of their data no copy of a repository holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qeval.base.places import tasks_dir
from qeval.base.records import Task
from qeval.load.hub_files import SetNeeded, joined
from qeval.score.harness.leaves import Leaf, expand


def data_sets(
    tasks: Sequence[Task], shipped: Path | None, cache_dir: Path | None, own: Path | None = None
) -> tuple[tuple[SetNeeded, ...], tuple[str, ...]]:
    """The data sets that the tasks (lm-eval's, and those of the folders `shipped` and
    `own`) read, each once, and a sentence
    for each task that reads something else of a network.

    Raises UsageError for an unknown task, QevalError for a broken YAML file.
    """
    leaves = expand(tasks, shipped, cache_dir, own)
    needs = [need for leaf in leaves if (need := _need(leaf)) is not None]
    told = dict.fromkeys(remark for leaf in leaves if (remark := _remark(leaf)))
    return joined(needs), tuple(told)


def _need(leaf: Leaf) -> SetNeeded | None:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    path = str(leaf.config.get("dataset_path") or "")
    if not path or _makes_its_own(leaf) or path in _PACKAGED_DATASETS_MODULES or Path(path).is_dir():
        return None
    options = dict(leaf.config.get("dataset_kwargs") or {})
    name = leaf.config.get("dataset_name")
    return SetNeeded(
        path,
        frozenset({None if name is None else str(name)}),
        options.get("revision"),
        whole=bool(options.get("data_files") or options.get("data_dir")),
    )


def _makes_its_own(leaf: Leaf) -> bool:
    return callable(leaf.config.get("custom_dataset")) or "class" in leaf.config


def _comes_with_qeval(leaf: Leaf) -> bool:
    return leaf.folder is not None and leaf.folder.is_relative_to(tasks_dir())


def _remark(leaf: Leaf) -> str:
    """What is not fetched for a task; "" where all of it is."""
    name = leaf.task.group or leaf.task.name
    if _makes_its_own(leaf) and not _comes_with_qeval(leaf):
        return f"{name} makes its data by its own code, which may want a network."
    options = dict(leaf.config.get("dataset_kwargs") or {})
    if "://" in str(options.get("data_files")):
        return f"{name} reads files by their addresses, which no copy of a repository holds."
    return ""
