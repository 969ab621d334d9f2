"""Take over what lm-eval measured as a Run, whatever ran the model.

`lm_eval --log_samples` wrote hashes that prove what was asked, so its samples pair with anybody's. Scores
without samples: see `qeval.exchange.scores`. Nothing is written here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.records import Cell, Item, Provenance, Result, Run, Samples, Scheme, Suite, Task, Variant
from qeval.base.settings import Settings
from qeval.base.sizes import size_of
from qeval.exchange.choosing import chosen_baseline
from qeval.exchange.lm_eval.alike import conditions_of, first_other_item
from qeval.exchange.lm_eval.apart import Each, each
from qeval.exchange.lm_eval.checking import check
from qeval.exchange.lm_eval.contradicting import contradicted
from qeval.exchange.lm_eval.drafting import Draft, by_reason, count_by_others, judge, listed, look_through
from qeval.exchange.lm_eval.groups import groups_in
from qeval.exchange.lm_eval.judging import Judge, Wishes, other_filters
from qeval.exchange.lm_eval.lines import read_lines, sample_bytes
from qeval.exchange.lm_eval.results import (
    AGAIN,
    ResultsFile,
    arguments_of,
    find_results,
    named,
    strange,
    unclaimed,
)
from qeval.exchange.lm_eval.samples import choices_of, read_items, read_samples
from qeval.exchange.lm_eval.settings import settings_of
from qeval.exchange.lm_eval.survey import Survey, by_filter
from qeval.exchange.lm_eval.texts import clusters_of
from qeval.exchange.lm_eval.unsampled import cell_of as scored
from qeval.exchange.lm_eval.variants import Measured, adapter_of, by_variant, revision_of
from qeval.exchange.readers.shape import PACKAGES
from qeval.store.checking import PUBLISHED
from qeval.store.clusters import count_texts

SCHEME = "imported"
_QUANTISED = ("load_in_8bit", "load_in_4bit")
"""The arguments of a model by which transformers quantises it while it is loaded."""
_LONG, _BEGINNING = 200, 40
_NO_WISHES = Wishes()
_UNKNOWN = "what was truly loaded is not known here"
Read = tuple[Cell, Samples | None, tuple[Item, ...]]
"""A task of a variant, and what is there of its items."""


@dataclass(frozen=True)
class Imported:
    """A run with the samples and the texts of its cells, by cell key."""

    run: Run
    samples: dict[str, Samples]
    items: dict[str, tuple[Item, ...]]


def import_lm_eval(
    *paths: Path,
    name: str | None = None,
    baseline: str | None = None,
    suite: Suite | None = None,
    wishes: Wishes = _NO_WISHES,
) -> Imported:
    """Read every result of lm-eval in `paths`, each model as a variant.

    Layouts: what `--output_path DIR` makes (DIR/<model>/results_<time>.json with samples_<task>_<time>.jsonl
    beside it, of one model or of several), what `--output_path FILE.json` makes, either without times, and
    what versions from 0.3 on wrote. Of several results of one model the newest holds, task by task. A task
    without samples is taken as a score without items, which is compared unpaired.

    Args:
        paths: directories and results files.
        name: what to call the variant; by default the last part of the model's name.
        baseline: the variant to compare with; needed where there are several.
        suite: which metric judges which task; by default one is chosen as `qeval run --tasks` does, and
            all tasks are taken, groups as lm-eval had them.
        wishes: metrics and filters that a person chose.

    A task that cannot be judged is left out and named in the notes of the provenance; the run's suite
    promises it all the same.

    Raises:
        UsageError: no such path, several models where `name` is given or no `baseline`, an unknown baseline,
            metric or filter.
        QevalError: no results, no task that can be judged, samples without hashes, a file that is damaged or
            does not agree with the one beside it, or a score that is no finite number.
    """
    try:
        return _imported(paths, name, baseline, suite, wishes)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        raise QevalError(f"{named(paths)} holds what lm-eval never writes ({why}).", AGAIN) from error


def _imported(
    paths: Sequence[Path], name: str | None, baseline: str | None, suite: Suite | None, wishes: Wishes
) -> Imported:
    """Files are from anywhere: what comes of their having another shape is caught above."""
    found = find_results(paths)
    variants = by_variant(found, name)
    names, strays = [variant.name for variant in variants], unclaimed(paths, found)
    chosen = chosen_baseline(names, baseline, named(paths))
    draft = Draft(sorted(variants, key=lambda one: one.name != chosen), groups_in(found), suite)
    with each(_size(found)) as each_of:
        for variant in draft.variants:
            look_through(draft, variant, each_of)
        count_by_others(draft)
        judge(draft, wishes)
        settings = settings_of(draft.variants)
        samples: dict[str, Samples] = {}
        items: dict[str, tuple[Item, ...]] = {}
        results = [_result(draft, variant, each_of, samples, items) for variant in variants]
    results = [_with_strays(one, strays, chosen) for one in results]
    run = _run(found, results, suite or _suite_of(draft, results), chosen, settings)
    return Imported(run, samples, items)


def _size(found: Sequence[ResultsFile]) -> int:
    """Bytes of all samples."""
    files = [results.samples_of(task) for results in found for task in results.tasks()]
    return sum(file.stat().st_size for file in files if file.is_file())


# --- one variant --------------------------------------------------------------------------------


def _result(
    draft: Draft,
    variant: Measured,
    each: Each,
    samples: dict[str, Samples],
    items: dict[str, tuple[Item, ...]],
) -> Result:
    """A variant with its cells, whose columns are put into `samples` and `items`."""
    cells, notes = [], [*variant.superseded(), *_left_out(draft, variant)]
    surveys = [one for task, one in draft.surveys[variant.name].items() if task in draft.tasks]
    firsts = [draft.of_task(one.task)[0] for one in surveys]
    tasks = [draft.tasks[one.task] for one in surveys]
    judges = [draft.judges[one.task] for one in surveys]
    read = each(_cell, [variant.name] * len(surveys), surveys, tasks, judges)
    for one, first, judged, (cell, columns, texts) in zip(surveys, firsts, judges, read, strict=True):
        if columns is not None:
            samples[cell.key], items[cell.key] = columns, _known(texts, items)
        cells.append(cell)
        notes += [*other_filters(one.task, judged, one, first), *_dropped(one)]
        notes += first_other_item(one, first, draft.name_of(first))
    last = variant.files[-1]
    alone = [cell.task.name for cell in cells if cell.aggregate_only]
    scheme = Scheme(PUBLISHED if alone else SCHEME)
    notes += [f"No samples of {listed(alone)}: compared as scores without items."] if alone else []
    notes += _counted(draft, variant)
    made = Variant(variant.name, variant.model, scheme, revision_of(last), adapter_of(last))
    return Result(made, "done", tuple(cells), _provenance(variant, notes))


def _with_strays(result: Result, files: Sequence[Path], baseline: str) -> Result:
    """The baseline's result with a note on samples that are nobody's: something may be missing with them."""
    if not files or result.variant.name != baseline or result.provenance is None:
        return result
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    note = f"Left out, as no results file beside it tells of it: {files[0]}{more}."
    made = replace(result.provenance, notes=(*result.provenance.notes, note))
    return replace(result, provenance=made)


def _left_out(draft: Draft, variant: Measured) -> list[str]:
    """A sentence for each task that is not judged."""
    reasons = {**draft.left[""], **draft.left[variant.name]}
    return [f"Left out: {tasks} ({why})." for tasks, why in by_reason(reasons)]


def _counted(draft: Draft, variant: Measured) -> list[str]:
    """A sentence for the tasks of which another variant tells how many items they have."""
    counted = draft.counted[variant.name].items()
    told = by_reason({task: why for task, why in counted if task in draft.tasks})
    return [f"{why}: {tasks}." for tasks, why in told]


def _known(texts: tuple[Item, ...], items: Mapping[str, tuple[Item, ...]]) -> tuple[Item, ...]:
    """The items, once for all variants that were asked the same."""
    return next((others for others in items.values() if others == texts), texts)


def _cell(name: str, found: Survey, task: Task, judged: Judge) -> Read:
    """One task of a variant."""
    try:
        return _read(name, found, task, judged)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise strange(found.results, found.task, error) from error


def _read(name: str, found: Survey, task: Task, judged: Judge) -> Read:
    unproved = check(found, judged)
    path, said = found.path, found.said
    task = replace(task, num_fewshot=_num_fewshot(task, found))
    if found.published:
        n = found.items[judged.filter]
        return scored(name, found, replace(task, limit=_limit(found.results, n)), judged, unproved), None, ()
    data = sample_bytes(found.results, found.task)
    how, parts = judged.format(found), by_filter(path, read_lines(path, data), said)
    samples, lines = read_samples(path, parts, judged.filter, how), parts[judged.filter]
    items, n = read_items(lines, how), len(lines)
    samples = replace(samples, cluster=clusters_of(samples, lines, items, how))
    texts = [choices_of(line, how) for line in lines] if how.output_type == "multiple_choice" else []
    unproved += tuple(contradicted(found, judged, samples, lines, texts))
    key = f"{name}\0{task.name}\0{task.metric}\0{task.filter}\0".encode() + data
    cell = Cell(
        key=hashlib.sha256(key).hexdigest(),
        task=replace(task, limit=_limit(found.results, n)),
        n=n,
        n_available=int(said.count.get("original", max(n, size_of(found.task) or 0))),
        score=_score(samples),
        metrics={key: value for key, value in _means(said.metrics).items() if math.isfinite(value)},
        task_version=str(said.version),
        dataset=" ".join(
            str(said.config[key]) for key in ("dataset_path", "dataset_name") if said.config.get(key)
        ),
        files={path.name: hashlib.sha256(data).hexdigest()},
        unproved=unproved,
        texts=count_texts(samples.cluster),
        output_type=how.output_type,
        conditions=conditions_of(found, judged),
    )
    return cell, samples, items


def _score(samples: Samples) -> float:
    weight = float(samples.weight.sum())
    return float(samples.value.sum()) / weight if weight else 0.0


def _num_fewshot(task: Task, found: Survey) -> int | None:
    for said in (found.said.num_fewshot, found.said.config.get("num_fewshot")):
        if isinstance(said, int) and not isinstance(said, bool):
            return said
    return task.num_fewshot


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


def _dropped(found: Survey) -> list[str]:
    """A sentence on the aggregates beside the judging one that are no numbers, and are not kept."""
    bad = [name for name, value in _means(found.said.metrics).items() if not math.isfinite(value)]
    return [f"Not kept, as it is no finite number: {found.task} {', '.join(bad)}."] if bad else []


# --- the run around it --------------------------------------------------------------------------


def _provenance(variant: Measured, notes: Sequence[str]) -> Provenance:
    results = variant.files[-1]
    config, table = results.config, results.table
    versions = {
        name: str(table[key])
        for name, key in (("lm_eval", "lm_eval_version"), ("transformers", "transformers_version"))
        if table.get(key)
    } | dict(table.get(PACKAGES) or {})
    asked = arguments_of(config.get("model_args"))
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in asked.items())
    backend = table.get("model_source") or config.get("model") or "unknown"
    return Provenance(
        model=variant.model,
        revision=revision_of(results),
        dtype=str(config.get("model_dtype") or ""),
        quantization={name: asked[name] for name in _QUANTISED if asked.get(name, "").lower() == "true"},
        device=str(config.get("device") or ""),
        engine=results.writer,
        batch_size=str(config.get("batch_size") or ""),
        versions=versions,
        notes=(
            f"Imported from {results.writer} ({backend}; {arguments}): {_UNKNOWN}.",
            *notes,
        ),
    )


def _short(value: str) -> str:
    """An argument in a sentence: some harnesses record whole files of settings as one."""
    return value if len(value) <= _LONG and value.isprintable() else f"{value[:_BEGINNING]!r}..."


def _suite_of(draft: Draft, results: Sequence[Result]) -> Suite:
    """The tasks that were scored, groups as one; and those that were left out, which stay promised."""
    tasks: dict[str, Task] = {}
    for task in (cell.task for result in results for cell in result.cells):
        if task.group is None:
            tasks.setdefault(task.name, task)
        else:
            tasks.setdefault(task.group, replace(task, name=task.group, group=None, category=None))
    members = {cell.task.name for result in results for cell in result.cells}
    for name in dict.fromkeys(name for some in draft.left.values() for name in some):
        if name not in members:
            tasks.setdefault(name, Task(name, ""))
    return Suite("imported", tuple(tasks.values()), description="what was scored elsewhere")


def _run(
    found: Sequence[ResultsFile], results: Sequence[Result], suite: Suite, baseline: str, settings: Settings
) -> Run:
    keys = "".join(sorted(cell.key for result in results for cell in result.cells))
    return Run(
        id=f"lm-eval-{hashlib.sha256(keys.encode()).hexdigest()[:8]}",
        created=_created(found[-1]),
        model=", ".join(dict.fromkeys(result.variant.model for result in results)),
        suite=suite,
        baseline=baseline,
        results=tuple(results),
        settings=settings,
        source=", ".join(dict.fromkeys(file.writer for file in found)),
    )


def _created(results: ResultsFile) -> str:
    """When lm-eval began, in seconds since 1970; qeval writes the text itself."""
    date = results.table.get("date")
    if isinstance(date, str):
        return date
    when = datetime.fromtimestamp(float(date), UTC) if isinstance(date, int | float) else None
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else ""
