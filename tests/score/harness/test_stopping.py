"""Where texts end: lm-eval's own texts, in no more steps than it takes."""

import logging
from dataclasses import replace

import pytest
from lm_eval_runs import MAX_LENGTH, ours
from scripted import scripted

from qeval.score.harness import door

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def both(writer, tokenizer, fixtures, size, stops, tokens=24):
    """Texts of the task under these stop strings, ours and lm-eval's, and the steps that each took."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    prepared = ours(tokenizer, "fix_sums", 0, fixtures, writing={"max_gen_toks": tokens})
    asked = [(prompt, {**own, "until": stops}) for prompt, own in prepared.content.arguments()]
    prepared = replace(prepared, content=replace(prepared.content, arguments=lambda: asked))
    found = [text.answer for text in door.generate(prepared, writer, tokenizer, batch_size=size)]
    taken = list(getattr(writer, "steps", ()))
    lm = HFLM(pretrained=writer, tokenizer=tokenizer, batch_size=size, max_length=MAX_LENGTH)
    expected = lm.generate_until(
        [Instance("generate_until", {}, pair, 0) for pair in asked], disable_tqdm=True
    )
    return found, expected, taken, list(getattr(writer, "steps", ()))[len(taken) :]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stops", [["\n\n"], ["e", "a"], [" ", "th"], ["e"], []])
def test_texts_of_a_random_model_are_lm_evals(stops, size, model, plain_tokenizer, fixtures):
    found, expected, *_ = both(model, plain_tokenizer, fixtures, size, stops)
    assert found == expected
    assert any(found)


def test_a_batch_ends_as_soon_as_each_text_has(model, plain_tokenizer, fixtures):
    """lm-eval writes on until all have met the same stop string."""
    script = {"2 plus 3": "5\n\nso", "10 plus 7": "17. So", "4 plus 4": "8\n\nso", "21 plus 9": "30. So"}
    script = {key: text * 9 for key, text in script.items()}
    writer = scripted(model, plain_tokenizer, script)
    found, expected, ours_took, lm_eval_took = both(writer, plain_tokenizer, fixtures, 4, ["\n\n", "."])
    assert found == expected == ["5", "17", "8", "30"]
    assert len(ours_took) <= 5 < len(lm_eval_took)
