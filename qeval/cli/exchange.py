"""`qeval import` and `qeval export`: what others measured becomes a run, and a run what others read."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from qeval.base.errors import UsageError
from qeval.base.garbage import uncollected
from qeval.cli import configured, options
from qeval.cli.speech import say, width
from qeval.exchange.columns import COLUMNS, NEEDED

if TYPE_CHECKING:
    from qeval.compare.evidence import Evidence
    from qeval.exchange.lm_eval.reading import Imported
    from qeval.exchange.source import Said
    from qeval.store.runs import RunDir


_TABLES = (".csv", ".tsv", ".toml")
_COLUMN = max(map(len, COLUMNS)) + 2
_HELP = f"""Import results as a run: files of lm-eval, lighteval or inspect, or a table of scores.

PATH is a directory or a file; several may be named. Results with samples are paired item by
item, proved by hashes; those without are compared as unpaired scores, and marked as such.

A table has a row for each variant and task. Of its columns, {
    ", ".join(NEEDED)
} and score or right are required:

\b
{
    chr(10).join(
        textwrap.fill(f"{name:<{_COLUMN}}{what}", 76, subsequent_indent=" " * _COLUMN)
        for name, what in COLUMNS.items()
    )
}
"""


@click.command("import", cls=configured.Making, help=_HELP)
@click.argument(
    "paths", nargs=-1, required=True, type=options.Place(path_type=Path, exists=True), metavar="PATH..."
)
@click.option("--scores", is_flag=True, help="PATH is a table of scores; .csv, .tsv and .toml always are.")
@click.option("--percent", is_flag=True, help="The scores of the table are in per cent.")
@click.option(
    "--name", metavar="NAME", help="What to call the variant, where the results are of a single one."
)
@click.option(
    "--model",
    metavar="MODEL",
    help="The model to take from a table of scores; where it names none, the one that all its scores are of.",
)
@click.option("--baseline", metavar="NAME", help="Compare with this variant; needed where there are several.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="[TASK=]METRIC", help="The metric to judge by; repeatable."
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="[TASK=]FILTER",
    help="The filter whose answers to judge; repeatable.",
)
@options.runs_dir
@click.pass_context
def import_(
    ctx: click.Context, /, paths: tuple[Path, ...], runs_dir: Path, scores: bool, **asked: Any
) -> None:
    """What `_HELP` says."""
    from qeval.cli.ordering import remembered
    from qeval.exchange.telling import remarks

    with uncollected(), remembered((), runs_dir, ctx.meta[configured.TYPED]):
        as_table = scores or all(path.suffix.lower() in _TABLES for path in paths)
        imported = _scores(paths, **asked) if as_table else _lm_eval(paths, **asked)
        place = _keep(imported, runs_dir)
    typed = ctx.get_parameter_source("runs_dir") is ParameterSource.COMMANDLINE
    where = {"runs-dir": runs_dir} if typed else {}
    again = _again(paths[0], scores=scores, **asked, **where) if as_table else ""
    for note in remarks(imported.run, str(place.path), again):
        say(note, err=True)
    say(str(place.path))
    if width(err=True):  # a person reads it; for a program silence means that nothing was left out
        say(_next(place, imported), err=True)


def _next(place: RunDir, imported: Imported) -> str:
    """The commands that render and judge what was imported, one a line."""
    from qeval.base import next_steps
    from qeval.exchange.telling import unproved

    steps = [next_steps.report(str(place.path))]
    if len(imported.run.results) > 1:
        allowing = (next_steps.UNPROVED,) if unproved(imported.run) else ()
        steps.append(next_steps.gate(str(place.path), imported.run.suite.name, allowing))
    return next_steps.listed(steps)


def _again(path: Path, **asked: Any) -> str:
    """The command that imports a table in the same way."""
    given = {name: value for name, value in asked.items() if value}
    words = [(f"--{name}",) if value is True else (f"--{name}", str(value)) for name, value in given.items()]
    return shlex.join(["qeval", "import", str(path), *(word for some in words for word in some)])


def _scores(
    paths: Sequence[Path],
    *,
    name: str | None,
    model: str | None,
    baseline: str | None,
    percent: bool,
    **others: Any,
) -> Imported:
    from qeval.exchange.lm_eval.reading import Imported
    from qeval.exchange.scores import import_scores

    _refuse(others, "a table of scores knows nothing of it")
    if len(paths) > 1:
        raise UsageError(
            f"There are {len(paths)} tables of scores, and one is imported at a time.",
            "Join them into one: each row names its variant.",
        )
    run = import_scores(paths[0], name=name, model=model, baseline=baseline, percent=percent)
    return Imported(run, {}, {})


def _lm_eval(
    paths: Sequence[Path],
    *,
    name: str | None,
    baseline: str | None,
    metrics: Sequence[str],
    filters: Sequence[str],
    **others: Any,
) -> Imported:
    from qeval.exchange.lm_eval.judging import Wishes
    from qeval.exchange.lm_eval.reading import import_lm_eval

    _refuse(others, "it is for a table of scores (--scores)")
    wishes = Wishes(_by_task("--metric", metrics), _by_task("--filter", filters))
    return import_lm_eval(*paths, name=name, baseline=baseline, wishes=wishes)


def _refuse(others: Mapping[str, Any], why: str) -> None:
    """Raises UsageError for an option that would be ignored."""
    for name, value in others.items():
        if value:
            option = f"--{name.removesuffix('s')}"
            raise UsageError(f"{option} means nothing here: {why}.", f"Leave {option} out.")


def _by_task(option: str, words: Sequence[str]) -> dict[str, str]:
    """What is chosen for each task, under "" for all. Raises UsageError for one that is chosen for twice."""
    found: dict[str, str] = {}
    for word in words:
        task, _, name = word.rpartition("=")
        if task in found:
            whom = f"for {task}" if task else "for all tasks"
            raise UsageError(f"{option} chooses {whom} twice: {found[task]} and {name}.", "Keep one of them.")
        found[task] = name
    return found


def _keep(imported: Imported, runs_dir: Path) -> RunDir:
    """Keep a run that can be read again; the same input always becomes the same run.

    Raises QevalError where it cannot; then nothing is written.
    """
    from qeval.exchange.naming import refuse_breaks
    from qeval.store.lock import LockedError, held
    from qeval.store.runs import Store, check_readable

    refuse_breaks(imported.run)
    check_readable(imported.run)
    store = Store(runs_dir)
    place = store.run_dir(imported.run.id)
    fresh = not place.path.exists()
    try:
        with held(place.path):
            _write(imported, place)
    except LockedError:
        raise
    except BaseException:
        if fresh:
            shutil.rmtree(place.path, ignore_errors=True)
        raise
    store.mark_newest(imported.run.id)
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


def _address(_: click.Context, option: click.Parameter, text: str | None) -> str:
    """An address of the web as it is, "" where none is given."""
    if text is not None and not re.fullmatch(r"https?://[^\s<>\"']+", text):
        raise click.BadParameter(f"{text!r} is not an address. Write https://...", param=option)
    return text or ""


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
    type=options.Output(path_type=Path, file_okay=False),
    required=True,
    help="A directory to write to.",
)
@click.option(
    "--source-url",
    "url",
    metavar="URL",
    callback=_address,
    help="Where this run can be seen; eval-results and model-card give it as their source.",
)
def export(
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    allow_different_models: bool,
    redact: bool,
    to: str,
    output: Path,
    url: str,
) -> None:
    """Give a run to other tools: lm-eval's layout, flat tables, the Hub's metadata."""
    from qeval.exchange.export import export as write

    with uncollected():
        evidence, read = options.open_runs(
            runs, runs_dir, baseline, allow_different_models=allow_different_models, redact=redact
        )
        told: list[str] = []
        paths = write(
            evidence, read.samples, read.items, to, output, url=url, tell=told.append, said=_said(evidence)
        )
    for remark in told:
        say(remark, err=True)
    for path in paths:
        say(str(path))


def _said(evidence: Evidence) -> dict[str, Said]:
    """What a report says of each variant."""
    from qeval.exchange.source import Said
    from qeval.report.cautions import of_variant
    from qeval.report.verdicts import verdict_of

    found = {}
    for result in evidence.run.results:
        name = result.variant.name
        verdict = verdict_of(result, evidence, ())
        words = "" if verdict.status == "BASELINE" else f"{verdict.word}. {verdict.sentence}"
        found[name] = Said(words, of_variant(evidence, name))
    return found
