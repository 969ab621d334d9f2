"""The command line: parse, call, print, exit. stdout is data, stderr is progress and errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qeval import __version__
from qeval.base.errors import Exit, QevalError

if TYPE_CHECKING:
    from qeval.ask.order import Order
    from qeval.compare.evidence import Evidence
    from qeval.store.runs import Reader, Store

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Funnel(click.Group):
    """The one place where an error becomes a sentence on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except QevalError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            click.echo(f"Error: {error.message}", err=True)
            if error.hint:
                click.echo(error.hint, err=True)
            ctx.exit(int(error.exit_code))
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("Stopped. What is finished is kept; the same command goes on from there.", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has gone
            ctx.exit(int(Exit.ERROR))
        except Exception as error:  # a mistake of ours is a sentence too
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: something unforeseen happened ({type(error).__name__}: {error}).", err=True)
            click.echo("That is a mistake in qeval; `qeval --debug ...` shows where.", err=True)
            ctx.exit(int(Exit.ERROR))


@click.group(cls=_Funnel, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="qeval")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """What did quantisation cost a model, is the loss real, and is it allowed?

    \b
    qeval run --model meta-llama/Llama-2-13b-hf --schemes fp16,bnb4,gptq
    qeval report -o report.html
    qeval gate --max-drop 1.0
    """  # noqa: D301 - \b is Click's mark for a paragraph left as it is


def _runs_dir(command: _Command) -> _Command:
    return click.option(
        "--runs-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("runs"),
        show_default=True,
        envvar="QEVAL_RUNS_DIR",
        help="Where runs are kept.",
    )(command)


def _runs(command: _Command) -> _Command:
    """RUN ... and what is needed to read them."""
    command = click.option("--baseline", metavar="NAME", help="Compare with this variant.")(command)
    command = _runs_dir(command)
    return click.argument("runs", nargs=-1, metavar="[RUN]...")(command)


def _policy(command: _Command) -> _Command:
    """What is allowed: a policy file, or the short form."""
    options = (
        click.option("--policy", type=click.Path(path_type=Path), help="A policy file, or a pyproject.toml."),
        click.option(
            "--max-drop",
            multiple=True,
            metavar="POINTS",
            help="Percentage points that may be lost: 1.0, or for one task mmlu=0.5; repeatable.",
        ),
        click.option("--max-ppl-ratio", type=float, metavar="RATIO", help="The same for perplexities: 1.02."),
        click.option(
            "--confidence", type=float, default=0.95, show_default=True, help="One-sided, for --max-drop."
        ),
        click.option(
            "--allow-limited", is_flag=True, help="Let a run with --limit pass. Printed everywhere."
        ),
        click.option("--allow-inconclusive", is_flag=True, help="Exit 0 when undecided. Printed everywhere."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _mirror(command: _Command) -> _Command:
    return click.option(
        "--datasets-dir",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        envvar="QEVAL_DATASETS_DIR",
        help="A mirror of Hub data sets, DIR/<org>/<name>, used before the Hub.",
    )(command)


def _json(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def _open(names: Sequence[str], runs_dir: Path, baseline: str | None) -> tuple[Evidence, Reader]:
    """The runs that a person named, as one that is compared with `baseline`, and what reads their cells."""
    from qeval.compare.evidence import gather, with_baseline
    from qeval.compare.merge import merge
    from qeval.store.runs import Store, reader

    store: Store = Store(runs_dir)
    places = [store.open(name) for name in names] or [store.open(None)]
    found = [(place, place.read()) for place in places]
    runs = [run for _, run in found]
    run = with_baseline(runs[0], baseline) if len(runs) == 1 else merge(runs, baseline)
    read = reader(found)
    return gather(run, read.samples), read


@main.command()
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory, demo or toy."
)
@click.option(
    "--schemes",
    "-s",
    default="fp16,bnb4,gptq",
    show_default=True,
    metavar="LIST",
    help="Schemes to compare, the baseline first; `qeval list schemes` shows them and their options.",
)
@click.option(
    "--suite", default=None, metavar="NAME", help="A suite, or a TOML file.  [default: leaderboard-v1]"
)
@click.option(
    "--tasks", default=None, metavar="LIST", help="lm-eval tasks instead of a suite: name or name:metric."
)
@click.option(
    "--num-fewshot", type=click.IntRange(min=0), help="Examples in each prompt, instead of the suite's."
)
@click.option("--baseline", metavar="NAME", help="The variant to compare with.  [default: the first scheme]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many items of each task: a smoke run.")
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--adapter", metavar="PATH", help="A PEFT adapter for every variant; merged:PATH merges it in.")
@click.option(
    "--batch-size", default="auto", show_default=True, metavar="N", help="Where batches are used at all."
)
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option(
    "--dtype", default="auto", show_default=True, help="What is calculated in: float32, float16, bfloat16."
)
@click.option("--seed", type=int, default=1234, show_default=True, help="Seed of the few-shot draw.")
@click.option(
    "--engine",
    type=click.Choice(["tree", "plain", "lm-eval"]),
    default="tree",
    show_default=True,
    help="How log-likelihoods are computed; lm-eval is the harness's own code.",
)
@click.option(
    "--verify", type=click.IntRange(min=0), default=0, metavar="N", help="Score N documents with lm-eval too."
)
@click.option("--no-materialize", is_flag=True, help="Never dequantise weights ahead of scoring.")
@click.option(
    "--cost/--no-cost",
    default=None,
    help="Measure latency and throughput too, on the scheme's own kernels; by default what takes under a"
    " minute on a GPU.",
)
@click.option("--chat-template", is_flag=True, help="Put prompts into the tokenizer's chat template.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@_mirror
@click.option(
    "--gate",
    type=click.Path(path_type=Path),
    metavar="POLICY",
    help="Stop a variant as soon as it breaks a required rule of this policy for certain.",
)
@click.option("--again", is_flag=True, help="Check every variant anew, even those that are finished.")
@_runs_dir
@_json
@click.pass_context
def run(ctx: click.Context, /, runs_dir: Path, as_json: bool, **asked: Any) -> None:
    """Score variants of a model and compare them with the first.

    Killed or failed in the middle, the same command goes on where it stopped.
    """
    from qeval.ask import order as orders
    from qeval.cli import progress
    from qeval.report.formats import json as document
    from qeval.report.formats import terminal
    from qeval.run import runner

    order = orders.order(runs_dir=runs_dir, command=("qeval", *sys.argv[1:]), **asked)
    _check_tasks(order)
    click.echo(orders.announcement(order), err=True)
    with progress.display() as listen:
        place = runner.execute(order, listen)
    evidence, _ = _open([str(place.path)], runs_dir, None)
    if as_json:
        _print_json(document.document(evidence))
    else:
        click.echo(terminal.summary(evidence))
        click.echo(runner.farewell(evidence.run, place.path), err=True)
    ctx.exit(int(runner.exit_code(evidence.run)))


def _check_tasks(order: Order) -> None:
    """Refuse a task that does not exist, first; lm-eval's names are read from its files."""
    from qeval.ask.order import check_tasks
    from qeval.ask.suites import tasks_dir
    from qeval.load.toy import is_toy
    from qeval.score.harness.catalogue import known_tasks

    if not is_toy(order.variants[0].model):
        check_tasks(order, known_tasks(tasks_dir(), order.cache_dir))


@main.command()
@_runs
@click.option(
    "--output",
    "-o",
    "outputs",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    required=True,
    help="Where to write; the ending chooses the format (.html, .md). May be given several times.",
)
@_policy
@click.option("--title", help="The report's title.")
@click.option("--short", is_flag=True, help="Markdown short enough for a pull-request comment.")
@click.option(
    "--assets", type=click.Path(path_type=Path, file_okay=False), help="Put Markdown's charts here, as SVG."
)
def report(
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    outputs: tuple[Path, ...],
    title: str | None,
    short: bool,
    assets: Path | None,
    **gate: Any,
) -> None:
    """Render a run (the newest, if none is named) to HTML or Markdown."""
    from qeval.ask.policy import choose
    from qeval.base.files import write_text
    from qeval.judge.gate import judge
    from qeval.report.context import build
    from qeval.report.formats import Options, render

    evidence, read = _open(runs, runs_dir, baseline)
    policy = choose(**gate)
    decisions = judge(evidence, policy) if policy else ()
    context = build(evidence, read.items, decisions, policy, title=title)
    for path in outputs:
        write_text(path, render(context, path, Options(short, assets)))
        click.echo(str(path))


@main.command()
@_runs
@_policy
@_json
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML here.")
@click.option(
    "--badge", type=click.Path(path_type=Path, dir_okay=False), help="Write a shields.io endpoint badge."
)
@click.pass_context
def gate(
    ctx: click.Context,
    /,
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    as_json: bool,
    junit: Path | None,
    badge: Path | None,
    **limits: Any,
) -> None:
    """Decide whether the loss of a run (the newest, if none is named) is allowed.

    Exit code 0: every required rule passed. 3: one failed. 4: undecided, more items are needed. 5: data
    are missing or cannot be compared.
    """
    from qeval.ask import policy
    from qeval.judge import formats
    from qeval.judge import gate as judge

    evidence, _ = _open(runs, runs_dir, baseline)
    outcome = judge.conclude(evidence, policy.demand(**limits))
    formats.publish(outcome, {name: path for name, path in (("junit", junit), ("badge", badge)) if path})
    click.echo(formats.formats()["json" if as_json else "table"].render(outcome))
    ctx.exit(int(outcome.exit))


@main.command()
@click.option(
    "--suite", default="leaderboard-v1", show_default=True, metavar="NAME", help="A suite, or a TOML file."
)
@click.option("--tasks", metavar="LIST", help="lm-eval tasks instead of a suite.")
@click.option(
    "--n", "counts", multiple=True, metavar="TASK=N", help="Items of a task that qeval does not know."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many items of each task.")
@click.option("--churn", type=float, default=None, help="Share of answers that change.  [default: 0.1]")
@click.option(
    "--power", type=float, default=0.8, show_default=True, help="Probability of passing that is wanted."
)
@click.option("--from", "from_run", metavar="RUN", help="Take items and churn from a run.")
@_policy
@_runs_dir
@_json
def plan(runs_dir: Path, as_json: bool, **asked: Any) -> None:
    """Tell, before a GPU is paid for, what losses the items there are can prove or refute."""
    from qeval.cli import planning
    from qeval.judge import plan as plans

    measured = _open([asked["from_run"]], runs_dir, None)[0] if asked["from_run"] else None
    rows = planning.rows(measured=measured, **asked)
    if as_json:
        _print_json(plans.document(rows))
    else:
        click.echo(plans.table(rows))


@main.command()
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory or demo."
)
@click.option(
    "--schemes", "-s", default="fp16,bnb4", show_default=True, metavar="LIST", help="As in `qeval run`."
)
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--adapter", metavar="PATH", help="A PEFT adapter for every variant; merged:PATH merges it in.")
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option("--dtype", default="auto", show_default=True, help="What is calculated in.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@_mirror
@_runs_dir
@_json
def cost(runs_dir: Path, as_json: bool, **asked: Any) -> None:
    """Measure what variants cost to hold and run: load time, memory, latency and throughput."""
    from qeval.ask import order as orders
    from qeval.cli import progress
    from qeval.report.formats import json as document
    from qeval.report.formats import terminal
    from qeval.run import runner

    order = orders.cost_order(runs_dir=runs_dir, command=("qeval", *sys.argv[1:]), **asked)
    with progress.display() as listen:
        place = runner.execute(order, listen)
    evidence, _ = _open([str(place.path)], runs_dir, None)
    if as_json:
        _print_json(document.document(evidence))
    else:
        click.echo(terminal.costs(evidence.run))


@main.command("import")
@click.argument("path", type=click.Path(path_type=Path, exists=True), metavar="DIR")
@click.option("--scores", is_flag=True, help="DIR is a CSV or TOML file of published scores without items.")
@click.option("--name", metavar="NAME", help="What to call the variant of lm-eval's output.")
@click.option("--model", metavar="MODEL", help="Which model of a table of scores.")
@click.option("--baseline", metavar="NAME", help="Compare with this variant.")
@_runs_dir
def import_(path: Path, runs_dir: Path, **asked: Any) -> None:
    """Take what others measured as a run: lm-eval's output with samples, or published scores.

    Its pairing is proved by lm-eval's own hashes; scores without items are compared as unpaired, and say so.
    """
    from qeval.cli import intake

    place = intake.take(path, runs_dir, **asked)
    click.echo(str(place.path))


@main.command()
@_runs
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
def export(runs: tuple[str, ...], runs_dir: Path, baseline: str | None, to: str, output: Path) -> None:
    """Give a run to other tools: lm-eval's layout, flat tables, the Hub's metadata."""
    from qeval.exchange.export import export as write

    evidence, read = _open(runs, runs_dir, baseline)
    for path in write(evidence.run, read.samples, read.items, evidence.comparisons, to, output):
        click.echo(str(path))


@main.command()
@_runs
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Serve on localhost instead of opening a browser."
)
def view(runs: tuple[str, ...], runs_dir: Path, baseline: str | None, port: int | None) -> None:
    """Open the HTML report of a run (the newest, if none is named)."""
    from qeval.cli import viewer
    from qeval.report.context import build
    from qeval.report.formats.html import render_html

    evidence, read = _open(runs, runs_dir, baseline)
    page = render_html(build(evidence, read.items))
    viewer.show(page, port, say=lambda text: click.echo(text, err=True))


@main.command()
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory or demo."
)
@click.option(
    "--scheme", "-s", required=True, metavar="SCHEME", help="For example gptq[bits=4,act_order=true]."
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new directory."
)
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option(
    "--dtype", default="auto", show_default=True, help="What is calculated in, as given to `qeval run`."
)
@_mirror
def quantize(output: Path, **asked: Any) -> None:
    """Make and save the checkpoint that `qeval run` would score: what was gated is what is shipped."""
    from qeval.cli import shipping

    click.echo(str(shipping.quantize(output, **asked)))


@main.command("list")
@click.argument("what", type=click.Choice(["schemes", "suites", "runs"]))
@_runs_dir
@_json
def list_(what: str, runs_dir: Path, as_json: bool) -> None:
    """List the schemes, the suites or the runs there are."""
    from qeval.cli import listing

    rows = listing.LISTS[what](runs_dir)
    if as_json:
        _print_json(rows)
    else:
        click.echo(listing.table(rows))


@main.command()
@click.argument("run", required=False)
@click.option("--baseline", metavar="NAME", help="Compare with this variant.")
@_runs_dir
@_json
def show(run: str | None, runs_dir: Path, baseline: str | None, as_json: bool) -> None:
    """Show a run: what was loaded, how it was scored, and the table of comparisons."""
    from qeval.report.formats import json as document
    from qeval.report.formats import terminal

    evidence, _ = _open([run] if run else [], runs_dir, baseline)
    if as_json:
        _print_json(document.document(evidence))
    else:
        click.echo(terminal.details(evidence.run))
        click.echo(terminal.summary(evidence))


@main.command()
@click.option(
    "--datasets-dir",
    type=click.Path(path_type=Path),
    envvar="QEVAL_DATASETS_DIR",
    help="A mirror to look at.",
)
@_runs_dir
@_json
def doctor(datasets_dir: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Tell what this machine can run, and the command that installs what is missing."""
    from qeval.cli import doctor as examination

    findings = examination.examine(runs_dir=runs_dir, datasets_dir=datasets_dir)
    if as_json:
        _print_json(examination.as_document(findings))
    else:
        click.echo(examination.text(findings))
