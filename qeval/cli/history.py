"""`qeval history`: a variant and task over runs, each against the limit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.cli import options
from qeval.cli.speech import print_json, say, width

if TYPE_CHECKING:
    from qeval.compare.margin import Margin

ENDINGS = (".html", ".md", ".json", ".csv")


@click.command(cls=options.Strict)
@options.runs_dir
@click.option("--model", "-m", metavar="M", help="Runs of this model; a name or a pattern.")
@click.option("--suite", metavar="S", help="Runs of this suite; a name or a pattern.")
@click.option("--variant", metavar="V", help="This variant; a name or a pattern.")
@click.option(
    "--task", metavar="T", help="This row: a task, a subject, average, a fidelity protocol, or a pattern."
)
@options.margin
@options.limit
@options.redact
@click.option(
    "--output",
    "-o",
    "outputs",
    type=options.Output(path_type=Path, dir_okay=False),
    multiple=True,
    help=f"Write to a file instead; the extension chooses the format. Repeatable.  [{'|'.join(ENDINGS)}]",
)
@options.as_json
@click.pass_context
def history(
    ctx: click.Context,
    /,
    runs_dir: Path,
    model: str | None,
    suite: str | None,
    variant: str | None,
    task: str | None,
    margin: Margin,
    redact: bool,
    outputs: tuple[Path, ...],
    as_json: bool,
    **limits: Any,
) -> None:
    """Show a variant and task over runs, in time order, against a limit or, without one, the margin.

    A line continues only to a run that asked the same items in the same way; otherwise it is broken, and
    the reason is stated. Nothing is judged: no verdict changes the exit code.
    """
    from qeval.ask.policy import choose
    from qeval.base.files import write_text
    from qeval.cli.meant import refuse_nowhere
    from qeval.cli.past import history as lines
    from qeval.report.history import documents, terminal
    from qeval.report.history.series import Wanted
    from qeval.store.runs import Store

    refuse_nowhere(ctx, runs_dir)
    renderers = [documents.renderer(path) for path in outputs]
    wanted = Wanted(model or "", suite or "", variant or "", task or "")
    policy = choose(**limits, ungated=())
    found = lines(Store(runs_dir).runs(), wanted, policy, margin=margin, redact=redact)
    made = [_table(found) if render is None else render(found) for render in renderers]
    for path, text in zip(outputs, made, strict=True):
        write_text(path, text)
        say(str(path))
    if as_json:
        print_json(documents.document(found))
    elif not outputs:
        say(terminal.text(found, plain=not _has_blocks(), width=width() or terminal.WIDTH), paint=True)


def _table(found: Any) -> str:
    """The points as CSV."""
    from qeval.exchange.forms.csv import csv
    from qeval.report.history.documents import columns, rows

    made = rows(found)
    return csv(made) if made else ",".join(columns()) + "\n"


def _has_blocks() -> bool:
    """Whether what is printed may hold the signs of a strip."""
    try:
        "▁✓…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
