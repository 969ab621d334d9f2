"""Everything that qeval knows about quantisation: SCHEMES, their grammar, needs, identities and loaders.

To add a scheme, add one SchemeSpec to the SPECS of a family's file (and the family to the list below).
Nothing heavy is imported here; loaders import their libraries when they are called.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from qeval.base.errors import MissingPackageError, QevalError
from qeval.base.names import scheme_text
from qeval.base.records import Scheme, Variant
from qeval.load import adapter
from qeval.load.making import calibration, checkpoint
from qeval.load.schemes import awq, bnb, gguf, gptq, grammar, hqq, hub, plain, quip, rtn
from qeval.load.schemes.grammar import NamedScheme
from qeval.load.schemes.spec import OptionSpec, Package, Recipe, SchemeSpec
from qeval.load.source import Source, model_identity
from qeval.load.versions import version_of, versions

__all__ = [
    "SCHEMES",
    "NamedScheme",
    "OptionSpec",
    "Package",
    "Recipe",
    "Resolved",
    "SchemeSpec",
    "check_available",
    "complete",
    "identity",
    "missing_packages",
    "parse_schemes",
    "resolve",
    "unpacking",
]

_FAMILIES = (plain, bnb, gptq, awq, hqq, hub, quip, gguf, rtn)
SCHEMES: dict[str, SchemeSpec] = {spec.name: spec for family in _FAMILIES for spec in family.SPECS}


@dataclass(frozen=True)
class Resolved:
    """Where a variant's quantised weights come from: `source` is a ready checkpoint, None where qeval
    quantises the model itself. `sentence` tells the choice to a person, empty where there was none."""

    source: Source | None
    sentence: str = ""


def parse_schemes(text: str) -> tuple[NamedScheme, ...]:
    """The schemes of `--schemes`; see `qeval.load.schemes.grammar`. Raises UsageError."""
    return grammar.parse(text, SCHEMES)


def complete(scheme: Scheme) -> dict[str, Any]:
    """The scheme's options with the defaults filled in."""
    return {**SCHEMES[scheme.kind].defaults, **scheme.options}


def missing_packages(spec: SchemeSpec, unpack: bool = False) -> list[Package]:
    """The packages a scheme needs that are absent, too old or too new; without its kernels to `unpack`."""
    from packaging.version import Version

    def fits(package: Package) -> bool:
        found = _find(package.module)
        if found is None:
            return False
        version = version_of(package.distribution)
        if version is None:  # built and put on the path without being installed, or a folder of that name
            return found.origin is not None
        new = bool(package.below) and Version(version) >= Version(package.below)
        return Version(version) >= Version(package.version) and not new

    needed = [package for package in spec.packages if not (unpack and package.kernel)]
    return [package for package in needed if not fits(package)]


def _find(module: str) -> ModuleSpec | None:
    """Where a module is, if there; its parents, which other distributions may share, are imported to look."""
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:  # no parent
        return None


def check_available(scheme: Scheme) -> None:
    """Raise MissingPackageError where a package is missing, QevalError where nobody can run the scheme.

    Imports no heavy library, so that it can be asked before any weights are loaded.
    """
    spec = SCHEMES[scheme.kind]
    if spec.unavailable:
        raise QevalError(f"{spec.name} is not available: {spec.unavailable}.", "Choose another scheme.")
    unpack = bool(scheme.options.get("unpack"))
    if unpack and scheme.checkpoint is None:
        raise QevalError(
            f"{spec.name}[unpack=true] unpacks a ready checkpoint, and none is named.",
            f"Write {spec.name}[unpack=true]@<Hub id or directory>, or leave out unpack.",
        )
    _check_needs(scheme, spec)
    _check_ready(scheme, spec)
    plain.check_attention(scheme.options)
    missing = missing_packages(spec, unpack)
    if missing:
        gpu = f", and {spec.gpu}" if spec.gpu and not unpack else ""
        raise MissingPackageError(
            f"{spec.name} needs {_and(missing)}{gpu}.",
            f"Install it with: {install_command(spec)}{unpacking(scheme)}",
        )


def _check_needs(scheme: Scheme, spec: SchemeSpec) -> None:
    """Refuse an option that does nothing beside the others."""
    options = complete(scheme)
    for option in spec.options:
        acts = not option.needs or any(options[name] == value for name, value in option.needs)
        if option.name in scheme.options and not acts:
            beside = " or ".join(f"{name}={value}" for name, value in option.needs)
            raise QevalError(
                f"{option.name} of {spec.name} acts only beside {beside}.",
                f"Leave out {option.name}, or write {beside}.",
            )


def _check_ready(scheme: Scheme, spec: SchemeSpec) -> None:
    """Refuse options that shape weights, where a ready checkpoint has its own and does not tell these."""
    idle = [
        option.name
        for option in spec.options
        if option.name in scheme.options and option.acts == "making" and option.name not in spec.config_keys
    ]
    if idle and scheme.checkpoint is not None:
        raise QevalError(
            f"{spec.name}@{scheme.checkpoint} is read as it is, so these cannot act: {', '.join(idle)}.",
            f"Leave out {', '.join(idle)}: the checkpoint was made already.",
        )


def unpacking(scheme: Scheme) -> str:
    """How a ready checkpoint can be scored without its kernels, to end a hint; empty where it cannot."""
    known = "unpack" in SCHEMES[scheme.kind].defaults and not scheme.options.get("unpack")
    if scheme.checkpoint is None or not known:
        return ""
    other = Scheme(scheme.kind, {**scheme.options, "unpack": True}, scheme.checkpoint, scheme.revision)
    return f"; or score its weights unpacked, on any device: {scheme_text(other)}"


def install_command(spec: SchemeSpec) -> str:
    """The command that installs what a scheme needs."""
    if spec.extra is None:
        return f"pip install {' '.join(package.distribution for package in spec.packages)}"
    # gptqmodel builds against the torch that is there
    isolation = "--no-build-isolation " if any(p.distribution == "gptqmodel" for p in spec.packages) else ""
    return f"pip install {isolation}'qeval[{spec.extra}]'"


def _and(packages: list[Package]) -> str:
    from packaging.version import Version

    words = [
        package.distribution
        if version_of(package.distribution) is None
        else f"{package.distribution} >= {Version(package.version)}"
        f"{f' and < {package.below}' if package.below else ''}"
        for package in packages
    ]
    return " and ".join(words)


def resolve(variant: Variant) -> Resolved:
    """Decide whether a ready checkpoint is read: the one named, or for plain `gptq` one of the catalogue."""
    scheme = variant.scheme
    if scheme.checkpoint is not None:
        return Resolved(Source(scheme.checkpoint, scheme.revision))
    if not SCHEMES[scheme.kind].calibrated:
        return Resolved(None)
    known = gptq.known_checkpoint(variant.model, dict(scheme.options)) if scheme.kind == "gptq" else None
    if known is not None:
        return Resolved(
            known, f"{variant.name} reads the ready checkpoint {known.path}, revision {known.revision}."
        )
    chosen = checkpoint.calibration_of(variant.model, complete(scheme))
    return Resolved(
        None,
        f"{variant.name} is quantised here, with {chosen.samples} samples of {chosen.length} tokens"
        f" of calibration text ({chosen.name}).",
    )


def identity(variant: Variant, cache_dir: Path) -> dict[str, Any]:
    """Everything about a variant that can change its numbers, as JSON values, found without torch.

    Raises QevalError where the model, its checkpoint or its adapter cannot be found.
    """
    scheme = variant.scheme
    spec = SCHEMES[scheme.kind]
    source = resolve(variant).source
    options = complete(scheme)
    calibrated = spec.calibrated and source is None
    libraries = [package.distribution for package in spec.packages]
    return {
        "model": model_identity(variant.model, variant.revision, cache_dir),
        "scheme": scheme.kind,
        "options": options,
        "checkpoint": model_identity(source.path, source.revision, cache_dir) if source else None,
        "calibration": calibration.identity(checkpoint.calibration_of(variant.model, options))
        if calibrated
        else None,
        "adapter": adapter.identity(variant.adapter, cache_dir) if variant.adapter else None,
        "versions": versions(*libraries, *(["peft"] if variant.adapter else [])),
    }
