"""`qeval cost`: what variants cost to hold and run is measured and printed; nothing is scored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from qeval.cli import options, placing
from qeval.cli.speech import print_json, say, width
from qeval.run.executors import EXECUTORS


@click.command(cls=options.Strict)
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory or demo."
)
@click.option(
    "--schemes", "-s", default="fp16,bnb4", show_default=True, metavar="LIST", help="As in `qeval run`."
)
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--adapter", metavar="PATH", help="A PEFT adapter for every variant; merged:PATH merges it in.")
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option("--dtype", default="auto", show_default=True, help="Type to calculate in.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option(
    "--allow-unused",
    multiple=True,
    metavar="PATTERN",
    help="Score a checkpoint without those of its tensors that the model has no place for; repeatable.",
)
@options.gpu_memory
@options.mirror
@placing.executor(EXECUTORS)
@options.runs_dir
@options.loudness
@options.as_json
def cost(runs_dir: Path, loudness: int, as_json: bool, **asked: Any) -> None:
    """Measure what variants cost to hold and run: load time, memory, latency and throughput."""
    from qeval.ask import order as orders
    from qeval.cli import progress
    from qeval.load.toy import is_toy
    from qeval.report.formats import json as document
    from qeval.report.formats import terminal
    from qeval.run import runner

    order = orders.cost_order(runs_dir=runs_dir, command=("qeval", *sys.argv[1:]), **asked)
    with progress.display(len(order.variants), loudness) as listen:
        place = runner.execute(order, listen)
    evidence, _ = options.open_runs([str(place.path)], runs_dir)
    if as_json:
        print_json(document.document(evidence))
    else:
        say(terminal.costs(evidence.run, width()))
    if is_toy(asked["model"]):
        say("The toy is no model, so it costs nothing. A small real one is --model demo.", err=True)
