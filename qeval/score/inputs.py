"""What scoring begins with: the questions, which need no weights, and the variant itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.base.messages import Job, Note, Stage
from qeval.base.records import Variant
from qeval.base.settings import WRITING
from qeval.load import model, resolve
from qeval.load.making import overlap
from qeval.load.memory import forget_peak
from qeval.score.clock import phase
from qeval.score.harness import door, outcome
from qeval.score.packing import placed

if TYPE_CHECKING:
    from qeval.score.cells import Say
    from qeval.score.harness.prepared import PreparedTask


def questions(job: Job, say: Say) -> tuple[PreparedTask, ...]:
    """The job's tasks with their prompts built and tokenised; raises what `door.prepare` raises."""
    with phase("questions"):
        return _questions(job, say)


def _questions(job: Job, say: Say) -> tuple[PreparedTask, ...]:
    say(Stage("reading the tokenizer"))
    tokenizer, config = model.load_tokenizer(
        job.variant, cache_dir=Path(job.cache_dir), trust_remote_code=job.settings.trust_remote_code
    )
    say(Stage("building the questions"))
    prepared = door.prepare(
        job.tasks,
        tokenizer,
        max_length=door.longest(config, tokenizer),
        seed=job.settings.seed,
        chat_template=job.settings.chat_template,
        framed=job.settings.framed,
        writing={name: getattr(job.settings, name) for name in WRITING},
        datasets_dir=Path(job.settings.datasets_dir) if job.settings.datasets_dir else None,
        tasks_dir=Path(job.tasks_dir),
        own_tasks=Path(job.own_tasks) if job.own_tasks else None,
        cache_dir=Path(job.cache_dir),
        progress=lambda text, done, total: say(Stage(f"building the questions: {text} {done}/{total}")),
    )
    if job.settings.framed and not any(part.frame for part in prepared):
        raise QevalError("None of the tasks measures the perplexity of texts.", "Leave out --framed.")
    asked = [name for name in WRITING if getattr(job.settings, name) is not None]
    if asked and not any(part.generates for part in prepared):
        raise QevalError(
            "In none of the tasks does the model generate text.", f"Leave out --{asked[0].replace('_', '-')}."
        )
    return prepared


def calibrated_on_questions(variant: Variant, prepared: Sequence[PreparedTask]) -> list[str]:
    """A sentence for each task whose questions lie in the text that the variant was calibrated on."""
    text = resolve.calibration_text(variant)
    if text is None:
        return []
    found = []
    for part in prepared:
        questions = [item.question for item in outcome.items(part)]
        if count := overlap.held(text, questions):
            held = f"The calibration text holds {count} of {len(questions)} questions of {part.task.name}"
            found.append(f"{held}: its score may be flattered.")
    return found


def notes_of(prepared: Sequence[PreparedTask]) -> list[str]:
    """What a reader must know of how tasks are asked: a sentence for each task, or group of tasks."""
    found = {(part.task.group or part.task.name, note) for part in prepared for note in part.notes}
    return [f"{name}: {note}" for name, note in sorted(found)]


def placed_variant(job: Job, say: Say) -> model.Loaded:
    """The job's variant where it will be scored from, which is said before anything is read; its provenance
    tells. Raises QevalError where neither the device nor host memory holds it."""
    where = placed(job)
    if where.refused is not None:
        raise where.refused
    if not where.name:
        return loaded_variant(job, say, fast=not job.settings.materialize)
    say(Note(where.sentence))
    loaded = loaded_variant(job, say, streamed=True)
    told = loaded.provenance
    told = replace(told, placement=where.name, notes=(where.sentence, *told.notes))
    return replace(loaded, provenance=told)


def loaded_variant(job: Job, say: Say, *, streamed: bool = False, fast: bool = False) -> model.Loaded:
    """The job's variant on its device, by the library's own kernels where `fast`, or in host memory; what its
    loader notes is said."""
    say(Stage("loading the weights"))
    settings = job.settings
    with phase("loading"):
        loaded = model.load(
            job.variant,
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            allow_unused=settings.allow_unused,
            cache_dir=Path(job.cache_dir),
            datasets_dir=Path(settings.datasets_dir) if settings.datasets_dir else None,
            fast=fast,
            streamed=streamed,
            progress=lambda text: say(Stage(text)),
        )
    for note in (*loaded.provenance.warnings, *loaded.provenance.notes):
        say(Note(note))
    forget_peak(settings.device)  # what is scored counts, not what loading took
    return loaded


def check_vocabulary(loaded: model.Loaded, prepared: Sequence[PreparedTask]) -> None:
    """Raise QevalError where a question holds a token that the model has no embedding for.

    A tokenizer may well count more tokens than the model (one for padding, for instance); lm-eval scores such
    models too, and as long as none of these tokens is asked for no number depends on them.
    """
    rows = model.token_rows(loaded.model)
    if len(loaded.tokenizer) <= rows:
        return
    for part in prepared:
        for token in _greatest(part, loaded.tokenizer):
            if token >= rows:
                word = loaded.tokenizer.convert_ids_to_tokens(token)
                raise QevalError(
                    f"{part.task.name} asks for the token {word!r} ({token}), and {loaded.provenance.model}"
                    f" has embeddings for {rows} tokens.",
                    "The checkpoint or its tokenizer belongs to a different model than --model.",
                )


def _greatest(part: PreparedTask, tokenizer: Any) -> Iterator[int]:
    """The greatest token of each request, or of each text that a generated answer follows."""
    yield from (int(request.tokens.max()) for request in part.requests)
    if part.generates:
        for context, *_ in part.content.arguments():
            yield max(tokenizer(context)["input_ids"], default=0)
