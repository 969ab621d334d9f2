"""What a person sees on stderr while variants are scored: a line for each, or few lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from qeval.base import numbers
from qeval.base.layout import fitted
from qeval.base.messages import (
    Done,
    Event,
    Expected,
    Failed,
    Finished,
    Note,
    Progress,
    Stage,
    Stopped,
    Todo,
)
from qeval.base.names import short
from qeval.base.private import withheld
from qeval.base.records import Variant
from qeval.base.text import printable
from qeval.cli import speech
from qeval.cli.remaining import Total, clock, line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import Task, TaskID

_EVERY_SECONDS = 60.0
_REUSED = "finished earlier"
_NAME, _WHAT = 24, 20
"""Characters of a variant's name and of a task's in a line of progress."""


class Lines:
    """Line by line, for logs and pipes: a line for each thing that happens once, and one a minute of what
    goes on. `loudness`: 1 tells everything, -1 failures alone."""

    def __init__(
        self,
        out: TextIO | None = None,
        variants: int = 1,
        loudness: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out = out or sys.stderr
        self.all = Total(variants, now)
        self.loudness = loudness
        self.stages: dict[str, str] = {}
        self.spoke = now()

    def __call__(self, variant: Variant, event: Event) -> None:
        """Tell of an event."""
        self.all.hear(variant.name, event)
        for text in self.texts(variant.name, event):
            print(printable(withheld(text)), file=self.out, flush=True)
            if isinstance(event, Progress | Finished | Stage):
                self.spoke = self.all.now()

    def texts(self, name: str, event: Event) -> list[str]:
        """The lines for an event, mostly none."""
        if self.loudness < 0 and not isinstance(event, Failed):
            return []
        if isinstance(event, Progress):
            return self.progress(name, event.task) if self.due() else []
        often = isinstance(event, Finished) or (isinstance(event, Stage) and self.again(name, event.text))
        if often and self.loudness < 1 and not self.due():
            return []
        text = sentence(event)
        return [f"[{name}] {text}"] if text else []

    def progress(self, name: str, task: str) -> list[str]:
        """How far a variant has come, and all of them where there are several."""
        return [variant_line(self.all, name, task), *([self.all.text()] if self.all.variants > 1 else [])]

    def due(self) -> bool:
        """Whether a minute has passed since something was told of what goes on."""
        return self.all.now() - self.spoke >= _EVERY_SECONDS

    def again(self, name: str, stage: str) -> bool:
        """Whether a variant is still in a stage of the kind that it was in."""
        kind = stage.partition(":")[0]
        before, self.stages[name] = self.stages.get(name), kind
        return before == kind


def variant_line(total: Total, name: str, what: str) -> str:
    """The line of a variant: "[2/3] gptq  hellaswag  43 %  elapsed 3:10  about 4 min left"."""
    named = f"[{total.place(name)}/{max(total.variants, total.place(name))}] {short(name, _NAME)}"
    return line(named, short(what, _WHAT), total.share_of(name), total.time_of(name))


def sentence(event: Event) -> str:
    """What an event means, in words; "" for those that only move a bar."""
    match event:
        case Stage(text=text) | Note(text=text) | Stopped(text=text):
            return text if text != _REUSED else f"{_REUSED}: nothing is scored again"
        case Todo(tasks=tasks, found=found):
            kept = f", {found} finished earlier" if found else ""
            return f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'} to score{kept}"
        case Finished(cell=cell):
            return f"{cell.task.name}: {cell.n} items" + (
                f" in {cell.seconds:.0f} s" if cell.seconds >= 1 else ""
            )
        case Failed(message=message, hint=hint):
            return f"FAILED. {message} {hint}".strip()
        case Done(seconds=seconds):
            return f"done{_in_phases(seconds)}"
    return _predicted(event) if isinstance(event, Expected) else ""


def _in_phases(seconds: dict[str, float]) -> str:
    """How long it took, and on what, longest first."""
    told = sorted(((name, spent) for name, spent in seconds.items() if spent >= 1), key=lambda one: -one[1])
    parts = ", ".join(f"{name} {spent:.0f}" for name, spent in told)
    return f" in {sum(seconds.values()):.0f} s ({parts})" if parts else ""


def _predicted(expected: Expected) -> str:
    """What is still to come, the longest phases by name; "" where it is next to nothing."""
    whole = sum(expected.seconds.values())
    if whole < 1:
        return ""
    longest = sorted(expected.seconds.items(), key=lambda one: -one[1])[:3]
    parts = ", ".join(f"{name} {numbers.duration(spent)}" for name, spent in longest if spent >= 1)
    told = f"about {numbers.duration(whole)} to go" + (f": {parts}" if parts else "")
    return f"{told} ({expected.how})"


class Terminal:
    """A line for each variant and one for all, kept up to date; what happens once stays above them."""

    def __init__(self, bars: Bars, variants: int = 1, loudness: int = 0) -> None:
        self.bars = bars
        self.rows: dict[str, TaskID] = {}
        self.all = Total(variants)
        self.loudness = loudness
        self.ends: dict[TaskID, str] = {}
        self.last = bars.add_task("all", total=None, what="") if variants > 1 else None

    def __call__(self, variant: Variant, event: Event) -> None:
        """Tell of an event."""
        self.all.hear(variant.name, event)
        row = self.row(variant.name)
        if self.last is not None and self.all.of:
            self.bars.update(self.last, total=self.all.of, completed=self.all.answered)
        match event:
            case Stage(text=text):
                self.bars.update(row, what=text)
                if text == _REUSED:
                    self.end(row, variant.name, text)
            case Todo(tasks=tasks):
                self.bars.update(row, total=sum(count for _, count in tasks), completed=0)
            case Progress(task=task, done=done):
                self.bars.update(row, completed=done, what=task)
            case Failed() | Stopped():
                self.end(row, variant.name, "failed" if isinstance(event, Failed) else "stopped")
                self.bars.stop_task(row)
            case Done():
                total = self.bars.tasks[row].total or 1
                self.bars.update(row, total=total, completed=total)
                self.end(row, variant.name, f"done in {clock(self.all.time_of(variant.name)[0])}")
        if self.stays(event) and (text := sentence(event)):
            colour = "red" if isinstance(event, Failed | Stopped) else "cyan"
            self.tell(variant.name, text, colour)

    def tell(self, name: str, text: str, colour: str) -> None:
        """Have a line stay above the others; it goes on where no command is broken."""
        from rich.text import Text

        name, console = _plain(name), self.bars.console
        told = Text(fitted(f"{name} {_plain(text)}", console.width))
        told.stylize(colour, 0, len(name))
        console.print(told, highlight=False, soft_wrap=True)

    def stays(self, event: Event) -> bool:
        """Whether what is said of an event stays above the lines."""
        if isinstance(event, Stage | Finished | Done):
            return self.loudness > 0
        return not isinstance(event, Todo) or event.found > 0

    def end(self, row: TaskID, name: str, how: str) -> None:
        """Have the line of a variant say how it ended, for good."""
        place = self.all.place(name)
        self.ends[row] = f"[{place}/{max(self.all.variants, place)}] {short(name, _NAME)}  {how}"
        self.bars.update(row, what=how)

    def text(self, row: TaskID, what: str) -> str:
        """A line as it is now."""
        name = next((name for name, task in self.rows.items() if task == row), None)
        if name is None:
            return self.all.text()
        return self.ends.get(row) or variant_line(self.all, name, what)

    def row(self, name: str) -> TaskID:
        """The line of a variant, begun at its first event."""
        if name not in self.rows:
            self.rows[name] = self.bars.add_task(_shown(name), total=None, what="starting")
        return self.rows[name]


def _shown(text: str) -> str:
    """Text as it is, on one line, for rich."""
    from rich.markup import escape

    return escape(_plain(text))


def _plain(text: str) -> str:
    words = "  ".join(" ".join(part.split()) for part in text.split("  "))
    return printable(withheld(words))


@contextmanager
def display(variants: int = 1, loudness: int = 0) -> Iterator[Lines | Terminal]:
    """A listener for the events of a run of so many variants, fitting what stderr is; `loudness`: -1 for
    failures alone, 1 for everything."""
    if loudness < 0 or not sys.stderr.isatty():
        yield Lines(variants=variants, loudness=loudness)
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Line(ProgressColumn):
        """A line, by what the listener knows."""

        of: Terminal | None = None

        def render(self, task: Task) -> Text:
            told = self.of.text(task.id, task.fields["what"]) if self.of else ""
            return Text(_plain(told), no_wrap=True, overflow="ellipsis")

    shown = Line()
    console = Console(stderr=True, no_color=not speech.coloured(err=True))
    with Bars(shown, console=console) as bars:
        shown.of = Terminal(bars, variants, loudness)
        yield shown.of
