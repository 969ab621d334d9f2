"""A job's cells: under which keys they stand, which are finished, and what may stop it before the rest."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qeval.base import installed
from qeval.base.errors import QevalError
from qeval.base.hashing import digest, digested
from qeval.base.messages import Event, Finished, Job, Note
from qeval.base.packing import Packing
from qeval.base.records import Cell, Item, Samples, Stop, Task
from qeval.base.scored import Scored
from qeval.judge import early
from qeval.store.leases import Holders, Leases
from qeval.store.runs import RunDir, Store
from qeval.store.shards import Shards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qeval.score.engine.requests import TokenRequest

SCORING_VERSION = 1
"""Raised when a change of qeval's own code changes numbers: cells of an older version are not taken over."""

_SETTINGS = ("seed", "batch_size", "device", "dtype", "engine", "chat_template", "materialize")
"""Those that can change a number."""

_SETTLED = frozenset({"device", "batch_size"})
"""Those that the packing settles."""

_OTHERWISE = (
    "{} was scored on another device, with other threads or in other chunks before; it is scored anew, for"
    " that moves sums in the last digits."
)

Say = Callable[[Event], None]


class JobCells:
    """The cells of one job: their keys, which of them exist, and the way to add one."""

    def __init__(self, job: Job, say: Say) -> None:
        self.job = job
        self.say = say
        self.store = Store(Path(job.runs_dir))
        self.place: RunDir = self.store.run_dir(job.run_id)
        self.asked: dict[str, str] = {}
        self.own_loop: frozenset[str] = frozenset()
        self.packing: Packing | None = None
        self._told = False
        self._in_order: set[str] = set()
        self._version = installed.version()  # files of a checkout that change from now on are not what runs

    def key(self, task: Task) -> str:
        """The hash of everything that can change the numbers of this variant on this task.

        What is asked is known by itself once `asked` holds it by the task's name, else by the job's context;
        how it is fed by `packing`; `own_loop` are the tasks whose texts the loop of our own may write.
        """
        return self._key(task, self.job.identity, shuffled=self._shuffled(task))

    @property
    def _watched(self) -> bool:
        return self.job.policy is not None and self.job.baseline is not None

    def _shuffled(self, task: Task) -> bool:
        return self.job.shuffled or (self._watched and task.name not in self._in_order)

    def settle_order(self, tasks: Sequence[Task], sizes: Sequence[int], *, in_blocks: bool) -> None:
        """Decide, before any key is made, whether tasks that are scored together come in random order: where
        they can (`in_blocks`) and something is watched. What no rule concerns has the order of every run."""
        if self._watched:
            watcher = self.watcher(tasks, sizes) if in_blocks else None
            if watcher is None or not watcher.state:
                self._in_order.update(task.name for task in tasks)

    def comes_in_blocks(self, tasks: Sequence[Task]) -> bool:
        """Whether tasks that are scored together come in random order."""
        return any(map(self._shuffled, tasks))

    def _key(self, task: Task, identity: dict[str, Any], *, shuffled: bool) -> str:
        return digest(self._made_of(task, identity, shuffled=shuffled))

    def _made_of(self, task: Task, identity: dict[str, Any], *, shuffled: bool) -> dict[str, Any]:
        return {
            "scoring": SCORING_VERSION,
            "variant": identity,
            # Scored in random order, items are packed otherwise, which moves sums in the last digits.
            "shuffled": shuffled,
            "context": self._context(task),
            "task": asdict(task),
            **self._fed(task),
        }

    def _fed(self, task: Task) -> dict[str, Any]:
        """The settings that can change a number, and the packing, which settles two of them."""
        settings = {name: getattr(self.job.settings, name) for name in _SETTINGS}
        settings |= {"framed": True} if self.job.settings.framed else {}
        settings |= {"own_loop": True} if task.name in self.own_loop else {}
        if self.packing is None:
            return {"settings": settings}
        settled = {"device"} if self._drawn else _SETTLED
        kept = {name: value for name, value in settings.items() if name not in settled}
        return {"settings": kept, "packing": self.packing.in_key(task.name)}

    @property
    def _drawn(self) -> bool:
        """Whether texts were asked to be drawn; then the batch that one is written in changes its tokens."""
        settings = self.job.settings
        return settings.repeats is not None or settings.temperature is not None

    def _context(self, task: Task) -> dict[str, Any]:
        if task.name not in self.asked:
            return self.job.context
        return {"lm_eval": self.job.context.get("lm_eval"), "asked": self.asked[task.name]}

    def recall(self, task: Task) -> Cell | None:
        """Announce and return the finished cell of a task, taken over from another run if need be."""
        made_of = self._made_of(task, self.job.identity, shuffled=self._shuffled(task))
        key = digest(made_of)
        self.place.mend(key, digested(made_of))
        found = self.store.find(key)
        if found is None:
            self._tell_of_other_packing(task)
            return None
        place, cell = found
        scored = cell.scored
        if place.path != self.place.path:
            others = self.place.whole(key) is None
            scored = scored or (Scored() if others else None)  # the run names those that scored its own
            self.place.adopt(place, cell)
        self.say(Finished(replace(cell, provenance=None, scored=scored)))
        return cell

    def unverified(self, cell: Cell | None) -> bool:
        """Whether a stored cell was never held against as many of lm-eval's answers as the job asks for."""
        return cell is not None and self.place.verified(cell) < self.job.verify

    def verified(self, cell: Cell) -> None:
        """Keep that a stored cell was held against lm-eval's answers, where the job asks for that."""
        if self.job.verify:
            self.place.mark_verified(cell, self.job.verify)

    def _tell_of_other_packing(self, task: Task) -> None:
        """Say, once, that this run holds numbers of the same under another packing."""
        if self.packing is not None and not self._told and self._fed_otherwise(task, self.job.identity):
            self._told = True
            self.say(Note(_OTHERWISE.format(self.job.variant.name)))

    def _fed_otherwise(self, task: Task, identity: dict[str, Any]) -> tuple[RunDir, Cell] | None:
        """A cell of this run that differs from the task's by its packing alone, its order included."""
        want = _but_packing(self._made_of(task, identity, shuffled=False))
        with contextlib.suppress(QevalError):
            for result in self.place.read().results:
                for cell in result.cells:
                    same = cell.task.name == task.name and _but_packing(self.place.made_of(cell)) == want
                    if same and self.place.whole(cell.key):
                        return self.place, cell
        return None

    def watcher(self, tasks: Sequence[Task], sizes: Sequence[int]) -> Watcher | None:
        """What scores these tasks in blocks of random order, and may stop them early; None where nothing may,
        or the baseline has not all of them."""
        if self.job.policy is None or self.job.baseline is None:
            return Watcher(self.job, tasks, sizes, {}) if self.job.shuffled else None
        base = {}
        for task in tasks:
            found = self.store.find(self._key(task, self.job.baseline, shuffled=False))
            found = found or self._fed_otherwise(task, self.job.baseline)
            if found is None:
                return None
            base[task.name] = found[0].samples(found[1])
        return Watcher(self.job, tasks, sizes, base, self._watched_in_all(tasks))

    def _watched_in_all(self, tasks: Sequence[Task]) -> int:
        """How many rules this variant is watched by, over all tasks that the run has scored by now."""
        if self.job.policy is None:
            return 1
        known = {cell.task.name: cell.task for result in self.place.read().results for cell in result.cells}
        known |= {task.name: task for task in tasks}
        leaves = tuple(known.values())
        return max(len(early.watches(self.job.policy, self.job.variant.name, leaves, [0] * len(leaves))), 1)

    def book(self, requests: Sequence[TokenRequest], rung: str) -> Shards | None:
        """Where the shards of a list of requests are shared out, under the hash of everything that can change
        their answers; None where nobody shares, nor did in an earlier attempt."""
        folder = self.place.shards(self.job.variant.name)
        if self.packing is None or (self.job.part == "whole" and not folder.exists()):
            return None
        asked = hashlib.sha256()
        for one in requests:
            asked.update(b"%d %d " % (one.n_scored, len(one.tokens)) + one.tokens.astype(">u4").tobytes())
        settings = {name: getattr(self.job.settings, name) for name in _SETTINGS}
        made_of = {
            "scoring": SCORING_VERSION,
            "variant": self.job.identity,
            "settings": {name: value for name, value in settings.items() if name not in _SETTLED},
            "packing": self.packing.decided,
            "rung": rung,
            "asked": asked.hexdigest(),
        }
        leases = Leases(Holders(self.place.work / "holders"), self.job.holder) if self.job.holder else None
        return Shards(folder / digest(made_of)[:16], helps=self.job.part == "help", leases=leases)

    def _scored(self, cell: Cell) -> Scored:
        """By what a cell was scored that is finished now, here."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")  # versions are told in this order
        made = cell.provenance
        return Scored(self._version, now, made.device if made else "", made.versions if made else {})

    def add(self, cell: Cell, samples: Samples, items: Sequence[Item]) -> None:
        """Store a cell, with what scored it, and announce it."""
        cell = replace(cell, scored=self._scored(cell))
        made_of = self._made_of(cell.task, self.job.identity, shuffled=self._shuffled(cell.task))
        cell = self.place.add(cell, samples, items, digested(made_of))
        self.verified(cell)
        self.say(Finished(replace(cell, provenance=None)))


def _but_packing(made_of: dict[str, Any]) -> str:
    """A hash of what a key is made of, but for how the requests are fed."""
    return digest({name: value for name, value in made_of.items() if name not in {"packing", "shuffled"}})


class StoppedEarly(Exception):  # noqa: N818 - no error: the question that was asked is answered
    """A required rule is certainly broken."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(early.sentence(stop))
        self.stop = stop


class Watcher:
    """The bets on tasks that are scored together, in blocks of items in random order."""

    def __init__(
        self,
        job: Job,
        tasks: Sequence[Task],
        sizes: Sequence[int],
        baseline: dict[str, Samples],
        among: int = 1,
    ) -> None:
        self.tasks, self.sizes, self.baseline = tasks, sizes, baseline
        self.seed = job.settings.seed
        self.clusters = [baseline[task.name].cluster for task in tasks] if baseline else []
        largest = [early.largest_text(cluster) for cluster in self.clusters]
        name = job.variant.name
        self.state = early.watches(job.policy, name, tasks, sizes, among, largest) if job.policy else ()

    def blocks(self) -> Iterator[NDArray[np.int64]]:
        """(k, 2) task and item, as `early.blocks`; one block of all where nothing is watched."""
        return early.blocks(self.sizes, self.seed, self.clusters)

    def judge_block(self, block: NDArray[np.int64], samples: Sequence[Samples]) -> None:
        """Bet on a scored block too. Raises StoppedEarly where a required rule is certainly broken."""
        self.state = early.see(self.state, block, self.tasks, samples, self.baseline)
        stop = early.broken(self.state)
        if stop is not None:
            raise StoppedEarly(stop)
