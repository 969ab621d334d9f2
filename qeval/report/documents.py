"""Perplexity document by document: where a variant's predictions got worse."""

from __future__ import annotations

from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.records import Samples
from qeval.compare.evidence import Evidence
from qeval.compare.rows import leaves_of


@dataclass(frozen=True)
class Document:
    """One text. `delta` is the difference of mean log-likelihoods in nats; the rest is in words."""

    key: str
    weight: int
    baseline: str
    candidate: str
    delta: float
    ratio: str


@dataclass(frozen=True)
class Documents:
    """A variant's texts of one task, the most harmed first."""

    task: str
    variant: str
    documents: tuple[Document, ...]

    @property
    def worse(self) -> int:
        """How many texts the variant predicts worse than the baseline."""
        return sum(1 for document in self.documents if document.delta < 0)


def documents(evidence: Evidence) -> tuple[Documents, ...]:
    """Every perplexity task of every candidate, where the baseline's and its own items are stored."""
    return tuple(
        Documents(task.name, result.variant.name, _paired(*samples))
        for task in leaves_of(evidence.run).values()
        for result in evidence.candidates
        if task.kind == "perplexity"
        and (samples := evidence.samples.get((result.variant.name, task.name))) is not None
    )


def _paired(base: Samples, other: Samples) -> tuple[Document, ...]:
    """The texts with a positive weight, the most harmed first."""
    made = [_document(base, other, place) for place in range(len(base)) if base.weight[place] > 0]
    return tuple(sorted(made, key=lambda document: (document.delta, document.key)))


def _document(base: Samples, other: Samples, place: int) -> Document:
    before = float(base.value[place] / base.weight[place])
    after = float(other.value[place] / other.weight[place])
    return Document(
        key=str(base.key[place]),
        weight=int(base.weight[place]),
        baseline=numbers.perplexity(before),
        candidate=numbers.perplexity(after),
        delta=after - before,
        ratio=numbers.ratio(after - before),
    )
