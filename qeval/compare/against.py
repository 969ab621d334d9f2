"""Every variant against every other one, item by item: by the pairing and the intervals of the run itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from qeval.base.errors import QevalError
from qeval.base.records import Cell, Read, Result, Run, Samples
from qeval.compare.evidence import Evidence, gather, with_baseline
from qeval.compare.rows import find_baseline

FEWEST = 3
"""Variants from which on there is more to choose than the baseline."""
MOST = 16
"""Variants up to which all pairs are compared with a page: their number grows with the square. Of more,
`--baseline` makes a page that compares with another one."""


def references(run: Run) -> int:
    """How many variants a page can compare the others with; 0 where it offers no choice."""
    scored = sum(one.status != "failed" for one in run.results)
    return scored if FEWEST <= scored <= MOST else 0


def against(evidence: Evidence) -> Iterator[Evidence]:
    """The evidence with each finished candidate as the baseline in turn.
    A row stands where all that the run has behind it was paired: of a part of a group its members alone do.

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
        found = _gathered(with_baseline(run, name), read, evidence)
        yield replace(found, margin=evidence.margin, standing=evidence.standing, _compared={})


def _gathered(run: Run, read: Read, evidence: Evidence) -> Evidence:
    """What `gather` gives, where candidates that each go with the run's own baseline need not go with each
    other: of those that do not go with this one the evidence says why."""
    try:
        return gather(run, read, evidence.rows)
    except QevalError:
        pass
    base = find_baseline(run)
    found = replace(gather(replace(run, results=(base,)), read, evidence.rows), run=run)
    for other in run.results:
        if other is base:
            continue
        try:
            one = gather(replace(run, results=(base, other)), read, evidence.rows)
        except QevalError as error:
            found = replace(found, refused={**found.refused, other.variant.name: error.message})
        else:
            found = replace(
                found, pairs={**found.pairs, **one.pairs}, samples={**found.samples, **one.samples}
            )
    return found


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
