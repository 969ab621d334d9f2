"""Published scores without items, from a CSV or TOML table, as a Run that is compared unpaired."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from qeval.base import next_steps, reading
from qeval.base.errors import UsageError, did_you_mean
from qeval.base.hashing import digest
from qeval.base.names import file_name
from qeval.base.records import Cell, Provenance, Result, Run, Scheme, Suite, Task, Variant
from qeval.base.sizes import size_of
from qeval.base.tables import read, typed
from qeval.exchange.agreeing import check_average, check_metrics, of_model, with_variants
from qeval.exchange.choosing import chosen_baseline
from qeval.exchange.columns import COLUMNS, NEEDED, PERCENT, grouped, plain
from qeval.exchange.units import Published, is_perplexity, rises, stored
from qeval.store.checking import PUBLISHED


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
    stderr: float | None = None
    higher_is_better: bool | None = None
    baseline: bool = False


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


def import_scores(
    path: Path,
    *,
    name: str | None = None,
    model: str | None = None,
    baseline: str | None = None,
    percent: bool = False,
) -> Run:
    """Read a table of published scores as a run without items.

    CSV: a line per variant and task, with the columns variant, task, n and score, or right (how many of the
    n were right), and optionally the others of `COLUMNS`. TOML: the same as [[score]] tables, and at the
    top name, model, baseline, average (the list of tasks whose mean is the suite's average), percent,
    description and source. Scores greater than 1 are taken for per cent only if `percent` says so (the
    argument or the file), or a sign behind the number. How a
    metric becomes a score of which more is better: see `qeval.exchange.units`. A file may hold several
    models; `model` chooses one, or says whose scores all are where none is named. So `name` is the variant
    where no row names one.

    Raises UsageError for a wrong or missing column, a number out of range, a metric on another scale, a
    number of right answers of a metric of which less is better, a variant or task said twice, an unknown
    baseline or none, several models where none is chosen, and for what `qeval.exchange.agreeing` refuses.
    """
    head, raw = _score_rows(path)
    rows = with_variants([plain(row) for row in raw], name, path)
    head = {**head, "percent": percent or bool(head.get("percent"))}
    checked = [_score(row, head, f"{path}, score {at}") for at, row in enumerate(rows, 1)]
    _refuse_fractions(rows, head, path)
    checked = list(of_model(checked, model, path))
    seen: set[tuple[str, str]] = set()
    for row in checked:
        if (row["variant"], row["task"]) in seen:
            raise UsageError(f"{path} says {row['variant']} on {row['task']} twice.", "Keep one of them.")
        seen.add((row["variant"], row["task"]))
    check_metrics(checked, path)
    names = list(dict.fromkeys(row["variant"] for row in checked))
    chosen = chosen_baseline(names, baseline or _marked(head, checked, path), str(path))
    return _scores_run(path, head, checked, chosen)


def _refuse_fractions(rows: Sequence[Mapping[str, Any]], head: Mapping[str, Any], path: Path) -> None:
    """Raises UsageError where scores are said to be in per cent and those of a task are fractions, all or
    some of them: each of their points would count for a hundredth."""
    told: dict[str, list[float]] = {}
    for row in rows if head.get("percent") else ():
        if (
            row.get("score") not in (None, "")
            and PERCENT not in row
            and not is_perplexity(str(row.get("metric") or ""))
        ):
            told.setdefault(row["task"], []).append(float(row["score"]))
    for task, scores in told.items():
        small = [score for score in scores if 0 < score <= 1]
        if not small:
            continue
        if max(scores) <= 1:
            what = f"of {task} none is above 1: these look like fractions"
        else:
            what = f"of {task} one is {small[0]:g} and one {max(scores):g}: the first looks like a fraction"
        raise UsageError(
            f"{path} has its scores in per cent, and {what}.",
            "Write all scores in per cent, or leave percent out; or give the number of right answers. What "
            "is below one per cent carries its sign: 0.8%.",
        )


def _marked(head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], path: Path) -> str | None:
    """The baseline that the file itself names. Raises UsageError where it names several."""
    top = [str(head["baseline"])] if head.get("baseline") else []
    marked = list(dict.fromkeys([*top, *(row["variant"] for row in rows if row["baseline"])]))
    if len(marked) > 1:
        raise UsageError(
            f"{path} marks {len(marked)} variants as the baseline: {', '.join(marked)}.",
            "Mark one of them, or choose one with --baseline.",
        )
    return marked[0] if marked else None


def _score_rows(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What stands at the top of the file, and its rows."""
    head: dict[str, Any] = {}
    if path.suffix.lower() == ".toml":
        head = read(path, "table of scores")
        typed(head, ScoresTable, str(path))
        rows = head.pop("score", [])
    elif path.suffix.lower() in {".csv", ".tsv"}:
        rows = _csv_rows(path)
    else:
        raise UsageError(
            f"{path} is neither .csv nor .toml.", "Give the file the extension of what it holds."
        )
    if not rows:
        raise UsageError(f"{path} has no scores.", _ROW)
    return head, rows


def _csv_rows(path: Path) -> list[dict[Any, Any]]:
    try:
        names, rows = reading.csv_rows(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reading.told(error)}.", reading.remedy(error)) from error
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UsageError(f"{path} has the column {twice[0]!r} twice.", "Keep one of them.")
    for row in rows:
        _only(row, COLUMNS, path)
    return rows


_ROW = 'A row needs at least: variant = "fp16", task = "arc_challenge", score = 0.53, n = 1172.'


def _only(row: Mapping[Any, Any], known: Mapping[str, Any], path: Path) -> None:
    for key in row:
        if key not in known:
            word = "more cells than columns" if key is None else f"no column {key!r}"
            raise UsageError(f"{path}: scores have {word}.", did_you_mean(str(key), known))


def _score(row: Mapping[str, Any], head: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row with every number read and looked at."""
    lacking = [name for name in NEEDED if row.get(name) in (None, "")]
    if lacking:
        raise UsageError(f"{where} has no {lacking[0]}.", _ROW)
    found: dict[str, Any] = {
        "variant": str(row["variant"]).strip(),
        "task": str(row["task"]).strip(),
        "model": str(row.get("model") or head.get("model") or ""),
        "metric": str(row.get("metric") or "acc").strip(),
    }
    for name in ("score", "right", "n", "num_fewshot", "n_available", "n_effective", "stderr"):
        if row.get(name) not in (None, ""):
            found[name] = _number(name, row[name], where)
    if ("score" in found) == ("right" in found):
        raise UsageError(f"{where} needs a score, or the number of right answers.", _ROW)
    found["baseline"] = bool(_yes_or_no("baseline", row, where))
    _check_sizes(found, where)
    whole = size_of(found["task"])
    if whole is not None and found["n"] < whole:
        found.setdefault("n_available", whole)
    percent = bool(head.get("percent") or row.get(PERCENT))
    if PERCENT in row and is_perplexity(found["metric"]):
        raise UsageError(f"{where}: a {found['metric']} is not in per cent.", "Leave the sign out.")
    told = _yes_or_no("higher_is_better", row, where)
    published = Published(found["metric"], _fraction(found, percent), found["n"], told, where)
    if "right" in found and not rises(published):
        raise UsageError(
            f"{where} counts right answers, of which more is better, and less {found['metric']} is better.",
            "Write the value itself in a column `score`; or leave `metric` out, and it is the accuracy.",
        )
    kept = asdict(stored(published, _error(found, percent)))
    found.pop("stderr", None)
    return found | {name: value for name, value in kept.items() if value is not None}


def _yes_or_no(name: str, row: Mapping[str, Any], where: str) -> bool | None:
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word and word not in _WORDS:
        raise UsageError(f"{where}: {name} = {value!r} is not possible.", "It is true or false.")
    return _WORDS.get(word)


_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _check_sizes(row: Mapping[str, Any], where: str) -> None:
    if row.get("right", 0) > row["n"]:
        raise UsageError(f"{where}: {row['right']} of {row['n']} cannot be right.", "Look at n.")
    if row.get("n_available", row["n"]) < row["n"]:
        raise UsageError(
            f"{where}: n_available is less than n.", "It is the number of items in the whole task."
        )
    whole = size_of(row["task"])
    if whole is not None and row["n"] > whole:
        raise UsageError(f"{where}: {row['task']} has {whole} items, not {row['n']}.", "Look at n.")
    if row.get("n_effective", 0) > row["n"]:
        raise UsageError(f"{where}: n_effective is more than n.", "It is at most n.")
    if "n_effective" in row and "stderr" in row:
        raise UsageError(
            f"{where} has both n_effective and stderr.", "Keep one: each follows from the other."
        )


def _number(name: str, value: Any, where: str) -> float | int:
    whole = name not in ("score", "n_effective", "stderr")
    if grouped(name, value):
        digits = "".join(letter for letter in value if letter.isdigit())
        raise UsageError(
            f"{where}: {name} = {value!r} may be {digits} or a fraction.",
            f"Write it without a sign between its digits: {digits}.",
        )
    try:
        number = reading.number(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {name} = {value!r} is not a number.", _ROW) from error
    least = 0 if name in ("num_fewshot", "score", "right", "stderr") else 1
    possible = math.isfinite(number) and number >= least and not (name == "stderr" and not number)
    if not possible or (whole and number != int(number)):
        raise UsageError(f"{where}: {name} = {value!r} is not possible.", f"{name} is {COLUMNS[name]}.")
    return int(number) if whole else number


def _fraction(row: Mapping[str, Any], percent: bool) -> float:
    """The score as it was published, no longer in per cent."""
    if "right" in row:
        return float(row["right"] / row["n"])
    return float(row["score"]) / (100 if percent and not is_perplexity(row["metric"]) else 1)


def _error(row: Mapping[str, Any], percent: bool) -> float | None:
    """The standard error in the unit of `_fraction`."""
    if "stderr" not in row:
        return None
    in_percent = percent and "score" in row and not is_perplexity(row["metric"])
    return float(row["stderr"]) / (100 if in_percent else 1)


def _scores_run(path: Path, head: Mapping[str, Any], rows: Sequence[dict[str, Any]], baseline: str) -> Run:
    cells: dict[str, list[Cell]] = {}
    for row in rows:
        cells.setdefault(row["variant"], []).append(_scores_cell(row))
    model = rows[0]["model"]
    where = f" ({head['source']})" if head.get("source") else ""
    note = f"Published scores without items, taken from {path.name}{where}."
    turned = dict.fromkeys((row["task"], row["metric"]) for row in rows if row["metric"].startswith("1 - "))
    notes = (note, *(f"{task}: less is better, so {metric} is compared." for task, metric in turned))
    results = tuple(
        Result(
            Variant(name, model, Scheme(PUBLISHED)),
            "done",
            tuple(some),
            Provenance(model=model, engine="published", notes=notes),
        )
        for name, some in cells.items()
    )
    tasks = {cell.task.name: cell.task for some in cells.values() for cell in some}
    average = tuple(str(name) for name in head.get("average", ()))
    check_average(average, rows, path)
    name = str(head.get("name") or path.stem)
    return Run(
        id=f"{file_name(name)}-{digest([_as_it_was(row) for row in rows], spaced=True)[:8]}",
        created="",
        model=model,
        suite=Suite(name, tuple(tasks.values()), average, str(head.get("description", ""))),
        baseline=baseline,
        results=results,
        source=f"{next_steps.TABLE} in {path.name}",
    )


def _scores_cell(row: Mapping[str, Any]) -> Cell:
    task = Task(row["task"], row["metric"], num_fewshot=row.get("num_fewshot"), kind=row["kind"])
    known = {name: row[name] for name in ("n_effective", "stderr") if row.get(name) is not None}
    return Cell(
        key=digest(_as_it_was(row), spaced=True),
        task=task,
        n=row["n"],
        n_available=row.get("n_available", row["n"]),
        score=row["score"],
        metrics=known,
    )


def _as_it_was(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's key is made of: without what older versions did not know, where nothing is said of it."""
    return {
        name: value for name, value in row.items() if name not in ("kind", "baseline") and value is not None
    }
