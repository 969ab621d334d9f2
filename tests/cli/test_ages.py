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


@pytest.mark.parametrize(
    ("limit", "seconds", "said"),
    [
        ("1m", 61, "1 minute 1 second"),
        ("1m", 60.4, "a moment more than 1 minute"),
        ("60s", 119, "1 minute 59 seconds"),
        ("90m", 95 * 60, "1 hour 35 minutes"),
        ("90m", 25 * 3600, "1 day"),
        ("1d", 86_405, "1 day 5 seconds"),
        ("2d", 3 * 86_400 + 7200, "3 days"),
        ("1w", 7 * 86_400 + 3600, "7 days 1 hour"),
        ("0s", 0.5, "a moment more than 0 seconds"),
    ],
)
def test_an_age_that_is_refused_reads_longer_than_its_limit(limit: str, seconds: float, said: str) -> None:
    run = run_of((NOW - dt.timedelta(seconds=seconds)).isoformat())
    with pytest.raises(IncomparableError) as caught:
        refuse_older(run, limit, NOW)
    assert caught.value.message == (
        f"The run run-1 was begun {said} ago, longer than --newer-than {limit} allows."
    )


def test_a_date_is_told_beside_a_date() -> None:
    with pytest.raises(IncomparableError, match="was begun on 2026-04-30 23:59:59") as caught:
        refuse_older(run_of("2026-04-30T23:59:59Z"), "2026-05-01", NOW)
    assert caught.value.message.endswith("23:59:59+00:00, before --newer-than 2026-05-01.")


def test_what_is_refused_for_its_age_is_not_first_said_to_be_judged(qeval) -> None:
    qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    said = qeval("gate", "--max-drop", "99", "--newer-than", "0s", code=5).stderr
    assert "longer than --newer-than 0s allows" in said
    assert "Judging the newest run" not in said
    assert "Judging the newest run" in qeval("gate", "--max-drop", "99", "--newer-than", "1h").stderr


@pytest.mark.parametrize(
    ("named", "remedy"), [(True, "judge it without --newer-than."), (False, "name the run that is meant.")]
)
def test_a_run_that_was_named_is_not_to_be_named(named: bool, remedy: str) -> None:
    with pytest.raises(IncomparableError, match="longer than --newer-than 1h allows") as caught:
        refuse_older(run_of("2026-04-01T00:00:00Z"), "1h", NOW, named=named)
    assert caught.value.hint.endswith(f", or {remedy}")
