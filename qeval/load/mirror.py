"""A mirror of data sets of the Hub, DIR/<org>/<name>: what lies in it, and which folder was most likely
meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from qeval.base import reading
from qeval.load.hub_book import MODELS
from qeval.load.source import offline_by

_CARD = "README.md"
_DATA = (".parquet", ".json", ".jsonl", ".csv", ".tsv", ".arrow", ".txt", ".gz", ".zst", ".zip", ".py")
_SHOWN, _MOST = 6, 200
"""Data sets that a sentence names, and folders that are looked at beside a mirror."""


def mirrored(path: str, datasets_dir: Path | None) -> Path | None:
    """The folder of the mirror that holds the Hub repository `path`, None where it holds none.

    A name without an organisation (as data sets had them at first) is found in the one organisation
    that has it.
    """
    if datasets_dir is None or not path or path.startswith(("/", ".")):
        return None
    found = [datasets_dir / path] if "/" in path else sorted(datasets_dir.glob(f"[!.]*/{path}"))
    found = [folder for folder in found if folder.parent.name != MODELS]  # of what `qeval fetch` writes
    folders = [folder for folder in found if folder.is_dir()]
    return folders[0] if len(folders) == 1 else None


def left_out(place: Path, name: str | None) -> tuple[str, ...]:
    """The configurations that the card of a copy lists, where `name` is none of them; () where it is, it
    lists none, or a script of the data set's own may know others."""
    listed = [str(one.get("config_name")) for one in _configs(place / _CARD) if one.get("config_name")]
    known = name is None or name in listed or (place / f"{place.name}.py").is_file()
    return () if known else tuple(listed)


def _configs(card: Path) -> list[dict[str, Any]]:
    """What stands under `configs` in the head of a data set's card; nothing where it cannot be read."""
    import yaml

    with suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
        found = re.match(r"---\s*\n(.*?)\n---", reading.text(card, reading.TABLE), re.DOTALL)
        told = yaml.safe_load(found[1]) if found else None
        listed = told.get("configs") if isinstance(told, dict) else None
        return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return []


def held(datasets_dir: Path) -> tuple[str, ...]:
    """The data sets in a mirror, as org/name."""
    folders = [place for place in datasets_dir.glob("[!.]*/*") if place.parent.name != MODELS]
    return tuple(sorted(f"{one.parent.name}/{one.name}" for one in folders if _is_copy(one)))


def _is_copy(place: Path) -> bool:
    """Whether a folder looks like a copy of a data set's repository: it has a card, or data near its top."""
    if not place.is_dir():
        return False
    near = (*islice(place.glob("*"), _MOST), *islice(place.glob("*/*"), _MOST))
    return (place / _CARD).is_file() or any(one.suffix in _DATA for one in near)


def may_be_filled(datasets_dir: Path) -> bool:
    """Whether a folder is a mirror, or an empty one that may become one."""
    return (bool(held(datasets_dir)) and not is_within(datasets_dir)) or not any(datasets_dir.iterdir())


def is_within(datasets_dir: Path) -> bool:
    """Whether a folder lies within a mirror: it is a data set, or an organisation's folder of them."""
    if any(datasets_dir.glob(f"*/*/{_CARD}")):
        return False
    return (datasets_dir / _CARD).is_file() or any(datasets_dir.glob(f"*/{_CARD}"))


def described(datasets_dir: Path) -> str:
    """What lies in a mirror, as the end of a sentence that begins with its name."""
    found = held(datasets_dir)
    if found and not is_within(datasets_dir):
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"holds {', '.join(found[:_SHOWN])}{more}"
    beside = [one.name for one in islice(_below(datasets_dir), _SHOWN)]
    if beside:
        names = f"folders {', '.join(beside)}" if len(beside) > 1 else f"folder {beside[0]}"
        return f"has the {names}, and no data set as <org>/<name>"
    return "holds no folder" if any(datasets_dir.iterdir()) else "is empty"


def meant(paths: Sequence[str], datasets_dir: Path | None) -> tuple[Path, str] | None:
    """The folder above or below a mirror that holds the most of what is looked for there, and one of that;
    None where none does."""
    if datasets_dir is None:
        return None
    place = datasets_dir.resolve()
    near = [*place.parents[:2], *islice(_below(place), _MOST)]
    found = {one: [path for path in paths if mirrored(path, one) is not None] for one in near}
    best = max(near, key=lambda one: len(found[one]), default=None)
    return (best, found[best][0]) if best is not None and found[best] else None


def _below(folder: Path) -> Iterator[Path]:
    """The folders in a folder that are not hidden, in order."""
    with suppress(OSError):
        yield from sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def remedy(paths: Sequence[str], datasets_dir: Path | None, otherwise: str) -> str:
    """The option with the folder that was most likely meant; what is said where none is."""
    found = meant(paths, datasets_dir)
    return f"Did you mean --datasets-dir {found[0]}? It holds {found[1]}." if found else otherwise


# --- what was fetched before, and may be fetched -------------------------------------------------


def cached(path: str) -> bool:
    """Whether the caches of huggingface_hub or `datasets` hold anything of a data set; what, is left to
    them."""
    from huggingface_hub import constants

    home = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    if (Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}").is_dir():
        return True
    return any(_plain(one.name) == _plain(path) for one in _below(home))


def _plain(name: str) -> str:
    """A data set's name as far as a cache keeps it: `datasets` writes some letters otherwise."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def offline() -> str | None:
    """The variable by which no data set is fetched; None where all may be."""
    own = "HF_DATASETS_OFFLINE"
    return offline_by() or (own if os.environ.get(own, "0").lower() in {"1", "true", "yes", "on"} else None)


def absent(paths: Iterable[str], datasets_dir: Path | None) -> list[str]:
    """The data sets that are neither in the mirror, nor a folder here, nor in a cache."""
    return [
        path
        for path in dict.fromkeys(paths)
        if path not in _BY_CODE
        and mirrored(path, datasets_dir) is None
        and not Path(path).exists()
        and not cached(path)
        and not _read_by_code(path)
    ]


_BY_CODE = frozenset(["json", "csv", "parquet", "text", "arrow"])
"""What tasks of one's own mostly name for a data set: `datasets` reads files by code of that name."""


def _read_by_code(path: str) -> bool:
    """Whether `datasets`, which takes seconds to import, has code of a name without an organisation."""
    if "/" in path:
        return False
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return path in _PACKAGED_DATASETS_MODULES
