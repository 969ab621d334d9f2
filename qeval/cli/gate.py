"""`qeval gate` and `qeval plan`: whether a loss is allowed, and which losses can be judged at all."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.errors import Exit, QevalError
from qeval.base.text import one_line
from qeval.cli import completing, options
from qeval.cli.speech import print_json, say, say_json, width

if TYPE_CHECKING:
    from qeval.base.records import Policy
    from qeval.compare.evidence import Evidence
    from qeval.compare.margin import Margin
    from qeval.judge.gate import Outcome


def _file_formats() -> dict[str, str]:
    """The formats of a gate that are written to files, by the names of their options, and what they are."""
    from qeval.judge.formats import formats

    return {name: found.help for name, found in formats().items() if found.help}


class _WithFiles(options.Strict):
    """A command with an option for each format that is written to a file, found when it is used. Where its
    words are refused, files of an earlier gate that they name say so."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context, which knows the words as they were typed."""
        words = list(args)
        if extra.get("resilient_parsing"):
            return super().make_context(info_name, args, parent, **extra)
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except (click.ClickException, QevalError, OSError) as error:
            from qeval.cli.ordering import withdraw

            withdraw(words, error)
            raise
        ctx.meta[_TYPED] = words
        return ctx

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and those options before --help."""
        kind = options.Place(path_type=Path, dir_okay=False)
        files = [
            click.Option([f"--{name}"], type=kind, metavar="FILE", help=said)
            for name, said in _file_formats().items()
        ]
        *own, last = super().get_params(ctx)
        return [*own, *files, last]


_TYPED = "qeval.gate"
"""Under which a context keeps the words as they were typed."""


@click.command(cls=_WithFiles)
@options.runs
@options.policy
@options.margin
@click.option(
    "--newer-than",
    metavar="AGE",
    help="Judge no run that began longer ago than this: 90m, 6h, 2d, or before a date such as 2026-01-31.",
)
@options.loudness
@options.as_json
@click.pass_context
def gate(
    ctx: click.Context, /, runs: tuple[str, ...], redact: bool, loudness: int, as_json: bool, **asked: Any
) -> None:
    """Decide whether the loss of a run (the newest, if none is named) is allowed.

    Exit code 0: every required rule passed. 3: one failed. 4: undecided, more items are needed. 5: data
    are missing or cannot be compared.
    """
    from qeval.ask.policy import demand
    from qeval.cli import ordering
    from qeval.judge import formats
    from qeval.judge.gate import conclude
    from qeval.judge.redacted import without_paths

    files = {name: path for name in _file_formats() if (path := asked.pop(name))}
    which = {name: asked.pop(name) for name in ("runs_dir", "baseline", "margin", "newer_than")}
    with formats.never_stale([*files.items(), *ordering.files_in(ctx.meta.get(_TYPED, ()))]):
        policy = demand(shlex.join(["qeval", "gate", *ctx.meta.get(_TYPED, ())]), **asked)
        evidence = _judged(runs, policy, redact=redact, **which)
        outcome = conclude(evidence, policy)
        outcome = without_paths(outcome, evidence) if redact else outcome
        formats.publish(outcome, files)
    _tell(outcome, loudness, as_json=as_json)
    ctx.exit(int(outcome.exit))


def _judged(
    runs: tuple[str, ...],
    policy: Policy,
    *,
    runs_dir: Path,
    baseline: str | None,
    margin: Margin,
    newer_than: str | None,
    redact: bool,
) -> Evidence:
    """What is judged, which is told where nobody named it. Raises what refuses a run older than allowed."""
    from qeval.base.redacted import redacted
    from qeval.cli.ages import begun, refuse_older
    from qeval.cli.meant import meant

    names = meant(runs, runs_dir, judged=True, told=not redact)
    evidence, _ = options.open_runs(
        names, runs_dir, baseline, allow_different_models=policy.allow_different_models, margin=margin
    )
    told = redacted(evidence.run) if redact else evidence.run
    if newer_than is not None:
        for one in (told, *(redacted(run) if redact else run for run in evidence.joined)):
            refuse_older(one, newer_than, named=bool(runs))
    if not runs:
        say(f"Judging the newest run, {told.id}, {begun(told.created)}.", err=True)
    return evidence


def _tell(outcome: Outcome, loudness: int, *, as_json: bool) -> None:
    """The outcome on the terminal: a table, under --quiet a line a variant, or JSON."""
    from qeval.judge import formats
    from qeval.judge.formats.table import table

    if as_json:
        say_json(formats.formats()["json"].render(outcome))
    elif loudness < 0:
        lines = [f"{status}: {one_line(name)}" for name, status in outcome.verdicts.items()]
        say("\n".join([*lines, *map(one_line, outcome.forgiven)]), paint=True)
    else:
        say(table(outcome, width(), every=loudness > 0), paint=True)


@click.command(cls=options.Strict)
@click.option(
    "--suite",
    default="leaderboard-v1",
    show_default=True,
    metavar="NAME",
    shell_complete=completing.suites,
    help="A suite, or a TOML file.",
)
@click.option("--tasks", metavar="LIST", help="lm-eval tasks instead of a suite.")
@click.option(
    "--n",
    "counts",
    multiple=True,
    metavar="TASK=N",
    help="Number of items of a task, if qeval does not know it.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Score only N items per task.")
@click.option("--churn", type=float, default=None, help="Share of answers that change.  [default: 0.1]")
@click.option(
    "--power",
    type=float,
    default=0.8,
    show_default=True,
    help="Wanted probability that a variant without a loss passes.",
)
@click.option(
    "--from",
    "from_run",
    metavar="RUN",
    shell_complete=completing.runs,
    help="Take items and churn from a run.",
)
@click.option("--model", "-m", metavar="MODEL", help="Also show the memory that variants of this model need.")
@click.option(
    "--schemes",
    "-s",
    default="fp16,bnb4,gptq",
    show_default=True,
    metavar="LIST",
    shell_complete=completing.schemes,
    help="As in `qeval run`.",
)
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@options.placement
@options.gpus_per_variant
@click.option("--devices", metavar="LIST", help="As in `qeval run`: also show how many workers would begin.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="The same on the CPU.")
@options.gpu_memory
@click.option(
    "--gpu",
    metavar="NAME",
    help="Also show the time and disk that variants need on this GPU (h100, a100, rtx4090 ...), or here.",
)
@click.option(
    "--price-per-hour", "price", type=float, metavar="PRICE", help="What an hour costs: also show the price."
)
@options.tasks_dir
@options.mirror
@options.policy
@options.runs_dir
@options.as_json
@click.pass_context
def plan(ctx: click.Context, /, runs_dir: Path, as_json: bool, from_run: str | None, **asked: Any) -> None:
    """Before you rent a GPU: which limits can this suite decide, does the model fit, and what does it take?

    Memory is that of the GPU that --gpu names, else of the first one here, or what --gpu-memory says. Too
    little of it, on GPU and host together, ends in an error that says what would fit. Of several workers,
    only as many are begun as host memory holds weights for; how many is told. For the time that --gpu
    predicts, the questions are built and their tokens counted.

    Exit code 0: every required rule can be decided, or only a run can tell. 4: the items
    cannot decide one of them.
    """
    from qeval.cli import planning

    planning.refuse_idle(ctx)
    measured = options.open_runs([from_run], runs_dir)[0] if from_run else None
    planning.refuse_another_suite(ctx, measured)
    found = planning.planned(asked, measured)
    if as_json:
        print_json(planning.document(found))
    else:
        say(planning.text(found, width()))
    ctx.exit(int(Exit.INCONCLUSIVE if any(row.undecided for row in found.rows) else Exit.PASS))
