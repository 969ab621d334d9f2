"""A job that scores no task: a variant is loaded as for scoring, and its fidelity measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qeval.base.errors import QevalError
from qeval.base.listening import KEYS, listening
from qeval.base.messages import Done, Job
from qeval.score.cells import JobCells
from qeval.score.fidelity.session import bench_of, measure
from qeval.score.inputs import placed_variant
from qeval.score.packing import decide
from qeval.score.session import Session
from qeval.score.unchanged import Unchanged
from qeval.score.verify import Proof

if TYPE_CHECKING:
    from qeval.score.cells import Say


def measure_alone(job: Job, say: Say) -> None:
    """Load the variant and measure it. Raises QevalError where it cannot be measured."""
    with listening() as heard:
        cells = JobCells(job, say)
        files = Unchanged(job)
        loaded = placed_variant(job, say)
        heard.forget(KEYS)
        heard.told(loaded.provenance.notes)
        session = Session(job, cells, say, loaded, files, decide(job, 0), heard, Proof(0, job.settings.seed))
        bench = bench_of(job, loaded, session.model, say)
        if bench is not None and not measure(bench):
            raise QevalError(
                f"What enters the head of {bench.asked.name} is not stored, or was damaged, so"
                f" {job.variant.name} cannot be compared with it.",
                "Run the same command again: it is made again.",
            )
        say(Done(session.account.provenance))
