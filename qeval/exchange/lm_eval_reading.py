"""Take over what lm-eval measured as a Run, whatever ran the model.

`lm_eval --log_samples` wrote hashes that prove what was asked, so its samples pair with anybody's. Scores
without samples: see published.py. Nothing is written here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.records import (
    Cell,
    Item,
    Kind,
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

SCHEME = "imported"
_PREFERRED = ("acc_norm", "acc", "exact_match", "word_perplexity", "byte_perplexity")
_BINARY = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)$")
_AGAIN = "Run lm_eval again with --log_samples, or take its scores alone with: qeval import --scores FILE"
_HASHES = ("doc_hash", "prompt_hash", "target_hash")


@dataclass(frozen=True)
class Imported:
    """A run with the samples and the texts of its cells, by cell key."""

    run: Run
    samples: dict[str, Samples]
    items: dict[str, tuple[Item, ...]]


@dataclass(frozen=True)
class _Results:
    """One results file of lm-eval, and where its samples lie."""

    path: Path
    stamp: str
    table: dict[str, Any]

    def samples_of(self, task: str) -> Path:
        end = f"_{self.stamp}" if self.stamp else ""
        return self.path.parent / f"samples_{task}{end}.jsonl"

    def get(self, key: str, task: str, default: Any = None) -> Any:
        return self.table.get(key, {}).get(task, default)


# --- lm-eval's results --------------------------------------------------------------------------


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
    found = _results_files(path)
    by_model: dict[str, list[_Results]] = {}
    for one in found:
        by_model.setdefault(_model_key(one), []).append(one)
    names = _variant_names(by_model, name)
    samples: dict[str, Samples] = {}
    items: dict[str, tuple[Item, ...]] = {}
    results = []
    for key in sorted(by_model, key=lambda one: names[one]):
        result, columns, texts = _variant(names[key], by_model[key], suite)
        results.append(result)
        samples |= columns
        items |= texts
    run = _run(found, results, suite or _suite_of(results), baseline)
    return Imported(run, samples, items)


def _results_files(path: Path) -> list[_Results]:
    """All results below `path`, the oldest first."""
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Name the directory that lm_eval --output_path made.")
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    found = [one for one in map(_results_file, files) if one is not None]
    if not found:
        raise QevalError(f"{path} holds no results of lm-eval.", _AGAIN)
    return sorted(found, key=lambda one: (one.stamp, str(one.path)))


def _results_file(path: Path) -> _Results | None:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if path.name.startswith("results"):
            raise QevalError(f"{path} cannot be read: {error}.", "Run lm_eval again.") from error
        return None
    if not (isinstance(table, dict) and "results" in table and "configs" in table):
        return None
    stamp = _STAMP.search(path.stem)
    return _Results(path, stamp.group(1) if stamp else "", table)


def _model_key(one: _Results) -> str:
    """Whatever tells one variant from another: the model and its arguments."""
    config = one.table.get("config", {})
    return json.dumps([_model_name(one), config.get("model_args")], sort_keys=True)


def _model_name(one: _Results) -> str:
    config = one.table.get("config", {})
    return str(one.table.get("model_name") or config.get("model") or one.path.parent.name)


def _variant_names(by_model: Mapping[str, Sequence[_Results]], wanted: str | None) -> dict[str, str]:
    """A name for each model: its last part, with what differs in its arguments where that is not unique."""
    if wanted is not None:
        if len(by_model) > 1:
            raise UsageError(
                f"There are results of {len(by_model)} models, and one name: {wanted!r}.",
                "Import them one directory at a time.",
            )
        return dict.fromkeys(by_model, wanted)
    short = {key: _model_name(some[0]).rstrip("/").rpartition("/")[2] for key, some in by_model.items()}
    names: dict[str, str] = {}
    for key, base in short.items():
        twins = [other for other in short if short[other] == base]
        names[key] = base if len(twins) == 1 else f"{base}[{_difference(key, twins)}]"
    return names


def _difference(key: str, twins: Sequence[str]) -> str:
    """The arguments in which one model differs from its namesakes, or its place among them."""
    mine, *others = (_arguments(one) for one in (key, *(twin for twin in twins if twin != key)))
    own = {name: value for name, value in mine.items() if any(other.get(name) != value for other in others)}
    return ",".join(f"{name}={value}" for name, value in own.items()) or str(sorted(twins).index(key) + 1)


def _arguments(key: str) -> dict[str, str]:
    arguments = json.loads(key)[1]
    if isinstance(arguments, dict):
        return {name: str(value) for name, value in arguments.items()}
    pairs = (part.partition("=") for part in str(arguments or "").split(",") if part)
    return {name: value for name, _, value in pairs}


def _variant(
    name: str, found: Sequence[_Results], suite: Suite | None
) -> tuple[Result, dict[str, Samples], dict[str, tuple[Item, ...]]]:
    newest: dict[str, _Results] = {}
    for one in found:
        newest.update(dict.fromkeys(_leaf_tasks(one), one))
    cells, samples, items = [], {}, {}
    for task, one in newest.items():
        wanted = _wanted(task, one, suite)
        if wanted is None:
            continue
        cell, columns, texts = _cell(name, task, one, wanted)
        cells.append(cell)
        samples[cell.key] = columns
        items[cell.key] = texts
    if not cells:
        raise QevalError(f"{name} has results for none of the suite's tasks.", "Name another suite, or none.")
    last = found[-1]
    variant = Variant(name, _model_name(last), Scheme(SCHEME), _revision(last))
    return Result(variant, "done", tuple(_grouped(cells)), _provenance(last)), samples, items


def _leaf_tasks(one: _Results) -> list[str]:
    """The tasks that were scored; groups are means of them. Raises QevalError without their samples."""
    tasks = [task for task in one.table["configs"] if task in one.table["results"]]
    lacking = [task for task in tasks if not one.samples_of(task).is_file()]
    if lacking or not tasks:
        what = f"no samples of {lacking[0]}" if lacking else "no task"
        raise QevalError(f"{one.path} has {what} beside it.", _AGAIN)
    return tasks


def _wanted(task: str, one: _Results, suite: Suite | None) -> Task | None:
    """What the suite asks of a task or of its group; an empty metric where there is no suite."""
    group, category = _place(task, one.table.get("group_subtasks", {}))
    if suite is None:
        return Task(task, "", filter="", group=group, category=category)
    for wanted in suite.tasks:
        if wanted.name == task:
            return wanted
        if wanted.name == group:
            return replace(wanted, name=task, group=group, category=category)
    return None


def _place(task: str, groups: Mapping[str, Sequence[str]]) -> tuple[str | None, str | None]:
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
    for result in results:
        for cell in result.cells:
            task = cell.task
            if task.group is None:
                tasks.setdefault(task.name, task)
            else:
                tasks.setdefault(task.group, replace(task, name=task.group, group=None, category=None))
    return Suite("imported", tuple(tasks.values()), description="what was scored elsewhere")


# --- one task's samples -------------------------------------------------------------------------


def _cell(name: str, task: str, one: _Results, wanted: Task) -> tuple[Cell, Samples, tuple[Item, ...]]:
    path = one.samples_of(task)
    data = path.read_bytes()
    rows = _rows(path, data)
    metric, chosen = _metric(task, rows, wanted)
    rows = [row for row in rows if row.get("filter", "none") == chosen]
    config = one.table["configs"][task]
    samples, items = _samples(path, rows, metric, config), tuple(_item(row, config) for row in rows)
    count = one.get("n-samples", task, {})
    n = len(rows)
    known = replace(
        wanted,
        metric=metric,
        filter=chosen,
        num_fewshot=one.get("n-shot", task, wanted.num_fewshot),
        limit=_limit(one, n),
        kind=_kind(metric, rows) if not wanted.metric else wanted.kind,
    )
    weight = float(samples.weight.sum())
    cell = Cell(
        key=hashlib.sha256(f"{name}\0{task}\0{metric}\0{chosen}\0".encode() + data).hexdigest(),
        task=known,
        n=n,
        n_available=int(count.get("original", n)),
        score=float(samples.value.sum()) / weight if weight else 0.0,
        metrics=_means(one.table["results"][task]),
        task_version=str(one.get("versions", task, "")),
        dataset=" ".join(str(config.get(key)) for key in ("dataset_path", "dataset_name") if config.get(key)),
        files={path.name: hashlib.sha256(data).hexdigest()},
    )
    return cell, samples, items


def _rows(path: Path, data: bytes) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in data.decode("utf-8").split("\n") if line.strip()]
    except ValueError as error:
        raise QevalError(f"{path} is damaged: {error}.", _AGAIN) from error
    for row in rows:
        lacking = [key for key in ("doc_id", *_HASHES) if key not in row]
        if lacking:
            raise QevalError(
                f"{path} has samples without {lacking[0]}, so nothing proves what was asked.",
                "Run lm_eval again with --log_samples, in version 0.4.3 or later.",
            )
    return rows


def _metric(task: str, rows: Sequence[Mapping[str, Any]], wanted: Task) -> tuple[str, str]:
    """The metric and the filter to judge by: the suite's, or the first that judges item by item."""
    if not rows:
        return wanted.metric or "acc", wanted.filter or "none"
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for row in rows))
    chosen = wanted.filter if wanted.filter in filters else filters[0]
    possible = [name for name in _metric_names(rows[0]) if _is_score(rows[0].get(name))]
    metric = wanted.metric or next((name for name in (*_PREFERRED, *possible) if name in possible), "")
    if metric not in possible:
        raise UsageError(
            f"The samples of {task} have no score {metric!r} for each item.".replace(" ''", ""),
            did_you_mean(metric, possible),
        )
    return metric, chosen


def _metric_names(row: Mapping[str, Any]) -> list[str]:
    """The metrics that a sample lists, or that older versions wrote last."""
    listed = row.get("metrics")
    fixed = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", *_HASHES}
    return [str(name) for name in listed] if listed else [name for name in row if name not in fixed]


def _is_score(value: Any) -> bool:
    """A number, or a log-likelihood and a weight."""
    if isinstance(value, list):
        return len(value) == 2 and all(_is_score(part) for part in value)  # noqa: PLR2004 - a pair
    return isinstance(value, int | float)


def _kind(metric: str, rows: Sequence[Mapping[str, Any]]) -> Kind:
    if metric in ("perplexity", "bits_per_byte") or any(isinstance(row[metric], list) for row in rows):
        return "perplexity"
    values = [float(row[metric]) for row in rows]
    binary = metric in _BINARY and all(value in (0, 1) or math.isnan(value) for value in values)
    return "accuracy" if binary else "score"


def _limit(one: _Results, n: int) -> int | None:
    """--limit as a number of items; a share of the items is told by what came of it."""
    limit = one.table.get("config", {}).get("limit")
    if limit is None:
        return None
    return int(limit) if float(limit) >= 1 else n


def _samples(
    path: Path, rows: Sequence[Mapping[str, Any]], metric: str, config: Mapping[str, Any]
) -> Samples:
    pairs = np.array([_value(row[metric]) for row in rows], dtype=np.float64).reshape(-1, 2)
    said = [_said(path, row, metric, config) for row in rows]
    scores = np.empty(len(rows), dtype=object)
    scores[:] = [choices for _, choices in said]
    texts = {name: np.array([str(row[name]) for row in rows], dtype=np.str_) for name in _HASHES}
    return Samples(
        key=np.array([str(row["doc_id"]) for row in rows], dtype=np.str_),
        value=pairs[:, 0].copy(),
        weight=pairs[:, 1].copy(),
        cluster=np.full(len(rows), "", dtype=np.str_),
        answer=np.array([answer for answer, _ in said], dtype=np.str_),
        gold=np.array([_gold(row, config) for row in rows], dtype=np.str_),
        scores=scores,
        **texts,
    )


def _value(value: Any) -> tuple[float, float]:
    """An item's value and weight. What is not a number stays so, and is refused when compared."""
    if isinstance(value, list):
        return float(value[0]), float(value[1])
    return float(value), 1.0


def _said(
    path: Path, row: Mapping[str, Any], metric: str, config: Mapping[str, Any]
) -> tuple[str, tuple[float, ...]]:
    """The answer (a choice's index, a text) and the log-likelihoods of the choices.

    Raises QevalError where a log-likelihood is not a number.
    """
    kind = config.get("output_type", "multiple_choice")
    if kind == "generate_until":
        said = row["filtered_resps"]
        return str(said[0] if isinstance(said, list) and said else said), ()
    if kind == "loglikelihood_rolling":
        return "", ()
    scores = [float(response[0][0]) for response in row["resps"]]
    if any(math.isnan(score) for score in scores):
        raise QevalError(
            f"{path}: item {row['doc_id']} has a log-likelihood that is not a number.",
            "The model gave NaN there: run lm_eval again, for instance with another dtype.",
        )
    if kind == "loglikelihood":
        greedy = str(row["resps"][0][0][1]) == "True"
        return (_asked(row)[0][1] if greedy else ""), tuple(scores)
    return _choice(row, metric, scores, config)


def _choice(
    row: Mapping[str, Any], metric: str, scores: Sequence[float], config: Mapping[str, Any]
) -> tuple[str, tuple[float, ...]]:
    """The choice that the metric takes for the answer, as lm-eval's multiple choice has it."""
    texts = _choices(row, config)
    own = np.array(scores[: len(texts)])
    ranked = own
    if metric == "acc_norm":
        ranked = own / [max(len(text), 1) for text in texts]
    elif metric == "acc_bytes":
        ranked = own / [max(len(text.encode()), 1) for text in texts]
    elif metric == "acc_mutual_info":
        ranked = own - scores[len(texts) :]
    return str(int(np.argmax(ranked))), tuple(own.tolist())


def _asked(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(context, continuation) of each request, in order."""
    arguments = row["arguments"]
    values = arguments.values() if isinstance(arguments, dict) else arguments
    parts = [list(one.values()) if isinstance(one, dict) else list(one) for one in values]
    return [(str(one[0]), str(one[1]) if len(one) > 1 else "") for one in parts]


def _choices(row: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The choices without the delimiter in front; those asked without a context (mutual information)
    repeat the others."""
    asked = _asked(row)
    twice = (
        len(asked) % 2 == 0 and asked[0][0] and all(not context for context, _ in asked[len(asked) // 2 :])
    )
    first = asked[: len(asked) // 2] if twice else asked
    return [choice.removeprefix(str(config.get("target_delimiter", " "))) for _, choice in first]


def _gold(row: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    if config.get("output_type") == "loglikelihood_rolling":
        return ""
    target = str(row.get("target", ""))
    several = re.fullmatch(r"\[(\d+(?:, \d+)*)\]", target)
    return several.group(1).replace(" ", "") if several else target


def _item(row: Mapping[str, Any], config: Mapping[str, Any]) -> Item:
    asked = _asked(row)
    prompt = asked[0][0]
    scored = config.get("output_type", "multiple_choice") in ("multiple_choice", "loglikelihood")
    delimiter = str(config.get("fewshot_delimiter") or "\n\n")
    return Item(
        key=str(row["doc_id"]),
        prompt=prompt,
        question=prompt.rpartition(delimiter)[2] if scored else prompt,
        choices=tuple(_choices(row, config)) if scored else (),
        gold=_gold(row, config),
    )


# --- the run around it --------------------------------------------------------------------------


def _means(results: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in results.items()
        if "," in name and "_stderr" not in name and isinstance(value, int | float)
    }


def _revision(one: _Results) -> str | None:
    config = one.table.get("config", {})
    return config.get("model_sha") or config.get("model_revision") or None


def _provenance(one: _Results) -> Provenance:
    config = one.table.get("config", {})
    versions = {
        name: str(one.table[key])
        for name, key in (("lm_eval", "lm_eval_version"), ("transformers", "transformers_version"))
        if one.table.get(key)
    }
    arguments = ", ".join(
        f"{k}={v}" for k, v in _arguments(json.dumps(["", config.get("model_args")])).items()
    )
    backend = one.table.get("model_source") or config.get("model") or "unknown"
    return Provenance(
        model=_model_name(one),
        revision=_revision(one),
        dtype=str(config.get("model_dtype") or ""),
        device=str(config.get("device") or ""),
        engine="lm-eval",
        batch_size=str(config.get("batch_size") or ""),
        versions=versions,
        notes=(f"Imported from lm-eval ({backend}; {arguments}): what was truly loaded is not known here.",),
    )


def _run(found: Sequence[_Results], results: Sequence[Result], suite: Suite, baseline: str | None) -> Run:
    names = [result.variant.name for result in results]
    if baseline is not None and baseline not in names:
        raise UsageError(
            f"There is no variant {baseline!r} to be the baseline.", did_you_mean(baseline, names)
        )
    settings = [_settings(one) for one in found]
    if len({(one.seed, one.limit, one.chat_template) for one in settings}) > 1:
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


def _settings(one: _Results) -> Settings:
    config = one.table.get("config", {})
    limit = config.get("limit")
    return Settings(
        seed=int(config.get("fewshot_seed") or Settings.seed),
        limit=int(limit) if limit is not None and float(limit) >= 1 else None,
        batch_size=str(config.get("batch_size") or "auto"),
        engine="lm-eval",
        chat_template=bool(one.table.get("chat_template")),
    )


def _created(one: _Results) -> str:
    seconds = one.table.get("date")
    when = datetime.fromtimestamp(float(seconds), UTC) if isinstance(seconds, int | float) else None
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else ""
