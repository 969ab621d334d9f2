"""The closing table of a run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from factories import ARC, WIKI, conclude, context, judge, make_run

from qeval.base import layout
from qeval.base.costs import Cost, Timing
from qeval.base.records import Policy, Result, Rule
from qeval.compare.evidence import gather
from qeval.report.formats import Options, terminal
from qeval.report.ranking import ranking


def summary(made, **changes):
    run = replace(made[0], **changes)
    evidence = gather(run, made[1])
    return run, evidence.comparisons, terminal.summary(evidence)


def by_heading(text, line):
    """The cells of a line of the table by their headings."""
    headings, rule = text.splitlines()[:2]
    places = [slice(*found.span()) for found in re.finditer("-+", rule)]
    return {headings[place].strip(): line[place].strip() for place in places}


def test_each_task_has_its_baseline_then_every_variant_with_difference_interval_and_flips():
    _, comparisons, text = summary(make_run(3, n_items=200, effect=-0.1, seed=1))
    lines = [line for line in text.splitlines() if line]
    arc = next(place for place, line in enumerate(lines) if line.startswith("arc"))
    assert lines[arc].split()[2] == "fp16"
    assert "baseline" in lines[arc]
    cells = by_heading(text, lines[arc + 1])
    first = next(c for c in comparisons if (c.task, c.variant) == ("arc", cells["variant"]))
    order = [
        entry.variant for entry in ranking(gather(*make_run(3, n_items=200, effect=-0.1, seed=1)[:2])).entries
    ]
    assert [by_heading(text, lines[arc + at])["variant"] for at in (1, 2)] == order
    assert cells["score"] == f"{100 * first.candidate:.2f}"
    counts = [int(cells[heading]) for heading in ("lost", "gained", "changed")]
    assert counts == [first.losses, first.gains, first.flips]


def test_a_group_stands_as_unweighted_mean_and_with_all_items_and_the_average_has_a_line():
    _, _, text = summary(make_run(2, n_items=50))
    assert "quiz (mean of 3)" in text
    assert "quiz (all items)" in text
    assert "\naverage" in text


@pytest.mark.parametrize("width", [None, 120, 80, 60])
def test_a_limited_run_says_how_many_items_were_scored_at_every_width(width: int | None) -> None:
    run, read, _ = make_run(3, n_items=1600, n_available=4200)
    text = terminal.summary(gather(run, read), width=width)
    assert "1600/4200" in text
    assert width is None or max(map(layout.columns_of, text[: text.index("\n\n")].splitlines())) <= width


def test_a_perplexity_is_shown_as_such_and_as_a_ratio():
    _, comparisons, text = summary(make_run(2, n_items=50, tasks=(WIKI,)))
    line = next(line for line in text.splitlines() if " x1." in line or " x0." in line)
    assert comparisons[0].baseline < 0
    assert float(line.split()[1]) > 1


def test_a_failed_variant_is_named_with_its_error():
    made = make_run(2, n_items=20, tasks=(ARC,))
    failed = Result(made[0].results[1].variant, "failed", error="The logits of arc, item 3, are not finite.")
    _, _, text = summary(made, results=(made[0].results[0], failed))
    assert "! bnb4: Did not run. The logits of arc, item 3, are not finite." in text


def test_decisions_are_told_in_their_own_words():
    run, read, _ = make_run(2, n_items=200, tasks=(ARC,))
    decisions = judge(run, read, Policy((Rule(tasks="arc", max_drop=1.0),)))
    assert decisions[0].reason in terminal.summary(gather(run, read), decisions)


def test_limits_and_an_empty_run_are_said():
    assert "Only some of the items" in summary(make_run(2, n_items=20, n_available=100))[2]
    assert summary(make_run(2, n_items=0))[2] == "Nothing was scored."


def test_details_tell_what_was_loaded():
    run = make_run(2, n_items=5)[0]
    text = terminal.details(run)
    assert run.results[1].provenance.revision in text
    assert "bnb4" in text


def test_details_tell_which_metric_judges_each_task_within_the_width():
    two = replace(ARC, name="quick", metric="acc")
    text = terminal.details(make_run(2, n_items=5, tasks=(ARC, two))[0], 80)
    assert re.search(r"^Scored by +acc_norm: arc; acc: quick$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_one_task_is_spoken_of_by_its_name_and_not_as_an_average():
    run, read, _ = make_run(2, n_items=200, tasks=(ARC,), effect=-0.3, seed=1)
    run = replace(run, suite=replace(run.suite, average=("arc",)))
    text = terminal.summary(gather(run, read))
    assert "bnb4: Worse than 1 point. arc: " in text
    assert "average" not in text


def measured(run, measures):
    results = [replace(result, cost=Cost("here", 1.0, 5, measures)) for result in run.results]
    return replace(run, results=tuple(results))


def test_costs_stand_below_the_table_where_they_were_measured():
    run, read, _ = make_run(2, n_items=20, tasks=(ARC,))
    bare, _, ranked = terminal.summary(gather(run, read)).rpartition("\n\n")
    assert terminal.summary(gather(measured(run, {}), read)) == f"{bare}\n\n{ranked}"
    timed = measured(run, {"prefill": Timing(1, 1, 1, 3, "ms/token")})
    assert terminal.summary(gather(timed, read)) == f"{bare}\n\n{terminal.costs(timed)}\n\n{ranked}"
    assert "prefill (ms/token)" in terminal.costs(timed)


def test_a_run_of_costs_alone_shows_them():
    made, read, _ = make_run(2, n_items=0)
    run = measured(made, {"prefill": Timing(1, 1, 1, 3, "ms/token")})
    assert terminal.summary(gather(run, read)) == terminal.costs(run)


def test_the_last_line_ranks_the_variants_and_names_who_has_no_score():
    run, read, _ = make_run(3, n_items=200, effect=-0.1, seed=1)
    failed = Result(replace(run.results[1].variant, name="awq"), "failed", error="No kernel.")
    evidence = gather(replace(run, results=(*run.results, failed)), read)
    last = terminal.ranking(evidence).splitlines()[0]
    assert last in terminal.summary(evidence).splitlines()[-3:]
    found = re.fullmatch(
        r"Best first, by verdict, then proved loss, then average: (.*)\. Not ranked: awq\.", last
    )
    order, _, base = found[1].partition("; ")
    assert re.fullmatch(r"baseline fp16 [\d.]+", base)
    named = re.findall(r"(\S+) [\d.]+ \(([^)]*)\)", order)
    assert [name for name, _ in named] == [entry.variant for entry in ranking(evidence).entries][:2]
    deltas = [float(delta) for _, delta in named]
    assert deltas == sorted(deltas, reverse=True)


def test_perplexities_are_ranked_too_and_one_variant_is_no_order():
    evidence = gather(*make_run(2, n_items=50, tasks=(WIKI,), effect=-0.1)[:2])
    last = terminal.summary(evidence).splitlines()[-1]
    assert re.fullmatch(
        r"Best first, by verdict, then proved loss, then wiki: bnb4 [\d.]+ "
        r"\(x1\.\d+\); baseline fp16 [\d.]+\.",
        last,
    )
    assert terminal.ranking(gather(*make_run(1, n_items=50)[:2])) == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("names", [1, 3, 12])
@pytest.mark.parametrize("long", [False, True])
def test_all_of_it_fits_the_terminal(width, names, long):
    run, read, _ = make_run(names, n_items=40, effect=-0.05)
    run = measured(run, {"prefill": Timing(1, 1, 1, 3, "ms/token")})
    if long:
        called = [f"gptq[bits={n},group_size=64,act_order=true]@org/a-checkpoint:main" for n in range(names)]
        results = [
            replace(result, variant=replace(result.variant, name=name))
            for result, name in zip(run.results, called, strict=True)
        ]
        run = replace(run, results=tuple(results), baseline=called[0])
    told = terminal.summary(gather(run, read), width=width), terminal.details(run, width)
    for text in told:
        fitted = layout.fitted(text, width)
        words = max(map(len, fitted.split()))
        assert layout.widest(fitted) <= max(width, words + 4)
        assert fitted.split() == text.split()


@pytest.mark.parametrize(
    ("effect", "limit", "said"),
    [(-0.3, 3.0, "bnb4 fails"), (-0.01, 1.0, "bnb4 is undecided"), (0.0, 10.0, "bnb4 passes")],
)
def test_a_text_file_begins_with_the_verdict_of_a_gate(effect, limit, said):
    run, read, items = make_run(2, (ARC,), 400, effect=effect, churn=0.05, seed=5)
    policy = Policy((Rule(max_drop=limit),), allow_inconclusive=True, source="wide.toml")
    outcome = conclude(run, read, policy)
    whole = context(run, read, lambda cell: {one.key: one for one in items(cell)}, outcome.decisions, policy)
    first, _, judged, *_ = terminal.as_text(whole, Options()).splitlines()
    assert first.startswith(said)
    assert judged.startswith("Judged by wide.toml. ")
    assert "(--allow-inconclusive)" in judged
    plain = context(run, read, lambda cell: {one.key: one for one in items(cell)})
    assert terminal.as_text(plain, Options()) == terminal.summary(gather(run, read)) + "\n"
