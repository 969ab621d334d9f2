"""Which items changed, which way, and what is embedded of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, TRUTH, compare_run, context, edited, make_run

from qeval.base.errors import IncomparableError
from qeval.base.records import Item, Task
from qeval.compare.evidence import gather
from qeval.report import flips
from qeval.report.flips import BUDGET, DIRECTIONS, explore, payload, shorten
from qeval.report.formats import Options, formats
from qeval.report.formats.html import as_script_data

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


def test_directions_and_margins():
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
    assert (found["0"].base_margin, found["0"].margin) == (2.0, -0.5)
    assert found["3"].margin == 2.0


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
    texts = {item[1]: item[8:] for item in made["items"]}
    assert texts == {"0": ["5 because 2 and 3 are"], "1": [], "2": ["9 it is\n\n9 again"]}
    rows = {made["items"][row[1]][1]: row[7:] for row in made["rows"]}
    assert rows == {"0": ["6 I think"], "1": ["8 of them"], "2": ["9 it is\n\n9 again"]}


def test_long_texts_are_cut_and_counted_into_the_budget():
    before = [(f"{at} " + "word " * 2_000,) for at in range(200)]
    run, read = written(before, [(f"x{text}",) for (text,) in before])
    explorer = explore(gather(run, read), items, 400_000)
    assert 0 < explorer.shown < explorer.total == 200
    made = payload(explorer, run)
    assert len(as_script_data(made)) < 400_000
    assert all("characters left out" in row[7] and len(row[7]) < 1_600 for row in made["rows"])


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
    assert {item[7] for item in data["items"]} == {0}


def test_the_payload_points_at_its_own_tables():
    run, read, _ = make_run(3, n_items=100, churn=0.4)
    data = payload(explore(gather(run, read), items), run)
    for variant, item, direction, *_ in data["rows"]:
        assert data["variants"][variant] != run.baseline
        assert 0 <= item < len(data["items"])
        assert 0 <= direction < len(DIRECTIONS)
    assert len(json.dumps(data)) < BUDGET


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


def test_a_page_that_cannot_hold_all_flips_says_so(monkeypatch):
    run, read, _ = make_run(2, n_items=400, tasks=(ARC,), churn=0.6)
    monkeypatch.setattr(flips, "MOST_ROWS", 25)
    capped = context(run, read, items)
    page = FORMATS[".html"].render(capped, Options())
    said = (
        f"{capped.explorer.total} answers changed in all; 25 of them are in this page, and the rest stay in"
    )
    assert said in page
    monkeypatch.undo()
    assert "the rest stay in" not in FORMATS[".html"].render(context(run, read, items), Options())
