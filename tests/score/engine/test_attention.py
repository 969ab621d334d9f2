"""The layouts of the tree's mask: node i sees node j exactly when j <= i < end[j], and in reach."""

import warnings

import numpy as np
import pytest
from architectures import VOCABULARY

from qeval.score.engine import tree
from qeval.score.engine.dense import Dense
from qeval.score.engine.flex import BLOCK, Flex, blocks
from qeval.score.engine.reach import Reach
from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.tiles import TILE, tile

pytestmark = pytest.mark.torch
REACHES = [Reach(), Reach(window=5), Reach(window=200), Reach(block=16)]


@pytest.fixture(scope="module")
def chunk():
    """Some 700 nodes: long shared beginnings, branches of every length."""
    rng = np.random.default_rng(3)
    shots, made = rng.integers(3, VOCABULARY, 180), []
    for _ in range(12):
        context = np.concatenate(
            [shots[: rng.integers(2, 180)], rng.integers(3, VOCABULARY, rng.integers(2, 60))]
        )
        made += [
            TokenRequest(np.concatenate([context, rng.integers(3, VOCABULARY, 5)]).astype(np.int32), 3)
            for _ in range(3)
        ]
    return tree.pack(made, 4096).chunk(0)


def seen(chunk, reach):
    """The mask by its definition, (n, n)."""
    n = len(chunk.tokens)
    return np.array([[_sees(chunk, reach, i, j) for j in range(n)] for i in range(n)])


def _sees(chunk, reach, i, j):
    if not j <= i < chunk.end[j]:
        return False
    a, b = int(chunk.positions[i]), int(chunk.positions[j])
    if reach.window is not None and a - b >= reach.window:
        return False
    return reach.block is None or a // reach.block == b // reach.block


@pytest.mark.parametrize("reach", REACHES)
def test_the_dense_mask(chunk, reach):
    import torch

    made = Dense({"all": reach}, torch.device("cpu"), torch.float32, boolean=True).masks(chunk)
    assert np.array_equal(made[0, 0].numpy(), seen(chunk, reach))
    added = Dense({"all": reach}, torch.device("cpu"), torch.float32, boolean=False).masks(chunk)
    assert np.array_equal((added[0, 0] == 0).numpy(), seen(chunk, reach))


@pytest.mark.parametrize("reach", REACHES)
def test_tiles(chunk, reach):
    want = seen(chunk, reach)
    for begin in range(0, len(chunk.tokens), TILE):
        stop = min(begin + TILE, len(chunk.tokens))
        keys, mask = tile(chunk, reach, begin, stop)
        whole = np.zeros((stop - begin, len(chunk.tokens)), bool)
        whole[:, keys] = mask
        assert np.array_equal(whole, want[begin:stop])
        if reach == Reach():
            assert len(keys) <= chunk.positions[begin] + stop - begin


@pytest.mark.parametrize("reach", REACHES)
def test_blocks_cover_what_is_seen_and_full_ones_are_full(chunk, reach):
    padded = tree.padded(chunk, 1024)
    want = seen(padded, reach).reshape(8, BLOCK, 8, BLOCK)
    partial, full = blocks(padded, reach)
    assert not (partial & full).any()
    assert (partial | full)[want.any((1, 3))].all()
    assert want.all((1, 3))[full].all()
    if reach == Reach():
        off = ~np.eye(8, dtype=bool)
        assert np.array_equal((partial | full)[off], want.any((1, 3))[off])
        assert np.array_equal(full[off], want.all((1, 3))[off])


@pytest.mark.parametrize("reach", REACHES)
def test_flex_attention_on_the_block_mask_is_attention_under_the_dense_mask(chunk, reach):
    import torch
    from torch.nn.attention.flex_attention import flex_attention
    from torch.nn.functional import scaled_dot_product_attention

    flex = Flex({"all": reach}, torch.device("cpu"))
    assert flex.padded(len(chunk.tokens), 1000) == 1024
    assert flex.padded(1100, 1000) == 2048
    padded = tree.padded(chunk, 1024)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 1024, 16) for _ in range(3))
    with warnings.catch_warnings(action="ignore"):  # that it is slow when not compiled, said once
        got = flex_attention(q, k, v, block_mask=flex.masks(padded))
    mask = torch.from_numpy(seen(padded, reach))[None, None]
    assert torch.allclose(got, scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-5)


def test_flex_attention_reads_every_chunk_from_the_same_buffers(chunk):
    import torch

    flex = Flex({"all": Reach()}, torch.device("cpu"))
    first = flex.masks(tree.padded(chunk, 1024))
    end = flex.buffers[1024][0]
    second = flex.masks(
        tree.padded(tree.pack([TokenRequest(np.arange(5, dtype=np.int32), 2)], 9).chunk(0), 1024)
    )
    assert first.mask_mod is second.mask_mod
    assert flex.buffers[1024][0] is end
    assert end[:6].tolist() == [4, 4, 4, 4, 5, 6]


def test_padding_sees_only_itself(chunk):
    padded = tree.padded(chunk, 1024)
    n = len(chunk.tokens)
    mask = seen(padded, Reach())
    assert np.array_equal(mask[:n, :n], seen(chunk, Reach()))
    assert np.array_equal(mask[n:], np.eye(1024, dtype=bool)[n:])
