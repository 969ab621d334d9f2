"""The line that a report closes with, one order of variants, and nothing said twice."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from factories import ARC, MEMBERS, QUIZ, TRUTH, WIKI, conclude, context, judge, make_run, without_cell
from leaderboard import leaderboard

from qeval.base import numbers
from qeval.base.records import Policy, Rule
from qeval.compare.evidence import gather
from qeval.judge.enough import need_by_margin
from qeval.report.closing import closing, least
from qeval.report.formats import json as document
from qeval.report.formats import terminal
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown
from qeval.report.ranking import ranking
from qeval.report.versus import versus

TASKS = (ARC, QUIZ, TRUTH, WIKI)
NO_PROOF = "This does not prove that another variant lost more."


def built(run, read, items, **more):
    return context(run, read, lambda cell: {item.key: item for item in items(cell)}, **more)


def undecided(n_items=200):
    return make_run(4, TASKS, n_items, seed=5, effect=-0.02)


@pytest.mark.usefixtures("undrawn")
def test_every_format_says_who_lost_least_and_what_would_decide_the_others():
    run, read, items = undecided()
    made = built(run, read, items)
    table = made.ranking
    first = max(table.entries, key=lambda entry: entry.finding.comparison.delta)
    said, more = closing(table, ())
    assert said.startswith(f"Least lost on average, as measured: {first.variant}, Δ {first.delta} points (")
    assert said.endswith(f"). {NO_PROOF}")
    for entry in table.entries:
        if entry.verdict.status == "UNDECIDED":
            assert f"{entry.variant} ({entry.sums_up.of}; {need_by_margin(entry.sums_up)})" in more
    assert re.match(r"Undecided: \w+ \(on average; needs about \d+ items, has 1000\)", more)
    assert more.endswith(" Numbers of items are for this Δ and churn.")
    texts = (render_html(made), render_markdown(made), terminal.summary(made.evidence))
    for text in texts:
        plain = text.replace("\u2212", "-").replace("\u00d7", "x").replace("\\_", "_")
        assert said in plain
        assert more in plain


def test_a_first_place_by_measure_alone_is_called_no_proof_and_of_one_variant_nothing_is_said():
    run, read, _ = undecided()
    assert NO_PROOF in least(ranking(gather(run, read)))
    alone = ranking(gather(*make_run(2, TASKS, 200, seed=5)[:2]))
    assert least(alone) == ""
    twice = replace(run.results[1], variant=replace(run.results[1].variant, name="twin"))
    both = ranking(gather(replace(run, results=(*run.results[:2], twice)), read))
    assert re.match(r"(Least lost|Best) on average, as measured: \w+ and \w+, Δ", least(both))
    assert "(" not in least(both)


def test_a_gain_is_called_no_loss_and_a_perplexity_what_it_is():
    gained = ranking(gather(*make_run(3, (ARC,), 300, seed=2, effect=0.1)[:2]))
    assert least(gained).startswith("Best on arc, as measured: ")
    run, read, _ = make_run(3, (WIKI,), 60, seed=2, effect=-0.05)
    assert re.match(
        r"Least lost on wiki, as measured: \w+, perplexity x1\.\d+ \(", least(ranking(gather(run, read)))
    )


def test_under_a_policy_the_rule_that_decides_says_how_many_items():
    run, read, items = undecided()
    decisions = judge(run, read, Policy((Rule(tasks="arc", max_drop=3.0),), ungated=("*",)))
    table = built(run, read, items, decisions=decisions).ranking
    told = " ".join(closing(table, decisions))
    (open_ones,) = [[one for one in decisions if one.status == "INCONCLUSIVE"]]
    assert open_ones
    for one in open_ones:
        whole = numbers.roughly(one.comparison.n + one.items_needed_more)
        assert f"{one.variant} (arc, limit -3; needs about {whole} items, has 200)" in told


def test_a_limited_run_that_is_good_so_far_is_said_to_need_all_its_items():
    run, read, _ = make_run(3, (ARC,), 400, seed=1, churn=0.0, n_available=1000)
    decisions = judge(run, read, Policy((Rule(max_drop=5.0),)))
    told = " ".join(closing(ranking(gather(run, read), decisions), decisions))
    why = "good on a part of the items, and only all of them decide it"
    assert f"Undecided: bnb4 and gptq (arc, limit -5; {why})." in told


def test_a_missing_task_is_named_and_many_undecided_ones_are_counted():
    run, read, _ = make_run(3, (ARC, TRUTH), 300, seed=3)
    lacking = closing(ranking(gather(without_cell(run, "gptq", "truth"), read)), ())
    assert "gptq (truth not scored)" in " ".join(lacking)
    run, read, _ = make_run(8, (ARC,), 100, seed=3, effect=-0.01)
    told = " ".join(closing(ranking(gather(run, read)), ()))
    assert re.search(r"\) and 3 more\. Numbers of items are", told)
    assert len(set(re.findall(r"\bv\d|bnb\d|gptq|awq|hqq", told.partition("Undecided: ")[2]))) == 4
    plain, read_plain, _ = make_run(4, (ARC,), 100, seed=3, effect=-0.01)
    alone = [
        replace(one, cells=tuple(replace(cell, files={}) for cell in one.cells)) for one in plain.results
    ]
    published = ranking(gather(replace(plain, results=tuple(alone)), read_plain))
    (why,) = set(re.findall(r"\((.*?)\)", closing(published, ())[1]))  # what is so of several stands once
    assert why == "compared item by item it would say more"


@pytest.mark.usefixtures("undrawn")
def test_variants_stand_in_one_order_everywhere():
    run, read, items = leaderboard(0.04, variants=5)
    made = context(run, read, items)
    order = [entry.variant for entry in made.ranking.entries]
    assert order != [result.variant.name for result in run.results[1:]]
    assert [line.name for line in made.candidates] == order
    assert [row[0] for row in made.cost.rows] == ["fp16", *order]
    assert list(dict.fromkeys(one.variant for one in made.documents)) == order
    assert list(dict.fromkeys(one.variant for one in made.subjects)) == order
    for one in made.choices:
        assert [row[0] for row in one.rows] == ["fp16", *order]
        assert [row[0] for row in one.calibration] == ["fp16", *order]
    assert versus(made).names == ("fp16", *order)
    for other in versus(made).others:
        theirs = [entry.variant for entry in other.ranking.entries]
        assert [row[0] for row in other.choices[0].rows][1:] == theirs
    lines = [line.split() for line in terminal.summary(made.evidence).splitlines()]
    assert [line[0] for line in lines[lines.index([]) - 5 : lines.index([])]][1:] == order
    assert [one["name"] for one in document.document(made.evidence)["variants"]] == [
        result.variant.name for result in run.results
    ]  # programs get the run's own


@pytest.mark.usefixtures("undrawn")
def test_a_sentence_that_only_repeats_the_table_is_left_out():
    run, read, items = undecided()
    made = built(run, read, items)
    told = {line.name for line in made.told}
    plain = [entry for entry in made.ranking.entries if entry.variant not in told]
    assert plain
    for entry in plain:
        assert entry.verdict.sentence == f"average: Δ {entry.delta} points (95% interval {entry.interval})."
    for line in made.told:
        assert "no loss is proved" in line.verdict.sentence
    few = built(*make_run(2, (ARC,), 100, seed=3))
    assert few.told == ()
    assert 'id="why"' not in render_html(few)
    failed = replace(run.results[1], status="failed", error="No kernel.", cells=())
    partly = built(replace(run, results=(run.results[0], failed, *run.results[2:])), read, items)
    assert "bnb4" in {line.name for line in partly.told}
    assert "No kernel." in render_html(partly)
    outcome = conclude(run, read, Policy((Rule(max_drop=1.0),)))
    judged = built(run, read, items, decisions=outcome.decisions)
    assert len(judged.told) == 3
    assert all(f"**{line.name}: " in render_markdown(judged) for line in judged.told)


@pytest.mark.usefixtures("undrawn")
def test_the_worst_task_has_its_interval_on_the_page_and_in_markdown():
    run, read, items = undecided()
    made = built(run, read, items)
    page, text = render_html(made), render_markdown(made)
    for entry in made.ranking.entries:
        found = entry.worst_of
        assert entry.reach == found.interval_text
        assert f"{entry.worst} ({entry.reach})" in text.replace(" ▾", "").replace(" ▴", "")
        cells = re.findall(r"data-worst>(.*?)</td>", page)
        assert any(
            numbers.signs(entry.worst) in cell and numbers.signs(entry.reach) in cell for cell in cells
        )


@pytest.mark.usefixtures("undrawn")
def test_a_task_whose_items_score_between_0_and_1_says_why_nothing_flips():
    why = "None for truth: an item scores between 0 and 1 there"
    assert why in render_html(built(*make_run(2, TASKS, 60, seed=1)))
    assert "None for" not in render_html(built(*make_run(2, (ARC, *MEMBERS[:1]), 60, seed=1)))
    assert "no answer is right or wrong" in render_markdown(built(*make_run(2, TASKS, 60, seed=1)))
