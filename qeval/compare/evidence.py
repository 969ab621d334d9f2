"""What a command knows of a run's differences, computed once and handed to the judge and to the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from qeval.base.errors import IncomparableError
from qeval.base.next_steps import UNKNOWN, Standing, unfinished
from qeval.base.records import Cell, Comparison, Read, Result, Run, Samples
from qeval.compare import stats
from qeval.compare.fidelity import FidelityRows
from qeval.compare.interval import compare
from qeval.compare.margin import Finding, Margin, telling
from qeval.compare.means import join
from qeval.compare.pairs import Leaf, Pairs, pair
from qeval.compare.rows import Row, cell_of, find_baseline, rows_of, same_model, summary_rows

CONFIDENCE = 0.95
"""The two-sided confidence of intervals that nothing else decides."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A run, its rows, and every candidate's pairs with the run's baseline.

    `pairs` are by variant and row id, in the order of variants and rows, only where nothing behind a row
    is missing; `samples` by variant and leaf task: the baseline's and the candidate's, in the same order of
    items. `again` are the pairs, by row id, of the baseline with its second scoring, `seeds` those of the
    baseline with each further checkpoint of a variant; both tell of noise, and no candidate is among them.
    `fidelity` is how far distributions moved, as far as that was measured; `margin` what difference matters.
    `refused` says of variants that are no experiment with the baseline why not. `joined` are the runs that
    were made one, where there are several; `standing` is, by a run's id, how it stands if it is unfinished.
    """

    run: Run
    rows: tuple[Row, ...]
    pairs: Mapping[tuple[str, str], Pairs]
    samples: Mapping[tuple[str, str], tuple[Samples, Samples]]
    again: Mapping[str, Pairs] = field(default_factory=dict)
    seeds: Mapping[str, tuple[Mapping[str, Pairs], ...]] = field(default_factory=dict)
    fidelity: FidelityRows = field(default_factory=FidelityRows)
    margin: Margin = field(default_factory=Margin)
    refused: Mapping[str, str] = field(default_factory=dict)
    joined: tuple[Run, ...] = ()
    standing: Mapping[str, Standing] = field(default_factory=dict)
    _compared: dict[tuple[str, str], Comparison] = field(default_factory=dict, repr=False)

    @property
    def baseline(self) -> Result:
        """The result that the others are compared with."""
        return find_baseline(self.run)

    @property
    def candidates(self) -> tuple[Result, ...]:
        """The other results, in the run's order."""
        return tuple(result for result in self.run.results if result.variant.name != self.run.baseline)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """How each run stands that has not come to its end, and what goes on with it."""
        told = (unfinished(run, self.standing.get(run.id, UNKNOWN)) for run in self.joined or (self.run,))
        return tuple(filter(None, told))

    @property
    def nothing(self) -> str:
        """What is said where no variant has a score."""
        kept = any(stands.kept for stands in self.standing.values())
        return "No variant is finished" if kept else "Nothing was scored"

    def standing_of(self, variant: str) -> Standing:
        """How the run stands that has yet to score a variant."""
        runs = (run for run in self.joined or (self.run,) if variant in _unscored(run))
        return next((self.standing[run.id] for run in runs if run.id in self.standing), UNKNOWN)

    @property
    def one_model(self) -> bool:
        """Whether all candidates are recorded as variants of the baseline's model."""
        return all(same_model(self.baseline, result) for result in self.candidates)

    def comparison(self, variant: str, row: str) -> Comparison | None:
        """The row's comparison at the usual confidence, None where it has none."""
        place = (variant, row)
        if place not in self._compared and place in self.pairs:
            self._compared[place] = compare(self.pairs[place], CONFIDENCE)
        return self._compared.get(place)

    def texts(self, row: Row) -> int | None:
        """How many texts stand behind the row's items, where some share one; None where each stands alone."""
        places = ((result.variant.name, row.id) for result in self.candidates)
        found = next((self.pairs[place] for place in places if place in self.pairs), None)
        if found is not None:
            return found.texts
        return _stored_texts(self.run, row)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every comparison at the usual confidence, in the order of `pairs`."""
        return tuple(found for place in self.pairs if (found := self.comparison(*place)))

    @cached_property
    def findings(self) -> Mapping[tuple[str, str], Finding]:
        """What is found of each variant on each row, by variant and row id; members of groups have none."""
        claimed, titles = claims(self), self.titles
        return {
            (one.variant, one.task): Finding(
                one,
                self.margin,
                claimed[one.variant, one.task],
                len(claimed),
                title=titles.get(one.task, one.task),
            )
            for one in self.comparisons
            if one.level != "subtask"
        }

    def finding(self, variant: str) -> Finding | None:
        """The finding that sums a variant up, None where it has no task in common with the baseline."""
        shown = {row.id for row in summary_rows(self.rows)}
        own = [one for (name, row), one in self.findings.items() if name == variant and row in shown]
        told = telling(own)
        if told is None:
            return None
        where = "on average" if told.comparison.level == "average" else f"on {told.name}"
        return replace(told, missing=self.missing.get(variant, ()), of=where if len(own) > 1 else "")

    @property
    def titles(self) -> Mapping[str, str]:
        """The names of rows as people read them, by row id."""
        return {row.id: row.title for row in self.rows}

    @cached_property
    def missing(self) -> Mapping[str, tuple[str, ...]]:
        """The tasks that a candidate lacks and the baseline has, or did not get to, by variant."""
        base, rows = self.baseline, [row for row in self.rows if row.headline]
        theirs = {row.id for row in _whole(base, rows)}
        promised = [row for row in rows if row.id in theirs or base.status != "done"]
        return {
            one.variant.name: tuple(row.id for row in promised if row not in _whole(one, promised))
            for one in self.candidates
        }


def _whole(result: Result, rows: Sequence[Row]) -> list[Row]:
    """The rows that a variant has a score of."""
    known = {cell.task.name for cell in result.cells if cell.n}
    return [row for row in rows if row.whole and row.members and known >= {one.name for one in row.members}]


def _stored_texts(run: Run, row: Row) -> int | None:
    """The same from the stored cells of any variant that has them all: where nothing is compared."""
    for result in run.results:
        cells = [cell for task in row.members if (cell := cell_of(result, task)) is not None]
        known = [(cell.texts, cell.n) for cell in cells if cell.texts is not None]
        if row.level != "average" and known and len(known) == len(row.members):
            texts, n = (sum(column) for column in zip(*known, strict=True))
            return texts if texts < n else None
    return None


def claims(evidence: Evidence) -> Mapping[tuple[str, str], int]:
    """-1 where a loss may be claimed, 1 a gain, 0 neither, by variant and row id, but for members of groups.

    All of them together are corrected: a report in which nothing differs claims anything at all with a
    probability of at most 1 - CONFIDENCE (`stats.claims`).
    """
    looked_at = [one for one in evidence.comparisons if one.level != "subtask"]
    found = stats.claims([one.p for one in looked_at], [one.delta for one in looked_at], CONFIDENCE)
    return {(one.variant, one.task): claim for one, claim in zip(looked_at, found, strict=True)}


def gather(run: Run, read: Read, rows: tuple[Row, ...] | None = None) -> Evidence:
    """Pair every candidate of `run` with its baseline, and what was scored once more.

    A row stands only where nothing behind it is missing: failed variants have none, nor has anybody where
    the baseline failed.

    Args:
        run: the run, or several merged by `merge`; `with_baseline` gives it another baseline.
        read: gives the samples of a cell; called once per cell that is not aggregate-only.
        rows: those of the run; others where `run` is a part of what they are of.

    Raises:
        UsageError: the run has no such baseline.
        IncomparableError: two variants were not given the same items in the same way, or have one name.
        QevalError: a value is not a finite number.
    """
    _refuse_namesakes([result.variant.name for result in run.results])
    base, rows = find_baseline(run), rows_of(run) if rows is None else rows
    kept: dict[str, Samples] = {}

    def read_base(cell: Cell) -> Samples:
        return kept[cell.key] if cell.key in kept else kept.setdefault(cell.key, read(cell))

    pairs: dict[tuple[str, str], Pairs] = {}
    samples: dict[tuple[str, str], tuple[Samples, Samples]] = {}
    for result in run.results:
        name = result.variant.name
        if result is base or "failed" in (result.status, base.status):
            continue
        leaves = {leaf.pairs.task: leaf for leaf in pair(base, result, read_base, read)}
        samples |= {(name, task): leaf.samples for task, leaf in leaves.items() if leaf.samples}
        pairs |= {(name, task): one for task, one in _joined(rows, leaves).items()}

    def paired(result: Result) -> dict[str, Pairs]:
        return _joined(rows, {leaf.pairs.task: leaf for leaf in pair(base, result, read_base, read)})

    again = paired(base.again) if base.again and _both_done(base, base.again) else {}
    repeated = {
        result.variant.name: tuple(paired(one) for one in result.seeds if _both_done(base, one))
        for result in run.results
    }
    return Evidence(run, rows, pairs, samples, again, {name: made for name, made in repeated.items() if made})


def _both_done(base: Result, repeat: Result) -> bool:
    return base.status == repeat.status == "done"


def _unscored(run: Run) -> set[str]:
    return {result.variant.name for result in run.results if result.status == "partial"}


def _refuse_namesakes(names: Sequence[str]) -> None:
    """A verdict goes by a variant's name, so two of one name could have each other's."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise IncomparableError(
            f"Two results are called {twice}, so it is not clear whose numbers are judged.",
            "Leave one of their runs out, or score the variant again under a name of its own.",
        )


def _joined(rows: tuple[Row, ...], leaves: Mapping[str, Leaf]) -> dict[str, Pairs]:
    """The pairs of all rows that are whole, in the rows' order; an average after what it is made of."""
    known = {task: leaf.pairs for task, leaf in leaves.items()}
    for row in sorted(rows, key=lambda row: row.level == "average"):
        if row.level not in ("task", "subtask") and (found := join(row, known)) is not None:
            known[row.id] = found
    return {
        row.id: found for row in rows if (found := join(row, known) if _is_leaf(row) else known.get(row.id))
    }


def _is_leaf(row: Row) -> bool:
    return row.level in ("task", "subtask")


def with_baseline(run: Run, name: str | None) -> Run:
    """The run with its variants compared with another one. Raises UsageError where there is none such.

    A variant that was stopped early broke a rule against the run's own baseline; against another one
    nothing is known of that, only that its scoring ended early.
    """
    if name is None or name == run.baseline:
        find_baseline(run)
        return run
    find_baseline(run, name)
    return replace(run, baseline=name, results=tuple(replace(result, stop=None) for result in run.results))
