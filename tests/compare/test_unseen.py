"""What a bound allows for that no item showed: bounded scores, heavy documents, clusters, small groups."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qeval.base.sizes import MMLU_SUBJECTS
from qeval.compare import stats
from qeval.compare.stats.paired import leverage_reach
from qeval.compare.stats.unseen import chance_below, lowest_mean

properties = settings(max_examples=min(60, settings.default.max_examples))
PAGES = np.loadtxt(Path(__file__).parents[2] / "benchmarks" / "wikitext_pages.txt")


def equal(values):
    """Sums and shares of units of one weight."""
    shares = np.full(len(values), 1 / len(values))
    return np.asarray(values) * shares, shares


# --- the bound itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 20), (1, 20), (5, 60), (30, 60), (40, 817)])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.99])
def test_of_zeros_and_ones_it_is_clopper_and_pearsons(count, n, level):
    sums, shares = equal([-1.0] * count + [0.0] * (n - count))
    _, high = stats.proportion_interval(count, n, level)
    assert -lowest_mean(sums, shares, 1 / n, -1.0, level) == pytest.approx(high, rel=0.01)


def exact_chance(terms):
    """P(sum of terms, each times its own exponential variable, is below 0), for terms that all differ."""
    above = [
        math.prod(one / (one - other) for j, other in enumerate(terms) if j != i)
        for i, one in enumerate(terms)
        if one > 0
    ]
    return 1 - math.fsum(above)


@pytest.mark.parametrize("seed", range(8))
def test_the_chance_against_a_closed_form(seed):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(7, 4.0))
    values = random.normal(0, 0.2, 7)
    mean = float(values @ shares) - 0.15
    wanted = exact_chance([*((values - mean) * shares), (-1 - mean) / 7])
    assert chance_below(values * shares, shares, 1 / 7, -1.0, mean) == pytest.approx(wanted, rel=0.03)


@properties
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30),
    st.sampled_from([0.6, 0.8, 0.9, 0.95, 0.998]),
)
def test_the_bound_is_where_the_chance_is_the_tail(values, level):
    sums, shares = equal(values)
    low = lowest_mean(sums, shares, 1 / len(values), -1.0, level)
    assert -1 <= low <= np.mean(values)
    if np.ptp(values) > 1e-6:
        chance = chance_below(sums, shares, 1 / len(values), -1.0, low)
        assert chance == pytest.approx((1 - level) / 2, rel=1e-3)


def test_a_share_that_nothing_showed():
    assert (1 - stats.unseen_share(62)) ** 62 == pytest.approx(0.05)
    assert stats.unseen_share(36.2) == pytest.approx(0.0794, abs=1e-4)
    assert stats.unseen_share(0) == 1
    with pytest.raises(ValueError, match="not between"):
        stats.unseen_share(10, 1.0)


def test_pages_of_wikitext_are_worth_36():
    assert stats.effective_number(PAGES) == pytest.approx(36.2, abs=0.05)
    assert stats.effective_number(np.ones(9)) == pytest.approx(9)
    assert stats.effective_number(np.zeros(3)) == 0


# --- bounded scores -------------------------------------------------------------------------------


def test_twenty_scores_that_all_moved_alike_prove_nothing_small():
    baseline = np.linspace(0.2, 0.9, 20)
    delta, low, high = stats.paired_interval(baseline, baseline - 0.01, level=0.9)
    assert delta == pytest.approx(-0.01)
    assert low < -0.1
    assert 1 - (low + 1) / 0.99 == pytest.approx(1 - 0.05 ** (1 / 20))
    assert high > 0.1


def test_truthfulqa_is_decided_at_a_point():
    random = np.random.default_rng(1)
    for spread, wanted in ((0.03, 0.0042), (0.05, 0.005), (0.1, 0.0072)):
        baseline = random.uniform(0.2, 0.8, 817)
        delta, low, _ = stats.paired_interval(
            baseline, np.clip(baseline + random.normal(0, spread, 817), 0, 1), level=0.9
        )
        assert delta - low == pytest.approx(wanted, rel=0.08)
        assert delta - low < 0.01


def test_with_many_items_a_bounded_mean_is_students():
    random = np.random.default_rng(2)
    baseline = random.uniform(0.3, 0.7, 50_000)
    candidate = baseline + random.uniform(-0.3, 0.3, 50_000)
    delta, low, high = stats.paired_interval(baseline, candidate, level=0.9)
    error = (candidate - baseline).std(ddof=1) / math.sqrt(50_000)
    assert (delta - low, high - delta) == pytest.approx((1.645 * error, 1.645 * error), rel=0.02)


# --- perplexities ---------------------------------------------------------------------------------


def test_with_equal_weights_the_leverage_reach_is_students():
    values = np.random.default_rng(3).normal(size=25)
    error = values.std(ddof=1) / 5
    assert leverage_reach(*equal(values), 0.9) == pytest.approx(1.7108821 * error)


def test_leverages_against_statsmodels_and_matrices():
    from scipy.stats import t
    from statsmodels.regression.linear_model import WLS

    random = np.random.default_rng(4)
    for weights in (random.lognormal(0, 1, 30), np.r_[40.0, np.ones(19)], PAGES):
        n, shares = len(weights), weights / weights.sum()
        rates = random.normal(size=n)
        error = WLS(rates, np.ones(n), weights=weights).fit(cov_type="HC2").bse[0]
        residual = np.eye(n) - np.ones((n, 1)) @ shares[None, :]
        product = np.diag(shares**2 / (1 - shares)) @ residual @ residual.T
        freedom = np.trace(product) ** 2 / np.trace(product @ product)
        wanted = t.ppf(0.95, freedom) * error
        assert leverage_reach(rates * shares, shares, 0.9) == pytest.approx(wanted, rel=1e-9)


def pages_of(rates, words):
    return stats.paired_interval(-2 * words, words * (rates - 2), words, level=0.9)


@pytest.mark.parametrize("spread", [0.003, 0.02])
def test_wikitexts_pages_decide_an_even_loss(spread):
    random = np.random.default_rng(5)
    passed = [
        pages_of(-math.log(1.01) + random.normal(0, spread, 62), PAGES)[1] > -math.log(1.05)
        for _ in range(200)
    ]
    assert sum(passed) >= 198


@pytest.mark.parametrize("place", [0, 20, 61])
def test_one_bad_page_of_62_leaves_a_loss_possible_that_three_would_make(place):
    rates = np.random.default_rng(6).normal(0, 1e-4, 62)
    rates[place] = -1.0
    assert pages_of(rates, PAGES)[1] < -3 / 62
    assert pages_of(rates, np.ones(62))[1] < -3 / 62


def test_a_long_document_among_short_ones_proves_nothing_alone():
    rates = np.random.default_rng(7).normal(0, 0.01, 20)
    _, low, high = pages_of(rates, np.r_[40.0, np.ones(19)])
    _, even_low, even_high = pages_of(rates, np.ones(20))
    assert high - low > 3 * (even_high - even_low)


# --- clusters and small groups --------------------------------------------------------------------


def clustered(clusters, size, random):
    baseline = np.ones(clusters * size)
    candidate = np.repeat(random.random(clusters) > 0.1, size).astype(float)
    return baseline, candidate, np.repeat(np.arange(clusters), size)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_from_twenty_clusters_on_there_is_an_interval(weight):
    random = np.random.default_rng(8)
    for count, known in ((19, False), (20, True)):
        baseline, candidate, clusters = clustered(count, 5, random)
        weights = np.full(len(baseline), weight)
        _, low, high = stats.paired_interval(baseline, candidate, weights, clusters, 0.9)
        assert ((low, high) == (-1, 1)) != known
        _, low, high = stats.paired_interval(baseline - 3, candidate - 3, weights, clusters, 0.9)
        assert math.isfinite(low + high) == known
        low, high = stats.changed_interval(1 - candidate, clusters)
        assert ((low, high) == (0, 1)) != known


def test_flips_that_share_texts_have_a_wider_interval():
    changed = np.zeros(200)
    changed[:20] = 1
    plain = stats.changed_interval(changed)
    assert plain == stats.proportion_interval(20, 200)
    low, high = stats.changed_interval(changed, np.arange(200) // 5)
    assert low < plain[0] < plain[1] < high
    alone = stats.changed_interval(changed, np.arange(200))
    assert alone == pytest.approx(plain, rel=0.02)
    assert stats.changed_interval([]) == (0, 1)


def test_items_that_change_with_their_text_count_as_texts():
    baseline, candidate, clusters = clustered(67, 3, np.random.default_rng(9))
    delta, low, high = stats.paired_interval(baseline, candidate, None, clusters, 0.9)
    whole = stats.proportion_interval(round(-67 * delta), 67, 0.9)
    assert -low == pytest.approx(whole[1], rel=0.02)
    assert high > -whole[0]  # a text of gains may be among those that were not seen


def test_losses_in_the_smallest_groups_are_allowed_for():
    strata = np.repeat(np.arange(13), [2] * 3 + [30] * 10)
    same = np.ones(len(strata))
    _, low, _ = stats.stratified_interval(same, same, strata, 0.9)
    assert low < -3 / (13 * 2) * 0.9  # three of 26 times the weight that a small group's item has
    assert stats.accuracy_interval(0, 0, len(strata), 0.9)[0] > -0.02


def test_groups_of_unlike_sizes_are_hardly_wider_than_of_like_ones():
    random = np.random.default_rng(10)
    sizes = [n for n, _ in MMLU_SUBJECTS.values()]
    strata = np.repeat(np.arange(57), sizes)
    drawn = random.random(len(strata))
    baseline, candidate = (drawn < 0.04).astype(float), ((drawn > 0.04) & (drawn < 0.08)).astype(float)
    _, low, high = stats.stratified_interval(baseline, candidate, strata, 0.9)
    variance = sum((0.08 / n) for n in sizes) / 57**2
    assert (high - low) / 2 == pytest.approx(1.645 * math.sqrt(variance), rel=0.06)


def test_clusters_within_groups_widen_their_mean():
    random = np.random.default_rng(11)
    strata = np.repeat(np.arange(6), 60)
    clusters = np.arange(360) // 3
    changed = np.repeat(random.random(120) < 0.1, 3)
    baseline, candidate = np.ones(360), 1.0 - changed
    plain = stats.stratified_interval(baseline, candidate, strata, 0.9)
    wide = stats.stratified_interval(baseline, candidate, strata, 0.9, clusters)
    assert plain[0] == wide[0]
    assert 1.4 < (wide[2] - wide[1]) / (plain[2] - plain[1]) < 2
    few = stats.stratified_interval(baseline, candidate, strata, 0.9, np.arange(360) // 20)
    assert few[1:] == (-1, 1)
    ends = stats.stratified_interval(baseline, candidate, strata, 0.9, np.arange(360) % 60)
    assert ends[1:] != (-1, 1)  # a cluster ends where its group does
