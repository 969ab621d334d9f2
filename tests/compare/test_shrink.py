"""Shrinking: plain errors, and a true spread that comes back."""

import math

import numpy as np
import pytest

from qeval.base.sizes import MMLU_SUBJECTS
from qeval.compare.stats.shrink import between_variance, settled, shrink


def test_the_errors_of_shrinking_are_plain():
    variances = settled([math.sqrt(0.1 / 100)] * 5, [100] * 5)
    assert [math.sqrt(one) for one in variances] == pytest.approx([0.0316] * 5, abs=5e-5)


def test_a_group_without_a_flip_has_the_error_of_the_others():
    quiet, loud = settled([0.0, math.sqrt(0.1 / 100)], [100, 100])
    assert 0 < quiet == loud
    assert all(one > 0 for one in settled([0.0, 0.0], [100, 100]))


@pytest.mark.parametrize("items", [24, 100])
def test_small_groups_are_pulled_to_the_mean_over_all_items(items):
    """Many of which have no flip: by errors of their own they would draw the mean halfway to 0."""
    random, means = np.random.default_rng(4), []
    for _ in range(200):
        losses, gains = random.binomial(items, 0.03, 57), random.binomial(items, 0.02, 57)
        deltas = (gains - losses) / items
        errors = np.sqrt(((gains + losses) / items - deltas**2) / (items - 1))
        pulled = shrink(deltas, settled(errors, [items] * 57))
        assert np.mean(pulled) == pytest.approx(deltas.mean())
        means.append(np.mean(pulled))
    assert np.mean(means) == pytest.approx(-0.01, abs=4 * np.std(means) / math.sqrt(200))


@pytest.mark.parametrize(("spread", "churn"), [(0.02, 0.05), (0.02, 0.14), (0.02, 0.3), (0.04, 0.14)])
def test_a_spread_of_subjects_comes_back(spread, churn):
    random, found = np.random.default_rng(12), []
    sizes = np.array([n for n, _ in MMLU_SUBJECTS.values()])
    for _ in range(200):
        true = -0.01 + spread * random.standard_normal(57)
        share = np.maximum(churn, np.abs(true) + 0.001)
        losses = random.binomial(sizes, (share - true) / 2)
        gains = random.binomial(sizes - losses, (share + true) / 2 / (1 - (share - true) / 2))
        deltas = (gains - losses) / sizes
        errors = np.sqrt(((gains + losses) / sizes - deltas**2) / (sizes - 1))
        found.append(math.sqrt(between_variance(deltas, settled(errors, sizes))))
    assert np.median(found) == pytest.approx(spread, rel=0.25)
