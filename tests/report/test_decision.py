"""The top of a report: ranked, titled with what was found, cautious once, and true against any variant."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations

import pytest
from factories import (
    ARC,
    MEMBERS,
    QUIZ,
    TRUTH,
    WIKI,
    conclude,
    context,
    judge,
    make_run,
    with_cell,
    without_cell,
)

from qeval.base import numbers
from qeval.base.records import Comparison, Decision, Policy, Result, Rule
from qeval.compare.against import MOST, against
from qeval.compare.evidence import gather, with_baseline
from qeval.compare.margin import Margin
from qeval.report.cautions import cautions
from qeval.report.foremost import foremost
from qeval.report.formats import json as document
from qeval.report.formats import terminal
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown
from qeval.report.headline import headline
from qeval.report.ranking import BEST_FIRST, _by, ranking
from qeval.report.verdicts import MARKS, WORDS, verdict_of
from qeval.report.versus import versus

TASKS = (ARC, QUIZ, TRUTH, WIKI)


def mixed(n_items=400, **changes):
    """Two candidates: one as good as the baseline, one that lost a fifth."""
    good, read_good, items = make_run(3, TASKS, n_items, seed=1, churn=0.0, **changes)
    bad, read_bad, _ = make_run(3, TASKS, n_items, seed=1, effect=-0.2, churn=0.3, **changes)
    lost = bad.results[2]
    run = replace(good, results=(*good.results[:2], lost))
    bads = {cell.key for cell in lost.cells}
    return run, lambda cell: (read_bad if cell.key in bads else read_good)(cell), items


def built(run, read, items, **more):
    """The context of a report."""
    return context(run, read, lambda cell: {item.key: item for item in items(cell)}, **more)


def test_the_best_stands_first_and_every_status_has_a_place():
    assert set(BEST_FIRST) == set(MARKS) - {"BASELINE"}
    run, read, _ = mixed()
    table = ranking(gather(run, read))
    assert [entry.variant for entry in table.entries] == ["bnb4", "gptq"]
    assert [entry.verdict.status for entry in table.entries] == ["EQUIVALENT", "WORSE"]
    assert table.title == "average"
    assert table.ratio_of == "wiki"
    assert table.entries[1].worst.split()[0] in {"arc", "quiz", "truth"}


def one_task_lost(seed=11, n_items=600):
    """A candidate that lost a little on one task, proved, and less on average than a noisy one, that lost
    nothing for certain; the verdict of both is the same."""
    tasks = (ARC, replace(ARC, name="other"))
    run, read, items = make_run(3, tasks, n_items, seed=seed, churn=0.3)
    hurt, read_hurt, _ = make_run(2, tasks, n_items, seed=seed, churn=0.02, effect=-0.02)
    same, read_same, _ = make_run(2, tasks, n_items, seed=seed, churn=0.0)
    lost, kept = replace(hurt.results[1].cells[0], key="lost"), replace(same.results[1].cells[1], key="kept")
    read_of = {
        "lost": lambda _: read_hurt(hurt.results[1].cells[0]),
        "kept": lambda _: read_same(same.results[1].cells[1]),
    }
    bnb4 = replace(run.results[1], cells=(lost, kept))
    both = replace(run, results=(run.results[0], bnb4, run.results[2]))
    return both, lambda cell: read_of.get(cell.key, read)(cell), items


@pytest.mark.parametrize("policy", [None, Policy((Rule(max_drop=30.0),))])
def test_of_two_verdicts_alike_the_one_without_a_proved_loss_ships_first_in_every_format(policy):
    run, read, items = one_task_lost()
    decisions = judge(run, read, policy) if policy else ()
    made = built(run, read, items, decisions=decisions)
    first, second = made.ranking.entries
    assert first.verdict.status == second.verdict.status == ("PASS" if policy else "UNDECIDED")
    assert (first.variant, first.losses) == ("gptq", ())
    assert (second.variant, second.losses) == ("bnb4", ("arc",))
    assert first.finding.comparison.delta < second.finding.comparison.delta
    table = document.document(made.evidence, decisions)["decision_table"]
    assert [(one["variant"], one["proved_losses"]) for one in table] == [("gptq", []), ("bnb4", ["arc"])]
    page, text = render_html(made), render_markdown(made)
    assert "by verdict, then by proved loss, then by Δ" in page
    assert re.findall(r'<tr class="s-\w+" data-variant="(\w+)"', page)[:3] == ["gptq", "bnb4", "fp16"]
    assert re.findall(r"^\| \*\*(\w+)\*\*", text, re.MULTILINE)[:3] == ["gptq", "bnb4", "fp16"]
    last = terminal.ranking(made.evidence, decisions)
    assert terminal.summary(made.evidence, decisions).endswith(f"\n\n{last}")
    assert re.match(
        r"Best first, by verdict, then proved loss, then average: gptq .*, bnb4 .*; baseline fp16", last
    )


def test_a_loss_that_is_proved_to_be_smaller_than_the_margin_keeps_nobody_from_standing_first():
    run, read, _ = one_task_lost()
    decisions = judge(run, read, Policy((Rule(max_drop=30.0),)))
    evidence = gather(run, read)
    near, wide = (
        ranking(replace(evidence, margin=margin), decisions).entries for margin in (Margin(), Margin(15.0))
    )
    assert [(one.variant, one.may_exceed) for one in near] == [("gptq", False), ("bnb4", True)]
    assert [(one.variant, one.may_exceed) for one in wide] == [("bnb4", False), ("gptq", False)]
    assert wide[0].losses == ("arc",)


def test_what_lacks_a_task_ships_after_what_lost_a_little_on_one():
    run, read, _ = one_task_lost()
    table = ranking(gather(without_cell(run, "gptq", "other"), read))
    assert [entry.variant for entry in table.entries] == ["bnb4", "gptq"]
    assert {entry.verdict.status for entry in table.entries} == {"UNDECIDED"}


def test_all_intervals_share_an_axis_with_the_margin_and_what_is_far_off_is_marked():
    run, read, _ = make_run(4, (ARC,), 3000, seed=2, churn=0.02)
    far, read_far, _ = make_run(5, (ARC,), 3000, seed=2, effect=-0.5, churn=0.6)
    ruined = far.results[4]
    both = replace(run, results=(*run.results, ruined))
    evidence = gather(both, lambda cell: (read_far if cell.key == ruined.cells[0].key else read)(cell))
    table = ranking(evidence)
    low, high = table.scale.margins
    assert 0 <= low < table.scale.zero < high <= 100
    assert table.entries[-1].span.beyond == -1
    for entry in table.entries[:-1]:
        one = entry.finding.comparison
        assert entry.span.beyond == 0
        assert (entry.span.low < low) == (one.low < -0.01)
        assert (entry.span.dot < table.scale.zero) == (one.delta < 0) or entry.span.dot == table.scale.zero


@pytest.mark.slow
def test_the_title_states_what_was_found():
    run, read, items = mixed()
    made = built(run, read, items)
    assert made.title == "bnb4 is equivalent within 1 point on average; gptq is worse than 1 point on average"
    assert made.about == "What quantisation cost toy"
    named = built(run, read, items, title="Release 7")
    assert named.title == "Release 7"
    assert named.about == f"{made.title}. What quantisation cost toy"
    assert "<title>Release 7 · toy</title>" in render_html(named)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["done", "partial"])
def test_a_variant_that_lacks_a_task_is_no_equivalent_one(status):
    run, read, items = make_run(3, (ARC, TRUTH), 4000, seed=1, churn=0.0)
    run = without_cell(run, "bnb4", "truth")
    results = [replace(one, status=status) if one.variant.name == "bnb4" else one for one in run.results]
    made = built(replace(run, results=tuple(results)), read, items)
    assert made.title == "gptq is equivalent within 1 point on average; bnb4 is undecided: truth not scored"
    for text in everything(made)[:4]:
        assert "bnb4 is equivalent" not in text
        assert "ndecided: truth not scored" in text
    (said,) = [one for one in document.document(made.evidence)["verdicts"] if one["variant"] == "bnb4"]
    assert (said["status"], said["finding"]["status"]) == ("UNDECIDED", "UNDECIDED")
    (told,) = [one for one in cautions(made.evidence).first if "bnb4" in one]
    assert (
        told
        == {
            "done": "Not scored although the baseline has it, so the variant cannot be summed up:"
            " bnb4 truth.",
            "partial": "The run was interrupted, or is still at work. Unfinished: bnb4. Go on with: the same"
            " qeval run",
        }[status]
    )


def test_a_proved_loss_stands_where_a_task_is_missing():
    run, read, _ = make_run(2, (ARC, TRUTH), 2000, seed=1, churn=0.3, effect=-0.2)
    found = gather(without_cell(run, "bnb4", "truth"), read).finding("bnb4")
    assert (found.status, found.words) == ("WORSE", "worse than 1 point")
    assert found.sentence.endswith(" truth not scored.")


def test_nothing_is_equivalent_that_an_unfinished_baseline_did_not_get_to():
    run, read, _ = make_run(2, (ARC, TRUTH), 4000, seed=1, churn=0.0)
    run = without_cell(without_cell(run, "bnb4", "truth"), "fp16", "truth")
    base = replace(run.results[0], status="partial")
    evidence = gather(replace(run, results=(base, run.results[1])), read)
    assert evidence.finding("bnb4").words == "undecided: truth not scored"
    assert gather(run, read).finding("bnb4").words == "equivalent within 1 point"  # nobody asked for more


def test_many_names_are_counted_in_the_title():
    run, read, _ = make_run(6, (ARC,), 30, seed=1)
    entries = ranking(gather(run, read)).entries
    first = ", ".join(entry.variant for entry in entries[:2])
    assert headline(entries) == f"{first} and 3 more are undecided"
    assert headline(()) == ""


def test_a_title_says_that_a_ratio_is_one_of_perplexities():
    run, read, _ = make_run(2, (WIKI,), 60, seed=1, effect=-0.3)
    assert headline(ranking(gather(run, read)).entries) == "bnb4 is worse than x1.10 in perplexity"


def everything(made):
    """A report in every format of ours."""
    evidence = made.evidence
    return (
        render_html(made),
        render_markdown(made),
        render_markdown(made, short=True),
        terminal.summary(evidence),
        "\n".join(document.document(evidence)["cautions"]),
    )


@pytest.mark.slow
def test_each_caution_is_said_once_in_every_format():
    run, read, items = mixed(n_items=40, n_available=100)
    toy = "This is the toy model: every number here is invented."
    own = "16 samples of calibration text."
    results = [
        replace(
            result,
            provenance=replace(
                result.provenance,
                notes=(toy, own) if place == 2 else (toy,),
                quantised_share=[None, 0.9, 0.3][place],
            ),
            cells=tuple(replace(cell, truncated=2 if place else 0) for cell in result.cells),
        )
        for place, result in enumerate(run.results)
    ]
    made = built(replace(run, results=tuple(results)), read, items)
    told = (
        toy,
        f"gptq: {own}",
        "this is a smoke test, not a measurement.",
        "Contexts were truncated on the left to fit the model: 12 of each of bnb4, gptq.",
        "Less than 60% of the weights are quantised, not counting embeddings and head: gptq 30.0%.",
        "The noise floor was not measured",
    )
    for text in everything(made):
        assert [text.count(sentence) for sentence in told] == [1] * len(told)
    for text in everything(made)[:4]:
        assert text.count("Before you trust these numbers") == 1


def test_what_did_not_run_or_end_is_a_caution():
    run, read, _ = make_run(4, (ARC,), 20)
    failed = Result(run.results[1].variant, "failed", error="No kernel.")
    partial = replace(run.results[2], status="partial")
    found = cautions(gather(replace(run, results=(run.results[0], failed, partial, run.results[3])), read))
    told = "The run was interrupted, or is still at work. Unfinished: gptq. Go on with: the same qeval run"
    assert found.first[:2] == ("Did not run: bnb4.", told)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [("qeval", "Add another one to --schemes and run again."), ("lm-eval", "qeval report RUN RUN.")],
)
def test_a_report_on_one_variant_speaks_of_no_difference(source, remedy):
    run, read, items = make_run(1, (ARC, WIKI), 20)
    made = built(replace(run, source=source), read, items)
    assert len(made.cautions.every) == 1
    assert made.cautions.first[0].endswith(remedy)
    page = render_html(made)
    told = page[: page.index('id="reading"')].split("</style>")[1]
    assert [
        told.count(words) for words in ("Bars: the interval", "Δ from", "noise floor", "dotted line")
    ] == [0] * 4
    assert "<span>Scores. " in told


def test_the_limit_of_a_run_is_named_where_it_has_one():
    run, read, _ = mixed(n_items=40, n_available=100)
    limited = replace(run, settings=replace(run.settings, limit=40))
    told = [" ".join(cautions(gather(one, read)).first) for one in (run, limited)]
    assert ["Without --limit, qeval run scores all of them." in text for text in told] == [False, True]


@pytest.mark.usefixtures("undrawn")
def test_an_option_of_a_sentence_is_not_broken_in_two_on_the_page():
    run, read, items = make_run(2, (ARC,), 20)
    assert '(qeval run <span class="keep">--repeat-baseline</span> measures it)' in render_html(
        built(run, read, items)
    )


@pytest.mark.parametrize("name", ["bnb4", "gptq", "awq"])
def test_against_another_variant_it_is_as_if_that_were_the_baseline(name):
    run, read, _ = make_run(4, TASKS, 150, seed=5, effect=-0.02)
    (found,) = [one for one in against(gather(run, read)) if one.run.baseline == name]
    true = gather(with_baseline(run, name), read)
    assert found.findings == true.findings
    assert found.comparisons == true.comparisons
    assert [entry.delta for entry in ranking(found).entries] == [
        entry.delta for entry in ranking(true).entries
    ]


def test_half_a_group_is_compared_with_nobody():
    run, read, _ = make_run(4, (QUIZ, ARC), 150, seed=5)
    run = without_cell(run, "fp16", "quiz_law")
    evidence = gather(run, read)
    assert {row for _, row in evidence.pairs} & {"quiz", "quiz_macro"} == set()
    members = {task.name for task in MEMBERS} - {"quiz_law"}
    for found in against(evidence):
        assert {row for _, row in found.pairs} == {"arc", *members}
    half = without_cell(make_run(4, (QUIZ, ARC), 150, seed=5)[0], "gptq", "quiz_law")
    (found,) = [one for one in against(gather(half, read)) if one.run.baseline == "gptq"]
    assert {row for _, row in found.pairs} == {"arc", *members}


def test_a_verdict_of_another_row_stands_beside_its_change_with_its_sign():
    run, read, _ = make_run(3, (ARC, TRUTH, WIKI), 60, seed=5)
    evidence = gather(run, read)
    first = ranking(evidence).heads[0]

    def by(task, low, delta, high, claim):
        found = evidence.findings["bnb4", task]
        return _by(
            replace(
                found, comparison=replace(found.comparison, low=low, delta=delta, high=high), claim=claim
            ),
            first,
        )

    assert by("arc", -0.08, -0.0307, -0.02, -1) == "Δ -3.07"
    assert by("arc", 0.02, 0.0307, 0.08, 1) == "Δ +3.07"
    assert by("wiki", -0.3, -0.1964, -0.15, -1) == "x1.217"
    assert by("arc", -0.08, -0.0307, 0.02, 0) == by(first.id, -0.08, -0.0307, -0.02, -1) == ""


@pytest.mark.usefixtures("undrawn")
def test_that_a_verdict_names_another_row_is_explained_only_where_one_does():
    said = "A verdict is about the average. Where it names another row, that one's own verdict is graver."
    run, read, items = one_task_lost()
    named, plain = built(run, read, items), built(*mixed())
    assert [any(e.of_another for e in made.ranking.entries) for made in (named, plain)] == [True, False]
    assert said in render_html(named).split('id="reading"')[0]
    assert said not in render_html(plain)
    assert all("then undecided with a proved loss" in render_html(made) for made in (named, plain))


@pytest.mark.usefixtures("undrawn")
def test_every_table_has_the_order_of_the_decision_table():
    good, read_good, items = make_run(3, (ARC, QUIZ), 100, seed=1, churn=0.0)
    bad, read_bad, _ = make_run(3, (ARC, QUIZ), 100, seed=1, effect=-0.2, churn=0.3)
    run = replace(good, results=(good.results[0], bad.results[1], good.results[2]))
    bads = {cell.key for cell in bad.results[1].cells}
    made = built(run, lambda cell: (read_bad if cell.key in bads else read_good)(cell), items)
    order = [entry.variant for entry in made.ranking.entries]
    assert order == ["gptq", "bnb4"]
    assert [line.name for line in made.lines] == ["fp16", *order]
    assert [row.variant for row in made.details][:2] == order
    assert {one.deltas[0] for one in made.categories} == {"0.00"}
    assert all(one.deltas[1].startswith("-") for one in made.categories)
    counts = render_html(made).split('class="flip-counts"')[1].split("</table>")[0]
    assert re.findall(r"</span>(\w+)</th>", counts) == order
    table = document.document(made.evidence)["variants"]
    assert [one["name"] for one in table] == ["fp16", "bnb4", "gptq"]


def test_every_reference_has_headings_of_the_rows_that_it_is_compared_on():
    run, read, items = make_run(4, (ARC, TRUTH, WIKI), 150, seed=5)
    made = built(without_cell(without_cell(run, "gptq", "truth"), "gptq", "wiki"), read, items)
    found = [made, *versus(made).others]
    heads = {one.run.baseline: (one.ranking.title, one.ranking.ratio_of) for one in found}
    whole = ("average", "wiki")
    assert heads == {"fp16": whole, "bnb4": whole, "gptq": ("arc", ""), "awq": whole}
    told = {
        (one.run.baseline, entry.variant): (entry.delta, entry.ratio)
        for one in found
        for entry in one.ranking.entries
    }
    for pair, cells in told.items():
        lacks, own = "gptq" in pair, pair[0] == "gptq"  # of gptq arc alone is known
        assert [cell == numbers.NONE for cell in cells] == [lacks and not own, lacks]
    met = versus(made)
    lacks = [pair for pair in pairs(met) if "gptq" in pair]
    assert len(lacks) == 3
    assert {pair for pair, one in pairs(met).items() if one is None} == set(lacks)


def pairs(met):
    """The cells of the matrix by (row, column)."""
    return {
        (name, reference): cell
        for name, cells in zip(met.names, met.matrix, strict=True)
        for reference, cell in zip(met.names, cells, strict=False)
    }


def test_the_matrix_has_each_pair_once_with_what_explains_its_verdict():
    run, read, items = one_task_lost(27)  # bnb4 lost on one task, and gained far more on average
    made = built(run, read, items)
    met = versus(made)
    assert met.names == ("fp16", *(entry.variant for entry in made.ranking.entries))
    found = pairs(met)
    assert {frozenset(pair) for pair in found} == {frozenset(pair) for pair in combinations(met.names, 2)}
    assert len(found) == 3
    for (name, reference), cell in found.items():
        true = ranking(gather(with_baseline(run, reference), read))
        (entry,) = [entry for entry in true.entries if entry.variant == name]
        assert (cell.status, cell.delta, cell.interval) == (entry.sums_up.status, entry.delta, entry.interval)
        where = f" {entry.sums_up.of}" if entry.of_another else ""
        assert cell.word == f"{WORDS[cell.status]}{where}"
    assert any(" on arc" in cell.word for cell in found.values())
    table = render_html(made).partition('<table class="matrix">')[2].partition("</table>")[0]
    assert "reversed" not in table
    assert all(numbers.signs(str(cell.interval)) in table for cell in found.values())


@pytest.mark.usefixtures("undrawn")
def test_a_variant_that_does_not_go_with_a_reference_stays_and_says_why():
    run, read, items = make_run(4, (ARC,), 150, seed=5)
    versions = (None, "0.4.12", "0.4.13", None)
    results = [
        replace(one, provenance=replace(one.provenance, versions={"lm_eval": version} if version else {}))
        for one, version in zip(run.results, versions, strict=True)
    ]
    made = built(replace(run, results=tuple(results)), read, items)
    met = versus(made)
    assert sorted(met.names) == ["awq", "bnb4", "fp16", "gptq"]
    (found,) = [cell for pair, cell in pairs(met).items() if set(pair) == {"bnb4", "gptq"}]
    assert (found.status, found.delta) == ("NONE", "–")
    first, second = (("bnb4", "0.4.12"), ("gptq", "0.4.13"))
    assert found.words in {
        f"{one} was scored with lm-eval {own}, {other} with {others}."
        for (one, own), (other, others) in ((first, second), (second, first))
    }
    (known,) = [cell for pair, cell in pairs(met).items() if set(pair) == {"awq", "gptq"}]
    assert known.delta.strip("+-0.123456789") == ""
    assert found.words in render_html(made)


def test_a_heading_names_no_limit_where_a_task_is_in_doubt():
    run, read, items = make_run(3, (ARC, TRUTH), 60, seed=3)
    run = without_cell(run, "bnb4", "truth")
    outcome = conclude(run, read, Policy((Rule(tasks="arc", max_drop=1.0),)))
    assert "truth" in {one.task for one in outcome.decisions}
    made = built(run, read, items, decisions=outcome.decisions)
    assert [column.allowed for column in made.columns] == ["allowed: -1", "", ""]


@pytest.mark.usefixtures("undrawn")
def test_every_bar_has_its_variants_colour():
    html = render_html(built(*make_run(3, (ARC, TRUTH), 60, seed=3)))
    decided = html.partition('id="decision"')[2].partition("</table>")[0]
    assert re.findall(r'<td class="ruler (v\d)"', decided) == re.findall(r'swatch (v\d)"', decided)
    own = html.partition('<template class="aside">')[0]
    scores = re.findall(r'<tr class="(v\d)" data-variant.*?swatch (v\d)"', own, re.DOTALL)
    assert sorted(scores) == [("v0", "v0"), ("v1", "v1"), ("v2", "v2")]


def test_a_short_report_keeps_the_column_of_a_ruin_that_nothing_bounds():
    tasks = (ARC, *(replace(ARC, name=f"task{number}") for number in range(4)), WIKI)
    run, read, items = make_run(2, tasks, 60, seed=3, effect=-0.02)
    run = with_cell(run, "bnb4", "wiki", score=-6.0, files={})
    made = built(with_cell(run, "fp16", "wiki", files={}), read, items)
    assert [column.title for column in foremost(made, 2)[0].columns] == ["average", "wiki"]
    assert made.ranking.entries[0].verdict.status == "UNDECIDED"


def test_scores_of_any_size_have_ticks():
    bleu = replace(TRUTH, name="bleu", metric="bleu_max")
    run, read, items = make_run(3, (bleu,), 60, seed=3, effect=-0.2)

    def large(cell):
        return replace(read(cell), value=100 * read(cell).value)

    table = built(run, large, items).ranking
    assert 2 <= len(table.scale.ticks) <= 5


def test_a_failed_baseline_and_a_failed_variant_are_nobodys_reference():
    run, read, _ = make_run(4, (ARC,), 30)
    failed = Result(run.results[1].variant, "failed", error="No kernel.")
    evidence = gather(replace(run, results=(run.results[0], failed, *run.results[2:])), read)
    assert [one.run.baseline for one in against(evidence)] == ["gptq", "awq"]
    broken = replace(run.results[0], status="failed", error="No.")
    assert list(against(gather(replace(run, results=(broken, *run.results[1:])), read))) == []


@pytest.mark.slow
def test_the_page_holds_the_report_against_each_reference(monkeypatch):
    monkeypatch.setattr("qeval.report.formats.asides.PLAIN", 10**9)
    run, read, items = make_run(4, TASKS, 120, seed=5, effect=-0.02)
    made = built(run, read, items)
    html = render_html(made)
    assert "Variant against variant" in html
    asides = re.findall(r'<template class="aside">(.*?)</template>', html, re.DOTALL)
    named = [re.search(r"Each variant against <strong>(\w+)</strong>", text)[1] for text in asides]
    assert named == [entry.variant for entry in made.ranking.entries]
    assert sorted(named) == ["awq", "bnb4", "gptq"]
    two = make_run(2, TASKS, 40)
    alone = render_html(built(*two))
    assert "aside" not in alone.partition("<script>")[0].partition("</style>")[2]


def test_the_decision_table_is_data_too():
    run, read, _ = mixed()
    found = document.document(gather(run, read))
    assert [one["variant"] for one in found["decision_table"]] == ["bnb4", "gptq"]
    table = {one["variant"]: one for one in found["decision_table"]}
    (average,) = [c for c in found["comparisons"] if c["variant"] == "gptq" and c["level"] == "average"]
    assert table["gptq"]["delta"] == average["delta"]
    assert average["finding"]["words"] == "worse than 1 point"
    tasks = {c["task"]: c["delta"] for c in found["comparisons"] if c["variant"] == "gptq"}
    assert table["gptq"]["worst"]["delta"] == min(tasks[name] for name in ("arc", "quiz", "truth"))


@pytest.mark.slow
def test_of_very_many_variants_no_pairs_are_compared_with_the_page():
    """Their number grows with the square; `--baseline` makes a page against another one."""
    run, read, items = make_run(MOST, (ARC,), 40, seed=5)
    assert len(versus(built(run, read, items)).names) == MOST
    last = run.results[-1]
    more = replace(last, variant=replace(last.variant, name="one more"))
    made = built(replace(run, results=(*run.results, more)), read, items)
    assert len(made.ranking.entries) == MOST
    assert versus(made) is None
    assert 'id="reference"' not in render_html(made)


# --- a policy's words and the margin's ------------------------------------------------------------


def judged(policy, effect=-0.05, seed=2):
    run, read, items = make_run(3, TASKS, 400, seed=seed, effect=effect, churn=0.3)
    decisions = conclude(run, read, policy).decisions
    return built(run, read, items, decisions=decisions, policy=policy)


@pytest.mark.usefixtures("undrawn")
def test_a_row_under_a_policy_names_the_rules_that_decide_and_the_margins_words_stand_apart():
    made = judged(
        Policy((Rule(tasks="arc", max_drop=5.0), Rule(tasks="average", max_drop=40.0)), ungated=("*",))
    )
    for entry, line in zip(made.ranking.entries, made.told, strict=True):
        decided = [one for one in made.decisions if one.variant == entry.variant]
        same = [one for one in decided if one.status == entry.verdict.status]
        assert entry.word == ("all 2 rules" if entry.verdict.status == "PASS" else "arc, limit -5")
        assert len(same) == (2 if entry.verdict.status == "PASS" else 1)
        assert line.verdict.beside == f"By the margin, not the policy: {entry.sums_up.said}."
    assert {entry.verdict.status for entry in made.ranking.entries} - {"PASS"}
    page = render_html(made)
    assert "arc, limit \u22125" in page
    assert "By the margin, not the policy: " in page
    assert "By the margin, not the policy: " in render_markdown(made)


def test_several_rules_that_decide_are_counted():
    made = judged(Policy((Rule(max_drop=1e-6),)), effect=-0.3)
    assert [entry.verdict.status for entry in made.ranking.entries] == ["FAIL", "FAIL"]
    assert all(re.search(r", limit -\S+; and \d more$", one.word) for one in made.ranking.entries)


def test_the_title_names_who_is_worse_by_the_margin_though_no_rule_fails():
    made = judged(Policy((Rule(tasks="arc", max_drop=99.0),), ungated=("*",)), effect=-0.3)
    assert made.title.startswith("bnb4 and gptq pass; by the margin, not the policy, ")
    assert "worse than 1 point" in made.title
    failing = judged(Policy((Rule(tasks="arc", max_drop=0.01),), ungated=("*",)), effect=-0.3)
    assert "by the margin" not in failing.title


def test_where_a_check_decides_the_row_says_so():
    made = judged(Policy((Rule(variants="gptq", max_drop=99.0),)))
    words = {entry.variant: entry.word for entry in made.ranking.entries}
    assert re.fullmatch(r"arc, a check; and \d more", words["bnb4"])


def test_the_title_names_variants_in_the_order_of_the_table():
    run, read, items = make_run(4, (ARC,), 900, seed=3, effect=-0.3, churn=0.1)
    made = built(run, read, items)
    names = [entry.variant for entry in made.ranking.entries if entry.verdict.status == "WORSE"]
    assert len(names) > 1
    places = [made.title.index(name) for name in names]
    assert places == sorted(places)


def decided(task, status, delta, needed=None):
    """A decision on gptq: 3 points are allowed."""
    rule, base = Rule(tasks=task, max_drop=3.0), 0.5
    low, high = {"FAIL": (delta - 0.01, delta + 0.01), "PASS": (delta, 0.1)}.get(status, (-0.2, 0.1))
    found = Comparison(
        variant="gptq", task=task, metric="acc", level="task", kind="accuracy", n=200,
        n_available=200, baseline=base, candidate=base + delta, delta=delta, low=low, high=high,
        confidence=0.9, method="Tango",
    )  # fmt: skip
    return Decision(rule, "gptq", task, status, f"{task} has a reason.", found, 0.03, needed)


def verdict_by(*decisions):
    run, read, _ = make_run(3, TASKS, 20)
    return verdict_of(run.results[2], gather(run, read), decisions)


def test_beside_a_rule_that_fails_those_that_are_undecided_are_counted():
    open_ones = (decided("quiz", "INCONCLUSIVE", -0.01, 40), decided("truth", "INCONCLUSIVE", -0.01, 50))
    made = verdict_by(decided("wiki", "PASS", 0.0), *open_ones, decided("arc", "FAIL", -0.1))
    assert made.by == "arc, limit -3; and 2 more undecided"
    assert made.sentence == "arc has a reason. 2 more rules are undecided."
    assert verdict_by(decided("arc", "FAIL", -0.1), open_ones[0]).sentence.endswith(
        " 1 more rule is undecided."
    )


def test_of_undecided_rules_the_one_leads_that_needs_most_items():
    few, many = decided("arc", "INCONCLUSIVE", -0.01, 10), decided("quiz", "INCONCLUSIVE", -0.01, 9000)
    never, limited = decided("truth", "INCONCLUSIVE", -0.01), decided("wiki", "INCONCLUSIVE", -0.01)
    good = replace(limited, comparison=replace(limited.comparison, low=-0.02))
    assert verdict_by(good, few, many).reasons == tuple(one.reason for one in (many, few, good))
    assert verdict_by(few, many, never).by == "truth, limit -3; and 2 more"


def test_a_rules_reason_is_told_as_the_gate_gives_it():
    worse, better = decided("arc", "INCONCLUSIVE", -0.04, 10), decided("quiz", "INCONCLUSIVE", -0.02, 9)
    made = verdict_by(worse, better)
    assert made.reasons == (worse.reason, better.reason)
    assert made.sentence == f"{worse.reason} 2 of 2 rules are undecided."


@pytest.mark.usefixtures("undrawn")
def test_under_a_policy_the_matrix_and_the_cells_say_what_they_go_by():
    made = judged(Policy((Rule(tasks="arc", max_drop=5.0),), ungated=("*",)))
    page, plain = render_html(made), render_html(mixed_page := built(*mixed()))
    assert versus(made).judged
    assert not versus(mixed_page).judged
    assert "the verdict by the margin, not by the policy that the table above goes by." in page
    assert "the verdict as in the table above." in plain
    assert page.count("names with its level, not by the one in the cell") == 1
    assert "not by the one in the cell" not in plain
