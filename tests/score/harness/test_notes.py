"""What lm-eval does in silence is told: dropped descriptions, start tokens that stand twice; framed texts."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from lm_eval_runs import MAX_LENGTH, ours, plain_scorer

from qeval.base.errors import QevalError
from qeval.base.records import Task
from qeval.score.harness import door, tokens
from qeval.score.inputs import notes_of

pytestmark = pytest.mark.torch
TURNS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
ANSWERS = "{% if add_generation_prompt %}[assistant] {% endif %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
IGNORES = (
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}\n{% endfor %}" + ANSWERS
)


def chatty(tokenizer, template):
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "dropped"), [(TURNS + ANSWERS, 0), (REFUSES + TURNS + ANSWERS, 1), (IGNORES, 1)]
)
@pytest.mark.parametrize("kept", [False, True])
def test_a_description_that_the_chat_template_drops_is_told(
    template, dropped, kept, plain_tokenizer, fixtures, tmp_path
):
    """fix_letters has a description, fix_endings none; from the cache too."""
    tokenizer = chatty(plain_tokenizer, template)
    cache = {"cache_dir": tmp_path} if kept else {}
    for _ in range(1 + kept):
        found = [
            ours(tokenizer, name, 2, fixtures, chat_template=True, **cache)
            for name in ("fix_letters", "fix_endings")
        ]
    notes = notes_of(found)
    assert len(notes) == dropped
    assert all(note.startswith("fix_letters: the chat template has no place") for note in notes)
    assert ("Choose the letter." in found[0].content.arguments()[0][0]) is not bool(dropped)


def test_without_a_chat_template_nothing_is_told(plain_tokenizer, fixtures):
    assert notes_of([ours(plain_tokenizer, "fix_letters", 2, fixtures)]) == []


def test_one_note_is_told_of_a_group(plain_tokenizer, fixtures):
    found = door.prepare(
        [Task("fix_all", "", num_fewshot=0)],
        chatty(plain_tokenizer, IGNORES),
        max_length=MAX_LENGTH,
        chat_template=True,
        tasks_dir=fixtures,
    )
    assert [note.partition(":")[0] for note in notes_of([*found, *found])] == ["fix_all"]


def test_a_second_start_token_is_measured_without_too(model, plain_tokenizer, fixtures):
    """The tokenizer adds <s>, and lm-eval sets it before the text once more."""
    prepared = ours(plain_tokenizer, "fix_pages", 0, fixtures)
    first = door.with_one_start(prepared)
    assert len(first) == prepared.n
    outcome = door.collect(prepared, plain_scorer(model, prepared.requests), plain_scorer(model, first))
    bare = copy.deepcopy(plain_tokenizer)
    bare.backend_tokenizer.post_processor = plain_text()
    expected = pages_with_one_start(model, bare, prepared)
    found = outcome.metrics["word_perplexity_with_one_start,none"]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found != pytest.approx(outcome.metrics["word_perplexity,none"], rel=1e-3)
    [note] = door.start_notes(outcome, prepared.task)
    assert f"{found:.4g}" in note
    assert f"{outcome.metrics['word_perplexity,none']:.4g}" in note


def plain_text():
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])


def pages_with_one_start(model, bare, prepared):
    """Word perplexity from windows laid by hand: one start token, then as lm-eval cuts the text with two."""
    total, words, start = 0.0, 0, bare.bos_token_id
    for document in prepared.content.docs():
        ids = bare.encode(document["page"])
        cuts = [0, MAX_LENGTH - 1]  # the first window scores the start token too
        while cuts[-1] < len(ids):
            cuts.append(cuts[-1] + MAX_LENGTH)
        for begin, end in pairwise(cuts):
            scored = ids[begin:end]
            ahead = [start, *ids[:begin]][-(MAX_LENGTH + 1 - len(scored)) :] if begin else [start]
            request = tokens.TokenRequest(np.array([*ahead, *scored], dtype=np.int32), len(scored))
            total += plain_scorer(model, [request])[0].loglikelihood
        words += len(document["page"].split())
    return np.exp(-total / words)


def test_a_tokenizer_that_adds_none_is_not_measured_twice(plain_tokenizer, fixtures):
    bare = copy.deepcopy(plain_tokenizer)
    bare.backend_tokenizer.post_processor = plain_text()
    assert door.with_one_start(ours(bare, "fix_pages", 0, fixtures)) == []


def test_perplexity_inside_the_chat_template(model, plain_tokenizer, fixtures):
    """Every token of the text is scored once, none of the template's; each window follows it anew."""
    tokenizer = chatty(plain_tokenizer, TURNS + ANSWERS)
    framed = ours(tokenizer, "fix_pages", 0, fixtures, framed=True)
    raw = ours(tokenizer, "fix_pages", 0, fixtures)
    assert framed.frame == "[user] \n[assistant] "
    ahead = tokenizer.encode(framed.frame)
    windows = np.diff(framed.content.spans)
    assert windows.max() > 1
    for at, document in enumerate(framed.content.docs()):
        begin, end = framed.content.spans[at : at + 2]
        scored = [request.tokens[len(ahead) :] for request in framed.requests[begin:end]]
        assert np.concatenate(scored).tolist() == tokenizer.encode(document["page"], add_special_tokens=False)
    for request in framed.requests:
        assert request.tokens[: len(ahead)].tolist() == ahead
        assert request.n_scored == len(request.tokens) - len(ahead) <= MAX_LENGTH + 1 - len(ahead)
    assert framed.content.prompt_hash != raw.content.prompt_hash
    assert framed.asked != raw.asked
    assert framed.content.doc_hash == raw.content.doc_hash
    [note] = notes_of([framed])
    assert "perplexity inside the chat template" in note
    found = door.collect(framed, plain_scorer(model, framed.requests)).samples
    assert (
        found.weight.tolist() == door.collect(raw, plain_scorer(model, raw.requests)).samples.weight.tolist()
    )
    with pytest.raises(QevalError, match="cannot measure perplexity inside"):
        door.score_with_lm_eval(framed, model, tokenizer)


def test_only_perplexities_are_framed(plain_tokenizer, fixtures):
    prepared = ours(chatty(plain_tokenizer, TURNS + ANSWERS), "fix_letters", 0, fixtures, framed=True)
    assert (prepared.frame, prepared.notes) == ("", ())


def test_without_a_chat_template_a_framed_perplexity_is_refused(plain_tokenizer, fixtures):
    with pytest.raises(QevalError, match="chat template cannot be applied"):
        ours(plain_tokenizer, "fix_pages", 0, fixtures, framed=True)


def test_a_template_longer_than_the_model_is_refused(plain_tokenizer, fixtures):
    tokenizer = chatty(plain_tokenizer, "so " * 200 + ANSWERS)
    with pytest.raises(QevalError, match="chat template takes"):
        ours(tokenizer, "fix_pages", 0, fixtures, framed=True)
