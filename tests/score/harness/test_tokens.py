"""Every kind of tokenizer: our tokens are those of lm-eval's encoding pair by pair, however they came."""

import numpy as np
import pytest

from qeval.base.errors import QevalError
from qeval.score.harness import cuts, tokens

pytestmark = pytest.mark.torch

PARAGRAPHS = (
    "The otter went down to the mill.",
    "It looked for a lantern,  found\tnone",
    "and slept (or so they said...).",
    "Question: How much is 2 plus 30?\nA. five\nB. 32\nAnswer: B",
    "  indented:\n    more, don't you think?",
    "= = heron = =\n\n\nafter three lines ",
)
ANSWERS = (" A", "B", " the harbour at dusk.", "\n\nyet another", "!", " 32", "  two spaces", "ümlaut – 漢字")


def pairs():
    few = "\n\n".join(PARAGRAPHS[:4]) + "\n\n"
    contexts = [few + paragraph for paragraph in PARAGRAPHS] + [*PARAGRAPHS, few, "Answer: ", "x", ""]
    return [(context, answer) for context in contexts for answer in ANSWERS]


def same(found, expected):
    return all(
        np.array_equal(a, b)
        for some, others in zip(found, expected, strict=True)
        for a, b in zip(some, others, strict=True)
    )


def test_tokens_are_those_of_lm_eval(tokenizer):
    encoder = tokens.encoder(tokenizer)
    assert same(tokens._encoded(encoder, pairs()), tokens._slowly(encoder, pairs()))


def test_ordinary_prompts_go_the_short_way(tokenizer):
    """Prompts as benchmarks have them must not fall back to whole texts, or the time saved is lost."""
    few = "\n\n".join(PARAGRAPHS[k] for k in (0, 2, 3)) + "\n\n"
    asked = [
        (few + f"Question: Where is the {word}?\nAnswer:", answer)
        for word in ("otter", "mill", "lantern")
        for answer in (" the harbour at dusk.", " A", " B")
    ]
    encoder = tokens.encoder(tokenizer)
    assert same(tokens._encoded(encoder, asked), tokens._slowly(encoder, asked))
    assert isinstance(encoder.ways[0], cuts.Cut)


@pytest.mark.parametrize("cut", cuts.CUTS)
def test_pieces_make_up_the_text_and_paragraphs_are_whole_lines(cut):
    texts = [
        *PARAGRAPHS,
        "\n\n".join(PARAGRAPHS),
        "\n\n a\n\n\n\nb \n\nc\n",
        "",
        "\n",
        "a \nb",
        "a b",
        "a\n\nb",
    ]
    for text in texts:
        paragraphs = cut.paragraphs(text)
        assert "".join(paragraphs) == "".join(cut.lines(text)) == text
        assert [line for part in paragraphs for line in cut.lines(part)] == cut.lines(text)
        kept = text.rstrip()
        at = cut.seam(kept)
        assert 0 <= at < max(len(kept), 1)
        assert not at or not kept[at - 1].isspace() or (cut.after and kept[at - 1] == "\n")


def test_a_shortcut_that_differs_is_dropped_at_the_first_difference(plain_tokenizer):
    encoder = tokens.encoder(plain_tokenizer)
    first = encoder.ways[0]
    encoder.lines[False, "\nAnswer:"] = np.array(
        [7, 7, 7], dtype=np.int32
    )  # as if it had been learnt wrongly
    asked = [("The mill.\nAnswer:", answer) for answer in ANSWERS]
    assert same(tokens._encoded(encoder, asked), tokens._slowly(encoder, asked))
    assert first not in encoder.ways


def test_every_request_has_context_and_answer_within_the_length(tokenizer):
    encoder = tokens.encoder(tokenizer)
    both = zip(pairs(), tokens._slowly(encoder, pairs()), strict=True)
    asked, exact = zip(*[(pair, encoded) for pair, encoded in both if len(encoded[1])], strict=True)
    requests, truncated = tokens.pair_requests(encoder, asked, 40, "t")
    for request, (context, answer) in zip(requests, exact, strict=True):
        whole = np.concatenate((context, answer))
        assert request.tokens.dtype == np.int32
        assert np.array_equal(request.tokens, whole[-41:])
        assert request.n_scored == len(answer) < len(request.tokens)
    assert truncated == sum(len(context) + len(answer) > 41 for context, answer in exact) > 0


@pytest.mark.parametrize(
    ("pair", "length", "word"),
    [(("x", ""), 50, "no tokens"), (("x", " the harbour at dusk" * 9), 20, "the model accepts 20")],
)
def test_what_lm_eval_cannot_score_is_an_error_that_says_so(pair, length, word, plain_tokenizer):
    with pytest.raises(QevalError, match=word):
        tokens.pair_requests(tokens.encoder(plain_tokenizer), [pair], length, "t")


def test_a_tokenizer_without_bos_and_eos_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(QevalError, match="neither a BOS nor an EOS"):
        tokens.encoder(bare)


@pytest.mark.parametrize("length", [1, 7, 4096])
def test_rolling_windows_score_each_token_once(tokenizer, length):
    encoder = tokens.encoder(tokenizer)
    text = "\n\n".join(PARAGRAPHS)
    whole = tokenizer.encode(text)
    windows = tokens.rolling_requests(encoder, text, length)
    assert np.concatenate([window.tokens[-window.n_scored :] for window in windows]).tolist() == whole
    assert windows[0].tokens[0] == encoder.hflm.prefix_token_id
    assert all(len(window.tokens) <= length + 1 for window in windows)


def test_a_text_that_begins_with_bos_gets_no_second_one(plain_tokenizer):
    encoder = tokens.encoder(plain_tokenizer)
    ((context, _),) = tokens._encoded(encoder, [("<s>Answer:", " A")])
    assert context.tolist().count(plain_tokenizer.bos_token_id) == 1
