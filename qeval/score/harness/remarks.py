"""What a reader must know of the texts that a model wrote: repeats, thinking, and what their budget cut."""

from __future__ import annotations

from collections.abc import Sequence

from qeval.score.harness.writing import Text

_FEW = 0.03
"""The share of answers that may be cut, or thought about without end, before it is a warning."""


def remarks(task: str, texts: Sequence[Text], rounds: int = 1) -> tuple[list[str], list[str]]:
    """Notes and warnings, sentences, on a task's texts: how often they were drawn, what thinking was in them,
    how many were cut by their budget."""
    notes: list[str] = []
    warnings: list[str] = []
    if rounds > 1:
        notes.append(
            f"{task}: each item was answered {rounds} times; its value is the mean over them, and the score"
            " pass@1, the chance that one answer is right, where each is right or wrong."
        )
    if thought := sum(text.thinking != "none" and text.answer != text.whole for text in texts):
        notes.append(
            f"{task}: thinking was removed from {thought} of {len(texts)} answers before they were judged; it"
            " is kept in the stored texts."
        )
    for count, sentence in (_unfinished(task, texts), _over_budget(task, texts), _shortened(task, texts)):
        if count:
            (warnings if count > _FEW * len(texts) else notes).append(sentence)
    return notes, warnings


def _unfinished(task: str, texts: Sequence[Text]) -> tuple[int, str]:
    unfinished = [text for text in texts if text.thinking == "open"]
    halted = sum(text.halted for text in unfinished)
    why = f", {halted} of them ended by a stop string of the task" if halted else ""
    return len(unfinished), (
        f"{task}: in {len(unfinished)} of {len(texts)} answers the thinking never ended{why}, so that little"
        " or nothing of them could be judged."
    )


def _over_budget(task: str, texts: Sequence[Text]) -> tuple[int, str]:
    over = [text for text in texts if text.budget]
    budgets = sorted({text.budget for text in over})
    tokens = " to ".join(dict.fromkeys(str(budget) for budget in (*budgets[:1], *budgets[-1:])))
    return len(over), (
        f"{task}: {len(over)} of {len(texts)} answers were cut by the budget of {tokens} tokens, not ended by"
        " a stop string or an end token; --max-gen-toks gives them more."
    )


def _shortened(task: str, texts: Sequence[Text]) -> tuple[int, str]:
    count = sum(text.shortened for text in texts)
    return count, (
        f"{task}: {count} of {len(texts)} prompts lost their beginning, to leave room for what is written"
        " after them."
    )
