"""What must hold beside the rules: a run that passes, and each check in turn as all that stops it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import ARC, TRUTH, WIKI, conclude, edited, make_run, with_cell
from stored import changed

from qeval.ask.policy import load
from qeval.base.errors import Exit
from qeval.base.next_steps import Standing, State
from qeval.base.places import tasks_dir
from qeval.base.records import Policy, Rule, Stop, Task
from qeval.compare.evidence import gather
from qeval.judge.checks import CHECKS
from qeval.judge.gate import conclude as judged
from qeval.judge.redacted import without_paths

WIDE = Policy((Rule(max_drop=60.0), Rule(max_ppl_ratio=9.0)), source="rules.toml")
OTHERS = tuple(Task(name, "acc_norm", num_fewshot=25, chance=0.25) for name in ("brc", "crc", "drc", "erc"))
PLAIN = {"quantised_share": 0.4}


def passing(*tasks):
    return make_run(2, (ARC, WIKI, *tasks), 300, churn=0.05, seed=3)


def candidate(made, **changes):
    """The candidate with fields of its record changed."""
    return changed(made, 1, **changes)


def provenance(made, **changes):
    return candidate(made, provenance=replace(made[0].results[1].provenance, **changes))


def baseline_again(made, *tasks):
    """The candidate has the baseline's own items in these tasks."""
    run, read, items = made
    for task in tasks:
        own = read(next(cell for cell in run.results[0].cells if cell.task.name == task))
        read = edited(read, f"bnb4-{task}", value=own.value, answer=own.answer, scores=own.scores)
    return run, read, items


def unproved(made, said):
    return with_cell(made[0], "bnb4", "arc", unproved=(said,)), *made[1:]


CASES = {
    "every_variant_is_whole": (
        lambda made: candidate(made, status="partial"),
        {},
        Exit.MISSING,
        "bnb4 was not fully scored: run the same command again.",
    ),
    "every_cell_is_proved": (
        lambda made: unproved(made, "its prompts are not known."),
        {"ungated": ("arc",)},
        Exit.MISSING,
        "its prompts are not known. Settle it, or exempt the task with --ungated arc.",
    ),
    "every_task_is_judged": (
        lambda made: made,
        {"ungated": ("wiki",)},
        Exit.MISSING,
        "wiki is judged by no required rule: add one, or exempt it with --ungated wiki.",
    ),
    "one_model": (
        lambda made: candidate(made, variant=replace(made[0].results[1].variant, model="another")),
        {"allow_different_models": True},
        Exit.MISSING,
        "pass --allow-different-models.",
    ),
    "not_the_baseline_again": (
        lambda made: baseline_again(made, "arc"),
        {"allow_identical": True},
        Exit.MISSING,
        "the same numbers as the baseline on all 300 items of arc: is this the same model?",
    ),
    "something_can_be_lost": (
        lambda made: (made[0], edited(made[1], "fp16-arc", value=np.zeros(300)), made[2]),
        {"ungated": ("arc",)},
        Exit.INCONCLUSIVE,
        "fp16, the baseline, scored 0 on all 300 items of arc, so nothing can be lost there",
    ),
    "weights_are_quantised": (
        lambda made: provenance(made, **PLAIN),
        {"allow_unquantised": True},
        Exit.INCONCLUSIVE,
        "only 40% of the weights are quantised",
    ),
}
"""By check: what is done to a run that passes, what lets it pass all the same, the exit code, the words."""


def test_the_run_passes_and_every_check_has_a_case() -> None:
    run, read, _ = passing()
    assert conclude(run, read, WIDE).exit == Exit.PASS
    apart = {"every_rule_concerns_somebody"}  # below
    assert {check.__name__ for check in CHECKS} == set(CASES) | apart


@pytest.mark.parametrize("check", CASES)
def test_a_single_doubt_keeps_a_variant_from_passing(check: str) -> None:
    change, allowing, code, words = CASES[check]
    run, read, _ = change(passing())
    policy = replace(WIDE, rules=WIDE.rules[: 1 if check == "every_task_is_judged" else 2])
    outcome = conclude(run, read, policy)
    assert outcome.exit == code
    assert outcome.verdicts["bnb4"] != "PASS"
    assert [one.reason for one in outcome.decisions if words in one.reason]
    if allowing:
        outcome = conclude(run, read, replace(policy, **allowing))
        assert outcome.exit == Exit.PASS
        assert any(note.startswith("Allowed by --") for note in outcome.notes)


def test_a_baseline_that_is_not_whole_lets_nobody_pass() -> None:
    run, read, _ = changed(passing(), 0, status="partial")
    outcome = conclude(run, read, WIDE)
    assert outcome.exit == Exit.MISSING
    assert any("fp16 was not fully scored" in one.reason for one in outcome.decisions)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("", "run the same command again."),
        ("scored", "the run is scored, not finished."),
        ("prepared", "the run is prepared, and bnb4 is not scored yet."),
    ],
)
def test_one_that_is_not_whole_is_said_to_stand_as_its_run_does(state: State, why: str) -> None:
    """The same command again would only prepare a prepared run, and scores nothing of a scored one."""
    run, read, _ = candidate(passing(), status="partial")
    evidence = replace(gather(run, read), standing={run.id: Standing(state)})
    said = [one.reason for one in judged(evidence, WIDE).decisions]
    assert f"bnb4: bnb4 was not fully scored: {why}" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "failed", "error": "No kernel."}, "bnb4 failed: No kernel."),
        ({"status": "failed"}, "bnb4 failed, so it has no result."),
    ],
)
def test_one_that_failed_is_said_to_have(changes: dict[str, object], why: str) -> None:
    """The same command again need not help."""
    run, read, _ = candidate(passing(), **changes)
    nothing = Policy((Rule(tasks="nothing", max_drop=1.0, required=False),))
    said = [one.reason for one in judged(gather(run, read), nothing).decisions]
    assert f"bnb4: {why}" in said


def test_of_many_tasks_with_the_baselines_numbers_three_are_named() -> None:
    made = passing(*OTHERS)
    run, read, _ = baseline_again(made, "arc", "brc", "crc", "drc")
    said = [one.reason for one in conclude(run, read, WIDE).decisions]
    assert any("on all 1200 items of arc, brc, crc and 1 more:" in one for one in said)


def test_perplexities_alone_can_be_the_baselines_own_and_scores_without_numbers_cannot_tell() -> None:
    run, read, _ = baseline_again(make_run(2, (ARC, WIKI, TRUTH), 300, churn=0.05, seed=3), "wiki", "truth")
    said = [one.reason for one in conclude(run, read, WIDE).decisions]
    assert any("on all 300 items of wiki: is this" in one for one in said)
    assert not any("truth" in one and "same numbers" in one for one in said)


@pytest.mark.parametrize(
    ("rule", "source", "words"),
    [
        (Rule("hella*", max_drop=60.0), "rules.toml", "write required = false under the rule."),
        (
            Rule("hella*", max_drop=60.0),
            "--max-drop",
            "Name something that the run has, or leave that limit out.",
        ),
        (Rule("arc", variants="gptq*", max_drop=60.0), "rules.toml", "this run has no 'gptq*'"),
        (Rule("arc", metric="f1", max_drop=60.0), "rules.toml", "this run has no 'arc' with the metric f1."),
        (
            Rule("*", metric="f1", max_drop=60.0),
            "rules.toml",
            "no task with the metric f1. Known: acc_norm. Name",
        ),
        (Rule("prose", max_kl=0.1), "rules.toml", "qeval fidelity can measure it now."),
    ],
)
def test_a_required_rule_that_applies_to_nothing_has_a_way_out(rule: Rule, source: str, words: str) -> None:
    run, read, _ = passing()
    policy = replace(WIDE, rules=(*WIDE.rules, rule), source=source)
    outcome = conclude(run, read, policy)
    assert outcome.exit == Exit.MISSING
    assert any(words in one.reason for one in outcome.decisions)
    forgiven = replace(policy, rules=(*WIDE.rules, replace(rule, required=False)))
    assert conclude(run, read, forgiven).exit == Exit.PASS


def test_a_shipped_policy_on_another_suite_names_the_suite() -> None:
    run, read, _ = passing()
    file = tasks_dir() / "policies" / "leaderboard-v1.toml"
    assert file.is_file()
    said = [one.reason for one in conclude(run, read, load(Path(file))).decisions]
    assert any("That policy is for the suite leaderboard-v1: judge this run with" in one for one in said)


# --- scoring that ended early -------------------------------------------------------------------


def test_a_stop_fails_by_its_own_rule_and_is_missing_under_another() -> None:
    made = passing()
    stop = Stop("arc", WIDE.rules[0], 120, 300)
    run, read, _ = candidate(made, status="stopped", stop=stop)
    outcome = conclude(run, read, WIDE)
    assert outcome.exit == Exit.FAILED
    assert any("certain to break the rule" in one.reason for one in outcome.decisions)
    other = replace(WIDE, rules=(Rule(max_drop=59.0), WIDE.rules[1]))
    outcome = conclude(run, read, other)
    assert outcome.exit == Exit.MISSING
    assert any(
        "stopped early after 120 of 300 items, as another rule" in one.reason for one in outcome.decisions
    )


# --- without paths ------------------------------------------------------------------------------


def test_what_is_left_out_changes_no_verdict() -> None:
    run, read, _ = passing()
    results = tuple(
        replace(one, variant=replace(one.variant, model="/home/me/secret/model")) for one in run.results
    )
    run = replace(run, model="/home/me/secret/model", results=results)
    mine = Rule("prompts:mine.txt", max_kl=0.1, required=False)
    policy = replace(WIDE, rules=(*WIDE.rules, mine), source="/home/me/secret/rules.toml")
    evidence = gather(run, read)
    outcome = conclude(run, read, policy)
    shown = without_paths(outcome, evidence)
    assert (shown.exit, list(shown.verdicts.values())) == (outcome.exit, list(outcome.verdicts.values()))
    assert [one.status for one in shown.decisions] == [one.status for one in outcome.decisions]
    assert [one.comparison for one in shown.decisions] == [one.comparison for one in outcome.decisions]
    assert "secret" in repr(outcome)
    assert "secret" not in repr(shown)
    assert "mine.txt" not in repr(shown)
    assert "prompts:[file 1]" in repr(shown)
    assert np.isfinite([one.comparison.low for one in shown.decisions if one.comparison]).all()


@pytest.mark.parametrize("average", [("arc", "wiki"), ("arc", "nobody")])
def test_an_average_that_cannot_be_is_missing_where_a_rule_asks_for_it(average):
    """A mean of a score and a log-likelihood says nothing, whatever its interval."""
    run, read, _ = passing()
    run = replace(run, suite=replace(run.suite, average=average))
    policy = Policy((*WIDE.rules, Rule(tasks="average", max_drop=60.0)), source="rules.toml")
    assert conclude(run, read, policy).verdicts == {"bnb4": "MISSING"}
    plain = replace(run, suite=replace(run.suite, average=("arc",)))
    assert conclude(plain, read, policy).verdicts == {"bnb4": "PASS"}
