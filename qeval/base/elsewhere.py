"""What code and tasks of one's own read: the files of their folder, and those elsewhere that they name."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import site
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qeval.base.places import at_home
from qeval.base.reading import content, text

_READ = ("include", "dataset_path", "data_files", "data_dir", "dataset_kwargs")
"""The keys of a task under which files may be named."""
_YAML = {".yaml", ".yml"}
_LONGEST_NAME = 255


def files_below(folder: Path) -> list[Path]:
    """The files below a folder in the order of their names, behind links to other folders too; compiled
    Python apart."""
    found, seen = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        inner[:] = [] if real in seen else sorted(name for name in inner if name != "__pycache__")
        found += [] if real in seen else [Path(place) / name for name in names]
        seen.add(real)
    return sorted(path for path in found if path.is_file())


def named(folder: Path, *, by_code: bool = False) -> list[Path]:
    """The files elsewhere that YAML and Python below `folder` name, or import, and that are there; `by_code`:
    those of Python alone.

    A name counts from the file that holds it and from the working directory. A folder that YAML names stands
    for all files below it, one that Python names for the modules in it. What is installed does not count.
    """
    home, found = folder.resolve(), set[Path]()
    ahead = [path for path in files_below(folder) if not by_code or path.suffix == ".py"]
    while ahead:
        for place in _places(ahead.pop()):
            if place.is_file() and not place.is_relative_to(home) and place not in found:
                found.add(place)
                ahead.append(place)
    return sorted(found)


def contents_of(files: list[Path], root: Path) -> str:
    """A hash of the names, from `root` on where they lie below it, and the contents of files."""
    whole = hashlib.sha256()
    for path in files:
        name = path.relative_to(root) if path.is_relative_to(root) else path
        whole.update(f"{name}\0{hashlib.sha256(content(path, None)).hexdigest()}\0".encode())
    return whole.hexdigest()


def _places(path: Path) -> Iterator[Path]:
    """Where the files may lie that another one names, resolved."""
    import yaml

    try:
        if path.suffix in _YAML:
            names = _in_yaml(yaml.load(text(path), _loader()))  # noqa: S506 - a safe loader
            for place in _resolved(path, names):
                yield from files_below(place) if place.is_dir() else [place]
        elif path.suffix == ".py":
            code = ast.parse(text(path))
            for place in (*_resolved(path, _in_python(code)), *_imported(code)):
                yield from place.glob("*.py") if place.is_dir() else [place]
    except (OSError, ImportError, ValueError, SyntaxError, RecursionError, yaml.YAMLError):
        return  # building the task meets it again and explains it


def _resolved(path: Path, names: Iterator[str]) -> Iterator[Path]:
    for name in names:
        for root in (path.parent, Path.cwd()):
            place = root / at_home(name)
            many = place.parent.glob(place.name) if "*" in place.name else (place,)
            yield from (found.resolve() for found in many)


def _loader() -> Any:
    """A loader of a task's YAML, to which its tags are nothing: functions are known by their files."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    return Loader


def _in_yaml(value: Any, *, read: bool = False) -> Iterator[str]:
    """The strings that stand under one of the keys that name files."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _in_yaml(part, read=read or key in _READ)
    elif isinstance(value, list):
        for part in value:
            yield from _in_yaml(part, read=read)
    elif read and isinstance(value, str) and _may_be_path(value):
        yield value


def _in_python(code: ast.AST) -> Iterator[str]:
    """The strings of code that look like paths."""
    strings = (node.value for node in ast.walk(code) if isinstance(node, ast.Constant))
    for name in strings:
        if isinstance(name, str) and "/" in name.strip("/") and _may_be_path(name):
            yield name


def _may_be_path(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and "://" not in name


def _imported(code: ast.AST) -> Iterator[Path]:
    """Files and folders of modules that code imports and that are not installed."""
    places = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    installed = [Path(place).resolve() for place in places]
    names = set[str]()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    for name in sorted(names):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None
        if origin and not any(origin.is_relative_to(place) for place in installed):
            yield origin.parent if spec and spec.submodule_search_locations else origin
