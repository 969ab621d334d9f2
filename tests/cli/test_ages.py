"""How old a run is said to be, and when it is too old, or of no age that anybody knows."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from factories import make_run

from qeval.base.errors import IncomparableError, UsageError
from qeval.base.records import Run
from qeval.cli.ages import begun, refuse_older

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def run_of(created: str) -> Run:
    """A run that says it was begun then."""
    return replace(make_run(2)[0], created=created)


@pytest.mark.parametrize("created", ["2026-05-01T12:06:00Z", "2027-01-01", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("newer_than", ["1d", "2026-01-01"])
def test_a_run_of_the_future_is_of_no_known_age(created, newer_than) -> None:
    with pytest.raises(IncomparableError, match="from now, by the clock here: how old it is is not known"):
        refuse_older(run_of(created), newer_than, NOW)


@pytest.mark.parametrize("created", ["2026-05-01T11:59:00Z", "2026-05-01T12:04:00Z"])
def test_two_clocks_may_be_a_little_apart(created) -> None:
    refuse_older(run_of(created), "1h", NOW)


def test_when_a_run_was_begun_in_words() -> None:
    now = dt.datetime.now(dt.UTC)
    assert begun((now - dt.timedelta(days=1, hours=2)).isoformat()) == "begun 1 day ago"
    assert (
        begun((now + dt.timedelta(days=1, hours=2)).isoformat()) == "begun 1 day from now, by the clock here"
    )
    assert begun("yesterday") == "of no known date"


@pytest.mark.parametrize(
    ("newer_than", "said"),
    [
        ("٣d", "neither an age nor a date"),
        ("³d", "neither an age nor a date"),
        ("9999999d", "--newer-than 9999999d reaches back before the first year"),
        (f"{'9' * 5000}d", "999 reaches back before the first year"),
    ],
)
def test_an_age_is_of_plain_digits_and_no_longer_than_time(newer_than, said) -> None:
    with pytest.raises(UsageError, match=said):
        refuse_older(run_of("2026-05-01T11:59:00Z"), newer_than, NOW)
    refuse_older(run_of("2026-05-01T11:59:00Z"), f"{'0' * 20}2d", NOW)
