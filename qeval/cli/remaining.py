"""How long what is left will take: of a variant, and of all that a run has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from qeval.base import numbers
from qeval.base.messages import Done, Event, Expected, Failed, Progress, Stage, Stopped, Todo

_TRUSTED = 10.0
"""How many times the share that is answered counts the pace so far, against the prediction: a tenth is
enough for the pace alone."""


class Pace:
    """How long a variant will take: as predicted at first, by its own pace once a tenth is answered."""

    def __init__(self, expected: Expected, now: float) -> None:
        self.scoring = sum(expected.seconds.get(name, 0.0) for name in ("scoring", "verifying", "storing"))
        self.whole, self.told = sum(expected.seconds.values()), now
        self.after = expected.seconds.get("fidelity", 0.0)
        self.tasks = expected.tasks
        self.began: float | None = None
        self.answered: float | None = None  # when all was; what follows says nothing of its scoring's pace

    def share(self, asked: Sequence[tuple[str, int]], done: int) -> float:
        """The share of all work that the first `done` requests of those `asked`, by task, are."""
        found, left = 0.0, done
        for task, count in asked:
            part = min(count, max(left, 0))
            found, left = found + self.tasks.get(task, 0.0) * part / max(count, 1), left - count
        whole = sum(self.tasks.get(task, 0.0) for task, _ in asked)
        return found / whole if whole else done / max(sum(count for _, count in asked), 1)

    def left(self, now: float, share: float, others: float = 1.0) -> float:
        """Seconds to its end where such a share of its work is done; `others` is how many times as long as
        predicted the scoring of other variants takes, which counts until there is a pace of its own."""
        if self.began is None or not share:
            least = self.scoring + self.after
            return max(self.whole - (now - self.told), least) + (others - 1) * least
        slower = self.slower(now, share, others)
        return max(0.0, slower * (self.scoring + self.after) - (now - self.began))

    def slower(self, now: float, share: float, others: float = 1.0) -> float:
        """How many times as long as predicted its scoring takes: as the others', then by its own pace."""
        if self.began is None or not share or not self.scoring:
            return others
        if share >= 1:
            self.answered = now = now if self.answered is None else self.answered
        weight = min(1.0, _TRUSTED * share)
        return (1 - weight) * others + weight * (now - self.began) / share / self.scoring


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
        self.slower: dict[str, float] = {}
        self.start = now()
        self.starts: dict[str, float] = {}
        self.firsts: dict[str, tuple[float, int]] = {}

    def hear(self, name: str, event: Event) -> None:
        """Take account of an event of a variant."""
        self.starts.setdefault(name, self.now())
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
                self.firsts.setdefault(name, (self.now(), done))
                if pace and done:
                    share = pace.share(self.asked.get(name, ()), done)
                    self.slower[name] = pace.slower(self.now(), share, self.usually(name))
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
            usual = sum(
                pace.whole + (self.usually() - 1) * (pace.scoring + pace.after)
                for pace in self.paces.values()
            )
            usual /= len(self.paces)
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
        return pace.left(self.now(), pace.share(asked, self.done.get(name, 0)), self.usually(name))

    def usually(self, but: str = "") -> float:
        """How many times as long as predicted variants take to be scored, by those that have a pace, `but`
        for one."""
        found = [times for name, times in self.slower.items() if name != but]
        return sum(found) / len(found) if found else 1.0

    def place(self, name: str) -> int:
        """The turn of a variant among all, from 1."""
        return list(self.starts).index(name) + 1 if name in self.starts else len(self.starts) + 1

    def share_of(self, name: str) -> float | None:
        """The share of a variant that is answered; None where it is not known how much there is."""
        of = self.planned.get(name)
        return min(1.0, self.done.get(name, 0) / of) if of else None

    def time_of(self, name: str) -> tuple[float, float | None]:
        """Seconds that a variant has taken, and that it will take yet, by its pace alone where nothing was
        predicted of it."""
        left = self.left_of(name)
        since, at = self.firsts.get(name, (0.0, 0))
        done = self.done.get(name, 0)
        if left is None and done > at:
            left = (self.now() - since) / (done - at) * max(0, self.planned.get(name, 0) - done)
        return self.now() - self.starts.get(name, self.now()), left

    def text(self) -> str:
        """The line on all variants: "all 3  57 %  elapsed 9:41  about 12 min left"."""
        share = self.answered / self.of if self.of else None
        return line(f"all {self.variants}", "", share, (self.now() - self.start, self.left()))


def line(name: str, what: str, share: float | None, seconds: tuple[float, float | None]) -> str:
    """How far something has come: its name, what it is at, the share done, and the seconds taken and left."""
    taken, left = seconds
    parts = (
        name,
        what,
        "" if share is None else f"{int(100 * share)} %",
        f"elapsed {clock(taken)}",
        "" if left is None or share == 1 else f"about {numbers.duration(left)} left",
    )
    return "  ".join(filter(None, parts))


def clock(seconds: float) -> str:
    """A length of time as a clock shows it: "3:10", "1:02:03"."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
