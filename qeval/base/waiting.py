"""How long the threads of a product wait awake for one another, on a CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping

SPIN = "GOMP_SPINCOUNT"
TURNS = "2000"
"""Turns of the loop in which a thread waits before it sleeps, about a tenth of a millisecond. GNU's library,
which PyTorch brings, takes 300 000 of itself: on CPUs whose pause is long those are 15 ms. They gain nothing
where cores are idle, since the next product follows sooner; where other programs run on the same cores, a
thread that was put aside is waited for by burning the very core that it wants."""
_TOLD = (SPIN, "OMP_WAIT_POLICY")


def briefly(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment, told to wait briefly where it says nothing of that. It acts on processes that load
    PyTorch under it, and changes no number."""
    told = any(name in environment for name in _TOLD)
    return dict(environment) if told else {**environment, SPIN: TURNS}


def wait_briefly() -> None:
    """Have this process, which has not loaded PyTorch yet, wait so."""
    os.environ.update(briefly(os.environ))
