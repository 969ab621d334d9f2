"""What is scored once more: its place in a run, its keys, and that nothing takes it for a candidate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_result, make_run
from tiny_models import WORDS, save_llama
from tiny_worlds import QUIET

from qeval.ask import order as orders
from qeval.ask.repeats import nothing_to_repeat, repeats
from qeval.base.errors import UsageError
from qeval.base.records import Run
from qeval.base.repeats import repeats_of, scorings, with_repeat
from qeval.compare.merge import merge
from qeval.run.executors import EXECUTORS
from qeval.store.runs import Store

pytestmark = pytest.mark.slow

TASKS = "arc_challenge,truthfulqa_mc2,wikitext"
ASKED = ("run", "--model", "toy[items=60]", "--schemes", "fp16,rtn,gptq", "--tasks", TASKS)
BOTH = ("--repeat-baseline", "--repeat-quantisation", "2")


def the_run(runs_dir: Path) -> Run:
    [place] = runs_dir.glob("*/")
    return Store(runs_dir).run_dir(place.name).read()


def an_order(runs_dir: Path, schemes: str, model: str = "toy", **changes):
    asked = dict.fromkeys(("suite", "num_fewshot", "baseline", "limit", "revision", "adapter", "gate"))
    words = {"model": model, "schemes": schemes, "tasks": "arc_easy", "runs_dir": runs_dir, "command": ()}
    flags = {"verify": 0, "cost": None, "again": False, "no_materialize": False, "datasets_dir": None}
    return orders.order(**{**asked, **words, **flags, **changes})


def test_repeats_stand_in_what_they_repeat_and_no_candidate_is_added(qeval, runs_dir: Path) -> None:
    shown = json.loads(qeval(*ASKED, *BOTH, "--json").stdout)
    assert [one["name"] for one in shown["variants"]] == ["fp16", "rtn", "gptq"]
    assert {one["variant"] for one in shown["comparisons"]} == {"rtn", "gptq"}
    fp16, rtn, gptq = the_run(runs_dir).results
    assert fp16.again is not None
    assert fp16.again.variant == replace(fp16.variant, name="fp16 (again)")
    assert (rtn.again, rtn.seeds, fp16.seeds, gptq.again) == (None, (), (), None)
    assert [(one.variant.name, one.variant.scheme.options) for one in gptq.seeds] == [
        ("gptq (seed 1)", {"seed": 1}),
        ("gptq (seed 2)", {"seed": 2}),
    ]
    assert {one.status for one in scorings(the_run(runs_dir))} == {"done"}
    keys = [cell.key for one in scorings(the_run(runs_dir)) for cell in one.cells]
    assert len(set(keys)) == len(keys) == 6 * 3


def test_a_run_is_the_same_run_with_and_without_its_repeats(qeval, runs_dir: Path) -> None:
    qeval(*ASKED)
    plain = the_run(runs_dir)
    assert [repeats_of(one) for one in plain.results] == [(), (), ()]
    more = qeval(*ASKED, *BOTH)
    assert "[gptq] finished earlier" in more.stderr
    assert "[gptq (seed 2)] 3 tasks to score" in more.stderr
    assert [replace(one, again=None, seeds=()) for one in the_run(runs_dir).results] == list(plain.results)
    again = qeval(*ASKED, "--repeat-quantisation", 3)
    assert "[gptq (seed 2)] finished earlier" in again.stderr
    assert "[gptq (seed 3)] 3 tasks to score" in again.stderr
    kept = the_run(runs_dir)
    qeval(*ASKED, "--again")
    assert the_run(runs_dir) == kept


def test_a_repeat_is_resumed_where_it_was_killed(qeval, runs_dir: Path, monkeypatch) -> None:
    score = EXECUTORS["local"]

    def killed(job, listen):
        result = score(job, listen)
        return replace(result, status="partial", cells=result.cells[:1]) if job.shuffled else result

    monkeypatch.setitem(EXECUTORS, "local", killed)
    qeval(*ASKED, "--repeat-baseline", code=1)
    assert [len(one.cells) for one in repeats_of(the_run(runs_dir).results[0])] == [1]
    monkeypatch.setitem(EXECUTORS, "local", score)
    assert "[fp16 (again)] 0 tasks to score, 3 finished earlier" in qeval(*ASKED, "--repeat-baseline").stderr
    assert repeats_of(the_run(runs_dir).results[0])[0].status == "done"


def test_a_repeat_that_fails_is_told_and_the_rest_stands(qeval, runs_dir: Path, monkeypatch) -> None:
    score = EXECUTORS["local"]

    def failing(job, listen):
        result = score(job, listen)
        return replace(result, status="failed", error="No kernel.") if job.shuffled else result

    monkeypatch.setitem(EXECUTORS, "local", failing)
    qeval(*ASKED, "--repeat-baseline", code=1)
    assert [one.status for one in scorings(the_run(runs_dir))] == ["done", "failed", "done", "done"]


def test_nothing_is_repeated_of_what_was_not_scored_to_its_end(qeval, runs_dir: Path) -> None:
    words = ("run", "--model", "toy[items=60,fail=gptq]", "--schemes", "fp16,awq,gptq", "--tasks", TASKS)
    said = qeval(*words, *BOTH, code=1)
    assert "[gptq (seed 1)] gptq was not fully scored, so it is not scored again." in said.stderr
    assert [len(repeats_of(one)) for one in the_run(runs_dir).results] == [1, 2, 0]


def test_a_watched_run_repeats_unwatched(qeval, runs_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[[rule]]\nmax_drop = 60.0\n[[rule]]\nmax_ppl_ratio = 9\n")
    qeval(*ASKED, *BOTH, "--gate", tmp_path / "policy.toml", code=None)
    assert {one.status for one in scorings(the_run(runs_dir))} == {"done"}


@pytest.mark.parametrize(
    ("engine", "batch", "other", "size"),
    [("tree", "auto", "plain", "6"), ("plain", "12", "tree", "6"), ("lm-eval", "1", "plain", "2")],
)
def test_the_second_path_is_another_one(tmp_path: Path, engine, batch, other, size) -> None:
    order = an_order(tmp_path, "fp16,rtn", repeat_baseline=True, engine=engine, batch_size=batch)
    [repeat] = repeats(order)
    assert (repeat.settings.engine, repeat.settings.batch_size, repeat.by_path) == (other, size, True)
    assert replace(repeat.settings, engine=engine, batch_size=batch) == order.settings


def test_where_no_seed_acts_there_is_nothing_to_repeat(tmp_path: Path) -> None:
    order = an_order(tmp_path, "fp16,rtn,gptq[seed=4,backend=torch]", repeat_quantisation=2)
    assert nothing_to_repeat(order) == {"fp16": "no seed acts on fp16", "rtn": "no seed acts on rtn"}
    assert [list(one.variant.scheme.options.items()) for one in repeats(order)] == [
        [("seed", 5), ("backend", "torch")],
        [("seed", 6), ("backend", "torch")],
    ]
    with pytest.raises(
        UsageError, match="has nothing to repeat: no seed has an effect on any of these"
    ) as caught:
        repeats(order, refused={"gptq[seed=4,backend=torch]"})
    assert caught.value.hint == "no seed acts on fp16; no seed acts on rtn."


def test_a_ready_checkpoint_is_not_quantised_again(tmp_path: Path) -> None:
    order = an_order(
        tmp_path, f"fp16,gptq@{tmp_path},x=gptq,awq", "meta-llama/Llama-2-7b-hf", repeat_quantisation=1
    )
    why = nothing_to_repeat(order)
    assert f"reads the ready checkpoint {tmp_path}" in why[f"gptq@{tmp_path}"]
    assert why["x"] == "x reads the ready checkpoint TheBloke/Llama-2-7B-GPTQ"
    assert [one.variant.name for one in repeats(order)] == ["awq (seed 1)"]


def test_merged_runs_keep_what_either_has_repeated() -> None:
    run, _, _ = make_run(2)
    again, seed = (make_result(name, ()) for name in ("fp16 (again)", "bnb4 (seed 1)"))
    one = replace(run, results=(with_repeat(run.results[0], again, path=True), run.results[1]))
    two = replace(run, id="run-2", results=(run.results[0], with_repeat(run.results[1], seed, path=False)))
    for pair in ([one, two], [two, one], [one, one]):
        merged = merge(pair)
        assert [result.variant.name for result in merged.results] == ["fp16", "bnb4"]
        assert merged.results[0].again == again
        assert merged.results[1].seeds == (() if two not in pair else (seed,))


def test_a_repeat_takes_the_place_of_one_of_its_name() -> None:
    base, other = make_result("gptq", ()), make_result("gptq (seed 2)", ())
    first, second = make_result("gptq (seed 1)", ()), replace(make_result("gptq (seed 1)", ()), error="x")
    both = with_repeat(with_repeat(base, first, path=False), other, path=False)
    assert with_repeat(both, second, path=False).seeds == (second, other)


FLOOR = (
    "Noise floor, fp16 scored again (engine toy-again instead of toy, items in another order): arc_challenge "
)


def test_the_run_its_report_and_its_gate_state_the_floor(qeval, tmp_path: Path) -> None:
    assert FLOOR in qeval(*ASKED, *BOTH).stdout
    assert FLOOR in qeval("show").stdout
    assert FLOOR in qeval("gate", "--max-drop", 60, code=None).stdout
    qeval("report", "-o", tmp_path / "r.md", "--short")
    assert FLOOR in (tmp_path / "r.md").read_text()
    told = qeval("show", "--baseline", "rtn").stdout
    assert "The noise floor was not measured for rtn; it was for fp16." in " ".join(told.split())


def test_a_plan_names_margins_below_twice_the_floor(qeval, tmp_path: Path) -> None:
    assert "noise" not in qeval("plan", "--tasks", "arc_challenge").stdout
    qeval(*ASKED)
    told = qeval("plan", "--from", "toy", "--max-drop", 3, code=None).stdout
    assert "The noise floor was not measured (qeval run --repeat-baseline measures it)." in told
    qeval(*ASKED, "--repeat-baseline")
    reach = {
        one["task"]: one["reach"]
        for one in json.loads(qeval("show", "--json").stdout)["noise"]["floor"]
        if one["reach"]
    }
    twice = 200 * reach["arc_challenge"]
    words = f"is below twice the noise floor ({twice:.2f} points): the gate decides it all the same"
    below, above = (
        qeval("plan", "--from", "toy", "--max-drop", f"{points:.3f}", code=4).stdout
        for points in (twice - 0.01, twice + 0.01)
    )
    assert f"arc_challenge: a drop of {twice - 0.01:.2f} points {words}" in below
    assert f"arc_challenge: a drop of {twice + 0.01:.2f} points is below" not in above
    near = qeval("plan", "--from", "toy", "--max-drop", f"{twice - 0.0001:.5f}", code=4).stdout
    assert (
        f"arc_challenge: a drop of {twice - 0.0001:.4f} points is below twice the noise floor ({twice:.4f}"
        in near
    )
    assert f"arc_challenge: a drop of 0.5 or 1 or 2 points {words}" in qeval("plan", "--from", "toy").stdout
    (tmp_path / "p.toml").write_text(
        '[[rule]]\nmax_flips = 0.02\n[[rule]]\ntasks = "wikitext"\nmax_ppl_ratio = 1.000001\n'
    )
    asked = ("--policy", tmp_path / "p.toml", "--json")
    told = json.loads(qeval("plan", "--from", "toy", *asked, code=4).stdout)["noise"]
    assert any(one.startswith("arc_challenge: 2.0% flips is below twice the noise floor (") for one in told)
    assert any(one.startswith("wikitext: x1.000001 is below twice the noise floor (x1.0000") for one in told)


class TestRealWeights:
    pytestmark = QUIET

    @pytest.mark.rare
    def test_a_run_with_both_kinds_of_repeats(self, qeval, tmp_path: Path) -> None:
        pytest.importorskip("gptqmodel")
        text = tmp_path / "text.txt"
        text.write_text(" ".join(np.random.default_rng(0).choice(WORDS, 600)))
        model = save_llama(tmp_path / "llama", max_position_embeddings=512)
        scheme = f"gptq[bits=3,group_size=32,samples=4,length=64,calibration={text}]"
        words = ("--model", model, "--device", "cpu", "--suite", "demo", "--limit", 6)
        more = ("--repeat-baseline", "--repeat-quantisation", 2, "--json")
        shown = json.loads(qeval("run", *words, "--schemes", f"fp32,rtn,g={scheme}", *more).stdout)
        assert [one["name"] for one in shown["variants"]] == ["fp32", "rtn", "g"]
        fp32, _, quantised = Store(tmp_path / "runs").runs()[0].read().results
        assert (fp32.again.status, fp32.again.provenance.engine) == ("done", "plain")
        assert [cell.n for cell in fp32.again.cells] == [cell.n for cell in fp32.cells]
        found = [tuple(cell.score for cell in one.cells) for one in (quantised, *quantised.seeds)]
        assert len(set(found)) == 3
