"""Perplexity document by document: where a variant's predictions got worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.records import Cell, Run, Samples
from qeval.compare.rows import cell_of, leaves_of, result_of


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


def documents(run: Run, read: Callable[[Cell], Samples]) -> tuple[Documents, ...]:
    """Every perplexity task of every candidate, where the baseline's and its own items are stored."""
    found = []
    baseline = result_of(run, run.baseline)
    for task in (task for task in leaves_of(run).values() if task.kind == "perplexity"):
        base = cell_of(baseline, task)
        if base is None or base.aggregate_only:
            continue
        for result in (r for r in run.results if r.variant.name != run.baseline):
            cell = cell_of(result, task)
            if cell is not None and not cell.aggregate_only:
                found.append(Documents(task.name, result.variant.name, _paired(read(base), read(cell))))
    return tuple(found)


def _paired(base: Samples, other: Samples) -> tuple[Document, ...]:
    """The texts both have, with a positive weight, the most harmed first."""
    places = {str(key): place for place, key in enumerate(other.key)}
    pairs = [
        (i, places[str(key)]) for i, key in enumerate(base.key) if str(key) in places and base.weight[i] > 0
    ]
    made = [_document(base, other, i, j) for i, j in pairs]
    return tuple(sorted(made, key=lambda document: (document.delta, document.key)))


def _document(base: Samples, other: Samples, i: int, j: int) -> Document:
    before = float(base.value[i] / base.weight[i])
    after = float(other.value[j] / other.weight[j])
    return Document(
        key=str(base.key[i]),
        weight=int(base.weight[i]),
        baseline=numbers.perplexity(before),
        candidate=numbers.perplexity(after),
        delta=after - before,
        ratio=numbers.ratio(after - before),
    )
