"""When a job's costs are measured, of which weights, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from qeval.base.costs import Cost
from qeval.base.messages import Done, Job, Note, Stage
from qeval.base.records import Provenance
from qeval.load.memory import PROCESS_NOTE, peak_bytes
from qeval.load.reading.kernels import STEPPED_DOWN
from qeval.score import cost
from qeval.score.inputs import loaded_variant

if TYPE_CHECKING:
    from qeval.load.model import Loaded
    from qeval.score.cells import Say

_LAYERS_NOTE = (
    "Latency and throughput are of the layers as loaded ({layers}), never of weights dequantised for scoring."
)
_TOO_LONG = "Latency and throughput would have taken more than 5% of the run; --cost measures them."
_UNSCORED_NOTE = "Nothing was scored: peak memory is that of measuring."


def cost_of_scored(
    job: Job, known: Cost, as_loaded: Callable[[], Loaded], say: Say, *, kind: str, native: bool, spent: float
) -> Cost:
    """Load time and peak memory of scoring; latency and throughput too where they are asked for, and on a GPU
    those of them unasked that fit a small share of the seconds `spent` so far.

    These are measured on the scheme's own kernels, which `as_loaded` gives: a model changed for scoring
    (not `native`) is loaded anew. `known` has hardware and load time; `kind` is the device's ("cuda"). The
    model itself is not given, lest it be held while it is loaded a second time.
    """
    device = job.settings.device
    peak = peak_bytes(device)
    if job.cost is None:
        bench = cost.affordable(kind, spent, 0.0 if native else known.load_seconds or 0.0)
        if bench is not None:
            known = _measured(as_loaded, known, say, bench)
        elif kind == "cuda":
            known = replace(known, notes=(*known.notes, _TOO_LONG))
    elif job.cost:
        known = _measured(as_loaded, known, say)
    return _with_peak(known, peak, device)


def end_without_scoring(job: Job, stored: Provenance | None, say: Say) -> Done:
    """The end of a job in which nothing is left to score: costs are measured where they are asked for.

    `stored` is what finished cells say; their peak memory was another process's, so none is told.
    """
    device = job.settings.device
    if not job.cost:
        return Done(stored)
    if job.tasks:
        unmeasured = Cost(stored.device if stored else device)
        found = _measured(lambda: loaded_variant(job, say, fast=True), unmeasured, say)
        return Done(stored, _with_peak(found, None, device))
    loaded = loaded_variant(job, say, fast=True)
    found = _measured(lambda: loaded, Cost(loaded.provenance.device, loaded.load_seconds), say)
    found = replace(found, notes=(*found.notes, _UNSCORED_NOTE))
    return Done(loaded.provenance, _with_peak(found, peak_bytes(device), device))


def _measured(
    load: Callable[[], Loaded], unmeasured: Cost, say: Say, bench: cost.Bench | None = None
) -> Cost:
    """Latency and throughput of what `load` gives; where that fails, `unmeasured` with a note that says why:
    the scores stand all the same."""
    try:
        loaded = load()
        found = cost.measure(loaded, progress=lambda text: say(Stage(text)), bench=bench)
    except Exception as error:  # noqa: BLE001 - whatever a library says of it
        found = replace(unmeasured, notes=(f"Not measured: {cost.reason(error).rstrip('.')}.",))
    else:
        made = loaded.provenance
        told = _layers_notes(made) if made.modules and found.measures else ()
        found = replace(found, notes=(*found.notes, *told))
    for note in found.notes:
        if note.startswith("Not measured"):
            say(Note(note))
    return found


def _layers_notes(made: Provenance) -> tuple[str, ...]:
    """Which layers were timed, which may be others than were scored, and why not the library's own choice."""
    stepped_down = (note for note in made.notes if STEPPED_DOWN in note)
    return (_LAYERS_NOTE.format(layers=", ".join(made.modules)), *stepped_down)


def _with_peak(found: Cost, peak: int | None, device: str) -> Cost:
    notes = (PROCESS_NOTE,) if device == "cpu" else ()
    return replace(found, peak_bytes=peak, notes=(*found.notes, *notes))
