"""The settings that lm-eval was called with: the same for all variants of a task, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.settings import Settings
from qeval.exchange.lm_eval.results import ResultsFile
from qeval.exchange.lm_eval.variants import Measured

_FIELDS: dict[str, Callable[[ResultsFile], Any]] = {
    "config.fewshot_seed": lambda file: int(file.config.get("fewshot_seed") or Settings.seed),
    "config.limit": lambda file: file.config.get("limit"),
    "chat_template": lambda file: bool(file.table.get("chat_template")),
}
"""What shapes the questions, by its place in a results file."""


def settings_of(variants: Sequence[Measured]) -> Settings:
    """The settings of the results that hold, where one is the same for all; else what is usual.

    Raises QevalError where two variants were asked the same task with different ones.
    """
    held = [variant.newest for variant in variants]
    for task in dict.fromkeys(task for files in held for task in files):
        _check([files[task] for files in held if task in files], task)
    files = list({file.path: file for some in held for file in some.values()}.values())
    last = _settings(files[-1])
    usual = Settings(engine=last.engine)
    differing = {
        name: getattr(usual, name)
        for name in ("seed", "limit", "chat_template")
        if len({getattr(_settings(file), name) for file in files}) > 1
    }
    return replace(last, **differing)


def _check(files: Iterable[ResultsFile], task: str) -> None:
    first, *others = files
    for field, read in _FIELDS.items():
        for other in others:
            if read(other) != read(first):
                raise QevalError(
                    f"{task} was asked with different settings: {field} is {_shown(read(first))} in "
                    f"{first.path}, and {_shown(read(other))} in {other.path}.",
                    f"Run lm_eval again for one of them; by itself either can be imported: qeval import "
                    f"{first.path}",
                )


def _shown(value: Any) -> str:
    return _WORDS.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)


_WORDS = {None: "none", False: "none", True: "there"}


def _settings(results: ResultsFile) -> Settings:
    config = results.config
    limit = config.get("limit")
    return Settings(
        seed=int(config.get("fewshot_seed") or Settings.seed),
        limit=int(limit) if limit is not None and float(limit) >= 1 else None,
        batch_size=str(config.get("batch_size") or "auto"),
        engine="lm-eval",
        chat_template=bool(results.table.get("chat_template")),
    )
