"""Which of several imported variants is the baseline: as a person or the file says, never by the alphabet."""

from __future__ import annotations

from collections.abc import Sequence

from qeval.base.errors import UsageError, did_you_mean


def chosen_baseline(names: Sequence[str], wanted: str | None, where: str) -> str:
    """`wanted`, or the only one of `names`; `where` says what holds them.

    Raises UsageError where `wanted` is none of them, or where nobody said which of several it is.
    """
    if wanted is not None:
        if wanted not in names:
            raise UsageError(
                f"There is no variant {wanted!r} to be the baseline.", did_you_mean(wanted, names)
            )
        return wanted
    if len(names) > 1:
        raise UsageError(
            f"{where} has {len(names)} variants, and nothing says which is the baseline: {', '.join(names)}.",
            "Name the one that the others are made from: --baseline NAME",
        )
    return names[0]
