"""Shards: the same numbers whoever computes which, and whatever memory ran out before."""

import numpy as np
import pytest
from architectures import VOCABULARY, tiny_model

from qeval.score.engine import shards
from qeval.score.engine.engine import PATHS, open_engine
from qeval.score.engine.requests import TokenRequest

torch = pytest.mark.torch


@pytest.fixture
def requests(requests):
    """As many as make several shards."""
    rng = np.random.default_rng(2)
    turned = [rng.permutation(VOCABULARY) for _ in range(8)]
    return [TokenRequest(of[one.tokens].astype(np.int32), one.n_scored) for of in turned for one in requests]


def passes(count):
    return [shards.Pass(np.array([2 * k + 1, 2 * k]), lambda: None, 7, alone=False) for k in range(count)]


def test_shards_are_runs_of_passes_and_lose_none():
    ten = passes(10)
    found = list(shards.cut(iter(ten), 4))
    assert [len(shard) for shard in found] == [4, 4, 2]
    assert [one for shard in found for one in shard] == ten
    assert shards.members(found[1]).tolist() == list(range(8, 16))
    assert list(shards.cut([], 4)) == []


def test_a_shards_name_is_that_of_what_it_asks():
    def request(tokens, scored=1):
        return TokenRequest(np.array(tokens, np.int32), scored)

    one, two = request([5, 6, 7]), request([5, 6, 8])
    name = shards.name([one, two])
    assert shards.name([two, one]) == name
    others = [[one], [one, one], [one, request([5, 6, 8], 2)], [request([5, 6]), request([7, 5, 6, 8])]]
    assert len({name, *map(shards.name, others)}) == 5


def engine_for(path, requests, **more):
    """An engine that cuts these requests into several shards."""
    sizes = {"budget": 64, "batch_size": 2}
    return open_engine(tiny_model("llama"), path, sample=requests, **{**sizes, **more})


def shards_of(engine, requests):
    return [shards.members(one) for one in shards.cut(engine.passes(requests, engine.size()))]


@torch
@pytest.mark.parametrize("path", PATHS)
def test_a_worker_that_computes_one_shard_gives_the_numbers_of_one_that_computes_all(path, requests):
    engine = engine_for(path, requests)
    everything, cut = dict(engine.score(requests)), shards_of(engine, requests)
    assert len(cut) > 2
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(requests)))
    for members in cut[:3]:
        wanted = np.isin(np.arange(len(requests)), members)
        alone = dict(engine_for(path, requests).score(requests, wanted))
        assert alone == {index: everything[index] for index in members.tolist()}


@torch
@pytest.mark.parametrize("path", ["tree", "head"])
def test_where_memory_runs_out_only_that_shard_is_fed_otherwise_and_as_a_whole(path, requests, monkeypatch):
    import torch

    engine = engine_for(path, requests, budget=200, batch_size=8)
    whole, cut = dict(engine.score(requests)), shards_of(engine, requests)
    stuck = cut[1]
    chunks = [one for one in list(shards.cut(engine.passes(requests, engine.size())))[1] if not one.alone]
    room = {"tree": max(one.tokens for one in chunks) - 1, "head": 4}[path]
    run, short = engine.lm.hidden, {"of": 0}

    def hidden(tokens, **more):
        size = tokens.numel() if path == "tree" else len(tokens)
        if short["of"] and size > short["of"]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(tokens, **more)

    monkeypatch.setattr(engine.lm, "hidden", hidden)
    told, seen = [], []
    engine.on_smaller = lambda name, size, members: told.append((name, size, members.tolist(), list(seen)))
    answers = {}
    for members in cut:
        short["of"] = room if members is stuck else 0
        wanted = np.isin(np.arange(len(requests)), members)
        for index, answer in engine.score(requests, wanted):
            seen.append(index)
            answers[index] = answer
    assert {(name, tuple(members)) for name, _, members, _ in told} == {
        (shards.name([requests[i] for i in stuck]), tuple(stuck.tolist()))
    }
    assert not set(told[-1][3]) & set(stuck.tolist())
    for index, answer in whole.items():
        if index not in stuck:
            assert answers[index] == answer
        else:
            assert answers[index].loglikelihood == pytest.approx(answer.loglikelihood, abs=1e-4)
    later = engine_for(path, requests, budget=200, batch_size=8, smaller=engine.smaller)
    assert dict(later.score(requests)) == answers


@torch
def test_a_rung_that_was_settled_is_taken_and_none_above_it(requests):
    model = tiny_model("llama")
    first = open_engine(model, sample=requests)
    assert open_engine(model, sample=requests, rung=first.rung).rung == first.rung
    below = open_engine(model, sample=requests, rung="Shared KV cache")
    assert (below.path, below.rung) == ("kv", "Shared KV cache")
    assert "refused" not in below.note


@torch
def test_shards_feed_no_token_more_than_the_passes(requests):
    rng = np.random.default_rng(3)
    many = [
        TokenRequest(np.r_[requests[0].tokens[:10], rng.integers(3, VOCABULARY, 9)].astype(np.int32), 2)
        for _ in range(60)
    ]
    engine = engine_for("tree", many)
    list(engine.score(many))
    assert engine.tokens_fed == sum(one.tokens for one in engine.passes(many, engine.budget))
