"""Published scores without items, from a CSV or TOML table, as a Run that is compared unpaired."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.hashing import digest
from qeval.base.records import Cell, Provenance, Result, Run, Scheme, Suite, Task, Variant
from qeval.base.tables import read, typed

SCHEME = "published"
_COLUMNS = {
    "variant": "the name that tables show",
    "task": "the task",
    "score": "a fraction, or in per cent where percent = true; a perplexity as it is",
    "right": "the number of right answers, in place of the score",
    "n": "the number of items behind the score",
    "model": "the model",
    "metric": "the metric",
    "num_fewshot": "the number of examples in the prompt",
    "n_available": "the number of items of the whole task, where n is fewer",
    "n_effective": "how many items of one task tell as much, for means of unlike subjects",
}
_NEEDED = ("variant", "task", "n")


class ScoreTable(msgspec.Struct, forbid_unknown_fields=True):
    """A [[score]] of a TOML file; what must be there and in what range is looked at as for a CSV file."""

    variant: str = ""
    task: str = ""
    score: float | None = None
    right: float | None = None
    n: float | None = None
    model: str = ""
    metric: str = ""
    num_fewshot: float | None = None
    n_available: float | None = None
    n_effective: float | None = None


class ScoresTable(msgspec.Struct, forbid_unknown_fields=True):
    """A TOML file of published scores."""

    score: tuple[ScoreTable, ...] = ()
    name: str = ""
    model: str = ""
    baseline: str = ""
    average: tuple[str, ...] = ()
    percent: bool = False
    description: str = ""
    source: str = ""


def import_scores(path: Path, *, model: str | None = None, baseline: str | None = None) -> Run:
    """Read a table of published scores as a run without items.

    CSV: a line per variant and task, with the columns variant, task, n and score, or right (how many of the
    n were right), and optionally model, metric, num_fewshot, n_available, n_effective. TOML: the same as
    [[score]] tables, and at the top name, model, baseline, average (the list of tasks whose mean is the
    suite's average), percent, description and source. Scores greater than 1 are taken for per cent only
    if `percent` says so. A metric with "perplexity" in its name is one. A file may hold several models;
    `model` chooses one.

    Raises UsageError for a wrong or missing column, a number out of range, a variant or task said twice,
    an unknown baseline, or several models where none is chosen.
    """
    head, rows = _score_rows(path)
    checked = [_score(row, head, f"{path}, score {at}") for at, row in enumerate(rows, 1)]
    checked = _of_model(checked, model, path)
    seen: set[tuple[str, str]] = set()
    for row in checked:
        if (row["variant"], row["task"]) in seen:
            raise UsageError(f"{path} says {row['variant']} on {row['task']} twice.", "Keep one of them.")
        seen.add((row["variant"], row["task"]))
    names = list(dict.fromkeys(row["variant"] for row in checked))
    chosen = baseline or head.get("baseline") or names[0]
    if chosen not in names:
        raise UsageError(f"{path} has no variant {chosen!r} to be the baseline.", did_you_mean(chosen, names))
    return _scores_run(path, head, checked, chosen)


def _score_rows(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What stands at the top of the file, and its rows."""
    head: dict[str, Any] = {}
    if path.suffix.lower() == ".toml":
        head = read(path, "table of scores")
        typed(head, ScoresTable, str(path))
        rows = head.pop("score", [])
    elif path.suffix.lower() == ".csv":
        rows = _csv_rows(path)
    else:
        raise UsageError(f"{path} is neither .csv nor .toml.", "Give the file the ending of what it holds.")
    if not rows:
        raise UsageError(f"{path} has no scores.", _ROW)
    return head, rows


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Check the path.") from error
    rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    for row in rows:
        _only(row, _COLUMNS, path)
    return rows


_ROW = 'A row needs at least: variant = "fp16", task = "arc_challenge", score = 0.53, n = 1172.'


def _only(row: Mapping[Any, Any], known: Mapping[str, Any], path: Path) -> None:
    for key in row:
        if key not in known:
            word = "more cells than columns" if key is None else f"no column {key!r}"
            raise UsageError(f"{path}: scores have {word}.", did_you_mean(str(key), known))


def _score(row: Mapping[str, Any], head: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row with every number read and looked at."""
    lacking = [name for name in _NEEDED if row.get(name) in (None, "")]
    if lacking:
        raise UsageError(f"{where} has no {lacking[0]}.", _ROW)
    found: dict[str, Any] = {
        "variant": str(row["variant"]).strip(),
        "task": str(row["task"]).strip(),
        "model": str(row.get("model") or head.get("model") or ""),
        "metric": str(row.get("metric") or "acc").strip(),
    }
    for name in ("score", "right", "n", "num_fewshot", "n_available", "n_effective"):
        if row.get(name) not in (None, ""):
            found[name] = _number(name, row[name], where)
    if ("score" in found) == ("right" in found):
        raise UsageError(f"{where} needs a score, or the number of right answers.", _ROW)
    found["score"] = _stored_score(found, bool(head.get("percent")), where)
    if found.get("n_available", found["n"]) < found["n"]:
        raise UsageError(f"{where}: n_available is less than n.", "It is the number of the whole task.")
    return found


def _number(name: str, value: Any, where: str) -> float | int:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {name} = {value!r} is not a number.", _ROW) from error
    whole = name not in ("score", "n_effective")
    least = 0 if name in ("num_fewshot", "score", "right") else 1
    if not math.isfinite(number) or number < least or (whole and number != int(number)):
        raise UsageError(f"{where}: {name} = {value!r} is not possible.", f"{name} is {_COLUMNS[name]}.")
    return int(number) if whole else number


def _stored_score(row: Mapping[str, Any], percent: bool, where: str) -> float:
    """The score as records keep it: a fraction, or minus the logarithm of a perplexity."""
    if "right" in row:
        if row["right"] > row["n"]:
            raise UsageError(f"{where}: {row['right']} of {row['n']} cannot be right.", "Look at n.")
        return float(row["right"] / row["n"])
    score = float(row["score"])
    if "perplexity" in row["metric"]:
        if score < 1:
            raise UsageError(f"{where}: a perplexity of {score:g} is not possible.", "It is at least 1.")
        return -math.log(score)
    score = score / 100 if percent else score
    if score > 1:
        hint = "Write fractions, or percent = true at the top of a TOML file."
        raise UsageError(f"{where}: the score {row['score']:g} is more than all items.", hint)
    return score


def _of_model(rows: list[dict[str, Any]], model: str | None, path: Path) -> list[dict[str, Any]]:
    models = list(dict.fromkeys(row["model"] for row in rows))
    if model is None:
        if len(models) > 1:
            raise UsageError(
                f"{path} has scores of {len(models)} models: {', '.join(models)}.", "Choose one with --model."
            )
        return rows
    if model not in models:
        raise UsageError(f"{path} has no scores of {model!r}.", did_you_mean(model, models))
    return [row for row in rows if row["model"] == model]


def _scores_run(path: Path, head: Mapping[str, Any], rows: Sequence[dict[str, Any]], baseline: str) -> Run:
    cells: dict[str, list[Cell]] = {}
    for row in rows:
        cells.setdefault(row["variant"], []).append(_scores_cell(row))
    model = rows[0]["model"]
    where = f" ({head['source']})" if head.get("source") else ""
    note = f"Published scores without items, taken from {path.name}{where}."
    results = tuple(
        Result(
            Variant(name, model, Scheme(SCHEME)),
            "done",
            tuple(some),
            Provenance(model=model, engine="published", notes=(note,)),
        )
        for name, some in cells.items()
    )
    tasks = {cell.task.name: cell.task for some in cells.values() for cell in some}
    average = tuple(str(name) for name in head.get("average", ()))
    lacking = [name for name in average if name not in tasks]
    if lacking:
        raise UsageError(f"{path}: average names no task {lacking[0]!r}.", did_you_mean(lacking[0], tasks))
    name = str(head.get("name") or path.stem)
    return Run(
        id=f"{name}-{digest(rows, spaced=True)[:8]}",
        created="",
        model=model,
        suite=Suite(name, tuple(tasks.values()), average, str(head.get("description", ""))),
        baseline=baseline,
        results=results,
        source=f"scores in {path.name}",
    )


def _scores_cell(row: Mapping[str, Any]) -> Cell:
    perplexity = "perplexity" in row["metric"]
    task = Task(
        row["task"],
        row["metric"],
        num_fewshot=row.get("num_fewshot"),
        kind="perplexity" if perplexity else "accuracy",
    )
    return Cell(
        key=digest(row, spaced=True),
        task=task,
        n=row["n"],
        n_available=row.get("n_available", row["n"]),
        score=row["score"],
        metrics={"n_effective": row["n_effective"]} if "n_effective" in row else {},
    )
