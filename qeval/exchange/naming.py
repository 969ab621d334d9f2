"""Names that were imported stand on one line: what follows a break would be read as a line of qeval's own."""

from __future__ import annotations

from collections.abc import Iterator

from qeval.base.errors import UsageError
from qeval.base.records import Run


def refuse_breaks(run: Run) -> None:
    """Raise UsageError for a name of a run that has a line break in it, of whatever kind."""
    for what, name in _names(run):
        if name.splitlines() not in ([], [name]):
            raise UsageError(
                f"The name of a {what} has a line break in it: {name!r}.",
                "Write it on one line in the file, or choose one with --name.",
            )


def _names(run: Run) -> Iterator[tuple[str, str]]:
    """(what is named, its name) of all that a verdict or a table may name."""
    yield "suite", run.suite.name
    yield "model", run.model
    for result in run.results:
        yield "variant", result.variant.name
        yield "model", result.variant.model
        for cell in result.cells:
            yield "task", cell.task.name
            yield "group", cell.task.group or ""
            yield "metric", cell.task.metric
            yield "filter", cell.task.filter
