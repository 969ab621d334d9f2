"""`qeval view`: the report of a run in a browser; of several, a list to pick from, compare and follow."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qeval.cli import options
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.cli.serving import Pages
    from qeval.compare.margin import Margin
    from qeval.store.runs import RunDir

_USUAL_PORT = 8000


@click.command(cls=options.Strict)
@options.runs
@options.margin
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Serve on localhost at this port, and open no browser."
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
    """Open the HTML report of a run in a browser.

    Without a run, or with several, a list of them is served on localhost until Ctrl-C: each run's report,
    any two variants against each other, and lines over the runs.
    """
    if len(runs) == 1:
        _show_one(_report(runs[0], runs_dir, baseline, margin, redact=redact), port)
        return
    from qeval.cli.pages import Site
    from qeval.store.runs import Store

    store = Store(runs_dir)
    places = store.runs()
    for name in runs or (() if places else (None,)):
        store.open(name)  # what is not there is said before anything is served
    if baseline is not None:
        _check_baseline(baseline, [store.open(name) for name in runs] or places)
    site = Site(runs_dir, runs, baseline, any_model=allow_different_models, redact=redact, margin=margin)
    _serve(site.page, port, "the runs")


def _check_baseline(name: str, places: Sequence[RunDir]) -> None:
    """Raise UsageError for a baseline that none of the runs has."""
    from qeval.base.errors import UsageError, did_you_mean
    from qeval.cli.past import readable

    found, _ = readable(places)
    known = {result.variant.name for _, run in found for result in run.results}
    if found and name not in known:
        raise UsageError(f"No run here has a variant {name!r} to be the baseline.", did_you_mean(name, known))


def _report(name: str, runs_dir: Path, baseline: str | None, margin: Margin, *, redact: bool) -> str:
    from qeval.report.context import build
    from qeval.report.facts import asked_of
    from qeval.report.formats.html import render_html

    evidence, read = options.open_runs([name], runs_dir, baseline, redact=redact, margin=margin)
    return render_html(build(evidence, read.items, asked=asked_of(evidence, baseline)))


def _show_one(page: str, port: int | None) -> None:
    """Open the page in the desktop's browser, or serve it where a port is asked for or no display is.

    Serving ends with KeyboardInterrupt. Raises QevalError where the port is taken.
    """
    import tempfile
    import webbrowser

    from qeval.cli.serving import only

    if port is not None or not _has_display():
        _serve(only(page), port, "the report")
        return
    file = Path(tempfile.mkdtemp(prefix="qeval-")) / "report.html"
    file.write_text(page, encoding="utf-8")
    say(f"Opening {file}", err=True)
    webbrowser.open(file.as_uri())


def _serve(pages: Pages, port: int | None, what: str) -> None:
    import webbrowser

    from qeval.cli.serving import server

    with server(pages, _USUAL_PORT if port is None else port) as serving:
        address = f"http://localhost:{serving.server_address[1]}/"
        say(f"Serving {what} on {address} until Ctrl-C.", err=True)
        if port is None and _has_display():
            webbrowser.open(address)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.", err=True)


def _has_display() -> bool:
    return sys.platform in {"darwin", "win32"} or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
