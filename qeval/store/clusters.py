"""Which items of a task share a text, so that they are lost together and count as one.

Two items share a text where one of these holds, and so does whoever shares one with either:

- a field of the document that holds or names its text is the same: `is_text_field` says which fields do;
- the items' own parts of the prompt have a passage of `PASSAGE` bytes in common: a quotation, say, under
  which several questions stand. Examples, descriptions and chat frames are no part of it, and of a task's
  own wording, which nearly all items have, nothing counts;
- the documents are identical: by hash, or prompt, choices and right answer are the same.

A rule on words would call two questions about one king related; only what was written once and used several
times makes items change together for certain.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qeval.base.records import Item, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Hashes = NDArray[np.uint64]

PASSAGE = 240
"""Bytes of UTF-8 that a shared passage has at least, about 40 words of English. From 160 to
250 the passages of MMLU's histories come out the same, while shorter ones are the wording of questions."""
WORDING = 32
"""Bytes, a power of two, of a phrase that is taken for the task's own wording where nearly all items have it.
"""
NEARLY_ALL = 0.9
TEXTS = frozenset(
    [
        "article",
        "background",
        "context",
        "conversation",
        "dialogue",
        "document",
        "page",
        "paragraph",
        "passage",
        "premise",
        "story",
        "transcript",
    ]
)
"""What a field is called that holds a text under which several questions may stand."""
_NAMING = frozenset(["id", "idx", "index", "key", "name", "no", "number", "text", "title", "url"])
"""What may follow: the field names the text, or is it."""
_BATCH = 1 << 22  # bytes hashed at a time: eight times as much memory, several times over
_FACTOR = 0x9E3779B97F4A7C15
_SPACE, _END, _LEAD = 0x20, 0, 0xC0


def clusters(samples: Samples, items: Mapping[str, Item], docs: Sequence[Any] = ()) -> NDArray[np.str_]:
    """(n,) for each item the key of the first item that it shares a text with, "" where it stands alone.

    The same items give the same clusters, whatever was answered. MMLU's 14 042 take less than a second.

    Args:
        samples: their keys and hashes are looked at.
        items: what the items looked like, by key, as far as known; none of documents that are read from end
            to end, for these are units already.
        docs: (n,) the documents in the same order; none where only the items are known.
    """
    import numpy as np

    keys, n = samples.key.tolist(), len(samples)
    known = [items.get(key) for key in keys]
    labels = [
        [text or None for text in samples.doc_hash.tolist()],
        _identities(samples, known),
        *_fields(docs),
    ]
    links = [pair for column in labels for pair in _alike(column)]
    roots = _roots(n, [*links, *_sharing([item.question if item else "" for item in known])])
    sizes = Counter(roots)
    return np.array([keys[root] if sizes[root] > 1 else "" for root in roots], dtype=np.str_)


def count_texts(cluster: NDArray[np.str_]) -> int:
    """How many texts stand behind (n,) items: those that share one once, and each item that stands alone."""
    shared = cluster[cluster != ""]
    return len(cluster) - len(shared) + len(set(shared.tolist()))


def is_text_field(name: str) -> bool:
    """Whether a field of a document holds or names the text that the item is about.

    Its last word is one of `TEXTS`, but for a word such as "id" behind it: passage, context_id, storyTitle,
    flores_passage; not passage_length or n_contexts.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
    while len(words) > 1 and words[-1] in _NAMING:
        words.pop()
    return bool(words) and words[-1] in TEXTS


# --- fields and whole documents -----------------------------------------------------------------


def _fields(docs: Sequence[Any]) -> Iterator[list[Hashable | None]]:
    """The labels that each text field gives the documents."""
    known = [doc if isinstance(doc, Mapping) else {} for doc in docs]
    for name in dict.fromkeys(str(name) for doc in known for name in doc):
        if is_text_field(name):
            yield [_label(doc.get(name)) for doc in known]


def _label(value: Any) -> Hashable | None:
    """What makes two values of a field the same; None where there is nothing."""
    if isinstance(value, str):
        return " ".join(value.split()) or None
    if isinstance(value, bool) or value in (None, [], {}) or value != value:  # noqa: PLR0124 - NaN
        return None
    return json.dumps(value, sort_keys=True, default=str)


def _identities(samples: Samples, known: Sequence[Item | None]) -> list[Hashable | None]:
    """What makes two items the same whatever their documents are called: prompt, choices and right answer."""
    prompts = samples.prompt_hash.tolist()
    return [
        (prompt, item.choices, item.gold) if item and prompt else None
        for prompt, item in zip(prompts, known, strict=True)
    ]


def _alike(labels: Iterable[Hashable | None]) -> Iterator[tuple[int, int]]:
    """Each item with the first of its label."""
    first: dict[Hashable, int] = {}
    for place, label in enumerate(labels):
        if label is not None and first.setdefault(label, place) != place:
            yield first[label], place


def _roots(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of n items the least of all that are linked with it, directly or by others."""
    above = list(range(n))

    def root(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    for one, other in links:
        least, most = sorted((root(one), root(other)))
        above[most] = least
    return [root(place) for place in range(n)]


# --- passages -----------------------------------------------------------------------------------


def _sharing(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of items whose texts have a passage in common, enough of them to link all that do.

    Windows of a fixed number of bytes that begin with a word are hashed; those of several items link them.
    """
    import numpy as np

    data, owner = _joined(texts)
    _cut(data, owner, len(texts))
    hashes, holder = _windows(data, owner, PASSAGE)
    hashes, holder = _distinct(hashes, holder)
    first, count = _runs(hashes)
    pairs = np.stack([np.repeat(holder[first], count), holder], axis=1)
    yield from map(tuple, np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist())


def _joined(texts: Sequence[str]) -> tuple[Bytes, NDArray[np.int32]]:
    """All texts as bytes with single spaces, a 0 behind each, and whose each byte is."""
    import numpy as np

    parts = [b"%s\0" % " ".join(text.replace("\0", " ").split()).encode("utf-8", "replace") for text in texts]
    owner = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), owner


def _cut(data: Bytes, owner: NDArray[np.int32], n: int) -> None:
    """Put 0 in the place of every phrase that nearly all of the n texts have: it is the task's wording."""
    import numpy as np

    places = _starts(data, WORDING)
    hashes = _hashed(data, places, WORDING)
    own, _ = _distinct(hashes, owner[places])
    first, count = _runs(own)
    said = places[np.isin(hashes, own[first[count > NEARLY_ALL * n]])]
    for offset in range(WORDING):
        data[said + offset] = _END


def _windows(data: Bytes, owner: NDArray[np.int32], length: int) -> tuple[Hashes, NDArray[np.int32]]:
    """The hashes of all windows of so many bytes, and whose they are."""
    places = _starts(data, length)
    return _hashed(data, places, length), owner[places]


def _starts(data: Bytes, length: int) -> NDArray[np.int64]:
    """Where a word begins (in scripts without spaces, a letter) that is followed by so many bytes of its
    text."""
    import numpy as np

    if not len(data):
        return np.zeros(0, dtype=np.int64)
    before = np.concatenate([np.zeros(1, dtype=np.uint8), data[:-1]])
    begins = ((before == _SPACE) | (before == _END) | (data >= _LEAD)) & (data != _END)
    places, ends = np.flatnonzero(begins), np.flatnonzero(data == _END)
    return places[ends[np.searchsorted(ends, places)] - places >= length]


def _hashed(data: Bytes, places: NDArray[np.int64], length: int) -> Hashes:
    """A hash of the `length` bytes (a power of two) from each place on, which are ascending."""
    import numpy as np

    found: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
    for start in range(0, len(data), _BATCH):
        here = places[np.searchsorted(places, start) : np.searchsorted(places, start + _BATCH)]
        if len(here):
            found.append(_doubled(data[start : start + _BATCH + length], length)[here - start])
    return np.concatenate(found)


def _doubled(data: Bytes, length: int) -> Hashes:
    """The hash of each window: of one byte a mixed number, of twice as many both halves' together."""
    import numpy as np

    with np.errstate(over="ignore"):
        letters = (np.arange(256, dtype=np.uint64) + np.uint64(1)) * np.uint64(_FACTOR)
        letters ^= letters >> np.uint64(29)
        hashes = (letters * np.uint64(_FACTOR))[data]
        factor, width = np.uint64(_FACTOR), 1
        while width < length:
            step = min(width, length - width)  # the last halves may overlap
            hashes = hashes[:-step] * factor + hashes[step:]
            factor, width = factor * factor, width + step
    return hashes


def _distinct(hashes: Hashes, owner: NDArray[np.int32]) -> tuple[Hashes, NDArray[np.int32]]:
    """Each hash once for each owner, in the order of hashes and then of owners."""
    import numpy as np

    order = np.lexsort((owner, hashes))
    hashes, owner = hashes[order], owner[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    return hashes[new], owner[new]


def _runs(ordered: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each value of an ordered column begins, and how often it is there."""
    import numpy as np

    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = np.flatnonzero(new)
    return first, np.diff(first, append=len(ordered))
