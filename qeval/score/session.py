"""Scoring one variant with a real model: questions, weights, engine, answers, cells; in that order.

The questions come first, because they need no weights: when every task is finished already, none are
loaded. Tasks that share examples (the subjects of MMLU) are scored together, and how they are packed
never depends on what is finished, so that a resumed run computes the very same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from qeval.base.errors import QevalError
from qeval.base.messages import Done, Job, Note, Progress, Stage, Todo
from qeval.base.records import Cell, Cost, Provenance, Settings
from qeval.score import verify
from qeval.score.costing import cost_of_scored, end_without_scoring
from qeval.score.engine import engine as engines
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.materialize import can_materialize, compute_in_own_dtype, materialize
from qeval.score.engine.requests import Answer, TokenRequest
from qeval.score.harness import door
from qeval.score.inputs import (
    calibrated_on_questions,
    check_vocabulary,
    loaded_variant,
    notes_of,
    questions,
)
from qeval.score.unchanged import Unchanged

if TYPE_CHECKING:
    from qeval.load import model
    from qeval.score.cells import JobCells, Say, Watcher
    from qeval.score.harness.prepared import PreparedTask

_SAY_EVERY_SECONDS = 0.2
_CPU_KERNEL_NOTE = (
    "bitsandbytes' 4-bit kernel for this CPU would round activations to bfloat16; it is switched off, so that"
    " the numbers are those of other devices."
)
_LM_EVAL_BATCH = 8  # where lm-eval's own code runs and no batch size was asked for


def score(job: Job, cells: JobCells, say: Say) -> None:
    """Score every task of the job that is not finished. Raises QevalError where the variant cannot go on."""
    prepared = questions(job, say)
    cells.asked = {part.task.name: part.asked for part in prepared}
    known = [cells.recall(part.task) for part in prepared]
    todo = [part for part, cell in zip(prepared, known, strict=True) if cell is None]
    say(Todo(tuple((part.task.name, _size(part)) for part in todo), len(prepared) - len(todo)))
    if not todo:
        stored = next((cell.provenance for cell in known if cell is not None), None)
        say(end_without_scoring(job, stored, say))
        return
    files = Unchanged(job)
    loaded = loaded_variant(job, say)
    check_vocabulary(loaded, prepared)
    session = Session(job, cells, say, loaded, files, sum(map(_tokens, prepared)))
    session.warn([*calibrated_on_questions(job.variant, prepared), *notes_of(prepared)])
    for unit in _units(prepared):
        session.score_unit(unit, [part in todo for part in unit])
    session.verify(todo)
    say(Done(session.provenance, session.cost()))


def _tokens(part: PreparedTask) -> int:
    return sum(len(request.tokens) for request in part.requests)


def _size(part: PreparedTask) -> int:
    """What a task counts in a progress bar: its requests, or its items where it generates text."""
    return part.n if part.generates else len(part.requests)


def _units(prepared: Sequence[PreparedTask]) -> Iterator[list[PreparedTask]]:
    """Tasks that are packed together: the members of a group, or a task alone."""
    for _, parts in groupby(prepared, key=lambda part: part.task.group or part.task.name):
        yield list(parts)


class _Place(NamedTuple):
    """Where a request of a unit belongs: the task's place in the unit, the request's in the task."""

    part: int
    request: int


class _Answers:
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


class Session:
    """A loaded model at work: the engine, and the counts that a cell records."""

    def __init__(
        self, job: Job, cells: JobCells, say: Say, loaded: model.Loaded, files: Unchanged, tokens: int
    ) -> None:
        files.check()
        self.job, self.cells, self.say, self.loaded, self.tokens = job, cells, say, loaded, tokens
        self.files = files
        self.model: Any = loaded.model
        self.settings: Settings = job.settings
        self.provenance: Provenance = replace(
            loaded.provenance, engine=job.settings.engine, batch_size=job.settings.batch_size
        )
        self.engine: engines.Engine | None = None
        self.answers: dict[str, Sequence[Any]] = {}
        self.one_start: dict[str, Sequence[Answer]] = {}
        self.done = 0
        self.spoke = 0.0
        self._materialize()

    def _materialize(self) -> None:
        self.native = True
        if compute_in_own_dtype(self.model):
            self.native = False
            note = _CPU_KERNEL_NOTE
            self.provenance = replace(self.provenance, notes=(*self.provenance.notes, note))
            self.say(Note(note))
        if self.settings.materialize and self.settings.engine == "tree" and can_materialize(self.model):
            self.say(Stage("dequantising the weights for scoring"))
            self.model, _ = materialize(self.model)
            self.native = False
            self.provenance = replace(self.provenance, materialized=True)

    def warn(self, warnings: Sequence[str]) -> None:
        """Say what a reader of the numbers must know, and keep it beside them."""
        self.provenance = replace(self.provenance, warnings=(*self.provenance.warnings, *warnings))
        for warning in warnings:
            self.say(Note(warning))

    def score_unit(self, unit: Sequence[PreparedTask], wanted: Sequence[bool]) -> None:
        """Score the wanted tasks of a unit, each stored as soon as its last answer is there."""
        start = time.perf_counter()
        for part, want in zip(unit, wanted, strict=True):
            if want and (part.generates or self.settings.engine == "lm-eval"):
                begin = time.perf_counter()
                self._store(part, self._by_lm_eval(part), 0, time.perf_counter() - begin)
                self._tell(part, _size(part))
        packed = [part for part in unit if not part.generates]
        if self.settings.engine != "lm-eval" and packed:
            needed = [want for part, want in zip(unit, wanted, strict=True) if not part.generates]
            if any(needed):
                self._by_engine(packed, needed, start)

    def _by_lm_eval(self, part: PreparedTask) -> Sequence[Any]:
        self.say(Stage(f"{part.task.name} by lm-eval"))
        ask = door.generate if part.generates else door.score_with_lm_eval
        size = _LM_EVAL_BATCH if self.settings.batch_size == "auto" else int(self.settings.batch_size)
        answers: Sequence[Any] = ask(part, self.model, self.loaded.tokenizer, batch_size=size)
        for place, answer in enumerate(answers):
            if isinstance(answer, Answer) and not math.isfinite(answer.loglikelihood):
                raise _not_a_number(part, place)  # lm-eval itself would call the item wrong and go on
        return answers

    def _by_engine(self, unit: Sequence[PreparedTask], wanted: Sequence[bool], start: float) -> None:
        for part in (part for part, want in zip(unit, wanted, strict=True) if want):
            self._score_with_one_start(part)
        sizes = [part.n for part in unit]
        watcher = self.cells.watcher([part.task for part in unit], sizes) if all(wanted) else None
        if watcher is not None and watcher.state:
            self._in_blocks(unit, watcher, start)
        else:
            self._all_at_once(unit, wanted, start)

    def _score_with_one_start(self, part: PreparedTask) -> None:
        """The first windows of texts that begin with two start tokens, with one; before all others,
        since an engine answers one list of requests at a time."""
        first = door.with_one_start(part)
        with suppress(NonFiniteError):  # the others will say so, by their items
            found = dict(self._opened(part.requests).score(first)) if first else {}
            self.one_start[part.task.name] = [found[at] for at in range(len(first))]

    def _all_at_once(self, unit: Sequence[PreparedTask], wanted: Sequence[bool], start: float) -> None:
        """Score a unit, storing each wanted task as soon as its last answer is there."""
        places = [_Place(p, i) for p, part in enumerate(unit) for i in range(len(part.requests))]
        answers = [_Answers(len(part.requests)) for part in unit]
        fed = self._fed()
        for place, answer in self._answered(unit, places, wanted):
            if answers[place.part].fill(place.request, answer):
                tokens, seconds = self._fed() - fed, time.perf_counter() - start
                self._store(unit[place.part], answers[place.part].found, tokens, seconds)
                start, fed = time.perf_counter(), self._fed()

    def _in_blocks(self, unit: Sequence[PreparedTask], watcher: Watcher, start: float) -> None:
        """Score a unit in blocks of items in random order, looking after each whether it may stop."""
        import numpy as np

        answers = [_Answers(len(part.requests)) for part in unit]
        documents = [np.repeat(part.content.owner, np.diff(part.content.spans)) for part in unit]
        fed = self._fed()
        for block in watcher.blocks():
            places = [
                _Place(p, int(i))
                for p in range(len(unit))
                for i in np.flatnonzero(np.isin(documents[p], block[block[:, 0] == p, 1]))
            ]
            for place, answer in self._answered(unit, places, [True] * len(unit)):
                answers[place.part].fill(place.request, answer)
            pairs = zip(unit, answers, strict=True)
            watcher.judge_block(block, [door.collect(part, known.filled()).samples for part, known in pairs])
        share = (self._fed() - fed) // len(unit), (time.perf_counter() - start) / len(unit)
        for part, known in zip(unit, answers, strict=True):
            self._store(part, known.found, *share)

    def _answered(
        self, unit: Sequence[PreparedTask], places: Sequence[_Place], wanted: Sequence[bool]
    ) -> Iterator[tuple[_Place, Answer]]:
        """The engine's answers to the requests at `places`, of the wanted tasks only."""
        import numpy as np

        requests = [unit[place.part].requests[place.request] for place in places]
        mask = np.array([wanted[place.part] for place in places], dtype=bool)
        try:
            for index, answer in self._opened(requests).score(requests, wanted=mask):
                place = places[index]
                if wanted[place.part]:
                    self._tell(unit[place.part], 1)
                    yield place, answer
        except NonFiniteError as error:
            place = places[error.index]
            raise _not_a_number(unit[place.part], place.request) from error

    def _fed(self) -> int:
        return self.engine.tokens_fed if self.engine else 0

    def _opened(self, requests: Sequence[TokenRequest]) -> engines.Engine:
        if self.engine is None:
            self.say(Stage("checking the engine against the plain path"))
            self.engine = engines.open_engine(
                self.model,
                "tree" if self.settings.engine == "tree" else "plain",
                sample=requests,
                batch_size=None if self.settings.batch_size == "auto" else int(self.settings.batch_size),
                expected_tokens=self.tokens,
            )
            failures = tuple(f"{failure}; see {self.job.log}." for failure in self.engine.failures)
            self.provenance = replace(
                self.provenance,
                engine=self.engine.path,
                engine_note=self.engine.note,
                notes=(*self.provenance.notes, *failures),
            )
            for note in (self.engine.note, *failures):
                self.say(Note(note))
        return self.engine

    def _store(self, part: PreparedTask, answers: Sequence[Any], tokens: int, seconds: float) -> None:
        outcome = door.collect(part, answers, self.one_start.get(part.task.name, ()))
        self.warn(door.start_notes(outcome, part.task))
        self.answers[part.task.name] = answers if self.job.verify else ()
        samples = outcome.samples
        cell = Cell(
            key=self.cells.key(part.task),
            task=part.task,
            n=len(samples),
            n_available=part.n_available,
            score=float(samples.value.sum() / samples.weight.sum()),
            metrics=outcome.metrics,
            task_version=part.version,
            dataset=part.dataset,
            output_type=part.output_type,
            truncated=part.truncated,
            tokens=tokens,
            seconds=seconds,
            provenance=self.provenance,
        )
        self.files.check()
        self.cells.add(cell, samples, door.items(part))

    def _tell(self, part: PreparedTask, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.spoke >= _SAY_EVERY_SECONDS:
            self.spoke = now
            self.say(Progress(part.task.name, self.done))

    def verify(self, parts: Sequence[PreparedTask]) -> None:
        """Tell how far lm-eval's own code is from the answers to as many documents as the job names."""
        chosen = verify.chosen_documents(parts, self.job.verify, self.settings.seed)
        if chosen:
            self.say(Stage("scoring some documents with lm-eval too"))
            self.say(Note(verify.difference_in_words(chosen, self.answers, self._reference)))
            own = door.longest(self.model.config, self.loaded.tokenizer)
            self.warn(verify.lengths_in_words(chosen, own))

    def _reference(self, part: PreparedTask, wanted: Sequence[int]) -> Sequence[Answer]:
        return door.by_lm_eval_alone(part, self.model, self.loaded.tokenizer, wanted)

    def cost(self) -> Cost:
        """What the variant costs, by `cost_of_scored`."""
        known = Cost(self.provenance.device, self.loaded.load_seconds)
        kind = self.loaded.model.device.type
        return cost_of_scored(self.job, known, self._as_loaded, self.say, kind=kind, native=self.native)

    def _as_loaded(self) -> model.Loaded:
        """The variant on its own kernels; nothing can be scored any more where that had to be loaded."""
        if not self.native:
            self.engine, self.model = None, None
            self.loaded = replace(self.loaded, model=None)
            self.loaded = loaded_variant(self.job, self.say)
        return self.loaded


def _not_a_number(part: PreparedTask, request: int) -> QevalError:
    import numpy as np

    question = int(np.searchsorted(part.content.spans, request, side="right")) - 1
    document = int(part.content.owner[question])
    return QevalError(
        f"The model's logits are not finite numbers at item {document} of {part.task.name}.",
        "The weights overflow in this dtype or are damaged; try --dtype bfloat16 or float32.",
    )
