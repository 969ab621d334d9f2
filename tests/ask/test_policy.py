"""Policies: what a file may say, and what each slip of the pen gets."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from qeval.ask import policy, suites
from qeval.base import rules
from qeval.base.errors import UsageError
from qeval.base.records import Policy, Rule
from qeval.judge import plan, sizing

FULL = """
[gate]
confidence = 0.9
allow_inconclusive = true
max_drop = 1

[[rule]]
tasks = "mmlu"
max_drop = 0.5

[[rule]]
tasks = "average"
min_recovery = 0.99
tier = "advisory"

[[rule]]
tasks = "wikitext"
max_ppl_ratio = 1.02
confidence = 0.99

[[rule]]
tasks = "mmlu_*"
variants = "gptq*"
metric = "acc"
max_flips = 0.05
"""


def write(tmp_path, text, name="policy.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_policy_file(tmp_path):
    path = write(tmp_path, FULL)
    assert policy.load(path) == Policy(
        (
            Rule(max_drop=1.0, confidence=0.9),
            Rule(tasks="mmlu", max_drop=0.5, confidence=0.9),
            Rule(tasks="average", min_recovery=0.99, tier="advisory", confidence=0.9),
            Rule(tasks="wikitext", max_ppl_ratio=1.02, confidence=0.99),
            Rule(tasks="mmlu_*", variants="gptq*", metric="acc", max_flips=0.05, confidence=0.9),
        ),
        allow_inconclusive=True,
        source=str(path),
    )


def test_a_pyproject_table_says_the_same(tmp_path):
    text = FULL.replace("[gate]", "[tool.qeval.gate]").replace("[[rule]]", "[[tool.qeval.gate.rule]]")
    project = policy.load(write(tmp_path, text, "pyproject.toml"))
    assert project.rules == policy.load(write(tmp_path, FULL)).rules
    assert project.allow_inconclusive


def test_the_name_of_a_file_decides_whether_it_is_a_pyproject(tmp_path):
    table = "[tool.qeval.gate]\nmax_drop = 1.0\n"
    (tmp_path / "ours.toml").write_text(table)
    with pytest.raises(
        UsageError, match=r"ours.toml has a table \[tool\], as a pyproject.toml has"
    ) as caught:
        policy.load(tmp_path / "ours.toml")
    assert caught.value.hint.startswith("Call the file pyproject.toml, or write [gate] for [tool.qeval.gate]")
    (tmp_path / "pyproject.toml").write_text(table)
    (tmp_path / "ours.toml").write_text(table.replace("tool.qeval.gate", "gate"))
    assert policy.load(tmp_path / "ours.toml").rules == policy.load(tmp_path / "pyproject.toml").rules


def test_a_pyproject_without_the_table(tmp_path):
    with pytest.raises(UsageError, match=r"no table \[tool.qeval.gate\]"):
        policy.load(write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gates]\n", "Did you mean 'gate'"),
        ("[gate]\nconfidance = 0.9\n[[rule]]\nmax_drop = 1", "Did you mean 'confidence'"),
        ("[[rule]]\nmax_dropp = 1", "Did you mean 'max_drop'"),
        ("[[rule]]\nmargin = 1", "Did you mean 'max_drop'"),
        ("[[rule]]\ntasks = 'mmlu'", "exactly one limit and has none"),
        ("[[rule]]\nmax_drop = 1\nmax_flips = 0.1", "max_drop and max_flips"),
        ("[[rule]]\nmax_drop = 0", "max_drop = 0 is not allowed"),
        ("[[rule]]\nmax_drop = -1", "above 0"),
        ("[[rule]]\nmax_drop = nan", "above 0"),
        ("[[rule]]\nmax_drop = '1'", "above 0"),
        ("[[rule]]\nmax_drop = true", "above 0"),
        ("[[rule]]\nmin_recovery = 1", "above 0 and below 1"),
        ("[[rule]]\nmin_recovery = 99", "above 0 and below 1"),
        ("[[rule]]\nmax_ppl_ratio = 0.98", "above 1"),
        ("[[rule]]\nmax_ppl_ratio = inf", "above 1"),
        ("[[rule]]\nmax_flips = 5", "such as 0.05"),
        ("[[rule]]\nmax_drop = 1\nconfidence = 0.5", "between 0.5 and 1"),
        ("[[rule]]\nmax_drop = 1\nconfidence = 1.0", "between 0.5 and 1"),
        ("[[rule]]\nmax_drop = 1\nconfidence = 95", "between 0.5 and 1"),
        ("[[rule]]\nmax_drop = 1\ntier = 'optional'", "advisory, required"),
        ("[[rule]]\nmax_drop = 1\ntasks = ''", "a name or a pattern"),
        ("[[rule]]\nmax_drop = 1\ntasks = ['a', 'b']", "a name or a pattern"),
        ("[gate]\nallow_limited = 'yes'\n[[rule]]\nmax_drop = 1", "true or false"),
        ("[[rule]]\nmax_drop = 1\ntier = 'advisory'", "no required rule"),
        ("", "no required rule"),
        ("rule = 'x'", "a list of tables"),
        ("rule = [1]", "rule 1 = 1 is not allowed. It must be a table"),
        ("gate = 'x'", "gate = 'x' is not allowed. It must be a table"),
        ("[[rule]]\nmax_drop = 1\n[[rule]]\nmax_drop = [1]", "rule 2: max_drop = [1] is not allowed"),
        ("[rule]\nmax_drop = 1", "a list of tables"),
        ("[gate]\nmax_drop = 1\nallow_limited = 1", "true or false"),
        ("[gate]\nmax_drop = 1\ntasks = 'x'", "there is no key 'tasks'"),
        ("[[rule]\n", "not valid TOML"),
    ],
)
def test_slips_are_one_sentence_and_a_remedy(tmp_path, text, says):
    with pytest.raises(UsageError) as caught:
        policy.load(write(tmp_path, text))
    assert says in str(caught.value)
    assert "policy.toml" in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.hint


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        policy.load(tmp_path / "none.toml")


def test_the_short_form():
    found = policy.from_max_drop(["mmlu=0.5", "1.0"], confidence=0.9)
    assert found.rules == (
        Rule(max_drop=1.0, confidence=0.9),
        Rule(tasks="mmlu", max_drop=0.5, confidence=0.9),
        Rule(metric="word_perplexity", max_ppl_ratio=1.10, confidence=0.9, required=False),
        Rule(metric="byte_perplexity", max_ppl_ratio=1.018, confidence=0.9, required=False),
    )
    assert found.source == "--max-drop mmlu=0.5 --max-drop 1.0"


def test_the_short_form_with_a_perplexity_ratio():
    found = policy.from_max_drop(["1"], max_ppl_ratio=1.02, allow_limited=True)
    assert found.rules == (Rule(max_drop=1.0), Rule(max_ppl_ratio=1.02))
    assert found.allow_limited


@pytest.mark.parametrize("word", ["", "x", "=1", "mmlu=", "mmlu=x", "0", "-1", "nan", "inf", "mmlu=0"])
def test_bad_short_forms(word):
    with pytest.raises(UsageError) as caught:
        policy.from_max_drop([word])
    assert caught.value.hint


@pytest.mark.parametrize("confidence", [0.5, 1.0, 0.0, -1.0, math.nan])
def test_bad_confidence_of_the_short_form(confidence):
    with pytest.raises(UsageError, match="confidence"):
        policy.from_max_drop(["1"], confidence=confidence)


def test_no_limit_at_all_could_never_fail():
    with pytest.raises(UsageError, match="could never fail"):
        policy.from_max_drop([])


def test_a_rule_in_words():
    assert rules.describe(Rule(max_drop=0.5)) == "max_drop 0.5"
    assert rules.limit_of(Rule(max_flips=0.05)) == ("max_flips", 0.05)
    with pytest.raises(UsageError):
        rules.limit_of(Rule())


def test_the_policy_that_comes_with_qeval_can_be_decided(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rules = policy.load(Path("leaderboard-v1"))
    suite = suites.load("leaderboard-v1")
    answers = {row.task: row.answer for row in plan.plan(suite, sizing.sizes(suite), rules)}
    assert answers.pop("wikitext") == "unknown"  # until a run tells how much its pages change
    assert len(answers) == 5
    assert set(answers.values()) == {"provable"}


def test_a_file_of_ones_own_goes_before_the_one_that_comes_with_qeval(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("leaderboard-v1").write_text("[gate]\nmax_drop = 9.0\n", "utf-8")
    assert policy.load(Path("leaderboard-v1")).rules[0].max_drop == 9.0
    for name in ("nothing-known", "../leaderboard-v1", "leaderboard-v1.toml"):
        with pytest.raises(UsageError, match="cannot be read"):
            policy.load(Path(name))


def test_two_rules_for_the_very_same_are_refused():
    one = {"tasks": "mmlu", "max_drop": 1.0}
    with pytest.raises(UsageError, match="rules 1 and 2 both say max_drop for the tasks 'mmlu'"):
        policy.parse({"rule": [one, {**one, "max_drop": 50.0}]}, "p.toml")
    with pytest.raises(UsageError, match="rules 1 and 2"):
        policy.parse({"rule": [one, {**one, "confidence": 0.6}]}, "p.toml")
    for other in ({"variants": "gptq"}, {"tier": "advisory"}, {"metric": "f1"}, {"tasks": "mmlu_*"}, {}):
        policy.parse({"rule": [one, {**one, "max_drop": 50.0, **other} if other else one]}, "p.toml")
    policy.parse({"gate": {"max_drop": 1.0}, "rule": [{"tasks": "*", "max_drop": 2.0}]}, "p.toml")


def test_a_gate_without_words_takes_the_table_of_the_pyproject_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="Nothing says what loss is allowed"):
        policy.demand(policy=None, max_drop=())
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname = 'x'\n")
    with pytest.raises(UsageError, match="Nothing says what loss is allowed"):
        policy.demand(policy=None, max_drop=())
    file.write_text("[tool.qeval.gate]\nmax_drop = 2.5\n")
    found = policy.demand(policy=None, max_drop=(), allow_limited=True)
    assert found.rules[0].max_drop == 2.5
    assert found.allow_limited
    named = policy.demand(policy=None, max_drop=("1",))  # what is said goes before the file
    assert named.rules[0].max_drop == 1.0
    assert named.source == "--max-drop 1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"policy": Path("p.toml"), "max_drop": ("1",)}, "exclude each other"),
        ({"confidence": 0.9}, "--confidence goes with"),
        ({"max_drop": ("1", "2")}, "given twice for all tasks: 1 and 2"),
        ({"max_drop": ("arc=1", "arc=2")}, "given twice for arc"),
        ({"allow_identical": True}, "--allow-identical is for a policy, and none is given"),
        ({"ungated": ("arc",)}, "--ungated is for a policy, and none is given"),
    ],
)
def test_words_that_contradict_or_forgive_nothing_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        policy.choose(**{"policy": None, "max_drop": (), **words})
