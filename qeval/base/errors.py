"""The one error type that reaches the user, its few children, and the exit codes."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_FEW = 60
_NEAR = 0.15
"""How much less like a word than the nearest one others may be that are named with it."""


class Exit(IntEnum):
    """Exit codes of the command line; 2 is Click's own, for usage errors."""

    PASS = 0
    ERROR = 1
    USAGE = 2
    FAILED = 3
    INCONCLUSIVE = 4
    MISSING = 5


class QevalError(Exception):
    """Something went wrong that a person can mend.

    `message` is one sentence saying what is wrong; `hint` is one sentence saying the remedy
    (a command where there is one). It is caught once, in the command line.
    """

    exit_code: Exit = Exit.ERROR

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(QevalError):
    """The words of the command or of a file the user wrote are wrong: unknown scheme, option, key."""

    exit_code = Exit.USAGE


class MissingPackageError(QevalError):
    """A package that a scheme needs is not installed."""


class LostDeviceError(QevalError):
    """The device that was to be calculated on is not there; another one may do."""


class BrokenDeviceError(LostDeviceError):
    """The device gave up in the middle of the work; another process may do it, perhaps there too."""


class IncomparableError(QevalError):
    """Data are missing, or two runs are not the same experiment, so nothing may be concluded."""

    exit_code = Exit.MISSING


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """A hint naming the known words nearest to `word`, those that are about as near as the nearest; else the
    only one that holds it; else all of them if they are few."""
    from difflib import SequenceMatcher, get_close_matches  # 10 ms at start-up; needed only before an error

    names = sorted(known)
    close = get_close_matches(word, names, n=most, cutoff=0.5)
    holding = [name for name in names if word and word in name]
    if not close and len(holding) == 1:
        close = holding
    if close:
        near = {name: SequenceMatcher(None, name, word).ratio() for name in close}
        said = [repr(name) for name in close if near[name] > near[close[0]] - _NEAR]
        return f"Did you mean {' or '.join(said)}?"
    return f"Known: {', '.join(names)}." if 0 < len(names) <= _FEW else ""
