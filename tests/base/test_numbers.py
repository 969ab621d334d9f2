"""Numbers in words: rounding keeps every decision visible."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.base import numbers


@pytest.mark.parametrize(
    ("fraction", "limits", "text"),
    [
        (-0.0204, (-0.02,), "-2.04"),
        (-0.020004, (-0.02,), "-2.0004"),
        (-0.02, (-0.02,), "-2.00"),
        (-0.00004, (), "-0.004"),
        (0.0, (), "0.00"),
        (0.0123, (), "+1.23"),
        (math.nan, (), "-"),
        (-math.inf, (), "-inf"),
    ],
)
def test_points_keep_their_side_of_a_limit(fraction, limits, text):
    assert numbers.signed_points(fraction, limits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.6931, "+0.69"),
        (-0.6931, "-0.69"),
        (10.0, "+10.00"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (0.004, "0.00"),
        (-0.004, "0.00"),
        (math.inf, "+inf"),
        (-math.inf, "-inf"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_a_signed_number_reads_back_and_no_zero_has_a_sign(value, text):
    assert numbers.signed(value) == text


finite = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 7))


@given(finite, finite)
def test_no_rounding_moves_a_difference_across_a_limit_or_zero(fraction, limit):
    shown = float(numbers.signed_points(fraction, (limit,)))
    for bound in (0.0, 100 * limit):
        if abs(100 * fraction - bound) > 1e-7:
            assert (shown > bound) == (100 * fraction > bound)
            assert (shown < bound) == (100 * fraction < bound)


@given(finite, finite)
def test_no_rounding_moves_a_ratio_across_a_limit_or_one(delta, limit):
    shown = float(numbers.ratio(delta, (limit,)).removeprefix("x"))
    for bound in (0.0, limit):
        if abs(delta - bound) > 1e-6:
            assert (shown < math.exp(-bound)) == (delta > bound)


def test_ratio_turns_the_interval_round():
    assert numbers.interval_ratio(-0.02, -0.01) == "x1.010 to x1.020"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.99997, "99.997%"), (1.0, "100.0%"), (0.987, "98.7%"), (1.0123, "101.2%"), (None, "-")],
)
def test_a_share_below_one_never_shows_as_all(share, text):
    assert numbers.percent(share) == text


def test_a_share_below_a_limit_never_shows_as_the_limit():
    assert numbers.percent(0.59996, 0, (0.6,)) == "59.996%"
    assert numbers.percent(0.55, 0, (0.6,)) == "55%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (31.234, "31.2"),
        (0.01234, "0.0123"),
        (123456.0, "123456"),
        (2.5e9, "2.50e+09"),
        (None, "-"),
    ],
)
def test_measured_quantities_have_significant_digits(value, text):
    assert numbers.significant(value) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "-"), (512, "512 B"), (13_476_831_232, "12.6 GiB"), (2**50, "1024 TiB")]
)
def test_sizes_are_in_the_unit_that_reads_best(size, text):
    assert numbers.size(size) == text


def test_counts_are_plain_digits():
    assert numbers.count(14042) == "14042"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (numbers.NONE, "\u2013"),
        (numbers.count(14042), "14\u202f042"),
        (numbers.count(1172), "1172"),
        (numbers.signed_points(-0.0123), "\u22121.23"),
        (numbers.interval_points(-0.0123, 0.02), "\u22121.23 to +2.00"),
        (numbers.interval_ratio(-0.02, -0.01), "\u00d71.010 to \u00d71.020"),
        (numbers.plain(-math.inf), "\u2212\u221e"),
        (numbers.significant(2.5e-9), "2.50e-09"),
    ],
)
def test_a_page_shows_typographic_signs(text, shown):
    assert numbers.typographic(text) == shown


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 9))
def test_numbers_in_words_are_ascii_that_float_reads(value, digits):
    for text in (numbers.plain(value, digits), numbers.significant(value), numbers.points(value)):
        assert text.isascii()
        float(text)


def test_perplexities_come_back_from_log_likelihoods():
    assert numbers.perplexity(-math.log(8.7071)) == "8.707"
    assert numbers.perplexity(-1000.0) == "inf"


def test_a_half_is_rounded_alike_however_it_was_summed_up():
    half = 100 * (19 / 800)
    others = (100 * (0.7375 - 0.76125), -100 * sum([1 / 800] * 19), -half)
    assert len({float(one) for one in others}) > 1
    assert {numbers.signed(one) for one in others} == {"-2.38"}


@pytest.mark.parametrize(
    ("confidence", "told"),
    [(0.9, "90%"), (0.95, "95%"), (0.975, "97.5%"), (2 * 0.95 - 1, "90%"), (1, "100%")],
)
def test_a_confidence_as_people_name_it(confidence, told):
    assert numbers.level(confidence) == told


@pytest.mark.parametrize("confidence", [1 - 1e-6, 1 - 1e-9, 1 - 1e-13, 0.9999999999999999])
def test_what_is_not_certain_is_never_100_per_cent(confidence):
    assert numbers.level(confidence).startswith("99.99")
    assert float(numbers.level(confidence).rstrip("%")) < 100
