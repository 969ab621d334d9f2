"""Which requests may share a pass."""

from types import SimpleNamespace

import numpy as np
import pytest

from qeval.score.engine.body import UnsupportedError
from qeval.score.engine.reach import apart, chosen, reaches
from qeval.score.engine.requests import TokenRequest

REQUESTS = [TokenRequest(np.arange(n, dtype=np.int32), 1) for n in (5, 30, 17, 18, 40)]


def parts(**config):
    return [part.tolist() for part in apart(SimpleNamespace(**config), REQUESTS)]


def test_all_requests_share_where_nothing_speaks_against_it():
    assert parts() == [[0, 1, 2, 3, 4]]
    assert chosen(SimpleNamespace(index_topk=None)) is None


@pytest.mark.parametrize("name", ["index_topk", "indexer_budget", "keep_window_size"])
def test_a_request_longer_than_what_attention_chooses_goes_alone(name):
    assert parts(**{name: 16}) == [[0, 2], [1], [3], [4]]  # one token fewer is fed than a request has
    assert parts(**{name: 2048}) == [[0, 1, 2, 3, 4]]


def test_blocks_are_counted_in_tokens():
    assert chosen(SimpleNamespace(index_topk_blocks=2, index_block_size=8)) == 16


def test_longrope_is_parted_too_and_no_part_is_empty():
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 20}
    assert parts(rope_parameters=rope) == [[0, 2, 3], [1, 4]]
    assert parts(rope_parameters=rope, index_topk=16) == [[0, 2], [1], [3], [4]]


def test_attention_that_chooses_takes_no_tree():
    with pytest.raises(UnsupportedError, match="chooses the tokens"):
        reaches(SimpleNamespace(index_topk=2048, layer_types=["full_attention"]))
