"""`qeval import`: what others measured becomes a run in the store, whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from qeval.exchange.lm_eval.reading import Imported, import_lm_eval
from qeval.exchange.scores import import_scores
from qeval.store.runs import RunDir, Store


def take(
    path: Path, runs_dir: Path, *, scores: bool, name: str | None, model: str | None, baseline: str | None
) -> RunDir:
    """Read `path` and keep it as a run; the same input always becomes the same run.

    Raises what `import_lm_eval` and `import_scores` raise; then nothing
    is written.
    """
    if scores:
        imported = Imported(import_scores(path, model=model, baseline=baseline), {}, {})
    else:
        imported = import_lm_eval(path, name=name, baseline=baseline)
    place = Store(runs_dir).run_dir(imported.run.id)
    fresh = not place.path.exists()
    try:
        _keep(imported, place)
    except BaseException:
        if fresh:
            shutil.rmtree(place.path, ignore_errors=True)
        raise
    return place


def _keep(imported: Imported, place: RunDir) -> None:
    results = []
    for result in imported.run.results:
        cells = [
            place.add(cell, imported.samples[cell.key], imported.items.get(cell.key, ()))
            if cell.key in imported.samples
            else cell
            for cell in result.cells
        ]
        results.append(replace(result, cells=tuple(cells)))
    place.write(replace(imported.run, results=tuple(results)))
