"""What a model thinks before it answers: the markers around it, and an answer without it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qeval.base.reading import whole

Ending = Literal["none", "ended", "open"]
"""Of thinking in a text: there is none, it ended, or it began and never ended."""
USUAL = ("<think>", "</think>")
# Those of which neither the word nor the brackets tell; they count where a tokenizer has all their tokens.
_OTHERS = (
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", ("<|channel|>", "<|message|>")),
    ("<|channel>", "<channel|>", ("<|channel>", "<channel|>")),
    ("<|inner_prefix|>", "<|inner_suffix|>", ("<|inner_prefix|>", "<|inner_suffix|>")),
)
_TAG = re.compile(r"(?:<\|?|\[|◁)/?[\w:]*(?:think|thought|reason)[\w:]*(?:\|?>|\]|▷)", re.IGNORECASE)
_END_WORD = re.compile(r"(?<![a-z])end(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Thinking:
    """The markers around thinking, as (beginning, end). `end`, where a person named it, is lm-eval's
    `think_end_token`, and answers are exactly what lm-eval makes of it."""

    pairs: tuple[tuple[str, str], ...] = (USUAL,)
    end: str = ""

    @property
    def ends(self) -> tuple[str, ...]:
        """What may end thinking."""
        return (self.end,) if self.end else tuple(end for _, end in self.pairs)

    def without(self, text: str, *, begun: bool = False) -> tuple[str, Ending]:
        """The answer in a text, and what became of the thinking. `begun`: the prompt began it.

        The answer begins after the last end, whatever stands before; white space in front of it goes with
        the thinking. Of thinking that never ends nothing is an answer. As in lm-eval, which knows no
        beginning: with `end` named it judges thinking that never ends, and white space always goes.
        """
        after = max((text.rfind(end) + len(end) for end in self.ends if end in text), default=0)
        rest = text[after:].lstrip() if after or self.end else text
        opens = [rest.find(begin) for begin, _ in self.pairs if begin in rest]
        if begun and not after:
            opens = [0]
        if opens:
            return (rest if self.end else rest[: min(opens)]), "open"
        return rest, "ended" if after else "none"

    def begun(self, prompt: str) -> bool:
        """Whether a prompt ends in a beginning, as some chat templates have it."""
        return prompt.rstrip().endswith(tuple(begin for begin, _ in self.pairs))


def thinking_of(tokenizer: Any, end: str | None = None) -> Thinking:
    """The usual markers, those of the tokenizer's vocabulary and chat template, and the `end` that was named,
    by its text or, as in lm-eval, by the number of its token."""
    number = whole(end or "")
    if number is not None:
        end = str(tokenizer.decode([number], skip_special_tokens=False))
    added = set(map(str, tokenizer.get_added_vocab()))
    template = getattr(tokenizer, "chat_template", None) or ""
    told = " ".join([str(template), *sorted(added)])
    others = [(begin, end) for begin, end, tokens in _OTHERS if added.issuperset(tokens)]
    return Thinking(tuple(dict.fromkeys([USUAL, *_pairs(told), *others])), end or "")


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """The tags of thinking of which both the beginning and the end stand in a text."""
    found = {match.group() for match in _TAG.finditer(text)}
    for end in sorted(found):
        for begin in _beginnings(end):
            if begin in found:
                yield begin, end


def _beginnings(end: str) -> list[str]:
    """What a beginning looks like that this tag would end; nothing for one that is no end."""
    if "/" in end:
        return [end.replace("/", "", 1)]
    words = _END_WORD.sub("\0", end.replace("_", " "))
    if "\0" not in words:
        return []
    made = [words.replace("\0", word) for word in ("START", "start", "BEGIN", "begin")]
    return [tag.replace(" ", "_") for tag in made]


# --- markers that a tokenizer leaves out of its texts -------------------------------------------


def hidden(thinking: Thinking, tokenizer: Any) -> dict[str, list[int]]:
    """The markers that hold special tokens, which decoding leaves out, with their tokens; longest first."""
    special = set(map(str, tokenizer.all_special_tokens))
    special |= {str(token) for token in _added(tokenizer) if getattr(token, "special", False)}
    marks = dict.fromkeys([*thinking.ends, *(begin for begin, _ in thinking.pairs)])
    held = [mark for mark in marks if any(word and word in mark for word in special)]
    found = {mark: list(tokenizer.encode(mark, add_special_tokens=False)) for mark in held}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))


def _added(tokenizer: Any) -> list[Any]:
    return list(getattr(tokenizer, "added_tokens_decoder", {}).values())


def decoded(tokenizer: Any, tokens: Sequence[int], marks: dict[str, list[int]]) -> str:
    """The text of tokens without special ones, but with those `marks`."""
    pieces: list[str] = []
    start = at = 0
    while at < len(tokens):
        mark = next((m for m, ids in marks.items() if ids and list(tokens[at : at + len(ids)]) == ids), None)
        if mark is None:
            at += 1
            continue
        pieces += [tokenizer.decode(tokens[start:at], skip_special_tokens=True), mark]
        start = at = at + len(marks[mark])
    return "".join([*pieces, tokenizer.decode(tokens[start:], skip_special_tokens=True)])
