"""Which results of lm-eval belong to one variant, what to call it, and which of its results still hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qeval.base import reading
from qeval.base.errors import UsageError
from qeval.exchange.lm_eval.results import WEIGHTS, ResultsFile, arguments_of


@dataclass(frozen=True)
class Measured:
    """One variant. `model` is the name that its files recorded (and where they lie, if that is a class's
    name that could be anybody's), `files` its results, the oldest first."""

    name: str
    model: str
    files: tuple[ResultsFile, ...]

    @property
    def newest(self) -> dict[str, ResultsFile]:
        """For each task the file that holds: the last."""
        return {task: file for file in self.files for task in file.tasks()}

    def superseded(self) -> Iterator[str]:
        """A sentence for each file of which a task was dropped, since a later one has it too."""
        holds = self.newest
        for file in self.files:
            dropped = [task for task in file.tasks() if holds[task] is not file]
            if dropped:
                yield (
                    f"Superseded by later results and dropped: {', '.join(dropped)} of "
                    f"{'/'.join((*file.folders, file.path.name))}."
                )


def by_variant(found: Sequence[ResultsFile], wanted: str | None) -> list[Measured]:
    """The variants that these results belong to, in the order of their names.

    A model with its backend, revision and arguments is a variant. Where files name no arguments (lm-eval's
    Python API), or say the same of one task in several directories, each directory is one. Its name is
    `wanted`, or the last part of the model's name, with what differs where that is not unique.

    Raises UsageError for several variants where one name is given, and for files of one directory that say
    of one task different things without naming a model.
    """
    parts = [part for alike in _alike(found) for part in _by_directory(alike)]
    if wanted is not None:
        if len(parts) > 1:
            listed = ", ".join(sorted(name for name, _ in _named(parts)))
            raise UsageError(
                f"There are results of {len(parts)} models, and one name: {wanted!r}. They are {listed}.",
                "Import one directory or file at a time, each with a --name of its own.",
            )
        return [Measured(wanted, _model(parts[0], parts), tuple(parts[0]))]
    named = sorted(_named(parts), key=lambda pair: pair[0])
    return [Measured(name, _model(part, parts), tuple(part)) for name, part in named]


# --- one variant or two -------------------------------------------------------------------------


def _traits(results: ResultsFile) -> dict[str, str]:
    """What tells one variant from another, beside the model's name."""
    config = results.config
    traits = arguments_of(config.get("model_args"))
    for name in ("model", "model_revision", "model_sha"):
        if config.get(name):
            traits.setdefault("backend" if name == "model" else name, str(config[name]))
    return traits


def _anonymous(results: ResultsFile) -> bool:
    """Whether nothing tells which weights were loaded, as with lm-eval's Python API, which records the name
    of a class."""
    return not _has_own_name(results) and not arguments_of(results.config.get("model_args"))


def _has_own_name(results: ResultsFile) -> bool:
    """Whether the recorded name is a model's, not a backend's."""
    named = results.table.get("model_name")
    return bool(named) and named != results.config.get("model")


_ADAPTERS = ("peft", "delta", "lora_local_path")


def revision_of(results: ResultsFile) -> str | None:
    """The revision that was loaded, or asked for."""
    config = results.config
    asked = arguments_of(config.get("model_args")).get("revision")
    return config.get("model_sha") or asked or config.get("model_revision") or None


def adapter_of(results: ResultsFile) -> str | None:
    """What was put upon the model's weights."""
    asked = arguments_of(results.config.get("model_args"))
    return next((asked[name] for name in _ADAPTERS if asked.get(name)), None)


def _alike(found: Sequence[ResultsFile]) -> list[list[ResultsFile]]:
    """The results that say the same of the model."""
    alike: dict[str, list[ResultsFile]] = {}
    for results in found:
        key = json.dumps([results.model_name, _traits(results)], sort_keys=True)
        alike.setdefault(key, []).append(results)
    return list(alike.values())


def _by_directory(alike: Sequence[ResultsFile]) -> list[list[ResultsFile]]:
    """They as they are where they can be one variant's, else those of each directory."""
    places: dict[tuple[str, ...], list[ResultsFile]] = {}
    for results in alike:
        places.setdefault(results.folders, []).append(results)
    nameless = _anonymous(alike[0])
    for some in places.values():
        _refuse_two_of_one_task(some if nameless else [])
    seen = [{task for results in some for task in results.tasks()} for some in places.values()]
    twice = sum(map(len, seen)) > len(set().union(*seen))
    return list(places.values()) if nameless or twice else [list(alike)]


def _refuse_two_of_one_task(found: Sequence[ResultsFile]) -> None:
    known: dict[str, ResultsFile] = {}
    for results in found:
        for task in results.tasks():
            if task in known:
                raise UsageError(
                    f"{known[task].path} and {results.path} both have {task}; neither says for which model.",
                    "Import each file on its own, under its own name: qeval import FILE --name NAME",
                )
            known[task] = results


# --- names --------------------------------------------------------------------------------------


def _named(parts: Sequence[Sequence[ResultsFile]]) -> list[tuple[str, Sequence[ResultsFile]]]:
    """Each variant under a name that no other has."""
    plain = [_plain_name(part, parts) for part in parts]
    names = []
    for name, part in zip(plain, parts, strict=True):
        twins = [other for its, other in zip(plain, parts, strict=True) if its == name]
        names.append(name if len(twins) == 1 else f"{name}[{_difference(part, twins)}]")
    again = {name for name in names if names.count(name) > 1}
    numbers = dict.fromkeys(again, 0)
    for at, name in enumerate(names):
        if name in again:
            numbers[name] += 1
            names[at] = f"{name}#{numbers[name]}"
    return list(zip(names, parts, strict=True))


def _plain_name(part: Sequence[ResultsFile], parts: Sequence[Sequence[ResultsFile]]) -> str:
    first = part[0]
    if _anonymous(first):
        return _directory(first, [other[0] for other in parts])
    return first.model_name.rstrip("/").rpartition("/")[2]


def _model(part: Sequence[ResultsFile], parts: Sequence[Sequence[ResultsFile]]) -> str:
    """The recorded name. A class's or a server's name proves nothing: the directory stands beside it, and
    what tells these results from any others in a directory of that name."""
    last = part[-1]
    if _has_own_name(last) or set(WEIGHTS) & arguments_of(last.config.get("model_args")).keys():
        return last.model_name
    content = hashlib.sha256(json.dumps(last.table, sort_keys=True).encode())
    for samples in (last.samples_of(task) for task in last.tasks()):
        content.update(reading.content(samples, None) if samples.is_file() else b"")
    where = _directory(last, [other[0] for other in parts])
    return f"{last.model_name} in {where} ({content.hexdigest()[:8]})"


def _directory(results: ResultsFile, all_of_them: Sequence[ResultsFile]) -> str:
    """The folders that lead to a file, without those that lead to all; else the one that it lies in."""
    paths = [list(one.folders) for one in all_of_them]
    own = list(results.folders)
    while len(paths) > 1 and all(paths) and len({path[-1] for path in paths}) == 1:
        paths, own = [path[:-1] for path in paths], own[:-1]
    while len(paths) > 1 and all(paths) and len({path[0] for path in paths}) == 1:
        paths, own = [path[1:] for path in paths], own[1:]
    return "-".join(own) or results.path.resolve().parent.name


_LONG = 120
"""More letters than that nobody types: GPT-NeoX recorded whole files of settings as arguments."""


def _difference(part: Sequence[ResultsFile], twins: Sequence[Sequence[ResultsFile]]) -> str:
    """What one variant says of itself and its namesakes do not (the name of its file, if that is too long to
    type), where it lies if others say it too, or its place among them."""
    mine = _traits(part[0])
    others = [_traits(twin[0]) for twin in twins if twin is not part]
    own = {name: value for name, value in mine.items() if any(other.get(name) != value for other in others)}
    told = ",".join(f"{name}={value}" for name, value in own.items())
    alike = [twin[0] for twin in twins if _traits(twin[0]) == mine]
    if own and (len(told) > _LONG or not told.isprintable()):
        return part[-1].path.stem
    if own:
        return f"{told},{_directory(part[0], alike)}" if len(alike) > 1 else told
    if len(alike) > 1:
        return _directory(part[0], [twin[0] for twin in twins])
    order = sorted(json.dumps(_traits(twin[0]), sort_keys=True) for twin in twins)
    return str(order.index(json.dumps(mine, sort_keys=True)) + 1)
