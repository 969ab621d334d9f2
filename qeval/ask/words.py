"""The words of `qeval run` as they were typed, and which of them exclude each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from qeval.ask import placing
from qeval.ask.model import split_revision, usual_suite
from qeval.base.errors import UsageError
from qeval.base.private import homeless
from qeval.base.reading import whole
from qeval.base.settings import WRITING
from qeval.load.device import check_device, check_dtype
from qeval.load.toy import is_toy


@dataclass(frozen=True, kw_only=True)
class Words:
    """What was typed, by the names of the options; `settings` are those that are handed on as they are."""

    model: str
    schemes: str
    suite: str | None
    tasks: str | None
    num_fewshot: int | None
    baseline: str | None
    limit: int | None
    revision: str | None
    adapter: str | None
    runs_dir: Path
    command: tuple[str, ...]
    verify: int | None
    cost: bool | None
    again: bool
    no_materialize: bool
    datasets_dir: Path | None
    gate: Path | None
    executor: str = "local"
    repeat_baseline: bool = False
    repeat_quantisation: int | None = None
    devices: str | None = None
    workers: int | None = None
    threads: int | None = None
    prepare: bool = False
    finish: bool = False
    wait: bool = False
    dry_run: bool = False
    sbatch_args: tuple[str, ...] = ()
    ray_address: str | None = None
    no_shared_store: bool = False
    fidelity: str | None = None
    fidelity_cache_limit: int | None = None
    settings: dict[str, Any]

    @property
    def clustered(self) -> bool:
        """Whether an executor of a cluster starts the workers."""
        return self.executor in placing.CLUSTERS

    @property
    def elsewhere(self) -> bool:
        """Whether processes score that the command does not start itself."""
        return self.clustered or self.prepare or self.finish

    @property
    def suite_name(self) -> str | None:
        """The suite that is meant; None where tasks are named instead."""
        return None if self.tasks else self.suite or usual_suite(self.model)


_OWN = frozenset(field.name for field in fields(Words)) - {"settings"}


def read(**asked: Any) -> Words:
    """Words by the names of their options, checked, with the model's name and revision apart. Raises
    UsageError where they make no sense together."""
    own = {name: value for name, value in asked.items() if name in _OWN}
    words = Words(**own, settings={name: value for name, value in asked.items() if name not in _OWN})
    _check_scoring(words)
    _check_places(words)
    if not words.elsewhere:  # what this machine has does not count for those who score
        device = words.settings.get("device", "auto")
        told = placing.device_of(words.model, device, words.devices, words.workers, words.threads)
        words = replace(words, settings=words.settings | told)
    others = {
        "--workers": not words.clustered and words.workers is not None,
        "--no-materialize": words.no_materialize,
    }
    placing.check_spread(words.model, words.settings, others)
    return _named(words)


def _check_scoring(words: Words) -> None:
    """Raise UsageError for words on what is asked, and how, that make no sense."""
    settings, toy = words.settings, is_toy(words.model)
    check_dtype(settings.get("dtype", "auto"))
    check_device(settings.get("device", "auto"))
    if words.suite and words.tasks:
        raise UsageError("--suite and --tasks exclude each other.", "Leave one of them out.")
    batch = settings.get("batch_size", "auto")
    if batch != "auto" and not whole(batch):
        raise UsageError(f"--batch-size {batch!r} is not a number of sequences.", "Write auto, or e.g. 8.")
    if not math.isfinite(settings.get("temperature") or 0):
        raise UsageError("--temperature is not a finite number.", "Write e.g. 0.7, or leave it out.")
    if settings.get("framed") and (settings.get("engine") == "lm-eval" or toy):
        who = "The toy" if toy else "lm-eval's own engine"
        raise UsageError(f"{who} cannot measure perplexity inside a chat template.", "Leave out --framed.")
    writing = [name for name in WRITING if settings.get(name) is not None]
    if toy and writing:
        raise UsageError("The toy generates no text.", f"Leave out --{writing[0].replace('_', '-')}.")


def _check_places(words: Words) -> None:
    """Raise UsageError for words on where variants are scored that exclude each other."""
    placing.check(
        words.executor,
        prepare=words.prepare,
        finish=words.finish,
        wait=words.wait,
        dry_run=words.dry_run,
        sbatch_args=words.sbatch_args,
        ray_address=words.ray_address,
        no_shared_store=words.no_shared_store,
        devices=words.devices if words.clustered else None,
    )
    placing.check_fidelity(
        elsewhere=words.elsewhere, fidelity=words.fidelity, limit=words.fidelity_cache_limit
    )


def _named(words: Words) -> Words:
    """The words with names that tell no home directory, and the revision that the model's name may hold."""
    model, revision = split_revision(homeless(words.model), words.revision)
    adapter, baseline = (homeless(word) if word else None for word in (words.adapter, words.baseline))
    return replace(words, model=model, revision=revision, adapter=adapter, baseline=baseline)
