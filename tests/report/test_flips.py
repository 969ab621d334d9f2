"""Which items changed, which way, and what is embedded of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from factories import (
    ARC,
    QUIZ,
    TRUTH,
    by_characters,
    compare_run,
    context,
    edited,
    make_run,
    several_units,
    without_cell,
)

from qeval.base import numbers
from qeval.base.errors import IncomparableError
from qeval.base.records import Item, Task
from qeval.compare.against import against
from qeval.compare.evidence import gather, with_baseline
from qeval.report import explorer as explorers
from qeval.report.choosing import best, decided_by, lengths
from qeval.report.explorer import BUDGET, changes, explore, flips_link, payload
from qeval.report.flips import largest_first, shorten, typical_gaps
from qeval.report.formats import Options, formats
from qeval.report.formats.html import as_script_data, render_html
from qeval.report.patterns import MOST_LISTED, listed
from qeval.report.patterns import patterns as patterns_of

FORMATS = formats()
WRITES = Task("writes", "exact_match", "strict", num_fewshot=0)


def items(cell):
    return {
        str(k): Item(str(k), f"shots\n\nQuestion {k}?", f"Question {k}?", (" a", " b", " c", " d"))
        for k in range(cell.n)
    }


def test_every_flip_is_counted_as_the_comparison_counts_it():
    run, read, _ = make_run(4, n_items=300, churn=0.3, seed=9)
    explorer = explore(gather(run, read), items)
    for one in compare_run(run, read):
        if one.flips is None or one.level not in {"task", "subtask"}:
            continue
        count = next(c for c in explorer.counts if (c.variant, c.task) == (one.variant, one.task))
        assert (count.lost, count.gained) == (one.losses, one.gains)
        assert count.lost + count.gained + count.changed == one.flips
    assert explorer.shown == explorer.total


@pytest.mark.parametrize("name", ["bnb4", "gptq", "awq"])
def test_against_another_variant_the_same_items_are_counted_as_a_report_on_it_counts_them(name):
    run, read, _ = make_run(4, (ARC, QUIZ, TRUTH), n_items=150, churn=0.3, seed=9)
    own = explore(gather(run, read), items)
    (evidence,) = [one for one in against(gather(run, read)) if one.run.baseline == name]
    found, true = explorers.against(own, evidence), explore(gather(with_baseline(run, name), read), items)
    assert (found.counts, found.patterns, found.total) == (true.counts, true.patterns, true.total)
    assert found.shown == true.shown == found.total > 0
    few = explore(gather(run, read), items, budget=20_000)
    assert 0 < explorers.against(few, evidence).shown < found.total


def test_what_is_shown_against_other_references_takes_its_room_from_the_items(monkeypatch):
    run, read, _ = make_run(4, (ARC,), n_items=20)
    evidence = gather(run, read)
    assert explorers.room(evidence) == BUDGET
    monkeypatch.setattr(explorers, "_SPARE", 0)
    assert BUDGET - 2000 < explorers.room(evidence) < BUDGET
    assert explorers.room(gather(replace(run, results=run.results[:2]), read)) == BUDGET


def test_directions_and_gaps():
    run, read, _ = make_run(2, n_items=4, tasks=(ARC,))
    base, other = (result.cells[0].key for result in run.results)
    scores = np.empty(4, dtype=object)
    scores[:] = [(-1.0, -3.0), (-1.0, -3.0), (-1.0, -3.0), (-1.0, -3.0)]
    moved = np.empty(4, dtype=object)
    moved[:] = [(-2.0, -1.5), (-2.0, -1.5), (-2.0, -1.5), (-1.0, -3.0)]
    before = {"answer": np.array(["0"] * 4), "value": np.array([1.0, 0, 0, 1]), "scores": scores}
    after = {"answer": np.array(["1", "1", "1", "0"]), "value": np.array([0.0, 1, 0, 1]), "scores": moved}
    read = edited(edited(read, base, **before), other, **after)
    found = {flip.key: flip for flip in explore(gather(run, read), items).flips}
    assert [found[key].direction for key in "0123"] == ["lost", "gained", "changed", "same"]
    assert (found["0"].base_gap, found["0"].gap) == (2.0, -0.5)
    assert found["3"].gap == 2.0


def test_gaps_and_their_order_are_of_the_score_that_decides():
    choices = (" a", " a long choice", " four", " the longest choice of all")

    def sized(cell):
        return {key: replace(item, choices=choices) for key, item in items(cell).items()}

    run, read, _ = make_run(3, n_items=200, tasks=(ARC,))
    explorer = explore(gather(run, by_characters(run, read, choices)), sized)
    assert explorer.decided == {"arc": "characters"}
    divisors = lengths("characters", choices)
    changed = [flip for flip in explorer.flips if flip.direction != "same"]
    raw = [flip.scores[int(flip.base_answer)] - flip.scores[int(flip.answer)] for flip in changed]
    assert max(raw) > 1  # by the undivided score the wrong one would lead
    for flip in changed:
        first, second = int(flip.base_answer), int(flip.answer)
        told = [
            row[first] / divisors[first] - row[second] / divisors[second]
            for row in (flip.base_scores, flip.scores)
        ]
        assert [flip.base_gap, flip.gap] == told
        assert flip.gap <= 0 <= flip.base_gap
    own = [flip.gap for flip in changed if flip.variant == "bnb4" and flip.direction != "changed"]
    few = explore(gather(run, by_characters(run, read, choices)), sized, budget=6_000)
    kept = [flip.gap for flip in few.flips if flip.variant == "bnb4" and flip.direction != "changed"]
    assert own == sorted(own)
    assert 0 < few.shown < explorer.shown
    assert kept[0] == own[0]


def test_gaps_of_several_units_are_ranked_by_what_is_typical_of_their_task():
    run, read, texts = several_units(60)
    explorer = explore(gather(run, read), texts)
    assert explorer.decided == {"arc": "characters", "sums": "plain", "writes": ""}
    typical = typical_gaps(explorer.flips, explorer.decided)
    assert typical["sums", "plain"] > 4 * typical["arc", "characters"] > 0
    ranked = [one for one in largest_first(explorer.flips, explorer.decided) if one.direction == "lost"]
    scored = [one for one in ranked if one.scores]
    assert ranked == scored + [one for one in ranked if one.task.name == "writes"]
    sizes = [one.gap / typical[one.task.name, explorer.decided[one.task.name]] for one in scored]
    assert sizes == sorted(sizes)
    by_size = sorted(scored, key=lambda one: one.gap)
    assert (
        {one.task.name for one in scored[:10]} == {"arc", "sums"} != {one.task.name for one in by_size[:10]}
    )
    report = FORMATS[".md"].render(context(run, read, texts), Options())
    assert "of these the largest gaps, as multiples of their task's median." in report
    one_task, read_one, one_text = make_run(2, tasks=(ARC,), churn=0.3)
    report = FORMATS[".md"].render(
        context(one_task, read_one, lambda cell: {one.key: one for one in one_text(cell)}), Options()
    )
    assert "multiples of their task's median" not in report


def column(values):
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def written(texts_before, texts_after):
    """A run of two variants that wrote these texts, of which the answer is the first word."""
    n = len(texts_before)
    run, read, _ = make_run(2, n_items=n, tasks=(WRITES,))
    for result, some in zip(run.results, (texts_before, texts_after), strict=True):
        answers = np.array([texts[0].partition(" ")[0] for texts in some])
        changes = {"answer": answers, "written": column(some), "scores": column([()] * n)}
        read = edited(read, result.cells[0].key, **changes)
    return run, read


def test_what_both_wrote_is_embedded_beside_the_answers():
    before = [("5 because 2 and 3 are",), ("7",), ("9 it is", "9 again")]
    after = [("6 I think",), ("8 of them",), ("9 it is", "9 again")]
    run, read = written(before, after)
    made = payload(explore(gather(run, read), items), run)
    texts = {item[1]: item[10] for item in made["items"]}
    assert texts == {
        "0": ["5 because 2 and 3 are", "6 I think"],
        "1": ["", "8 of them"],
        "2": ["9 it is\n\n9 again"] * 2,
    }


def test_long_texts_are_cut_and_counted_into_the_budget():
    before = [(f"{at} " + "word " * 2_000,) for at in range(200)]
    run, read = written(before, [(f"x{text}",) for (text,) in before])
    explorer = explore(gather(run, read), items, 400_000)
    assert 0 < explorer.shown < explorer.total == 200
    made = payload(explorer, run)
    assert len(as_script_data(made)) < 400_000
    texts = [text for item in made["items"] for text in item[10]]
    assert len(texts) == 2 * explorer.shown
    assert all("characters left out" in text and len(text) < 1_600 for text in texts)


def test_where_answers_are_worth_parts_none_is_lost_or_gained():
    run, read, _ = make_run(2, n_items=50, tasks=(TRUTH,))
    other = run.results[1].cells[0].key
    explorer = explore(gather(run, edited(read, other, answer=np.array(["1"] * 50))), items)
    assert {flip.direction for flip in explorer.flips} == {"changed"}


def test_items_that_only_one_side_has_are_refused():
    run, read, _ = make_run(2, n_items=50, tasks=(ARC,), churn=0.8)
    other = run.results[1].cells[0].key
    keys = np.array([str(key) for key in range(10, 60)])
    with pytest.raises(IncomparableError, match="which of the two has it"):
        explore(gather(run, edited(read, other, key=keys)), items)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [300_000, 500_000])
def test_the_budget_holds_and_is_shared_fairly(budget):
    run, read, _ = make_run(3, n_items=3000, churn=0.5, seed=3)
    long = {"question": "word " * 100}

    def texts(cell):
        return {key: replace(item, **long) for key, item in items(cell).items()}

    explorer = explore(gather(run, read), texts, budget=budget)
    assert 0 < explorer.shown < explorer.total
    assert len(json.dumps(payload(explorer, run), separators=(",", ":"))) < budget
    shown = [sum(flip.variant == name for flip in explorer.flips) for name in ("bnb4", "gptq")]
    assert abs(shown[0] - shown[1]) < 0.2 * sum(shown)


def test_prompts_shared_by_many_items_are_embedded_once():
    run, read, _ = make_run(2, n_items=200, tasks=(ARC,), churn=0.6)
    data = payload(explore(gather(run, read), items), run)
    assert data["prompts"] == ["shots\n\n"]
    assert {item[5] for item in data["items"]} == {0}


def test_the_payload_says_of_each_item_what_every_variant_made_of_it():
    run, read, _ = make_run(3, n_items=100, churn=0.4)
    data = payload(explore(gather(run, read), items), run)
    assert len(json.dumps(data)) < BUDGET
    assert data["variants"][data["baseline"]] == run.baseline
    for task, key, _, choices, (gold, _), _, marks, answers, differences, *_ in data["items"]:
        name = data["tasks"][task][0]
        places = {result.variant.name: place for place, result in enumerate(run.results)}
        for result in run.results:
            place = places[result.variant.name]
            samples = read(next(cell for cell in result.cells if cell.task.name == name))
            at = samples.key.tolist().index(key)
            assert answers[place] == samples.answer[at]
            assert gold == samples.gold[at]
            if name != "truth":
                assert marks[place] == "01"[int(samples.value[at])]
            first = differences[0] if differences else []
            told = [a + (b if place else 0) for a, b in zip(differences[place], first, strict=True)]
            assert told == [round(1000 * score) for score in samples.scores[at]]
        assert len(choices) == 4


def test_patterns_count_every_item_of_all_variants():
    run, read, _ = make_run(4, n_items=200, tasks=(ARC, QUIZ), churn=0.3, seed=2)
    found = Counter()
    for task in {cell.task.name for cell in run.results[0].cells}:
        columns = [read(c).value for r in run.results for c in r.cells if c.task.name == task]
        found.update("".join("01"[int(value)] for value in row) for row in zip(*columns, strict=True))
    patterns = explore(gather(run, read), items).patterns
    assert {one.marks: one.n for one in patterns} == {m: n for m, n in found.items() if len(set(m)) > 1}
    assert [one.n for one in patterns] == sorted((one.n for one in patterns), reverse=True)


def test_what_all_lost_and_what_each_lost_alone_stands_first_and_losses_above_gains():
    names = ("fp16", "bnb4", "gptq", "awq", "hqq", "aqlm")
    every = ["".join(marks) for marks in product("01", repeat=6) if len(set(marks)) > 1]
    counted = {marks: 1 if marks == "101111" else 9 + place for place, marks in enumerate(every)}
    found = patterns_of(counted, names, "fp16")
    assert "lost by bnb4 only" not in {one.words for one in found[:40]}  # the rarest of all
    shown = [one.words for one in listed(found, names, "fp16")]
    alone = [f"by {name} only" for name in names[1:]]
    assert shown[0] == "lost by all"
    assert set(shown[1:6]) == {f"lost {one}" for one in alone}
    assert shown[5] == "lost by bnb4 only"
    gained = shown.index("gained by all")
    assert set(shown[gained + 1 : gained + 6]) == {f"gained {one}" for one in alone}
    assert len(shown) == MOST_LISTED
    assert all(one.startswith("lost by ") for one in shown[:gained])
    assert all(one.startswith("gained by ") for one in shown[gained:])


@pytest.mark.parametrize(
    ("marks", "signs", "words"),
    [
        ("1011", "✓✗✓✓", "lost by bnb4 only"),
        ("1000", "✓✗✗✗", "lost by all"),
        ("0110", "✗✓✓✗", "gained by 2"),
        ("1.01", "✓·✗✓", "lost by gptq only"),
    ],
)
def test_patterns_are_told_in_signs_and_words(marks, signs, words):
    (found,) = patterns_of({marks: 3}, ("fp16", "bnb4", "gptq", "awq"), "fp16")
    assert (found.signs, found.words, found.n) == (signs, words, 3)


def test_a_variant_that_scored_only_a_part_has_no_mark_elsewhere():
    run, read, _ = make_run(3, n_items=50, tasks=(ARC, QUIZ), churn=0.5)
    explorer = explore(gather(without_cell(run, "gptq", "arc"), read), items)
    assert {one.marks[2] for (task, _), one in explorer.asked.items() if task == "arc"} == {"."}
    assert {one.marks[2] for (task, _), one in explorer.asked.items() if task != "arc"} == {"0", "1"}


def test_links_lead_to_counts_that_agree_with_the_flips():
    run, read, _ = make_run(3, n_items=100, tasks=(ARC, QUIZ), churn=0.4)
    explorer = explore(gather(run, read), items)
    for task, by_variant in changes(explorer).items():
        for variant, counts in by_variant.items():
            own = [
                f for f in explorer.flips if f.variant == variant and (f.task.group or f.task.name) == task
            ]
            assert counts == {n: sum(f.direction == n for f in own) for n in ("lost", "gained", "changed")}
    link = flips_link(variant="a&b c", task="", pattern="1?0")
    assert link == "#flips?variant=a%26b%20c&pattern=1%3F0"
    assert flips_link(variant="a\u200bb") == "#flips?variant=a%E2%9F%A8U%2B200B%E2%9F%A9b"  # as it is shown


@pytest.mark.usefixtures("undrawn")
def test_where_changed_answers_are_counted_the_page_gives_their_share():
    run, read, _ = make_run(2, n_items=80, tasks=(ARC,), churn=0.4)
    made = context(run, read, items)
    (one,) = [row.figure.comparison for row in made.details if row.figure.comparison.level == "task"]
    share = f"of 80 ({numbers.percent(one.flips / 80)})"
    page = render_html(made)
    assert len(re.findall(rf"{one.flips}(?:</a>)? flips? {re.escape(share)}: ", page)) == 1
    assert f'<small class="share">{one.flips} {share}</small>' in page
    kept = made.details[0].figure.statistics["kept"]
    assert f"kept {kept} of fp16's score" in page


@pytest.mark.parametrize(
    ("metric", "scores", "answer", "way"),
    [
        ("acc_norm", (-4.0, -6.0), "1", "characters"),
        ("acc_norm", (-4.0, -6.0), "0", "plain"),
        ("acc_bytes", (-4.0, -5.9), "1", "bytes"),
        ("acc", (-4.0, -6.0), "0", "plain"),
        ("acc", (-4.0, -6.0), "1", ""),
        ("acc_norm", (-4.0, -4.0), "2", ""),
    ],
)
def test_the_score_that_decided_is_the_one_that_gives_every_answer(metric, scores, answer, way):
    choices = (" ab", " abcd" if metric != "acc_bytes" else " äb")
    assert decided_by(metric, [(choices, [(answer, scores)])]) == way
    assert decided_by(metric, []) == ""


def test_lengths_are_those_that_lm_eval_divides_by():
    from qeval.score.harness.rules import answered_choice

    choices, scores = ("yes it is", "no", "ünter", ""), (-9.0, -2.5, -4.0, -1.0)
    for metric, way in (("acc_norm", "characters"), ("acc_bytes", "bytes"), ("acc", "plain")):
        divisors = lengths(way, [f" {choice}" for choice in choices[:3]])
        assert best(scores[:3], divisors) == answered_choice(metric, choices[:3], scores[:3])


def test_long_texts_say_how_much_is_left_out():
    text = shorten("a" * 3000, 1000)
    assert len(text) < 1100
    assert "(2000 characters left out)" in text
    assert shorten("short", 1000) == "short"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        *((text, text) for text in ("</script>", "<!--", "]]>", "a & b", "🏴‍☠️")),
        *((text, f"⟨U+{ord(text):04X}⟩") for text in ("\u2028", "\x00", "\x1b", "\u202e")),
        ("\ud800", "?"),
        (float("nan"), None),
        (float("-inf"), None),
    ],
)
def test_no_data_can_end_its_script_element(value, read):
    text = as_script_data({"x": [value]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"x": [read]}
    text.encode()


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_cannot_hold_all_flips_says_so(monkeypatch):
    run, read, _ = make_run(2, n_items=400, tasks=(ARC,), churn=0.6)
    monkeypatch.setattr(explorers, "MOST_ITEMS", 25)
    capped = context(run, read, items)
    page = FORMATS[".html"].render(capped, Options())
    said = f"{capped.explorer.total} answers changed in all; 25 of them are on this page, and the rest are in"
    assert said in page
    assert "items once, however many variants changed them" in page
    monkeypatch.undo()
    assert "the rest are in" not in FORMATS[".html"].render(context(run, read, items), Options())
