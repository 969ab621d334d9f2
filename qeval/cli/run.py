"""`qeval run` and `qeval cost`: variants are scored, or measured, and what came of it is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.errors import Exit
from qeval.cli import completing, configured, options
from qeval.cli.speech import print_json, say, width
from qeval.run.executors import EXECUTORS, SUMMARIES

if TYPE_CHECKING:
    from qeval.ask.order import Order
    from qeval.base.records import Run
    from qeval.cli.progress import Lines, Terminal
    from qeval.compare.margin import Margin
    from qeval.store.runs import RunDir


def _executor(names: Iterable[str]) -> Callable[[options.Command], options.Command]:
    """The option that names one of these executors."""
    known = ". ".join(f"{name}: {SUMMARIES[name]}" for name in names)
    return click.option(
        "--executor",
        type=click.Choice(tuple(names)),
        default="local",
        show_default=True,
        help=f"Where variants are scored. {known}.",
    )


def _several(command: options.Command) -> options.Command:
    """The options that have several workers score at once."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="Threads of each worker on a CPU.  [default: those the run began with; 1 with --workers]",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Score with N workers at once on the CPU, or on a cluster; N does not change any score.",
        ),
        options.gpus_per_variant,
        click.option(
            "--devices",
            metavar="LIST",
            help="Score with one worker on each of these GPUs: all (idle ones of one kind), or e.g. 0,1."
            "  [default: those that CUDA_VISIBLE_DEVICES or the scheduler set, else one]",
        ),
    ):
        command = option(command)
    return command


def _by_others(command: options.Command) -> options.Command:
    """The options of a run that processes score which the command does not start, or not itself."""
    for option in (
        click.option(
            "--no-shared-store",
            is_flag=True,
            help="The nodes of --executor ray do not see the runs directory: results are sent back.",
        ),
        click.option(
            "--ray-address",
            metavar="HOST:PORT",
            help="The cluster of --executor ray.  [default: RAY_ADDRESS, else one that runs here, else one"
            " is started here]",
        ),
        click.option(
            "--dry-run", is_flag=True, help="Print what --executor slurm would submit, and do nothing."
        ),
        click.option(
            "--wait",
            is_flag=True,
            help="Follow the jobs of --executor slurm to their end, and judge here; with --finish: wait until"
            " everything is scored, even by workers yet to start.",
        ),
        click.option(
            "--sbatch-args",
            multiple=True,
            metavar="WORDS",
            help="Words for sbatch, repeatable: --sbatch-args '--partition=a100 --gres=gpu:1 --mem=64G'.",
        ),
        click.option(
            "--finish",
            is_flag=True,
            help="Score nothing: wait for the workers that are at work, then report and judge what there is.",
        ),
        click.option(
            "--prepare",
            is_flag=True,
            help="Score nothing: write down what is to be done, print the run's directory, and leave it to"
            " `qeval worker`.",
        ),
    ):
        command = option(command)
    return command


@click.command(cls=configured.Configured)
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory, demo or toy."
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
@_several
@click.option("--seed", type=int, default=1234, show_default=True, help="Seed for drawing few-shot examples.")
@click.option(
    "--engine",
    type=click.Choice(["tree", "plain", "lm-eval"]),
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
@click.option("--no-materialize", is_flag=True, help="Never dequantise weights ahead of scoring.")
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
    help="Sample generated tokens at this temperature, instead of as the task says.",
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
    help="Judge by this policy at the end; stop a variant as soon as it certainly breaks a required rule.",
)
@options.margin
@click.option(
    "--repeat-baseline",
    is_flag=True,
    help="Score the baseline once more, by another path and packing: the noise floor of all differences.",
)
@click.option(
    "--repeat-quantisation",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also quantise with N other seeds, where a seed has an effect: shows how much is luck.",
)
@options.fidelity
@_executor(SUMMARIES)
@_by_others
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
    from qeval.judge.formats.json import document as gate_document
    from qeval.judge.formats.table import table
    from qeval.judge.gate import conclude
    from qeval.report.formats import json as document
    from qeval.report.formats import terminal
    from qeval.run import runner

    words = (*sys.argv[1:], *configured.given(ctx))
    order = ordered(ctx, runs_dir, words, asked)
    always = (*configured.told(ctx), *orders.let_pass(order))  # nothing that lies here acts unseen
    for sentence in (*always, *((orders.announcement(order),) if loudness >= 0 else ())):
        say(sentence, err=True)
    if order.dry_run:
        _rehearse(order, words)
        ctx.exit(int(Exit.PASS))
    with progress.display(len(order.variants), loudness) as listen:
        place = runner.execute(order, listen)
        code = _left_to_others(order, words, place, listen) if order.only == "prepare" else None
    if code is not None:
        ctx.exit(int(code))
    evidence, _ = options.open_runs([str(place.path)], runs_dir, margin=margin)
    outcome = conclude(evidence, order.policy) if order.policy else None
    if outcome:
        publish(outcome, {})
    if as_json:
        judged = {"gate": gate_document(outcome)} if outcome else {}
        gated = (outcome.decisions, outcome.forgiven) if outcome else ()
        print_json(document.document(evidence, *gated) | judged)
    else:
        say(terminal.summary(evidence, outcome.decisions if outcome else (), width()), paint=True)
        say(f"\n{table(outcome, width())}" if outcome else "", nl=bool(outcome), paint=True)
        say(runner.farewell(evidence.run, place.path) if loudness >= 0 else "", err=True, nl=loudness >= 0)
    failed = runner.exit_code(evidence.run) or _not_measured(order, evidence.run, place)
    ctx.exit(int(outcome.exit if outcome and not failed else failed))


def _not_measured(order: Order, run: Run, place: RunDir) -> Exit:
    """ERROR where a variant that was scored could not be measured as asked."""
    from qeval.base.errors import Exit
    from qeval.run.fidelity import lacking

    missing = lacking(order.fidelity, run, place)
    if missing:
        say(f"Fidelity was not measured of {', '.join(missing)}; see above.", err=True)
    return Exit.ERROR if missing else Exit.PASS


def _elements(order: Order, variants: int) -> int:
    """How many workers are submitted for so many variants; none where nothing is left for them."""
    return (order.workers or variants) if variants else 0


def _rehearse(order: Order, words: Sequence[str]) -> None:
    """Print what would be submitted."""
    from qeval.run import runner
    from qeval.run.executors import slurm

    place, variants = runner.rehearsed(order)
    if not variants:
        say("Every variant is finished: nothing would be submitted.", err=True)
        return
    for call in slurm.calls(order, place, words, _elements(order, variants)):
        say(f"{call}\n")


def _left_to_others(
    order: Order, words: Sequence[str], place: RunDir, listen: Lines | Terminal
) -> Exit | None:
    """Have a prepared run scored by whom it was prepared for; None where that is done, else the exit code."""
    from qeval.run import runner
    from qeval.run.executors import slurm
    from qeval.store.work import Work

    path = place.path.resolve()
    if order.executor != "slurm":
        say(str(path))
        say(f"Start, on any machine that sees it: qeval worker {path}", err=True)
        return Exit.PASS
    plan = Work(place.work).plan()
    elements = _elements(order, len(plan.parts) if plan else 0)
    finish = replace(order, only="finish")
    if not elements:
        runner.execute(finish, listen)
        return None
    jobs = slurm.submit(order, place, words, elements)
    say(f"Submitted: job {jobs.array}, {elements} of qeval worker. Logs: {path / 'logs'}.", err=True)
    if order.wait:
        with slurm.cancelled_on_ctrl_c(jobs.array):
            runner.execute(finish, listen, slurm.Queue(jobs.array))
        return None
    say(f"Then job {jobs.last} reports, into slurm-{jobs.last}-finish.log there.", err=True)
    if order.policy is None:
        return Exit.PASS
    say("Nothing is judged yet: the exit code is that of missing data. --wait waits for it.", err=True)
    return Exit.MISSING


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
@_executor(EXECUTORS)
@options.runs_dir
@options.loudness
@options.as_json
def cost(runs_dir: Path, loudness: int, as_json: bool, **asked: Any) -> None:
    """Measure what variants cost to hold and run: load time, memory, latency and throughput."""
    from qeval.ask import order as orders
    from qeval.cli import progress
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
