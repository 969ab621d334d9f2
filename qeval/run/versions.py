"""The versions that must be alike wherever a run is worked at: of all that can change a number."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterable, Mapping

from qeval import __version__
from qeval.base.errors import QevalError
from qeval.base.messages import Job
from qeval.load.versions import version_of

_PACKAGES = ("torch", "transformers", "tokenizers", "lm_eval", "numpy")
_OURS = ("qeval", "Python")


def versions(jobs: Iterable[Job] = ()) -> dict[str, str]:
    """Those of this machine, with the packages that the variants of these jobs are made of; a package that is
    absent is left out."""
    own = {name: None for job in jobs for name in job.identity.get("versions", ())}
    return _installed((*_PACKAGES, *own))


def _installed(packages: Iterable[str]) -> dict[str, str]:
    found = {"qeval": __version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    return found | {name: version for name in packages if (version := version_of(name)) is not None}


def check_same(wanted: Mapping[str, str]) -> None:
    """Raise QevalError where this machine has others than those a run was planned with."""
    if error := differing(wanted):
        raise error


def differing(wanted: Mapping[str, str]) -> QevalError | None:
    """Why this machine may not work at a run that was planned with such versions."""
    here = _installed(dict.fromkeys((*_PACKAGES, *(name for name in wanted if name not in _OURS))))
    names = [name for name in (*wanted, *here) if wanted.get(name) != here.get(name)]
    told = [
        f"{name} {here.get(name) or 'is missing'} instead of {wanted.get(name) or 'none'}"
        for name in dict.fromkeys(names)
    ]
    if not told:
        return None
    return QevalError(
        f"{socket.gethostname()} has {', '.join(told)}.",
        "All workers of a run need the same versions: other versions may give other numbers.",
    )
