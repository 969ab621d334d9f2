"""The chat template as lm-eval applies it, and what it drops or frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qeval.base.errors import QevalError


class Chat:
    """lm-eval's way to apply a tokenizer's chat template, watched: `silent` is whether a system message, in
    which lm-eval puts a task's description, was left out of a prompt."""

    def __init__(self, hflm: Any) -> None:
        self.hflm = hflm
        self.silent = False

    def apply(self, history: list[dict[str, str]], *args: Any, **options: Any) -> str:
        """The prompt. A template that refuses a system message is applied without it, and one that has no
        place for it leaves it out; both are noticed by its text being gone.
        """
        prompt: str = self.hflm.apply_chat_template(history, *args, **options)
        systems = [turn["content"].strip() for turn in history if turn["role"] == "system"]
        self.silent = self.silent or any(text not in prompt for text in systems)
        return prompt

    def frame(self) -> str:
        """The template around an empty message, up to where the model's answer begins.

        Raises QevalError where the tokenizer has none.
        """
        try:
            return str(self.hflm.apply_chat_template([{"role": "user", "content": ""}]))
        except Exception as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise QevalError(
                f"The tokenizer's chat template cannot be applied: {what}.",
                "Leave out --framed, or use a model whose tokenizer has one.",
            ) from error

    def notes(self, *, framed: bool) -> Iterator[str]:
        """Sentences on what was dropped or framed."""
        if self.silent:
            yield (
                "the chat template has no place for a system message, so that the task's description is left"
                " out of the prompts, as in lm-eval."
            )
        if framed:
            yield (
                "perplexity inside the chat template: of each text as the model's answer to an empty message,"
                " in windows that each follow the template anew. It says how well the chat model would write"
                " the text, and is no perplexity of raw text: compare it with its own kind only."
            )
