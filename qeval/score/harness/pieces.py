"""What pieces of text become, and which of them are proved to be what the whole becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qeval.score.harness.boundaries import BOTH, Joint, Key, joined_at
from qeval.score.harness.cuts import Cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qeval.score.harness.tokens import Encoder

    Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Text:
    """A text to be encoded: `special` tokens around it or not; `head` may be encoded apart from `tail`."""

    head: str
    tail: str
    special: bool


def batch(tokenizer: Any, strings: list[str], *, special: bool) -> list[Tokens]:
    """The tokens of each string, with the special tokens around a text or without."""
    import numpy as np

    tokenizer.encode("a")  # sets the backend's truncation and padding back to none, as every call does
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(strings, add_special_tokens=special)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def behind(tokenizer: Any, anchors: Sequence[str], keys: Sequence[Key]) -> list[Tokens | None]:
    """The tokens of each piece behind its anchor, without the anchor's; None where they run together."""
    import numpy as np

    names = list(dict.fromkeys(anchors))
    anchor = dict(zip(names, batch(tokenizer, names, special=False), strict=True))
    strings = [name + piece for name, (_, piece) in zip(anchors, keys, strict=True)]
    found = zip(anchors, batch(tokenizer, strings, special=False), strict=True)
    return [
        tokens[len(anchor[name]) :] if np.array_equal(tokens[: len(anchor[name])], anchor[name]) else None
        for name, tokens in found
    ]


# --- pieces that might differ from the whole ----------------------------------------------------


def doubtful(
    encoder: Encoder,
    cut: Cut,
    texts: Sequence[Text],
    lines: Mapping[Key, Sequence[Key]],
    heads: Mapping[str, Sequence[Key]],
    tails: Sequence[Sequence[Key]],
) -> list[int]:
    """The places of the texts that are not proved to be what their pieces make.

    `lines` are those of the paragraphs that are new.
    """
    sure, risky = encoder.bounds.sure, encoder.bounds.risky
    if cut.after or not sure >= BOTH:
        beside = [pair for keys in (*lines.values(), *heads.values()) for pair in pairwise(keys)]
        meet = [[*heads[text.head][-1:], *tail] for text, tail in zip(texts, tails, strict=True)]
        _judge(encoder, cut, dict.fromkeys([*beside, *(pair for keys in meet for pair in pairwise(keys))]))
        encoder.unsound |= {key for key, keys in lines.items() if not _sound(encoder, keys)}
        bad = {head for head, keys in heads.items() if not _sound(encoder, keys)}
        found = {at for at, keys in enumerate(meet) if texts[at].head in bad or not _sound(encoder, keys)}
    else:
        found = set()  # every piece but the first begins at a sure boundary
    if risky is not None:
        bad, reach = {head for head in heads if risky.search(head)}, encoder.bounds.reach
        ends = [text.head[-reach:] + text.tail for text in texts]
        found |= {at for at, text in enumerate(texts) if text.head in bad or risky.search(ends[at])}
    return sorted(found)


def _sound(encoder: Encoder, keys: Sequence[Key]) -> bool:
    """Whether the pieces are of use, and each may stand beside the next."""
    return encoder.unsound.isdisjoint(keys) and all(encoder.joints[pair] for pair in pairwise(keys))


def _judge(encoder: Encoder, cut: Cut, pairs: Iterable[Joint]) -> None:
    """Finds of each two pieces whether they may stand side by side.

    What lies between the last sure boundary of the left and the first of the right depends on nothing else,
    so that is encoded together and apart.
    """
    chunks: dict[tuple[Key, str], list[Joint]] = {}
    for pair in pairs:
        if pair not in encoder.joints:
            encoder.joints[pair] = False
            chunk = joined_at(encoder.bounds.sure, *pair)
            if chunk is not None:
                chunks.setdefault(chunk, []).append(pair)
    for fits, some in zip(_fit(encoder, cut, list(chunks)), chunks.values(), strict=True):
        encoder.joints.update(dict.fromkeys(some, fits))


def _fit(encoder: Encoder, cut: Cut, chunks: Sequence[tuple[Key, str]]) -> Iterator[bool]:
    """Of each two parts whether their tokens are those of both together."""
    import numpy as np

    left = list(dict.fromkeys(key for key, _ in chunks))
    right = list(dict.fromkeys(piece for _, piece in chunks))
    both = [(first, ahead + piece) for (first, ahead), piece in chunks]
    keys = [*left, *both]
    starts = ["" if first or not encoder.bounds.front else "a" for first, _ in keys]
    begun = dict(zip(keys, behind(encoder.tokenizer, starts, keys), strict=True))
    ends = behind(
        encoder.tokenizer, [cut.before(piece) for piece in right], [(False, piece) for piece in right]
    )
    ended = dict(zip(right, ends, strict=True))
    for (key, piece), joined in zip(chunks, both, strict=True):
        whole, one, other = begun[joined], begun[key], ended[piece]
        if whole is None or one is None or other is None:
            yield False
        else:
            yield np.array_equal(whole, np.concatenate((one, other)))
