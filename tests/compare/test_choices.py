"""Letters and calibration, against what is reckoned one item at a time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, edited, make_run

from qeval.compare import stats
from qeval.compare.choices import BINS, calibration, choices_of, confidences
from qeval.compare.evidence import gather


@pytest.fixture(scope="module")
def found():
    run, read, _ = make_run(3, (ARC, QUIZ, TRUTH, WIKI), n_items=150, churn=0.3, seed=5)
    return run, read, choices_of(gather(run, read))


def rows_of(run, read, variant, row):
    """(answer, gold, value, scores) of every item behind a row."""
    (result,) = [one for one in run.results if one.variant.name == variant]
    names = {task.name for task in row.members}
    for cell in result.cells:
        if cell.task.name in names:
            samples = read(cell)
            columns = (samples.answer, samples.gold, samples.value, samples.scores)
            yield from zip(*columns, strict=True)


def test_only_multiple_choice_has_letters(found):
    assert [one.row.id for one in found[2]] == ["arc", "quiz"]
    assert [chosen.variant for chosen in found[2][0].chosen] == ["fp16", "bnb4", "gptq"]


def test_shares_are_those_of_a_count(found):
    run, read, choices = found
    for one in choices:
        for chosen in one.chosen:
            items = list(rows_of(run, read, chosen.variant, one.row))
            answers, right = (Counter(item[at] for item in items) for at in (0, 1))
            assert chosen.n == len(items)
            assert chosen.shares == pytest.approx([answers[str(at)] / len(items) for at in range(4)])
            assert one.right == pytest.approx([right[str(at)] / len(items) for at in range(4)])


def test_shifts_are_paired_differences_with_the_interval_of_a_score(found):
    run, read, choices = found
    for one in choices:
        base = [item[0] for item in rows_of(run, read, "fp16", one.row)]
        for chosen in one.chosen[1:]:
            pairs = Counter(
                zip(base, (i[0] for i in rows_of(run, read, chosen.variant, one.row)), strict=True)
            )
            for at, shift in enumerate(chosen.shifts):
                lost = sum(n for (a, b), n in pairs.items() if a == str(at) != b)
                gained = sum(n for (a, b), n in pairs.items() if a != str(at) == b)
                assert shift.delta == pytest.approx((gained - lost) / chosen.n)
                assert (shift.low, shift.high) == stats.accuracy_interval(lost, gained, chosen.n)
            away = sum(abs(a - b) for a, b in zip(chosen.shares, one.chosen[0].shares, strict=True))
            assert chosen.moved == pytest.approx(away / 2)
        assert one.chosen[0].shifts == ()


def test_calibration_is_that_of_a_direct_computation(found):
    run, read, choices = found
    for one in choices:
        for chosen in one.chosen:
            bins = {}
            for answer, _, value, scores in rows_of(run, read, chosen.variant, one.row):
                total = math.fsum(math.exp(score) for score in scores)
                sure = math.exp(scores[int(answer)]) / total
                at = next(k for k in range(BINS) if sure <= (k + 1) / BINS or k == BINS - 1)
                bins.setdefault(at, []).append((sure, value))
            n = sum(map(len, bins.values()))
            means = {at: np.mean(entries, axis=0) for at, entries in bins.items()}
            ece = sum(len(bins[at]) / n * abs(right - sure) for at, (sure, right) in means.items())
            assert chosen.calibration.ece == pytest.approx(ece)
            assert [(b.low, b.n) for b in chosen.calibration.bins] == [
                (at / BINS, len(bins[at])) for at in sorted(bins)
            ]
            told = [(b.confidence, b.right) for b in chosen.calibration.bins]
            assert told == [pytest.approx(tuple(means[at])) for at in sorted(bins)]


@pytest.mark.slow
def test_a_model_as_often_right_as_it_is_sure_has_an_error_of_chance_alone():
    rng = np.random.default_rng(0)
    n = 20_000
    scores = np.empty(n, dtype=object)
    scores[:] = [tuple(row) for row in rng.normal(0, 1.5, (n, 4)).tolist()]
    run, read, _ = make_run(1, (ARC,), n_items=n)
    answer = np.array([str(int(np.argmax(row))) for row in scores])
    samples = replace(read(run.results[0].cells[0]), scores=scores, answer=answer)
    right = (rng.random(n) < confidences(samples)).astype(float)
    assert calibration([replace(samples, value=right)]).ece < 0.4 * math.sqrt(BINS / n)
    assert calibration([replace(samples, value=np.zeros(n))]).ece == pytest.approx(
        confidences(samples).mean()
    )


def test_where_log_likelihoods_are_missing_or_no_number_nothing_is_told():
    run, read, _ = make_run(2, (ARC,), n_items=20)
    nothing = np.empty(20, dtype=object)
    nothing[:] = [()] * 20
    assert choices_of(gather(run, edited(read, "bnb4-arc", scores=nothing))) == ()
    endless = nothing.copy()
    endless[:] = [(-math.inf,) * 4] * 20
    (one,) = choices_of(gather(run, edited(read, "bnb4-arc", scores=endless)))
    assert one.chosen[1].calibration is None
    assert one.chosen[0].calibration is not None


def test_items_may_have_different_numbers_of_choices():
    run, read, _ = make_run(2, (ARC,), n_items=3)
    uneven = np.empty(3, dtype=object)
    uneven[:] = [(-1.0, -2.0), (-1.0, -2.0, -3.0), (-3.0, -1.0, -2.0, -2.0, -9.0)]
    answers = np.array(["0", "0", "1"])
    for result in run.results:
        read = edited(read, result.cells[0].key, scores=uneven, answer=answers, gold=answers)
    (one,) = choices_of(gather(run, read))
    assert one.right == pytest.approx((2 / 3, 1 / 3, 0, 0, 0))
    first = math.exp(-1) / (math.exp(-1) + math.exp(-2))
    assert confidences(read(run.results[0].cells[0]))[0] == pytest.approx(first)


def test_a_shift_is_claimed_only_after_all_that_were_looked_at():
    run, read, _ = make_run(3, (ARC, QUIZ), n_items=400, churn=0.0)
    skewed = read(run.results[1].cells[0])
    moved = np.where(np.arange(400) < 60, "0", skewed.answer)
    shifted = edited(read, run.results[1].cells[0].key, answer=moved)
    (arc, quiz) = choices_of(gather(run, shifted))
    claims = {
        (row.row.id, one.variant, s.place): s.claim
        for row in (arc, quiz)
        for one in row.chosen
        for s in one.shifts
    }
    assert {place for place, claim in claims.items() if claim > 0} == {("arc", "bnb4", 0)}
    for row in (arc, quiz):
        for one in row.chosen:
            assert all(shift.low > 0 or shift.high < 0 for shift in one.shifts if shift.claim)
    least = np.where(np.arange(400) < 7, "0", skewed.answer)
    few = choices_of(gather(run, edited(read, run.results[1].cells[0].key, answer=least)))
    assert not any(shift.claim for row in few for one in row.chosen for shift in one.shifts)
