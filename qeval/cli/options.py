"""What several commands share: their options, the runs that a person names, and JSON on stdout."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qeval.cli import completing, helping
from qeval.cli.meant import OneOf, a_margin, amount, check_number, near_path, outputs_told, retold

if TYPE_CHECKING:
    from qeval.base.fidelity import Measured, Positions, Stream
    from qeval.base.records import Run
    from qeval.compare.evidence import Evidence
    from qeval.compare.fidelity import FidelityRows
    from qeval.compare.margin import Margin
    from qeval.store.reader import Reader
    from qeval.store.runs import RunDir

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(click.Path):
    """A path; `~` is the home directory, whether a shell has seen it or not. Of one that should be there and
    is not, the nearest is named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, without `~`."""
        if isinstance(value, (str, os.PathLike)):
            value = os.path.expanduser(value)  # noqa: PTH111 - what is given may not be text for a Path
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = near_path(value, file=self.file_okay, folder=self.dir_okay) if self.exists else ""
            raise click.BadParameter(f"{error.message}{near}", ctx, param) from error


class Output(Place):
    """A path that a command writes to: where it is refused, what stands there is said to be older."""

    written = True


class Strict(click.Command):
    """A command that refuses an option given twice where one value is meant (which of them was?) and numbers
    that Python alone reads, 1_0 for ten; of a word that it does not know it names the nearest. Its help is in
    groups, where there are many options, and ends with examples."""

    context_class = helping.Page

    def get_help_option_names(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click asks so
        """The same whoever asks first: Click keeps what it finds then, and a command called without the group
        above it would find `--help` alone."""
        return ["-h", "--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, by their groups where the command has some."""
        groups = helping.GROUPS.get(self.name or "")
        if groups is None:
            super().format_options(ctx, formatter)
            return
        rows = {
            parameter.name or "": row
            for parameter in self.get_params(ctx)
            if (row := parameter.get_help_record(ctx)) is not None
        }
        helping.write_groups(formatter, rows, groups)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, and what else ends a page."""
        super().format_epilog(ctx, formatter)
        helping.write_examples(formatter, self.name or "")

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context; what Click does not know is told in our words."""
        with outputs_told(self, [] if extra.get("resilient_parsing") else args), retold(self):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; where it is refused, older files in the place of its own are told."""
        with outputs_told(self, ctx):
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look at the order of the words, then parse them as ever."""
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        for parameter in order:
            if isinstance(parameter, click.Option) and order.count(parameter) > 1 and not _repeats(parameter):
                names = "/".join((*parameter.opts[-1:], *parameter.secondary_opts[-1:]))
                raise click.UsageError(f"{names} is given {order.count(parameter)} times.", ctx)
            check_number(parameter, values.get(parameter.name or ""), ctx)
        return super().parse_args(ctx, args)


def _repeats(option: click.Option) -> bool:
    return option.multiple or (option.is_flag and not option.secondary_opts) or option.count


def runs_dir(command: Command) -> Command:
    """Where runs are kept."""
    return click.option(
        "--runs-dir",
        type=Place(path_type=Path, file_okay=False),
        default=Path("runs"),
        show_default=True,
        envvar="QEVAL_RUNS_DIR",
        help="Where runs are kept.",
    )(command)


def runs(command: Command) -> Command:
    """RUN ... and what is needed to read them."""
    command = click.option(
        "--allow-different-models", is_flag=True, help="Join runs of different models. Printed everywhere."
    )(command)
    command = redact(command)
    command = click.option("--baseline", metavar="NAME", help="Compare with this variant.")(command)
    command = runs_dir(command)
    return click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=completing.runs)(command)


def redact(command: Command) -> Command:
    """Whether paths are left out of what is shown."""
    return click.option(
        "--redact",
        is_flag=True,
        help="Leave out the paths of models. The commands that reproduce the run are then incomplete.",
    )(command)


def margin(command: Command) -> Command:
    """From where on a difference matters."""
    return click.option(
        "--margin",
        callback=a_margin,
        metavar="POINTS[,xRATIO]",
        help="The smallest difference that matters: percentage points, and a ratio of word perplexity."
        "  [default: 1,x1.10]",
    )(command)


def limit(command: Command) -> Command:
    """What may be lost: a policy file, or the short form."""
    options = (
        click.option(
            "--policy",
            type=Place(path_type=Path),
            help="A policy file, a pyproject.toml, or leaderboard-v1, which comes with qeval and is for the"
            " suite of that name.",
        ),
        click.option(
            "--max-drop",
            multiple=True,
            metavar="POINTS",
            help="Percentage points that may be lost: 1.0, or for one task mmlu=0.5; repeatable.",
        ),
        click.option(
            "--max-ppl-ratio",
            type=float,
            metavar="RATIO",
            help="The same for perplexities: 1.02.  [default: 1.10 of word perplexity]",
        ),
        click.option(
            "--confidence", type=float, metavar="C", help="One-sided, for --max-drop.  [default: 0.95]"
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def policy(command: Command) -> Command:
    """What is allowed: the limits, and what is forgiven."""
    options = (
        click.option(
            "--ungated",
            multiple=True,
            metavar="TASK",
            help="A task that no rule has to judge; a name or a pattern, repeatable. Printed everywhere.",
        ),
        click.option(
            "--allow-limited", is_flag=True, help="Let a run with --limit pass. Printed everywhere."
        ),
        click.option("--allow-inconclusive", is_flag=True, help="Exit 0 when undecided. Printed everywhere."),
        click.option(
            "--allow-unproved-model",
            is_flag=True,
            help="Let variants pass that are not proved to come from one model. Printed everywhere.",
        ),
        click.option(
            "--allow-identical",
            is_flag=True,
            help="Let a variant pass whose numbers are exactly the baseline's. Printed everywhere.",
        ),
        click.option(
            "--allow-unquantised",
            is_flag=True,
            help="Let a variant pass whose weights are mostly unquantised. Printed everywhere.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return limit(command)


def mirror(command: Command) -> Command:
    """Where data sets come from before the Hub."""
    return click.option(
        "--datasets-dir",
        type=Place(path_type=Path, exists=True, file_okay=False),
        envvar="QEVAL_DATASETS_DIR",
        help="A mirror of Hub data sets, DIR/<org>/<name>, used before the Hub.",
    )(command)


def tasks_dir(command: Command) -> Command:
    """Where tasks of one's own lie."""
    return click.option(
        "--tasks-dir",
        type=Place(path_type=Path, exists=True, file_okay=False),
        envvar="QEVAL_TASKS_DIR",
        help="A folder of lm-eval tasks of your own.  [default: that of the suite's file, if they lie there]",
    )(command)


def gpu_memory(command: Command) -> Command:
    """How much of a GPU is taken."""
    return click.option(
        "--gpu-memory",
        callback=amount,
        metavar="SIZE",
        help="Use no more of the GPU's memory than this: 24GiB.  [default: all of it]",
    )(command)


def fidelity(command: Command) -> Command:
    """By which protocols it is measured how far variants moved."""
    command = click.option(
        "--fidelity-cache-limit",
        callback=amount,
        metavar="SIZE",
        help="Keep at most this much of the baseline's head inputs in the cache; older entries give way."
        "  [default: 64GiB]",
    )(command)
    return click.option(
        "--fidelity",
        metavar="LIST",
        help="Measure how far the next token's distribution moves: wikitext-2048, llama.cpp-512, prose,"
        " text:FILE, prompts:FILE, trace:FILE[,N], or none.  [default: the suite's; none with --limit]",
    )(command)


def gpus_per_variant(command: Command) -> Command:
    """How many GPUs the weights of a variant lie on."""
    return click.option(
        "--gpus-per-variant",
        "gpus",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="K",
        help="Spread the layers of each variant over K GPUs, for models too large for one.",
    )(command)


def placement(command: Command) -> Command:
    """Where weights lie while they are scored."""
    return click.option(
        "--placement",
        type=OneOf(["auto", "resident", "streamed"]),
        default="auto",
        show_default=True,
        help="Whether weights lie on the GPU or are streamed from host memory layer by layer; auto streams"
        " what does not fit.",
    )(command)


def loudness(command: Command) -> Command:
    """How much is told, as a number `loudness`: -1 the least, 0 the usual, 1 the most."""
    return click.option(
        "--quiet/--verbose",
        "-q/-v",
        "loudness",
        default=None,
        callback=lambda _ctx, _option, quiet: 0 if quiet is None else -1 if quiet else 1,
        help="Print less, or more, about what is going on.",
    )(command)


def as_json(command: Command) -> Command:
    """Whether a program reads what is printed."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def open_runs(
    names: Sequence[str],
    runs_dir: Path,
    baseline: str | None = None,
    *,
    allow_different_models: bool = False,
    redact: bool = False,
    paths: dict[str, str] | None = None,
    margin: Margin | None = None,
) -> tuple[Evidence, Reader]:
    """The runs that a person named (where none is, the newest to be shown, see `meant`) as one that is
    compared with `baseline`, and what reads their cells; `redact`: without the paths of models and files, to
    be shown and never judged, as rules are about real names, and `paths` is what `hiding` calls those of
    other runs; `margin` is the smallest difference that matters."""
    from qeval.cli.meant import meant
    from qeval.compare.evidence import with_baseline
    from qeval.compare.merge import merge
    from qeval.store.runs import Store

    store = Store(runs_dir)
    places = [store.open(name) for name in meant(names, runs_dir, told=not redact)]
    opened = [(place, place.read()) for place in places]
    runs = [run for _, run in opened]
    run = (
        with_baseline(runs[0], baseline)
        if len(runs) == 1
        else merge(runs, baseline, allow_different_models=allow_different_models)
    )
    return evidence_of(run, opened, redact=redact, paths=paths, margin=margin)


def evidence_of(
    run: Run,
    opened: Sequence[tuple[RunDir, Run]],
    *,
    redact: bool = False,
    paths: dict[str, str] | None = None,
    margin: Margin | None = None,
) -> tuple[Evidence, Reader]:
    """A run that was made of the `opened` ones, compared, and what reads its cells; `redact` and
    `paths` as above."""
    from qeval.base.redacted import redacted
    from qeval.compare.evidence import gather
    from qeval.compare.fidelity import renamed, without_files
    from qeval.store.reader import reader
    from qeval.store.standing import standings

    read = reader(opened)
    shown = redacted(run, paths) if redact else run
    evidence = gather(shown, read.samples)
    moved = _fidelity(run, opened)
    if redact:
        names = [result.variant.name for result in run.results]
        called = [result.variant.name for result in shown.results]
        moved = without_files(renamed(moved, dict(zip(names, called, strict=True))))
    joined = tuple(redacted(one, paths) if redact else one for _, one in opened) if len(opened) > 1 else ()
    stands = standings(joined or (shown,), opened, told=not redact)
    margin = margin or evidence.margin
    return replace(evidence, fidelity=moved, margin=margin, joined=joined, standing=stands), read


def _fidelity(run: Run, opened: Sequence[tuple[RunDir, Run]]) -> FidelityRows:
    """How far distributions moved, as far as the runs tell."""
    from qeval.compare.fidelity import rows_of
    from qeval.store import fidelity

    found = [(place, *fidelity.of_run(place, of)) for place, of in opened]
    told = [(place, one) for place, whole, _ in found for one in whole]
    places = {one.key: place.path for place, one in told}
    kept: dict[str, tuple[Positions, Stream]] = {}

    def read(one: Measured) -> tuple[Positions, Stream]:
        if one.key not in kept:
            path = places[one.key]
            kept[one.key] = fidelity.positions(path, one), fidelity.stream(path, one)
        return kept[one.key]

    order = [result.variant.name for result in run.results]
    rows = rows_of([one for _, one in told], read, order, run.baseline)
    return replace(rows, damaged=tuple(text for _, _, broken in found for text in broken))
