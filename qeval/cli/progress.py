"""What a person sees while variants are scored: bars on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from qeval.base.messages import Done, Event, Failed, Finished, Note, Progress, Stage, Stopped, Todo
from qeval.base.private import withheld
from qeval.base.records import Variant
from qeval.base.text import one_line, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_EVERY_SECONDS = 30.0


class Lines:
    """Line by line, for logs and pipes: a line for each stage and task, at most one in 30 s in between."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.total: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.spoke = 0.0

    def __call__(self, variant: Variant, event: Event) -> None:
        """Tell of an event."""
        text = self.text(variant.name, event)
        if text:
            print(printable(withheld(f"[{variant.name}] {text}")), file=self.out, flush=True)
            self.spoke = time.monotonic()

    def text(self, name: str, event: Event) -> str:
        """The sentence for an event, or "" for none."""
        if isinstance(event, Todo):
            self.total[name] = sum(count for _, count in event.tasks)
        if isinstance(event, Progress):
            self.done[name] = event.done
            quiet = time.monotonic() - self.spoke < _EVERY_SECONDS
            return "" if quiet else f"{event.task}: {self.share(name)}"
        return sentence(event)

    def share(self, name: str) -> str:
        """How far a variant has come, in requests."""
        return f"{self.done.get(name, 0)} of {self.total.get(name, 0)} requests"


def sentence(event: Event) -> str:
    """What an event means, in words; "" for those that only move a bar."""
    match event:
        case Stage(text=text) | Note(text=text) | Stopped(text=text):
            return text
        case Todo(tasks=tasks, found=found):
            kept = f", {found} finished earlier" if found else ""
            return f"{len(tasks)} tasks to score{kept}"
        case Finished(cell=cell):
            return f"{cell.task.name}: {cell.n} items" + (
                f" in {cell.seconds:.0f} s" if cell.seconds >= 1 else ""
            )
        case Failed(message=message, hint=hint):
            return f"FAILED. {message} {hint}".strip()
        case Done(seconds=seconds):
            return f"done{_in_phases(seconds)}"
    return ""


def _in_phases(seconds: dict[str, float]) -> str:
    """How long it took, and on what, longest first."""
    told = sorted(((name, spent) for name, spent in seconds.items() if spent >= 1), key=lambda one: -one[1])
    parts = ", ".join(f"{name} {spent:.0f}" for name, spent in told)
    return f" in {sum(seconds.values()):.0f} s ({parts})" if parts else ""


class Terminal:
    """Bars with time left, one for each variant; notes and failures stay above them."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.rows: dict[str, TaskID] = {}

    def __call__(self, variant: Variant, event: Event) -> None:
        """Tell of an event."""
        row = self.row(variant.name)
        match event:
            case Stage(text=text):
                self.bars.update(row, what=_shown(text))
            case Todo(tasks=tasks):
                self.bars.update(row, total=sum(count for _, count in tasks), completed=0)
            case Progress(task=task, done=done):
                self.bars.update(row, completed=done, what=_shown(task))
            case Note(text=text):
                self.bars.console.print(f"[cyan]{_shown(variant.name)}[/] {_shown(text)}", highlight=False)
            case Failed() | Stopped():
                self.bars.update(row, what="failed" if isinstance(event, Failed) else "stopped")
                self.bars.stop_task(row)
                text = _shown(sentence(event))
                self.bars.console.print(f"[red]{_shown(variant.name)}[/] {text}", highlight=False)
            case Done():
                total = self.bars.tasks[row].total or 1
                self.bars.update(row, total=total, completed=total, what="done")

    def row(self, name: str) -> TaskID:
        """The bar of a variant, begun at its first event."""
        if name not in self.rows:
            self.rows[name] = self.bars.add_task(_shown(name), total=None, what="starting")
        return self.rows[name]


def _shown(text: str) -> str:
    """Text as it is, on one line, for rich."""
    from rich.markup import escape

    return escape(printable(one_line(withheld(text))))


@contextmanager
def display() -> Iterator[Lines | Terminal]:
    """A listener for the events of a run, fitting what stderr is."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", style="dim"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield Terminal(bars)
