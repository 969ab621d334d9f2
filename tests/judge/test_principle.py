"""Exit code 0 implies that everything was proved or allowed by name, whatever the run and the policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, QUIZ, WIKI, conclude, make_run, without_cell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qeval.base.errors import Exit, QevalError
from qeval.base.records import Policy, Rule
from qeval.judge import checks

pytestmark = pytest.mark.slow

FAULTS = (
    "none",
    "cell",
    "failed",
    "partial",
    "model",
    "weights",
    "identical",
    "copied",
    "limited",
    "unproved",
    "plain",
    "nothing to lose",
    "cut",
)
LIMITS = st.sampled_from([{"max_drop": 60.0}, {"max_drop": 0.5}, {"max_ppl_ratio": 1.5}])
RULES = st.builds(
    lambda limit, tasks, variants, tier, required: Rule(
        tasks=tasks, variants=variants, tier=tier, required=required, **limit
    ),
    LIMITS,
    st.sampled_from(["*", "arc", "quiz", "quiz_macro", "quiz_*", "wiki", "nothing"]),
    st.sampled_from(["*", "bnb4", "gptq", "awq"]),
    st.sampled_from(["required", "required", "advisory"]),
    st.booleans(),
)
POLICIES = st.builds(
    Policy,
    st.lists(RULES, min_size=1, max_size=4).map(tuple),
    allow_limited=st.booleans(),
    allow_inconclusive=st.booleans(),
    allow_different_models=st.booleans(),
    allow_identical=st.booleans(),
    allow_unquantised=st.booleans(),
    ungated=st.sampled_from([(), (), ("wiki",), ("*",)]),
)
CASES = st.tuples(
    st.integers(2, 3),
    st.sampled_from([(ARC,), (ARC, WIKI), (QUIZ,), (ARC, QUIZ, WIKI)]),
    st.sampled_from(FAULTS),
    POLICIES,
)


def built(n_variants, tasks, fault):
    """A run whose last variant has a fault, and the reader of its samples."""
    limited = {"limit": 120, "n_available": 500} if fault == "limited" else {}
    run, read, _ = make_run(n_variants, tasks, 120, seed=3, churn=0.04, **limited)
    last = run.results[-1]
    name = last.variant.name
    changes = {
        "failed": {"status": "failed", "error": "no"},
        "partial": {"status": "partial", "cells": last.cells[:-1]},
        "model": {"variant": replace(last.variant, model="other")},
        "weights": {"provenance": replace(last.provenance, revision="1" * 40)},
        "plain": {"provenance": replace(last.provenance, quantised_share=0.59)},
        "cut": {"cells": (replace(last.cells[0], truncated=7), *last.cells[1:])},
        "unproved": {"cells": (replace(last.cells[0], unproved=("Nobody knows.",)), *last.cells[1:])},
    }
    if fault in changes:
        run = replace(run, results=(*run.results[:-1], replace(last, **changes[fault])))
    if fault == "cell":
        run = without_cell(run, name, last.cells[0].task.name)
    if fault in ("identical", "copied"):
        plain, task = read, last.cells[0].task.name if fault == "copied" else ""
        read = lambda cell: plain(replace(cell, key=cell.key.replace(f"{name}-{task}", f"fp16-{task}")))  # noqa: E731
    if fault == "nothing to lose":
        whole = read
        read = lambda cell: nothing_right(whole(cell)) if cell.key.startswith("fp16") else whole(cell)  # noqa: E731
    return run, read


def nothing_right(samples):
    """The samples of a baseline that answers nothing right; perplexities as they are."""
    return replace(samples, value=np.minimum(samples.value, 0.0))


def holds(case) -> bool:
    """The principle: where the gate says 0, each thing that may be wrong is right, or allowed by name."""
    n_variants, tasks, fault, policy = case
    run, read = built(n_variants, tasks, fault)
    try:
        outcome = conclude(run, read, policy)
    except QevalError as error:
        return error.exit_code != Exit.PASS
    if outcome.exit != Exit.PASS:
        return True
    said = " ".join(outcome.notes)
    proved = {(one.variant, one.task) for one in outcome.decisions if good(one, policy)}
    for result in run.results[1:]:
        for task in run.suite.tasks:
            rows = {(result.variant.name, task.name), (result.variant.name, f"{task.name}_macro")}
            if not (rows & proved) and not ("--ungated" in said and policy.ungated):
                return False
    allowed = {
        "none": True,
        "cell": bool(policy.ungated),
        "failed": False,
        "partial": False,
        "model": policy.allow_different_models and "--allow-different-models" in said,
        "weights": policy.allow_different_models and "--allow-different-models" in said,
        "identical": policy.allow_identical and "--allow-identical" in said,
        "copied": policy.allow_identical and "--allow-identical" in said,
        "limited": policy.allow_limited and "--allow-limited" in said,
        "unproved": bool(policy.ungated) and "--ungated" in said,
        "nothing to lose": bool(policy.ungated) and "--ungated" in said,
        "cut": bool(policy.ungated) and "--ungated" in said,
        "plain": policy.allow_unquantised and "--allow-unquantised" in said,
    }
    names = {result.variant.name for result in run.results[1:]}
    idle = [
        rule
        for rule in policy.rules
        if rule.required
        and rule.tier == "required"
        and ((rule.variants not in names and rule.variants != "*") or rule.tasks == "nothing")
    ]
    return allowed[fault] and not idle


def good(one, policy) -> bool:
    """Whether a required rule was judged PASS, or what is undecided may pass."""
    undecided = one.status == "INCONCLUSIVE" and policy.allow_inconclusive
    return one.rule.tier == "required" and (one.status == "PASS" or undecided)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(CASES)
def test_exit_0_implies_the_principle(case) -> None:
    assert holds(case)


WIDE = Rule(max_drop=60.0)
WITNESSES = {
    "every_variant_is_whole": (
        3,
        (ARC,),
        "failed",
        Policy((replace(WIDE, variants="bnb4"),), ungated=("*",)),
    ),
    "every_cell_is_proved": (2, (ARC,), "unproved", Policy((WIDE,))),
    "every_task_is_judged": (2, (ARC, WIKI), "none", Policy((WIDE,))),
    "every_rule_concerns_somebody": (2, (ARC,), "none", Policy((WIDE, replace(WIDE, variants="awq")))),
    "one_model": (2, (ARC,), "model", Policy((WIDE,))),
    "not_the_baseline_again": (2, (ARC,), "identical", Policy((WIDE,))),
    "something_can_be_lost": (2, (ARC,), "nothing to lose", Policy((WIDE,), allow_inconclusive=True)),
    "weights_are_quantised": (2, (ARC,), "plain", Policy((WIDE,), allow_inconclusive=True)),
}


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_each_check_is_needed(check, monkeypatch) -> None:
    case = WITNESSES[check.__name__]
    assert holds(case)
    monkeypatch.setattr(checks, "CHECKS", tuple(one for one in checks.CHECKS if one is not check))
    assert not holds(case)
