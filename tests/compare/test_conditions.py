"""How two variants were asked, beside what hashes prove."""

from __future__ import annotations

import pytest

from qeval.base.records import Cell, Task
from qeval.compare.conditions import ITEMS, arguments, differing


def cell(conditions, **changes):
    made = {
        "key": "k",
        "task": Task("t", "acc"),
        "n": 1,
        "n_available": 1,
        "score": 1.0,
        "files": {"samples.parquet": "0"},
    }
    return Cell(**{**made, "conditions": conditions, **changes})


def said(one, two, **changes):
    """What is told of a cell with the conditions `two` beside one with `one`."""
    return " ".join(differing(cell(one, **changes), cell(two, **changes)))


def test_of_two_that_tell_nothing_nothing_is_told():
    assert said({}, {}) == ""


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        (
            arguments({"pretrained": "org/m", "max_length": "64"}),
            "model_args max_length is 64 for one of the two",
        ),
        (arguments({"pretrained": "org/m", "tokenizer": "org/x"}), "model_args tokenizer is org/x"),
        ({"gen_kwargs": '{"temperature": 1.0}'}, "gen_kwargs is {"),
        (
            arguments(
                {"pretrained": "org/m", "tokenizer": "org/m", "add_bos_token": "False", "device": "cpu"}
            ),
            "",
        ),
        ({"gen_kwargs": "none", "output_type": '"multiple_choice"', ITEMS: "0"}, ""),
    ],
)
def test_beside_one_that_tells_nothing_only_what_is_unusual_is_unproved(first, conditions, says):
    found = said(conditions, {}) if first else said({}, conditions)
    assert says in found
    assert bool(found) == bool(says)


def test_arguments_that_one_alone_was_given_are_told_where_the_other_tells_any():
    told = arguments({"max_length": "64"})
    assert "max_length is 64 where the baseline has none" in said(arguments({"dtype": "int4"}), told)


@pytest.mark.parametrize("first", [True, False])
def test_beside_one_that_tells_no_arguments_those_beyond_the_usual_are_unproved(first):
    """Whatever else it tells: who knows of a limit proves no more of a tokenizer than who knows nothing."""
    few = {"limit": "none", ITEMS: "0", "gen_kwargs": '{"temperature": 1.0}'}

    def beside(given):
        told = {**few, **arguments({"pretrained": "org/m", **given})}
        return said(told, few) if first else said(few, told)

    assert "model_args max_length is 64 for one of the two" in beside({"max_length": "64"})
    assert "gen_kwargs" not in beside({"max_length": "64"})
    assert beside({"dtype": "int4", "device": "cpu", "tokenizer": "org/m"}) == ""


def test_choices_that_one_alone_holds_are_proved_by_nothing():
    one, two = {"limit": "none", ITEMS: "0"}, {"limit": "none"}
    assert "nothing proves its choices" in said(one, two, output_type="multiple_choice")
    assert said(one, two, output_type="generate_until") == ""
    assert said(one, two, output_type="multiple_choice", files={}) == ""
