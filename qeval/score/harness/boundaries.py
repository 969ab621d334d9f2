"""Where a text can be cut so that a tokenizer makes of its pieces what it makes of the whole, by proof.

A boundary is a place where a space or a newline follows something that is no white space. It is *sure* where
no token ever reaches over it and neither side changes what becomes of the other. Two proofs are known:

- The pre-tokenizer always cuts there, and looks at nothing beyond: its pattern, read by `patterns`, has
  nothing but sequences of classes of characters, none of which goes on over the boundary; at most it looks
  whether white space follows, which it does there, as at the end of a text.
- Nothing cuts there, but no token of a BPE vocabulary holds both sides. All that merging ever makes is in
  the vocabulary, so the pieces never meet, and the order of merges is each piece's own.

Normalizers and the rest of the pipeline must work letter by letter. What is not known here proves nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qeval.score.harness import patterns

Key = tuple[bool, str]
"""Whether a piece begins the text, and the piece."""
Joint = tuple[Key, Key]
BOTH = frozenset({patterns.SPACE, patterns.NEWLINE})
_NONE: frozenset[str] = frozenset()
_CROSSED = re.compile(r"\S\s")
_BYTES = {"Ġ": " ", "Ċ": "\n", "ĉ": "\t", "č": "\r"}
"""The letters that stand for white space where each byte is a letter (GPT-2's alphabet)."""
_BAR = "▁"  # SentencePiece's letter for a space


@dataclass(frozen=True)
class Boundaries:
    """`sure`: those of a space and a newline before which a boundary is sure. `front`: something is put in
    front of what is encoded. `risky` is found in texts that are not to be cut; its matches have at most
    `reach` letters.
    """

    sure: frozenset[str] = _NONE
    front: bool = True
    risky: re.Pattern[str] | None = None
    reach: int = 0


class _UnknownError(Exception):
    """A part of the pipeline of which nothing is proved."""


@dataclass(frozen=True)
class _Step:
    """A step of the pre-tokenizer. `cuts`: before which white space it always cuts; `over`: over which it may
    reach; `front`: it may put a space in front of the text; `letters`: it writes white space otherwise, so
    that later patterns do not see it; `drops`: white space is in none of its pieces."""

    cuts: frozenset[str] = _NONE
    over: frozenset[str] = _NONE
    front: bool = False
    letters: bool = False
    drops: bool = False


def boundaries(backend: Any) -> Boundaries:
    """What is sure of a `tokenizers.Tokenizer`."""
    try:
        front, gone, strips = _normalizer(_spec(backend.normalizer))
        steps = list(_steps(_spec(backend.pre_tokenizer), letters=gone))
        if strips and not any(step.drops for step in steps):
            return Boundaries()
        cuts = frozenset[str]().union(*(step.cuts for step in steps))
        over = frozenset[str]().union(*(step.over for step in steps))
        sure = (cuts | _unmerged(backend, cuts)) - over
        front = front or any(step.front for step in steps)
        risky = list(_risky(backend, front=front))
        found = re.compile("|".join(map(re.escape, risky))) if risky else None
        return Boundaries(sure, front, found, max(map(len, risky), default=0))
    except (_UnknownError, patterns.UnreadableError, KeyError, TypeError, ValueError):
        return Boundaries()


def _spec(part: Any) -> Mapping[str, Any]:
    """The description of a part of a pipeline; empty where there is none."""
    found: Mapping[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return found


# --- normalizers --------------------------------------------------------------------------------

_BY_LETTER = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}
"""What composes and decomposes letters never joins one to a space or newline behind it."""


def _normalizer(spec: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Whether something is put in front, spaces are written otherwise, and letters are dropped."""
    kind = spec.get("type")
    if kind is None or kind in _BY_LETTER:
        return False, False, False
    if kind == "Sequence":
        fronts, gone, drops = zip(*map(_normalizer, spec["normalizers"]), strict=True)
        return any(fronts), any(gone), any(drops)
    if kind == "Prepend":
        return True, False, False
    if kind in {"BertNormalizer", "StripAccents"}:
        return False, False, True
    if kind == "Replace":
        letter, content = spec["pattern"]["String"], spec["content"]
        if len(letter) == 1 and not re.search(r"\s", content) and (letter == " " or not letter.isspace()):
            return False, letter == " ", False
    raise _UnknownError(kind)


def _rewrites(spec: Mapping[str, Any]) -> bool:
    """Whether a normalizer does more than to write spaces otherwise and to put something in front."""
    parts = spec["normalizers"] if spec.get("type") == "Sequence" else [spec] if spec else []
    return any(part["type"] != "Prepend" and part.get("pattern") != {"String": " "} for part in parts)


# --- pre-tokenizers -----------------------------------------------------------------------------


def _steps(spec: Mapping[str, Any], *, letters: bool) -> Iterator[_Step]:
    """The steps of a pre-tokenizer; `letters`: spaces are letters to its patterns."""
    members = spec["pretokenizers"] if spec.get("type") == "Sequence" else [spec] if spec else []
    for member in members:
        step = _step(member, letters=letters)
        letters = letters or step.letters
        yield step


def _step(spec: Mapping[str, Any], *, letters: bool) -> _Step:
    kind = spec["type"]
    if kind == "Digits" or (kind == "Punctuation" and spec["behavior"] in {"Isolated", "Contiguous"}):
        return _Step()
    if kind == "Metaspace":
        front = spec["prepend_scheme"] != "never"
        cuts = frozenset({patterns.SPACE} if spec["split"] else ())
        return _Step(cuts=cuts, front=front, letters=True)
    if kind == "Split":
        return _split(spec, letters=letters)
    if letters:
        raise _UnknownError(kind)
    if kind == "ByteLevel":
        cuts = BOTH if spec["use_regex"] else _NONE
        return _Step(cuts=cuts, front=bool(spec["add_prefix_space"]), letters=True)
    if kind in {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}:
        return _Step(cuts=BOTH, drops=True)
    raise _UnknownError(kind)


def _split(spec: Mapping[str, Any], *, letters: bool) -> _Step:
    """A cut at each match of a pattern."""
    if letters and spec["pattern"].get("String") == " ":
        return _Step()  # there is none any more
    whole = spec["behavior"] == "Isolated" or (spec["behavior"] == "Removed" and spec["invert"])
    if not whole or (spec["invert"] and spec["behavior"] == "Isolated"):
        raise _UnknownError(spec["behavior"])
    found = patterns.read(spec["pattern"]["Regex"])
    if letters:
        if any(patterns.matches(place, "".join(_BYTES) + _BAR) for place in found.classes):
            raise _UnknownError(spec["pattern"])
        return _Step()
    return _Step(cuts=BOTH - found.over if found.takes_space else _NONE, over=found.over)


# --- vocabularies -------------------------------------------------------------------------------


def _unmerged(backend: Any, cuts: frozenset[str]) -> frozenset[str]:
    """Of the white space that nothing cuts before, that over which no token of a BPE vocabulary reaches."""
    model, left = backend.model, BOTH - cuts
    if not left or type(model).__name__ != "BPE":
        return _NONE
    if model.dropout or model.end_of_word_suffix or model.continuing_subword_prefix or model.ignore_merges:
        return _NONE
    vocabulary = backend.get_vocab(with_added_tokens=False)
    bytewise = "ByteLevel" in str(backend.pre_tokenizer)
    letters = _BYTES if bytewise else {_BAR: " "}
    told = str.maketrans(letters)
    reached = {found[1] for token in vocabulary for found in re.findall(r"\S\s", token.translate(told))}
    return frozenset(space for space in left - reached if _known(vocabulary, space, letters, model))


def _known(vocabulary: Mapping[str, int], space: str, letters: Mapping[str, str], model: Any) -> bool:
    """Whether white space has a token: else it may vanish, and both its sides meet."""
    names = [space, *(letter for letter, means in letters.items() if means == space)]
    if model.byte_fallback:
        names.append(f"<0x{ord(space):02X}>")
    return any(name in vocabulary for name in names)


def _risky(backend: Any, *, front: bool) -> Iterator[str]:
    """The added tokens that take white space beside them, or look at it, or hold a boundary; and where
    something is put in front, all: it is put behind each of them too."""
    for token in backend.get_added_tokens_decoder().values():
        if token.lstrip or token.rstrip or token.single_word or front or _CROSSED.search(token.content):
            if token.normalized and _rewrites(_spec(backend.normalizer)):
                raise _UnknownError(token.content)  # it may stand in a text in other letters
            yield token.content


# --- the text between boundaries ----------------------------------------------------------------


def joined_at(sure: frozenset[str], left: Key, right: Key) -> tuple[Key, str] | None:
    """What lies on both sides of where two pieces meet, up to the next sure boundaries: all that what becomes
    of it depends on. None if the left piece has none, and is not the text's beginning either."""
    first, text = left
    end = last_part(sure, text)
    if not end and not first:
        return None
    return (first and not end, end or text), first_part(sure, right[1])


def first_part(sure: frozenset[str], text: str) -> str:
    """The text up to its first sure boundary."""
    ends = (at for at in range(1, len(text)) if text[at] in sure and not text[at - 1].isspace())
    return text[: next(ends, len(text))]


def last_part(sure: frozenset[str], text: str) -> str:
    """The text from its last sure boundary on, "" if it has none."""
    ends = (at for at in range(len(text) - 1, 0, -1) if text[at] in sure and not text[at - 1].isspace())
    return text[at:] if (at := next(ends, 0)) else ""
