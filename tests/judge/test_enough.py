"""How many more items would decide what a margin leaves undecided: tried out by drawing so many."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, WIKI, make_run

from qeval.base.records import Comparison
from qeval.compare import stats
from qeval.compare.evidence import gather
from qeval.compare.margin import Finding, Margin
from qeval.judge.enough import items_needed, need_by_margin


def finding(losses, gains, n, *, among=1, margin=1.0, claim=0, available=None):
    """What is found of a task with so many losses and gains."""
    low, high = stats.accuracy_interval(losses, gains, n, 0.95)
    delta = (gains - losses) / n
    one = Comparison(
        *("bnb4", "arc", "acc", "accuracy", "task", n, available or n, 0.5, 0.5 + delta, delta, low, high),
        confidence=0.95,
        method="",
        losses=losses,
        gains=gains,
        p=stats.mcnemar_midp(losses, gains),
    )
    return Finding(one, Margin(margin), claim, among)


def drawn(losses, gains, n, whole):
    """Losses and gains among `whole` items as likely as among these n, many times."""
    shares = (losses / n, gains / n, 1 - (losses + gains) / n)
    return [map(int, row[:2]) for row in np.random.default_rng(3).multinomial(whole, shares, 400)]


@pytest.mark.parametrize(
    ("losses", "gains", "margin"), [(33, 27, 1.5), (27, 33, 1.5), (30, 30, 1.5), (36, 30, 2.0)]
)
def test_within_the_margin_so_many_items_bring_the_interval_inside(losses, gains, margin):
    found = finding(losses, gains, 1000, margin=margin)
    assert found.status == "UNDECIDED"
    whole = 1000 + items_needed(found)
    ends = [stats.accuracy_interval(*row, whole, 0.95) for row in drawn(losses, gains, 1000, whole)]
    share = np.mean([-margin / 100 < low and high < margin / 100 for low, high in ends])
    assert 0.75 < share < 0.97


@pytest.mark.parametrize(("losses", "gains"), [(60, 38), (38, 60)])
def test_beyond_the_margin_so_many_items_bring_the_interval_beyond(losses, gains):
    claim = 1 if gains > losses else -1
    found = finding(losses, gains, 1000, margin=1.0, claim=claim)
    assert found.status == "UNDECIDED"
    whole = 1000 + items_needed(found)
    ends = [stats.accuracy_interval(*row, whole, 0.95) for row in drawn(losses, gains, 1000, whole)]
    share = np.mean([high < -0.01 if claim < 0 else low > 0.01 for low, high in ends])
    assert 0.72 < share < 0.92


def test_where_only_the_proof_is_lacking_the_items_are_those_that_prove_it_among_all_comparisons():
    losses, gains, among = 60, 30, 40
    found = finding(losses, gains, 1000, margin=0.5, among=among)
    assert found.comparison.high < -0.005  # the interval says enough, but not among forty
    assert found.status == "UNDECIDED"
    whole = 1000 + items_needed(found)
    assert whole > 1000 + items_needed(replace(found, among=2))
    shares = np.mean([stats.mcnemar_midp(*row) < 0.05 / among for row in drawn(losses, gains, 1000, whole)])
    assert 0.72 < shares < 0.92


def test_at_the_margin_itself_no_number_decides_and_it_says_so_of_the_margin():
    assert items_needed(finding(20, 10, 1000)) is None
    told = need_by_margin(finding(20, 10, 1000))
    assert told == "no practicable number of items would decide it"
    near = need_by_margin(finding(21, 12, 1000))
    assert near == "so close to the margin that over 100 times its items would be needed"


def test_what_a_limited_run_left_out_may_be_enough():
    told = need_by_margin(finding(33, 27, 1000, margin=1.5, available=50_000))
    assert re.fullmatch(r"needs about \d+ items, has 1000 of 50000", told)


@pytest.mark.parametrize("row", ["average", "arc", "words"])
def test_rows_of_every_kind_are_decided_by_so_many_items(row):
    tasks = (ARC, replace(ARC, name="other"), replace(WIKI, name="words"))

    def found(n_items):
        run, read, _ = make_run(2, tasks, n_items, seed=5, churn=0.1, effect=0.0)
        return gather(run, read).findings["bnb4", row]

    few = replace(found(150), margin=Margin(1.0, 1.003))
    assert few.status == "UNDECIDED"
    parts = 2 if row == "average" else 1
    many = replace(found(150 + items_needed(few) // parts), margin=few.margin)
    assert many.comparison.high - many.comparison.low < 2 * many.limit
    assert many.status != "UNDECIDED"
