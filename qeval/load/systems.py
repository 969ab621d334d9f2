"""On which systems a model is scored and a run is judged, and what that was tried by."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from qeval.base.errors import QevalError


@dataclass(frozen=True)
class System:
    """A system in words: whether models are scored there (`scores`: at all), and whether runs are judged."""

    name: str
    scores: bool
    scoring: str
    judging: str


_BY_WORKFLOW = "yes; .github/workflows/test.yml is the test"

SYSTEMS = {
    "Linux": System("Linux", True, "on CPUs and NVIDIA GPUs; tested there", "yes; tested there"),
    "Darwin": System(
        "macOS",
        True,
        "on the CPU, not tested; Apple's GPUs (mps) are refused, since their numbers were never"
        " checked against a CPU's",
        _BY_WORKFLOW,
    ),
    "Windows": System(
        "Windows", False, "only the toy; use WSL 2, which is Linux, or another machine", _BY_WORKFLOW
    ),
}
"""By what platform.system() calls them."""


def here() -> System:
    """This machine's; one that nobody has tried is said to be so."""
    name = platform.system()
    return SYSTEMS.get(name) or System(name or "unknown", True, "not tested", "not tested")


def check_scores() -> None:
    """Raise QevalError where no model is scored on this system."""
    if not (system := here()).scores:
        raise QevalError(
            f"Models are not scored on {system.name}.",
            "Score in WSL 2 or on a Linux machine; judging and reports work here, from its runs directory.",
        )
