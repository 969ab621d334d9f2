"""Take over what lm-eval measured as a Run, whatever ran the model.

`lm_eval --log_samples` wrote hashes that prove what was asked, so its samples pair with anybody's. Scores
without samples: see `qeval.exchange.scores`. Nothing is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.records import (
    Cell,
    Item,
    Provenance,
    Result,
    Run,
    Samples,
    Scheme,
    Settings,
    Suite,
    Task,
    Variant,
)
from qeval.exchange.lm_eval.judging import judged
from qeval.exchange.lm_eval.results import AGAIN, ResultsFile, find_results
from qeval.exchange.lm_eval.samples import read_items, read_lines, read_samples
from qeval.exchange.lm_eval.variants import arguments_of, by_variant

SCHEME = "imported"


@dataclass(frozen=True)
class Imported:
    """A run with the samples and the texts of its cells, by cell key."""

    run: Run
    samples: dict[str, Samples]
    items: dict[str, tuple[Item, ...]]


def import_lm_eval(
    path: Path, *, name: str | None = None, baseline: str | None = None, suite: Suite | None = None
) -> Imported:
    """Read every result of lm-eval in `path`, each model as a variant.

    Layouts: what `--output_path DIR` makes (DIR/<model>/results_<time>.json with samples_<task>_<time>.jsonl
    beside it, of one model or of several), what `--output_path FILE.json` makes, and either without times.
    Of several results of one model the newest holds, task by task.

    Args:
        path: a directory, or one results file.
        name: what to call the variant; by default the last part of the model's name.
        baseline: the variant to compare with, by default the first in the order of names.
        suite: which metric judges which task; by default one is chosen as `qeval run --tasks` does, and
            all tasks are taken, groups as lm-eval had them.

    Raises:
        UsageError: no such path, several models where `name` is given, an unknown baseline or metric.
        QevalError: no results or no samples, samples without hashes, or a file that is damaged.
    """
    found = find_results(path)
    samples: dict[str, Samples] = {}
    items: dict[str, tuple[Item, ...]] = {}
    results = []
    for variant, some in by_variant(found, name).items():
        result, columns, texts = _variant(variant, some, suite)
        results.append(result)
        samples |= columns
        items |= texts
    run = _run(found, results, suite or _suite_of(results), baseline)
    return Imported(run, samples, items)


def _variant(
    name: str, found: Sequence[ResultsFile], suite: Suite | None
) -> tuple[Result, dict[str, Samples], dict[str, tuple[Item, ...]]]:
    newest: dict[str, ResultsFile] = {}
    for results in found:
        newest.update(dict.fromkeys(_leaf_tasks(results), results))
    cells, samples, items = [], {}, {}
    for task, results in newest.items():
        wanted = _wanted(task, results, suite)
        if wanted is None:
            continue
        cell, columns, texts = _cell(name, results, wanted)
        cells.append(cell)
        samples[cell.key] = columns
        items[cell.key] = texts
    if not cells:
        raise QevalError(f"{name} has results for none of the suite's tasks.", "Name another suite, or none.")
    last = found[-1]
    variant = Variant(name, last.model_name, Scheme(SCHEME), _revision(last))
    return Result(variant, "done", tuple(_grouped(cells)), _provenance(last)), samples, items


# --- tasks and groups ---------------------------------------------------------------------------


def _leaf_tasks(results: ResultsFile) -> list[str]:
    """The tasks that were scored; groups are means of them. Raises QevalError without their samples."""
    tasks = [task for task in results.table["configs"] if task in results.table["results"]]
    lacking = [task for task in tasks if not results.samples_of(task).is_file()]
    if lacking or not tasks:
        what = f"no samples of {lacking[0]}" if lacking else "no task"
        raise QevalError(f"{results.path} has {what} beside it.", AGAIN)
    return tasks


def _wanted(task: str, results: ResultsFile, suite: Suite | None) -> Task | None:
    """What the suite asks of a task or of its group; an empty metric where there is no suite."""
    group, category = _group_of(task, results.table.get("group_subtasks", {}))
    if suite is None:
        return Task(task, "", filter="", group=group, category=category)
    for wanted in suite.tasks:
        if wanted.name == task:
            return wanted
        if wanted.name == group:
            return replace(wanted, name=task, group=group, category=category)
    return None


def _group_of(task: str, groups: Mapping[str, Sequence[str]]) -> tuple[str | None, str | None]:
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


def _grouped(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Cells whose group means something: one whose members are judged alike. Others stand alone."""
    ways: dict[str, set[tuple[str, str, str]]] = {}
    for cell in cells:
        if cell.task.group:
            way = (cell.task.metric, cell.task.filter, cell.task.kind)
            ways.setdefault(cell.task.group, set()).add(way)
    for cell in cells:
        whole = cell.task.group is None or len(ways[cell.task.group]) == 1
        yield cell if whole else replace(cell, task=replace(cell.task, group=None, category=None))


def _suite_of(results: Sequence[Result]) -> Suite:
    """The tasks that were scored, groups as one."""
    tasks: dict[str, Task] = {}
    for task in (cell.task for result in results for cell in result.cells):
        if task.group is None:
            tasks.setdefault(task.name, task)
        else:
            tasks.setdefault(task.group, replace(task, name=task.group, group=None, category=None))
    return Suite("imported", tuple(tasks.values()), description="what was scored elsewhere")


def _cell(name: str, results: ResultsFile, wanted: Task) -> tuple[Cell, Samples, tuple[Item, ...]]:
    """One task of a variant, from its file of samples."""
    path = results.samples_of(wanted.name)
    data = path.read_bytes()
    said = results.task(wanted.name)
    task, how, lines = judged(wanted, read_lines(path, data), said, ours=results.ours)
    samples = read_samples(path, lines, how)
    n, weight = len(lines), float(samples.weight.sum())
    key = f"{name}\0{task.name}\0{task.metric}\0{task.filter}\0".encode() + data
    cell = Cell(
        key=hashlib.sha256(key).hexdigest(),
        task=replace(
            task,
            num_fewshot=wanted.num_fewshot if said.num_fewshot is None else said.num_fewshot,
            limit=_limit(results, n),
        ),
        n=n,
        n_available=int(said.count.get("original", n)),
        score=float(samples.value.sum()) / weight if weight else 0.0,
        metrics=_means(said.metrics),
        task_version=str(said.version),
        dataset=" ".join(
            str(said.config[key]) for key in ("dataset_path", "dataset_name") if said.config.get(key)
        ),
        files={path.name: hashlib.sha256(data).hexdigest()},
    )
    return cell, samples, read_items(lines, how)


def _limit(results: ResultsFile, n: int) -> int | None:
    """--limit as a number of items; a share of the items is told by what came of it."""
    limit = results.config.get("limit")
    if limit is None:
        return None
    return int(limit) if float(limit) >= 1 else n


def _means(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if "," in name and "_stderr" not in name and isinstance(value, int | float)
    }


# --- the run around it --------------------------------------------------------------------------


def _revision(results: ResultsFile) -> str | None:
    return results.config.get("model_sha") or results.config.get("model_revision") or None


def _provenance(results: ResultsFile) -> Provenance:
    config, table = results.config, results.table
    versions = {
        name: str(table[key])
        for name, key in (("lm_eval", "lm_eval_version"), ("transformers", "transformers_version"))
        if table.get(key)
    }
    arguments = ", ".join(f"{k}={v}" for k, v in arguments_of(config.get("model_args")).items())
    backend = table.get("model_source") or config.get("model") or "unknown"
    return Provenance(
        model=results.model_name,
        revision=_revision(results),
        dtype=str(config.get("model_dtype") or ""),
        device=str(config.get("device") or ""),
        engine="lm-eval",
        batch_size=str(config.get("batch_size") or ""),
        versions=versions,
        notes=(f"Imported from lm-eval ({backend}; {arguments}): what was truly loaded is not known here.",),
    )


def _run(found: Sequence[ResultsFile], results: Sequence[Result], suite: Suite, baseline: str | None) -> Run:
    names = [result.variant.name for result in results]
    if baseline is not None and baseline not in names:
        raise UsageError(
            f"There is no variant {baseline!r} to be the baseline.", did_you_mean(baseline, names)
        )
    settings = [_settings(some) for some in found]
    if len({(some.seed, some.limit, some.chat_template) for some in settings}) > 1:
        raise QevalError(
            "The results were made with different seeds, limits or chat templates.",
            "Import them one directory at a time.",
        )
    keys = "".join(sorted(cell.key for result in results for cell in result.cells))
    return Run(
        id=f"lm-eval-{hashlib.sha256(keys.encode()).hexdigest()[:8]}",
        created=_created(found[-1]),
        model=", ".join(dict.fromkeys(result.variant.model for result in results)),
        suite=suite,
        baseline=baseline or names[0],
        results=tuple(results),
        settings=settings[0],
        source="lm-eval",
    )


def _settings(results: ResultsFile) -> Settings:
    config = results.config
    limit = config.get("limit")
    return Settings(
        seed=int(config.get("fewshot_seed") or Settings.seed),
        limit=int(limit) if limit is not None and float(limit) >= 1 else None,
        batch_size=str(config.get("batch_size") or "auto"),
        engine="lm-eval",
        chat_template=bool(results.table.get("chat_template")),
    )


def _created(results: ResultsFile) -> str:
    """When lm-eval began, in seconds since 1970; qeval writes the text itself."""
    date = results.table.get("date")
    if isinstance(date, str):
        return date
    when = datetime.fromtimestamp(float(date), UTC) if isinstance(date, int | float) else None
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else ""
