"""The interval of a mean divergence: by hand, at its edges, and by simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy

from qeval.compare.stats.divergence import mean_divergence


def test_equal_documents_by_hand():
    """Three documents of two positions: the plain t interval of their means, on the logarithm."""
    values, documents = [0.1, 0.3, 0.2, 0.6, 0.5, 0.7], [0, 0, 1, 1, 2, 2]
    error = np.array([0.2, 0.4, 0.6]).std(ddof=1) / math.sqrt(3)
    reach = scipy.stats.t.ppf(0.975, 2) * error / 0.4
    mean, low, high = mean_divergence(values, documents)
    assert mean == pytest.approx(0.4)
    assert (low, high) == pytest.approx((0.4 * math.exp(-reach), 0.4 * math.exp(reach)))


def test_edges():
    assert mean_divergence([0.0, 0.0], [0, 1]) == (0.0, 0.0, 0.0)
    assert mean_divergence([0.5, 0.7], [3, 3]) == (pytest.approx(0.6), 0.0, math.inf)
    mean, low, high = mean_divergence([1e-300, 5.0], [0, 1])
    assert low < mean < high < math.inf


def test_one_great_document_leaves_little_to_tell():
    values = np.random.default_rng(0).exponential(1.0, 100)
    even = mean_divergence(values, np.repeat(np.arange(10), 10))
    uneven = mean_divergence(values, np.repeat(np.arange(10), [82, 2, 2, 2, 2, 2, 2, 2, 2, 2]))
    assert uneven[2] - uneven[1] > 2 * (even[2] - even[1])


def test_it_is_the_jackknife_of_documents():
    draw = np.random.default_rng(1)
    sizes = [3, 9, 4, 7, 5]
    number, values = np.repeat(np.arange(5), sizes), draw.exponential(1.0, sum(sizes))
    without = [values[number != one].mean() for one in range(5)]
    error = math.sqrt(4 / 5 * sum((one - values.mean()) ** 2 for one in without))
    mean, low, high = mean_divergence(values, number)
    squares = np.square(np.array(sizes) / sum(sizes))
    freedom = squares.sum() ** 2 / np.square(squares).sum() - 1
    reach = scipy.stats.t.ppf(0.975, freedom) * error / mean
    assert (low, high) == pytest.approx((mean * math.exp(-reach), mean * math.exp(reach)))


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("documents", [20, 62])
@pytest.mark.parametrize(("between", "tail"), [(0.2, 1.5), (0.5, 1.5), (0.8, 2.0)])
def test_simulated_coverage(documents, between, tail):
    """Documents of 5 to 400 positions, whose mean divergences differ by a factor e^between, and positions
    within them by e^tail: WikiText's own differ by e^0.3 and e^1.8, and its documents are twenty times as
    long."""
    draw, hits, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        sizes = np.clip(draw.lognormal(3.5, 0.7, documents), 5, 400).astype(int)
        own = draw.lognormal(-(between**2) / 2, between, documents)
        number = np.repeat(np.arange(documents), sizes)
        values = own[number] * draw.lognormal(-(tail**2) / 2, tail, len(number))
        _, low, high = mean_divergence(values, number)
        hits += low <= 1 <= high
    assert 0.92 <= hits / trials <= 0.99


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("documents", [20, 62])
def test_where_few_positions_make_up_the_mean_a_bootstrap_is_no_better(documents):
    """With a tail of e^2.5, documents drawn again (the bootstrap of t on the logarithm, with the same error)
    hold the truth about as often as the interval that is used, and are wider by a fifth or more."""
    draw, trials, hits, widths = np.random.default_rng(0), 400, np.zeros(2), np.zeros(2)
    for _ in range(trials):
        sizes = np.clip(draw.lognormal(3.5, 0.7, documents), 5, 400).astype(int)
        number = np.repeat(np.arange(documents), sizes)
        own = draw.lognormal(-(0.5**2) / 2, 0.5, documents)[number]
        values = own * draw.lognormal(-(2.5**2) / 2, 2.5, len(number))
        for at, (low, high) in enumerate(
            (mean_divergence(values, number)[1:], drawn_again(values, number, draw))
        ):
            hits[at] += low <= 1 <= high
            widths[at] += math.log(high / low)
    ours, theirs = hits / trials
    assert 0.8 <= ours <= 0.92
    assert abs(ours - theirs) <= 0.05
    assert widths[1] > 1.1 * widths[0]


def drawn_again(values, number, draw):
    """The interval of a mean by the bootstrap of t over documents."""
    sums, sizes = np.bincount(number, values), np.bincount(number)
    own, error = (float(part[0]) for part in logarithm(sums[None], sizes[None]))
    at = draw.integers(0, len(sizes), (999, len(sizes)))
    means, errors = logarithm(sums[at], sizes[at])
    low, high = np.quantile((means - own) / errors, [0.025, 0.975])
    return math.exp(own - high * error), math.exp(own - low * error)


def logarithm(sums, sizes):
    """The logarithms of means (draws,) of documents' sums and sizes (draws, documents), and their errors by
    the jackknife."""
    total, count, documents = sums.sum(1), sizes.sum(1), sums.shape[1]
    mean = total / count
    without = (total[:, None] - sums) / (count[:, None] - sizes)
    squares = np.square(without - mean[:, None]).sum(1)
    return np.log(mean), np.sqrt((documents - 1) / documents * squares) / mean
