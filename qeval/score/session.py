"""Scoring one variant with a real model: questions, weights, engine, answers, cells; in that order.

The questions come first, because they need no weights: when every task is finished already, none are
loaded. Tasks that share examples (the subjects of MMLU) are scored together, and how they are packed
never depends on what is finished, so that a resumed run computes the very same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qeval.base.errors import QevalError
from qeval.base.messages import Done, Job, Note, Planned, Progress, Stage
from qeval.base.records import Cell, Cost, Provenance, Settings
from qeval.load import model
from qeval.load.memory import PROCESS_NOTE, forget_peak, peak_bytes
from qeval.score.engine import engine as engines
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.materialize import can_materialize, compute_in_own_dtype, materialize
from qeval.score.engine.requests import Answer, TokenRequest
from qeval.score.harness import door

if TYPE_CHECKING:
    from qeval.score.cells import Cells, Say, Watcher
    from qeval.score.cost import Bench
    from qeval.score.harness.prepared import PreparedTask

_SAY_EVERY_SECONDS = 0.2
_CPU_KERNEL_NOTE = (
    "bitsandbytes' 4-bit kernel for this CPU would round activations to bfloat16; it is switched off, so that"
    " the numbers are those of other devices."
)
_LAYERS_NOTE = "Latency and throughput are of the layers as loaded, never of weights dequantised for scoring."
_UNSCORED_NOTE = "Nothing was scored: peak memory is that of measuring."
_DEFAULT_LENGTH = 2048  # lm-eval's, for a model without a limit
_LM_EVAL_BATCH = 8  # where lm-eval's own code runs and no batch size was asked for


def score(job: Job, cells: Cells, say: Say) -> None:
    """Score every task of the job that is not finished. Raises QevalError where the variant cannot go on."""
    prepared = _questions(job, say)
    known = [cells.recall(part.task) for part in prepared]
    todo = [part for part, cell in zip(prepared, known, strict=True) if cell is None]
    say(Planned(tuple((part.task.name, _size(part)) for part in todo), len(prepared) - len(todo)))
    if not todo:
        say(_unscored(job, next((cell.provenance for cell in known if cell is not None), None), say))
        return
    session = _Session(job, cells, say, _load(job, say), sum(map(_tokens, prepared)))
    for unit in _units(prepared):
        session.score_unit(unit, [part in todo for part in unit])
    session.verify(todo)
    say(Done(session.provenance, session.cost()))


def _unscored(job: Job, stored: Provenance | None, say: Say) -> Done:
    """The end of a job in which nothing is left to score: costs are measured where they are asked for.

    `stored` is what finished cells say; their peak memory was another process's, so none is told.
    """
    device = job.settings.device
    if not job.cost:
        return Done(stored)
    if job.tasks:
        cost = _measured(lambda: _load(job, say), Cost(stored.device if stored else device), say)
        return Done(stored, _with_peak(cost, None, device))
    loaded = _load(job, say)
    cost = _measured(lambda: loaded, Cost(loaded.provenance.device, loaded.load_seconds), say)
    cost = replace(cost, notes=(*cost.notes, _UNSCORED_NOTE))
    return Done(loaded.provenance, _with_peak(cost, peak_bytes(device), device))


def _measured(
    load: Callable[[], model.Loaded], unmeasured: Cost, say: Say, bench: Bench | None = None
) -> Cost:
    """Latency and throughput of what `load` gives; where that fails, `unmeasured` with a note that says why:
    the scores stand all the same."""
    from qeval.score.cost import measure, reason

    try:
        loaded = load()
        cost = measure(loaded, progress=lambda text: say(Stage(text)), bench=bench)
    except Exception as error:  # noqa: BLE001 - whatever a library says of it
        cost = replace(unmeasured, notes=(f"Not measured: {reason(error).rstrip('.')}.",))
    else:
        told = (_LAYERS_NOTE,) if loaded.provenance.modules and cost.measures else ()
        cost = replace(cost, notes=(*cost.notes, *told))
    for note in cost.notes:
        if note.startswith("Not measured"):
            say(Note(note))
    return cost


def _with_peak(cost: Cost, peak: int | None, device: str) -> Cost:
    notes = (PROCESS_NOTE,) if device == "cpu" else ()
    return replace(cost, peak_bytes=peak, notes=(*cost.notes, *notes))


def _tokens(part: PreparedTask) -> int:
    return sum(len(request.tokens) for request in part.requests)


def _questions(job: Job, say: Say) -> tuple[PreparedTask, ...]:
    say(Stage("reading the tokenizer"))
    tokenizer, max_length = model.load_tokenizer(
        job.variant, cache_dir=Path(job.cache_dir), trust_remote_code=job.settings.trust_remote_code
    )
    say(Stage("building the questions"))
    return door.prepare(
        job.tasks,
        tokenizer,
        max_length=max_length or _DEFAULT_LENGTH,
        seed=job.settings.seed,
        chat_template=job.settings.chat_template,
        datasets_dir=Path(job.settings.datasets_dir) if job.settings.datasets_dir else None,
        tasks_dir=Path(job.tasks_dir),
        cache_dir=Path(job.cache_dir),
        progress=lambda text, done, total: say(Stage(f"building the questions: {text} {done}/{total}")),
    )


def _size(part: PreparedTask) -> int:
    """What a task counts in a progress bar: its requests, or its items where it generates text."""
    return part.n if part.generates else len(part.requests)


def _units(prepared: Sequence[PreparedTask]) -> Iterator[list[PreparedTask]]:
    """Tasks that are packed together: the members of a group, or a task alone."""
    for _, parts in groupby(prepared, key=lambda part: part.task.group or part.task.name):
        yield list(parts)


def _load(job: Job, say: Say) -> model.Loaded:
    say(Stage("loading the weights"))
    settings = job.settings
    loaded = model.load(
        job.variant,
        device=settings.device,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        cache_dir=Path(job.cache_dir),
        datasets_dir=Path(settings.datasets_dir) if settings.datasets_dir else None,
        progress=lambda text: say(Stage(text)),
    )
    for note in loaded.provenance.notes:
        say(Note(note))
    forget_peak(settings.device)  # what is scored counts, not what loading took
    return loaded


class _Place(NamedTuple):
    """Where a request of a unit belongs: the task's place in the unit, the request's in the task."""

    part: int
    request: int


class _Answers:
    """The answers to a task's requests as they come."""

    def __init__(self, count: int) -> None:
        self.found: list[Answer | None] = [None] * count
        self.missing = count

    def put(self, place: int, answer: Answer) -> bool:
        """Take an answer; whether it was the last one."""
        self.missing -= self.found[place] is None
        self.found[place] = answer
        return self.missing == 0

    def filled(self) -> list[Answer]:
        """All answers, with a stand-in for those that are still to come."""
        return [Answer(-1.0, greedy=False) if answer is None else answer for answer in self.found]


class _Session:
    """A loaded model at work: the engine, and the counts that a cell records."""

    def __init__(self, job: Job, cells: Cells, say: Say, loaded: model.Loaded, tokens: int) -> None:
        self.job, self.cells, self.say, self.loaded, self.tokens = job, cells, say, loaded, tokens
        self.model: Any = loaded.model
        self.settings: Settings = job.settings
        self.provenance: Provenance = replace(
            loaded.provenance, engine=job.settings.engine, batch_size=job.settings.batch_size
        )
        self.engine: engines.Engine | None = None
        self.answers: dict[str, Sequence[Any]] = {}
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
        act = door.generate if part.generates else door.score_with_lm_eval
        size = _LM_EVAL_BATCH if self.settings.batch_size == "auto" else int(self.settings.batch_size)
        answers: Sequence[Any] = act(part, self.model, self.loaded.tokenizer, batch_size=size)
        for place, answer in enumerate(answers):
            if isinstance(answer, Answer) and not math.isfinite(answer.loglikelihood):
                raise _not_a_number(part, place)  # lm-eval itself would call the item wrong and go on
        return answers

    def _by_engine(self, unit: Sequence[PreparedTask], wanted: Sequence[bool], start: float) -> None:
        sizes = [part.n for part in unit]
        watcher = self.cells.watch([part.task for part in unit], sizes) if all(wanted) else None
        if watcher is not None and watcher.state:
            self._in_blocks(unit, watcher, start)
        else:
            self._all_at_once(unit, wanted, start)

    def _all_at_once(self, unit: Sequence[PreparedTask], wanted: Sequence[bool], start: float) -> None:
        """Score a unit, storing each wanted task as soon as its last answer is there."""
        places = [_Place(p, i) for p, part in enumerate(unit) for i in range(len(part.requests))]
        answers = [_Answers(len(part.requests)) for part in unit]
        fed = self._fed()
        for place, answer in self._answered(unit, places, wanted):
            if answers[place.part].put(place.request, answer):
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
                answers[place.part].put(place.request, answer)
            pairs = zip(unit, answers, strict=True)
            watcher.see(block, [door.collect(part, known.filled()).samples for part, known in pairs])
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
            self.provenance = replace(self.provenance, engine=self.engine.path, engine_note=self.engine.note)
            self.say(Note(self.engine.note))
        return self.engine

    def _store(self, part: PreparedTask, answers: Sequence[Any], tokens: int, seconds: float) -> None:
        outcome = door.collect(part, answers)
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
            truncated=part.truncated,
            tokens=tokens,
            seconds=seconds,
            provenance=self.provenance,
        )
        self.cells.add(cell, samples, door.items(part))

    def _tell(self, part: PreparedTask, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.spoke >= _SAY_EVERY_SECONDS:
            self.spoke = now
            self.say(Progress(part.task.name, self.done))

    def verify(self, parts: Sequence[PreparedTask]) -> None:
        """Score some random documents with lm-eval's own code too, and tell the largest difference.

        The documents are drawn by the run's seed. Nothing is stored: it is a check of the engine.
        """
        import numpy as np

        places = [(part, at) for part in parts if not part.generates for at in range(part.n)]
        if not self.job.verify or not places:
            return
        self.say(Stage("scoring some documents with lm-eval too"))
        draw = np.random.default_rng(self.settings.seed).permutation(len(places))[: self.job.verify]
        chosen = [places[i] for i in draw]
        found = [pair for part in parts for pair in self._both(part, {at for p, at in chosen if p is part})]
        largest = max(abs(ours.loglikelihood - theirs.loglikelihood) / n for ours, theirs, n in found)
        greedy = sum(ours.greedy != theirs.greedy for ours, theirs, _ in found)
        self.say(
            Note(
                f"Verified {len(chosen)} documents ({len(found)} log-likelihoods) with lm-eval: the largest "
                f"difference is {largest:.1e} nat per scored token, {greedy} greedy flags differ."
            )
        )

    def _both(self, part: PreparedTask, documents: set[int]) -> list[tuple[Answer, Answer, int]]:
        """Our answer, lm-eval's, and the number of scored tokens, of every request of some documents."""
        wanted = [at for at, owner in enumerate(part.content.owner) if int(owner) in documents]
        if not wanted:
            return []
        theirs = door.score_with_lm_eval(part, self.model, self.loaded.tokenizer, batch_size=1, wanted=wanted)
        spans = part.content.spans
        places = [place for at in wanted for place in range(int(spans[at]), int(spans[at + 1]))]
        ours = [self.answers[part.task.name][place] for place in places]
        lengths = [part.requests[place].n_scored for place in places]
        return list(zip(ours, theirs, lengths, strict=True))

    def cost(self) -> Cost:
        """Load time and peak memory of scoring; latency and throughput too where they are asked for, and
        the quick ones of them unasked where that takes under a minute.

        These are measured on the scheme's own kernels: a model changed for scoring is loaded anew.
        """
        from qeval.score.cost import QUICK, quick_enough

        asked, device = self.job.cost, self.settings.device
        cost, peak = Cost(self.provenance.device, self.loaded.load_seconds), peak_bytes(device)
        loading = 0.0 if self.native else self.loaded.load_seconds
        if quick_enough(self.loaded.model.device.type, loading) if asked is None else asked:
            bench = QUICK if asked is None else None
            cost = _measured(self._as_loaded, cost, self.say, bench)
        return _with_peak(cost, peak, device)

    def _as_loaded(self) -> model.Loaded:
        """The variant on its own kernels."""
        if not self.native:
            self.engine, self.model = None, None
            self.loaded = replace(self.loaded, model=None)
            self.loaded = _load(self.job, self.say)
        return self.loaded


def _not_a_number(part: PreparedTask, request: int) -> QevalError:
    import numpy as np

    question = int(np.searchsorted(part.content.spans, request, side="right")) - 1
    document = int(part.content.owner[question])
    return QevalError(
        f"The model's logits are not finite numbers at item {document} of {part.task.name}.",
        "The weights overflow in this dtype or are damaged; try --dtype bfloat16 or float32.",
    )
