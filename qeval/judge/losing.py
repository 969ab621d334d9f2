"""Whether a baseline has anything to lose: what answers nothing right cannot become worse.

Every limit is kept then, whatever a scheme did. Such a baseline was mostly asked or read wrongly: a filter
that finds no answer, texts that end too early, weights that were loaded wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qeval.base import numbers
from qeval.base.records import Decision, Policy, Result, Samples
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, cell_of
from qeval.judge.doubt import Doubt
from qeval.judge.matching import is_named

_TELLING = 20
"""Items from which on one answer to all of them tells that nothing was read: of few it may be chance."""


def something_can_be_lost(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """Of each task, perplexities apart, the baseline has some items right, and not by one answer to all."""
    judged = {(one.variant, one.task) for one in decisions if one.rule.tier == "required"}
    ids = [row.id for row in evidence.rows]
    for result in evidence.candidates:
        for row in (row for row in evidence.rows if row.headline and row.kind != "perplexity"):
            ours = {row.id} | {one.id for one in evidence.rows if one.members == row.members}
            why = _why_nothing(evidence, result, row)
            if why and any((result.variant.name, name) in judged for name in ours):
                excepted = any(is_named(row.id, pattern, ids) for pattern in policy.ungated)
                text = f"{evidence.baseline.variant.name}, the baseline, {why} of {row.id}, so nothing can be"
                text += (
                    " lost there. Check the task: where it takes its right answers from (doc_to_target), its"
                )
                text += (
                    " prompts and its filter; then score both anew. No gate judges a task that is exempt with"
                )
                yield Doubt(
                    result.variant.name,
                    f"{text} --ungated {row.id}.",
                    row.id,
                    "--ungated" if excepted else "",
                    "INCONCLUSIVE",
                )


def _why_nothing(evidence: Evidence, result: Result, row: Row) -> str:
    """What the baseline did on all items of a row that leaves nothing to lose; "" where something is."""
    places = [(result.variant.name, task.name) for task in row.members]
    known = [evidence.samples[place][0] for place in places if place in evidence.samples]
    if not known or len(known) < len(places):
        cells = [cell_of(evidence.baseline, task) for task in row.members]
        none = cells and all(cell is not None and cell.n and cell.score <= 0 for cell in cells)
        return "has a score of 0 on all items" if none else ""
    items = f"all {numbers.count(sum(map(len, known)))} items"
    if not any(np.any(one.value > 0) for one in known):
        return f"scored 0 on {items}"
    return f"gives the same answer to {items}" if row.kind == "accuracy" and _one_answer(known) else ""


def _one_answer(known: Sequence[Samples]) -> bool:
    """Whether all items have one answer, and not one right answer."""
    if sum(map(len, known)) < _TELLING:
        return False
    answers, right = (
        {text for one in known for text in np.unique(getattr(one, column)).tolist()}
        for column in ("answer", "gold")
    )
    return len(answers) == 1 and answers != {""} and len(right) > 1
