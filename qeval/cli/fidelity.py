"""`qeval fidelity`: how far a run's variants moved from the baseline, measured after the fact."""

from __future__ import annotations

from pathlib import Path

import click

from qeval.ask.placing import CLUSTERS
from qeval.cli import completing, options
from qeval.cli.meant import OneOf
from qeval.cli.speech import print_json, say, width
from qeval.run.executors import EXECUTORS


@click.command(cls=options.Strict)
@click.argument("run", required=False, shell_complete=completing.runs)
@options.fidelity
@click.option(
    "--executor",
    type=OneOf(tuple(name for name in EXECUTORS if name not in CLUSTERS)),
    default="local",
    show_default=True,
    help="As in `qeval run`.",
)
@options.runs_dir
@options.loudness
@options.as_json
@click.pass_context
def fidelity(
    ctx: click.Context,
    /,
    run: str | None,
    fidelity: str | None,
    fidelity_cache_limit: int | None,
    executor: str,
    runs_dir: Path,
    loudness: int,
    as_json: bool,
) -> None:
    """Measure how far the variants of a run (the newest, if none is named) moved from its baseline.

    Without --fidelity, the protocols of the run's suite are used. What was measured before is not measured
    again.
    """
    from qeval.ask.fidelity import wish_of_run
    from qeval.base.errors import Exit
    from qeval.base.places import cache_dir
    from qeval.base.plain import plain
    from qeval.cli import progress
    from qeval.report.fidelity import as_data, terminal
    from qeval.run.fidelity import Places, measure_run
    from qeval.store.runs import Store

    place = Store(runs_dir).open(run)
    known = place.read()
    wish = wish_of_run(fidelity, fidelity_cache_limit, known.model, known.suite.name)
    with progress.display(len(known.results), loudness) as listen:
        failed = measure_run(place, wish, Places(cache_dir(), executor), listen)
    evidence, _ = options.open_runs([str(place.path)], runs_dir)
    if as_json:
        print_json(plain(as_data(evidence.fidelity)))
    else:
        say(terminal(evidence.fidelity, width()))
    if failed:
        say(f"Not measured: {', '.join(failed)}. Library logs: {place.path / 'logs'}.", err=True)
    ctx.exit(int(Exit.ERROR if failed else Exit.PASS))
