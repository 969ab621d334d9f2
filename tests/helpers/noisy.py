"""Made runs in which something was scored once more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from factories import make_cell

from qeval.base.repeats import with_repeat


def flipped(samples, lost: int, gained: int, other: int = 0):
    """The samples with so many answers lost, gained, and changed from wrong to wrong."""
    value, answer = samples.value.copy(), samples.answer.copy()
    right, wrong = np.flatnonzero(value == 1), np.flatnonzero(value == 0)
    value[right[:lost]] = 0.0
    answer[right[:lost]] = "9"
    value[wrong[:gained]] = 1.0
    answer[wrong[:gained]] = samples.gold[wrong[:gained]]
    answer[wrong[gained : gained + other]] = "9"
    return replace(samples, value=value, answer=answer)


def repeated(made, change, of="fp16", name="fp16 (again)", path=True, **changes):
    """The made run whose variant `of` was scored once more: `change` gives the samples of a task then.

    `path`: as a second scoring, else as a further checkpoint; `changes` are fields of its Result.
    """
    run, read, items = made
    place = next(i for i, one in enumerate(run.results) if one.variant.name == of)
    first, samples, cells = run.results[place], {}, []
    for cell in first.cells:
        found = change(cell.task.name, read(cell))
        cells.append(make_cell(f"{name}-{cell.task.name}", cell.task, found, cell.n_available))
        samples[cells[-1].key] = found
    repeat = replace(first, variant=replace(first.variant, name=name), cells=tuple(cells), **changes)
    results = list(run.results)
    results[place] = with_repeat(first, repeat, path=path)
    run = replace(run, results=tuple(results))
    return run, lambda cell: samples[cell.key] if cell.key in samples else read(cell), items
