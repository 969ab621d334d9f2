"""What a person must know at once of an import: what is left out or unproved, what a gate wants yet."""

from __future__ import annotations

from collections.abc import Iterator

from qeval.base import next_steps
from qeval.base.records import Run
from qeval.compare.conditions import of_variants
from qeval.compare.rows import find_baseline, same_model, weights_of


def remarks(run: Run, place: str, again: str = "") -> Iterator[str]:
    """The sentences, each once. `place` is the run as commands name it, `again` the command that imports it,
    where that can name a model.

    The first note of each variant only says whence it is, and is left out.
    """
    base = find_baseline(run)
    for result in run.results:
        notes = result.provenance.notes[1:] if result.provenance else ()
        unproved = [why for cell in result.cells for why in cell.unproved]
        other = [why for _, why in of_variants(base, result)] if result is not base else []
        for note in dict.fromkeys((*notes, *unproved, *other)):
            yield f"{result.variant.name}: {note}"
    yield from _models(run, again)
    yield from _alone(run, place)


def unproved(run: Run) -> bool:
    """Whether nothing proves a variant of the run to be of the baseline's model."""
    base = find_baseline(run)
    return any(not same_model(base, result) for result in run.results)


def _models(run: Run, again: str) -> Iterator[str]:
    """What is not proved to be of one model, so that no gate lets it pass by itself."""
    base = find_baseline(run)
    if again and not any(result.variant.model for result in run.results):
        yield (
            "No model is named, so nothing proves that variants are of one, and no gate lets them pass. Name "
            f"it: {again} --model MODEL"
        )
        return
    for result in run.results:
        if not same_model(base, result):
            models = f"{weights_of(result)} and the baseline's {weights_of(base)}"
            doubt = f"nothing proves that it is of the baseline's model ({models})"
            yield f"{result.variant.name}: {doubt}, so a gate needs {next_steps.UNPROVED} to let it pass."


def _alone(run: Run, place: str) -> Iterator[str]:
    """What one variant is called, and how it is judged."""
    if len(run.results) == 1:
        model = run.results[0].variant.model
        leave = f" (without --allow-... if that one is of {model} by name too)" if model else ""
        yield (
            f"These are results of {run.baseline} alone, and a gate compares two variants. Import the other "
            f"one, and name its run{leave if next_steps.unprovable(run) else ''}: "
            f"{next_steps.gate_of_two(place, run)}"
        )
