"""Formulas computed a second time from what defines them, where no published figure reaches."""

import math

import numpy as np
import pytest

from qeval.base.errors import QevalError
from qeval.compare import stats
from qeval.compare.stats.divergence import mean_divergence
from qeval.compare.stats.shrink import between_variance, settled, shrink

DELTAS = (-0.06, 0.01, -0.02, 0.05, -0.11, 0.0)
VARIANCES = (0.0004, 0.0009, 0.0001, 0.0016, 0.0025, 0.0002)


def test_the_spread_between_groups_is_statsmodels_dersimonian_and_laird():
    from statsmodels.stats.meta_analysis import combine_effects

    effects = combine_effects(np.array(DELTAS), np.array(VARIANCES), method_re="dl")
    assert between_variance(DELTAS, VARIANCES) == pytest.approx(effects.tau2)
    assert effects.tau2 > 0


def test_shrinking_weighs_a_group_against_the_common_mean_by_precisions():
    from statsmodels.stats.meta_analysis import combine_effects

    effects = combine_effects(np.array(DELTAS), np.array(VARIANCES), method_re="dl")
    own, common = 1 / np.array(VARIANCES), 1 / effects.tau2
    posterior = (own * DELTAS + common * effects.mean_effect_re) / (own + common)
    assert shrink(DELTAS, VARIANCES) == pytest.approx(posterior)


def test_two_groups_are_shrunk_and_one_is_left():
    assert shrink([0.3], [0.01]) == (0.3,)
    assert shrink([], []) == ()
    low, high = shrink([0.0, 0.3], [0.01, 0.01])
    assert between_variance([0.0, 0.3], [0.01, 0.01]) == pytest.approx(0.3**2 / 2 - 0.01)
    assert (low + high) / 2 == pytest.approx(0.15)
    assert high - low == pytest.approx(0.3 * 0.035 / 0.045)


def test_groups_no_further_apart_than_noise_become_their_mean():
    assert between_variance([0.0, 0.01], [0.01, 0.03]) == 0
    assert shrink([0.0, 0.01], [0.01, 0.03]) == pytest.approx((0.0025, 0.0025))


@pytest.mark.parametrize("function", [shrink, between_variance, settled])
def test_columns_of_two_lengths_are_refused(function):
    with pytest.raises(ValueError, match="zip"):
        function([1, 2, 3], [1, 2])


def test_the_common_spread_is_over_all_items():
    """Spreads .16 and .36 of 40 and 10 items: the common one is (40 * .16 + 10 * .36) / 50 = .2."""
    errors = [math.sqrt(0.16 / 40), math.sqrt(0.36 / 10)]
    assert settled(errors, [40, 10]) == pytest.approx((0.2 / 40, 0.2 / 10))


UNSEEN = -math.log(0.05)


def test_items_for_a_bounded_mean_solve_the_sum_of_squares():
    """wanted² = noise / N + (unseen / N)², the noise being what is left of the half-width raised by 3%."""
    half, n, wanted = 0.03, 900, 0.01
    noise = n * ((1.03 * half) ** 2 - (UNSEEN / n) ** 2)
    found = stats.bounded_n(half, n, wanted)
    assert noise / found + (UNSEEN / found) ** 2 == pytest.approx(wanted**2)
    assert stats.bounded_n(half, n, 1.03 * half) == pytest.approx(n)


def test_without_noise_the_unseen_item_decides():
    assert stats.bounded_n(0.0, 1000, 0.01) == pytest.approx(UNSEEN / 0.01)
    assert stats.bounded_n(0.0, 1000, 0.01, 0.99) == pytest.approx(-math.log(0.01) / 0.01)


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_wilsons_interval_is_statsmodels(score, n):
    from statsmodels.stats.proportion import proportion_confint

    assert stats.wilson_interval(score, n) == pytest.approx(
        proportion_confint(score * n, n, alpha=0.05, method="wilson"), abs=1e-12
    )
    assert stats.wilson_interval(score, 0) == (0.0, 1.0)


@pytest.mark.parametrize("score", [1.01, 1.5, -0.01])
def test_a_score_beyond_a_fraction_is_refused_with_what_to_give(score):
    message = f"A published score is {score}, where fractions from 0 to 1 are compared."
    with pytest.raises(QevalError) as told:
        stats.unpaired_interval(0.5, 100, score, 100)
    assert told.value.message == message
    assert told.value.hint == "Give accuracies as fractions or in percent, and leave perplexities out."


def paired(losses: int, gains: int, n: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    baseline, candidate = np.zeros(n), np.zeros(n)
    baseline[:right] = candidate[losses:right] = 1
    candidate[right : right + gains] = 1
    return baseline, candidate


@pytest.mark.parametrize("ratio", [0.9, 1.2, 2.5])
def test_a_ratio_of_accuracies_adds_the_distances_of_its_parts(ratio):
    """candidate - ratio * baseline = (candidate - baseline) + (1 - ratio) * baseline."""
    columns = paired(9, 4, 120, right=80)
    delta, low, high = stats.paired_interval(*columns, level=0.8)
    ends = [(1 - ratio) * end for end in stats.wilson_interval(80 / 120, 120, 0.8)]
    middle = (1 - ratio) * 80 / 120
    nearer, further = delta - low, high - delta
    down, up = middle - min(ends), max(ends) - middle
    below, above = (
        (math.hypot(nearer, down), math.hypot(further, up)) if ratio < 1 else (nearer + down, further + up)
    )
    found = stats.paired_ratio_margin(*columns, ratio, 0.8)
    assert found == pytest.approx((delta + middle, delta + middle - below, delta + middle + above))


def test_a_ratio_of_unbounded_scores_has_no_ends():
    random = np.random.default_rng(3)
    baseline = random.gamma(2.0, 3.0, 60)
    candidate = baseline + random.normal(0.1, 0.3, 60)
    found = stats.paired_ratio_margin(baseline, candidate, 2.0)
    assert found == stats.paired_interval(2.0 * baseline, candidate)
    assert found[1] < -2


def test_a_planned_share_may_be_all_items_and_one_item_proves_nothing():
    assert stats.required_n(1.0, 0.5) >= stats.required_n(0.9, 0.5)
    assert stats.smallest_margin(0, 0.1) == 1.0
    assert stats.smallest_margin(1, 0.0) < 1.0


def test_the_smallest_margin_without_discordance_is_the_inverse_of_the_number_needed():
    for n in (12, 60, 700):
        margin = stats.smallest_margin(n, 0.0)
        assert stats.required_n(0.0, margin * 1.0001) <= n
        assert stats.required_n(0.0, margin * 0.98) > n


def test_side_errors_are_of_95_per_cent_unless_told():
    assert stats.side_errors(0.0, -1.959964, 2 * 1.959964) == pytest.approx((1, 2))


@pytest.mark.parametrize("first", [True, False])
def test_an_average_refuses_what_is_not_a_number_in_either_column(first):
    columns = ([math.nan, 0.1], [0.1, 0.1]) if first else ([0.1, 0.1], [math.nan, 0.1])
    with pytest.raises(QevalError, match="not a number"):
        stats.average_interval(*columns)


def strata_variance(losses: list[int], gains: list[int], sizes: list[int]) -> float:
    """The unbiased variance of the mean over strata of their mean differences, item by item."""
    parts = []
    for lost, won, n in zip(losses, gains, sizes, strict=True):
        values = np.array([-1.0] * lost + [1.0] * won + [0.0] * (n - lost - won))
        parts.append(values.var(ddof=1) / n)
    return sum(parts) / len(sizes) ** 2


@pytest.mark.parametrize("sizes", [[30, 30, 30], [2, 2, 2, 2]])
def test_strata_of_one_size_have_the_effective_number_of_their_variance(sizes):
    losses, gains = [1] * len(sizes), [0] * (len(sizes) - 1) + [1]
    rates = np.array([losses, gains]) / sizes
    loss, gain = rates.mean(axis=1)
    spread, total = loss + gain - (gain - loss) ** 2, sum(sizes)
    effective = min(total, spread * total / (total - 1) / strata_variance(losses, gains, sizes))
    values = [
        value
        for lost, won, n in zip(losses, gains, sizes, strict=True)
        for value in [-1.0] * lost + [1.0] * won + [0.0] * (n - lost - won)
    ]
    changes = np.array(values)
    baseline = (changes < 0).astype(float)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = stats.stratified_interval(baseline, baseline + changes, labels, 0.9)
    assert found[1:] == pytest.approx(
        stats.accuracy_interval(loss * effective, gain * effective, effective, 0.9)
    )


def test_clusters_end_where_their_stratum_does():
    """Labels that two strata share name other clusters in each: as if they had names of their own."""
    random = np.random.default_rng(8)
    strata = np.repeat(np.arange(4), 30)
    within = np.tile(np.repeat(np.arange(10), 3), 4)
    baseline, candidate = random.random((2, 120))
    shared = stats.stratified_interval(baseline, candidate, strata, clusters=within)
    own = stats.stratified_interval(baseline, candidate, strata, clusters=strata * 1000 + within)
    one = stats.stratified_interval(baseline, candidate, np.zeros(120), clusters=within)
    assert shared == pytest.approx(own)
    assert shared != pytest.approx(one)


def test_two_items_are_enough_for_an_interval_of_means_and_one_is_not():
    one = stats.stratified_interval([0.5], [0.7], [0])
    two = stats.stratified_interval([0.5, 0.4], [0.7, 0.7], [0, 0])
    assert one == pytest.approx((0.2, -1, 1))
    assert -1 < two[1] <= two[0] <= two[2] < 1


def test_a_share_of_changes_has_the_cluster_interval_from_0_to_1():
    """Where clusters lean on each other the wider one decides, and it knows that nothing lies below 0."""
    changed = np.zeros(300, dtype=bool)
    changed[:12] = True
    clusters = np.repeat(np.arange(25), 12)
    low, high = stats.changed_interval(changed, clusters)
    _, below, above = stats.paired_interval(np.zeros(300), changed.astype(float), clusters=clusters)
    assert 0 <= low < 0.04 < high <= 1
    assert high == pytest.approx(above)
    assert low == pytest.approx(max(below, low))


def test_clusters_of_no_weight_do_not_count():
    values = np.array([0.1, 0.2, 0.3, 0.5, 0.0, 0.0])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    clusters = np.array([0, 0, 1, 2, 3, 3])
    whole = stats.paired_standard_error(np.zeros(6), values, weights, clusters)
    part = stats.paired_standard_error(np.zeros(4), values[:4], weights[:4], clusters[:4])
    assert whole == pytest.approx(part)


def test_a_divergence_of_two_documents_is_the_jackknifes():
    """Documents of 3 and 1 positions: leaving one out leaves the other's own mean."""
    values, documents = np.array([0.1, 0.2, 0.3, 0.6]), [0, 0, 0, 1]
    mean, low, high = mean_divergence(values, documents)
    left = np.array([0.6, 0.2]) - mean
    error = math.sqrt((left**2).sum() / 2)
    reach = 12.7062047 * error / mean  # Student's t with one degree of freedom
    assert (low, high) == pytest.approx((mean * math.exp(-reach), mean * math.exp(reach)))
