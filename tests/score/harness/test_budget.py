"""The token budget of what is written: lm-eval's own texts under any, and told where it cuts."""

from dataclasses import replace

import pytest
from lm_eval_runs import MAX_LENGTH, ours, theirs
from scripted import scripted

from qeval.base.errors import QevalError
from qeval.score.harness import door
from qeval.score.harness.writing import Text

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SCRIPT = {
    "2 plus 3": "5",  # an end token
    "10 plus 7": "17\n\nand so on, and so on",  # a stop string
    "4 plus 4": "it is as far as I can tell 8",
    "21 plus 9": "3030303030303030303030303030",
}


@pytest.mark.parametrize("tokens", [1, 4, 30])
def test_texts_are_lm_evals_with_that_budget(tokens, model, plain_tokenizer, fixtures):
    found = theirs(model, plain_tokenizer, "fix_sums", 0, fixtures, gen_kwargs={"max_gen_toks": tokens})
    expected = {row["doc_id"]: row["resps"][0] for row in found["samples"]["fix_sums"]}
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"max_gen_toks": tokens})
    texts = door.generate(prepared, model, plain_tokenizer, batch_size=3)
    assert [[text.answer] for text in texts] == [expected[at] for at in range(4)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_text_is_cut_that_neither_stops_nor_ends(size, model, plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"max_gen_toks": 8})
    texts = door.generate(
        prepared, scripted(model, plain_tokenizer, SCRIPT), plain_tokenizer, batch_size=size
    )
    assert [text.budget for text in texts] == [0, 0, 8, 8]
    assert [text.answer for text in texts[:2]] == ["5", "17"]
    notes, warnings = door.remarks("fix_sums", texts)
    assert notes == []
    [warning] = warnings
    assert warning == (
        "fix_sums: 2 of 4 answers were cut by the budget of 8 tokens, not ended by a stop string or an end"
        " token; --max-gen-toks gives them more."
    )


def test_the_tasks_own_budget_is_told_too(model, plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures)
    texts = door.generate(prepared, scripted(model, plain_tokenizer, SCRIPT), plain_tokenizer)
    assert [text.budget for text in texts] == [0, 0, 6, 6]


def test_a_text_that_ends_with_its_last_token_is_not_cut(model, plain_tokenizer, fixtures):
    length = len(plain_tokenizer.encode("it is", add_special_tokens=False))
    script = {**SCRIPT, "4 plus 4": "it is", "21 plus 9": "it is\n\n"}
    for tokens, cut in ((length, [8, 8]), (length + 3, [0, 0])):
        prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"max_gen_toks": tokens})
        texts = door.generate(prepared, scripted(model, plain_tokenizer, script), plain_tokenizer)
        assert [bool(text.budget) for text in texts[2:]] == [bool(at) for at in cut]


@pytest.mark.parametrize(("cut", "warned"), [(0, None), (3, False), (4, True)])
def test_a_few_are_a_note_and_more_a_warning(cut, warned):
    texts = [Text("a", "a", budget=9 if at < cut else 0) for at in range(100)]
    notes, warnings = door.remarks("t", texts)
    assert len(notes) == (warned is False)
    assert len(warnings) == (warned is True)


def test_prompts_that_make_room_are_told(model, plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"max_gen_toks": MAX_LENGTH - 5})
    writer = scripted(model, plain_tokenizer, {"": "5"})
    texts = door.generate(prepared, writer, plain_tokenizer)
    assert all(text.shortened for text in texts)
    [warning] = door.remarks("fix_sums", texts)[1]
    assert "4 of 4 prompts lost their beginning" in warning


def test_a_budget_without_room_for_a_prompt_is_refused(plain_tokenizer, fixtures):
    with pytest.raises(QevalError, match="160 tokens leave no room for a prompt"):
        ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"max_gen_toks": MAX_LENGTH})


def test_the_budget_is_part_of_what_is_asked_and_of_nothing_else(plain_tokenizer, fixtures, tmp_path):
    for name, count in (("fix_sums", 3), ("fix_letters", 1)):
        made = [
            ours(plain_tokenizer, name, 0, fixtures, cache_dir=tmp_path, writing={"max_gen_toks": tokens})
            for tokens in (None, 8, 9)
        ]
        assert len({prepared.asked for prepared in made}) == count
        assert len({prepared.content.prompt_hash for prepared in made}) == 1


def test_other_names_for_the_budget_give_way(plain_tokenizer, fixtures):
    from qeval.score.harness.writing import written_as

    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures)
    own = [("a", {"until": ["x"], "max_new_tokens": 3, "max_length": 7})]
    content = replace(prepared.content, arguments=lambda: own)
    made = written_as(replace(prepared, content=content), plain_tokenizer, max_gen_toks=9)
    assert made.content.arguments() == [("a", {"until": ["x"], "max_gen_toks": 9})]
