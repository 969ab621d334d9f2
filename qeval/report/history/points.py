"""What one run says of each variant on each row, as points of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from qeval.base.names import scheme_text
from qeval.base.records import Comparison, Decision, Result, Run
from qeval.base.redacted import left_out
from qeval.compare import fidelity
from qeval.compare.conditions import of_variants
from qeval.compare.continuity import Asked, Frame, asked_of, asked_scheme
from qeval.compare.rows import Row, Score, cell_of, find_baseline, rows_of, score_of, summary_rows
from qeval.report.facts import OWN
from qeval.report.history.series import Key, Point, Source, Unit, Wanted, meant
from qeval.report.verdicts import WORDS, WORST_FIRST

_Found = tuple[Key, Point, Frame | None, str]
_WHOLE_VARIANT = "(variant)"
"""What a gate's decision names that is about no single row."""
_OF_ROW = ("max_drop", "max_ppl_ratio", "min_recovery", "max_kl")
"""Limits whose interval is the row's own."""


def points_of(source: Source, wanted: Wanted) -> Iterator[_Found]:
    """Every point of a run that is wanted, with what it is measured in and the baseline's name."""
    run, evidence = source.run, source.evidence
    judged = source.decisions
    rows = evidence.rows if evidence else rows_of(run)
    chosen = [row for row in rows if meant(row.id, wanted.task)] if wanted.task else summary_rows(rows)
    asked: dict[str, Asked | None] = {}
    called = source.called or tuple(result.variant.name for result in run.results)
    for name, result in zip(called, run.results, strict=True):
        if not (meant(name, wanted.variant) or meant(result.variant.name, wanted.variant)):
            continue
        for row in chosen:
            yield _on_row(source, result, row, judged, asked)
        yield from _of_fidelity(source, result, wanted, judged)


def _on_row(
    source: Source, result: Result, row: Row, judged: Sequence[Decision], asked: dict[str, Asked | None]
) -> _Found:
    run = source.run
    own = result.variant.name == run.baseline
    score = score_of(run, result, row) if source.evidence else None
    found = _comparison(source, result, row) if source.evidence and not own else None
    mine = [one for one in judged if one.variant == result.variant.name]
    decided = _deciding([one for one in mine if one.task == row.id])
    point = _found(_point(source, result, score, row), source, found)
    if row.id in source.drawn:
        point = _drawn(point, decided)
    else:
        point = _judged(point, mine, row.id)
        if decided and decided.comparison and found:
            found = decided.comparison
            point = replace(point, allowed=decided.allowed)
    value = (score.score if score else None) if own else (found.delta if found else None)
    point = replace(
        point,
        value=value,
        comparison=found,
        n=found.n if found else point.n,
        lacks=point.lacks if value is not None else (*point.lacks, *_missing(source, result, point)),
    )
    frame = _frame(source, result, row, asked) if value is not None else None
    return _key(run, result, row), point, frame, "" if own else run.baseline


def _comparison(source: Source, result: Result, row: Row) -> Comparison | None:
    assert source.evidence is not None  # noqa: S101 - the caller looked
    return source.evidence.comparison(result.variant.name, row.id)


def _found(point: Point, source: Source, comparison: Comparison | None) -> Point:
    """The point with the margin, and what is found against it; of members of groups the margin alone."""
    if comparison is None or source.evidence is None:
        return point
    finding = source.evidence.findings.get((comparison.variant, comparison.task))
    allowed = source.evidence.margin.delta(comparison)
    if finding is None:
        return replace(point, allowed=allowed)
    return replace(
        point, allowed=allowed, status=finding.status, words=finding.words, reason=finding.sentence
    )


def _deciding(decisions: Sequence[Decision]) -> Decision | None:
    """The decision whose interval and limit are shown: the worst of those on the row's own number."""
    own = [one for one in decisions if any(getattr(one.rule, name) is not None for name in _OF_ROW)]
    known = [one for one in own if one.comparison is not None]
    return min(known, key=lambda one: WORST_FIRST.index(one.status), default=None)


def _drawn(point: Point, decided: Decision | None) -> Point:
    """The point with a limit to look at, which the gate does not judge it by: its mark stays the margin's."""
    if decided is None:
        return point
    words = f"by the margin: {point.words}" if point.words else ""
    return replace(point, drawn=True, allowed=decided.allowed, words=words)


def _judged(point: Point, decisions: Sequence[Decision], task: str) -> Point:
    """The point with the worst verdict on its row, which a doubt of the whole variant may worsen."""
    on_row = [one for one in decisions if one.task == task]
    if not on_row:
        return point
    doubts = [one for one in decisions if one.task == _WHOLE_VARIANT]
    worst = min((*on_row, *doubts), key=lambda one: WORST_FIRST.index(one.status))
    words = WORDS[worst.status].lower()
    return replace(point, judged=True, status=worst.status, words=words, reason=worst.reason)


def _key(run: Run, result: Result, row: Row) -> Key:
    base = next((one for one in run.results if one.variant.name == run.baseline), result)
    cells = [cell for task in row.members if (cell := cell_of(base, task) or cell_of(result, task))]
    unit: Unit = "perplexity" if row.kind == "perplexity" else "points"
    return Key(
        model=run.model,
        suite=run.suite.name,
        task=row.id,
        variant=result.variant.name,
        measure=row.judged_by,
        unit=unit,
        versions=tuple(sorted({cell.task_version for cell in cells})),
        title=row.title,
    )


def _point(source: Source, result: Result, score: Score | None, row: Row) -> Point:
    lacks = list(_lacks(source, result))
    cells = [cell for task in row.members if (cell := cell_of(result, task))]
    if score and score.n < score.n_available:
        lacks.append(f"limited to {score.n} of {score.n_available} items")
    if any(cell.aggregate_only for cell in cells):
        lacks.append("a score without items")
    base = next((one for one in source.run.results if one.variant.name == source.run.baseline), result)
    if any(cell.unproved for cell in cells) or any(of_variants(base, replace(result, cells=tuple(cells)))):
        lacks.append("not all of it is proved")
    made = result.provenance
    revision = (made.revision if made else None) or result.variant.revision or ""
    n = score.n if score else 0
    return Point(
        source.run.id,
        source.run.created,
        revision,
        n,
        score=score.score if score else None,
        lacks=tuple(lacks),
    )


STATUS = {"failed": "did not run", "partial": "not finished", "stopped": "stopped early"}
"""What a variant that did not come to its end says of itself."""


def _lacks(source: Source, result: Result) -> Iterator[str]:
    """Why nothing of a variant is a whole measurement by qeval."""
    if result.status in STATUS:
        yield STATUS[result.status]
    if source.toy:
        yield "the toy model"
    if source.run.source != OWN:
        yield f"imported: {source.run.source}"
    if source.pathless:
        yield "paths left out"


def _missing(source: Source, result: Result, point: Point) -> Iterator[str]:
    """Why a point has no number, where nothing else says it."""
    if source.problem:
        yield source.problem
    elif not point.lacks or result.status == "done":
        yield "not scored, or not by its baseline"


def _frame(source: Source, result: Result, row: Row, asked: dict[str, Asked | None]) -> Frame:
    run, base = source.run, find_baseline(source.run)
    for task in row.members:
        if task.name not in asked:
            asked[task.name] = asked_of(run, base, task, source.read)
    known = {task.name: one for task in row.members if (one := asked[task.name])}
    own = result.variant.name == run.baseline
    return Frame(
        "" if own else _named(base),
        asked_scheme(result),
        known,
        adapter=result.variant.adapter or "",
        adapter_of_baseline="" if own else base.variant.adapter or "",
        unnamed=_unnamed(source, base),
    )


def _unnamed(source: Source, base: Result) -> str:
    """What tells a model of which the path was left out from others: its files' hash, else the run."""
    if not (source.pathless and left_out(source.run.model)):
        return ""
    return (base.provenance.fingerprint if base.provenance else None) or source.run.id


def _named(base: Result) -> str:
    """The baseline as it was asked for."""
    scheme = scheme_text(base.variant.scheme)
    return base.variant.name if scheme == base.variant.name else f"{base.variant.name} ({scheme})"


# --- fidelity -----------------------------------------------------------------------------------


def _of_fidelity(
    source: Source, result: Result, wanted: Wanted, judged: Sequence[Decision]
) -> Iterator[_Found]:
    """A point for each protocol by which the variant was measured."""
    found = source.evidence.fidelity if source.evidence else fidelity.FidelityRows()
    for name in found.protocols:
        row = found.row(result.variant.name, name)
        if row is None or not meant(name, wanted.task):
            continue
        yield _moved(source, result, row, judged)


def _moved(source: Source, result: Result, row: fidelity.Row, judged: Sequence[Decision]) -> _Found:
    run, name, measured = source.run, row.protocol.name, row.measured
    mine = [one for one in judged if one.variant == result.variant.name]
    on_row = [one for one in mine if one.task == name and one.rule.max_kl is not None]
    decided = _deciding(on_row)
    lacks = list(_lacks(source, result))
    if measured.n < measured.n_available:
        lacks.append(f"limited to {measured.n} of {measured.n_available} positions")
    made = result.provenance
    point = Point(
        run=run.id,
        created=run.created,
        revision=(made.revision if made else None) or "",
        n=measured.n,
        value=-row.kl.value,
        comparison=decided.comparison if decided else _divergence(row),
        allowed=decided.allowed if decided else None,
        lacks=tuple(lacks),
    )
    base = find_baseline(run)
    frame = Frame(
        _named(base),
        asked_scheme(result),
        {},
        measured.stream,
        measured.n,
        result.variant.adapter or "",
        base.variant.adapter or "",
        _unnamed(source, base),
    )
    key = Key(run.model, run.suite.name, name, result.variant.name, "KL", "nats", (), name)
    return (
        key,
        _judged(point, [one for one in mine if one.rule.max_kl is not None], name),
        frame,
        run.baseline,
    )


def _divergence(row: fidelity.Row) -> Comparison:
    """A mean divergence as a gate's rules see it: below zero, as higher is better."""
    kl, measured = row.kl, row.measured
    return Comparison(
        variant=row.variant,
        task=row.protocol.name,
        metric="kl",
        kind="score",
        level="task",
        n=measured.n,
        n_available=measured.n_available,
        baseline=0.0,
        candidate=-kl.value,
        delta=-kl.value,
        low=-kl.high,
        high=-kl.low,
        confidence=fidelity.LEVEL,
        method="jackknife t of documents, log",
    )
