"""Claims of loss and gain over all that a report looks at."""

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
