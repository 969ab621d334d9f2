"""What the gate writes: for a person, for CI servers, for GitHub and for badges."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import pytest
from factories import ARC, TRUTH, WIKI, conclude, judge, make_run, with_cell, without_cell

from qeval.ask import policy
from qeval.base import layout, numbers
from qeval.base.errors import Exit
from qeval.base.invented import INVENTED
from qeval.base.records import Decision, Policy, Rule, Scheme
from qeval.judge import formats, reasons
from qeval.judge.formats import github
from qeval.judge.formats.badge import badge
from qeval.judge.formats.cells import cells
from qeval.judge.formats.json import document, to_json
from qeval.judge.formats.junit import junit
from qeval.judge.formats.table import table
from qeval.score import toy

NASTY = "a|b`<script>&@x\x00\n::error::%\u202e"

# What Jenkins' junit-10.xsd asks of the elements that we write, in our words: for each element the
# attributes it must have, those it may have, and the elements it may hold.
JUNIT = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {"tests", "name", "failures", "errors"},  # the last three are required by older versions only
        {"time", "disabled", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"assertions", "time", "timestamp", "classname", "status", "class", "file", "line", "group", "url"},
        {"skipped", "error", "failure", "rerunFailure", "rerunError", "system-out", "system-err"},
    ),
    **{name: (set(), {"type", "message"}, set()) for name in ("skipped", "error", "failure")},
    "system-out": (set(), set(), set()),
}

SHIELD = {
    "type": "object",
    "required": ["schemaVersion", "label", "message"],
    "additionalProperties": False,
    "properties": {
        "schemaVersion": {"const": 1},
        "label": {"type": "string"},
        "message": {"type": "string", "minLength": 1},
        "color": {"enum": ["brightgreen", "yellow", "red", "lightgrey"]},
    },
}


@pytest.fixture(scope="module")
def mixed():
    """PASS, FAIL, INCONCLUSIVE and MISSING, required and advisory, of four variants."""
    run, read, _ = make_run(4, (ARC, TRUTH, WIKI), 1500, -0.03, churn=0.1, seed=5)
    rules = (
        Rule(max_drop=3.0),
        Rule(tasks="truth", max_drop=5.0),
        Rule(tasks="arc", variants="gptq", max_drop=0.5),
        Rule(max_ppl_ratio=1.01, tier="advisory"),
        Rule(tasks="arc", max_flips=0.2),
    )
    return conclude(without_cell(run, "awq", "truth"), read, Policy(rules, source="mixed.toml"))


def nasty(outcome):
    """The same with names that break out of every format that does not escape."""
    decisions = tuple(
        replace(one, variant=NASTY, reason=f"{NASTY} {one.reason}") for one in outcome.decisions
    )
    return replace(
        outcome, suite=NASTY, baseline=NASTY, decisions=decisions, verdicts={NASTY: "FAIL"}, notes=(NASTY,)
    )


def test_the_mixture_has_everything(mixed):
    assert {one.status for one in mixed.decisions} == {"PASS", "FAIL", "INCONCLUSIVE", "MISSING"}
    assert {one.rule.tier for one in mixed.decisions} == {"required", "advisory"}
    assert mixed.exit == Exit.FAILED


# --- words and digits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "limit", "expected"),
    [
        ((2.04,), 2.0, ["2.04"]),  # 2.0 would look allowed
        ((1.96,), 2.0, ["1.96"]),
        ((2.0,), 2.0, ["2.0"]),
        ((2.06,), 2.0, ["2.1"]),
        ((1.0004, 0.3), 1.0, ["1.0004", "0.3000"]),
        ((0.96, 1.04), 1.0, ["0.96", "1.04"]),
        ((-0.04,), 0.5, ["0.0"]),
        ((-0.34,), 0.5, ["-0.3"]),
        ((-math.inf, math.inf), 1.0, ["-inf", "inf"]),
        ((2.0 + 1e-9,), 2.0, ["2.000000001"]),
        ((5 - 7e-15,), 5.0, ["5.0"]),  # a float's last digits are no loss
    ],
)
def test_rounding_never_crosses_the_limit(values, limit, expected):
    digits = numbers.digits_to_keep(values, (limit,), least=1)
    assert [numbers.plain(value, digits) for value in values] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, "1.0"), (0.25, "0.25"), (1 / 3, "0.333333333333"), (100 * 0.07, "7.0"), (1e-7, "0.0000001")],
)
def test_a_limit_is_shown_as_written(value, expected):
    assert numbers.as_written(value) == expected


@pytest.mark.parametrize(("number", "expected"), [(7, "7"), (99, "99"), (5180, "5200"), (101, "110")])
def test_rough_numbers(number, expected):
    assert numbers.roughly(number) == expected


def one_decision(rule, task=ARC, **factory):
    run, read, _ = make_run(2, (task,), **factory)
    return judge(run, read, Policy((rule,)))[0]


def test_the_sentence_of_a_drop():
    one = one_decision(Rule(max_drop=1.0), n_items=2000, effect=-0.02, churn=0.14, seed=5)
    assert re.fullmatch(
        r"arc: Δ -\d\.\d\d points \(90% interval -\d\.\d\d to [-+]?\d\.\d\d\), -1 allowed: undecided; "
        r"at this Δ and churn about \d+ more items would decide it \(\d+ in all; there are only 2000\), "
        r"and it would then fail if Δ stays as it is\.",
        one.reason,
    )


@pytest.mark.parametrize("n_available", [2000, 2_000_000])
def test_the_words_and_the_document_count_the_same_items(n_available):
    task = replace(ARC, limit=2000) if n_available > 2000 else ARC
    run, read, _ = make_run(2, (task,), n_items=2000, effect=-0.02, churn=0.14, seed=5)
    for name in ("fp16", "bnb4"):
        run = with_cell(run, name, "arc", n_available=n_available)
    outcome = conclude(run, read, Policy((Rule(max_drop=1.0),)))
    (one,) = json.loads(formats.formats()["json"].render(outcome))["decisions"]
    told = re.search(
        r"about (\d+) more items would decide it \((\d+) in all; there are (only )?(\d+)\)", one["reason"]
    )
    assert told is not None
    more, total = one["items_needed_more"], one["items_needed_total"]
    assert total == 2000 + more
    assert int(told[1]) == int(numbers.roughly(more))
    assert int(told[2]) == 2000 + int(told[1])
    assert (int(told[4]), told[3] is None) == (n_available, n_available > 2000)


@pytest.mark.parametrize(
    ("rule", "effect", "what"),
    [
        (Rule(max_drop=3.0), -0.05, "Δ"),
        (Rule(max_drop=3.0), -0.01, None),
        (Rule(min_recovery=0.92), -0.05, "Δ"),
        (Rule(max_flips=0.12), 0.0, "what was measured"),
    ],
)
def test_where_more_items_would_mean_failing_every_format_says_so(rule, effect, what):
    run, read, _ = make_run(2, (ARC,), n_items=200, effect=effect, churn=0.1, seed=4)
    outcome = conclude(run, read, Policy((rule,)))
    (one,) = [one for one in outcome.decisions if one.rule == rule]
    assert one.status == "INCONCLUSIVE"
    assert ("would then fail" in one.reason) == (what is not None) == (one.comparison.delta < -one.allowed)
    if what:
        assert one.reason.endswith(f", and it would then fail if {what} stays as it is.")
    for name, form in formats.formats().items():
        if name != "badge":
            assert ("would then fail if" in form.render(outcome)) == (what is not None)


def test_the_sentence_of_a_gain():
    one = one_decision(Rule(max_drop=1.0), n_items=3000, effect=0.02)
    assert re.fullmatch(
        r"arc: Δ \+\d\.\d\d points \(90% interval \+\d\.\d\d to \+\d\.\d\d\), -1 allowed: passes\.",
        one.reason,
    )


def test_the_sentences_of_the_other_limits():
    ratio = one_decision(Rule(max_ppl_ratio=1.05), WIKI, effect=-0.02)
    assert re.fullmatch(
        r"wiki: perplexity x1\.\d{3} \(90% interval x1\.\d{3} to x1\.\d{3}\), "
        r"x1\.05 allowed: passes\.",
        ratio.reason,
    )
    flips = one_decision(Rule(max_flips=0.05), n_items=3000)
    assert re.fullmatch(
        r"arc: \d+\.\d% of answers changed \(90% interval [\d.]+% to [\d.]+%\), 5% allowed: fails\.",
        flips.reason,
    )
    recovery = one_decision(Rule(min_recovery=0.9), n_items=3000)
    assert recovery.reason.endswith("allowed to keep 90% of the baseline's score: passes.")


def test_the_numbers_in_a_sentence_stand_on_the_side_of_the_verdict():
    for seed in range(30):
        one = one_decision(Rule(max_drop=2.0), n_items=700, effect=-0.02, churn=0.1, seed=seed)
        text = reasons.shown(one.rule, one.comparison, one.allowed)
        low, high = float(text.low), float(text.high)
        shown = "PASS" if low > -2 else "FAIL" if high < -2 else "INCONCLUSIVE"
        assert shown == one.status


# --- table and JSON -----------------------------------------------------------------------------


def test_the_table_shows_every_decision_reason_and_note(mixed):
    text = table(mixed, every=True)
    lines = text.splitlines()
    assert lines[0] == mixed.headline
    assert lines[0].startswith("FAIL: toy@0000")
    assert lines[0].endswith("bnb4, gptq, awq against fp16, by mixed.toml")
    assert "Δ (90% interval)" in text
    for one in mixed.decisions:
        assert any(line.split()[:2] == [one.variant, one.task] for line in lines)
        if one.status != "PASS":
            assert one.reason in text
    for name, status in mixed.verdicts.items():
        assert f"{status}: {name}" in lines


def test_only_what_did_not_pass_has_a_row_unless_more_is_asked_for(mixed):
    lines = table(mixed).splitlines()
    passed = [one for one in mixed.decisions if one.status == "PASS"]
    rows = [line for line in lines if line.split()[:1] in ([name] for name in mixed.verdicts)]
    assert len(rows) == len(mixed.decisions) - len(passed)
    assert not any(line.rstrip().endswith(" PASS") for line in lines)
    assert f"{len(passed)} more rules passed (--verbose shows each)." in lines
    held = replace(mixed, decisions=tuple(passed))
    assert "All rules passed (--verbose shows each)." in table(held)
    assert "Δ (90% interval)" not in table(held)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_a_terminal_and_names_verdict_and_model_first(mixed, width):
    text = layout.fitted(table(mixed, width, every=True), width)
    assert layout.widest(text) <= width
    assert text.startswith("FAIL: toy@0000")
    rows = [line for line in text.splitlines() if line.startswith(("bnb4", "gptq", "awq"))]
    assert len(rows) >= len(mixed.decisions)


def test_the_table_of_mixed_confidences_names_none():
    run, read, _ = make_run(2, (ARC, WIKI), 50)
    rules = (Rule(max_drop=1.0), Rule(max_ppl_ratio=1.1, confidence=0.99))
    assert "Δ (interval)" in table(conclude(run, read, Policy(rules)))


def test_forgiveness_is_printed_everywhere():
    run, read, _ = make_run(2, (ARC,), 50)
    forgiving = policy.from_max_drop(["1"], allow_limited=True, allow_inconclusive=True)
    outcome = conclude(run, read, forgiving)
    assert outcome.exit == Exit.PASS
    for name in ("table", "json", "junit", "github"):
        text = formats.formats()[name].render(outcome).replace("\\", "")
        assert "--allow-limited" in text
        assert "--allow-inconclusive" in text


def test_the_json_document(mixed):
    found = json.loads(to_json(mixed))
    assert found["schema"] == "qeval.gate/1"
    assert found["exit_code"] == 3
    assert found["verdicts"] == mixed.verdicts
    assert len(found["decisions"]) == len(mixed.decisions)
    for shown, one in zip(found["decisions"], mixed.decisions, strict=True):
        assert (shown["variant"], shown["task"], shown["status"]) == (one.variant, one.task, one.status)
        if one.comparison is None:
            assert shown["comparison"] is None
        else:
            assert (shown["comparison"]["low"], shown["comparison"]["n"]) == (one.comparison.low, 1500)


def test_the_json_of_an_infinite_bound_is_null():
    run, read, _ = make_run(2, (WIKI,), 50)
    run = with_cell(run, "bnb4", "wiki", files={})
    found = document(conclude(run, read, Policy((Rule(max_ppl_ratio=1.1),))))
    assert found["decisions"][0]["status"] == "INCONCLUSIVE"
    assert (found["decisions"][0]["comparison"]["low"], found["decisions"][0]["items_needed_more"]) == (
        None,
        None,
    )
    json.dumps(found, allow_nan=False)


# --- JUnit --------------------------------------------------------------------------------------


def check_junit(element):
    required, optional, children = JUNIT[element.tag]
    assert required <= set(element.keys()) <= required | optional, element.attrib
    for child in element:
        assert child.tag in children
        check_junit(child)


def test_junit_is_valid_and_counts_right(mixed):
    for outcome in (mixed, nasty(mixed), replace(mixed, decisions=())):
        root = ET.fromstring(junit(outcome))
        check_junit(root)
        assert len(root) == len(outcome.verdicts)
        for suite in root:
            for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
                assert int(suite.get(attribute)) == len(suite.findall(f"testcase/{tag}"))
            assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(root.get("tests")) == len(outcome.decisions)


@pytest.mark.parametrize("ends", ["\n", "\r", "\x0b", "\x1d", "\x85", "\u2028", "\u2029"])
def test_no_name_begins_a_line_of_its_own(mixed, ends):
    name = f"x{ends}PASS: bnb4"
    named = replace(nasty(mixed), model=name, suite=name, baseline=name, verdicts={name: "FAIL"})
    named = replace(named, notes=(name,), findings={name: name}, forgiven=(name,))
    assert len(named.headline.splitlines()) == 1
    assert named.headline.startswith("FAIL: x PASS: bnb4")
    for text in (table(named), junit(named), github.github_summary(named), *github.github_annotations(named)):
        assert not [line for line in text.splitlines() if line.lstrip().startswith("PASS: bnb4")]
    for element in ET.fromstring(junit(named)).iter():
        assert not [value for value in element.attrib.values() if len(value.splitlines()) > 1]


@pytest.mark.parametrize(("allowed", "undecided"), [(False, "failure"), (True, "skipped")])
def test_junit_maps_each_status(mixed, allowed, undecided):
    told = replace(mixed, policy=replace(mixed.policy, allow_inconclusive=allowed))
    root = ET.fromstring(junit(told))
    cases = [case for suite in root for case in suite.findall("testcase")]
    expected = {"PASS": None, "FAIL": "failure", "INCONCLUSIVE": undecided, "MISSING": "error"}
    assert len({case.get("classname") + case.get("name") for case in cases}) == len(cases)
    for case, one in zip(cases, told.decisions, strict=True):
        tag = expected[one.status] if one.rule.tier == "required" or one.status == "PASS" else "skipped"
        assert [child.tag for child in case] == ([tag] if tag else [])
        if tag:
            assert case[0].get("message") == one.reason
            assert case[0].get("type").startswith(one.status)


@pytest.mark.parametrize("limit", [None, 100])
@pytest.mark.parametrize("allow_limited", [False, True])
@pytest.mark.parametrize("allow_inconclusive", [False, True])
@pytest.mark.parametrize("drop", [2.0, 60.0])
def test_junit_is_red_exactly_where_the_exit_code_is(drop, allow_inconclusive, allow_limited, limit):
    run, read, _ = make_run(2, (ARC,), 100, seed=3, limit=limit, n_available=1000 if limit else None)
    policy_ = Policy((Rule(max_drop=drop),), allow_limited, allow_inconclusive)
    outcome = conclude(run, read, policy_)
    root = ET.fromstring(junit(outcome))
    assert (int(root.get("failures")) + int(root.get("errors")) > 0) == (outcome.exit != Exit.PASS)


# --- GitHub and badges --------------------------------------------------------------------------


def test_the_step_summary(mixed):
    text = github.github_summary(mixed)
    assert text.startswith("## FAIL: toy@")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 + len(mixed.decisions)
    assert "- **FAIL** gptq: arc: " in text


def test_the_step_summary_folds_what_passed(mixed):
    opened, _, folded = github.github_summary(mixed).partition("<details><summary>")
    passed = sum(one.status == "PASS" for one in mixed.decisions)
    assert folded.startswith(f"{passed} rules passed</summary>\n\n| variant")
    assert opened.count("| PASS |") == 0
    assert folded.count("| PASS |") == passed
    assert folded.endswith("\n</details>\n")
    held = replace(mixed, decisions=tuple(one for one in mixed.decisions if one.status == "PASS"))
    assert "| variant" not in github.github_summary(held).partition("<details>")[0]


def test_the_step_summary_takes_names_literally(mixed):
    text = github.github_summary(nasty(mixed))
    assert "<script>" not in text
    assert "@x" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == 8


@pytest.mark.parametrize(
    ("times", "most"), [(130, (1 << 16,)), pytest.param(2000, (), marks=pytest.mark.slow)]
)
def test_the_step_summary_fits_githubs_limit(mixed, times, most):
    whole = replace(mixed, decisions=mixed.decisions * times)
    text = github.github_summary(whole, *most)
    limit = most[0] if most else github.SUMMARY_BYTES
    assert len(text.encode()) <= limit
    kept = sum(line.startswith("| ") for line in text.splitlines()) - 2
    left_out = int(re.search(r"\n(\d+) more rows did not fit", text).group(1))
    assert kept + left_out == len(whole.decisions)
    assert len(text.encode()) > 0.99 * limit


def test_annotations_name_what_did_not_pass(mixed):
    lines = github.github_annotations(mixed)
    bad = [one for one in mixed.decisions if one.status != "PASS"]
    notices = [one for one in lines if one.startswith("::notice title=qeval::")]
    assert len(notices) == 1
    lines = [one for one in lines if one not in notices and "title=qeval%3A note::" not in one]
    assert len(lines) == len(bad)
    by_level = [line.split()[0] for line in lines]
    required = [one for one in bad if one.rule.tier == "required"]
    assert by_level.count("::error") == sum(one.status in ("FAIL", "MISSING") for one in required)
    assert by_level.count("::notice") == len(bad) - len(required)


def test_annotations_cannot_be_broken_out_of(mixed):
    for line in github.github_annotations(nasty(mixed)):
        assert "\n" not in line
        assert re.fullmatch(r"::(error|warning|notice) title=[^:,]*::.*", line)
        assert "%25" in line


def test_annotations_are_as_many_as_github_shows(mixed):
    many = replace(mixed, decisions=mixed.decisions * 20)
    lines = github.github_annotations(many)
    for level in ("error", "warning", "notice"):
        mine = [line for line in lines if line.startswith(f"::{level} ") and "title=qeval::" not in line]
        assert len(mine) <= github.ANNOTATIONS
    failed = 20 * sum(
        one.status in ("FAIL", "MISSING") for one in mixed.decisions if one.rule.tier == "required"
    )
    assert f"::error title=qeval::{failed - 9} more are in the step's summary." in lines


@pytest.mark.parametrize(
    ("verdicts", "message", "colour"),
    [
        ({"bnb4": "PASS"}, "bnb4 pass", "brightgreen"),
        ({"bnb4": "PASS", "gptq": "INCONCLUSIVE"}, "bnb4 pass, gptq inconclusive", "yellow"),
        ({"bnb4": "FAIL", "gptq": "MISSING"}, "bnb4 fail, gptq missing", "red"),
        ({"bnb4": "MISSING"}, "bnb4 missing", "lightgrey"),
        (dict.fromkeys("abcd", "PASS"), "4 pass", "brightgreen"),
        ({**dict.fromkeys("abc", "PASS"), "d": "FAIL"}, "3 pass, 1 fail", "red"),
        ({}, "not judged", "lightgrey"),
    ],
)
def test_the_badge(mixed, verdicts, message, colour):
    found = json.loads(badge(replace(mixed, verdicts=verdicts)))
    jsonschema.validate(found, SHIELD)
    assert (found["message"], found["color"]) == (message, colour)


def test_publishing_writes_files_and_githubs(mixed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "summary.md").write_text("before\n")
    formats.publish(mixed, {"junit": tmp_path / "j.xml", "badge": tmp_path / "b.json"})
    assert (tmp_path / "j.xml").read_text(encoding="utf-8") == junit(mixed)
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == badge(mixed)
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == "before\n" + github.github_summary(mixed)
    assert capsys.readouterr().err.splitlines() == list(github.github_annotations(mixed))


@pytest.mark.parametrize("place", ["", "nowhere/summary.md", "file/summary.md"])
def test_a_summary_that_cannot_be_written_costs_no_verdict(mixed, tmp_path, monkeypatch, capsys, place):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / place))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    formats.publish(mixed, {"badge": tmp_path / "b.json"})
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == badge(mixed)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("Warning: the step summary was not written. ")
    assert said.endswith("Set GITHUB_STEP_SUMMARY to a file, or unset it.")


def test_publishing_elsewhere_is_silent(mixed, monkeypatch, capsys):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    formats.publish(mixed, {})
    assert capsys.readouterr() == ("", "")


def test_a_missing_decision_has_no_numbers_in_the_table(mixed):
    rule = Rule(max_drop=1.0)
    one = Decision(rule, "gptq", "arc", "MISSING", "arc: gptq failed.")
    assert cells(mixed, one) == ("gptq", "arc", "", "", "", "-1", "MISSING")


def test_every_output_says_first_that_the_toy_invented_its_numbers(mixed) -> None:
    run, read, _ = make_run(2, (ARC,), 1500, 0.0, churn=0.05)
    told = [
        replace(one, provenance=replace(one.provenance, notes=toy.provenance(Scheme("gptq")).notes))
        for one in run.results
    ]
    outcome = conclude(replace(run, results=tuple(told)), read, Policy((Rule(max_drop=30.0),)))
    assert outcome.exit == Exit.PASS
    assert table(outcome).startswith("PASS (every number is invented): ")
    assert github.github_summary(outcome).startswith("## PASS (every number is invented): ")
    assert "(every number is invented)" in github.github_annotations(outcome)[0]
    assert "(every number is invented)" in junit(outcome).splitlines()[1]
    assert document(outcome)["headline"] == outcome.headline
    assert document(outcome)["verdict"] == "PASS"
    assert json.loads(badge(outcome))["message"].endswith(" (invented numbers)")
    assert outcome.notes[0] == outcome.forgiven[0] == INVENTED
    assert "invented" not in table(mixed) + badge(mixed)


def test_a_rule_that_is_too_close_to_its_limit_is_given_no_number():
    one = one_decision(Rule(max_drop=2.0), n_items=100, effect=-0.021, churn=0.3, seed=5)
    far = one_decision(
        Rule(max_drop=100 * -one.comparison.delta + 0.05), n_items=100, effect=-0.021, churn=0.3, seed=5
    )
    assert far.reason.partition(": undecided; ")[2].startswith("it is so close to the limit that over 100")


def test_a_task_whose_baseline_has_nothing_to_lose_has_one_row():
    run, read, _ = make_run(2, (ARC,), 200, churn=0.1, seed=5)
    alike = {cell.key: replace(read(cell), answer=np.full(200, "A")) for r in run.results for cell in r.cells}
    made = conclude(run, lambda cell: alike[cell.key], Policy((Rule(max_drop=0.5),)))
    assert [one.task for one in made.decisions] == ["arc", "arc"]
    [row] = [line for line in table(made, every=True).splitlines() if line.startswith("bnb4  ")]
    assert row.split()[:4] == ["bnb4", "arc", "62.00", "62.50"]
    assert github.github_summary(made).count("| bnb4 | arc |") == 1
    assert table(made, every=True).count("so nothing can be lost there") == 1


def test_junit_says_that_the_margin_of_a_report_judges_nothing(mixed):
    assert "By the margin of a report, which judges nothing here: " in junit(mixed)
