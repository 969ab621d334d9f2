"""What a person sees while variants are scored: bars on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
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


class Total:
    """All variants of a run together: what is answered, of how much, and how long the rest will take.

    What is not known yet is taken to be as long as what is: variants answer the same questions. A variant is
    over when its end was told, whatever it answered.
    """

    def __init__(self, variants: int, now: Callable[[], float] = time.monotonic) -> None:
        self.variants, self.now = variants, now
        self.planned: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.over: set[str] = set()
        self.began: float | None = None

    def hear(self, name: str, event: Event) -> None:
        """Take account of an event of a variant."""
        match event:
            case Todo(tasks=tasks):
                self.planned[name] = sum(count for _, count in tasks)
                self.done[name] = 0
            case Progress(done=done):
                self.began = self.now() if self.began is None else self.began
                self.done[name] = done
            case Done() | Failed() | Stopped():
                self.over.add(name)
            case Stage(text="finished earlier"):
                self.planned[name] = self.done[name] = 0
                self.over.add(name)

    @property
    def of(self) -> int:
        """Requests of all variants."""
        most = max(self.planned.values(), default=0)
        return sum(self.planned.values()) + most * max(0, self.variants - len(self.planned))

    @property
    def answered(self) -> int:
        """Those that need nobody any more."""
        done = {name: self.planned.get(name, 0) for name in self.over} | {
            name: count for name, count in self.done.items() if name not in self.over
        }
        return sum(done.values())

    def left(self) -> float | None:
        """Seconds to the end, by the pace so far; None where there is none yet."""
        answered = sum(self.done.values())
        if self.began is None or not answered or (spent := self.now() - self.began) <= 0:
            return None
        return spent / answered * max(0, self.of - self.answered)

    def text(self) -> str:
        """A clause on all variants; "" where there is but one, or nothing to tell yet."""
        if self.variants < 2 or not self.of:  # noqa: PLR2004 - one is no total
            return ""
        left = self.left()
        time_left = f", {left / 60:.0f} min left" if left is not None else ""
        return f" (all variants: {self.answered / self.of:.0%}{time_left})"


class Lines:
    """Line by line, for logs and pipes: a line for each stage and task, at most one in 30 s in between."""

    def __init__(self, out: TextIO | None = None, variants: int = 1) -> None:
        self.out = out or sys.stderr
        self.all = Total(variants)
        self.total: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.spoke = 0.0

    def __call__(self, variant: Variant, event: Event) -> None:
        """Tell of an event."""
        self.all.hear(variant.name, event)
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
            return "" if quiet else f"{event.task}: {self.share(name)}{self.all.text()}"
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
    """Bars with time left, one for each variant and one for all; notes and failures stay above them."""

    def __init__(self, bars: Bars, variants: int = 1) -> None:
        self.bars = bars
        self.rows: dict[str, TaskID] = {}
        self.all = Total(variants)
        self.last = bars.add_task("all", total=None, what="") if variants > 1 else None

    def __call__(self, variant: Variant, event: Event) -> None:
        """Tell of an event."""
        row = self.row(variant.name)
        self.all.hear(variant.name, event)
        if self.last is not None and self.all.of:
            self.bars.update(self.last, total=self.all.of, completed=self.all.answered)
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
def display(variants: int = 1) -> Iterator[Lines | Terminal]:
    """A listener for the events of a run of so many variants, fitting what stderr is."""
    if not sys.stderr.isatty():
        yield Lines(variants=variants)
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
        yield Terminal(bars, variants)
