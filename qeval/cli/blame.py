"""`qeval blame`: which layers, kinds or modules of a quantised model move its distribution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.waiting import wait_briefly
from qeval.cli import options
from qeval.cli.meant import OneOf
from qeval.cli.speech import print_json, say, width

if TYPE_CHECKING:
    from qeval.base.protocols import Protocol
    from qeval.score.blame.blaming import Question


@click.command(cls=options.Strict)
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory or demo."
)
@click.option("--scheme", "-s", required=True, metavar="SCHEME", help="One scheme, as in `qeval run`.")
@click.option(
    "--baseline", default="fp16", show_default=True, metavar="SCHEME", help="What it is swapped into."
)
@click.option(
    "--by",
    type=OneOf(["layer", "kind", "module"]),
    default="layer",
    show_default=True,
    help="What is swapped at a time: a layer, a kind of module in all layers, or a single module.",
)
@click.option(
    "--fidelity",
    default="prose[windows=8]",
    show_default=True,
    metavar="PROTOCOL",
    help="The text that divergence is measured on; as in `qeval run`, but not a trace.",
)
@click.option(
    "--bits",
    type=click.FloatRange(min=0, min_open=True),
    default=0.25,
    show_default=True,
    help="Bits per weight that the modules to leave plain may add, over the whole model.",
)
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option("--dtype", default="auto", show_default=True, help="Type to calculate in.")
@click.option("--chart", type=options.Output(path_type=Path, dir_okay=False), help="Draw the groups as SVG.")
@options.mirror
@options.as_json
def blame(chart: Path | None, as_json: bool, **asked: Any) -> None:
    """Find where a scheme's divergence from the baseline comes from.

    One group of modules at a time is swapped into the baseline. The table says what each moves alone and what
    leaving it plain would cost in bits; where the scheme can leave modules out, the list is ready to
    paste.
    """
    wait_briefly()
    from qeval.base.files import write_text
    from qeval.base.places import cache_dir
    from qeval.base.plain import plain
    from qeval.base.redirect import libraries_to
    from qeval.report import blame as report

    question = _question(**asked)
    from qeval.score.blame.blaming import blame as lay
    from qeval.score.blame.blaming import check

    check(question)
    with libraries_to(cache_dir() / "blame.log") as tell:
        found = lay(question, tell)
    if chart is not None:
        write_text(chart, report.chart(found))
    scheme = question.variant.scheme
    if as_json:
        print_json(plain(report.as_data(found, scheme)))
    else:
        say(report.table(found, scheme, width()))


def _question(*, model: str, revision: str | None, scheme: str, baseline: str, **more: Any) -> Question:
    """What is blamed on what. Raises UsageError for words that make no sense, before anything heavy is
    imported."""
    from qeval.ask.model import split_revision
    from qeval.base.errors import UsageError
    from qeval.base.places import cache_dir
    from qeval.base.records import Variant
    from qeval.load.schemes import parse_schemes
    from qeval.load.toy import is_toy

    if is_toy(model):
        raise UsageError("The toy has no modules.", "Use --model demo.")
    protocol = _protocol(more.pop("fidelity"))
    model, revision = split_revision(model, revision)
    pair = [*parse_schemes(baseline), *parse_schemes(scheme)]
    if len(pair) > 2:  # noqa: PLR2004 - the baseline's and one other
        raise UsageError(
            "--scheme names several schemes.", "Name one; run the command once more for another."
        )
    first, second = (Variant(name, model, one, revision) for name, one in pair)
    from qeval.score.blame.blaming import Question

    return Question(first, second, protocol=protocol, cache_dir=cache_dir(), budget=more.pop("bits"), **more)


def _protocol(words: str) -> Protocol:
    """The one protocol that the words name. Raises UsageError where they name several."""
    from qeval.ask.protocols import check_files, parse
    from qeval.base.errors import UsageError

    protocols = parse(words)
    if len(protocols) > 1:
        raise UsageError("--fidelity names several protocols.", "Name one.")
    check_files(protocols)
    return protocols[0]
