"""The toy model: deterministic, the same items for every scheme, and worse where bits are fewer."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from qeval.base.errors import QevalError, UsageError
from qeval.base.records import Scheme, Task
from qeval.load.toy import Toy, parse
from qeval.score import toy

ARC = Task("arc_challenge", "acc_norm")
MC2 = Task("truthfulqa_mc2", "acc", kind="score")
WIKI = Task("wikitext", "word_perplexity", kind="perplexity")


@pytest.mark.parametrize("task", [ARC, MC2, WIKI])
@pytest.mark.parametrize("kind", ["fp16", "bnb4"])
def test_the_same_question_gets_the_same_answer(task: Task, kind: str) -> None:
    one, _ = toy.score(task, Scheme(kind), Toy(), seed=1)
    two, _ = toy.score(task, Scheme(kind), Toy(), seed=1)
    np.testing.assert_array_equal(one.value, two.value)
    np.testing.assert_array_equal(one.answer, two.answer)


@pytest.mark.parametrize("task", [ARC, MC2, WIKI])
def test_the_items_do_not_depend_on_the_scheme(task: Task) -> None:
    one, items = toy.score(task, Scheme("fp16"), Toy(), seed=1)
    two, others = toy.score(task, Scheme("bnb4"), Toy(), seed=1)
    for name in ("key", "doc_hash", "prompt_hash", "target_hash", "weight", "gold"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert items == others
    assert not np.array_equal(one.value, two.value)


def test_an_answer_is_the_best_choice_and_its_value_says_whether_it_is_right() -> None:
    samples, _ = toy.score(ARC, Scheme("gptq"), Toy(items=500), seed=3)
    best = np.array([str(int(np.argmax(row))) for row in samples.scores])
    np.testing.assert_array_equal(samples.answer, best)
    np.testing.assert_array_equal(samples.value == 1, samples.answer == samples.gold)


@pytest.mark.slow
def test_fewer_bits_cost_more() -> None:
    task = Task("hellaswag", "acc_norm")
    means = [
        toy.score(task, Scheme("rtn", {"bits": bits}), Toy(items=0), seed=1)[0].value.mean()
        for bits in (4, 2)
    ]
    plain = toy.score(task, Scheme("fp16"), Toy(items=0), seed=1)[0].value.mean()
    assert plain > means[0] > means[1]


def test_subjects_of_the_toy_differ_in_size() -> None:
    sizes = [toy.available(leaf, Toy()) for leaf in toy.leaf_tasks([Task("mmlu", "acc")])]
    assert (min(sizes), max(sizes), sum(sizes)) == (10, 153, 1387)
    assert {toy.available(leaf, Toy(items=7)) for leaf in toy.leaf_tasks([Task("mmlu", "acc")])} == {7}


def test_mmlu_is_its_subjects_and_the_toy_can_be_as_large_as_life() -> None:
    leaves = list(toy.leaf_tasks([Task("mmlu", "acc"), ARC]))
    assert len(leaves) == 58
    assert sum(toy.available(leaf, Toy(items=0)) for leaf in leaves) == 14042 + 1172
    assert {leaf.category for leaf in leaves[:-1]} == {"stem", "humanities", "social_sciences", "other"}


def test_its_options() -> None:
    assert parse("toy") == Toy()
    assert parse("toy[items=5,delay=0.5,fail=bnb4]") == Toy(5, 0.5, "bnb4")
    with pytest.raises(UsageError, match="itmes"):
        parse("toy[itmes=5]")
    with pytest.raises(UsageError, match="not a number"):
        parse("toy[items=many]")
    with pytest.raises(QevalError, match="told to fail"):
        toy.score(ARC, Scheme("bnb4"), parse("toy[fail=bnb4]"), 1)


# --- the page -----------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "toy.md").read_text("utf-8")


def test_the_page_tells_of_every_option() -> None:
    table = PAGE[PAGE.index("| option |") :].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [field.name for field in fields(Toy)]
    assert f"| {toy.DEFAULT_ITEMS}; " in table


def test_the_page_tells_what_schemes_cost() -> None:
    table = PAGE[PAGE.index("| scheme |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| (.*) \| ([\d.]+)% \| ([\d.]+)% \|$", table, re.MULTILINE)
    told = {
        name: (float(changed) / 100, float(lost) / 100)
        for names, changed, lost in rows
        for name in re.findall(r"\w+", names.replace("any other", "other"))
    }
    assert told.pop("other") == pytest.approx(toy._OTHER_DAMAGE)
    assert set(told) == set(toy._DAMAGE)
    assert all(told[name] == pytest.approx(toy._DAMAGE[name]) for name in told)
    assert toy._damage(Scheme("rtn", {"bits": 2})) == pytest.approx([4 * one for one in toy._OTHER_DAMAGE])
