"""Which task names exist and in which files, read from lm-eval's YAML files without importing lm-eval."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import metadata, util
from pathlib import Path

from qeval.base.errors import QevalError
from qeval.base.reading import content, json_document

# A key at the start of a line, its value, and the items of a block list below it. lm-eval's own index
# parses all 14 000 files, which takes 13 s; this takes half a second and finds the same names.
_KEY = re.compile(
    rb'^["\']?(task|group|include|tag|class)["\']?[ \t]*:[ \t]*(.*(?:\r?\n[ \t]*-[ \t]*[^\n]*)*)',
    re.MULTILINE,
)
_SCHEMA = 1


@dataclass(frozen=True)
class Catalogue:
    """`files` maps a task's or a group's name to its YAML file; `tags` a tag to the tasks that bear it."""

    files: dict[str, str] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Everything that may be asked for by name."""
        return frozenset(self.files) | frozenset(self.tags)


def known_tasks(
    tasks_dir: Path | None = None, cache_dir: Path | None = None, own: Path | None = None
) -> frozenset[str]:
    """Every name of a task, a group or a tag: lm-eval's own and those under `tasks_dir` and `own`."""
    return catalogue(tasks_dir, cache_dir, own).names


def catalogue(
    tasks_dir: Path | None = None,
    cache_dir: Path | None = None,
    own: Path | None = None,
    *,
    stock: bool = True,
) -> Catalogue:
    """The files under `own`, before those under `tasks_dir`, before lm-eval's own (`stock`), which are
    remembered in `cache_dir`."""
    found = _stock(cache_dir) if stock else Catalogue()
    for root in (tasks_dir, own):
        more = scan(root) if root is not None else Catalogue()
        found = Catalogue({**found.files, **more.files}, {**found.tags, **more.tags})
    return found


def names_in(folder: Path) -> frozenset[str]:
    """The names of tasks and groups in the YAML files of a folder itself, not of those in it."""
    paths = [str(path) for path in sorted(folder.glob("*.yaml"))]
    raw = {path: _keys(path) for path in paths}
    return frozenset(name for path in paths if (name := _name(_merged(path, raw, frozenset()))))


@cache
def version() -> str:
    """The version of lm-eval that is installed; raises QevalError where there is none."""
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError as error:
        raise QevalError("lm-eval is not installed.", "Install it with: pip install lm-eval") from error


def scan(root: Path) -> Catalogue:
    """The names in the YAML files under `root`, in lm-eval's order: of two equal names the first counts."""
    raw = {path: _keys(path) for path in sorted(_yaml_files(root))}
    files: dict[str, str] = {}
    tags: dict[str, list[str]] = {}
    for path in raw:
        keys = _merged(path, raw, frozenset())
        name = _name(keys)
        if name is None or name in files:
            continue
        files[name] = path
        if "group" not in keys or "class" in keys:
            for tag in _items(keys.get("tag", b"")):
                tags.setdefault(tag, []).append(name)
    return Catalogue(files, {tag: tuple(sorted(names)) for tag, names in tags.items() if tag not in files})


@cache
def _stock(cache_dir: Path | None) -> Catalogue:
    """lm-eval's own tasks, from the note in `cache_dir` where there is one for this installation."""
    root = _stock_root()
    note = None if cache_dir is None else cache_dir / f"tasks-{version()}.json"
    stamp = f"{_SCHEMA} {root} {root.stat().st_mtime_ns}"
    found = None if note is None else _read(note, stamp)
    if found is None:
        found = scan(root)
        if note is not None:
            _write(note, stamp, found)
    return found


def is_stock(file: Path) -> bool:
    """Whether a file of code belongs to lm-eval itself, so that its version says what it does."""
    return file.resolve().is_relative_to(_stock_root().parent.resolve())


def _stock_root() -> Path:
    spec = util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise QevalError("lm-eval is not installed.", "Install it with: pip install lm-eval")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


def _read(note: Path, stamp: str) -> Catalogue | None:
    try:
        table = json_document(note)
        if table["stamp"] != stamp:
            return None
        return Catalogue(table["files"], {tag: tuple(names) for tag, names in table["tags"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(note: Path, stamp: str, found: Catalogue) -> None:
    part = note.with_name(f"{note.name}.{os.getpid()}.part")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        table = {"stamp": stamp, "files": found.files, "tags": found.tags}
        part.write_text(json.dumps(table), encoding="utf-8")
        part.replace(note)
    except OSError:  # a note saves half a second; a disk that takes none stops nobody
        with suppress(OSError):
            part.unlink()


def _yaml_files(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in {"__pycache__", ".ipynb_checkpoints"}]
        yield from (os.path.join(folder, name) for name in names if name.endswith(".yaml"))  # noqa: PTH118 - 14 000 paths


def _keys(path: str) -> dict[str, bytes]:
    try:
        return {key.decode(): value for key, value in _KEY.findall(content(Path(path)))}
    except OSError:
        return {}


def _merged(path: str, raw: dict[str, dict[str, bytes]], seen: frozenset[str]) -> dict[str, bytes]:
    """The keys of a file over those of the files it includes."""
    own = raw[path] if path in raw else _keys(path)
    if "include" not in own or path in seen:
        return own
    merged: dict[str, bytes] = {}
    for included in _included(os.path.dirname(path), own["include"]):  # noqa: PTH120 - as above
        merged.update(_merged(included, raw, seen | {path}))
    return {**merged, **own}


@lru_cache(maxsize=4096)
def _included(folder: str, value: bytes) -> tuple[str, ...]:
    """The paths that an `include` names; the files of a folder mostly include the same."""
    return tuple(os.path.normpath(os.path.join(folder, target)) for target in _items(value))  # noqa: PTH118 - as above


def _name(keys: dict[str, bytes]) -> str | None:
    """The name a file is known by: its group's if it is one, else its task's."""
    key = "group" if "group" in keys and "class" not in keys else "task"
    items = _items(keys.get(key, b""))
    return items[0] if len(items) == 1 else None


def _items(value: bytes) -> list[str]:
    """A YAML scalar, flow list or block list of plain words as a list."""
    head, *rest = value.decode("utf-8", "replace").splitlines() or [""]
    head = _plain(head)
    if head.startswith("["):
        return [word for part in head.strip("[]").split(",") if (word := _plain(part))]
    if head:
        return [head]
    return [word for line in rest if (word := _plain(line.strip().removeprefix("-")))]


def _plain(text: str) -> str:
    return text.split(" #", 1)[0].strip().strip("\"'")
