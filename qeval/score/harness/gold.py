"""Whether a multiple-choice task has right answers at all: one whose field is misspelt scores 0 everywhere,
and lm-eval only logs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.text import one_line

_LONGEST = 80
"""The most characters that a message quotes of an answer, and of the choices."""


def check_answers(lm_task: Any, docs: Sequence[Any], name: str) -> None:
    """Refuse a multiple-choice task none of whose documents has a right answer among its choices, neither of
    the `docs` that are asked nor of the others. A task that judges by a function of its own is let be: it may
    read the answer elsewhere. One document without a right answer is lm-eval's to count as wrong.

    Raises QevalError, with what the first document gives.
    """
    if lm_task.OUTPUT_TYPE != "multiple_choice" or not docs or not _judges_as_usual(lm_task):
        return
    if any(_has_one(lm_task, doc) for doc in chain(docs, lm_task.eval_docs)):
        return
    field = "doc_to_text" if lm_task.multiple_input else "doc_to_target"
    answer, choices = (
        _short(repr(of(docs[0]))) for of in (lambda doc: _answer(lm_task, doc), lm_task.doc_to_choice)
    )
    raise QevalError(
        f"No document of the task {name!r} has a right answer among its choices: {field} gives {answer} for"
        f" the first, whose choices are {choices}.",
        f"Correct {field} in its YAML: name a field of the data, or the number of the right choice from 0.",
    )


def _judges_as_usual(lm_task: Any) -> bool:
    """Whether lm-eval's own function looks for the right answer among the choices."""
    from lm_eval.api.task import ConfigurableTask

    usual = getattr(type(lm_task), "process_results", None) is ConfigurableTask.process_results
    return usual and not callable(lm_task.config.process_results)


def _answer(lm_task: Any, doc: Any) -> Any:
    """What lm-eval takes for the right answer: a choice, its number, or a list of numbers."""
    return lm_task.doc_to_text(doc) if lm_task.multiple_input else lm_task.doc_to_target(doc)


def _has_one(lm_task: Any, doc: Any) -> bool:
    answer, choices = _answer(lm_task, doc), lm_task.doc_to_choice(doc)
    if isinstance(answer, str):
        return answer in choices
    return any(one in range(len(choices)) for one in (answer if isinstance(answer, list) else [answer]))


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
