"""Every variant against every other one, item by item: by the pairing and the intervals of the run itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from qeval.base.errors import QevalError
from qeval.base.records import Cell, Result, Samples
from qeval.compare.evidence import Evidence, gather, with_baseline


def against(evidence: Evidence) -> Iterator[Evidence]:
    """The evidence with each finished candidate as the baseline in turn, of the rows of a summary alone.

    Tasks are those that a variant has in common with the run's own baseline, from the samples that were
    read for that; nothing is read again. None where the run's baseline was not scored.
    """
    known = _known(evidence)
    results = tuple(_alone(result, known) for result in evidence.run.results)
    run = replace(evidence.run, results=results)

    def read(cell: Cell) -> Samples:
        return known[cell.key]

    for result in evidence.candidates if evidence.pairs else ():
        name = result.variant.name
        if result.status == "failed" or not any(variant == name for variant, _ in evidence.pairs):
            continue
        try:
            found = gather(with_baseline(run, name), read)
        except QevalError:  # two candidates that each go with the baseline, and not with each other
            continue
        kept = {place: one for place, one in found.pairs.items() if one.level != "subtask"}
        yield replace(found, rows=evidence.rows, pairs=kept, margin=evidence.margin, _compared={})


def _known(evidence: Evidence) -> dict[str, Samples]:
    """The samples that were paired, by the key of their cell."""
    found: dict[str, Samples] = {}
    cells = {
        (result.variant.name, cell.task.name): cell.key
        for result in evidence.run.results
        for cell in result.cells
    }
    for (variant, task), (first, second) in evidence.samples.items():
        found[cells[evidence.run.baseline, task]] = first
        found[cells[variant, task]] = second
    return found


def _alone(result: Result, known: dict[str, Samples]) -> Result:
    """A result with the cells that can be compared, and nothing of what was scored twice."""
    kept = tuple(cell for cell in result.cells if cell.key in known or cell.aggregate_only)
    return replace(result, cells=kept, again=None, seeds=())
