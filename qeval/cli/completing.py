"""What a shell offers to complete: schemes, suites, and the runs there are."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem


def runs(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Runs whose names begin so, in the directory that the words before it say."""
    from qeval.base.errors import QevalError
    from qeval.store.runs import Store

    place = ctx.params.get("runs_dir") or os.environ.get("QEVAL_RUNS_DIR") or "runs"
    try:
        names = [found.path.name for found in Store(Path(place)).runs()]
    except (QevalError, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def suites(_ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Suites whose names begin so."""
    from qeval.ask import suites as known

    return [CompletionItem(name) for name in known.names() if name.startswith(begun)]


def schemes(_ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """The last scheme of a list, behind those that stand before it already."""
    from qeval.load.schemes import SCHEMES

    before, comma, last = begun.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{name}", help=spec.summary)
        for name, spec in SCHEMES.items()
        if name.startswith(last) and name not in before.split(",")
    ]
