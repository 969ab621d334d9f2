"""pass@1 of texts that were drawn several times: its interval is over items, however often each was drawn."""

import numpy as np
import pytest
from factories import TRUTH, compare_run, edited, make_run

from qeval.compare import stats

N, TIMES, LEVEL = 60, 5, 0.95


@pytest.fixture(scope="module")
def drawn():
    """(items, times) of right and wrong of two variants: most items are nearly always right or wrong."""
    rng = np.random.default_rng(8)
    chance = rng.beta(0.4, 0.4, N)
    worse = np.clip(chance - 0.1, 0, 1)
    return tuple((rng.random((N, TIMES)) < p[:, None]).astype(float) for p in (chance, worse))


@pytest.fixture(scope="module")
def row(drawn):
    """The row of a run whose values are the means over an item's texts."""
    run, read, _ = make_run(2, (TRUTH,), N)
    for name, texts in zip(("fp16", "bnb4"), drawn, strict=True):
        read = edited(read, f"{name}-truth", value=texts.mean(1))
    (found,) = [one for one in compare_run(run, read) if one.level == "task"]
    return found


def test_the_score_is_the_chance_that_one_text_is_right(row, drawn):
    base, candidate = drawn
    assert (row.n, row.kind, row.flips) == (N, "score", None)
    assert row.baseline == pytest.approx(base.mean())
    assert row.candidate == pytest.approx(candidate.mean())
    assert row.delta == pytest.approx(candidate.mean() - base.mean())


def test_the_interval_is_that_of_single_texts_clustered_by_item(row, drawn):
    base, candidate = (texts.ravel() for texts in drawn)
    items = np.repeat(np.arange(N), TIMES)
    _, low, high = stats.paired_interval(base, candidate, clusters=items, level=LEVEL)
    assert (row.low, row.high) == pytest.approx((low, high), abs=1e-9)
    _, *alone = stats.paired_interval(base, candidate, level=LEVEL)
    assert alone[1] - alone[0] < 0.8 * (row.high - row.low)


@pytest.mark.slow
def test_the_interval_is_the_one_computed_directly(row, drawn):
    """Gaffke's bound by drawing: each item, and one unseen as bad as can be, with a weight of its own."""
    base, candidate = drawn
    differences = np.append((candidate - base).mean(1), np.nan)
    weights = np.random.default_rng(9).exponential(size=(200_000, N + 1))
    bounds = []
    for unseen, quantile in ((-1.0, 0.025), (1.0, 0.975)):
        differences[-1] = unseen
        means = weights @ differences / weights.sum(1)
        bounds.append(np.quantile(means, quantile))
    assert (row.low, row.high) == pytest.approx(tuple(bounds), abs=2e-3)
