"""What a person sees while variants are scored: bars on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from qeval.base import numbers
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
from qeval.base.private import withheld
from qeval.base.records import Variant
from qeval.base.text import one_line, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import Task, TaskID

_EVERY_SECONDS = 30.0
_TRUSTED = 4.0
"""How many times the share that is answered counts the pace so far, against the prediction."""


class Pace:
    """How long a variant will take: as predicted at first, by its own pace once a fourth is answered."""

    def __init__(self, expected: Expected, now: float) -> None:
        self.scoring = sum(expected.seconds.get(name, 0.0) for name in ("scoring", "verifying", "storing"))
        self.whole, self.told = sum(expected.seconds.values()), now
        self.tasks = expected.tasks
        self.began: float | None = None

    def share(self, asked: Sequence[tuple[str, int]], done: int) -> float:
        """The share of all work that the first `done` requests of those `asked`, by task, are."""
        found, left = 0.0, done
        for task, count in asked:
            part = min(count, max(left, 0))
            found, left = found + self.tasks.get(task, 0.0) * part / max(count, 1), left - count
        whole = sum(self.tasks.get(task, 0.0) for task, _ in asked)
        return found / whole if whole else done / max(sum(count for _, count in asked), 1)

    def left(self, now: float, share: float) -> float:
        """Seconds to its end where such a share of its work is done."""
        if self.began is None or not share:
            return max(self.whole - (now - self.told), self.scoring)
        spent, weight = now - self.began, min(1.0, _TRUSTED * share)
        return max(0.0, (1 - weight) * self.scoring + weight * spent / share - spent)


class Total:
    """All variants of a run together: what is answered, of how much, and how long the rest will take.

    What is not known yet is taken to be as long as what is: variants answer the same questions. A variant is
    over when its end was told, whatever it answered. Time left begins with what was predicted, if anything.
    """

    def __init__(self, variants: int, now: Callable[[], float] = time.monotonic) -> None:
        self.variants, self.now = variants, now
        self.planned: dict[str, int] = {}
        self.asked: dict[str, Sequence[tuple[str, int]]] = {}
        self.done: dict[str, int] = {}
        self.over: set[str] = set()
        self.paces: dict[str, Pace] = {}
        self.began: float | None = None

    def hear(self, name: str, event: Event) -> None:
        """Take account of an event of a variant."""
        match event:
            case Todo(tasks=tasks):
                self.planned[name] = sum(count for _, count in tasks)
                self.asked[name] = tasks
                self.done[name] = 0
            case Expected():
                self.paces[name] = Pace(event, self.now())
            case Progress(done=done):
                self.began = self.now() if self.began is None else self.began
                if (pace := self.paces.get(name)) and pace.began is None:
                    pace.began = self.now()
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
        """Seconds to the end, as predicted and by the pace so far; None where there is neither yet."""
        if self.paces:
            known = [self.left_of(name) or 0.0 for name in self.paces]
            ahead = self.variants - len(self.paces) - len(self.over - set(self.paces))
            usual = sum(pace.whole for pace in self.paces.values()) / len(self.paces)
            at_once = len(set(self.paces) - self.over)
            return (sum(known) + usual * max(0, ahead)) / max(1, at_once)
        answered = sum(self.done.values())
        if self.began is None or not answered or (spent := self.now() - self.began) <= 0:
            return None
        return spent / answered * max(0, self.of - self.answered)

    def left_of(self, name: str) -> float | None:
        """Seconds to the end of one variant, where something was predicted of it."""
        if name in self.over:
            return 0.0
        pace, asked = self.paces.get(name), self.asked.get(name)
        if pace is None or asked is None:
            return None
        return pace.left(self.now(), pace.share(asked, self.done.get(name, 0)))

    def text(self) -> str:
        """A clause on all variants, or on the time left of the only one; "" where nothing is to be told."""
        left = self.left()
        time_left = f"{numbers.duration(left)} left" if left is not None else ""
        if self.variants < 2:  # noqa: PLR2004 - one is no total
            return f" ({time_left})" if time_left and self.paces else ""
        if not self.of:
            return ""
        told = ", ".join(filter(None, [f"all variants: {self.answered / self.of:.0%}", time_left]))
        return f" ({told})"


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
            case Expected():
                self.bars.console.print(
                    f"[cyan]{_shown(variant.name)}[/] {_shown(sentence(event))}", highlight=False
                )
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

    def left(self, row: TaskID) -> float | None:
        """Seconds to the end of what a bar is for."""
        name = next((name for name, task in self.rows.items() if task == row), None)
        return self.all.left() if name is None or self.all.variants == 1 else self.all.left_of(name)

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
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Left(ProgressColumn):
        """Time left, by what the listener knows."""

        of: Terminal | None = None

        def render(self, task: Task) -> Text:
            seconds = self.of.left(task.id) if self.of else None
            return Text("" if seconds is None else f"{numbers.duration(seconds)} left")

    left = Left()
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        left,
        TextColumn("{task.fields[what]}", style="dim"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        left.of = Terminal(bars, variants)
        yield left.of
