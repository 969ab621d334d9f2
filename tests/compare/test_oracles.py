"""qeval.compare.stats against figures that others published, and one that they computed by other means.

Signs as everywhere: candidate minus baseline, so a loss counts against the candidate. Where a source has its
two columns the other way round, the test swaps the counts and says so by the sign of the difference.
"""

import math

import pytest

from qeval.compare import stats


@pytest.mark.parametrize(
    ("losses", "gains", "n", "level", "low", "high"),
    [
        (1, 0, 44, 0.90, -0.09566, 0.03652),  # Tango 1998: of 44 pairs one is discordant
        (8, 16, 86, 0.95, -0.01966, 0.20691),  # Agresti and Min 2005: more gains, so a positive difference
        (25, 28, 618, 0.90, -0.01483, 0.02472),  # R package PropCIs, scoreci.mp
    ],
)
def test_published_score_intervals_of_paired_proportions(losses, gains, n, level, low, high):
    found = stats.tango_interval(losses, gains, n, level)
    assert found == pytest.approx((low, high), abs=6e-6)
    assert stats.tango_interval(gains, losses, n, level) == pytest.approx((-high, -low), abs=6e-6)
    assert (found[0] + found[1] > 0) == (gains > losses)


def test_a_sample_size_of_statpsych():
    """size.supinf.prop.ps(.05, .9, .35, .20, .45, .05): proportions .35 and .20 correlated by .45, and a
    limit of .05, hence .10 from it; an alpha of .05 for both sides is a one-sided confidence of .975."""
    one, two, correlation = 0.35, 0.20, 0.45
    spreads = [share * (1 - share) for share in (one, two)]
    variance = sum(spreads) - 2 * correlation * math.sqrt(spreads[0] * spreads[1])
    assert variance == pytest.approx(0.21579, abs=5e-6)
    assert stats.required_n(variance, one - two - 0.05, 0.975, 0.9) == 227


def test_holm_rejects_at_the_boundary():
    """The textbook's "no greater than": 5 times .01 is .05 exactly, and is rejected."""
    values = [0.50, 0.01, 0.001, 0.69, 0.02, 0.05, 0.0025]
    adjusted = stats.holm(values)
    assert [p for p, one in zip(values, adjusted, strict=True) if one <= 0.05] == [0.01, 0.001, 0.0025]
    assert adjusted.tolist() == pytest.approx([1, 0.05, 0.007, 1, 0.08, 0.15, 0.015])


# Sums over the 15 school districts of apiclus1 in R's package survey: schools, api.stu, enroll.
DISTRICTS = (
    (11, 4895, 6081),
    (4, 1184, 1436),
    (2, 532, 680),
    (13, 5935, 6958),
    (2, 610, 683),
    (4, 1373, 1641),
    (4, 1461, 1668),
    (16, 7573, 9025),
    (9, 1877, 2180),
    (34, 12618, 15038),
    (21, 12292, 14968),
    (37, 22452, 25814),
    (13, 6047, 6777),
    (1, 199, 274),
    (12, 6431, 7375),
)


def as_items(districts):
    """A row for each school, the first with its district's sums: within a cluster only sums count."""
    values, weights, clusters = [], [], []
    for number, (schools, students, enrolled) in enumerate(districts):
        values += [students] + [0] * (schools - 1)
        weights += [enrolled] + [0] * (schools - 1)
        clusters += [number] * schools
    return [0] * len(values), values, weights, clusters


def test_a_clustered_ratio_is_rs_svyratio():
    """svyratio(~api.stu, ~enroll, dclus1) of R's survey, whose documentation prints .8497087 and .008386297,
    the latter with a finite population of 757 districts; and the same by hand."""
    columns = as_items(DISTRICTS)
    ratio, _, _ = stats.paired_interval(*columns)
    error = stats.paired_standard_error(*columns)
    assert ratio == pytest.approx(0.8497087, abs=5e-8)
    assert error * math.sqrt(1 - 15 / 757) == pytest.approx(0.008386297, abs=5e-10)
    enrolled = sum(one[2] for one in DISTRICTS)
    residuals = [one[1] - sum(two[1] for two in DISTRICTS) / enrolled * one[2] for one in DISTRICTS]
    by_hand = math.sqrt(15 / 14 * sum(one**2 for one in residuals)) / enrolled
    assert error == pytest.approx(by_hand, rel=1e-12)


def test_a_clustered_ratio_that_is_one_item_a_cluster_is_the_plain_one():
    sums = [[0] * 15, [one[1] for one in DISTRICTS], [one[2] for one in DISTRICTS]]
    alone = stats.paired_standard_error(*sums)
    assert stats.paired_standard_error(*as_items(DISTRICTS)) == pytest.approx(alone, rel=1e-12)
