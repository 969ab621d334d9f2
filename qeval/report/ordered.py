"""One order of variants for all of a report: that of its decision table."""

from __future__ import annotations

from dataclasses import replace

from qeval.compare.evidence import Evidence
from qeval.report.ranking import Ranking


def in_order(evidence: Evidence, table: Ranking) -> Evidence:
    """The evidence with its variants in the order of this table, the baseline first. Programs read runs in
    the order in which they were asked for, and the patterns of items, which stand in addresses, keep it."""
    places = {entry.variant: place for place, entry in enumerate(table.entries)}

    def place(name: str) -> int:
        return places.get(name, -1)

    results = tuple(sorted(evidence.run.results, key=lambda result: place(result.variant.name)))
    found = evidence.fidelity
    protocols = list(dict.fromkeys(row.protocol.name for row in found.rows))
    rows = sorted(found.rows, key=lambda row: (protocols.index(row.protocol.name), place(row.variant)))
    return replace(
        evidence,
        run=replace(evidence.run, results=results),
        fidelity=replace(found, rows=tuple(rows)),
    )
