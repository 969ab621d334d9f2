"""Where a task's documents come from: a mirror of Hub repositories, files beside the task, or the Hub."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

from qeval.base import contents
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.reading import text
from qeval.load.hub_book import known, whole
from qeval.load.mirror import left_out, mirrored, offline, remedy
from qeval.load.source import hub_answers
from qeval.score.harness.catalogue import is_stock
from qeval.score.harness.leaves import Leaf

_AT_COMMIT = re.compile(r"hf://datasets/[^@]+@([0-9a-f]{40})/")


def opener(leaf: Leaf, datasets_dir: Path | None) -> Callable[..., Any]:
    """A stand-in for `datasets.load_dataset` that looks into the mirror first and at the task's own files,
    and raises QevalError with a remedy where there is nothing."""
    from datasets import load_dataset

    def load(path: str | None = None, name: str | None = None, **options: Any) -> Any:
        place = mirrored(str(path), datasets_dir)
        try:
            options = _beside(options, leaf.folder)
            local = _local_files(str(place or path), options)
            if local:
                options = {**options, "cache_dir": _shelf(local)}
            with contextlib.nullcontext() if local else _without_patience(str(path)):
                return load_dataset(path=str(place or path) if local else path, name=name, **options)
        except Exception as error:
            raise _explained(error, leaf.task.name, str(path), name, datasets_dir) from error

    return load


@contextlib.contextmanager
def _without_patience(path: str) -> Iterator[None]:
    """Within it, a Hub that does not answer is not asked for a data set, and the cache is read at once;
    `datasets` would go on asking for half a minute for each."""
    from datasets import config
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
    from huggingface_hub import constants

    if config.HF_HUB_OFFLINE or path in _PACKAGED_DATASETS_MODULES or hub_answers(path, "dataset"):
        yield
        return
    before = constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = False, before


def _local_files(path: str, options: dict[str, Any]) -> tuple[Path, ...]:
    """The files here that a data set is read from: those of its folder, and those named by pattern."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    named = [str(options.get("data_dir") or ""), *map(str, _named_files(options))]
    named += [] if path in _PACKAGED_DATASETS_MODULES else [path]
    found = {Path(one) for name in named if name and "://" not in name for one in glob(name)}  # noqa: PTH207 - of any folder
    return tuple(sorted({file for place in found for file in _files(place)}))


def _files(place: Path) -> Iterable[Path]:
    return [place] if place.is_file() else _folder_files(place)


def _shelf(files: tuple[Path, ...]) -> str:
    """Where `datasets` may keep what it prepares of files here. By itself it tells folders apart by their
    README alone, and files by their times: it would serve another mirror's rows, or old ones."""
    from datasets import config

    return str(Path(config.HF_DATASETS_CACHE) / "qeval-mirrors" / _stamp(files)[:16])


def _beside(options: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """`options` with relative names of files that lie beside the task's YAML file made absolute."""
    if folder is None:
        return options
    found = {key: _placed(options[key], folder) for key in ("data_files", "data_dir") if options.get(key)}
    return {**options, **found}


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _placed(part, folder) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_placed(part, folder) for part in value]
    if isinstance(value, str) and "://" not in value and (folder / value).exists():
        return str((folder / value).resolve())
    return value


def _explained(
    error: Exception, task: str, path: str, name: str | None, datasets_dir: Path | None
) -> QevalError:
    """What went wrong with a data set, in a sentence, and what helps."""
    what = " ".join(str(error).split())
    which = f"the data set {path!r}" + (f" ({name})" if name else "") + f" of task {task!r}"
    low = what.lower()
    if isinstance(error, QevalError):
        return error
    if "gated" in low or "401" in low or "403" in low:
        return QevalError(
            f"Access to {which} is not granted.",
            f"Ask for it at https://huggingface.co/datasets/{path} and set HF_TOKEN.",
        )
    if "builderconfig" in low or "not found. available" in low:
        return QevalError(
            f"{_begun(which)} has no such configuration.", _configurations(path, name, datasets_dir, what)
        )
    if (
        isinstance(error, ConnectionError)
        or "reach" in low
        or "offline" in low
        or "couldn't find cache" in low
    ):
        variable = offline()
        why = f"{variable} is set" if variable else "There is no network"
        return QevalError(f"{why}, and {which} is not here.", _mirror_hint(path, datasets_dir, variable))
    if isinstance(error, FileNotFoundError):
        return QevalError(f"There is no such thing as {which}.", _mirror_hint(path, datasets_dir))
    return QevalError(f"{_begun(which)} cannot be loaded: {type(error).__name__}: {what}", "")


def _begun(words: str) -> str:
    return words[:1].upper() + words[1:]


def _configurations(path: str, name: str | None, datasets_dir: Path | None, what: str) -> str:
    """What helps where a data set is there without a configuration: of a mirror, to complete it."""
    place = mirrored(path, datasets_dir)
    there = left_out(place, name) if place is not None else ()
    return f"{place} holds {', '.join(there)}. Complete it by qeval fetch." if there else what


def _mirror_hint(path: str, datasets_dir: Path | None, variable: str | None = None) -> str:
    online = f"unset {variable} once" if variable else "go online once"
    place = datasets_dir / path if datasets_dir else f"DIR/{path}"
    give = "Put the repository in" if datasets_dir else "Give a mirror with --datasets-dir DIR that holds"
    return remedy([path], datasets_dir, f"{give} {place}, or {online}.")


def identity(leaf: Leaf, datasets_dir: Path | None) -> str | None:
    """A word that changes when the task's data set does; None where it cannot be known beforehand."""
    config = leaf.config
    if callable(config.get("custom_dataset")):
        return _made(config)
    if "class" in config or not config.get("dataset_path"):
        return None
    path = str(config["dataset_path"])
    options = _beside(dict(config.get("dataset_kwargs") or {}), leaf.folder)
    place = mirrored(path, datasets_dir) or (Path(path) if Path(path).is_dir() else None)
    if place is not None:
        return _stamp(_folder_files(place))
    files = list(_named_files(options))
    if files:
        local = tuple(Path(file) for file in files)
        return _stamp(local) if all(file.is_file() for file in local) else None
    return _hub_revision(path, options.get("revision"))


def _made(config: dict[str, Any]) -> str | None:
    """A hash of the documents that a function of a task of one's own returns: only the documents tell whether
    they changed. lm-eval's own functions of this kind make data by the gigabyte; they are not asked."""
    make = config["custom_dataset"]
    if is_stock(Path(inspect.getfile(make))):
        return None
    try:
        splits = make(**(config.get("metadata") or {}), **(config.get("dataset_kwargs") or {}))
        rows = {name: list(split) for name, split in splits.items()}
        return digest(rows, spaced=True)
    except Exception:  # noqa: BLE001 - building the task meets it again and explains it
        return None


def _named_files(options: dict[str, Any]) -> Iterable[str]:
    value = options.get("data_files")
    parts = value.values() if isinstance(value, dict) else [value]
    for part in parts:
        yield from part if isinstance(part, list) else [part] if part else []


def look_again() -> None:
    """Forget what folders looked like: to be called before each preparation, for they may have changed."""
    _folder_files.cache_clear()
    _stamp.cache_clear()


@cache
def _folder_files(place: Path) -> tuple[Path, ...]:
    """All files of a folder; the 57 subjects of MMLU ask about one."""
    return tuple(sorted(file for file in place.rglob("*") if file.is_file()))


@cache
def _stamp(files: tuple[Path, ...]) -> str:
    """A hash over names and what changes whenever a file does: to read them would take too long."""
    lines = [f"{file} {contents.stamp(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hub_revision(path: str, revision: str | None) -> str | None:
    """The commit that the Hub has now, or offline the one that was fetched last."""
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        try:
            return HfApi().dataset_info(path, revision=revision, timeout=5).sha  # type: ignore[no-any-return]
        except Exception:  # noqa: BLE001 - whatever it is, the loader will meet it again and explain it
            return None
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}" / "refs"
    try:
        return text(folder / (revision or "main")).strip()
    except OSError:
        return None


def commit_of(loaded: Any, path: str, datasets_dir: Path | None) -> str | None:
    """The commit of the Hub's repository that a loaded data set was read from, as `datasets` recorded it, or
    `qeval fetch` of a copy that still holds what was fetched; None where neither tells."""
    place = mirrored(path, datasets_dir)
    if place is not None and datasets_dir is not None:
        copy = known(datasets_dir, place.relative_to(datasets_dir).as_posix())
        return copy.commit if copy is not None and whole(datasets_dir, copy) else None
    parts = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    sums = (getattr(getattr(part, "info", None), "download_checksums", None) or {} for part in parts)
    found = {one[1] for names in sums for name in names if (one := _AT_COMMIT.match(str(name)))}
    return found.pop() if len(found) == 1 else None


def pin_notes(leaf: Leaf, datasets_dir: Path | None) -> tuple[str, ...]:
    """A sentence where a task names the revision of its data set and a mirror is read instead, whose commit
    is another one, or is not known."""
    path = str(leaf.config.get("dataset_path") or "")
    pin = str((leaf.config.get("dataset_kwargs") or {}).get("revision") or "")
    place = mirrored(path, datasets_dir)
    if not pin or place is None or datasets_dir is None:
        return ()
    copy = known(datasets_dir, place.relative_to(datasets_dir).as_posix())
    commit = copy.commit if copy is not None and whole(datasets_dir, copy) else ""
    named = _COMMIT.fullmatch(pin.lower()) is not None
    if commit and copy is not None and (copy.pinned == pin or (named and commit.startswith(pin.lower()))):
        return ()
    if not commit:
        return (f"it asks for revision {pin} of {path}; which one the mirror holds is not known.",)
    if named:
        return (f"it asks for revision {pin} of {path}, and the mirror holds {commit}.",)
    return (f"it asks for revision {pin} of {path}; whether the mirror's {commit} is that is not known.",)


_COMMIT = re.compile(r"[0-9a-f]{7,40}")
"""A commit, or the beginning of one; any other revision is a name that may have moved."""


def describe(
    leaf: Leaf,
    split: str | None,
    datasets_dir: Path | None,
    doc_hashes: Sequence[str],
    commit: str | None = None,
) -> str:
    """Where the items came from, in words: repository, configuration, split, mirror, commit; and a hash of
    what they say, the same on every machine."""
    config = leaf.config
    words = [str(config.get("dataset_path") or "made by the task")]
    if config.get("dataset_name"):
        words.append(str(config["dataset_name"]))
    if split:
        words.append(f"split {split}")
    if mirrored(words[0], datasets_dir) is not None:
        words.append("from a mirror")
    if commit is not None:
        words.append(f"revision {commit}")
    content = hashlib.sha256("\n".join(doc_hashes).encode()).hexdigest()
    return ", ".join([*words, f"documents {content[:12]}"])
