"""The door to lm-eval: a suite's tasks to token requests, a model's answers to scored items."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval.base.places import REQUESTS
from qeval.base.records import Task
from qeval.score.harness.asked import asked
from qeval.score.harness.leaves import Leaf
from qeval.score.harness.outcome import collect, items
from qeval.score.harness.own import OwnLoop
from qeval.score.harness.prepared import PreparedTask
from qeval.score.harness.reference import by_lm_eval_alone, longest, score_with_lm_eval
from qeval.score.harness.remarks import remarks
from qeval.score.harness.starts import start_notes, with_one_start
from qeval.score.harness.writing import Text, generate, written_as

__all__ = [
    "OwnLoop",
    "Text",
    "by_lm_eval_alone",
    "collect",
    "generate",
    "items",
    "longest",
    "prepare",
    "remarks",
    "score_with_lm_eval",
    "start_notes",
    "with_one_start",
]


def prepare(
    tasks: Sequence[Task],
    tokenizer: Any,
    *,
    max_length: int,
    seed: int = 1234,
    chat_template: bool = False,
    framed: bool = False,
    writing: Mapping[str, Any] | None = None,
    datasets_dir: Path | None = None,
    tasks_dir: Path | None = None,
    own_tasks: Path | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[PreparedTask, ...]:
    """The leaf tasks that `tasks` stand for, with prompts built and tokenised.

    A group becomes its leaves (MMLU its 57 subjects). The prompts are those of
    `lm_eval.simple_evaluate(fewshot_random_seed=seed)` with the same few-shot count and limit.
    `max_length` is the longest sequence the model takes; longer ones lose their beginning, as in lm-eval.
    `framed`: perplexities are of texts inside the chat template. `writing` are the settings that are named in
    `base.settings.WRITING`. `datasets_dir` is a mirror of Hub data set repositories, DIR/<org>/<name>;
    `tasks_dir` and `own_tasks` hold tasks that are not lm-eval's;
    `cache_dir` keeps what was built, for every process.
    `progress(name, done, total)` is called before each leaf and at the end.

    Raises UsageError for unknown tasks, metrics and filters, QevalError for data that is not to be had.
    """
    from qeval.score.harness import cache, leaves, sources

    sources.look_again()
    found = leaves.expand(tasks, tasks_dir, cache_dir, own_tasks)
    settings = {"max_length": max_length, "seed": seed, "chat_template": chat_template, "framed": framed}
    place = None if cache_dir is None else (cache_dir / REQUESTS, cache.fingerprint(tokenizer))
    build = _builder(tokenizer, datasets_dir, settings)
    prepared = []
    for done, leaf in enumerate(found):
        if progress is not None:
            progress(leaf.task.name, done, len(found))
        part = _remembered(leaf, place, datasets_dir, settings, build)
        part = replace(part, notes=(*part.notes, *sources.pin_notes(leaf, datasets_dir)))
        if part.generates:
            part = written_as(part, tokenizer, **(writing or {}))
        prepared.append(replace(part, asked=asked(leaf, part)))
    if progress is not None:
        progress("", len(found), len(found))
    return tuple(prepared)


def _builder(
    tokenizer: Any, datasets_dir: Path | None, settings: dict[str, Any]
) -> Callable[[Leaf], PreparedTask]:
    """A function that builds leaves with one encoder, which it makes when it is first needed."""
    from qeval.score.harness import prompts, tokens

    @functools.cache
    def encoder() -> tokens.Encoder:
        return tokens.encoder(tokenizer)

    return lambda leaf: prompts.build(leaf, encoder(), datasets_dir=datasets_dir, **settings)


def _remembered(
    leaf: Leaf,
    place: tuple[Path, str] | None,
    datasets_dir: Path | None,
    settings: dict[str, Any],
    build: Callable[[Leaf], PreparedTask],
) -> PreparedTask:
    """The leaf from the cache at `place` (folder and tokenizer), or built and put there."""
    from qeval.score.harness import cache

    key = None if place is None else cache.key(leaf, place[1], datasets_dir, settings)
    if place is None or key is None:
        return build(leaf)
    kept = cache.read_prepared(place[0], key, leaf)
    if kept is None:
        kept = build(leaf)
        cache.write_prepared(place[0], key, kept)
    return kept
