"""Shards shared out: read or scored, by one worker or another, the answers are those of one that does all."""

from __future__ import annotations

import os

import numpy as np
import pytest
from architectures import VOCABULARY, tiny_model

from qeval.base.errors import QevalError
from qeval.score.engine import shards
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.engine import open_engine
from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.shared import GivenUpError
from qeval.store.leases import Holder, Holders, Leases, machine
from qeval.store.shards import TRIES, Shards

pytestmark = pytest.mark.torch
PATHS = ("tree", "head")


@pytest.fixture
def requests(requests):
    """As many as make several shards."""
    rng = np.random.default_rng(2)
    turned = [rng.permutation(VOCABULARY) for _ in range(8)]
    return [TokenRequest(of[one.tokens].astype(np.int32), one.n_scored) for of in turned for one in requests]


def an_engine(path, requests, book=None, **more):
    sizes = {"budget": 64, "batch_size": 2}
    engine = open_engine(tiny_model("llama"), path, sample=requests, **{**sizes, **more})
    engine.book = book
    return engine


def shards_of(engine, requests):
    return [shards.members(one) for one in shards.cut(engine.passes(requests, engine.size()))]


@pytest.fixture
def watched(monkeypatch):
    """`watched(engine)`: the first requests of the shards that it scores from now on."""

    def watch(engine):
        seen, whole = [], engine.whole

        def count(requests, shard, want):
            seen.append(int(shards.members(shard)[0]))
            return whole(requests, shard, want)

        monkeypatch.setattr(engine, "whole", count)
        return seen

    return watch


@pytest.mark.parametrize("path", PATHS)
def test_what_is_read_is_what_would_be_scored(path, requests, tmp_path, watched):
    alone = an_engine(path, requests)
    plain = dict(alone.score(requests))
    first = an_engine(path, requests, Shards(tmp_path, helps=False))
    assert dict(first.score(requests)) == plain
    second = an_engine(path, requests, Shards(tmp_path, helps=False))
    seen, taken = watched(second), []
    second.on_taken = taken.append
    assert dict(second.score(requests)) == plain
    assert seen == []
    assert sum(taken) == len(requests)
    assert first.tokens_fed == second.tokens_fed == alone.tokens_fed


@pytest.mark.parametrize("path", PATHS)
def test_a_helper_begins_at_the_end_and_who_leads_scores_the_rest(path, requests, tmp_path, watched):
    plain = dict(an_engine(path, requests).score(requests))
    helper = an_engine(path, requests, Shards(tmp_path, helps=True))
    cut, helped = [int(one[0]) for one in shards_of(helper, requests)], watched(helper)
    assert len(cut) > 3
    work = helper.score(requests)
    next(work)  # answers of the last shard are told once the one before is under way
    work.close()
    assert helped == [cut[-1], cut[-2]]
    leader = an_engine(path, requests, Shards(tmp_path, helps=False))
    led = watched(leader)
    assert dict(leader.score(requests)) == plain
    assert led == cut[:-1]
    assert list(an_engine(path, requests, Shards(tmp_path, helps=True)).score(requests)) == []


def test_what_is_not_wanted_is_not_scored_and_what_was_not_kept_is(requests, tmp_path, watched):
    plain = dict(an_engine("tree", requests).score(requests))
    engine = an_engine("tree", requests, Shards(tmp_path, helps=False))
    cut = shards_of(engine, requests)
    wanted = np.isin(np.arange(len(requests)), cut[1][:1])
    seen = watched(engine)
    assert dict(engine.score(requests, wanted)) == {int(cut[1][0]): plain[int(cut[1][0])]}
    assert dict(engine.score(requests)) == plain
    assert seen == [int(cut[1][0]), *(int(one[0]) for one in cut)]


def test_a_damaged_shard_or_one_of_other_requests_is_scored_anew(requests, tmp_path, watched):
    engine = an_engine("tree", requests, Shards(tmp_path, helps=False))
    plain = dict(engine.score(requests))
    (tmp_path / "1.shard").write_bytes((tmp_path / "0.shard").read_bytes())
    (tmp_path / "2.shard").write_bytes(b"")
    seen, cut = watched(engine), shards_of(engine, requests)
    assert dict(engine.score(requests)) == plain
    assert seen == [int(cut[1][0]), int(cut[2][0])]


def test_who_leads_takes_over_a_shard_that_somebody_left(requests, tmp_path, monkeypatch):
    plain = dict(an_engine("tree", requests).score(requests))
    book = Shards(tmp_path, helps=False)
    take, refused = book.take, [0, 0, 0]

    def busy(number):
        return refused.pop() if number == 1 and refused else take(number)

    monkeypatch.setattr(book, "take", busy)
    engine = an_engine("tree", requests, book)
    order = list(engine.score(requests))
    assert dict(order) == plain
    assert refused == []
    assert {index for index, _ in order[-len(shards_of(engine, requests)[1]) :]} == set(
        shards_of(engine, requests)[1].tolist()
    )


def test_a_shard_that_killed_three_workers_is_given_up_after_all_others(requests, tmp_path):
    plain = dict(an_engine("tree", requests).score(requests))
    book = Shards(tmp_path, helps=False)
    engine = an_engine("tree", requests, book)
    cut = shards_of(engine, requests)
    assert book.take(1)
    assert all(book.begin(1) for _ in range(TRIES))
    book._mine.clear()  # as one that died leaves it
    book.close()
    found = {}

    def gather():
        for index, answer in engine.score(requests):
            found[index] = answer  # noqa: PERF403 - kept although it raises

    with pytest.raises(GivenUpError) as lost:
        gather()
    assert lost.value.requests.tolist() == cut[1].tolist()
    assert found == {index: answer for index, answer in plain.items() if index not in cut[1]}


class Died(BaseException):
    """A process ends here."""


@pytest.mark.parametrize("when", ["at once", "when it is fetched"])
@pytest.mark.parametrize("leased", [True, False])
def test_of_the_shards_that_a_worker_had_begun_only_the_one_that_kills_is_given_up(
    requests, tmp_path, monkeypatch, when, leased
):
    """The one before is not fetched yet when a shard begins, the one after has begun when it is fetched."""
    plain = dict(an_engine("tree", requests).score(requests))
    cut = shards_of(an_engine("tree", requests), requests)
    killer, fetched, found, deaths = set(cut[2].tolist()), shards.fetched, {}, 0
    given_up = []
    holders = Holders(tmp_path / "holders")
    while deaths <= TRIES:
        me = f"worker-{deaths}"
        holders.write(Holder(me, "here", machine(), os.getpid()))
        book = Shards(tmp_path / "shards", helps=False, leases=Leases(holders, me) if leased else None)
        engine = an_engine("tree", requests, book)
        whole = engine.whole

        def die(members, now, book=book, me=me):
            if now == when and killer & set(np.asarray(members).tolist()):
                holders.write(Holder(me, "here", machine(), os.getpid(), state="died"))
                book.leave = lambda _: None
                raise Died

        def begun(asked, shard, want, whole=whole, die=die):
            die(shards.members(shard), "at once")
            return whole(asked, shard, want)

        def told(scored, want, die=die):
            die(np.concatenate([one.requests for one in scored]), "when it is fetched")
            return fetched(scored, want)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(engine, "whole", begun)
                patch.setattr(shards, "fetched", told)
                for index, answer in engine.score(requests):
                    found[index] = answer  # noqa: PERF403 - kept although it raises
        except Died:
            deaths += 1
        except GivenUpError as lost:
            given_up = lost.requests.tolist()
            break
    assert deaths == TRIES
    assert given_up == cut[2].tolist()
    assert found == {index: answer for index, answer in plain.items() if index not in killer}


def test_an_error_is_no_death_and_what_is_not_finite_is_not_kept(requests, tmp_path, monkeypatch):
    book = Shards(tmp_path, helps=False)
    engine = an_engine("tree", requests, book)

    def fails(*_):
        raise RuntimeError("it broke")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "whole", fails)
        for _ in range(TRIES + 1):
            with pytest.raises(RuntimeError):
                list(engine.score(requests))
    logits = engine.lm.logits
    monkeypatch.setattr(engine.lm, "logits", lambda hidden: logits(hidden) * float("nan"))
    with pytest.raises(NonFiniteError):
        list(engine.score(requests))
    assert not list(tmp_path.glob("*.shard"))
    assert not list(tmp_path.glob("*.tries"))


def test_a_shard_that_did_not_fit_elsewhere_counts_as_such_here(requests, tmp_path):
    whole = an_engine("tree", requests, budget=200)
    cut = shards_of(whole, requests)
    name = shards.name([requests[i] for i in cut[0]])
    first = an_engine("tree", requests, Shards(tmp_path, helps=True), budget=200, smaller={name: 100})
    list(first.score(requests))
    second, told = an_engine("tree", requests, Shards(tmp_path, helps=False), budget=200), []
    second.on_smaller = lambda *one: told.append(one[:2])
    assert len(dict(second.score(requests))) == len(requests)
    assert told == [(name, 100)]
    assert second.smaller == {name: 100}
    assert list(second.score(requests))
    assert told == [(name, 100)]


def test_answers_that_do_not_add_up_are_refused(requests, tmp_path, monkeypatch):
    engine = an_engine("tree", requests, Shards(tmp_path, helps=False))
    passes = engine.passes
    monkeypatch.setattr(engine, "passes", lambda *given: list(passes(*given))[:-1])
    with pytest.raises(QevalError, match="Shards do not add up"):
        list(engine.score(requests))
    twice = list(passes(requests, engine.size()))
    monkeypatch.setattr(engine, "passes", lambda *_: [*twice, *twice[:4]])
    with pytest.raises(QevalError, match="Shards do not add up"):
        list(engine.score(requests))
