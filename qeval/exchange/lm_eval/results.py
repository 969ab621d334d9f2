"""lm-eval's results files, both ways: their names, where their samples lie, what they say of each task."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from qeval.base import reading
from qeval.base.errors import QevalError, UsageError
from qeval.exchange.readers import inspect, lighteval
from qeval.exchange.readers.shape import SAMPLES, WRITER

AGAIN = (
    "Run lm_eval again with --log_samples, or move its samples away: without them the results are read as "
    "scores."
)
AS_TABLE = (
    "Write its scores as a table with the columns variant, task, score and n, and import that: qeval import "
    "FILE.csv"
)
"""The remedy where a results file does not tell enough to be read by itself."""
UNFILTERED = "none"
OURS = "qeval"
"""The `model_source` of files that qeval wrote; their samples tell more (see `samples`)."""
JUDGED_BY = "judged_by"
"""Where a task's configuration in such files names the metric and the filter that judged it."""
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)$")
# What a file's name must not hold; lm-eval itself writes a task's name as it is.
_UNSAFE = re.compile(r'["<>:/|\\?*\s]+')


@dataclass(frozen=True)
class ResultsFile:
    """One results file of lm-eval, and where its samples lie; `folders` lead to it from what is imported."""

    path: Path
    stamp: str
    table: dict[str, Any]
    folders: tuple[str, ...] = ()

    def samples_of(self, task: str) -> Path:
        """The file with the samples of a task, whether it is there or not: the results file itself where it
        holds them."""
        if self.inline(task) is not None:
            return self.path
        return next(
            filter(os.path.lexists, self._places(task)), self.path.parent / samples_name(task, self.stamp)
        )

    def inline(self, task: str) -> Any:
        """The samples of a task that stand in the results file itself, as lm-eval's Python API gives them;
        None where there are none."""
        found = self.table.get(SAMPLES)
        return found.get(task) if isinstance(found, dict) else None

    def has_samples(self, task: str) -> bool:
        """Whether there are samples of a task, or what stands in their place and cannot be read."""
        return self.inline(task) is not None or os.path.lexists(self.samples_of(task))

    def _places(self, task: str) -> Iterator[Path]:
        """Where versions of lm-eval put the samples of a task: today's name, that of the months before 0.4.3
        (.json), and 0.4.0's to 0.4.2's, which begins with the arguments of the model."""
        folder = self.path.parent
        yield folder / samples_name(task, self.stamp)
        yield folder / samples_name(task, self.stamp).removesuffix("l")
        if not self.stamp:
            arguments = re.sub("[/=]", "__", str(self.config.get("model_args") or ""))
            yield folder / f"{arguments}_{task}.jsonl"

    @property
    def config(self) -> dict[str, Any]:
        """How lm-eval was called."""
        found: dict[str, Any] = self.table.get("config") or {}
        return found

    @property
    def model_name(self) -> str:
        """The model's name, which up to 0.4.2 only the arguments tell; else the directory's."""
        asked = arguments_of(self.config.get("model_args"))
        named = next((asked[name] for name in WEIGHTS if asked.get(name)), None)
        return str(self.table.get("model_name") or named or self.config.get("model") or self.path.parent.name)

    @property
    def writer(self) -> str:
        """The tool that wrote it."""
        return str(self.table.get(WRITER) or "lm-eval")

    @property
    def ours(self) -> bool:
        """Whether qeval wrote it."""
        return self.table.get("model_source") == OURS

    def task(self, name: str) -> TaskResults:
        """What the file says of a task."""
        return read_task(self.table, name)

    def tasks(self) -> list[str]:
        """The tasks that were asked for; groups, which are means of them, are not among them. Versions before
        0.4 know no groups, and keep no configurations."""
        return list(self.table.get("configs") or self.table["results"])


@dataclass(frozen=True)
class TaskResults:
    """What a results file says of one task. `metrics`: values by "metric,filter" and more; `config`: the
    task's configuration; `rises`: whether more of a metric is better; `count`: items there are ("original")
    and items scored ("effective")."""

    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    version: Any = ""
    num_fewshot: int | None = None
    rises: Mapping[str, bool] = field(default_factory=dict)
    count: Mapping[str, int] = field(default_factory=dict)


_KEYS = {
    "metrics": "results",
    "config": "configs",
    "version": "versions",
    "num_fewshot": "n-shot",
    "rises": "higher_is_better",
    "count": "n-samples",
}
"""The table of a results file that holds each field of TaskResults, by task."""


def read_task(table: Mapping[str, Any], task: str) -> TaskResults:
    """A task's part of a results file. Versions before 0.4 write a metric without its filter, and the number
    of examples once for all tasks."""
    found = {name: table[key][task] for name, key in _KEYS.items() if task in (table.get(key) or {})}
    if "configs" not in table:
        found["metrics"] = {_with_filter(name): value for name, value in found.get("metrics", {}).items()}
        found["num_fewshot"] = (table.get("config") or {}).get("num_fewshot")
    return TaskResults(**{"metrics": {}, "config": {}, **found})


def _with_filter(metric: str) -> str:
    return metric if "," in metric else f"{metric},{UNFILTERED}"


def task_tables(tasks: Mapping[str, TaskResults]) -> dict[str, dict[str, Any]]:
    """The tables of a results file that go by task; what `read_task` reads."""
    return {
        _KEYS[column.name]: {task: getattr(said, column.name) for task, said in tasks.items()}
        for column in fields(TaskResults)
    }


WEIGHTS = ("pretrained", "model", "path", "engine", "peft", "delta")
"""The arguments that say which weights are loaded, those that name a whole model first."""


def arguments_of(model_args: Any) -> dict[str, str]:
    """The arguments that a model was loaded with, from a table or from "name=value,..." of older versions."""
    if isinstance(model_args, dict):
        return {str(name): str(value) for name, value in model_args.items()}
    pairs = (part.partition("=") for part in str(model_args or "").split(",") if part)
    return {name: value for name, _, value in pairs}


def results_name(stamp: str) -> str:
    """A results file's name."""
    return f"results_{stamp}.json"


def samples_name(task: str, stamp: str) -> str:
    """The name of a file of samples; `stamp` is empty where lm-eval was told the file's name."""
    end = f"_{stamp}" if stamp else ""
    return f"samples_{_UNSAFE.sub('_', task)}{end}.jsonl"


def stamp_of(created: str) -> str:
    """The time in lm-eval's file names: 2026-01-02T03-04-05.000000."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        moment = datetime.fromtimestamp(0, UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%S.%f}"


def find_results(paths: Sequence[Path]) -> list[ResultsFile]:
    """All results files at or below `paths`, each once, the oldest first. Raises UsageError where there is no
    such path, QevalError where they hold none or a damaged one."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no {path}.", "Name the directory that lm_eval --output_path made.")
    root = _root(paths)
    files = {
        os.path.realpath(file): file
        for path in paths
        for file in ([path] if path.is_file() else [*_files(path, "*.json"), *_files(path, inspect.LOGS)])
        if path.is_file() or not file.name.startswith("samples_")
    }
    details = _details(paths)
    read = (_read_results(file, root, details) for file in files.values())
    found = [results for results in read if results is not None]
    if not found:
        raise _nothing(paths, files.values())
    return sorted(found, key=lambda results: (results.stamp, str(results.path)))


_OTHERWISE = "has `results` that are no table of metrics for each task, so no release of lm-eval wrote them"
_NOTHING = (
    "Name what lm_eval --output_path made, a directory or a results file (a JSON object with `results`); or "
    "a table of scores, whose columns `qeval import --help` lists."
)


def _nothing(paths: Sequence[Path], files: Iterable[Path]) -> QevalError:
    """The error where there are no results: they may not have been fetched, or stand in another shape."""
    for file in files:
        try:
            table = reading.json_document(file)
        except reading.PointerError as error:
            return QevalError(f"{file} cannot be read: {reading.told(error)}.", error.remedy)
        except OSError:
            continue
        if isinstance(table, dict) and "results" in table:
            return QevalError(f"{file} {_OTHERWISE}.", AS_TABLE)
    return QevalError(f"{named(paths)} holds no results of lm-eval.", _NOTHING)


def named(paths: Sequence[Path]) -> str:
    """The paths in a sentence."""
    return ", ".join(map(str, paths))


def _root(paths: Sequence[Path]) -> Path:
    """The directory from which the folders of a file are counted."""
    places = [path.parent if path.is_file() else path for path in paths]
    return places[0] if len(places) == 1 else Path(os.path.commonpath([place.resolve() for place in places]))


def unclaimed(paths: Sequence[Path], found: Sequence[ResultsFile]) -> list[Path]:
    """The files of samples below directories of which none of the results beside them tell.

    Raises QevalError for samples without any results beside them: a variant would be missing in silence.
    """
    known = {results.samples_of(task) for results in found for task in results.tasks()}
    below = [file for path in paths if not path.is_file() for file in _files(path, "samples_*.json*")]
    files = [file for file in dict.fromkeys(below) if file not in known]
    lonely = [file for file in files if file.parent not in {results.path.parent for results in found}]
    if lonely:
        raise QevalError(
            f"{lonely[0].parent} has samples, and no results file that can be read.",
            "Lay the results beside them, or move the samples away.",
        )
    return files


def _files(root: Path, pattern: str) -> list[Path]:
    """The files below a directory, through links too; each directory once, whatever links lead to it."""
    seen: set[str] = set()
    found: list[Path] = []
    for place, below, _ in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        below.sort(key=lambda name: (Path(place, name).is_symlink(), name))
        if real in seen:
            below.clear()
        else:
            seen.add(real)
            found += Path(place).glob(pattern)
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    """Raises QevalError for a directory that cannot be opened: its files would be missing in silence."""
    raise QevalError(
        f"{error.filename} cannot be opened: {reading.told(error)}.", "Check its permissions."
    ) from error


Details = Callable[[Path, str], Sequence[Path]]
"""Where a results file's samples may lie, by its path and its time."""


def _details(paths: Sequence[Path]) -> Details:
    """Lighteval's files of samples, below what is imported or near the results that are; nothing is looked
    into before it is asked for."""

    @functools.cache
    def below() -> list[Path]:
        return [file for path in paths if path.is_dir() for file in _files(path, lighteval.DETAILS)]

    return lambda path, stamp: [*below(), *(_near(path, stamp) if path in paths else ())]


def _near(path: Path, stamp: str) -> Iterator[Path]:
    """The files of samples beside a results file, and where lighteval puts those of results/MODEL: in
    details/MODEL/TIME."""
    path = path.absolute()
    folders = [path.parent]
    above = next((place for place in path.parents if place.name == "results"), None)
    if above is not None:
        model = above.parent / "details" / path.parent.relative_to(above)
        folders += [model, *([model / stamp] if stamp else [])]
    for folder in filter(os.path.lexists, folders):
        try:
            inside = sorted(folder.iterdir())  # glob takes a folder that cannot be read for an empty one
        except OSError as error:
            _refuse(error)
        yield from (file for file in inside if file.match(lighteval.DETAILS))


def _read_results(path: Path, root: Path, details: Details) -> ResultsFile | None:
    if path.match(inspect.LOGS):
        return _log(path, root)
    try:
        table = reading.json_document(path)
    except OSError as error:
        if path.name.startswith("results"):
            again = f"{reading.remedy(error)} Or leave the file out: name the others."
            raise QevalError(f"{path} cannot be read: {reading.told(error)}.", again) from error
        return None
    if inspect.is_inspects(table):
        return _log(path, root)
    match = _STAMP.search(path.stem)
    stamp = match.group(1) if match else ""
    if isinstance(table, dict) and lighteval.is_lightevals(table):
        table = lighteval.as_lm_eval(table, stamp, details(path, stamp))
    if not (isinstance(table, dict) and (_is_lm_evals(table) or _has_errors(table))):
        return None
    return ResultsFile(path, stamp, _called(table), _below(path, root))


def _log(path: Path, root: Path) -> ResultsFile:
    """A log of inspect. Its name begins with its time, but by any clock, and people rename files: the log
    itself says it better."""
    table = inspect.as_lm_eval(path)
    try:
        made = datetime.fromisoformat(table["date"])
    except ValueError:
        return ResultsFile(path, path.name.partition("_")[0], table, _below(path, root))
    moment = made.replace(tzinfo=made.tzinfo or UTC).astimezone(UTC)
    return ResultsFile(path, stamp_of(moment.isoformat()), table, _below(path, root))


def _below(path: Path, root: Path) -> tuple[str, ...]:
    """The folders that lead from a directory to a file."""
    inside = path if path.is_relative_to(root) else path.parent.resolve() / path.name
    return inside.relative_to(root).parts[:-1]


def _is_lm_evals(table: Mapping[str, Any]) -> bool:
    """Whether a document is a results file of lm-eval. Before 0.4 they had no configurations of tasks, and
    people keep no more of newer ones than the results and how lm-eval was called."""
    called = table.get("config")
    told = isinstance(table.get("configs"), dict) or (
        isinstance(called, dict) and bool({"model", "model_args"} & called.keys())
    )
    return told and isinstance(table.get("results"), dict)


def _has_errors(table: Mapping[str, Any]) -> bool:
    """Whether a document has lm-eval's results, and nothing of how it was called: some standard error stands
    beside its metric."""
    found = table.get("results")
    rows = [row for row in found.values() if isinstance(row, dict)] if isinstance(found, dict) else []
    errors = [(row, name) for row in rows for name in row if "_stderr" in name]
    return "config" not in table and any(name.replace("_stderr", "") in row for row, name in errors)


def _called(table: dict[str, Any]) -> dict[str, Any]:
    """A document with how lm-eval was called: where a person kept only its results, beside the model's name
    and the number of examples, as far as these tell it."""
    if _is_lm_evals(table):
        return table
    model = table.get("model_name") or table.get("model")
    arguments = {"pretrained": model} if isinstance(model, str) else {}
    return {**table, "config": {"model_args": arguments, "num_fewshot": table.get("num_fewshot")}}


def strange(results: ResultsFile, task: str, error: Exception) -> QevalError:
    """The error for something that lm-eval never writes."""
    why = f"{type(error).__name__}: {error}"
    return QevalError(
        f"{results.path} or the samples of {task} beside it are not as lm-eval writes them ({why}).", AGAIN
    )
