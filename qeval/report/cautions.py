"""Before you trust these numbers: what a reader must know of a run first, each thing said once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import ENOUGH_QUANTISED, Result, Run
from qeval.compare import averaging, noise, spread
from qeval.compare.conditions import of_variants
from qeval.compare.evidence import Evidence
from qeval.compare.margin import listed
from qeval.compare.rows import result_of, same_model, weights_of
from qeval.judge.notes import of_baseline
from qeval.report import scorers
from qeval.report.facts import OWN

TITLE = "Before you trust these numbers"
_MOST_NAMES = 4


@dataclass(frozen=True)
class Cautions:
    """Sentences: `first` on the run as a whole and on what changes how numbers are read; `more` how far
    numbers move by themselves, where that was measured, and how single variants were made. `label` says how
    many of `more` there are, and on which of the two."""

    first: tuple[str, ...]
    more: tuple[str, ...]
    label: str = ""

    @property
    def every(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.first, *self.more)


def cautions(evidence: Evidence) -> Cautions:
    """Everything of a run."""
    by_note = _by_note(evidence.run.results)
    shared = [note for note, names in by_note.items() if set(names) >= _loaded(evidence)]
    graver = {note for result in evidence.run.results for note in _warnings(result)}
    first = [
        *_of_the_run(evidence),
        *shared,
        *(_of_some(note, names) for note, names in by_note.items() if note in graver and note not in shared),
        *_plain_weights(evidence.run.results),
        *([noise.sentence(evidence)] if evidence.candidates and not noise.floors(evidence) else []),
    ]
    moves = [*([noise.sentence(evidence)] if noise.floors(evidence) else []), *spread.sentences(evidence)]
    made = [
        _of_some(note, names) for note, names in by_note.items() if note not in shared and note not in graver
    ]
    more = tuple(dict.fromkeys([*moves, *made]))
    return Cautions(tuple(dict.fromkeys(first)), more, _label(len(more), bool(moves), bool(made)))


def of_variant(evidence: Evidence, name: str) -> tuple[str, ...]:
    """Those that concern one variant or the baseline that it is compared with, as where only that one is
    shown."""
    kept = tuple(
        result for result in evidence.run.results if result.variant.name in (name, evidence.run.baseline)
    )
    part = replace(
        evidence,
        run=replace(evidence.run, results=kept),
        pairs={place: pairs for place, pairs in evidence.pairs.items() if place[0] == name},
        seeds={variant: made for variant, made in evidence.seeds.items() if variant == name},
        _compared={},
    )
    alone = {_alone(part.run)} if len(evidence.run.results) > 1 else set()
    told = (*cautions(part).every, *of_baseline(part))
    return tuple(one for one in dict.fromkeys(told) if one not in alone)


def _label(number: int, moves: bool, made: bool) -> str:
    """What is folded: "3 notes on how single variants were made"."""
    about = [*(["on noise"] if moves else []), *(["on how single variants were made"] if made else [])]
    return f"{number} note{'' if number == 1 else 's'} {' and '.join(about)}" if about else ""


def _loaded(evidence: Evidence) -> set[str]:
    return {result.variant.name for result in evidence.run.results if result.provenance}


def _warnings(result: Result) -> Sequence[str]:
    return result.provenance.warnings if result.provenance else ()


def _by_note(results: Iterable[Result]) -> Mapping[str, list[str]]:
    """Which variants each note of the loader is on."""
    found: dict[str, list[str]] = {}
    for result in results:
        made = result.provenance
        for note in dict.fromkeys((*made.warnings, *made.notes)) if made else ():
            found.setdefault(note, []).append(result.variant.name)
    return found


def _of_some(note: str, names: Sequence[str]) -> str:
    """A note with the variants that it is on, where it does not name the only one itself."""
    if len(names) == 1 and note.startswith(names[0]):
        return note
    return f"{_some(names)}: {note}"


def _some(names: Iterable[str]) -> str:
    known = [short(name) for name in names]
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return ", ".join(known[:_MOST_NAMES]) + more


def _of_the_run(evidence: Evidence) -> Iterable[str]:
    """What is wrong with the run as a whole, or with what was asked."""
    run = evidence.run
    baseline = result_of(run, run.baseline)
    if baseline is None:
        yield f"The run has no variant called {run.baseline}, its baseline: nothing can be compared."
    elif baseline.status == "failed":
        yield "The baseline failed: nothing can be compared."
    if failed := [result.variant.name for result in run.results if result.status == "failed"]:
        yield f"Did not run: {', '.join(failed)}."
    yield from evidence.unfinished
    unfinished = [result.variant.name for result in run.results if result.status == "partial"]
    if unfinished and not evidence.unfinished:
        yield f"Not finished, so some tasks are missing: {', '.join(unfinished)}."
    yield from _lacking(evidence)
    if len(run.results) == 1:
        yield _alone(run)
    cells = [cell for result in run.results for cell in result.cells]
    if not any(cell.n for cell in cells):
        yield f"{evidence.nothing}."
    if limited := [cell.task.name for cell in cells if cell.limited]:
        of = _some(dict.fromkeys(limited))
        told = f"Only some of the items were scored ({of}): this is a smoke test, not a measurement."
        yield told + _whole(run)
    if any(cell.aggregate_only for cell in cells):
        yield "Only scores are known, not the items: intervals are conservative, and flips are unknown."
    yield from _of_other_models(evidence)
    yield from _unproved(evidence)
    yield from _cut(run.results)
    yield from averaging.sentences(run)
    yield from scorers.sentences(run)


def _alone(run: Run) -> str:
    told = "There is only one variant: its scores are shown, with nothing to compare them with."
    if run.source == OWN:
        return f"{told} Add another one to --schemes and run again."
    return f"{told} Compare it with another run: qeval report RUN RUN."


def _whole(run: Run) -> str:
    if run.source != OWN or run.settings.limit is None:
        return ""
    return " Without --limit, qeval run scores all of them."


def _of_other_models(evidence: Evidence) -> Iterable[str]:
    """Who is of another model, where qeval itself recorded that; of imports little is known."""
    baseline = result_of(evidence.run, evidence.run.baseline)
    if baseline is not None and evidence.run.source == "qeval":
        others = [one.variant.name for one in evidence.run.results if not same_model(baseline, one)]
        if others:
            yield f"Not of the baseline's model ({weights_of(baseline)}): {_some(others)}."


def _unproved(evidence: Evidence) -> Iterable[str]:
    """What is unproved of each variant, by itself and beside the baseline: the first, and how many more."""
    base = result_of(evidence.run, evidence.run.baseline)
    for result in evidence.run.results:
        beside = of_variants(base, result) if base and base is not result else ()
        found = [*(why for cell in result.cells for why in cell.unproved), *(why for _, why in beside)]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            name = short(result.variant.name)
            yield f"Not proved of {name}, so that no gate lets it pass: {found[0].rstrip('.')}{more}."


def _lacking(evidence: Evidence) -> Iterable[str]:
    """Which variants lack tasks of the baseline though they are finished, as of merged and imported runs."""
    done = [one.variant.name for one in evidence.candidates if one.status == "done" and evidence.pairs]
    lacking = [f"{short(name)} {listed(evidence.missing[name])}" for name in done if evidence.missing[name]]
    if lacking:
        told = _some(lacking)
        yield f"Not scored although the baseline has it, so the variant cannot be summed up: {told}."


def _cut(results: Iterable[Result]) -> Iterable[str]:
    """How many contexts did not fit, once where it is the same for all."""
    cut = {result.variant.name: sum(cell.truncated for cell in result.cells) for result in results}
    cut = {name: number for name, number in cut.items() if number}
    if not cut:
        return
    same = len(set(cut.values())) == 1
    told = (
        f"{numbers.count(next(iter(cut.values())))} of each of {_some(cut)}"
        if same and len(cut) > 1
        else ", ".join(f"{numbers.count(number)} of {short(name)}" for name, number in cut.items())
    )
    yield f"Contexts were truncated on the left to fit the model: {told}."


def _plain_weights(results: Iterable[Result]) -> Iterable[str]:
    """Variants that are quantised in name more than in fact."""
    plain = [
        f"{short(result.variant.name)} {numbers.percent(made.quantised_share, limits=(ENOUGH_QUANTISED,))}"
        for result in results
        if (made := result.provenance) is not None and made.mostly_plain
    ]
    if plain:
        told = ", ".join(plain)
        yield f"Less than 60% of the weights are quantised, not counting embeddings and head: {told}."
