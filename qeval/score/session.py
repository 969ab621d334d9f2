"""Scoring one variant with a real model: questions, weights, engine, answers, cells; in that order.

The questions come first, because they need no weights: when every task is finished already, none are
loaded. Tasks that share examples (the subjects of MMLU) are scored together, and how they are packed
never depends on what is finished, so that a resumed run computes the very same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from qeval.base.costs import Cost
from qeval.base.listening import KEYS, Heard, listening
from qeval.base.messages import Done, Job, Stage, Todo
from qeval.base.packing import Packing
from qeval.base.records import Cell
from qeval.base.settings import Settings
from qeval.load.schemes import SCHEMES
from qeval.score.account import Account, told_by, warned_by
from qeval.score.clock import CLOCK, phase
from qeval.score.costing import cost_of_scored, end_without_scoring
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.materialize import can_materialize, compute_in_own_dtype, materialize
from qeval.score.engine.requests import Answer
from qeval.score.engine.spreading import spread
from qeval.score.engine.streaming import stream
from qeval.score.feeding import Answers, Feeder, Place, SteppedDown, not_a_number, places_of
from qeval.score.fidelity.beside import measure_beside
from qeval.score.harness import door
from qeval.score.inputs import (
    calibrated_on_questions,
    check_vocabulary,
    loaded_variant,
    notes_of,
    placed_variant,
    questions,
)
from qeval.score.packing import decide
from qeval.score.prospect import expected
from qeval.score.unchanged import Unchanged
from qeval.score.units import SCORING, help_with, score_units, units
from qeval.score.verify import Proof
from qeval.store.clusters import count_texts

if TYPE_CHECKING:
    from qeval.load import model
    from qeval.score.cells import JobCells, Say, Watcher
    from qeval.score.harness.prepared import PreparedTask

_CPU_KERNEL_NOTE = (
    "bitsandbytes' 4-bit kernel for this CPU would round activations to bfloat16; it is switched off, so that"
    " the numbers are those of other devices."
)
_SLOW_TEXTS = "Texts are written slowly: every token takes all layers from host memory anew."
_NO_COST = "Not measured unasked: the weights were streamed from host memory."
_NO_COST_SPREAD = "Not measured unasked: the weights lay on {}."
_LM_EVAL_BATCH = 8  # where lm-eval's own code runs and no batch size was asked for


def score(job: Job, cells: JobCells, say: Say) -> None:
    """Score every task of the job that is not finished. Raises QevalError where the variant cannot go on."""
    with listening() as heard:
        _score(job, cells, say, heard)


def _score(job: Job, cells: JobCells, say: Say, heard: Heard) -> None:
    prepared = questions(job, say)
    cells.asked = {part.task.name: part.asked for part in prepared}
    if job.settings.engine == "tree":
        cells.own_loop = frozenset(part.task.name for part in prepared if part.generates)
    cells.packing = packing = decide(job, sum(map(_tokens, prepared)))
    for unit in units(prepared):
        _settle_order(cells, unit, job.settings.engine)
    known = [cells.recall(part.task) for part in prepared]
    proof = Proof(job.verify, job.settings.seed)
    proof.choose(prepared)
    for part, cell in zip(prepared, known, strict=True):
        if cell is not None and not proof.concerns(part):
            cells.verified(cell)
    todo = [
        part
        for part, cell in zip(prepared, known, strict=True)
        if cell is None or (proof.concerns(part) and cells.unverified(cell))
    ]
    say(Todo(tuple((part.task.name, _size(part)) for part in todo), len(prepared) - len(todo)))
    if not todo:
        say(end_without_scoring(job, told_by(known), say))
        return
    if job.part != "help" and (
        told := expected(job, prepared, {part.task.name for part in todo}, packing, proof)
    ):
        say(told)
    files = Unchanged(job)
    loaded = placed_variant(job, say)
    check_vocabulary(loaded, prepared)
    heard.forget(KEYS)  # the notes of what was loaded name these tensors
    heard.told(loaded.provenance.notes)
    session = Session(job, cells, say, loaded, files, packing, heard, proof)
    session.expect(prepared)
    session.account.warn(
        [*warned_by(known), *calibrated_on_questions(job.variant, prepared), *notes_of(prepared)]
    )
    work = [(unit, [part in todo for part in unit]) for unit in units(prepared)]
    if job.part == "help":
        help_with(session, work)
        return
    score_units(session, work)
    session.tell_proof()
    measure_beside(job, loaded, session.model, say)
    session.account.note(heard.drain())
    say(Done(session.account.provenance, session.cost()))


def _tokens(part: PreparedTask) -> int:
    return sum(len(request.tokens) for request in part.requests)


def _size(part: PreparedTask) -> int:
    """What a task counts in a progress bar: its requests, or its items where it generates text."""
    return part.n if part.generates else len(part.requests)


def _settle_order(cells: JobCells, unit: Sequence[PreparedTask], engine: str) -> None:
    """Have the order decided in which a unit is scored; what lm-eval's own code answers has one."""
    for generates in (False, True):
        parts = [part for part in unit if part.generates == generates]
        in_blocks = not generates and engine != "lm-eval"
        cells.settle_order([part.task for part in parts], [part.n for part in parts], in_blocks=in_blocks)


class Session:
    """A loaded model at work: the engine, and the counts that a cell records."""

    def __init__(
        self,
        job: Job,
        cells: JobCells,
        say: Say,
        loaded: model.Loaded,
        files: Unchanged,
        packing: Packing,
        heard: Heard,
        proof: Proof,
    ) -> None:
        files.check()
        self.job, self.cells, self.say, self.loaded, self.files = job, cells, say, loaded, files
        self.heard = heard
        self.model: Any = loaded.model
        self.settings: Settings = job.settings
        self.account = Account(say, loaded.provenance)
        self.account.learn(engine=job.settings.engine, batch_size=job.settings.batch_size)
        self.proof = proof
        self.stored: set[str] = set()
        self.one_start: dict[str, Sequence[Answer]] = {}
        self._materialize()
        self.own_loop = door.OwnLoop(self.model)
        known = self.account.provenance
        mates = bool(known.modules) and not known.materialized
        self.feeder = Feeder(job, cells, self.account, self.model, packing, mates=mates)

    def _materialize(self) -> None:
        portable = self.settings.materialize and SCHEMES[self.job.variant.scheme.kind].kernels
        self.native = not portable
        if compute_in_own_dtype(self.model):
            self.native = False
            self.account.note([_CPU_KERNEL_NOTE])
        if self.account.provenance.placement:
            self.say(Stage("moving layers to where they belong"))
            self.native = False
            with phase("dequantising"):
                count = self._place()
            self.account.learn(materialized=count > 0)
        elif self.settings.materialize and self.settings.engine == "tree" and can_materialize(self.model):
            self.say(Stage("dequantising the weights for scoring"))
            with phase("dequantising"):
                self.model, _ = materialize(self.model)
            self.native = False
            self.account.learn(materialized=True)

    def _place(self) -> int:
        """Move a model out of host memory, or have it streamed; how many layers that unpacks."""
        if self.streamed:
            return stream(self.model, self.settings.device)
        return spread(self.model, [f"cuda:{i}" for i in range(self.settings.gpus)])

    @property
    def streamed(self) -> bool:
        """Whether weights reach the device layer by layer."""
        return self.account.provenance.placement == "streamed"

    def expect(self, prepared: Sequence[PreparedTask]) -> None:
        """Know what will be asked, for the checks that must see all of it."""
        asked = [part for part in prepared if not part.generates]
        self.feeder.sample = [request for part in asked for request in part.requests]
        if self.streamed and len(asked) < len(prepared):
            self.account.note([_SLOW_TEXTS])

    def score_unit(self, unit: Sequence[PreparedTask], wanted: Sequence[bool]) -> None:
        """Score the wanted tasks of a unit, each stored as soon as its last answer is there."""
        with phase(SCORING):
            self._score_unit(unit, wanted)

    def _score_unit(self, unit: Sequence[PreparedTask], wanted: Sequence[bool]) -> None:
        for part, want in zip(unit, wanted, strict=True):
            if want and (part.generates or self.settings.engine == "lm-eval"):
                begin = CLOCK.spent(SCORING)
                self._store(part, self._by_lm_eval(part), 0, CLOCK.spent(SCORING) - begin)
                self.account.finished(part.task.name, _size(part))
        packed = [part for part in unit if not part.generates]
        if self.settings.engine != "lm-eval" and packed:
            needed = [want for part, want in zip(unit, wanted, strict=True) if not part.generates]
            if any(needed):
                self._by_engine(packed, needed, CLOCK.spent(SCORING))

    def _by_lm_eval(self, part: PreparedTask) -> Sequence[Any]:
        by = "" if part.generates and self.settings.engine == "tree" else " by lm-eval"
        self.say(Stage(f"{part.task.name}{by}"))
        size = _LM_EVAL_BATCH if self.settings.batch_size == "auto" else int(self.settings.batch_size)
        if part.generates:
            return self._written(part, size)
        answers: Sequence[Any] = door.score_with_lm_eval(
            part, self.model, self.loaded.tokenizer, batch_size=size
        )
        for place, answer in enumerate(answers):
            if not math.isfinite(answer.loglikelihood):
                raise not_a_number(part, place)  # lm-eval itself would call the item wrong and go on
        return answers

    def _written(self, part: PreparedTask, size: int) -> Sequence[door.Text]:
        """The texts of a task that has any, and what is to be told of them."""
        seed = self.settings.seed
        own = self.own_loop if self.settings.engine == "tree" else None
        texts = door.generate(part, self.model, self.loaded.tokenizer, batch_size=size, seed=seed, own=own)
        self.account.note(self.own_loop.notes)
        notes, warnings = door.remarks(part.task.name, texts, part.rounds)
        self.account.note(notes)
        self.account.warn(warnings)
        return texts

    def _by_engine(self, unit: Sequence[PreparedTask], wanted: Sequence[bool], start: float) -> None:
        for part in (part for part, want in zip(unit, wanted, strict=True) if want):
            self._score_with_one_start(part)
        watcher = self.watcher_of(unit)
        if watcher is not None:
            self._in_blocks(unit, watcher, wanted, start)
        else:
            self._all_at_once(unit, wanted, start)

    def watcher_of(self, unit: Sequence[PreparedTask]) -> Watcher | None:
        """What has a unit scored in blocks; None where its order is that of every run."""
        tasks = [part.task for part in unit]
        in_blocks = self.cells.comes_in_blocks(tasks)
        return self.cells.watcher(tasks, [part.n for part in unit]) if in_blocks else None

    def _score_with_one_start(self, part: PreparedTask) -> None:
        """The first windows of texts that begin with two start tokens, with one; before all others,
        since an engine answers one list of requests at a time."""
        first = door.with_one_start(part)
        with suppress(NonFiniteError):  # the others will say so, by their items
            self.one_start[part.task.name] = self.feeder.besides(part.task.name, first)

    def _all_at_once(self, unit: Sequence[PreparedTask], wanted: Sequence[bool], start: float) -> None:
        """Score a unit, storing each wanted task as soon as its last answer is there; what is not stored when
        a path turns out not to do is scored again by the next."""
        places = places_of(unit)
        fed = self.feeder.fed
        while True:
            answers = [Answers(len(part.requests)) for part in unit]
            needed = [
                want and part.task.name not in self.stored for part, want in zip(unit, wanted, strict=True)
            ]
            try:
                for place, answer in self.feeder.answered(unit, places, needed):
                    if answers[place.part].fill(place.request, answer):
                        tokens, seconds = self.feeder.fed - fed, CLOCK.spent(SCORING) - start
                        self._store(unit[place.part], answers[place.part].found, tokens, seconds)
                        start, fed = CLOCK.spent(SCORING), self.feeder.fed
            except SteppedDown:
                continue
            return

    def _in_blocks(
        self, unit: Sequence[PreparedTask], watcher: Watcher, wanted: Sequence[bool], start: float
    ) -> None:
        """Score a unit in blocks of items in random order, looking after each whether it may stop where
        anything is watched. All parts shape the blocks, and the wanted ones are stored."""
        answers = [Answers(len(part.requests)) for part in unit]
        fed, asked = self.feeder.fed, list[list[Place]]()
        for block in watcher.blocks():
            places = places_of(unit, block)
            asked.append(places)
            self._fill(unit, asked, wanted, answers)
            if watcher.state and all(wanted):
                pairs = zip(unit, answers, strict=True)
                some = [door.collect(part, known.filled(), partly=True) for part, known in pairs]
                watcher.judge_block(block, [outcome.samples for outcome in some])
        share = (self.feeder.fed - fed) // sum(wanted), (CLOCK.spent(SCORING) - start) / sum(wanted)
        for part, known, want in zip(unit, answers, wanted, strict=True):
            if want:
                self._store(part, known.found, *share)

    def _fill(
        self,
        unit: Sequence[PreparedTask],
        blocks: Sequence[Sequence[Place]],
        wanted: Sequence[bool],
        answers: Sequence[Answers],
    ) -> None:
        """Score the last of some blocks; all of them anew where its path turns out not to do, for the answers
        of a unit are of one path, as they would be if it were resumed."""
        again = blocks[-1:]
        while True:
            try:
                for places in again:
                    for place, answer in self.feeder.answered(unit, places, wanted):
                        answers[place.part].fill(place.request, answer)
            except SteppedDown:
                again = blocks
                continue
            return

    def _store(self, part: PreparedTask, answers: Sequence[Any], tokens: int, seconds: float) -> None:
        with phase("storing"):
            self._keep(part, answers, tokens, seconds)

    def _keep(self, part: PreparedTask, answers: Sequence[Any], tokens: int, seconds: float) -> None:
        outcome = door.collect(part, answers, self.one_start.get(part.task.name, ()))
        self.account.warn(door.start_notes(outcome, part.task))
        self._prove(part, answers)
        samples = outcome.samples
        self.account.note(self.heard.drain())
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
            provenance=self.account.provenance,
            texts=count_texts(samples.cluster),
        )
        self.files.check()
        self.cells.add(cell, samples, outcome.items)
        self.stored.add(part.task.name)

    def _prove(self, part: PreparedTask, answers: Sequence[Any]) -> None:
        """Have lm-eval's own code score some documents of a task, before anything of it is stored. Raises
        QevalError where it finds other numbers."""
        if self.proof.concerns(part):
            self.say(Stage(f"scoring some documents of {part.task.name} with lm-eval too"))
            with phase("verifying"):
                self.proof.hold(part, answers, self._reference, self.feeder.tolerance)

    def tell_proof(self) -> None:
        """Tell how far lm-eval's own code was from the answers, and keep it beside the numbers."""
        if self.proof.found:
            self.account.note([self.proof.in_words()])
            own = door.longest(self.model.config, self.loaded.tokenizer)
            self.account.warn(self.proof.lengths_in_words(own))

    def _reference(self, part: PreparedTask, wanted: Sequence[int]) -> Sequence[Answer]:
        return door.by_lm_eval_alone(part, self.model, self.loaded.tokenizer, wanted)

    def cost(self) -> Cost:
        """What the variant costs, by `cost_of_scored`."""
        known = Cost(self.account.provenance.device, self.loaded.load_seconds)
        kind, job = self.loaded.model.device.type, self.job
        if (where := self.account.provenance.placement) and job.cost is None:
            job = msgspec.structs.replace(job, cost=False)
            known = replace(known, notes=(_NO_COST if self.streamed else _NO_COST_SPREAD.format(where),))
        spent = sum(CLOCK.all().values())
        with phase("costs"):
            return cost_of_scored(
                job, known, self._as_loaded, self.say, kind=kind, native=self.native, spent=spent
            )

    def _as_loaded(self) -> model.Loaded:
        """The variant on its own kernels; nothing can be scored any more where that had to be loaded."""
        if not self.native:
            self.feeder.engine = self.feeder.model = self.model = None
            self.loaded = replace(self.loaded, model=None)
            self.loaded = loaded_variant(self.job, self.say, fast=True)
        return self.loaded
