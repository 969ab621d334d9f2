"""What an export is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qeval.base import numbers
from qeval.base.records import Comparison, Read, ReadItems, Run
from qeval.compare.rows import Index, index

if TYPE_CHECKING:
    import pyarrow as pa

    File = tuple[str, str | pa.Table]
    """A path below the directory that is exported to, and what it holds."""


@dataclass(frozen=True)
class Source:
    """Everything that an export is made from."""

    run: Run
    read: Read
    read_items: ReadItems
    comparisons: Sequence[Comparison]

    @property
    def by_row(self) -> Index:
        """The comparisons by (variant, row id)."""
        return index(self.comparisons)


def perplexity(score: float) -> float:
    """The perplexity of a mean log-likelihood in nats, infinite where it is beyond all numbers."""
    return numbers.exp(-score)
