"""Claims of loss and gain over all that a report looks at."""

import numpy as np
import pytest

from qeval.compare import stats


def test_claims_have_the_sign_of_their_difference():
    p_values = [0.001, 0.5, None, 0.002, 0.04]
    assert stats.claims(p_values, [-0.1, -0.2, -0.3, 0.1, -0.1]) == (-1, 0, 0, 1, 0)
    assert stats.claims([0.04], [-0.1]) == (-1,)
    assert stats.claims([None], [-0.1]) == (0,)
    assert stats.claims([], []) == ()


def test_claims_reject_at_the_boundary():
    found = stats.claims([0.50, 0.01, 0.001, 0.69, 0.02, 0.05, 0.0025], [1.0] * 7)
    assert found == (0, 1, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("shift", [-0.04, 0.04])
@pytest.mark.parametrize("moved", [0.0, -3.0])
def test_a_p_value_is_where_the_interval_touches_no_difference(shift, moved):
    random = np.random.default_rng(1)
    baseline = random.uniform(0.4, 0.6, 400) + moved
    columns = baseline, baseline + random.uniform(shift - 0.3, shift + 0.3, 400), None
    for clusters in (None, np.arange(400) // 4):
        p = stats.paired_p_value(*columns, clusters)
        assert 0 < p < 0.4
        _, low, high = stats.paired_interval(*columns, clusters, 1 - p)
        assert (high if shift < 0 else low) == pytest.approx(0, abs=2e-6)


def test_a_p_value_of_nothing_is_one():
    assert stats.paired_p_value([], []) == 1
    assert stats.paired_p_value([0.5, 0.4], [0.5, 0.4]) == 1
    assert stats.paired_p_value([0.5], [0.1]) == 1
    assert stats.paired_p_value([0.5] * 30, [0.1] * 30, None, [0, 1] * 15) == 1


def test_ten_documents_are_no_proof_beyond_what_they_can_show():
    scores = np.full(10, 0.5)
    p = stats.paired_p_value(scores, scores - 0.3)
    assert p == pytest.approx(2 * (1 / 1.3) ** 10, rel=0.02)
