"""Feeding requests to a variant: the engine is opened when it is first needed, checked again where requests
go further than those it was checked by, and left for the next rung where it fails."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from qeval.base.errors import QevalError
from qeval.base.messages import Fed, Job, Note, Stage
from qeval.base.packing import Packing, Smaller
from qeval.base.private import withheld
from qeval.base.text import printable
from qeval.score.clock import phase
from qeval.score.engine import engine as engines
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.memory import longest_checked, refuse_broken
from qeval.score.engine.requests import Answer, TokenRequest
from qeval.score.engine.sample import shape
from qeval.score.engine.selfcheck import CEILING
from qeval.score.engine.shared import GivenUpError
from qeval.score.packing import in_words
from qeval.store.shards import TRIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qeval.score.account import Account
    from qeval.score.cells import JobCells
    from qeval.score.harness.prepared import PreparedTask


class Place(NamedTuple):
    """Where a request of a unit belongs: the task's place in the unit, the request's in the task."""

    part: int
    request: int


class Answers:
    """The answers to a task's requests as they come."""

    def __init__(self, count: int) -> None:
        self.found: list[Answer | None] = [None] * count
        self.missing = count

    def fill(self, place: int, answer: Answer) -> bool:
        """Take an answer; whether it was the last one."""
        self.missing -= self.found[place] is None
        self.found[place] = answer
        return self.missing == 0

    def filled(self) -> list[Answer]:
        """All answers, with a stand-in for those that are still to come."""
        return [Answer(-1.0, greedy=False) if answer is None else answer for answer in self.found]


class SteppedDown(Exception):  # noqa: N818 - no error: the work goes on by another path
    """The path in use failed, and the next one is open: ask once more."""


class Feeder:
    """The engine of a loaded model. `sample` is all that will be asked; `packing` what the run knows of how;
    `mates`: the model is scored on layers of its scheme's own."""

    def __init__(
        self, job: Job, cells: JobCells, account: Account, model: Any, packing: Packing, *, mates: bool
    ) -> None:
        self.job, self.cells, self.account, self.model, self.packing = job, cells, account, model, packing
        self.mates = mates
        self.sample: Sequence[TokenRequest] = ()
        self.engine: engines.Engine | None = None

    @property
    def fed(self) -> int:
        """Tokens that went through the model so far."""
        return self.engine.tokens_fed if self.engine else 0

    @property
    def tolerance(self) -> float:
        """The root mean square of what rounding explains, in nats a token, as measured or at most."""
        if self.engine is not None and self.engine.tolerance is not None:
            return self.engine.tolerance
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return CEILING.get(dtype, CEILING["bfloat16"])

    def answered(
        self, unit: Sequence[PreparedTask], places: Sequence[Place], wanted: Sequence[bool]
    ) -> Iterator[tuple[Place, Answer]]:
        """The answers to the requests at `places`, of the wanted tasks only.

        Raises SteppedDown where the path in use failed and the next one has been opened; QevalError where
        there is none, and where logits are not finite.
        """
        requests = [unit[place.part].requests[place.request] for place in places]
        mask = np.array([wanted[place.part] for place in places], dtype=bool)
        row = unit[0].task.group or unit[0].task.name
        engine = self.opened()
        self._probe(engine, row, requests)
        engine.on_pass = partial(self.account.begun, row)
        engine.on_taken = self.account.taken
        engine.book = self.cells.book(requests, engine.rung)
        engine.on_smaller = partial(self._smaller, unit, places)
        try:
            for index, answer in engine.score(requests, wanted=mask):
                self.account.finished(row, 1)
                yield places[index], answer
        except NonFiniteError as error:
            place = places[error.index]
            raise not_a_number(unit[place.part], place.request) from error
        except GivenUpError as error:
            raise given_up(unit, [places[index] for index in error.requests]) from error
        except QevalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next path is tried
            print(printable(withheld(traceback.format_exc())), file=sys.stderr)  # noqa: T201 - it leads to the log
            refuse_broken(error)
            self._step_down(engine, row, f"{type(error).__name__}: {error}".splitlines()[0][:200], error)

    def besides(self, row: str, requests: Sequence[TokenRequest]) -> list[Answer]:
        """The answers to requests that no score of the suite is made of; nothing of them is remembered."""
        while requests:
            engine = self.opened()
            engine.on_pass = engine.on_smaller = engine.on_taken = engines.nothing
            engine.book = None
            try:
                found = dict(engine.score(requests))
            except QevalError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the next path is tried
                refuse_broken(error)
                with suppress(SteppedDown):
                    self._step_down(
                        engine, row, f"{type(error).__name__}: {error}".splitlines()[0][:200], error
                    )
            else:
                return [found[at] for at in range(len(requests))]
        return []

    def opened(self, rung: str = "") -> engines.Engine:
        """The engine, opened at the rung of this name, or at the one that the run knows of."""
        if self.engine is None:
            self.account.say(Stage("checking the engine against the plain path"))
            with phase("checking"):
                self.engine = engines.open_engine(
                    self.model,
                    "tree" if self.job.settings.engine == "tree" else "plain",
                    sample=self.sample,
                    batch_size=self.packing.batch_size,
                    budget=self.packing.budget,
                    compiled=self.packing.compiled,
                    rung=rung or self.packing.rung,
                    smaller={one.shard: one.size for one in self.packing.smaller},
                    mates=self.mates,
                )
            self._know(replace(self.packing, rung=self.engine.rung))
            self._tell_of(self.engine)
        return self.engine

    def _tell_of(self, engine: engines.Engine) -> None:
        self.account.learn(engine=engine.path, engine_note=engine.note)
        self.account.say(Note(engine.note))
        self.account.note([f"{failure}; see {self.job.log}." for failure in engine.failures])
        self.account.warn(engine.warnings)
        self.account.note(in_words(self.packing, tokens=engine.path == "tree"))

    def _know(self, packing: Packing) -> None:
        self.packing = self.cells.packing = packing
        self.account.say(Fed(packing))

    def _probe(self, engine: engines.Engine, row: str, requests: Sequence[TokenRequest]) -> None:
        """Check the path once more where requests go further than those it was checked by."""
        if engine.tolerance is None or not engine.below:
            return
        if not shape(requests, longest_checked(engine.lm)).within(engine.checked):
            with phase("checking"):
                reason = engines.probe(engine, requests)
            if reason is not None:
                self._step_down(engine, row, reason)

    def _step_down(
        self, engine: engines.Engine, row: str, reason: str, error: Exception | None = None
    ) -> NoReturn:
        """Open the path below the one that failed. Raises SteppedDown; the error where there is none."""
        if not engine.below:
            raise error or QevalError(f"{engine.rung} failed at {row}: {reason}.", "")
        self.account.note([f"{engine.rung} was left at {row} ({reason}); what was stored before stands."])
        self.account.dropped()
        self.engine = None
        self.opened(engine.below[0])
        raise SteppedDown from error

    def _smaller(
        self,
        unit: Sequence[PreparedTask],
        places: Sequence[Place],
        shard: str,
        size: int,
        members: NDArray[np.int64],
    ) -> None:
        """A shard did not fit in memory: remembered beyond this process, and told."""
        self.account.dropped()
        tasks = {unit[places[index].part].task.name for index in members}
        self._know(self.packing.with_smaller(Smaller(shard, size, tuple(sorted(tasks)))))
        tokens = self.engine is not None and self.engine.path == "tree"
        self.account.note(in_words(self.packing, tokens=tokens))


def not_a_number(part: PreparedTask, request: int) -> QevalError:
    """The error for a request whose logits are no finite numbers, by the item that it belongs to."""
    question = int(np.searchsorted(part.content.spans, request, side="right")) - 1
    document = int(part.content.owner[question])
    return QevalError(
        f"The model's logits are not finite numbers at item {document} of {part.task.name}.",
        "The weights overflow in this dtype or are damaged; try --dtype bfloat16 or float32.",
    )


def given_up(unit: Sequence[PreparedTask], places: Sequence[Place]) -> GivenUpError:
    """The error for a shard that killed its workers, by the items that it belongs to."""
    items: dict[str, set[int]] = {}
    for place in places:
        part = unit[place.part]
        question = int(np.searchsorted(part.content.spans, place.request, side="right")) - 1
        items.setdefault(part.task.name, set()).add(int(part.content.owner[question]))
    told = ", ".join(f"{name} {min(found)} to {max(found)}" for name, found in items.items())
    error = GivenUpError(np.array([place.request for place in places]))
    error.message = f"{TRIES} workers died of the same shard, which was given up (items of {told})."
    error.hint = "Everything else is finished. Run the same command again to try the rest once more."
    return error


def places_of(unit: Sequence[PreparedTask], block: NDArray[np.int64] | None = None) -> list[Place]:
    """The requests of a unit, or of the items of a block of it: (k, 2), task and item."""
    found = []
    for p, part in enumerate(unit):
        chosen = range(len(part.requests))
        if block is not None:
            documents = np.repeat(part.content.owner, np.diff(part.content.spans))
            chosen = np.flatnonzero(np.isin(documents, block[block[:, 0] == p, 1])).tolist()
        found += [Place(p, i) for i in chosen]
    return found
