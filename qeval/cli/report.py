"""`qeval report` and `qeval view`: a run as a document, in files or in a browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.cli import options
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.base.records import Decision
    from qeval.compare.evidence import Evidence
    from qeval.compare.margin import Margin
    from qeval.store.reader import Reader

_USUAL_PORT = 8000


class _Outputs(click.Option):
    """An option whose help names the endings of all formats, which are looked up when it is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option's words and its help."""
        from qeval.report.formats import formats

        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  [{'|'.join(sorted(formats()))}]")


@click.command(cls=options.Strict)
@options.runs
@click.option(
    "--output",
    "-o",
    "outputs",
    type=options.Place(path_type=Path, dir_okay=False),
    multiple=True,
    required=True,
    cls=_Outputs,
    help="Where to write; the ending chooses the format. Repeatable.",
)
@options.policy
@options.margin
@click.option("--title", help="The report's title.")
@click.option("--short", is_flag=True, help="Markdown short enough for a pull-request comment.")
@click.option(
    "--assets",
    type=options.Place(path_type=Path, file_okay=False),
    help="Put Markdown's charts here, as SVG.",
)
def report(
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    allow_different_models: bool,
    redact: bool,
    outputs: tuple[Path, ...],
    title: str | None,
    short: bool,
    assets: Path | None,
    margin: Margin,
    **gate: Any,
) -> None:
    """Render a run (the newest, if none is named) as a document."""
    from qeval.ask.policy import choose
    from qeval.base.files import write_text
    from qeval.judge.gate import conclude
    from qeval.judge.redacted import without_paths
    from qeval.report.context import build
    from qeval.report.formats import Options, render

    def opened(*, redact: bool) -> tuple[Evidence, Reader]:
        return options.open_runs(
            runs,
            runs_dir,
            baseline,
            allow_different_models=allow_different_models,
            redact=redact,
            margin=margin,
        )

    evidence, read = opened(redact=redact)
    policy = choose(**gate, allow_different_models=allow_different_models)
    decisions: tuple[Decision, ...] = ()
    if policy:
        judged = opened(redact=False)[0] if redact else evidence
        outcome = conclude(judged, policy)
        outcome = without_paths(outcome, judged) if redact else outcome
        policy, decisions = outcome.policy, outcome.decisions
    context = build(evidence, read.items, decisions, policy, title=title)
    for path in outputs:
        write_text(path, render(context, path, Options(short, assets)))
        say(str(path))


@click.command(cls=options.Strict)
@options.runs
@options.margin
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Serve on localhost instead of opening a browser."
)
def view(
    runs: tuple[str, ...],
    runs_dir: Path,
    baseline: str | None,
    allow_different_models: bool,
    redact: bool,
    margin: Margin,
    port: int | None,
) -> None:
    """Open the HTML report of a run (the newest, if none is named)."""
    from qeval.report.context import build
    from qeval.report.formats.html import render_html

    evidence, read = options.open_runs(
        runs,
        runs_dir,
        baseline,
        allow_different_models=allow_different_models,
        redact=redact,
        margin=margin,
    )
    page = render_html(build(evidence, read.items))
    _show(page, port, say=lambda text: say(text, err=True))


def _show(page: str, port: int | None, *, say: Callable[[str], None]) -> None:
    """Open the page in the desktop's browser, or serve it where a port is asked for or no display is.

    Serving ends with KeyboardInterrupt. Raises QevalError where the port is taken.
    """
    import tempfile
    import webbrowser

    if port is None and _has_display():
        file = Path(tempfile.mkdtemp(prefix="qeval-")) / "report.html"
        file.write_text(page, encoding="utf-8")
        say(f"Opening {file}")
        webbrowser.open(file.as_uri())
        return
    from qeval.cli.serving import server

    with server(page, _USUAL_PORT if port is None else port) as serving:
        say(f"Serving the report on http://localhost:{serving.server_address[1]}/ until Ctrl-C.")
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")


def _has_display() -> bool:
    return sys.platform in {"darwin", "win32"} or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
