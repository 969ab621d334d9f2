"""The runs of a directory in the order of time, opened one after another, for a history."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from qeval.base.errors import IncomparableError, QevalError, UsageError, did_you_mean
from qeval.cli import options

if TYPE_CHECKING:
    from qeval.base.records import Decision, Policy, Run
    from qeval.compare.evidence import Evidence
    from qeval.compare.fidelity import FidelityRows
    from qeval.compare.margin import Margin
    from qeval.report.history.series import History, Source, Wanted
    from qeval.store.reader import Reader
    from qeval.store.runs import RunDir

_LAST = dt.datetime.max.replace(tzinfo=dt.UTC)


def readable(places: Iterable[RunDir]) -> tuple[list[tuple[RunDir, Run]], list[tuple[str, str]]]:
    """The runs by the time that they were begun, those of no known time last; and those that cannot be read:
    (name, why)."""
    found, unread = [], []
    for place in places:
        try:
            found.append((place, place.read()))
        except QevalError as error:
            unread.append((place.path.name, inside(place, error)))
    return sorted(found, key=lambda one: (begun(one[1]), one[1].id)), sorted(unread)


def inside(place: RunDir, error: QevalError) -> str:
    """What is wrong with a run, its files named as seen from its directory, the names of cells short."""
    told = error.message.replace(f"{place.path}{os.sep}", "").replace(str(place.path), "the run")
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1…", told)


def begun(run: Run) -> dt.datetime:
    """When a run was begun; after all others where nobody knows."""
    try:
        moment = dt.datetime.fromisoformat(run.created.strip())
    except ValueError:
        return _LAST
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def history(
    places: Iterable[RunDir],
    wanted: Wanted,
    policy: Policy | None = None,
    *,
    margin: Margin | None = None,
    redact: bool = False,
    paths: dict[str, str] | None = None,
    upto: dt.datetime | None = None,
) -> History:
    """The lines of these runs that are wanted, against a policy's limits, else against the margin; of those
    begun up to a moment, where one is given. `redact`: without the paths of models, each called the same in
    all runs, and as in `paths`, where that is given; what is wanted may be named as it is or as it is shown.

    Raises UsageError where a rule's limit means nothing for the rows that it names, for a required rule
    that names nothing in any run: it would seem to be kept, and for a name that no run has.
    """
    from qeval.base.redacted import without_paths
    from qeval.report.history.lines import history as lines
    from qeval.report.history.naming import Names

    found, unread = readable(places)
    kept = [(place, run) for place, run in found if upto is None or begun(run) <= upto]
    hidden = ({} if paths is None else paths) if redact else None
    limit = policy.source if policy else ""
    if hidden is not None:
        unread = [(f"[run {at}]", without_paths(why, hidden)) for at, (_, why) in enumerate(unread, 1)]
        limit = without_paths(limit, hidden)
    idle, names = _Idle(policy), Names(wanted)
    chosen = [one for one in kept if names.of_run(one[1], hidden)]
    sources = (names.noted(idle.without(_source(*one, policy, margin, hidden))) for one in chosen)
    made = lines(sources, wanted, limit, unread)
    idle.refuse()
    if not made.series:
        names.refuse()
    return made


class _Idle:
    """The required rules of a policy that named nothing yet, by their numbers, and what there was to name."""

    def __init__(self, policy: Policy | None) -> None:
        rules = enumerate(policy.rules if policy else (), 1)
        self.rules = {number: rule for number, rule in rules if rule.required and rule.tier == "required"}
        self.rows: set[str] = set()
        self.variants: set[str] = set()
        self.moved: list[FidelityRows] = []

    def without(self, source: Source) -> Source:
        """The source as it is; what it has is looked at."""
        from qeval.judge.fidelity import named
        from qeval.judge.matching import matches_some, names_a_row

        if (evidence := source.evidence) is None:
            return source
        variants = {one.variant.name for one in evidence.candidates}.union(source.called)
        protocols = evidence.fidelity.protocols
        self.rows.update(row.id for row in evidence.rows)
        self.rows.update(protocols)
        self.moved.append(replace(evidence.fidelity, read=None))  # the positions need not be kept
        self.variants |= variants
        for number, rule in list(self.rules.items()):
            rows = names_a_row(rule, evidence.rows) or named(rule, protocols)
            if rows and matches_some(rule.variants, variants):
                del self.rules[number]
        return source

    def refuse(self) -> None:
        """Raise UsageError for the first rule that is left, where there was anything to name."""
        from qeval.base.rules import describe
        from qeval.compare.fidelity import FidelityRows
        from qeval.judge.fidelity import lacking
        from qeval.judge.matching import matches_some

        rows = tuple(row for one in self.moved for row in one.rows)
        damaged = tuple(dict.fromkeys(text for one in self.moved for text in one.damaged))
        for number, rule in self.rules.items() if self.rows and self.variants else ():
            if why := lacking(rule, FidelityRows(rows, damaged=damaged)):
                raise UsageError(
                    f"Rule {number} ({describe(rule)}) is about fidelity, {why}", "Or leave that limit out."
                )
            task = rule.tasks == "*" or matches_some(rule.tasks, self.rows)
            what, known = (rule.variants, self.variants) if task else (rule.tasks, self.rows)
            raise UsageError(
                f"Rule {number} ({describe(rule)}) names nothing in these runs: {what!r}.",
                did_you_mean(what, known) or "Leave that limit out.",
            )


def _with_means(policy: Policy) -> Policy:
    """The policy with its limits of points for all tasks held against means as well, which a gate judges only
    where a rule names them: a line of the average has that limit drawn in."""
    means = [
        replace(rule, tasks=name, required=False)
        for rule in policy.rules
        if rule.tasks == "*" and rule.max_drop is not None and rule.metric is None
        for name in ("average", "*_macro")
    ]
    return replace(policy, rules=(*means, *policy.rules))


def _source(
    place: RunDir, run: Run, policy: Policy | None, margin: Margin | None, hidden: dict[str, str] | None
) -> Source:
    """A run with what can be compared in it; damage to its items is told, not raised. `hidden` is what the
    paths of all runs are called, None where they are shown."""
    from qeval.base.redacted import hiding, is_redacted
    from qeval.load.toy import is_toy
    from qeval.report.history.series import Source

    shown, hide = (run, str) if hidden is None else hiding(run, hidden)
    called = tuple(result.variant.name for result in run.results)
    source = Source(shown, place.samples, toy=is_toy(run.model), pathless=is_redacted(run), called=called)
    try:
        evidence, read = options.open_runs(
            [str(place.path)], place.path.parent, redact=hidden is not None, paths=hidden, margin=margin
        )
        _read_baseline(evidence, read)
    except QevalError as error:
        what = "not comparable" if isinstance(error, IncomparableError | UsageError) else "damaged"
        return replace(source, problem=hide(f"{what}: {inside(place, error)}"))
    decisions = _decisions(place, evidence, policy, hidden)
    drawn = _drawn(evidence, policy) if policy else frozenset()
    return replace(
        source, run=evidence.run, read=read.samples, evidence=evidence, decisions=decisions, drawn=drawn
    )


def _drawn(evidence: Evidence, policy: Policy) -> frozenset[str]:
    """The rows that no rule of the policy judges; a limit of `_with_means` is only drawn there."""
    from qeval.judge.matching import rules_for

    ids, names = [row.id for row in evidence.rows], [one.variant.name for one in evidence.candidates]
    return frozenset(
        row.id for row in evidence.rows if not any(rules_for(policy, row, name, ids, names) for name in names)
    )


def _read_baseline(evidence: Evidence, read: Reader) -> None:
    """Read the items of a baseline, which nobody else reads where it is alone.

    Raises QevalError where they are damaged.
    """
    for cell in evidence.baseline.cells:
        if not cell.aggregate_only:
            read.samples(cell)


def _decisions(
    place: RunDir, evidence: Evidence, policy: Policy | None, hidden: dict[str, str] | None
) -> tuple[Decision, ...]:
    """The gate's decisions on a run, by the real names, told without them where paths are left out."""
    from qeval.judge.gate import conclude
    from qeval.judge.redacted import without_paths

    if policy is None or not evidence.candidates:
        return ()
    if hidden is None:
        return conclude(evidence, _with_means(policy)).decisions
    real = options.open_runs([str(place.path)], place.path.parent)[0]
    return without_paths(conclude(real, _with_means(policy)), real, hidden).decisions
