"""`qeval import` and `qeval export`: what others measured becomes a run, and a run what others read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.cli import options

if TYPE_CHECKING:
    from qeval.exchange.lm_eval.reading import Imported
    from qeval.store.runs import RunDir


@click.command("import", cls=options.Strict)
@click.argument("path", type=click.Path(path_type=Path, exists=True), metavar="DIR")
@click.option("--scores", is_flag=True, help="DIR is a CSV or TOML file of published scores without items.")
@click.option("--name", metavar="NAME", help="What to call the variant of lm-eval's output.")
@click.option("--model", metavar="MODEL", help="Which model of a table of scores.")
@click.option("--baseline", metavar="NAME", help="Compare with this variant.")
@options.runs_dir
def import_(path: Path, runs_dir: Path, **asked: Any) -> None:
    """Import results as a run: lm-eval's output with samples, or published scores.

    Its pairing is proved by lm-eval's own hashes; scores without items are compared as unpaired, and say so.
    """
    place = _keep(path, runs_dir, **asked)
    click.echo(str(place.path))


def _keep(
    path: Path, runs_dir: Path, *, scores: bool, name: str | None, model: str | None, baseline: str | None
) -> RunDir:
    """Read `path` and keep it as a run; the same input always becomes the same run.

    Raises what `import_lm_eval` and `import_scores` raise; then nothing
    is written.
    """
    from qeval.exchange.lm_eval.reading import Imported, import_lm_eval
    from qeval.exchange.scores import import_scores
    from qeval.store.runs import Store

    if scores:
        imported = Imported(import_scores(path, model=model, baseline=baseline), {}, {})
    else:
        imported = import_lm_eval(path, name=name, baseline=baseline)
    place = Store(runs_dir).run_dir(imported.run.id)
    fresh = not place.path.exists()
    try:
        _write(imported, place)
    except BaseException:
        if fresh:
            shutil.rmtree(place.path, ignore_errors=True)
        raise
    return place


def _write(imported: Imported, place: RunDir) -> None:
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


@click.command(cls=options.Strict)
@options.runs
@click.option(
    "--to",
    required=True,
    metavar="FORM",
    help="lm-eval, csv, parquet, model-card or eval-results.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A directory to write to.",
)
def export(
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    allow_different_models: bool,
    to: str,
    output: Path,
) -> None:
    """Give a run to other tools: lm-eval's layout, flat tables, the Hub's metadata."""
    from qeval.exchange.export import export as write

    evidence, read = options.open_runs(
        runs, runs_dir, baseline, allow_different_models=allow_different_models
    )
    for path in write(evidence, read.samples, read.items, to, output):
        click.echo(str(path))
