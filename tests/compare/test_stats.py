"""qeval.compare.stats against published figures, other libraries, exact enumeration, and its own promises.

The other libraries are imported where they are compared with: that takes a second, for each process that
collects the tests.
"""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qeval.base.errors import QevalError
from qeval.compare import stats

properties = settings(max_examples=min(60, settings.default.max_examples))
levels = st.sampled_from([0.6, 0.8, 0.9, 0.95, 0.99])


@st.composite
def tables(draw, least=0, most=400):
    """(losses, gains, n)"""
    n = draw(st.integers(least, most))
    losses = draw(st.integers(0, n))
    return losses, draw(st.integers(0, n - losses)), n


@st.composite
def paired_scores(draw, least=0):
    """Baseline and candidate, all 0/1 or all continuous in [0, 1], of `least` to 25 items."""
    one = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32)]))
    rows = draw(st.lists(st.tuples(one, one), min_size=least, max_size=25))
    columns = np.array(rows, dtype=float).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def items(losses, gains, n, right=0):
    """0/1 columns with these counts; `right` of the other items are right for both."""
    baseline, candidate = np.zeros(n), np.zeros(n)
    baseline[:losses] = 1
    candidate[losses : losses + gains] = 1
    baseline[n - right :] = candidate[n - right :] = 1
    return baseline, candidate


# --- published figures --------------------------------------------------------------------------


def test_the_paired_table_of_contingencytables():
    assert stats.mcnemar_exact(16, 6) == pytest.approx(0.052479, abs=5e-7)
    assert stats.mcnemar_midp(16, 6) == pytest.approx(0.034690, abs=5e-7)
    assert stats.tango_interval(16, 6, 161, 0.95) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_the_example_of_fagerland_lydersen_and_laake():
    assert stats.mcnemar_exact(7, 1) == pytest.approx(0.0703, abs=5e-5)
    assert stats.mcnemar_midp(7, 1) == pytest.approx(0.0391, abs=5e-5)


def test_clustered_standard_error():
    values = np.array([1.0, 1, 0, 0, 1, 0])
    zeros, clusters = np.zeros(6), np.array(["a", "a", "b", "b", "c", "c"])
    plain = stats.paired_standard_error(zeros, values)
    clustered = stats.paired_standard_error(zeros, values, None, clusters)
    assert plain == pytest.approx(0.223607, abs=5e-7)
    assert clustered == pytest.approx(0.288675, abs=5e-7)
    assert clustered / math.sqrt(3 / 2) == pytest.approx(0.235702, abs=5e-7)


def test_holm_of_four():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_required_items_at_the_published_discordance():
    assert [stats.required_n(0.0788, margin, 0.95, 0.8) for margin in (0.01, 0.02, 0.03)] == [4872, 1218, 542]


def test_recovery_of_the_articles_13b_bnb4():
    raw, above = stats.recovery(0.3738, 0.3417, 0.25)
    assert raw == pytest.approx(0.9141, abs=5e-5)
    assert above == pytest.approx(0.7407, abs=5e-5)


# --- other libraries ----------------------------------------------------------------------------


@pytest.mark.parametrize(("losses", "gains"), [(0, 0), (1, 0), (5, 5), (3, 9), (160, 120), (1043, 900)])
def test_mcnemar_against_statsmodels_and_a_sum(losses, gains):
    from scipy.stats import binom
    from statsmodels.stats import contingency_tables

    theirs = contingency_tables.mcnemar([[7, losses], [gains, 5]], exact=True).pvalue
    assert stats.mcnemar_exact(losses, gains) == pytest.approx(theirs, rel=1e-9)
    points = binom.pmf(np.arange(min(losses, gains) + 1), losses + gains, 0.5)
    midp = min(1, 2 * (points[:-1].sum() + points[-1] / 2))
    assert stats.mcnemar_midp(losses, gains) == pytest.approx(midp, rel=1e-9)


def score_by_search(losses, gains, n, difference):
    """Tango's statistic by maximising the likelihood numerically, without his formula."""

    from scipy import optimize, special

    def cost(q):  # q: the probability of a loss
        cells = [(losses, q), (gains, q + difference), (n - losses - gains, 1 - 2 * q - difference)]
        return -sum(special.xlogy(count, max(p, 1e-300)) for count, p in cells)

    least, most = max(0.0, -difference), (1 - difference) / 2
    q = optimize.minimize_scalar(cost, bounds=(least, most), method="bounded", options={"xatol": 1e-13}).x
    return (gains - losses - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(
    "table", [(16, 6, 161), (0, 0, 50), (3, 0, 20), (0, 7, 30), (60, 41, 1172), (9, 1, 10)]
)
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_tango_against_a_numerical_score_test(table, level):
    from scipy.stats import norm

    losses, gains, n = table
    z = norm.ppf((1 + level) / 2)
    for bound, wanted in zip(stats.tango_interval(*table, level), (z, -z), strict=True):
        assert score_by_search(losses, gains, n, bound) == pytest.approx(wanted, abs=2e-4)


def test_tango_without_losses_or_gains_is_wilsons_bound():
    from scipy.stats import norm

    z2 = norm.ppf(0.975) ** 2
    assert stats.tango_interval(0, 0, 50, 0.95) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))


@pytest.mark.parametrize(("count", "n"), [(0, 30), (1, 30), (15, 30), (30, 30), (163, 1172)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_proportions_against_statsmodels(count, n, level):
    from statsmodels.stats import proportion

    for ours, method in (
        (stats.proportion_interval(count, n, level), "beta"),
        (stats.wilson_interval(count / n, n, level), "wilson"),
    ):
        theirs = proportion.proportion_confint(count, n, alpha=1 - level, method=method)
        assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("counts", [(622, 1172, 610, 1172), (3, 20, 9, 40), (0, 15, 15, 15)])
def test_unpaired_against_statsmodels_newcombe(counts):
    from statsmodels.stats import proportion

    first, n_first, second, n_second = counts
    theirs = proportion.confint_proportions_2indep(
        second, n_second, first, n_first, method="newcomb", compare="diff", alpha=0.1
    )
    ours = stats.unpaired_interval(first / n_first, n_first, second / n_second, n_second, 0.9)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_holm_against_statsmodels():
    from statsmodels.stats import multitest

    values = np.random.default_rng(1).random(40) ** 3
    assert stats.holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1])


def test_cluster_robust_ratio_against_statsmodels():
    from statsmodels.regression.linear_model import WLS

    random = np.random.default_rng(2)
    weights, clusters = random.integers(1, 90, 60).astype(float), random.integers(0, 14, 60)
    baseline, candidate = -2 * weights, -2 * weights + weights * random.normal(-0.02, 0.05, 60)
    fit = WLS((candidate - baseline) / weights, np.ones(60), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}
    )
    delta, _, _ = stats.paired_interval(baseline, candidate, weights, clusters)
    assert delta == pytest.approx(fit.params[0])
    assert stats.paired_standard_error(baseline, candidate, weights, clusters) == pytest.approx(fit.bse[0])


def test_the_paired_interval_of_many_even_differences_is_students():
    from scipy.stats import ttest_rel

    baseline, candidate = np.zeros(20_000), np.random.default_rng(3).normal(-0.3, 2, 20_000)
    theirs = ttest_rel(candidate, baseline).confidence_interval(0.95)
    delta, low, high = stats.paired_interval(baseline, candidate, level=0.95)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=0.005)
    assert low <= theirs.low < delta < theirs.high <= high


def test_p_values_against_scipy():
    from scipy.stats import ttest_rel

    first, second = np.random.default_rng(4).normal(size=(2, 12))
    theirs = ttest_rel(second, first).pvalue
    error = stats.paired_standard_error(first, second)
    assert stats.p_value((second - first).mean(), error, 11) == pytest.approx(theirs)
    assert stats.p_value(-1.96, 1.0) == pytest.approx(0.05, abs=1e-4)


# --- promises, enumerated exactly -----------------------------------------------------------------


def passes(n, loss, gain, margin, level, interval):
    """The exact probability that the lower bound is above -margin, for true rates of losses and gains."""

    from scipy.stats import binom

    total = 0.0
    counts = np.arange(n + 1)
    chances = binom.pmf(counts, n, loss)
    for losses in counts[chances > 1e-9]:
        following = binom.pmf(counts, n - losses, gain / (1 - loss))
        for gains in counts[following > 1e-9]:
            if interval(losses, gains, n, level)[0] > -margin:
                total += chances[losses] * following[gains]
    return total


@pytest.mark.parametrize(
    ("n", "gain", "margin", "level"),
    [
        (133, 0.0, 0.02, 0.9),
        (52, 0.0, 0.05, 0.9),
        (20, 0.10, 0.01, 0.9),
        (44, 0.07, 0.02, 0.9),
        (104, 0.0, 0.02, 0.8),
    ],
)
def test_a_loss_of_the_margin_passes_no_more_often_than_promised(n, gain, margin, level):
    assert passes(n, margin + gain, gain, margin, level, stats.accuracy_interval) <= (1 - level) / 2


def test_without_the_correction_it_would():
    assert passes(52, 0.05, 0.0, 0.05, 0.9, stats.tango_interval) > 0.069
    assert passes(328, 0.005, 0.0, 0.005, 0.8, stats.tango_interval) > 0.19


@pytest.mark.slow
def test_power_is_a_few_points_below_what_the_plan_says():
    n = stats.required_n(0.0788, 0.03, 0.95, 0.8)
    assert 0.76 < passes(n, 0.0394, 0.0394, 0.03, 0.9, stats.accuracy_interval) < 0.8


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.03, 0.2])
def test_an_identical_model_passes_from_the_required_number_on(margin):
    n = stats.required_n(0.0, margin, 0.95, 0.8)
    assert stats.accuracy_interval(0, 0, n, 0.9)[0] > -margin
    assert stats.accuracy_interval(0, 0, n - 1, 0.9)[0] <= -margin
    assert stats.smallest_margin(n, 0.0, 0.95, 0.8) < margin <= stats.smallest_margin(n - 1, 0.0, 0.95, 0.8)


@pytest.mark.rare
@pytest.mark.slow
def test_no_method_errs_more_often_than_promised(monkeypatch):
    """A short run of benchmarks/coverage_simulation.py: every method, a candidate exactly at the limit."""
    path = Path(__file__).parents[2] / "benchmarks" / "coverage_simulation.py"
    spec = importlib.util.spec_from_file_location("coverage_simulation", path)
    simulation = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = simulation
    monkeypatch.syspath_prepend(str(path.parent))
    try:
        spec.loader.exec_module(simulation)
        hard = [one for kind in simulation.hard_scenarios().values() for one in kind]
        hard += simulation.random_scenarios(3, 4)
        found = [simulation.measure(scenario, 2000, seed=3) for scenario in simulation.scenarios()]
        found += [simulation.measure(scenario, 500, seed=3) for scenario in hard]
    finally:
        del sys.modules[spec.name]
    assert len(found) > 60
    assert [one for one in found if one.rate > one.allowed] == []
    assert max(one.rate for one in found) > 0.03  # the limit is where errors happen: no method is idle


# --- properties -----------------------------------------------------------------------------------


@properties
@given(tables(), levels)
def test_counts_swapped_mirror_the_interval(table, level):
    losses, gains, n = table
    low, high = stats.accuracy_interval(losses, gains, n, level)
    assert stats.accuracy_interval(gains, losses, n, level) == (-high, -low)
    assert stats.mcnemar_exact(losses, gains) == stats.mcnemar_exact(gains, losses)


@properties
@given(tables(least=1), levels)
def test_bounds_hold_the_difference_and_shrink_with_n(table, level):
    losses, gains, n = table
    low, high = stats.accuracy_interval(losses, gains, n, level)
    assert -1 <= low <= (gains - losses) / n <= high <= 1
    assert high > low
    more_low, more_high = stats.accuracy_interval(3 * losses, 3 * gains, 3 * n, level)
    assert more_high - more_low < high - low + 1e-12


@properties
@given(tables(least=1))
def test_a_loss_more_never_helps(table):
    losses, gains, n = table
    if losses + gains < n:
        assert (
            stats.accuracy_interval(losses + 1, gains, n)[0]
            < stats.accuracy_interval(losses, gains, n)[0] + 1e-9
        )


@properties
@given(tables(), levels, levels)
def test_a_higher_level_holds_a_lower_one(table, one, two):
    narrow = stats.accuracy_interval(*table, min(one, two))
    wide = stats.accuracy_interval(*table, max(one, two))
    assert wide[0] <= narrow[0]
    assert narrow[1] <= wide[1]


def all_intervals(baseline, candidate, level=0.9):
    """Every interval on paired items, by name."""
    labels = np.arange(len(baseline)) % 3
    return {
        "paired": stats.paired_interval(baseline, candidate, level=level),
        "clustered": stats.paired_interval(baseline, candidate, None, labels, level),
        "weighted": stats.paired_interval(2 * baseline, 2 * candidate, 2.0 + labels, None, level),
        "stratified": stats.stratified_interval(baseline, candidate, labels, level),
        "ratio": stats.paired_ratio_margin(baseline, candidate, 0.9, level),
        "ratio above 1": stats.paired_ratio_margin(baseline, candidate, 1.1, level),
    }


@properties
@given(paired_scores())
def test_intervals_of_bounded_scores_are_finite_and_hold_the_difference(scores):
    for name, (delta, low, high) in all_intervals(*scores).items():
        assert math.isfinite(low + high), name
        assert low <= delta + 1e-12, name
        assert delta <= high + 1e-12, name
        assert low < high, name


likelihoods = st.floats(-1e4, 0, width=32)
documents = st.lists(st.tuples(likelihoods, likelihoods, st.integers(0, 500)), max_size=12)


@properties
@given(documents, levels)
def test_perplexities_have_finite_bounds_from_two_documents_on(rows, level):
    baseline, candidate, words = np.array(rows, dtype=float).reshape(-1, 3).T
    delta, low, high = stats.paired_interval(baseline, candidate, words, None, level)
    assert low <= delta <= high
    if np.count_nonzero(words) != 1:
        assert math.isfinite(low + high)
    swapped = stats.paired_interval(candidate, baseline, words, None, level)
    assert swapped == pytest.approx((-delta, -high, -low))


@properties
@given(paired_scores(least=1))
def test_intervals_are_mirrored_when_the_two_are_swapped(scores):
    ours, mirrored = all_intervals(*scores), all_intervals(*scores[::-1])
    for name in ("paired", "clustered", "weighted", "stratified"):
        delta, low, high = ours[name]
        assert mirrored[name] == pytest.approx((-delta, -high, -low), abs=1e-9), name


@properties
@given(paired_scores(least=1), st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(scores, random):
    baseline, candidate = scores
    order = list(range(len(baseline)))
    random.shuffle(order)
    clusters = np.arange(len(baseline)) % 4
    weights = 1.0 + clusters
    straight = (
        stats.paired_interval(baseline, candidate, weights, clusters),
        stats.stratified_interval(baseline, candidate, clusters),
    )
    shuffled = (
        stats.paired_interval(baseline[order], candidate[order], weights[order], clusters[order]),
        stats.stratified_interval(baseline[order], candidate[order], clusters[order]),
    )
    for one, two in zip(straight, shuffled, strict=True):
        assert one == pytest.approx(two, abs=1e-9)


@properties
@given(paired_scores(least=2), levels, levels)
def test_every_interval_grows_with_its_level(scores, one, two):
    narrow, wide = all_intervals(*scores, min(one, two)), all_intervals(*scores, max(one, two))
    for name in narrow:
        assert wide[name][1] <= narrow[name][1] + 1e-12, name
        assert narrow[name][2] <= wide[name][2] + 1e-12, name


@properties
@given(paired_scores(least=4))
def test_every_item_twice_in_its_cluster_tells_nothing_new(scores):
    baseline, candidate = scores
    clusters = np.arange(len(baseline)) % 4
    once = stats.paired_interval(baseline, candidate, None, clusters)
    twice = stats.paired_interval(*(np.tile(column, 2) for column in scores), None, np.tile(clusters, 2))
    assert twice == pytest.approx(once, abs=1e-9)


@properties
@given(paired_scores(least=4))
def test_every_cluster_twice_narrows_the_interval(scores):
    clusters = np.arange(len(scores[0])) % 4
    _, low, high = stats.paired_interval(*scores, None, clusters)
    doubled = (np.tile(column, 2) for column in scores)
    _, more_low, more_high = stats.paired_interval(*doubled, None, np.concatenate([clusters, clusters + 4]))
    assert more_high - more_low < high - low or high - low == 2


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "gains", "n", "wanted"),
    [(0, 0, 0, (-1, 1)), (5, 0, 5, (-1, None)), (0, 5, 5, (None, 1)), (0, 0, 1, (None, None))],
)
def test_counts_at_the_edge(losses, gains, n, wanted):
    low, high = stats.accuracy_interval(losses, gains, n)
    assert -1 <= low < high <= 1
    assert wanted[0] in (None, low)
    assert wanted[1] in (None, high)


def test_nothing_measured_says_nothing():
    for scores in ([], [0.0, 0.0]):
        zeros = np.zeros(len(scores))
        assert stats.paired_interval(scores, scores, zeros) == (0, -1, 1)
    assert stats.stratified_interval([], [], []) == (0, -1, 1)
    assert stats.average_interval([], []) == (0, -1, 1)
    assert stats.unpaired_interval(0.5, 0, 0.5, 0) == pytest.approx((-math.sqrt(0.5), math.sqrt(0.5)))


def test_one_document_of_a_perplexity_leaves_everything_possible():
    delta, low, high = stats.paired_interval([-300.0], [-310.0], [100.0])
    assert delta == pytest.approx(-0.1)
    assert (low, high) == (-math.inf, math.inf)
    assert stats.paired_standard_error([-300.0], [-310.0], [100.0]) == math.inf


def test_one_cluster_of_a_bounded_score_leaves_all_scores_possible():
    delta, low, high = stats.paired_interval([1, 1, 0], [0, 1, 0], None, ["a", "a", "a"])
    assert (delta, low, high) == (pytest.approx(-1 / 3), -1, 1)


def test_equal_documents_of_a_perplexity_are_certain():
    assert stats.paired_interval([-300.0, -200], [-300.0, -200], [100.0, 80]) == (0, 0, 0)


def test_equal_bounded_scores_follow_the_exact_bound_for_something_never_seen():
    scores = np.linspace(0.1, 0.9, 817)
    delta, low, high = stats.paired_interval(scores, scores, level=0.9)
    assert delta == 0
    assert (1 + low) ** 817 == pytest.approx(0.05)
    assert high == -low


def test_paired_counts_are_tangos():
    baseline, candidate = items(16, 6, 161, right=59)
    assert stats.paired_interval(baseline, candidate)[1:] == stats.accuracy_interval(16, 6, 161)


def test_one_stratum_is_tangos():
    baseline, candidate = items(16, 6, 161, right=59)
    one = stats.stratified_interval(baseline, candidate, np.zeros(161))
    assert one == pytest.approx(stats.paired_interval(baseline, candidate))


def test_strata_of_one_size_count_their_items_alike():
    baseline, candidate = items(16, 6, 160, right=59)
    strata = np.random.default_rng(5).permutation(np.repeat(np.arange(8), 20))
    stratified = stats.stratified_interval(baseline, candidate, strata)
    assert stratified == pytest.approx(stats.paired_interval(baseline, candidate))


def test_strata_are_weighted_equally_and_a_small_churning_one_widens():
    strata = np.repeat([0, 1], [1000, 50])
    calm, churning = items(10, 10, 1000), items(10, 10, 50)
    columns = [np.concatenate(pair) for pair in zip(calm, churning, strict=True)]
    delta, low, high = stats.stratified_interval(*columns, strata, 0.9)
    assert delta == pytest.approx(0)
    churn = math.sqrt(0.02 / 1000 + 0.4 / 50) / 2
    assert (high - low) / 2 == pytest.approx(1.645 * churn, rel=0.15)


def test_labels_may_be_numbers_with_gaps_or_names():
    baseline, candidate = np.random.default_rng(9).random((2, 40))
    numbers = np.array([7, -3, 7, 30] * 10)
    names = np.array(["x", "y", "x", "z"] * 10)
    far = numbers * 10**12
    wanted = stats.stratified_interval(baseline, candidate, names)
    assert stats.stratified_interval(baseline, candidate, numbers) == pytest.approx(wanted)
    assert stats.stratified_interval(baseline, candidate, far) == pytest.approx(wanted)
    assert stats.paired_interval(baseline, candidate, None, numbers) == pytest.approx(
        stats.paired_interval(baseline, candidate, None, names)
    )


def test_strata_of_continuous_scores_have_the_variance_within():
    random = np.random.default_rng(6)
    strata = np.repeat(np.arange(5), 20_000)
    baseline = np.full(100_000, 0.5)
    candidate = 0.5 + 0.08 * strata / 5 + random.uniform(-0.1, 0.1, 100_000)
    within = np.mean([candidate[strata == one].var(ddof=1) for one in range(5)])
    for moved, tolerance in ((3.0, 0.01), (0.0, 0.04)):  # without bounds, and in [0, 1]: one item lost all
        delta, low, high = stats.stratified_interval(baseline - moved, candidate - moved, strata, 0.95)
        assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(within / 100_000), rel=tolerance)
        assert delta == pytest.approx(0.032, abs=0.001)


def test_strata_of_one_item_are_compared_with_each_other():
    baseline, candidate = np.random.default_rng(7).random((2, 30))
    strata = stats.stratified_interval(baseline, candidate, np.arange(30))
    assert strata == pytest.approx(stats.paired_interval(baseline, candidate))
    assert stats.stratified_interval([0.5], [0.4], ["a"]) == (pytest.approx(-0.1), -1, 1)


def test_variances_add_in_the_average():
    mean, low, high = stats.average_interval([-0.01, 0.02], [0.03, 0.04], 0.95)
    assert mean == pytest.approx(0.005)
    assert (mean - low, high - mean) == pytest.approx((1.95996 * 0.025, 1.95996 * 0.025), abs=1e-5)


def test_the_average_of_one_task_is_its_own_interval():
    low, high = stats.accuracy_interval(5, 1, 60, 0.9)
    sides = stats.side_errors(-4 / 60, low, high, 0.9)
    assert stats.average_interval([-4 / 60], [sides], 0.9) == pytest.approx((-4 / 60, low, high))


def test_the_average_of_unknown_spread_leaves_all_scores_possible():
    assert stats.average_interval([-0.01, 0.0], [0.01, math.inf]) == (-0.005, -1, 1)


def test_an_average_of_log_likelihoods_has_no_ends():
    mean, low, high = stats.average_interval([-2.5, -1.5], [0.1, 0.1], bounded=False)
    assert low < mean == -2.0 < high < -1
    assert stats.average_interval([-2.0], [math.inf], bounded=False) == (-2.0, -math.inf, math.inf)


def test_a_ratio_of_one_is_the_difference():
    baseline, candidate = items(16, 6, 161, right=59)
    straight = stats.paired_interval(baseline, candidate, level=0.9)
    assert stats.paired_ratio_margin(baseline, candidate, 1.0, 0.9) == pytest.approx(straight)


def test_a_recovery_margin_is_cautious_against_the_delta_method():
    baseline, candidate = items(90, 60, 2000, right=1000)
    value, low, high = stats.paired_ratio_margin(baseline, candidate, 0.95, 0.9)
    contrast = candidate - 0.95 * baseline
    error = contrast.std(ddof=1) / math.sqrt(2000)
    assert value == pytest.approx(contrast.mean())
    assert value - 1.645 * error == pytest.approx(low, abs=0.0012)
    assert low < value - 1.645 * error
    assert high > value + 1.645 * error


def test_a_recovery_margin_of_continuous_scores_is_the_paired_interval():
    baseline, candidate = np.random.default_rng(8).random((2, 50))
    ours = stats.paired_ratio_margin(baseline, candidate, 0.9)
    assert ours == stats.paired_interval(0.9 * baseline, candidate)


def test_an_unpaired_ratio_moves_the_margin():
    low, high = stats.unpaired_interval(0.5, 1000, 0.49, 1000, 0.9, ratio=0.98)
    assert low < 0 < high
    assert (low + high) / 2 == pytest.approx(0, abs=1e-3)


def test_recovery_without_meaning_is_none():
    assert stats.recovery(0.0, 0.1) == (None, None)
    assert stats.recovery(0.25, 0.26, 0.25)[1] is None
    assert stats.recovery(0.5, 0.4) == (0.8, None)


def test_planning_at_the_edge():
    assert stats.smallest_margin(0, 0.1) == 1
    assert 0 < stats.smallest_margin(1, 1.0) <= 1
    assert stats.smallest_margin(4872, 0.0788) == pytest.approx(0.01, abs=1e-6)


def test_certain_differences_have_no_chance():
    assert stats.p_value(0.0, 0.0) == 1
    assert stats.p_value(0.1, 0.0) == 0


def test_holm_of_nothing_and_of_large_values():
    assert stats.holm([]).tolist() == []
    assert stats.holm([0.6, 0.9]).tolist() == [1, 1]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [(-1, 0, 5), (4, 2, 5), (0, math.nan, 5)])
def test_counts_that_do_not_fit_are_refused(table):
    with pytest.raises(ValueError, match="do not fit"):
        stats.tango_interval(*table)


@pytest.mark.parametrize("level", [0, 1, 1.5, math.nan])
def test_a_level_that_is_none_is_refused(level):
    calls = (
        lambda: stats.tango_interval(1, 1, 5, level),
        lambda: stats.paired_interval([0.5, 0.4], [0.4, 0.2], level=level),
        lambda: stats.paired_interval([], [], level=level),
        lambda: stats.stratified_interval([], [], [], level),
        lambda: stats.average_interval([], [], level),
        lambda: stats.proportion_interval(1, 5, level),
        lambda: stats.required_n(0.1, 0.1, level),
    )
    for call in calls:
        with pytest.raises(ValueError, match="not between 0 and 1"):
            call()


def test_values_that_are_no_numbers_are_refused():
    for call in (stats.paired_interval, stats.paired_standard_error):
        with pytest.raises(QevalError, match="not a number"):
            call([0.5, math.nan], [0.5, 0.5])
    with pytest.raises(QevalError, match="not a number"):
        stats.holm([0.1, math.nan])


@pytest.mark.parametrize("score", [53.07, -0.1, math.nan])
def test_published_scores_in_percent_are_refused(score):
    with pytest.raises(QevalError, match="fractions"):
        stats.unpaired_interval(score, 100, 0.5, 100)


def test_columns_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="no pairs"):
        stats.paired_interval([1, 0], [1])
    with pytest.raises(ValueError, match="labels"):
        stats.stratified_interval([1, 0], [1, 0], ["a"])
    with pytest.raises(ValueError, match="negative"):
        stats.paired_interval([1, 0], [1, 0], [1, -1])


@pytest.mark.parametrize(("discordance", "margin"), [(-0.1, 0.1), (1.1, 0.1), (0.1, 0), (0.1, 1)])
def test_plans_without_sense_are_refused(discordance, margin):
    with pytest.raises(ValueError, match="no fraction"):
        stats.required_n(discordance, margin)
