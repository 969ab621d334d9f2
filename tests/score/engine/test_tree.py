"""The token tree: complete paths, no strangers, few repeated tokens, the same packing for any input order."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qeval.score.engine import tree
from qeval.score.engine.requests import TokenRequest


def fed(packing):
    """Tokens fed by all chunks: the trie's nodes plus the prefixes repeated at the cuts."""
    return int(packing.sizes.sum())


def request(tokens, n_scored=1):
    return TokenRequest(np.array(tokens, np.int32), n_scored)


@st.composite
def token_requests(draw):
    """Few distinct tokens, so that beginnings are often shared; some sequences are repeated."""
    token = st.integers(0, 2) | st.just(2**31 - 1)
    sequences = draw(st.lists(st.lists(token, min_size=2, max_size=12), min_size=1, max_size=14))
    sequences += draw(st.lists(st.sampled_from(sequences), max_size=4))
    return [request(s, draw(st.integers(1, len(s) - 1))) for s in sequences]


budgets = st.integers(1, 40)
overheads = st.sampled_from([0, 1, 64])


def ancestors(chunk, node):
    """What the mask lets a node see."""
    return [j for j in range(len(chunk.tokens)) if j <= node < chunk.end[j]]


def everything(packing):
    """All that a packing holds, with requests named by what they are and not by their place in the input."""
    out = []
    for c in range(len(packing)):
        chunk = packing.chunk(c)
        named = [(packing.requests[i].tokens.tolist(), packing.requests[i].n_scored) for i in chunk.requests]
        arrays = [
            getattr(chunk, f).tolist() for f in ("tokens", "positions", "end", "rows", "picks", "targets")
        ]
        out.append((arrays, named))
    return out


@given(token_requests(), budgets, overheads)
def test_a_request_sees_its_own_tokens_in_order_and_no_stranger(requests, budget, overhead):
    packing = tree.pack(requests, budget, overhead)
    for c in range(len(packing)):
        chunk = packing.chunk(c)
        for k, i in enumerate(chunk.requests):
            last = chunk.rows[chunk.picks[chunk.offsets[k + 1] - 1]]
            path = ancestors(chunk, last)
            assert chunk.tokens[path].tolist() == requests[i].tokens[:-1].tolist()
            assert chunk.positions[path].tolist() == list(range(len(path)))


@given(token_requests(), budgets, overheads)
def test_every_request_is_scored_once_at_the_nodes_before_its_targets(requests, budget, overhead):
    packing = tree.pack(requests, budget, overhead)
    seen = []
    for c in range(len(packing)):
        chunk = packing.chunk(c)
        assert chunk.rows.tolist() == sorted(set(chunk.rows.tolist()))
        for k, i in enumerate(chunk.requests):
            part = slice(chunk.offsets[k], chunk.offsets[k + 1])
            n = requests[i].n_scored
            assert chunk.targets[part].tolist() == requests[i].tokens[-n:].tolist()
            assert chunk.positions[chunk.rows[chunk.picks[part]]].tolist() == list(
                range(len(requests[i].tokens) - 1 - n, len(requests[i].tokens) - 1)
            )
            seen.append(int(i))
    assert sorted(seen) == list(range(len(requests)))


@given(token_requests(), budgets, overheads)
def test_fed_tokens_are_the_trie_plus_repeated_prefixes(requests, budget, overhead):
    packing = tree.pack(requests, budget, overhead)
    trie = {tuple(r.tokens[:k].tolist()) for r in requests for k in range(1, len(r.tokens))}
    assert packing.n_trie == len(trie)
    repeated = int(packing.shared[packing.cuts[1:-1]].sum())
    assert fed(packing) == len(trie) + repeated
    assert [len(packing.chunk(c).tokens) for c in range(len(packing))] == packing.sizes.tolist()


@given(token_requests(), budgets, overheads)
def test_a_chunk_exceeds_the_budget_only_for_a_longer_path(requests, budget, overhead):
    packing = tree.pack(requests, budget, overhead)
    for c in range(len(packing)):
        longest = max(len(requests[i].tokens) - 1 for i in packing.members(c))
        assert packing.sizes[c] <= max(budget, longest)


@given(token_requests(), budgets, overheads, st.randoms(use_true_random=False))
def test_any_input_order_gives_the_same_plan(requests, budget, overhead, random):
    shuffled = list(requests)
    random.shuffle(shuffled)
    assert everything(tree.pack(requests, budget, overhead)) == everything(
        tree.pack(shuffled, budget, overhead)
    )


@given(token_requests(), budgets, overheads)
@settings(max_examples=min(60, settings.default.max_examples))
def test_no_other_cutting_of_the_leaves_is_cheaper(requests, budget, overhead):
    packing = tree.pack(requests, budget, overhead)
    lengths = np.array([len(requests[i].tokens) - 1 for i in packing.order])

    def size(a, k):
        new = lengths[a:k] - packing.shared[a:k]
        return int(new.sum() + packing.shared[a])

    best = [0] + [10**9] * len(requests)
    for k in range(1, len(requests) + 1):
        for a in range(k):
            if size(a, k) <= budget or a == k - 1:
                best[k] = min(best[k], best[a] + size(a, k) + overhead)
    assert fed(packing) + overhead * len(packing) <= best[-1]


def test_choices_with_one_token_share_every_node():
    packing = tree.pack([request([5, 6, 7, choice]) for choice in range(4)], 100)
    assert fed(packing) == 3
    chunk = packing.chunk(0)
    assert chunk.rows.tolist() == [2]
    assert chunk.targets.tolist() == [0, 1, 2, 3]


def test_a_long_path_shared_by_several_requests_is_fed_once_though_it_exceeds_the_budget():
    packing = tree.pack([request([*range(50), choice]) for choice in range(4)], 10)
    assert fed(packing) == 50


def test_no_requests_make_no_chunks():
    packing = tree.pack([], 10)
    assert (len(packing), fed(packing), packing.n_trie) == (0, 0, 0)


@pytest.mark.slow
def test_a_leaderboard_suite_is_planned_in_seconds():
    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 50000, 400).astype(np.int32) for _ in range(60)]
    requests = []
    for _ in range(107_000 // 4):
        body = np.concatenate([shots[rng.integers(60)], rng.integers(0, 50000, 60).astype(np.int32)])
        requests += [
            TokenRequest(np.concatenate([body, rng.integers(0, 50000, 12).astype(np.int32)]), 12)
            for _ in range(4)
        ]
    began = time.process_time()
    packing = tree.pack(requests, 8192, 8192)
    for c in range(len(packing)):
        packing.chunk(c)
    assert time.process_time() - began < 30
    assert fed(packing) < 1.05 * packing.n_trie
