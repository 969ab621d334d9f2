"""Which packages of a scheme are missing here, the command that installs them, and those that many need."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.machinery import ModuleSpec

from qeval.base import installed
from qeval.load.spec import Package, SchemeSpec
from qeval.load.versions import version_of

ACCELERATE = Package("accelerate", "accelerate", "1.2")
GPTQMODEL = Package("gptqmodel", "gptqmodel", "7.5", isolated=False)
KERNELS = Package("kernels", "kernels", "0.18.2", below="0.19", kernel=True)
"""The versions that transformers 5.23 takes; it fetches the kernels themselves from the Hub."""

EVERY_SCHEME = ("torch", "transformers")
"""What each scheme needs without naming it: an installation for judging lacks them."""


def lacked_by_all() -> list[str]:
    """Those of EVERY_SCHEME that are not here."""
    return [name for name in EVERY_SCHEME if _find(name) is None]


def missing_packages(spec: SchemeSpec, unpack: bool = False) -> list[Package]:
    """The packages a scheme needs that are absent, too old or too new; without its kernels to `unpack`."""
    needed = [package for package in spec.packages if not (unpack and package.kernel)]
    return [package for package in needed if not _fits(package)]


def _fits(package: Package) -> bool:
    from packaging.version import Version

    found = _find(package.module)
    if found is None:
        return False
    version = version_of(package.distribution)
    if version is None:  # built and put on the path without being installed, or a folder of that name
        return found.origin is not None
    new = bool(package.below) and Version(version) >= Version(package.below)
    return Version(version) >= Version(package.version) and not new


def _find(module: str) -> ModuleSpec | None:
    """Where a module is, if there; its parents, which other distributions may share, are imported to look."""
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:  # no parent
        return None


def install_command(spec: SchemeSpec) -> str:
    """The command that installs what a scheme needs, as documents print it: of a qeval from the index."""
    if spec.extra is None:
        return _without_extra(spec)
    return f"{'pip install ' if isolated(spec) else installed.NOT_ISOLATED}'qeval[{spec.extra}]'"


def remedy(spec: SchemeSpec) -> str:
    """The sentence that says how to install what a scheme needs, beside the qeval that is here."""
    if spec.extra is None:
        return f"Install it with: {_without_extra(spec)}"
    return installed.remedy(spec.extra, isolated=isolated(spec))


def remedy_here(spec: SchemeSpec) -> str:
    """The command that installs what a scheme needs, as it can be typed on this machine."""
    if spec.extra is None:
        return _without_extra(spec)
    return installed.remedy_here(spec.extra, isolated=isolated(spec))


def isolated(spec: SchemeSpec) -> bool:
    """Whether none of a scheme's packages builds against the torch that is there."""
    return all(package.isolated for package in spec.packages)


def _without_extra(spec: SchemeSpec) -> str:
    words = "pip install " if isolated(spec) else installed.NOT_ISOLATED
    return f"{words}{' '.join(package.distribution for package in spec.packages)}"


def in_words(packages: Sequence[Package]) -> str:
    """The packages joined by "and", with the versions where it is these that do not fit."""
    from packaging.version import Version

    words = [
        package.distribution
        if version_of(package.distribution) is None
        else f"{package.distribution} >= {Version(package.version)}"
        f"{f' and < {package.below}' if package.below else ''}"
        for package in packages
    ]
    return " and ".join(words)
