"""`qeval run`: variants are scored, and what came of it is printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from qeval.base.errors import Exit
from qeval.cli import completing, configured, options, own_tasks, placing, submitting
from qeval.cli.meant import OneOf
from qeval.cli.speech import print_json, say, width
from qeval.run.executors import SUMMARIES

if TYPE_CHECKING:
    from qeval.ask.order import Order
    from qeval.base.records import Run
    from qeval.compare.evidence import Evidence
    from qeval.compare.margin import Margin
    from qeval.judge.gate import Outcome
    from qeval.store.runs import RunDir


@click.command(cls=configured.Configured)
@click.option(
    "--model",
    "-m",
    required=True,
    metavar="MODEL",
    help="Hub id (with @revision), directory, demo, or toy: docs/toy.md.",
)
@click.option(
    "--schemes",
    "-s",
    default="fp16,bnb4,gptq",
    show_default=True,
    metavar="LIST",
    shell_complete=completing.schemes,
    help="Schemes to compare, the baseline first; `qeval list schemes` shows them and their options.",
)
@click.option(
    "--suite",
    default=None,
    metavar="NAME",
    shell_complete=completing.suites,
    help="A suite, its TOML file, or lm-eval's YAML.  [default: leaderboard-v1]",
)
@click.option(
    "--tasks", default=None, metavar="LIST", help="lm-eval tasks instead of a suite: name or name:metric."
)
@click.option(
    "--num-fewshot", type=click.IntRange(min=0), help="Examples in each prompt, instead of the suite's."
)
@click.option("--baseline", metavar="NAME", help="The variant to compare with.  [default: the first scheme]")
@click.option("--limit", type=click.IntRange(min=1), help="Score only N items per task: a smoke run.")
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--adapter", metavar="PATH", help="A PEFT adapter for every variant; merged:PATH merges it in.")
@click.option(
    "--batch-size", default="auto", show_default=True, metavar="N", help="Sequences per batch, if batched."
)
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option(
    "--dtype", default="auto", show_default=True, help="Type to calculate in: float32, float16, bfloat16."
)
@placing.several
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=1234,
    show_default=True,
    help="Seed for drawing few-shot examples.",
)
@click.option(
    "--engine",
    type=OneOf(["tree", "plain", "lm-eval"]),
    default="tree",
    show_default=True,
    help="How log-likelihoods are computed; lm-eval is the harness's own code.",
)
@click.option(
    "--verify",
    type=click.IntRange(min=0),
    metavar="N",
    help="Have lm-eval's own code also score N documents of each task or group, and fail where its numbers"
    " differ; by default, as many as the suite says.",
)
@click.option("--no-materialize", is_flag=True, help="Never dequantise weights before scoring.")
@options.placement
@options.gpu_memory
@click.option(
    "--cost/--no-cost",
    default=None,
    help="Measure latency and throughput too, on the scheme's own kernels; by default, on a GPU, what fits"
    " into 5% of the run.",
)
@click.option("--chat-template", is_flag=True, help="Put prompts into the tokenizer's chat template.")
@click.option(
    "--framed",
    is_flag=True,
    help="Measure perplexities inside the chat template, each text as the answer to an empty message.",
)
@click.option(
    "--max-gen-toks",
    type=click.IntRange(min=1),
    metavar="N",
    help="The most tokens of each generated text, instead of the task's own budget.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=2),
    metavar="N",
    help="Generate each sampled text N times; the item's value is the mean over them.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    metavar="T",
    help="Sample generated tokens at this temperature instead of the task's own.",
)
@click.option(
    "--think-end",
    metavar="MARKER",
    help="Marker that ends thinking in generated texts: exactly lm-eval's think_end_token.  [default: <think>"
    " and the tokenizer's own markers]",
)
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option(
    "--allow-unused",
    multiple=True,
    metavar="PATTERN",
    help="Score a checkpoint without those of its tensors that the model has no place for; repeatable.",
)
@options.tasks_dir
@options.mirror
@click.option(
    "--gate",
    type=options.Place(path_type=Path),
    metavar="POLICY",
    help="Judge by this policy at the end; stop a variant as soon as it is certain to break a required rule.",
)
@options.margin
@click.option(
    "--repeat-baseline",
    is_flag=True,
    help="Score the baseline once more, by another path and packing, for the noise floor of all differences.",
)
@click.option(
    "--repeat-quantisation",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also quantise with N other seeds, where a seed has an effect, to show how much is luck.",
)
@options.fidelity
@placing.executor(SUMMARIES)
@placing.by_others
@click.option("--again", is_flag=True, help="Check every variant again, even finished ones.")
@options.runs_dir
@options.loudness
@options.as_json
@click.pass_context
def run(
    ctx: click.Context, /, runs_dir: Path, loudness: int, margin: Margin, as_json: bool, **asked: Any
) -> None:
    """Score variants of a model and compare them with the first.

    If it is killed or fails midway, the same command resumes where it stopped. Options may also be set in
    qeval.toml, pyproject.toml or QEVAL_RUN_*: docs/configuration.md.
    """
    from qeval.ask import order as orders
    from qeval.cli import progress
    from qeval.cli.ordering import ordered
    from qeval.judge.formats import publish
    from qeval.judge.gate import conclude
    from qeval.run import runner

    words = (*sys.argv[1:], *configured.given(ctx))
    order = ordered(ctx, runs_dir, words, asked)
    always = [*configured.told(ctx), *orders.let_pass(order)]  # nothing that lies here acts unseen
    if ctx.get_parameter_source("tasks_dir") is not ParameterSource.COMMANDLINE:
        always += own_tasks.told(order)
    always += own_tasks.of_the_toy(order)
    for sentence in (*always, *((orders.announcement(order),) if loudness >= 0 else ())):
        say(sentence, err=True)
    if order.dry_run:
        submitting.rehearse(order, words)
        ctx.exit(int(Exit.PASS))
    with progress.display(len(order.variants), loudness) as listen:
        place = runner.execute(order, listen)
    code = submitting.leave_to_others(order, words, place, loudness) if order.only == "prepare" else None
    if code is not None:
        ctx.exit(int(code))
    evidence, _ = options.open_runs([str(place.path)], runs_dir, margin=margin)
    outcome = conclude(evidence, order.policy) if order.policy else None
    if outcome:
        publish(outcome, {})
    if as_json:
        _print_document(evidence, outcome)
    else:
        _print_summary(evidence, outcome)
        say(runner.farewell(evidence.run, place.path) if loudness >= 0 else "", err=True, nl=loudness >= 0)
    failed = runner.exit_code(evidence.run) or _not_measured(order, evidence.run, place)
    ctx.exit(int(outcome.exit if outcome and not failed else failed))


def _print_document(evidence: Evidence, outcome: Outcome | None) -> None:
    from qeval.judge.formats.json import document as gate_document
    from qeval.report.formats import json as document

    judged = {"gate": gate_document(outcome)} if outcome else {}
    gated = (outcome.decisions, outcome.forgiven) if outcome else ()
    print_json(document.document(evidence, *gated) | judged)


def _print_summary(evidence: Evidence, outcome: Outcome | None) -> None:
    from qeval.judge.formats.table import table
    from qeval.report.formats import terminal

    say(terminal.summary(evidence, outcome.decisions if outcome else (), width()), paint=True)
    say(f"\n{table(outcome, width())}" if outcome else "", nl=bool(outcome), paint=True)


def _not_measured(order: Order, run: Run, place: RunDir) -> Exit:
    """ERROR where a variant that was scored could not be measured as asked."""
    from qeval.run.fidelity import lacking

    missing = lacking(order.fidelity, run, place)
    if missing:
        say(f"Fidelity was not measured for {', '.join(missing)}; see above.", err=True)
    return Exit.ERROR if missing else Exit.PASS
