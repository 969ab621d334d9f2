"""Thinking is removed before filters judge, as lm-eval does given the same marker, and kept in the store."""

import copy
import logging
from dataclasses import replace

import pytest
from lm_eval_runs import MAX_LENGTH, ours
from scripted import scripted

from qeval.score.harness import door
from qeval.score.harness.thinking import Thinking, decoded, hidden, thinking_of

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SCRIPT = {
    "2 plus 3": "<think>2 and 3?</think> 5",
    "10 plus 7": "so 3</think>\n</think>\n 17",
    "4 plus 4": "  8\n\nand 9",
    "21 plus 9": "<think>30, or 31",
}
ANSWERS = ["5", "17", "  8", ""]


def wide(prepared, tokens=80):
    """The task with a budget that is enough."""
    asked = [
        (prompt, {**options, "max_gen_toks": tokens}) for prompt, options in prepared.content.arguments()
    ]
    return replace(prepared, content=replace(prepared.content, arguments=lambda: asked))


def with_tokens(tokenizer, *words, special=True):
    from tokenizers import AddedToken

    made = copy.deepcopy(tokenizer)
    made.add_tokens([AddedToken(word, special=special, normalized=False) for word in words])
    return made


@pytest.mark.parametrize(
    ("text", "begun", "answer", "ending"),
    [
        ("5", False, "5", "none"),
        (" 5 ", False, " 5 ", "none"),
        ("<think>a</think>\n 5 ", False, "5 ", "ended"),
        ("a</think>5", False, "5", "ended"),
        ("a</think>5", True, "5", "ended"),
        ("<think>a</think>b</think> 5", False, "5", "ended"),
        ("4 <think>a</think>5 <think>b</think>6", False, "6", "ended"),
        ("5 <think>a", False, "5 ", "open"),
        ("<think>a</think>5<think>b", False, "5", "open"),
        ("a", True, "", "open"),
        ("", False, "", "none"),
        ("</think>", False, "", "ended"),
    ],
)
def test_the_answer_is_what_follows_thinking(text, begun, answer, ending):
    assert Thinking().without(text, begun=begun) == (answer, ending)


def test_a_marker_that_was_named_is_taken_as_lm_eval_takes_it():
    from lm_eval.models.utils import postprocess_generated_text

    named = Thinking(end="</think>")
    for text in ("5", " 5 ", "<think>a</think>\n 5 ", "a</think>b</think>5", " <think>a", "", "</think>"):
        assert named.without(text)[0] == postprocess_generated_text(text, None, "</think>")


@pytest.mark.parametrize(
    ("words", "template", "pairs"),
    [
        ((), None, []),
        (("[THINK]", "[/THINK]"), None, [("[THINK]", "[/THINK]")]),
        (("<|START_THINKING|>", "<|END_THINKING|>"), None, [("<|START_THINKING|>", "<|END_THINKING|>")]),
        (("<seed:think>", "</seed:think>"), None, [("<seed:think>", "</seed:think>")]),
        (
            ("<|begin_of_thought|>", "<|end_of_thought|>"),
            None,
            [("<|begin_of_thought|>", "<|end_of_thought|>")],
        ),
        (
            ("<|channel|>", "<|message|>"),
            None,
            [("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")],
        ),
        (("<|channel>", "<channel|>"), None, [("<|channel>", "<channel|>")]),
        ((), "{{ '<thought>\n' }}{{ m.content.split('</thought>')[-1] }}", [("<thought>", "</thought>")]),
        ((), "{{ '◁think▷◁/think▷' }}", [("◁think▷", "◁/think▷")]),
        ((), "{% if m['reasoning_content'] %}<reason>{% endif %}", []),
        (("<think>", "</think>"), "<think></think>", []),
    ],
)
def test_markers_are_those_of_the_tokenizer_too(words, template, pairs, plain_tokenizer):
    tokenizer = with_tokens(plain_tokenizer, *words)
    tokenizer.chat_template = template
    assert thinking_of(tokenizer).pairs == (("<think>", "</think>"), *pairs)


def test_special_markers_are_seen_and_other_special_tokens_are_not(plain_tokenizer):
    tokenizer = with_tokens(plain_tokenizer, "[THINK]", "[/THINK]", "<|channel|>", "<|message|>")
    for text, shown in (
        ("[THINK]ab[/THINK] 5</s>", "[THINK]ab[/THINK] 5"),
        ("<|channel|>analysis<|message|>ab<|channel|>final<|message|>5</s>", None),
        ("5 [x]", "5 [x]"),
    ):
        ids = tokenizer.encode(text, add_special_tokens=False)
        found = decoded(tokenizer, ids, hidden(thinking_of(tokenizer), tokenizer))
        assert found == (shown or text.removesuffix("</s>"))
        assert thinking_of(tokenizer).without(found)[0] in {"5", "5 [x]"}


def by_lm_eval(model, tokenizer, prepared, size, marker):
    """What HFLM itself makes of the task's prompts."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=size,
        max_length=MAX_LENGTH,
        think_end_token=marker,
    )
    asked = [Instance("generate_until", {}, pair, 0) for pair in prepared.content.arguments()]
    return lm.generate_until(asked, disable_tqdm=True)


@pytest.mark.parametrize("size", [1, 4])
def test_a_named_marker_gives_lm_evals_own_answers(size, model, plain_tokenizer, fixtures):
    prepared = wide(ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"think_end": "</think>"}))
    writer = scripted(model, plain_tokenizer, SCRIPT)
    expected = by_lm_eval(writer, plain_tokenizer, prepared, size, "</think>")
    found = door.generate(prepared, writer, plain_tokenizer, batch_size=size)
    assert [text.answer for text in found] == expected == ["5", "17", "8", "<think>30, or 31"]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("size", [1, 4])
def test_a_marker_that_is_a_token_gives_lm_evals_own_answers(special, size, model, plain_tokenizer, fixtures):
    tokenizer = with_tokens(plain_tokenizer, "[THINK]", "[/THINK]", special=special)
    words = {"<think>": "[THINK]", "</think>": "[/THINK]"}
    script = dict(SCRIPT)
    for mark, word in words.items():
        script = {key: text.replace(mark, word) for key, text in script.items()}
    script["21 plus 9"] = "30"  # lm-eval loses a beginning that is a special token
    number = str(tokenizer.convert_tokens_to_ids("[/THINK]"))
    prepared = wide(ours(tokenizer, "fix_sums", 0, fixtures, writing={"think_end": number}))
    writer = scripted(model, tokenizer, script)
    expected = by_lm_eval(writer, tokenizer, prepared, size, number)
    found = door.generate(prepared, writer, tokenizer, batch_size=size)
    assert [text.answer for text in found] == expected == ["5", "17", "8", "30"]
    unnamed = wide(ours(tokenizer, "fix_sums", 0, fixtures))
    assert [text.answer for text in door.generate(unnamed, writer, tokenizer)] == ["5", "17", "  8", "30"]


def test_without_any_thinking_texts_are_lm_evals(model, plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures)
    found = door.generate(prepared, model, plain_tokenizer, batch_size=3)
    expected = by_lm_eval(model, plain_tokenizer, prepared, 3, None)
    assert [text.answer for text in found] == [text.whole for text in found] == expected


def test_texts_are_stored_whole_and_judged_without_thinking(model, plain_tokenizer, fixtures):
    prepared = wide(ours(plain_tokenizer, "fix_sums", 0, fixtures))
    writer = scripted(model, plain_tokenizer, SCRIPT)
    texts = door.generate(prepared, writer, plain_tokenizer, batch_size=2)
    assert [text.answer for text in texts] == ANSWERS
    samples = door.collect(prepared, texts).samples
    assert samples.written.tolist() == [
        ("<think>2 and 3?</think> 5",),
        ("so 3</think>\n</think>\n 17",),
        ("  8",),
        ("<think>30, or 31",),
    ]
    assert samples.answer.tolist() == ["5", "17", "8", "[invalid]"]
    assert samples.value.tolist() == [1, 1, 1, 0]
    notes, warnings = door.remarks("fix_sums", texts)
    assert [note.split(" were judged")[0] for note in notes] == [
        "fix_sums: thinking was removed from 3 of 4 answers before they"
    ]
    assert len(warnings) == 1
    assert "in 1 of 4 answers the thinking never ended, so" in warnings[0]


@pytest.mark.parametrize("size", [1, 4])
def test_a_stop_string_ends_no_thinking(size, model, plain_tokenizer, fixtures):
    """Whoever shares the batch; lm-eval's own criteria end it, which is told where its marker was named."""
    script = {**SCRIPT, "2 plus 3": "<think>2\n\nor 3?\n\n</think>\n\n5\n\nor 6"}
    writer = scripted(model, plain_tokenizer, script)
    prepared = wide(ours(plain_tokenizer, "fix_sums", 0, fixtures))
    texts = door.generate(prepared, writer, plain_tokenizer, batch_size=size)
    assert [text.answer for text in texts] == ANSWERS
    assert texts[0].whole == "<think>2\n\nor 3?\n\n</think>\n\n5"
    assert not any(text.budget for text in texts)
    named = wide(ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"think_end": "</think>"}))
    found = door.generate(named, writer, plain_tokenizer, batch_size=1)
    assert (found[0].answer, found[0].whole, found[0].halted) == ("<think>2", "<think>2", True)
    _, [warning] = door.remarks("fix_sums", found)
    assert "in 2 of 4 answers the thinking never ended, 1 of them ended by a stop string" in warning


def test_a_prompt_may_begin_the_thinking(model, plain_tokenizer, fixtures):
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer.chat_template = "{{ messages[0].content }}<think>\n"
    prepared = wide(ours(tokenizer, "fix_sums", 0, fixtures, chat_template=True))
    script = {**SCRIPT, "4 plus 4": "8, I think", "2 plus 3": "2 and 3?</think>5"}
    texts = door.generate(prepared, scripted(model, tokenizer, script), tokenizer)
    assert [text.answer for text in texts] == ["5", "17", "", ""]
    assert [text.thinking for text in texts] == ["ended", "ended", "open", "open"]


def test_markers_are_part_of_what_is_asked(plain_tokenizer, fixtures):
    tokenizer = with_tokens(plain_tokenizer, "[THINK]", "[/THINK]")
    made = [
        ours(plain_tokenizer, "fix_sums", 0, fixtures),
        ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"think_end": "</think>"}),
        ours(tokenizer, "fix_sums", 0, fixtures),
    ]
    assert len({prepared.asked for prepared in made}) == 3
    scored = [
        ours(plain_tokenizer, "fix_letters", 0, fixtures, writing={"think_end": end}).asked
        for end in (None, "</think>")
    ]
    assert scored[0] == scored[1]
