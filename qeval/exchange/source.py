"""What an export is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qeval.base import numbers
from qeval.base.records import Read, ReadItems, Run
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, summary_rows

if TYPE_CHECKING:
    import pyarrow as pa

    File = tuple[str, str | pa.Table]
    """A path below the directory that is exported to, and what it holds."""


@dataclass(frozen=True)
class Said:
    """What a report says of a variant: its verdict in a sentence or two, "" of the baseline, and what must be
    known before its numbers are trusted."""

    verdict: str = ""
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Everything that an export is made from."""

    evidence: Evidence
    read: Read
    read_items: ReadItems
    url: str = ""
    """Where the run can be seen, for those who ask where a number is from; "" where nobody said."""
    tell: Callable[[str], None] = lambda _: None
    """Takes sentences for the person who exports, on what is left out."""
    said: Mapping[str, Said] = field(default_factory=dict)
    """What a report says, by variant."""

    @property
    def run(self) -> Run:
        """The run, its baseline the one that is compared with."""
        return self.evidence.run

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of a summary."""
        return summary_rows(self.evidence.rows)


def perplexity(score: float) -> float:
    """The perplexity of a mean log-likelihood in nats, infinite where it is beyond all numbers."""
    return numbers.exp(-score)
