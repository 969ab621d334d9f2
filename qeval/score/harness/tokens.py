"""Text to tokens exactly as lm-eval's HFLM does it, but in batches and each piece of text once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.score.engine.requests import TokenRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tokens = NDArray[np.int32]

Pair = tuple[str, str]
Key = tuple[bool, str]  # whether a piece begins the text, and the piece
Encoded = tuple["Tokens", "Tokens"]
_CHECKED_AT_LEAST = 8
_CHECKED_EVERY = 100


@dataclass(frozen=True)
class Cut:
    """A way to take text apart so that its pieces can be encoded one by one.

    `after`: each piece ends after a newline, else each begins before one. GPT-2's kin take the newlines of
    a paragraph break apart where a word follows, so no piece may end in both; Llama 3's and Qwen's glue
    newlines to the full stop before them, so no piece may begin with one. Pieces but the first are encoded
    behind `anchor`, whose tokens are taken off again: SentencePiece puts a space before the first word of
    whatever it is given.
    """

    after: bool
    anchor: str

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
_CUTS = tuple(Cut(after, anchor) for anchor in ("", "a", "a\n") for after in (False, True))


@dataclass
class Encoder:
    """A tokenizer with what has been learnt about it.

    `hflm` is lm-eval's HFLM without a model: its word on tokens is law. `prefix_text` is the text of the
    token that stands before a text without context. `before` and `behind` are the special tokens set around a
    text. `ways` are the shortcuts that have not failed yet, best first: a Cut, or None for whole texts in
    batches. `paragraphs` and `lines` remember the pieces of the first of them.
    """

    tokenizer: Any
    hflm: Any
    prefix_text: str
    before: Tokens
    behind: Tokens
    ways: list[Cut | None]
    paragraphs: dict[Key, Tokens] = field(default_factory=dict)
    lines: dict[Key, Tokens] = field(default_factory=dict)


def encoder(tokenizer: Any) -> Encoder:
    """An Encoder of `tokenizer`; raises QevalError where it has neither BOS nor EOS token."""
    import numpy as np

    hflm = _bare_hflm(tokenizer)
    if hflm.prefix_token_id is None:
        raise QevalError(
            "The tokenizer has neither a BOS nor an EOS token, so there is nothing to begin a text with.",
            "Set bos_token or eos_token in its tokenizer_config.json.",
        )
    whole, body = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    at = _position(body, whole)
    fast = bool(getattr(tokenizer, "is_fast", False))
    ways: list[Cut | None] = [*_CUTS, None] if at >= 0 else [None]
    return Encoder(
        tokenizer=tokenizer,
        hflm=hflm,
        prefix_text=tokenizer.decode(hflm.prefix_token_id),
        before=np.array(whole[: max(at, 0)], dtype=np.int32),
        behind=np.array(whole[at + len(body) :] if at >= 0 else [], dtype=np.int32),
        ways=ways if fast else [],
    )


def _bare_hflm(tokenizer: Any) -> Any:
    """HFLM as it is before a model is loaded, with all that its tokenising methods look at."""
    from lm_eval.models.huggingface import HFLM

    hflm = HFLM.__new__(HFLM)
    hflm.tokenizer = tokenizer
    hflm.backend = "causal"
    hflm.add_bos_token = None
    hflm.custom_prefix_token_id = None
    hflm.chat_template_args = {}
    return hflm


def _position(part: Sequence[int], whole: Sequence[int]) -> int:
    """Where `part` begins within `whole`, -1 if nowhere."""
    for start in range(len(whole) - len(part) + 1):
        if list(whole[start : start + len(part)]) == list(part):
            return start
    return -1


def pair_requests(
    encoder: Encoder, pairs: Sequence[Pair], max_length: int, task: str
) -> tuple[list[TokenRequest], int]:
    """A token request for each (context, continuation), and how many were cut on the left.

    Raises QevalError where lm-eval would stop: an empty answer, or one longer than the model takes.
    """
    import numpy as np

    requests = []
    truncated = 0
    for pair, (context, continuation) in zip(pairs, _encoded(encoder, pairs), strict=True):
        if not len(context) or not len(continuation) or len(continuation) > max_length:
            raise _unscorable(task, pair, len(context), len(continuation), max_length)
        tokens = np.concatenate((context, continuation))
        truncated += len(tokens) > max_length + 1
        requests.append(TokenRequest(tokens[-(max_length + 1) :], len(continuation)))
    return requests, truncated


def _unscorable(task: str, pair: Pair, context: int, continuation: int, max_length: int) -> QevalError:
    shown = f"{pair[0][-40:]!r} -> {pair[1][:40]!r}"
    if context and continuation:
        return QevalError(
            f"An answer of task {task!r} has {continuation} tokens, the model takes {max_length}: {shown}.",
            "Leave the task out for this model.",
        )
    which = "answer" if context else "prompt"
    return QevalError(f"An {which} of task {task!r} has no tokens: {shown}.", "Leave the task out.")


def rolling_requests(encoder: Encoder, text: str, max_length: int) -> list[TokenRequest]:
    """The windows of a text's rolling log-likelihood, as lm-eval lays them."""
    import numpy as np
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    windows = get_rolling_token_windows(
        token_list=encoder.hflm.tok_encode(text),
        prefix_token=encoder.hflm.prefix_token_id,
        max_seq_len=max_length,
        context_len=1,
    )
    return [
        TokenRequest(np.array([*context, *scored], dtype=np.int32), len(scored))
        for context, scored in map(make_disjoint_window, windows)
    ]


def _encoded(encoder: Encoder, pairs: Sequence[Pair]) -> Iterable[Encoded]:
    """Context and continuation of each pair in tokens, as HFLM.loglikelihood makes them."""
    while encoder.ways:
        way = encoder.ways[0]
        quick = _quickly(encoder, way, _sample(pairs))
        if quick is not None and _equal(quick, _slowly(encoder, _sample(pairs))):
            found = _quickly(encoder, way, pairs)
            if found is not None:
                return found
        encoder.ways.pop(0)
        encoder.paragraphs.clear()
        encoder.lines.clear()
    return _slowly(encoder, pairs)


def _sample(pairs: Sequence[Pair]) -> Sequence[Pair]:
    every = max(1, min(_CHECKED_EVERY, len(pairs) // _CHECKED_AT_LEAST))
    return pairs[:: every - 1 + every % 2]  # an odd step meets each of four choices


def _equal(some: Iterable[Encoded], others: Iterable[Encoded]) -> bool:
    import numpy as np

    return all(
        np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(some, others, strict=True)
    )


def _slowly(encoder: Encoder, pairs: Sequence[Pair]) -> list[Encoded]:
    """Pair by pair through lm-eval's own method."""
    import numpy as np

    out = []
    for context, continuation in pairs:
        if context == "":
            tokens = encoder.hflm.tok_encode(continuation, add_special_tokens=False)
            out.append(_after_prefix(encoder, np.array(tokens, dtype=np.int32)))
        else:
            start, rest = encoder.hflm._encode_pair(context, continuation)  # noqa: SLF001 - the method in question
            out.append((np.array(start, dtype=np.int32), np.array(rest, dtype=np.int32)))
    return out


def _after_prefix(encoder: Encoder, tokens: Tokens) -> Encoded:
    """What HFLM does without a context: the prefix token takes its place, unless it is there already."""
    import numpy as np

    prefix = encoder.hflm.prefix_token_id
    if len(tokens) and tokens[0] == prefix:
        return tokens[:1], tokens[1:]
    return np.array([prefix], dtype=np.int32), tokens


@dataclass(frozen=True)
class _Text:
    """A text to be encoded: `special` tokens around it or not; `head` may be encoded apart from `tail`."""

    head: str
    tail: str
    special: bool


def _quickly(encoder: Encoder, way: Cut | None, pairs: Sequence[Pair]) -> list[Encoded] | None:
    """The pairs by a shortcut; None where it cannot be gone."""
    starts = {context: _start(encoder, way, context) for context in dict.fromkeys(pair[0] for pair in pairs)}
    texts = [
        (starts[context], _joined(encoder, starts[context], *pair)) for pair in pairs for context in pair[:1]
    ]
    distinct = dict.fromkeys(text for both in texts for text in both if text is not None)
    found = _whole(encoder, list(distinct)) if way is None else _by_pieces(encoder, way, list(distinct))
    if found is None:
        return None
    tokens = dict(zip(distinct, found, strict=True))
    out = []
    for start, joined in texts:
        if start is None:
            out.append(_after_prefix(encoder, tokens[joined]))
        else:
            out.append((tokens[start], tokens[joined][len(tokens[start]) :]))
    return out


def _start(encoder: Encoder, way: Cut | None, context: str) -> _Text | None:
    """The context without white space at its end, which belongs to the continuation; None if it is empty.
    HFLM sets special tokens around a text unless it begins with one."""
    if context == "":
        return None
    kept = context.rstrip()
    at = 0 if way is None else way.seam(kept)
    return _Text(kept[:at], kept[at:], special=not kept.startswith(encoder.prefix_text))


def _joined(encoder: Encoder, start: _Text | None, context: str, continuation: str) -> _Text:
    """Context and continuation in one."""
    if start is None:
        return _Text("", continuation, special=False)
    length = len(start.head) + len(start.tail)
    rest = context[length:] + continuation
    special = start.special
    if length < len(encoder.prefix_text):  # the continuation may complete what looks like the prefix
        special = not (context + continuation).startswith(encoder.prefix_text)
    return _Text(start.head, start.tail + rest, special)


def _whole(encoder: Encoder, texts: Sequence[_Text]) -> list[Tokens]:
    import numpy as np

    out: list[Tokens] = [np.empty(0, dtype=np.int32)] * len(texts)
    for special in (True, False):
        places = [at for at, text in enumerate(texts) if text.special is special]
        strings = [texts[at].head + texts[at].tail for at in places]
        for at, tokens in zip(places, _batch(encoder.tokenizer, strings, special=special), strict=True):
            out[at] = tokens
    return out


def _batch(tokenizer: Any, strings: list[str], *, special: bool) -> list[Tokens]:
    import numpy as np

    tokenizer.encode("a")  # sets the backend's truncation and padding back to none, as every call does
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(strings, add_special_tokens=special)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def _by_pieces(encoder: Encoder, cut: Cut, texts: Sequence[_Text]) -> list[Tokens] | None:
    """Each text from its pieces, every distinct piece encoded once; None if the anchor does not hold.

    Paragraphs come again and again (few-shot examples), and so do lines ("Answer: B"), so both are
    remembered.
    """
    import numpy as np

    heads = {head: _keys([], cut.paragraphs(head)) for head in dict.fromkeys(text.head for text in texts)}
    tails = [_keys(heads[text.head], cut.lines(text.tail)) for text in texts]
    new = {key: None for keys in heads.values() for key in keys if key not in encoder.paragraphs}
    lines = {key: [(key[0] and not at, line) for at, line in enumerate(cut.lines(key[1]))] for key in new}
    if not _learn(encoder, cut, dict.fromkeys(key for keys in (*lines.values(), *tails) for key in keys)):
        return None
    none = np.empty(0, dtype=np.int32)
    for key, keys in lines.items():
        encoder.paragraphs[key] = np.concatenate([none, *(encoder.lines[line] for line in keys)])
    begun = {
        head: np.concatenate([none, *(encoder.paragraphs[key] for key in keys)])
        for head, keys in heads.items()
    }
    return [
        np.concatenate(
            [
                encoder.before if text.special else none,
                begun[text.head],
                *(encoder.lines[key] for key in tail),
                encoder.behind if text.special else none,
            ]
        )
        for text, tail in zip(texts, tails, strict=True)
    ]


def _keys(ahead: Sequence[Any], pieces: Sequence[str]) -> list[Key]:
    """Each piece with whether it begins the text."""
    return [(not ahead and not at, piece) for at, piece in enumerate(pieces)]


def _learn(encoder: Encoder, cut: Cut, keys: Iterable[Key]) -> bool:
    """Encodes the lines that are not known yet; False where the anchor runs into a piece."""
    import numpy as np

    unknown = [key for key in keys if key not in encoder.lines]
    strings = [piece if first else cut.anchor + piece for first, piece in unknown]
    anchor = _batch(encoder.tokenizer, [cut.anchor], special=False)[0]
    for key, tokens in zip(unknown, _batch(encoder.tokenizer, strings, special=False), strict=True):
        if key[0]:
            encoder.lines[key] = tokens
        elif np.array_equal(tokens[: len(anchor)], anchor):
            encoder.lines[key] = tokens[len(anchor) :]
        else:
            return False
    return True
