"""Early stop: a ruined variant is stopped soon, a harmless one never, and nothing stops without a rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qeval.ask import policy
from qeval.base.records import Scheme, Task
from qeval.judge import betting, early
from qeval.load.toy import Toy
from qeval.score import toy

FACTS = Task("qeval_facts", "acc")
LOOSE = policy.from_max_drop(["2.0"])


def _scored(scheme: Scheme, task: Task = FACTS, items: int = 2000):
    return toy.score(task, scheme, Toy(items=items), seed=7)[0]


def _run(scheme: Scheme, rules=LOOSE, tasks=(FACTS,)):
    base = {task.name: _scored(Scheme("fp16"), task) for task in tasks}
    samples = [_scored(scheme, task) for task in tasks]
    sizes = [len(part) for part in samples]
    state = early.watches(rules, "v", tasks, sizes)
    for block in early.blocks(sizes, 7):
        state = early.see(state, block, tasks, samples, base)
    return early.broken(state)


def test_every_item_comes_once_in_an_order_that_the_seed_decides() -> None:
    places = np.concatenate(list(early.blocks([30, 70, 5], seed=3)))
    assert sorted(map(tuple, places.tolist())) == [
        (t, i) for t, n in enumerate([30, 70, 5]) for i in range(n)
    ]
    again = np.concatenate(list(early.blocks([30, 70, 5], seed=3)))
    np.testing.assert_array_equal(places, again)
    assert not np.array_equal(places, np.concatenate(list(early.blocks([30, 70, 5], seed=4))))


def test_a_ruined_variant_is_stopped_before_the_end_and_a_good_one_is_not() -> None:
    stop = _run(Scheme("rtn", {"bits": 1}))
    assert stop is not None
    assert stop.task == "qeval_facts"
    assert 0 < stop.items < stop.of == 2000
    assert "certain" in early.sentence(stop)
    assert _run(Scheme("bf16")) is None


def test_the_chance_of_a_false_stop_is_divided_among_the_watches() -> None:
    tasks = [replace(FACTS, name=f"task_{i}") for i in range(10)]
    state = early.watches(LOOSE, "v", tasks, [100] * 10, among=10)
    assert [watch.bet.confidence for watch in state] == pytest.approx([0.995] * 10)
    assert {watch.rule.confidence for watch in state} == {0.95}


@pytest.mark.slow
def test_a_variant_at_every_limit_of_ten_tasks_is_stopped_in_a_twentieth_of_runs() -> None:
    random = np.random.default_rng(11)
    runs, items, margin = 400, 300, 0.02
    stopped = 0
    for _ in range(runs):
        drawn = random.choice([-1.0, 0.0, 1.0], size=(10, items), p=[0.06, 0.90, 0.04])
        bets = [betting.update(betting.start(margin, 1 - 0.05 / 10), one) for one in drawn]
        stopped += any(bet.broken_at is not None for bet in bets)
    assert stopped / runs <= 0.05


def test_what_cannot_be_bet_on_is_left_to_the_gate() -> None:
    state = early.watches(LOOSE, "v", [FACTS], [2])
    base, other = _scored(Scheme("fp16"), items=2), _scored(Scheme("fp16"), items=2)
    other = replace(other, value=np.array([13.8, 0.0]))
    after = early.see(state, np.array([[0, 0], [0, 1]]), [FACTS], [other], {"qeval_facts": base})
    assert after == ()
    assert early.broken(after) is None


def test_a_group_is_watched_over_all_its_members() -> None:
    members = [replace(FACTS, name=f"part_{i}", group="whole") for i in range(3)]
    rules = policy.parse({"rule": [{"tasks": "whole", "max_drop": 2.0}]})
    stop = _run(Scheme("rtn", {"bits": 1}), rules, members)
    assert stop is not None
    assert (stop.task, stop.of) == ("whole", 6000)


@pytest.mark.parametrize(
    "rule",
    [{"max_drop": 2.0, "tier": "advisory"}, {"max_ppl_ratio": 1.01}, {"tasks": "other", "max_drop": 1.0}],
)
def test_only_required_rules_on_bounded_scores_are_watched(rule: dict[str, object]) -> None:
    both = {"rule": [rule, {"tasks": "elsewhere", "max_drop": 1.0}]}
    assert early.watches(policy.parse(both), "v", [FACTS], [10]) == ()


def test_flips_and_recovery_are_watched_too() -> None:
    for limit in ({"max_flips": 0.02}, {"min_recovery": 0.98}):
        rules = policy.parse({"rule": [limit]})
        assert _run(Scheme("rtn", {"bits": 1}), rules) is not None
        assert _run(Scheme("fp32"), rules) is None


# --- texts --------------------------------------------------------------------------------------


def _texts(size: int, n: int = 600) -> np.ndarray:
    return (np.arange(n) // size).astype(str) if size > 1 else np.full(n, "")


def test_without_shared_texts_the_order_is_that_of_items() -> None:
    sizes = [30, 70, 5]
    plain = list(early.blocks(sizes, seed=3))
    for clusters in ([np.full(n, "") for n in sizes], [np.arange(n).astype(str) for n in sizes]):
        for one, other in zip(plain, early.blocks(sizes, 3, clusters), strict=True):
            np.testing.assert_array_equal(one, other)
    assert [len(block) for block in plain] == [25, 25, 25, 25, 5]


def test_the_items_of_a_text_come_together_in_one_block_and_texts_in_any_order() -> None:
    clusters = [np.array(["a"] * 40 + [""] * 10 + ["b"] * 3), np.array(["a"] * 5 + [""] * 50)]
    firsts = []
    for seed in range(300):
        found = list(early.blocks([53, 55], seed, clusters))
        places = [tuple(place) for block in found for place in block.tolist()]
        assert sorted(places) == [(t, i) for t, n in enumerate([53, 55]) for i in range(n)]
        for members in (
            [(0, i) for i in range(40)],
            [(0, i) for i in range(50, 53)],
            [(1, i) for i in range(5)],
        ):
            start = places.index(members[0])
            assert places[start : start + len(members)] == members
            assert sum((members[0] in map(tuple, block.tolist())) for block in found) == 1
        firsts.append(places[0])
    assert sum(place[0] == 0 and place[1] < 40 for place in firsts) / 300 < 0.08  # one of 63 texts


def _run_texts(lost: np.ndarray, clusters: np.ndarray, seed: int, rules=LOOSE):
    base = replace(_scored(Scheme("fp16"), items=len(lost)), value=np.ones(len(lost)), cluster=clusters)
    other = replace(base, value=1.0 - lost, answer=np.where(lost, "x", base.answer))
    sizes, most = [len(lost)], [early.largest_text(clusters)]
    state = early.watches(rules, "v", [FACTS], sizes, largest=most)
    for block in early.blocks(sizes, seed, [clusters]):
        state = early.see(state, block, [FACTS], [other], {"qeval_facts": base})
    return early.broken(state)


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.parametrize("limit", [{"max_drop": 10.0}, {"min_recovery": 0.9}, {"max_flips": 0.1}])
def test_a_variant_at_the_limit_whose_texts_are_lost_as_one_is_hardly_ever_stopped(limit) -> None:
    rules = policy.parse({"rule": [limit]})
    random = np.random.default_rng(5)
    stopped = {1: 0, 10: 0}
    for seed in range(200):
        lost = np.repeat(random.random(60) < 0.1, 10)
        for size in stopped:
            stopped[size] += _run_texts(lost, _texts(size), seed, rules) is not None
    assert stopped[10] / 200 <= 0.05
    assert stopped[1] > stopped[10]


def test_a_ruined_variant_is_stopped_between_two_texts() -> None:
    lost = np.repeat(np.random.default_rng(6).random(200) < 0.6, 3)
    stop = _run_texts(lost, _texts(3), 1)
    assert stop is not None
    assert (stop.of, stop.items % 3) == (600, 0)
    assert stop.items < 600


def test_a_group_is_watched_by_its_largest_text() -> None:
    members = [replace(FACTS, name=f"part_{i}", group="whole") for i in range(2)]
    rules = policy.parse({"rule": [{"tasks": "*", "max_drop": 2.0}, {"tasks": "part_1", "max_drop": 2.0}]})
    state = early.watches(rules, "v", members, [10, 10], largest=[4, 2])
    assert {watch.row: watch.bet.largest for watch in state} == {"whole": 4, "part_1": 2}
    assert early.largest_text(np.array(["", "a", "a", "b"])) == 2
    assert early.largest_text(np.array(["", ""])) == 1


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "gate.toml"
    file.write_text("[[rule]]\nmax_drop = 1.0\n")
    return file


@pytest.mark.slow
def test_a_run_with_a_gate_stops_the_ruined_variant_and_the_gate_fails_it(qeval, policy_file: Path) -> None:
    words = (
        "run",
        "--model",
        "toy[items=2000]",
        "--schemes",
        "bad=rtn[bits=2],fp16,bf16",
        "--baseline",
        "fp16",
    )
    result = qeval(*words, "--tasks", "qeval_facts,qeval_words", "--gate", policy_file, code=3)
    assert "[bad] Stopped early: qeval_facts" in result.stderr
    assert "[bf16] done" in result.stderr
    assert "scoring stopped there" in result.stdout
    verdict = json.loads(qeval("gate", "--policy", policy_file, "--json", code=3).stdout)
    assert verdict["verdicts"] == {"bad": "FAIL", "bf16": "PASS"}
    assert (
        "finished earlier"
        in qeval(*words, "--tasks", "qeval_facts,qeval_words", "--gate", policy_file, code=3).stderr
    )


def test_a_run_with_a_gate_bets_on_the_texts_that_the_baseline_stored(
    qeval, policy_file, monkeypatch
) -> None:
    scored = toy.score

    def of_texts(task, *words):
        samples, items = scored(task, *words)
        return replace(samples, cluster=_texts(5, len(samples))), items

    monkeypatch.setattr(toy, "score", of_texts)
    words = ("run", "--model", "toy[items=2000]", "--schemes", "fp16,bad=rtn[bits=2]", "--gate", policy_file)
    qeval(*words, "--tasks", "qeval_facts", code=3)
    shown = json.loads(qeval("show", "--json").stdout)
    base, bad = shown["variants"]
    assert base["cells"][0]["texts"] == 400
    assert (bad["stop"]["of"], bad["stop"]["items"] % 5) == (2000, 0)
    assert bad["stop"]["items"] < 2000
