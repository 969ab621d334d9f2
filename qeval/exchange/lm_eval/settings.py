"""The settings that lm-eval was called with: the same for all variants of a task, or refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.settings import Settings
from qeval.exchange.lm_eval.results import ResultsFile
from qeval.exchange.lm_eval.variants import Measured


def _templated(file: ResultsFile) -> bool:
    return bool(file.table.get("chat_template") or file.table.get("chat_template_sha"))


_FIELDS: dict[str, Callable[[ResultsFile], Any]] = {
    "config.fewshot_seed": lambda file: int(file.config.get("fewshot_seed") or Settings.seed),
    "config.limit": lambda file: file.config.get("limit"),
    "chat_template": _templated,
}
"""What shapes the questions, by its place in a results file."""
_UNHASHED: dict[str, Callable[[ResultsFile], Any]] = {
    "chat_template": lambda file: _sha(file, "chat_template"),
    "system_instruction": lambda file: _sha(file, "system_instruction"),
    "fewshot_as_multiturn": lambda file: file.table.get("fewshot_as_multiturn"),
}
"""What the hashes of prompts prove to be the same, where there are samples; of what a file does not tell,
nothing is known."""


def told_of(file: ResultsFile) -> dict[str, str]:
    """What a file tells of all these, as texts by name."""
    known = {name.removeprefix("config."): read(file) for name, read in _FIELDS.items()}
    known["a chat template"] = known.pop("chat_template")
    known |= {name: told for name, read in _UNHASHED.items() if (told := read(file)) is not None}
    return {name: f"{v:g}" if isinstance(v, float) else _shown(v) for name, v in known.items()}


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


def _sha(file: ResultsFile, name: str) -> str | None:
    """The SHA-256 of a text, which lm-eval writes too since it writes the text; "" where there is none, None
    where the file's version does not tell."""
    text, told = file.table.get(name), file.table.get(f"{name}_sha")
    if told:
        return str(told)
    if isinstance(text, str) and text:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return "" if name in file.table and not text else None


def _check(files: Iterable[ResultsFile], task: str) -> None:
    first, *others = files
    for other in others:
        compared = [(name, read(first), read(other)) for name, read in _FIELDS.items()]
        if not (first.has_samples(task) and other.has_samples(task)):
            known = ((name, read(first), read(other)) for name, read in _UNHASHED.items())
            compared += [(name, one, two) for name, one, two in known if None not in (one, two)]
        for field, one, two in compared:
            if one != two:
                raise QevalError(
                    f"{task} was asked with different settings: {field} is {_shown(one)} in "
                    f"{first.path}, and {_shown(two)} in {other.path}.",
                    f"Run lm_eval again for one of them; either can be imported on its own: qeval import "
                    f"{first.path}",
                )


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, str):
        return f"a text of SHA-256 {value[:12]}" if value else "none"
    return str(value)


_WORDS = {None: "none", False: "none", True: "there"}


def _settings(results: ResultsFile) -> Settings:
    config = results.config
    limit = config.get("limit")
    return Settings(
        seed=int(config.get("fewshot_seed") or Settings.seed),
        limit=int(limit) if limit is not None and float(limit) >= 1 else None,
        batch_size=str(config.get("batch_size") or "auto"),
        engine="lm-eval",
        chat_template=_templated(results),
    )
