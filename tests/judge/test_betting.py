"""A bet: certain only when it may be, the same however the items come in, and quick when it is."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qeval.base.errors import QevalError
from qeval.judge import betting


def broken_at(differences, margin, confidence=0.95):
    """After how many of the (n,) differences, in their order, it is certain that their mean is below
    -margin; None if it never is. Raises as `start` and `update` do."""
    return betting.update(betting.start(margin, confidence), differences).broken_at


def capital(state):
    """What the gambler's 1 has become: evidence against the rule, as an e-value."""
    return math.exp(min(float(np.logaddexp.reduce(state.capitals)), 700.0)) / betting._FRACTIONS


properties = settings(max_examples=min(60, settings.default.max_examples))
differences = st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.5, 1.0]), max_size=60)


def capital_by_hand(items, margin):
    """Twelve gamblers, one item after the other."""
    stakes = [0.01 * 95 ** (i / 11) / (1 + margin) for i in range(12)]
    capitals = [1.0] * 12
    for item in items:
        capitals = [c * (1 - s * (item + margin)) for c, s in zip(capitals, stakes, strict=True)]
    return sum(capitals) / 12


@properties
@given(differences, st.sampled_from([0.0, 0.01, 0.3]))
def test_the_capital_is_that_of_gamblers_one_by_one(items, margin):
    state = betting.update(betting.start(margin), items)
    assert capital(state) == pytest.approx(capital_by_hand(items, margin), rel=1e-9)
    assert state.n == len(items)


@properties
@given(differences, st.lists(st.integers(0, 60), max_size=5))
def test_batches_do_not_matter(items, cuts):
    edges = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    state = betting.start(0.01, 0.8)
    for first, last in itertools.pairwise(edges):
        state = betting.update(state, items[first:last])
    whole = betting.update(betting.start(0.01, 0.8), items)
    assert state.broken_at == whole.broken_at
    assert state.capitals == pytest.approx(whole.capitals)


@properties
@given(differences, differences)
def test_once_broken_it_stays_so(items, more):
    before = betting.update(betting.start(0.0, 0.6), [-1.0] * 8 + items)
    assert before.broken_at is not None
    assert before.broken_at <= 8
    assert betting.update(before, more).broken_at == before.broken_at


@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("confidence", [0.6])
def test_every_sequence_of_a_harmless_loss_enumerated(margin, confidence):
    """Losses are exactly as likely as allowed: all 3^7 sequences, with their probabilities."""
    chances = {-1.0: margin + 0.1, 1.0: 0.1, 0.0: 0.8 - margin}
    broken = mean = 0.0
    for items in itertools.product(chances, repeat=7):
        chance = math.prod(chances[item] for item in items)
        state = betting.update(betting.start(margin, confidence), items)
        broken += chance * (state.broken_at is not None)
        mean += chance * capital(state)
    assert mean == pytest.approx(1)
    assert broken <= 1 - confidence


def test_a_clearly_broken_rule_is_found_early_and_a_kept_one_never():
    random = np.random.default_rng(1)
    worse = random.choice([-1.0, 1.0, 0.0], 10_000, p=[0.14, 0.04, 0.82])
    equal = random.choice([-1.0, 1.0, 0.0], 10_000, p=[0.06, 0.06, 0.88])
    found = broken_at(worse, 0.02)
    assert found is not None
    assert found < 500
    assert broken_at(equal, 0.02) is None


def test_the_first_item_at_which_it_is_certain_is_named():
    items = [0.0, -1, -1, -1, -1, -1, -1, -1, -1, -1]
    found = broken_at(items, 0.01)
    assert found is not None
    assert broken_at(items[:found], 0.01) == found
    assert broken_at(items[: found - 1], 0.01) is None


def test_flips_are_losses_of_agreement():
    flips = np.random.default_rng(2).random(3000) < 0.12
    assert broken_at(-flips.astype(float), 0.05) is not None
    assert broken_at(-flips.astype(float), 0.2) is None


def test_a_hopeless_variant_does_not_overflow():
    state = betting.update(betting.start(0.01), [-1.0] * 5000)
    assert capital(state) > 1e300


def test_nothing_changes_nothing():
    state = betting.start(0.01)
    assert betting.update(state, []) == state
    assert broken_at([], 0.01) is None
    assert capital(state) == pytest.approx(1)


# --- texts --------------------------------------------------------------------------------------


@properties
@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(-1, 1)), max_size=40), st.sampled_from([0.0, 0.02, 0.3])
)
def test_the_capital_on_texts_is_that_of_gamblers_one_by_one(texts, margin):
    sizes = [size for size, _ in texts]
    sums = [size * mean for size, mean in texts]
    state = betting.update(betting.start(margin, largest=4), sums, sizes)
    excess = [(total + margin * size) / 4 - margin for total, size in zip(sums, sizes, strict=True)]
    assert capital(state) == pytest.approx(capital_by_hand(excess, margin), rel=1e-9)
    assert state.n == sum(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
def test_every_sequence_of_harmless_texts_enumerated(margin):
    """Texts of one or three items that all change as one; losses are exactly as likely as allowed."""
    chances = {
        (size, change): share * chance
        for size, share in ((1, 0.5), (3, 0.5))
        for change, chance in ((-1.0, margin + 0.1), (1.0, 0.1), (0.0, 0.8 - margin))
    }
    broken = mean = 0.0
    for texts in itertools.product(chances, repeat=5):
        chance = math.prod(chances[text] for text in texts)
        state = betting.start(margin, 0.6, largest=3)
        state = betting.update(state, [size * change for size, change in texts], [size for size, _ in texts])
        broken += chance * (state.broken_at is not None)
        mean += chance * capital(state)
    assert mean == pytest.approx(1)
    assert broken <= 0.4


def test_the_end_is_counted_in_items():
    state = betting.update(betting.start(0.01, largest=5), [-5.0] * 60, [5] * 60)
    assert state.n == 300
    assert state.broken_at % 5 == 0
    assert state.broken_at == 5 * broken_at([-1.0] * 60, 0.01)


def test_items_that_change_as_one_would_break_a_bet_on_items_and_not_one_on_texts():
    random = np.random.default_rng(3)
    runs, texts, size, margin = 600, 60, 10, 0.1
    on_items = on_texts = 0
    for _ in range(runs):
        lost = -(random.random(texts) < margin).astype(float)
        on_items += broken_at(np.repeat(lost, size), margin) is not None
        bet = betting.update(betting.start(margin, largest=size), size * lost, [size] * texts)
        on_texts += bet.broken_at is not None
    assert on_items / runs > 0.15
    assert on_texts / runs <= 0.05


@pytest.mark.parametrize("sizes", [[0], [3], [1, 1]])
def test_texts_of_other_sizes_than_promised_are_refused(sizes):
    with pytest.raises(ValueError, match="units of 1 to 2"):
        betting.update(betting.start(0.01, largest=2), [0.0], sizes)
    with pytest.raises(ValueError, match="units of 0"):
        betting.start(0.01, largest=0)


@pytest.mark.parametrize("items", [[0.0, 1.5], [math.nan], [-300.0]])
def test_differences_that_have_no_bound_are_refused(items):
    with pytest.raises(QevalError, match="outside"):
        broken_at(items, 0.01)


@pytest.mark.parametrize(("margin", "confidence"), [(-0.1, 0.95), (1.0, 0.95), (0.1, 0.0), (0.1, 1.0)])
def test_bets_without_sense_are_refused(margin, confidence):
    with pytest.raises(ValueError, match="no fraction"):
        betting.start(margin, confidence)
