"""Toy Runs of `factories` in a store, for tests through the command line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from factories import ARC, make_run

from qeval.store.runs import Store

WIDE = ("--max-drop", "60")
"""A limit that every toy keeps."""


def store(runs_dir: Path, made=None, **changes) -> str:
    """A made run in the store, its headers with the scores of its items; its id."""
    run, read, items = made or whole()
    run = replace(run, **changes)
    place = Store(runs_dir).run_dir(run.id)
    results = [
        replace(result, cells=tuple(place.add(truthful(c, read(c)), read(c), items(c)) for c in result.cells))
        for result in run.results
    ]
    place.write(replace(run, results=tuple(results)))
    return run.id


def truthful(cell, samples):
    """The cell with the score that its items have, as far as they have one."""
    weight = float(samples.weight.sum())
    score = float(samples.value.sum()) / weight if weight else 0.0
    return replace(cell, score=score) if math.isfinite(score) else cell


def whole(n_variants=2, tasks=(ARC,), **more):
    return make_run(n_variants, tasks, more.pop("n_items", 400), **{"churn": 0.05, "seed": 5, **more})


def changed(made, place, **changes):
    """The made run with one result replaced."""
    run, read, items = made
    results = list(run.results)
    results[place] = replace(results[place], **changes)
    return replace(run, results=tuple(results)), read, items
