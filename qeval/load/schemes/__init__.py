"""The table of schemes: every file of this folder is one, or a few of a kind, and names them in SPECS.

To add a scheme, add one file (docs/extend/scheme.md); it is found by lying here. Another package adds one by
an entry point of the group `qeval.schemes`, named as the scheme, which names such a file of its own. Nothing
heavy is imported here; loaders import their libraries when they are called.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.load import grammar
from qeval.load.grammar import NamedScheme
from qeval.load.spec import Package, SchemeSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["GROUP", "SCHEMES", "NamedScheme", "Table", "here", "parse_schemes", "spec_of"]

GROUP = "qeval.schemes"


class Table(dict[str, SchemeSpec]):
    """Specifications by the names of their schemes. A name that is not there is looked up, once it is asked
    for, among the packages that are installed; QevalError where such a package is broken."""

    def __missing__(self, name: str) -> SchemeSpec:
        entries = tuple(_entry_points().select(name=name))
        if not entries:
            raise KeyError(name)
        self[name] = _of_package(name, entries)
        return self[name]

    def names(self) -> list[str]:
        """All names that can be asked for, those of other packages at the end; nothing of these is read."""
        return [*self, *sorted(set(_entry_points().names) - self.keys())]


def here() -> Table:
    """The schemes of this folder, in the order in which they are shown. What each ran on stands in
    qeval/load/verified.json, which is made of records of tests (docs/verified.py)."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    )
    told = json.loads((Path(__file__).parents[1] / "verified.json").read_text("utf-8"))
    every = (spec for module in modules for spec in _specs(module))
    specs = (replace(spec, verified=told.get(spec.name, spec.verified)) for spec in every)
    return Table({spec.name: spec for spec in sorted(specs, key=lambda spec: (spec.place, spec.name))})


def _specs(module: ModuleType) -> Iterator[SchemeSpec]:
    yield from module.SPECS


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # costs 20 ms at start-up

    return entry_points(group=GROUP)


def _of_package(name: str, entries: tuple[EntryPoint, ...]) -> SchemeSpec:
    """The scheme that an entry point names; its package joins those that it needs, for its version counts."""
    owners = sorted({entry.dist.name if entry.dist else entry.value for entry in entries})
    if len(owners) > 1:
        raise QevalError(
            f"Several packages bring a scheme {name!r}: {', '.join(owners)}.", "Uninstall all but one."
        )
    try:
        spec = next(spec for spec in _specs(entries[0].load()) if spec.name == name)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or f"no scheme of that name is in {entries[0].value}"
        raise QevalError(
            f"The scheme {name!r} of the package {owners[0]} cannot be used: {reason.rstrip('.')}.",
            f"Update or reinstall it: pip install --upgrade {owners[0]}",
        ) from error
    own = Package(owners[0], entries[0].module)
    return replace(spec, packages=(*spec.packages, own))


SCHEMES = here()


def spec_of(name: str) -> SchemeSpec:
    """The scheme of that name. UsageError where there is none, QevalError where its package is broken."""
    try:
        return SCHEMES[name]
    except KeyError:
        raise UsageError(f"There is no scheme {name!r}.", _checkpoint(name) or _meant(name.lower())) from None


CALLED = {
    **dict.fromkeys(("nf4", "4bit", "int4", "bitsandbytes", "load_in_4bit"), "bnb4"),
    **dict.fromkeys(("8bit", "int8", "llm.int8", "load_in_8bit"), "bnb8"),
    "fp4": "bnb4[quant_type=fp4]",
    **dict.fromkeys(("none", "half", "base", "baseline", "full"), "fp16"),
    **dict.fromkeys(("w4a16", "w8a8", "w8a16", "llmcompressor"), "compressed-tensors"),
    **dict.fromkeys(("q4_0", "q4_k_m", "q5_k_m", "q8_0", "llama.cpp"), "gguf"),
}
"""What others call a scheme, in small letters, and what it is here."""


def _checkpoint(word: str) -> str:
    """A hint for a directory of a checkpoint that is named without the scheme that reads it; else ""."""
    from qeval.load.checks import scheme_of_directory

    found = scheme_of_directory(word)
    return f"Did you mean {found}?" if found else ""


def _meant(word: str) -> str:
    """A hint for a word that is no scheme's name."""
    return f"Did you mean {CALLED[word]!r}?" if word in CALLED else did_you_mean(word, SCHEMES.names(), 2)


def parse_schemes(text: str) -> tuple[NamedScheme, ...]:
    """The schemes of `--schemes`; see `qeval.load.grammar`. Raises UsageError."""
    return grammar.parse(text, spec_of)
