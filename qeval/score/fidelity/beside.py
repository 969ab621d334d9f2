"""Fidelity beside a suite: measured while the model is loaded, where nothing stands in the way of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.base.messages import Job, Note

if TYPE_CHECKING:
    from qeval.load.model import Loaded
    from qeval.score.cells import Say


def measure_beside(job: Job, loaded: Loaded, model: Any, say: Say) -> None:
    """Measure what the job asks for. What cannot be measured yet, or at all, is told and left: the numbers of
    the tasks stand, and the command that asked tries once more by itself."""
    if job.fidelity is None:
        return
    from qeval.score.fidelity.session import bench_of, measure

    try:
        bench = bench_of(job, loaded, model, say)
        if bench is not None:
            measure(bench)
    except QevalError as error:
        say(Note(f"Fidelity: {error}"))
