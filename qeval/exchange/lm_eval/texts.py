"""Which of lm-eval's samples share a text: their documents and prompts are looked at as when qeval scores
them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qeval.base.records import Item, Samples
from qeval.exchange.lm_eval.lines import Line
from qeval.exchange.lm_eval.samples import CLUSTER, Format
from qeval.store.clusters import clusters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONG = 30
"""Characters of a document's field from which on it is its own where it stands in a prompt, not a chance
word."""


def clusters_of(
    samples: Samples, lines: Sequence[Line], items: Sequence[Item], how: Format
) -> NDArray[np.str_]:
    """(n,) as `store.clusters.clusters`; lines that qeval wrote may tell what it found where all was
    known."""
    import numpy as np

    if how.ours and any(CLUSTER in line for line in lines):
        return np.array([str(line.get(CLUSTER, "")) for line in lines], dtype=np.str_)
    docs = [line.get("doc") for line in lines]
    by_key = {str(line["doc_id"]): doc for line, doc in zip(lines, docs, strict=True)}
    rolling = how.output_type == "loglikelihood_rolling"
    own = {} if rolling else {item.key: _with_own_part(item, by_key.get(item.key)) for item in items}
    return clusters(samples, own, docs)


def _with_own_part(item: Item, doc: Any) -> Item:
    """The item, its question beginning where the prompt holds the document's fields for the last time.

    What stands before are examples, even where a chat frame separates them by nothing that a reader of lines
    could know. Where no field stands in the prompt as it is, the question stays what lm-eval's delimiter
    tells.
    """
    starts = [place for text in _long_fields(doc) if (place := item.prompt.rfind(text)) >= 0]
    if not starts:
        return item
    return Item(item.key, item.prompt, item.prompt[min(starts) :], item.choices, item.gold, item.arguments)


def _long_fields(doc: Any) -> Iterator[str]:
    fields = doc.values() if isinstance(doc, Mapping) else ()
    return (value.strip() for value in fields if isinstance(value, str) and len(value.strip()) >= _LONG)
