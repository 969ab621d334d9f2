"""Text to tokens exactly as lm-eval's HFLM does it, but in batches and each piece of text once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.score.engine.requests import TokenRequest
from qeval.score.harness.boundaries import Boundaries, Joint, Key, boundaries
from qeval.score.harness.cuts import Cut, ways
from qeval.score.harness.pieces import Text, batch, behind, doubtful

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tokens = NDArray[np.int32]

Pair = tuple[str, str]
Encoded = tuple["Tokens", "Tokens"]
_CHECKED = 8
"""So many pairs of each task are encoded by lm-eval's own method too, though pieces are proved: it tells that
a tokenizer's Python code does something of its own."""
_MOST_WHOLE = 0.5
"""A way that leaves a greater share of a task's texts to be encoded whole is given up."""


@dataclass
class Encoder:
    """A tokenizer with what has been learnt about it.

    `hflm` is lm-eval's HFLM without a model: its word on tokens is law. `prefix_text` is the text of the
    token that stands before a text without context. `before` and `behind` are the special tokens set around a
    text. `ways` are the shortcuts that have not failed yet, best first: a Cut, or None for whole texts in
    batches; `bounds` is what is proved of where texts may be cut. Of the first way `paragraphs` and `lines`
    remember the pieces, `joints` which of them may stand side by side, `unsound` those not to be used.
    """

    tokenizer: Any
    hflm: Any
    prefix_text: str
    before: Tokens
    behind: Tokens
    ways: list[Cut | None]
    bounds: Boundaries = field(default_factory=Boundaries)
    paragraphs: dict[Key, Tokens] = field(default_factory=dict)
    lines: dict[Key, Tokens] = field(default_factory=dict)
    joints: dict[Joint, bool] = field(default_factory=dict)
    unsound: set[Key] = field(default_factory=set)


def encoder(tokenizer: Any) -> Encoder:
    """An Encoder of `tokenizer`; raises QevalError where it has neither BOS nor EOS token."""
    import numpy as np

    hflm = _bare_hflm(tokenizer)
    if hflm.prefix_token_id is None:
        raise QevalError(
            "The tokenizer has neither a BOS nor an EOS token, so there is nothing to start a text with.",
            "Set bos_token or eos_token in its tokenizer_config.json.",
        )
    whole, body = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    at = _position(body, whole)
    fast = bool(getattr(tokenizer, "is_fast", False))
    bounds = boundaries(tokenizer.backend_tokenizer) if fast and at >= 0 else Boundaries()
    return Encoder(
        tokenizer=tokenizer,
        hflm=hflm,
        prefix_text=tokenizer.decode(hflm.prefix_token_id),
        before=np.array(whole[: max(at, 0)], dtype=np.int32),
        behind=np.array(whole[at + len(body) :] if at >= 0 else [], dtype=np.int32),
        ways=ways(bounds) if fast else [],
        bounds=bounds,
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
            f"An answer of task {task!r} has {continuation} tokens, the model accepts {max_length}: {shown}.",
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


def framed_requests(encoder: Encoder, frame: str, text: str, max_length: int) -> list[TokenRequest]:
    """A text in windows, each behind `frame` by itself: every token is scored once, none of the frame's.

    Raises QevalError where the frame leaves no room.
    """
    import numpy as np

    ahead = encoder.hflm.tok_encode(frame)
    body = encoder.hflm.tok_encode(text, add_special_tokens=False)
    room = max_length + 1 - len(ahead)
    if room < 1:
        raise QevalError(
            f"The chat template takes {len(ahead)} tokens, and the model {max_length}.", "Leave out --framed."
        )
    windows = [body[at : at + room] for at in range(0, len(body), room)]
    return [TokenRequest(np.array([*ahead, *some], dtype=np.int32), len(some)) for some in windows]


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
        for memory in (encoder.paragraphs, encoder.lines, encoder.joints, encoder.unsound):
            memory.clear()
    return _slowly(encoder, pairs)


def _sample(pairs: Sequence[Pair]) -> Sequence[Pair]:
    every = max(1, len(pairs) // _CHECKED)
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


def _start(encoder: Encoder, way: Cut | None, context: str) -> Text | None:
    """The context without white space at its end, which belongs to the continuation; None if it is empty.
    HFLM sets special tokens around a text unless it begins with one."""
    if context == "":
        return None
    kept = context.rstrip()
    at = 0 if way is None else way.seam(kept)
    return Text(kept[:at], kept[at:], special=not kept.startswith(encoder.prefix_text))


def _joined(encoder: Encoder, start: Text | None, context: str, continuation: str) -> Text:
    """Context and continuation in one."""
    if start is None:
        return Text("", continuation, special=False)
    length = len(start.head) + len(start.tail)
    rest = context[length:] + continuation
    special = start.special
    if length < len(encoder.prefix_text):  # the continuation may complete what looks like the prefix
        special = not (context + continuation).startswith(encoder.prefix_text)
    return Text(start.head, start.tail + rest, special)


def _whole(encoder: Encoder, texts: Sequence[Text]) -> list[Tokens]:
    import numpy as np

    out: list[Tokens] = [np.empty(0, dtype=np.int32)] * len(texts)
    for special in (True, False):
        places = [at for at, text in enumerate(texts) if text.special is special]
        strings = [texts[at].head + texts[at].tail for at in places]
        for at, tokens in zip(places, batch(encoder.tokenizer, strings, special=special), strict=True):
            out[at] = tokens
    return out


def _by_pieces(encoder: Encoder, cut: Cut, texts: Sequence[Text]) -> list[Tokens] | None:
    """Each text from its pieces, every distinct piece encoded once, or whole where its pieces might differ;
    None if most texts would be.

    Paragraphs come again and again (few-shot examples), and so do lines ("Answer: B"), so both are
    remembered.
    """
    import numpy as np

    heads = {head: _keys([], cut.paragraphs(head)) for head in dict.fromkeys(text.head for text in texts)}
    tails = [_keys(heads[text.head], cut.lines(text.tail)) for text in texts]
    new = {key: None for keys in heads.values() for key in keys if key not in encoder.paragraphs}
    lines = {key: [(key[0] and not at, line) for at, line in enumerate(cut.lines(key[1]))] for key in new}
    _learn(encoder, cut, dict.fromkeys(key for keys in (*lines.values(), *tails) for key in keys))
    none = np.empty(0, dtype=np.int32)
    for key, keys in lines.items():
        encoder.paragraphs[key] = np.concatenate([none, *(encoder.lines[line] for line in keys)])
    whole = doubtful(encoder, cut, texts, lines, heads, tails)
    if len(whole) > max(_MOST_WHOLE * len(texts), _CHECKED):
        return None
    begun = {
        head: np.concatenate([none, *(encoder.paragraphs[key] for key in keys)])
        for head, keys in heads.items()
    }
    out = [
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
    for at, tokens in zip(whole, _whole(encoder, [texts[at] for at in whole]), strict=True):
        out[at] = tokens
    return out


def _keys(ahead: Sequence[Any], pieces: Sequence[str]) -> list[Key]:
    """Each piece with whether it begins the text."""
    return [(not ahead and not at, piece) for at, piece in enumerate(pieces)]


def _learn(encoder: Encoder, cut: Cut, keys: Iterable[Key]) -> None:
    """Encodes the lines that are not known yet; those that an anchor runs into are of no use."""
    import numpy as np

    unknown = [key for key in keys if key not in encoder.lines]
    anchors = ["" if first else cut.before(piece) for first, piece in unknown]
    for key, tokens in zip(unknown, behind(encoder.tokenizer, anchors, unknown), strict=True):
        if tokens is None:
            encoder.unsound.add(key)
        encoder.lines[key] = np.empty(0, dtype=np.int32) if tokens is None else tokens
