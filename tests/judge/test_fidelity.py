"""Rules on fidelity: which they name, how they decide, and that they bind nobody unless one names a
protocol."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from factories import make_run

from qeval.ask.policy import parse
from qeval.base.errors import Exit, UsageError
from qeval.base.fidelity import Measured
from qeval.base.protocols import Protocol
from qeval.base.records import Rule
from qeval.compare.evidence import gather
from qeval.compare.fidelity import rows_of
from qeval.judge.fidelity import decisions, named
from qeval.judge.gate import conclude
from qeval.judge.matching import check_rules
from qeval.score.fidelity import toy

PROSE = Protocol("prose", "prose")
TASKS = {"gate": {"max_drop": 90.0, "max_ppl_ratio": 50.0, "confidence": 0.6}}


def measured(run, size=0.03, protocol=PROSE, only=None, **changes):
    """The fidelity of a run's candidates, invented."""
    stream = toy.stream(protocol)
    found = {}
    for result in run.results[1:]:
        name = result.variant.name
        if only is not None and name not in only:
            continue
        one = Measured(
            key=f"{name} {protocol.name}",
            protocol=protocol,
            variant=name,
            baseline=run.baseline,
            role="candidate",
            stream=stream.sha256,
            n=stream.n,
            n_available=stream.n,
            windows=len(stream),
            vocabulary=1000,
            cut=0,
            cut_baseline=0,
            batch=1,
            dtype="none",
            device="none",
            variant_digest=name,
            baseline_digest="b",
        )
        found[one.key] = replace(one, **changes), toy.invented(stream, size, name)
    order = [result.variant.name for result in run.results]
    read = lambda one: (found[one.key][1], stream)  # noqa: E731
    return rows_of([one for one, _ in found.values()], read, order, run.baseline)


@pytest.fixture(scope="module")
def evidence():
    run, read, _ = make_run(2, n_items=400, effect=0.0)
    return gather(run, read)


def judged(evidence, rule, **changes):
    policy = parse({**TASKS, "rule": [rule]})
    found = replace(evidence, fidelity=measured(evidence.run, **changes))
    outcome = conclude(found, policy)
    return outcome, [one for one in outcome.decisions if one.task == "prose"]


@pytest.mark.parametrize(
    ("limit", "status"),
    [
        ({"max_kl": 0.1}, "PASS"),
        ({"max_kl": 0.001}, "FAIL"),
        ({"max_kl": 0.0302}, "INCONCLUSIVE"),
        ({"min_top1_agreement": 0.7}, "PASS"),
        ({"min_top1_agreement": 0.999}, "FAIL"),
        ({"max_ppl_ratio": 1.5, "tasks": "prose"}, "PASS"),
        ({"max_ppl_ratio": 1.001, "tasks": "prose"}, "FAIL"),
    ],
)
def test_the_interval_decides(evidence, limit, status):
    outcome, [decision] = judged(evidence, limit)
    assert decision.status == status, decision.reason
    assert outcome.exit == {"PASS": Exit.PASS, "FAIL": Exit.FAILED, "INCONCLUSIVE": Exit.INCONCLUSIVE}[status]
    assert "prose" in decision.reason


def test_the_comparison_is_of_documents_and_higher_is_better(evidence):
    _, [kl] = judged(evidence, {"max_kl": 0.1})
    fidelity = measured(evidence.run)
    row = fidelity.row(kl.variant, "prose")
    assert kl.comparison.candidate == pytest.approx(-row.kl.value)
    assert kl.comparison.low < kl.comparison.delta < kl.comparison.high < 0
    assert kl.comparison.texts == 24
    assert kl.comparison.confidence == pytest.approx(0.2)
    _, [ratio] = judged(evidence, {"max_ppl_ratio": 1.5, "tasks": "prose"})
    assert math.exp(-ratio.comparison.delta) == pytest.approx(row.ratio.value)
    _, [top] = judged(evidence, {"min_top1_agreement": 0.7})
    assert top.comparison.candidate == pytest.approx(row.same_top.value)


def test_without_a_rule_that_names_it_nobody_is_bound(evidence):
    policy = parse(TASKS)
    outcome = conclude(replace(evidence, fidelity=measured(evidence.run, 5.0)), policy)
    assert outcome.exit == Exit.PASS
    assert not [one for one in outcome.decisions if one.task == "prose"]


@pytest.mark.parametrize("rule", [{"max_kl": 0.1}, {"max_ppl_ratio": 1.1, "tasks": "prose"}])
def test_a_rule_on_what_was_not_measured_lets_nobody_pass(evidence, rule):
    outcome = conclude(evidence, parse({**TASKS, "rule": [rule]}))
    assert outcome.exit == Exit.MISSING
    assert any("qeval fidelity can measure it now" in one.reason for one in outcome.decisions)


DAMAGED = "r/fidelity/k/measured.json is not what was written. Run it again."


@pytest.mark.parametrize(
    ("rule", "only", "code"),
    [
        ({"max_kl": 0.1}, None, Exit.MISSING),  # what is damaged may be of another protocol that it is for
        ({"max_kl": 0.1, "tasks": "pro*"}, None, Exit.MISSING),
        ({"max_kl": 0.1, "tasks": "wikitext-2048"}, None, Exit.MISSING),
        ({"max_ppl_ratio": 1.5, "tasks": "wikitext-2048"}, None, Exit.MISSING),
        ({"max_kl": 0.1, "tasks": "prose"}, None, Exit.PASS),
        ({"max_kl": 0.1, "tasks": "prose"}, set(), Exit.MISSING),
        ({"max_kl": 0.1, "tier": "advisory"}, None, Exit.PASS),
        ({"max_drop": 90.0}, set(), Exit.PASS),
    ],
)
def test_what_is_damaged_is_named_and_blocks_only_rules_on_it(evidence, rule, only, code):
    found = replace(measured(evidence.run, only=only), damaged=(DAMAGED,))
    outcome = conclude(replace(evidence, fidelity=found), parse({**TASKS, "rule": [rule]}))
    assert outcome.exit == code
    assert f"What was measured of fidelity is damaged and left out: {DAMAGED}" in outcome.notes
    reasons = [one.reason for one in outcome.decisions]
    assert any(f"what was measured is damaged: {DAMAGED}" in one for one in reasons) == (code == Exit.MISSING)
    assert not any("not measured" in one for one in reasons)


def test_a_variant_whose_measure_may_be_the_damaged_one_is_missing():
    run, read, _ = make_run(3, n_items=100, effect=0.0)
    first, second = (result.variant.name for result in run.results[1:])
    found = replace(measured(run, only={first}), damaged=(DAMAGED,))
    policy = parse({**TASKS, "rule": [{"max_kl": 0.1, "tasks": "prose"}]})
    outcome = conclude(replace(gather(run, read), fidelity=found), policy)
    assert outcome.verdicts == {first: "PASS", second: "MISSING"}
    assert any(DAMAGED in one.reason for one in outcome.decisions if one.variant == second)


@pytest.mark.parametrize("changes", [{}, {"tier": "advisory"}, {"required": False}])
@pytest.mark.parametrize("limit", [{"max_kl": 0.1}, {"max_ppl_ratio": 1.5}])
def test_what_was_measured_in_part_is_named_where_a_rule_finds_nothing(evidence, limit, changes):
    part = replace(PROSE, name="prose[windows=2]", windows=2)
    found = replace(evidence, fidelity=measured(evidence.run, protocol=part, n_available=10**6))
    outcome = conclude(found, parse({**TASKS, "rule": [{"tasks": "prose", **limit, **changes}]}))
    said = [*(one.reason for one in outcome.decisions), *outcome.notes]
    told = "not measured by 'prose', only by prose[windows=2] (in part): qeval fidelity can measure it now."
    assert any(told in one for one in said)
    assert outcome.exit == (Exit.PASS if changes else Exit.MISSING)


@pytest.mark.parametrize("changes", [{}, {"tier": "advisory"}, {"required": False}, {"variants": "*4"}])
def test_no_pattern_for_everything_is_named_where_nothing_was_measured(evidence, changes):
    outcome = conclude(evidence, parse({**TASKS, "rule": [{"max_kl": 0.1, **changes}]}))
    said = [*(one.reason for one in outcome.decisions), *outcome.notes]
    told = [one for one in said if "is about fidelity, which was not measured: qeval fidelity" in one]
    assert told
    assert not any("'*'" in one for one in said)


def test_a_variant_that_was_measured_in_part_alone_says_so():
    run, read, _ = make_run(3, n_items=100, effect=0.0)
    first, second = (result.variant.name for result in run.results[1:])
    part = replace(PROSE, name="prose[windows=2]", windows=2)
    whole = measured(run, only={first})
    some = measured(run, protocol=part, only={second}, n_available=10**6)
    found = replace(whole, rows=(*whole.rows, *some.rows))
    policy = parse({**TASKS, "rule": [{"max_kl": 0.1, "tasks": "prose"}]})
    outcome = conclude(replace(gather(run, read), fidelity=found), policy)
    [reason] = [one.reason for one in outcome.decisions if one.task == "prose" and one.variant == second]
    assert reason == (
        f"prose: {second} was not measured by it, only by prose[windows=2] (in part), so nothing is judged."
    )


def test_a_variant_that_was_not_measured_is_missing():
    run, read, _ = make_run(3, n_items=100, effect=0.0)
    three = gather(run, read)
    first = run.results[1].variant.name
    found = replace(three, fidelity=measured(run, only={first}))
    outcome = conclude(found, parse({**TASKS, "rule": [{"max_kl": 0.1}]}))
    assert outcome.verdicts[run.results[2].variant.name] == "MISSING"
    assert outcome.verdicts[first] == "PASS"


def test_a_part_of_the_positions_never_passes_unasked(evidence):
    outcome, [decision] = judged(evidence, {"max_kl": 0.1}, n_available=10**6)
    assert decision.status == "INCONCLUSIVE"
    assert "a limited run never passes" in decision.reason
    policy = parse({"gate": {**TASKS["gate"], "allow_limited": True}, "rule": [{"max_kl": 0.1}]})
    found = replace(evidence, fidelity=measured(evidence.run, n_available=10**6))
    assert conclude(found, policy).exit == Exit.PASS
    assert outcome.exit == Exit.INCONCLUSIVE


@pytest.mark.parametrize("size", [0.03, 0.0])
@pytest.mark.parametrize(
    "limit", [{"max_kl": 0.5}, {"max_kl": 1e-9}, {"min_top1_agreement": 0.5}, {"max_ppl_ratio": 9.0}]
)
def test_few_documents_decide_nothing(evidence, limit, size):
    few = Protocol("prose", "prose", windows=19)
    outcome, [decision] = judged(evidence, {"tasks": "prose", **limit}, protocol=few, size=size)
    assert decision.status == "INCONCLUSIVE"
    assert "undecided, as intervals are by documents: there are 19, and 20 are needed" in decision.reason
    assert outcome.exit == Exit.INCONCLUSIVE
    enough = replace(few, windows=20)
    _, [decision] = judged(evidence, {"tasks": "prose", **limit}, protocol=enough, size=size)
    assert "are needed" not in decision.reason


def test_advice_binds_nobody(evidence):
    outcome, [decision] = judged(evidence, {"max_kl": 0.001, "tier": "advisory"})
    assert decision.status == "FAIL"
    assert outcome.exit == Exit.PASS


def test_which_protocols_a_rule_names():
    known = ("prose", "wikitext-2048", "trace:own,8")
    assert named(Rule(max_kl=1), known) == known
    assert named(Rule(tasks="wiki*", max_kl=1), known) == ("wikitext-2048",)
    assert named(Rule(tasks="trace:own,8", min_top1_agreement=0.5), known) == ("trace:own,8",)
    assert named(Rule(tasks="wiki*", max_ppl_ratio=2), known) == ()
    assert named(Rule(tasks="wikitext-2048", max_ppl_ratio=2), known) == ("wikitext-2048",)
    assert named(Rule(max_ppl_ratio=2), known) == ()
    assert named(Rule(max_drop=2), known) == ()


def test_the_most_literal_rule_holds(evidence):
    found = measured(evidence.run)
    policy = parse({"rule": [{"max_kl": 0.001, "tasks": "prose"}, {"max_kl": 5.0}]})
    variant = evidence.run.results[1].variant.name
    [decision] = decisions(found, policy, variant, [variant])
    assert decision.rule.max_kl == 0.001


def test_a_limit_of_fidelity_means_nothing_for_a_task(evidence):
    with pytest.raises(UsageError, match="name a protocol"):
        conclude(evidence, parse({"rule": [{"max_kl": 0.1, "tasks": "arc"}]}))


def test_a_plan_leaves_rules_on_fidelity_to_the_gate(evidence):
    check_rules(
        parse({**TASKS, "rule": [{"max_kl": 0.1}, {"max_ppl_ratio": 2, "tasks": "prose"}]}), evidence.rows
    )


def test_reasons_show_numbers_on_their_own_side(evidence):
    _, [decision] = judged(evidence, {"max_kl": 0.001})
    shown = float(decision.reason.split(": KL ")[1].split()[0])
    assert shown == pytest.approx(-decision.comparison.delta, rel=0.01)
    assert "0.001 allowed: fails" in decision.reason


@pytest.mark.slow
def test_through_the_command(qeval, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "[gate]\nmax_drop = 50\nmax_ppl_ratio = 2.0\n[[rule]]\ntasks = 'prose'\nmax_kl = 0.01\n"
    )
    qeval("run", "--model", "toy[items=200]", "--schemes", "fp16,bnb4,bnb8", "--fidelity", "prose")
    outcome = json.loads(qeval("gate", "--policy", policy, "--json", code=3).stdout)
    found = {one["variant"]: one["status"] for one in outcome["decisions"] if one["task"] == "prose"}
    assert found == {"bnb4": "FAIL", "bnb8": "PASS"}
    said = qeval("gate", "--policy", policy, code=3).stdout
    assert "prose (KL)" in said
    assert np.all([word in said for word in ("nats", "0.01")])
