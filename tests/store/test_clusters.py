"""Which items share a text: planted texts are found, all of them and nothing else, however they are told."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import words

from qeval.base.records import Item, Samples
from qeval.store import clusters as module
from qeval.store.clusters import PASSAGE, clusters, count_texts, is_text_field


def found(questions, docs=(), *, hashes=None, choices=None, gold="0", prompts=None):
    """The clusters of items of these questions, as lists of places."""
    n = len(questions)
    keys = [str(100 + place) for place in range(n)]
    items = {
        key: Item(key, "", text, () if choices is None else choices[place], gold)
        for place, (key, text) in enumerate(zip(keys, questions, strict=True))
    }
    empty = np.full(n, "")
    samples = Samples(
        key=np.array(keys),
        doc_hash=empty if hashes is None else np.array(hashes),
        prompt_hash=np.array([f"p{at}" for at in range(n)] if prompts is None else prompts),
        target_hash=empty,
        value=np.ones(n),
        weight=np.ones(n),
        cluster=empty,
        answer=empty,
        gold=empty,
        scores=np.full(n, None),
    )
    names = clusters(samples, items, docs)
    assert names.tolist() == clusters(samples, items, docs).tolist()
    grouped: dict[str, list[int]] = {}
    for place, name in enumerate(names.tolist()):
        if name:
            grouped.setdefault(name, []).append(place)
    assert all(name == keys[places[0]] for name, places in grouped.items())
    assert count_texts(names) == n - sum(len(places) - 1 for places in grouped.values())
    return list(grouped.values())


def alone(n):
    return [f"{words(6, at)} {at}?" for at in range(n)]


# --- fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["passage", "Passage", "story_id", "context", "contextId", "flores_passage", "article", "page", "premise",
     "storyTitle", "paragraph_idx", "passage_text", "document-id"],
)  # fmt: skip
def test_fields_that_hold_or_name_a_text(name):
    assert is_text_field(name)
    docs = [{name: value, "question": at} for at, value in enumerate(["x", "y", "x", "z", "y"])]
    assert found(alone(5), docs) == [[0, 2], [1, 4]]


@pytest.mark.parametrize(
    "name",
    [
        "question",
        "text",
        "id",
        "passage_length",
        "n_contexts",
        "context_type",
        "ctx",
        "subject",
        "sentence",
        "",
        "7",
    ],
)
def test_fields_that_do_not(name):
    assert not is_text_field(name)
    assert found(alone(4), [{name: "x"}] * 4) == []


@pytest.mark.parametrize("nothing", [None, "", "  ", [], {}, float("nan"), True])
def test_a_field_that_is_empty_is_no_text(nothing):
    assert found(alone(4), [{"passage": nothing}] * 4) == []


def test_any_value_may_name_a_text():
    values = [3, 4, 3, {"a": [1]}, {"a": [1]}, ["p", "q"], ["p", "q"]]
    assert found(alone(7), [{"page": value} for value in values]) == [[0, 2], [3, 4], [5, 6]]


def test_white_space_makes_no_other_text():
    docs = [{"passage": "One  day\n"}, {"passage": "One day"}, {"passage": "one day"}]
    assert found(alone(3), docs) == [[0, 1]]


def test_boolq_and_race():
    """Our own data in the shapes of those two: a passage with its questions, an article with its problems."""
    boolq = [{"passage": words(90, at // 3), "question": f"{at}?", "idx": at, "label": 1} for at in range(30)]
    asked = [f"{doc['passage']}\nQuestion: {doc['question']}?\nAnswer:" for doc in boolq]
    threes = [[at, at + 1, at + 2] for at in range(0, 30, 3)]
    assert found(asked, boolq) == found(alone(30), boolq) == found(asked) == threes
    race = [
        {"article": words(200, at // 3), "question": f"{at}?", "example_id": f"high{at}.txt"}
        for at in range(30)
    ]
    told = [f"Article: {doc['article']}\n\nQuestion: {doc['question']}\nAnswer:" for doc in race]
    assert found(told, race) == found(alone(30), race) == found(told) == threes


def test_documents_that_are_no_records_have_no_fields():
    assert found(alone(3), ["a", "a", None]) == []


# --- passages -----------------------------------------------------------------------------------


def under(passage, at):
    return f"This question refers to the following information.\n{passage}\n{words(12, f'q{at}')} ({at})?"


def test_a_passage_that_several_questions_quote():
    asked = [under(words(70, f"text {at % 4}"), at) for at in range(12)]
    assert found(asked) == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]


def test_words_in_common_are_no_passage():
    asked = [under(words(70, f"text {at}"), at) for at in range(40)]
    assert found(asked) == []
    short = words(100, "shared")[: PASSAGE - 20]
    assert found([f"{words(60, at)} {short} {words(60, -at)}" for at in range(1, 9)]) == []


@pytest.mark.parametrize("length", [PASSAGE + 12, 2 * PASSAGE, 3000])
@pytest.mark.parametrize("before", [0, 1, 7])
def test_a_passage_is_found_wherever_it_stands(length, before):
    shared = words(1000, "shared")[:length]
    asked = [
        f"{words(before + at, at)} {shared if at in (2, 5) else words(70, at)} {words(9, -at)}"
        for at in range(8)
    ]
    assert found(asked) == [[2, 5]]


def test_the_tasks_own_wording_is_no_passage():
    instruction = f"Read the question with care. {words(120, 'instruction')} Then answer."
    asked = [f"{instruction}\n{under(words(60, f'text {at // 2}'), at)}\n{instruction}" for at in range(20)]
    assert found(asked) == [[at, at + 1] for at in range(0, 20, 2)]
    assert found([f"{instruction} {words(20, at)}" for at in range(20)]) == []


def test_wording_of_half_the_items_is_a_text():
    shared = words(120, "shared")
    asked = [f"{shared if at < 5 else words(120, at)} {words(20, -at)}" for at in range(10)]
    assert found(asked) == [[0, 1, 2, 3, 4]]


def test_whoever_shares_with_one_shares_with_all_that_one_does():
    first, second = words(60, "first"), words(60, "second")
    asked = [first, words(40, 1), f"{first} {second}", words(40, 2), second, words(40, 3)]
    assert found([f"{text} {at}" for at, text in enumerate(asked)]) == [[0, 2, 4]]
    docs = [{"passage": None}] * 4 + [{"passage": "x"}, {"passage": "x"}]
    assert found([f"{text} {at}" for at, text in enumerate(asked)], docs) == [[0, 2, 4, 5]]


def test_scripts_without_spaces():
    def signs(number, seed):
        return "".join(random.Random(str(seed)).choices("天地玄黃宇宙洪荒日月盈昃辰宿列張", k=number))

    asked = [f"{signs(120, at % 3)}{signs(15, f'q{at}')}" for at in range(9)]
    assert found(asked) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_odd_texts_do_no_harm():
    assert found(["", "\0\0", "\ud800 x", "   "]) == []
    assert found([]) == []
    assert found(["one"]) == []


@settings(max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=8, max_size=30), st.integers(0, 10**6))
def test_planted_passages_are_found_all_and_no_others(texts, seed):
    """Text 0 stands for none; each other one is quoted by all items that have its number."""
    asked = [
        f"{words(at % 5, at)} {words(65, (seed, text or f'own {at}'))} {words(15, (seed, 'q', at))}"
        for at, text in enumerate(texts)
    ]
    wanted = [[at for at, text in enumerate(texts) if text == one] for one in dict.fromkeys(texts) if one]
    nearly_all = any(len(places) > module.NEARLY_ALL * len(texts) for places in wanted)
    assert found(asked) == ([] if nearly_all else [places for places in wanted if len(places) > 1])


def test_long_texts_are_looked_at_in_parts(monkeypatch):
    asked = [under(words(70, f"text {at % 4}"), at) for at in range(40)]
    whole = found(asked)
    monkeypatch.setattr(module, "_BATCH", 700)
    assert found(asked) == whole


# --- whole documents ----------------------------------------------------------------------------


def test_identical_documents():
    assert found(alone(5), hashes=["a", "b", "a", "", ""]) == [[0, 2]]


def test_items_that_differ_in_nothing_but_their_numbers():
    same = {"prompts": ["p", "q", "p", "p"], "choices": [("x", "y"), ("x", "y"), ("x", "y"), ("x", "z")]}
    assert found(alone(4), **same) == [[0, 2]]
    assert found(alone(4), **{**same, "prompts": [""] * 4}) == []


def test_what_was_answered_does_not_matter():
    asked = [under(words(70, f"text {at % 2}"), at) for at in range(6)]
    assert found(asked, gold="0") == found(asked, gold="1") == [[0, 2, 4], [1, 3, 5]]
