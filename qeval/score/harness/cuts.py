"""Ways to take prompts apart, so that what they share is encoded once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qeval.score.harness.boundaries import Boundaries


@dataclass(frozen=True)
class Cut:
    """A way to take text apart so that its pieces can be encoded one by one.

    `after`: each piece ends after a newline, else each begins before one. GPT-2's kin take the newlines of
    a paragraph break apart where a word follows, so no piece may end in both; Llama 3's and Qwen's glue
    newlines to the full stop before them, so no piece may begin with one. Pieces but the first are encoded
    behind `anchor`, whose tokens are taken off again: SentencePiece puts a space before the first word of
    whatever it is given. Those that begin at a sure boundary may stand behind a letter.
    """

    after: bool
    anchor: str

    def before(self, piece: str) -> str:
        """What a piece is encoded behind."""
        return self.anchor[:1] if piece[:1] in {" ", "\n"} else self.anchor

    def lines(self, text: str) -> list[str]:
        """`text` in pieces of a line each, none empty."""
        return [piece for piece in (_AFTER if self.after else _BEFORE).split(text) if piece]

    def paragraphs(self, text: str) -> list[str]:
        """`text` in larger pieces, none empty, cut at paragraph breaks where `lines` would cut too."""
        first, *rest = text.split("\n\n")
        out = [first]
        for part in rest:
            if self.after:
                out[-1] += "\n\n"
            piece = part if self.after else "\n\n" + part
            sound = part[:1] if self.after else out[-1][-1:]
            if sound and not sound.isspace():
                out.append(piece)
            else:
                out[-1] += piece
        return [piece for piece in out if piece]

    def seam(self, text: str) -> int:
        """Where the last word of `text` begins, or its last line if that has one word: what stands before is
        the same for all answers and need not be encoded with each. 0 where there is no sound place."""
        newline = text.rfind("\n")
        word = text.rfind(" ")
        if word > newline + 1 and not text[word - 1].isspace():
            return word
        if newline < 0:
            return 0
        at = newline + 1 if self.after else len(text[:newline].rstrip())
        return at if not (text[at].isspace() if self.after else text[at] != "\n") else 0


_BEFORE = re.compile(r"(?<=\S)(?=\n)")
_AFTER = re.compile(r"(?<=\n)(?=\S)")
CUTS = (
    Cut(after=False, anchor=""),
    Cut(after=True, anchor=""),
    Cut(after=False, anchor="a"),
    Cut(after=True, anchor="a\n"),
)
"""All that there are; see `ways`."""


def ways(found: Boundaries) -> list[Cut | None]:
    """The shortcuts for a tokenizer of which this is proved, best first: a Cut, or None for whole texts in
    batches, which is none."""
    if " " not in found.sure:
        return [None]
    able = [cut for cut in CUTS if bool(cut.anchor) is found.front]
    return [*sorted(able, key=lambda cut: cut.after is ("\n" in found.sure)), None]
