"""What a PASS rests on beside the rules: the exceptions of a policy, as short as a headline needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qeval.base.records import Decision
from qeval.judge.doubt import Doubt

_UNGATED = "--ungated"
_BY_OPTION = {
    "--allow-identical": "identical numbers",
    "--allow-unquantised": "mostly unquantised",
    "--allow-different-models": "different models",
    "--allow-unproved-model": "model not proved",
}
"""What is let pass by each option that a doubt may name."""


def exceptions_of(decisions: Sequence[Decision], doubts: Sequence[Doubt]) -> tuple[str, ...]:
    """What was let pass among decisions and doubts that together passed: "2 undecided", "limited run"."""
    return tuple(_found([one for one in decisions if one.rule.tier == "required"], doubts))


def in_words(found: Sequence[str]) -> str:
    """Exceptions for brackets behind a verdict: "2 undecided, allowed"; "" where there are none."""
    return ", ".join((*found, "allowed" if len(found) == 1 else "all allowed")) if found else ""


def _found(required: Sequence[Decision], doubts: Sequence[Doubt]) -> Iterator[str]:
    if undecided := sum(one.status == "INCONCLUSIVE" for one in required):
        yield f"{undecided} undecided"
    if any(one.comparison is not None and one.comparison.limited for one in required):
        yield "limited run"
    exempt = {one.task for one in doubts if one.allowed == _UNGATED}
    if exempt:
        yield f"{len(exempt)} task{'' if len(exempt) == 1 else 's'} exempt"
    options = {one.allowed for one in doubts}
    yield from (said for option, said in _BY_OPTION.items() if option in options)
