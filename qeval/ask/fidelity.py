"""What a run is to measure of fidelity: the words of `--fidelity`, or what the suite's file says."""

from __future__ import annotations

from dataclasses import dataclass

from qeval.ask import protocols, suites
from qeval.base.errors import UsageError
from qeval.base.private import homeless
from qeval.base.protocols import Protocol
from qeval.load.toy import is_toy


@dataclass(frozen=True)
class FidelityWish:
    """By which protocols fidelity is measured, by which of them on a GPU alone, and the most bytes that what
    is kept for it may take (None: qeval's usual)."""

    protocols: tuple[Protocol, ...] = ()
    on_gpu: tuple[Protocol, ...] = ()
    cache_limit: int | None = None


NOTHING = FidelityWish()
NO_FIDELITY = "none"
"""The word of --fidelity that has nothing measured, whatever the suite says."""


def wish(words: str | None, limit: int | None, model: str, suite: str | None) -> FidelityWish:
    """What is measured of fidelity: as asked, else as the suite's file says (None: nothing, as in a smoke
    run); of the toy only what is asked.

    Raises what `protocols.parse` and `check_files` raise.
    """
    if words is not None:
        asked = () if words.strip() == NO_FIDELITY else protocols.parse(homeless(words))
        protocols.check_files(asked)
        return FidelityWish(asked, cache_limit=limit)
    always, on_gpu = suites.fidelity_of(suite) if suite and not is_toy(model) else ((), ())
    return FidelityWish(protocols.of_suite(always), protocols.of_suite(on_gpu), limit)


def wish_of_run(words: str | None, limit: int | None, model: str, suite: str) -> FidelityWish:
    """What is to be measured of a run of a model on a suite, after the fact. Raises UsageError where neither
    the words nor the suite name a protocol."""
    known = suite if suite in suites.names() else None
    found = wish(words, limit, model, known)
    if not (found.protocols or found.on_gpu):
        raise UsageError(
            f"The suite {suite} names no protocol of fidelity.", "Name some: --fidelity wikitext-2048,prose"
        )
    return found
