"""`qeval gate` and `qeval plan`: whether a loss is allowed, and which losses can be judged at all."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.errors import Exit, QevalError, UsageError, did_you_mean
from qeval.base.reading import whole
from qeval.base.text import one_line
from qeval.cli import completing, options
from qeval.cli.speech import print_json, say, say_json, width

if TYPE_CHECKING:
    from qeval.base.records import Policy, Suite
    from qeval.cli.forecast import Prediction
    from qeval.cli.memory import Need
    from qeval.compare.evidence import Evidence
    from qeval.compare.margin import Margin
    from qeval.judge.gate import Outcome
    from qeval.judge.plan import Planned


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
    if not runs:
        say(f"Judging the newest run, {told.id}, {begun(told.created)}.", err=True)
    if newer_than is not None:
        for one in (told, *(redacted(run) if redact else run for run in evidence.joined)):
            refuse_older(one, newer_than, named=bool(runs))
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
    from qeval.cli import forecast, memory, own_tasks
    from qeval.cli.planning import refuse_another_suite, refuse_idle, refuse_workers
    from qeval.judge import floor
    from qeval.judge import plan as plans
    from qeval.judge.sizing import UnknownSizesError

    refuse_idle(ctx)
    words = ("model", "schemes", "revision", "placement", "gpu_memory", "gpus")
    wanted = {name: asked.pop(name) for name in words}
    timed = {name: asked.pop(name) for name in ("gpu", "price", "datasets_dir", "tasks_dir")}
    forecast.check(timed["gpu"], timed["price"], wanted["model"])
    pool = {name: asked.pop(name) for name in ("devices", "workers")}
    away = timed["gpu"] if forecast.elsewhere(timed["gpu"]) else None
    refuse_workers(wanted["model"], **pool, gpu=away, gpus=wanted["gpus"])
    wanted["gpu_memory"] = forecast.memory_of(timed["gpu"], wanted["gpu_memory"])
    variants = memory.needs(**wanted, elsewhere=away is not None, on_cpu=pool["workers"] is not None)
    seats = None if away else memory.workers_begun([need.variant for need in variants], wanted, **pool)
    measured = options.open_runs([from_run], runs_dir)[0] if from_run else None
    refuse_another_suite(ctx, measured)
    time = _time(variants, asked, wanted, timed, measured)
    try:
        here = {} if measured else _items_here(asked, timed["tasks_dir"])
        rows = _rows(measured=measured, found=here | (dict(time.items) if time else {}), **asked)
    except UnknownSizesError as error:
        typed = shlex.join(("qeval", *sys.argv[1:]))
        near = own_tasks.nearest(error.tasks)
        meant = f"Did you mean {near!r}? If not, take" if near else "Take"
        raise UsageError(
            error.message,
            f"{meant} them from a run with --from RUN, or put the numbers in: {typed} {error.words}",
        ) from error
    noise = floor.of_plan(rows, measured) if measured else ()
    if as_json:
        told = {"memory": memory.document(variants), **memory.workers_document(seats)} if variants else {}
        print_json(plans.document(rows, noise) | told | ({"time": forecast.document(time)} if time else {}))
    else:
        said = plans.words(rows, asked["power"], measured=measured is not None)
        say("\n\n".join([plans.table(rows, noise, width()), *said]))
        say(f"\n{memory.table(variants, width())}" if variants else "", nl=bool(variants))
        say(f"\n{seats.note}" if seats and seats.note else "", nl=bool(seats and seats.note))
        say(f"\n{forecast.table(time, width())}" if time else "", nl=bool(time))
    ctx.exit(int(Exit.INCONCLUSIVE if any(row.undecided for row in rows) else Exit.PASS))


def _items_here(asked: dict[str, Any], tasks_dir: Path | None) -> dict[str, int]:
    """The items of tasks of one's own, where they lie in files here."""
    from qeval.cli import own_tasks

    chosen = _suite(asked["suite"], asked["tasks"], asked["limit"], None)
    named = None if asked["tasks"] else asked["suite"]
    return own_tasks.items_here(own_tasks.own_tasks(tasks_dir, chosen, named), chosen)


def _time(
    variants: Sequence[Need],
    asked: dict[str, Any],
    wanted: dict[str, Any],
    timed: dict[str, Any],
    measured: Evidence | None,
) -> Prediction | None:
    """What the variants would take, where that is asked for."""
    from qeval.ask.fidelity import wish
    from qeval.ask.suites import documents_verified
    from qeval.cli import forecast, own_tasks

    if timed["gpu"] is None or not variants:
        return None
    say("Building the questions and counting their tokens ...", err=True)
    chosen = _suite(asked["suite"], asked["tasks"], asked["limit"], measured)
    settings = forecast.settings_of(
        asked["limit"], timed["datasets_dir"], wanted["placement"], wanted["gpu_memory"], wanted["gpus"]
    )
    return forecast.predict(
        [need.variant for need in variants],
        chosen,
        settings,
        gpu=timed["gpu"].lower(),
        memory=wanted["gpu_memory"],
        price=timed["price"],
        verify=0 if asked["tasks"] or measured else documents_verified(asked["suite"]),
        own=own_tasks.own_tasks(timed["tasks_dir"], chosen, None if asked["tasks"] else asked["suite"]),
        fidelity=wish(
            None,
            None,
            wanted["model"],
            None if asked["tasks"] or asked["limit"] or measured else asked["suite"],
        ),
    )


def _rows(
    *,
    suite: str,
    tasks: str | None,
    counts: Sequence[str],
    limit: int | None,
    churn: float | None,
    power: float,
    measured: Evidence | None,
    found: Mapping[str, int],
    **limits: Any,
) -> tuple[Planned, ...]:
    """What can be decided, row by row; see `qeval.judge.plan.plan`. `found` are items of tasks of which
    nobody else says how many there are.

    Raises UsageError for words that make no sense, and what `qeval.judge.plan` raises.
    """
    from qeval.ask import policy
    from qeval.base.sizes import MMLU_SUBJECTS, TASK_SIZES
    from qeval.judge import plan, sizing

    run = measured.run if measured else None
    asked = _suite(suite, tasks, limit, measured)
    shared = sizing.shared_texts(measured) if measured else None
    unknown = {name: n for name, n in found.items() if name not in {*TASK_SIZES, *MMLU_SUBJECTS}}
    said = dict(map(_count, counts))
    counted = sizing.sizes(asked, unknown | said, run, shared)
    _refuse_others(said, counted)
    known = sizing.measure(measured) if measured else None
    guess = plan.CHURN if churn is None else churn
    return plan.plan(asked, counted, policy.choose(**limits), churn=guess, power=power, measured=known)


def _suite(suite: str, tasks: str | None, limit: int | None, measured: Evidence | None) -> Suite:
    """What would be asked: the named tasks, else what a run was asked, else a suite."""
    from qeval.ask import suites

    if tasks is not None:
        return suites.adjust(suites.from_tasks(tasks), limit=limit)
    return suites.adjust(measured.run.suite if measured else suites.load(suite), limit=limit)


def _refuse_others(said: Mapping[str, int], counted: Mapping[str, object]) -> None:
    """Raise UsageError for items of a task that nobody asks for."""
    other = next((name for name in said if name not in counted), None)
    if other is not None:
        raise UsageError(f"--n {other}={said[other]}: {other} is no task here.", did_you_mean(other, counted))


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    count = whole(number)
    if not name or not count:
        raise UsageError(f"--n {text!r} is not a number of items.", "Write e.g. --n my_task=500.")
    return name, count
