"""`qeval plan`: the words of the command line as the arguments of `qeval.judge.plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qeval.ask import policy, suites
from qeval.base.errors import UsageError
from qeval.compare.evidence import Evidence
from qeval.judge import plan
from qeval.judge.sizing import measure, sizes


def rows(
    *,
    suite: str,
    tasks: str | None,
    counts: Sequence[str],
    limit: int | None,
    churn: float | None,
    power: float,
    measured: Evidence | None,
    from_run: str | None,  # noqa: ARG001 - `measured` is what it named
    **limits: Any,
) -> tuple[plan.Planned, ...]:
    """What can be decided, row by row; see `qeval.judge.plan.plan`.

    Raises UsageError for words that make no sense, and what `qeval.judge.plan` raises.
    """
    run = measured.run if measured else None
    asked = run.suite if run and tasks is None else suites.from_tasks(tasks) if tasks else suites.load(suite)
    asked = suites.adjust(asked, limit=limit)
    counted = sizes(asked, dict(map(_count, counts)), run)
    known = measure(measured) if measured else None
    guess = plan.CHURN if churn is None else churn
    return plan.plan(asked, counted, policy.choose(**limits), churn=guess, power=power, measured=known)


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdigit() or int(number) == 0:
        raise UsageError(f"--n {text!r} is not a number of items.", "Write e.g. --n my_task=500.")
    return name, int(number)
