"""How old a run is, and how old it may be."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from qeval.base.errors import IncomparableError, UsageError
from qeval.base.records import Run

_AGE = re.compile(r"([0-9]+)\s*([smhdw])")
_LENGTHS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SKEW = dt.timedelta(minutes=5)
"""How far two clocks may be apart: a run of another machine may seem to begin so much later than now."""

_MOST_DIGITS, _SHOWN = 15, 30
"""The digits of an age that is not longer than time, and how many characters of a longer one are shown."""

_ANEW = "Make it anew with `qeval run --runs-dir` and another directory (in the old one it keeps its date)"


def age_of(created: str, now: dt.datetime | None = None) -> dt.timedelta | None:
    """The time since an ISO 8601 moment, UTC where it names no zone; None where it is no moment."""
    try:
        moment = _moment(created)
    except ValueError:
        return None
    return (now or dt.datetime.now(dt.UTC)) - moment


def begun(created: str, now: dt.datetime | None = None) -> str:
    """When a run was begun, for a person: "begun 3 hours ago", "of no known date"."""
    age = age_of(created, now)
    if age is None:
        return "of no known date"
    return (
        f"begun {in_words(-age)} from now, by the clock here"
        if age < -_SKEW
        else f"begun {in_words(age)} ago"
    )


def in_words(age: dt.timedelta, beyond: dt.timedelta | None = None) -> str:
    """An age in the unit that reads best: "3 hours", "1 day"; one that is `beyond` a limit in as few units as
    show that it is, such as "1 hour 35 minutes" beyond 90 minutes."""
    if beyond is None:
        return next(_ever_closer(age))[1]
    found = next((said for told, said in _ever_closer(age) if told > beyond), None)
    return found or f"a moment more than {list(_ever_closer(beyond))[-1][1]}"


def _ever_closer(age: dt.timedelta) -> Iterator[tuple[dt.timedelta, str]]:
    """An age rounded down to its first unit, its first two and so on, and in words: "1 hour", "1 hour 35
    minutes"."""
    rest, said = max(int(age.total_seconds()), 0), ""
    told = dt.timedelta()
    for unit, length in _LENGTHS.items():
        number, rest = divmod(rest, length)
        if number or (unit == "second" and not said):
            told += dt.timedelta(seconds=number * length)
            said = f"{said} {number} {unit}{'' if number == 1 else 's'}".lstrip()
            yield told, said


def refuse_older(run: Run, newer_than: str, now: dt.datetime | None = None, *, named: bool = False) -> None:
    """Refuse a run that was begun before `newer_than`, an age (90m, 6h, 2d) or an ISO 8601 date.
    `named`: whether somebody said which run is meant, and needs not be told to.

    Raises UsageError for anything else, IncomparableError for an older run, and for one that lies in the
    future: a clock was wrong, so nobody knows how old it is.
    """
    now = now or dt.datetime.now(dt.UTC)
    limit = _limit(newer_than, now)
    try:
        created = _moment(run.created)
    except ValueError as error:
        raise IncomparableError(
            f"The run {run.id} does not say when it was begun.", "Judge it without --newer-than."
        ) from error
    if created < limit:
        hint = f"{_ANEW}, or {'judge it without --newer-than' if named else 'name the run that is meant'}."
        if not _AGE.fullmatch(newer_than.strip()):  # a date is told beside a date, an age beside an age
            raise IncomparableError(
                f"The run {run.id} was begun on {created.isoformat(' ')}, before --newer-than {newer_than}.",
                hint,
            )
        age = in_words(now - created, now - limit)
        raise IncomparableError(
            f"The run {run.id} was begun {age} ago, longer than --newer-than {newer_than} allows.", hint
        )
    if created > now + _SKEW:
        raise IncomparableError(
            f"The run {run.id} was {begun(run.created, now)}: how old it is is not known.",
            f"Set the clock right. {_ANEW}, or judge it without --newer-than.",
        )


def length(text: str, option: str) -> dt.timedelta:
    """The length of an age as it is written (90m, 6h, 30d, 4w). Raises UsageError, which names the option."""
    match = re.fullmatch(r"([0-9]{1,6})\s*([smhdw])", text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r} is not an age.", "Write e.g. 90m, 6h, 30d or 4w.")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})


def _limit(text: str, now: dt.datetime) -> dt.datetime:
    match = _AGE.fullmatch(text.strip())
    try:
        if match:
            return now - dt.timedelta(**{_UNITS[match[2]]: _number(match[1])})
        return _moment(text)
    except OverflowError as error:
        raise UsageError(
            f"--newer-than {text[:_SHOWN]} reaches back before the first year.",
            "Leave it out: every run is newer.",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"--newer-than {text!r} is neither an age nor a date.", "Write e.g. 90m, 6h, 2d or 2026-01-31."
        ) from error


def _number(digits: str) -> int:
    if len(digits.lstrip("0")) > _MOST_DIGITS:
        raise OverflowError(digits)
    return int(digits)


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
