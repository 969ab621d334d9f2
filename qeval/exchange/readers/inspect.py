"""Logs of inspect, read by its own package: a log is one task of one model, its scorers are filters."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.exchange.readers.shape import Told, as_results
from qeval.score.harness.rules import has_a_direction, is_doubtful, less_is_better

WRITER = "inspect"
LOGS = "*.eval"
_START, _ZIP = 200, b"PK"
_SPARE, _RATIO = 256 << 20, 200
"""What a packed log may unpack to at most: so many bytes, or so many times its own."""
_LIMITS = ("message_limit", "token_limit", "turn_limit", "time_limit", "working_limit", "cost_limit")
"""Where inspect ends a sample."""
_LONGEST = 60
"""The most letters of a task's arguments that its name says; of more it says a hash."""
_ACCURACY, _MEAN = "accuracy", "mean"
"""inspect's names of a mean over items."""
_OVER_EPOCHS = (None, "mean")
"""How the scores of an item's epochs become one, where it is by their mean."""


def is_inspects(table: Any) -> bool:
    """Whether a JSON document is a log of inspect."""
    return isinstance(table, dict) and isinstance(table.get("eval"), dict) and "status" in table


def as_lm_eval(path: Path) -> dict[str, Any]:
    """A log in the shape of lm-eval's results.

    Raises QevalError where inspect is not installed, where it does not read the file, or where the log is of
    an evaluation that did not end.
    """
    log = _read(path)
    if log.status != "success":
        raise QevalError(
            f"{path} is the log of an evaluation that did not end ({log.status}).",
            "Finish it with inspect eval-retry, or move it away.",
        )
    made = log.eval
    arguments = {key: str(value) for key, value in (made.model_args or {}).items() if value is not None}
    return as_results(
        {_name(made): _told(log)},
        writer=WRITER,
        packages=_plain(made.packages),
        model=str(made.model),
        arguments=arguments,
        date=str(made.created),
        limit=made.config.limit if isinstance(made.config.limit, int | None) else len(_items(log)),
    )


def _read(path: Path) -> Any:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise QevalError(
            f"{path} is a log of inspect, and the package that reads it is not installed.",
            "Install it with: pip install 'qeval[inspect]'",
        ) from error
    try:
        _check(path)
        return read_eval_log(str(path))
    except reading.UnreadableError as error:
        raise QevalError(f"{path} cannot be read: {reading.told(error)}.", error.remedy) from error
    except Exception as error:  # whatever inspect's reader raises at a damaged file
        why = " ".join(str(error).split())[:120]
        raise QevalError(f"{path} is damaged ({why}).", "Copy it again, or move it away.") from error


def _check(path: Path) -> None:
    """Raises UnreadableError for a pointer to a log, or one that would unpack to far more than such a file
    holds."""
    with reading.opened(path) as file:
        start = file.read(_START)
        reading.check_fetched(path, start)
        if not start.startswith(_ZIP):
            return
        packed = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as parts:
            size = sum(part.file_size for part in parts.infolist())
    if size > max(_SPARE, _RATIO * packed):
        what = f"its {packed} bytes would unpack to {size}, far more than a log holds"
        raise reading.DamagedError(path, what, "Copy it again, or move it away.")


def _name(made: Any) -> str:
    """The task with the arguments that it was called with: with others it is another one."""
    passed = getattr(made, "task_args_passed", None)  # older releases know only `task_args`
    passed = made.task_args if passed is None else passed
    told = ",".join(f"{key}:{_word(value)}" for key, value in sorted(_plain(passed).items()))
    name = str(made.task).rpartition("/")[2]
    if len(told) > _LONGEST:
        told = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"{name}[{told}]" if told else name


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _told(log: Any) -> Told:
    made, judged = log.eval, _judged(log)
    lines = [line for at, some in enumerate(_items(log)) for line in _lines(at, some, judged)]
    means, errors = _means(log)
    names = dict.fromkeys(name for _, name in means)
    return Told(
        means=means,
        errors=errors,
        lines=lines or None,
        config={
            "output_type": "generate_until",
            "dataset_path": made.dataset.name or made.dataset.location,
            "generation_kwargs": _settings(log),
            "repeats": made.config.epochs or 1,
            "filter_list": [{"name": name, "filter": [], "options": _options(log, name)} for name in names],
        },
        counts=_counts(log),
        version=made.task_version,
    )


def _settings(log: Any) -> dict[str, Any]:
    """What decides answers beside the prompt; what is not set is left out."""
    made = log.eval
    told = {
        "model": made.model_generate_config,
        "plan": log.plan,
        "roles": getattr(made, "model_roles", None),
        "task_args": made.task_args,
        "limits": {name: getattr(made.config, name, None) for name in _LIMITS},
        "packages": {name: one for name, one in _plain(made.packages).items() if name != "inspect_ai"},
    }
    plain = {name: _plain(record) for name, record in told.items()}
    return {name: record for name, record in plain.items() if record or name in ("model", "plan")}


def _options(log: Any, name: str) -> Any:
    """How a scorer was called."""
    scorers = {one.scorer for one in log.results.scores if one.name == name}
    listed = getattr(log.eval, "scorers", None) or ()  # unknown to older releases
    known = (one for one in listed if str(one.name).rpartition("/")[2] in {name, *scorers})
    found = [_plain(one.options) for one in known]
    return found or [_plain(one.params) for one in log.results.scores if one.name == name]


def _plain(record: Any) -> Any:
    """What inspect recorded as JSON holds it, without what is not set."""
    if hasattr(record, "model_dump_json"):
        return json.loads(record.model_dump_json(exclude_none=True))
    if isinstance(record, Mapping):
        return {str(key): _plain(value) for key, value in record.items() if value is not None}
    if isinstance(record, list | tuple):
        return [_plain(value) for value in record]
    return {} if record is None else record


def _counts(log: Any) -> dict[str, int]:
    whole = log.eval.dataset.samples
    told = log.results
    scored = told.completed_samples // (log.eval.config.epochs or 1) if told else None
    return {key: n for key, n in (("original", whole), ("effective", scored)) if n}


def _means(log: Any) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """The means that the log tells, and their standard errors, by metric and scorer."""
    means: dict[tuple[str, str], float] = {}
    errors: dict[tuple[str, str], float] = {}
    for score in _scores(log):
        values = {name.rpartition("/")[2]: metric.value for name, metric in score.metrics.items()}
        for name, metric in _metrics(score).items():
            means[metric, score.name] = float(values[name])
            errors |= {(metric, score.name): float(values["stderr"])} if "stderr" in values else {}
    return means, errors


def _scores(log: Any) -> list[Any]:
    """The scores of all items together that are means over their epochs."""
    told = log.results.scores if log.results else ()
    return [score for score in told if getattr(score, "reducer", None) in _OVER_EPOCHS]


def _metrics(score: Any) -> dict[str, str]:
    """What each mean of a scorer is called here, by inspect's name: `acc`, `mean_score`, or after the scorer,
    whose name alone tells whether more of it is better: a scorer of harm has an accuracy too. Of several that
    a scorer gives at once each has a name of its own, and the scorer's tells nothing of it."""
    names = (str(score.name), str(getattr(score, "scorer", None) or ""))
    own = f"mean_{score.name}"
    falls = any(less_is_better(name) or is_doubtful(name) for name in names)
    called = {
        _ACCURACY: own if falls else "acc",
        _MEAN: own if falls or not has_a_direction(names[0]) else "mean_score",
    }
    there = {name.rpartition("/")[2] for name in score.metrics}
    return {name: metric for name, metric in called.items() if name in there}


def _judged(log: Any) -> list[tuple[str, str, list[str]]]:
    """(name, scorer, what its means are called) of each score that has some."""
    found = [
        (str(one.name), str(getattr(one, "scorer", None) or one.name), _metrics(one)) for one in _scores(log)
    ]
    return [(name, scorer, list(dict.fromkeys(some.values()))) for name, scorer, some in found if some]


def _items(log: Any) -> list[list[Any]]:
    """The samples of each item: one an epoch."""
    found: dict[str, list[Any]] = {}
    for sample in log.samples or ():
        found.setdefault(str(sample.id), []).append(sample)
    return list(found.values())


def _lines(
    at: int, epochs: Sequence[Any], judged: Sequence[tuple[str, str, Sequence[str]]]
) -> Iterator[dict[str, Any]]:
    """A line for each score, its value the mean over epochs; a scorer that gives several at once has one for
    each of their names."""
    first = epochs[0]
    prompt, texts = _prompt(first.messages), [str(one.output.completion) for one in epochs]
    for name, scorer, called in judged:
        given = [one.scores[scorer] for one in epochs if one.scores and scorer in one.scores]
        if not given:
            continue
        value = _value([_part(score.value, name) for score in given])
        metrics = {} if value is None else dict.fromkeys(called, value)
        answer = given[0].answer
        yield {
            "doc_id": first.id if isinstance(first.id, int) else at,
            "doc": {"id": str(first.id), "question": _text(first.input), "choices": first.choices or []},
            "target": str(first.target),
            "arguments": [[prompt, {}]],
            "resps": [texts],
            "filtered_resps": [str(texts[0] if answer is None else answer)],
            "filter": name,
            "metrics": list(metrics),
            **metrics,
        }


def _part(value: Any, name: str) -> Any:
    """What a scorer gave under a name, where it gave several at once."""
    return value[name] if isinstance(value, Mapping) and name in value else value


def _value(values: Iterable[Any]) -> float | None:
    """The mean of what a scorer gave, as inspect makes numbers of it; None where it gave several at once."""
    from inspect_ai.scorer import value_to_float

    made, found = value_to_float(), list(values)
    if not found or any(isinstance(value, Mapping | list) for value in found):
        return None
    return math.fsum(made(value) for value in found) / len(found)


def _prompt(messages: Iterable[Any]) -> str:
    """Everything that the model was given before its first answer."""
    parts = []
    for message in messages:
        if message.role == "assistant" and getattr(message, "source", None) == "generate":
            break
        parts.append(f"{message.role}: {message.text}")
    return "\n".join(parts)


def _text(asked: Any) -> str:
    return asked if isinstance(asked, str) else _prompt(asked)
