"""Reading the cells of one or several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qeval.base.records import Cell, Item, Run, Samples
from qeval.base.repeats import scorings
from qeval.store.checking import check_score
from qeval.store.runs import RunDir


@dataclass(frozen=True)
class Reader:
    """Reads the cells of one or several runs, each cell's samples at most once."""

    places: Mapping[str, RunDir]
    _samples: dict[str, Samples] = field(default_factory=dict, compare=False, repr=False)

    def samples(self, cell: Cell) -> Samples:
        """The items of a cell; see RunDir.samples. Two runs may share a cell and tell two scores of it."""
        place = self.places[cell.key]
        if cell.key not in self._samples:
            self._samples[cell.key] = place.samples(cell)
        return check_score(self._samples[cell.key], cell, place.path)

    def items(self, cell: Cell) -> Mapping[str, Item]:
        """The texts of a cell's items; see RunDir.items."""
        return self.places[cell.key].items(cell)


def reader(runs: Sequence[tuple[RunDir, Run]]) -> Reader:
    """A Reader for all cells of these runs."""
    return Reader(
        {cell.key: place for place, run in runs for result in scorings(run) for cell in result.cells}
    )
