"""Which requests a path is checked by: those at which it could go wrong, of all tasks."""

import numpy as np
import pytest
from architectures import VOCABULARY, tiny_model

from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.sample import Shape, choose, proved, shape, windows


def request(length, scored=2, start=(), seed=0):
    rng = np.random.default_rng([seed, length])
    tokens = np.r_[np.array(start, int), rng.integers(3, VOCABULARY, length - len(start))]
    return TokenRequest(tokens.astype(np.int32), scored)


def lengths(requests):
    return [len(one.tokens) for one in requests]


SHORT = [request(n) for n in range(20, 60)]
CHOICES = [request(90, start=range(4, 92), seed=seed) for seed in range(5)]
SHARED = [request(400, start=range(4, 402), seed=seed) for seed in range(2)]
ALL = [*SHORT, *CHOICES, *SHARED, request(700), request(900)]


def test_the_farthest_of_every_kind_comes_along_whatever_is_first():
    picked, few = choose(ALL, 200)
    assert sum(lengths(picked[: few - 9])) <= 200
    far = sorted(lengths(picked[few:]))
    assert far == [90, 90, 90, 400, 400, 900]
    assert shape(picked).longest == shape(ALL).longest
    assert shape(picked).shared == shape(ALL).shared == 398


def test_a_request_just_beyond_each_window_comes_along():
    picked, few = choose(ALL, 200, [70, 600, 5000])
    assert {90, 700, 900} <= set(lengths(picked[few:]))


def test_what_is_too_long_to_check_is_left_out():
    picked, _ = choose(ALL, 200, [600], longest=500)
    assert max(lengths(picked)) == 400


def test_nothing_is_chosen_of_nothing():
    assert choose([], 200) == ([], 0)
    assert shape([]) == Shape()


def test_a_shape_lies_within_another_only_if_nothing_goes_further():
    small, large = shape(SHORT), shape(ALL)
    assert (small.longest, small.shared, small.branches) == (59, 0, 1)
    assert (large.longest, large.shared, large.branches) == (900, 398, 5)
    assert small.within(large)
    assert not large.within(small)
    assert shape(ALL, longest=500).longest == 400
    assert small.and_(shape(CHOICES)) == Shape(90, 88, 5)
    assert not Shape(10, 5, 2).within(Shape(10, 4, 2))
    assert not Shape(10, 4, 3).within(Shape(10, 4, 2))


def test_what_is_chosen_stands_for_the_whole_sample():
    prose = [request(100 + n, scored=99 + n, start=[1]) for n in range(24)]
    sample = [*ALL, *prose]
    picked, _ = choose(sample, 200)
    assert shape(picked).branches < shape(sample).branches == 24
    assert proved(picked, sample) == shape(sample)


def test_requests_stand_for_those_alone_that_share_their_context():
    others = [request(50, start=range(7, 55), seed=seed) for seed in range(12)]
    assert proved(CHOICES[:3], [*CHOICES, *others]) == Shape(90, 88, 5)
    assert proved(CHOICES[:1], CHOICES) == Shape(90, 0, 1)
    assert proved(CHOICES[:3], others) == Shape(90, 88, 3)
    assert proved([], CHOICES) == Shape()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("architecture", "found"), [("gpt_neo", {7, 128}), ("mistral", {7}), ("gemma2", {7}), ("llama", set())]
)
def test_windows_are_found_in_numbers_and_buffers_of_any_name(architecture, found):
    assert set(windows(tiny_model(architecture))) == found
