"""Our own loop writes lm-eval's own texts, on small random models of many kinds, or lm-eval's class does."""

import collections
import functools
import logging
from dataclasses import replace

import numpy as np
import pytest
import zoo
from architectures import configurations
from lm_eval_runs import ours

from qeval.score.engine import proofread, writer
from qeval.score.engine.writer import Writer
from qeval.score.harness import door, own
from qeval.score.harness.own import OwnLoop, acts
from qeval.score.harness.thinking import Thinking

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
LONGEST = 120
"""Tokens that the models know positions of."""
TOKENS = 20
GREEDY = {"max_gen_toks": TOKENS, "do_sample": False}
KINDS = ("llama", "gpt2", "qwen2", "gemma2", "gemma3", "mistral", "mixtral", "bloom")
WORDS = [
    "How",
    "many",
    "otters",
    "swim",
    "in",
    "an",
    "old",
    "mill",
    "when",
    "it",
    "rains",
    "and",
    "why",
    "do",
    "they",
    "sing",
    "about",
    "plain",
    "bread",
]
EXAMPLES = "Question: How much is 2 plus 3?\nAnswer: 5\n\n"


@pytest.fixture(autouse=True)
def _any_number_pays(request, monkeypatch):
    if "pays" not in request.node.name:
        monkeypatch.setattr(own, "CHECK_READS", 0)


def questions(n=18, examples=""):
    """Prompts of one to nine words after the same examples."""
    draw = np.random.default_rng(4)
    picked = [draw.choice(WORDS, int(draw.integers(1, 10))) for _ in range(n)]
    return [f"{examples}Question: {' '.join(words)}?\nAnswer:" for words in picked]


PROMPTS = {
    "apart": [f"{prompt[at % 9 :]}" for at, prompt in enumerate(questions())],
    "shared": questions(examples=EXAMPLES),
    "cut": [*questions(9), *questions(9, EXAMPLES * 4)],
}


SIZES = {"apart": (8,), "shared": (1, 8), "cut": (3, 8)}
"""Sizes of batches: the rare kinds of models are tried with all of them."""


def tiny(kind, tokenizer, seed=1):
    """A random model that reads this tokenizer's tokens; windows are of seven."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = configurations()[kind] if kind in configurations() else zoo.configuration(kind)
    config.vocab_size = len(tokenizer)
    config.initializer_range = 0.3
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.eos_token_id
    return AutoModelForCausalLM.from_config(config).float().eval()


def task(tokenizer, fixtures, prompts, **options):
    """A task that asks this, with what is asked of its texts."""
    prepared = ours(tokenizer, "fix_sums", 0, fixtures)
    asked = [(prompt, {"until": [], **GREEDY, **options}) for prompt in prompts]
    owner = np.zeros(len(prompts), np.int32)
    content = replace(prepared.content, owner=owner, arguments=lambda: asked)
    return replace(prepared, content=content, max_length=LONGEST)


class Seen(OwnLoop):
    """The loop, and whether it wrote."""

    def __call__(self, reader, asked):
        self.found = super().__call__(reader, asked)
        return self.found

    wrote = property(lambda self: self.found is not None)


def by_lm_eval(prepared, model, tokenizer, size):
    """The texts of HFLM itself."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=LONGEST)
    asked = [Instance("generate_until", {}, pair, 0) for pair in prepared.content.arguments()]
    return lm.generate_until(asked, disable_tqdm=True)


def stops_in(texts):
    """Three strings that end some of these texts somewhere, and not all."""
    pairs = {text[k : k + 2] for text in texts for k in range(3, len(text) - 1)}
    met = {pair: {at for at, text in enumerate(texts) if pair in text} for pair in sorted(pairs)}
    chosen, ended = [], set()
    for pair in sorted(met, key=lambda pair: -len(met[pair])):
        # Half a letter is one to lm-eval's criteria when decoded, so that a text's end depends on its mates.
        if pair.isascii() and len(chosen) < 3 and len(ended | met[pair]) < 0.7 * len(texts):
            chosen.append(pair)
            ended |= met[pair]
    return chosen


@pytest.mark.parametrize("asked", PROMPTS)
@pytest.mark.parametrize(
    "kind", [*KINDS[:4], *(pytest.param(kind, marks=pytest.mark.rare) for kind in KINDS[4:])]
)
def test_every_text_is_lm_evals(kind, asked, plain_tokenizer, fixtures):
    model = tiny(kind, plain_tokenizer)
    loop = Seen(model)
    endless = task(plain_tokenizer, fixtures, PROMPTS[asked])
    whole = by_lm_eval(endless, model, plain_tokenizer, 8)
    prepared = task(plain_tokenizer, fixtures, PROMPTS[asked], until=stops_in(whole))
    stopped = by_lm_eval(prepared, model, plain_tokenizer, 8)
    assert len(set(whole)) > 4
    assert 2 < sum(one != other for one, other in zip(whole, stopped, strict=True)) < len(whole)
    for size in (1, 3, 8) if kind in KINDS[4:] else SIZES[asked]:
        found = door.generate(prepared, model, plain_tokenizer, batch_size=size, own=loop)
        assert loop.wrote
        assert loop.notes == []
        assert [text.answer for text in found] == stopped
        assert found == door.generate(prepared, model, plain_tokenizer, batch_size=size)
    cut = [text.shortened for text in found]
    assert (any(cut), all(cut)) == (asked == "cut", False)


@pytest.mark.parametrize("kind", ["mamba", "jamba", "lfm2", "phi3_longrope"])
def test_models_that_compute_otherwise_are_left_to_lm_eval(kind, plain_tokenizer, fixtures):
    model = tiny(kind, plain_tokenizer)
    loop = Seen(model)
    prepared = task(plain_tokenizer, fixtures, questions(16, EXAMPLES))
    found = door.generate(prepared, model, plain_tokenizer, batch_size=3, own=loop)
    assert not loop.wrote
    [note] = loop.notes
    assert note.startswith("fix_sums: texts were written by lm-eval's own code (")
    assert [text.answer for text in found] == by_lm_eval(prepared, model, plain_tokenizer, 3)


# --- the check sees what is wrong -----------------------------------------------------------------


def in_the_middle(self, prompts):
    """All rows' examples in the same places, as if padding stood behind them."""
    import torch

    def by_row(kept, places):
        return writer_by_row(kept, torch.arange(places.shape[1]).expand_as(places))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_by_row", by_row)
        return laid_out(self, prompts)


def unmasked(self, prompts):
    feed, mask, cache = laid_out(self, prompts)
    return feed, mask.fill_(1), cache


def behind(self, feed, mask, cache):
    """Positions that do not count what was written."""
    if feed.shape[1] == 1:
        mask = mask.clone()
        mask[:, 0] = 0
    return logits(self, feed, mask, cache)


laid_out, logits, writer_by_row = Writer._laid_out, Writer._logits, writer._by_row


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("_laid_out", in_the_middle), ("_laid_out", unmasked), ("_logits", behind)],
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_loop_that_is_wrong_is_not_used(exact, name, wrong, plain_tokenizer, fixtures, monkeypatch):
    import torch

    model = tiny("llama", plain_tokenizer).to(torch.float32 if exact else torch.bfloat16)
    prepared = task(plain_tokenizer, fixtures, questions(16, EXAMPLES))
    expected = door.generate(prepared, model, plain_tokenizer, batch_size=3)
    monkeypatch.setattr(Writer, name, wrong)
    loop = Seen(model)
    found = door.generate(prepared, model, plain_tokenizer, batch_size=3, own=loop)
    assert not loop.wrote
    [note] = loop.notes
    assert "lm-eval's own code (off by up to" in note
    assert found == expected


def test_texts_that_differ_are_told_where_that_is_rounding_and_refused_where_it_is_not(
    plain_tokenizer, fixtures, monkeypatch
):
    import torch

    prepared = task(plain_tokenizer, fixtures, questions(16, EXAMPLES))
    monkeypatch.setattr(proofread, "doubt", lambda *_: None)
    monkeypatch.setattr(Writer, "_going", lambda *_: iter(()))  # one token, and lm-eval's has more
    going = Writer._logits
    monkeypatch.setattr(Writer, "_logits", lambda *args: -going(*args))
    tried = "2 of 2{} that were tried differ from lm-eval's"
    refused = f"written by lm-eval's own code ({tried.format(' texts')})."
    own = f"written by qeval's own loop; {tried.format('')}"
    taken = f"{own}, their tokens' likelihoods by no more than rounding."
    for dtype, told in ((torch.float32, refused), (torch.bfloat16, taken)):
        model = tiny("llama", plain_tokenizer).to(dtype)
        loop = Seen(model)
        door.generate(prepared, model, plain_tokenizer, batch_size=3, own=loop)
        assert loop.wrote is (dtype is torch.bfloat16)
        assert loop.notes == [f"fix_sums: texts were {told}"]


def test_longer_prompts_are_tried_again(plain_tokenizer, fixtures, monkeypatch):
    tried = []
    before = proofread.draft
    monkeypatch.setattr(
        proofread,
        "draft",
        lambda w, prompts, *rest: tried.append(max(map(len, prompts))) or before(w, prompts, *rest),
    )
    model = tiny("llama", plain_tokenizer)
    loop = Seen(model)
    for prompts in (questions(16), questions(16), questions(16, EXAMPLES), questions(16)):
        prepared = task(plain_tokenizer, fixtures, prompts)
        door.generate(prepared, model, plain_tokenizer, batch_size=3, own=loop)
        assert loop.wrote
    assert len(tried) == 2
    assert tried[0] < tried[1]


# --- what is left to lm-eval ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"do_sample": True, "temperature": 0.7}, {}),
        ({"num_beams": 2}, {}),
        ({"repetition_penalty": 1.3}, {}),
        ({}, {"repetition_penalty": 1.3}),
        ({}, {"no_repeat_ngram_size": 2}),
        ({}, {"suppress_tokens": [5]}),
        ({}, {"min_new_tokens": 3}),
    ],
)
def test_what_the_loop_does_not_know_is_lm_evals(options, settings, plain_tokenizer, fixtures):
    model = tiny("llama", plain_tokenizer)
    model.generation_config.update(**settings)
    loop = Seen(model)
    prepared = task(plain_tokenizer, fixtures, questions(16), **options)
    found = door.generate(prepared, model, plain_tokenizer, batch_size=3, own=loop)
    assert not loop.wrote
    assert loop.notes == []
    assert found == door.generate(prepared, model, plain_tokenizer, batch_size=3)


def test_settings_that_move_no_likeliest_token_do_not_act():
    from transformers import GenerationConfig

    idle = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.95,
        repetition_penalty=1.0,
        eos_token_id=[3, 5],
        pad_token_id=0,
        bos_token_id=1,
        max_length=77,
        num_beams=1,
    )
    assert acts(idle) is None
    assert acts(GenerationConfig(repetition_penalty=1.05)) == "repetition_penalty"
    assert acts(GenerationConfig(forced_eos_token_id=0)) == "forced_eos_token_id"


@pytest.mark.parametrize(
    ("n", "examples", "wrote"),
    [(20, "", False), (200, "", True), (9, EXAMPLES, False), (90, EXAMPLES, True)],
)
def test_the_loop_writes_where_it_pays(n, examples, wrote, plain_tokenizer, fixtures):
    """It saves what is shared, and each check reads some prompts whole."""
    model = tiny("llama", plain_tokenizer)
    prepared = task(plain_tokenizer, fixtures, questions(n, examples), max_gen_toks=2)
    loop = Seen(model)
    door.generate(prepared, model, plain_tokenizer, batch_size=20, own=loop)
    assert loop.wrote is wrote


def test_a_named_marker_and_a_model_with_its_own_way_are_lm_evals(plain_tokenizer, fixtures):
    model = tiny("llama", plain_tokenizer)
    many = task(plain_tokenizer, fixtures, questions(16))
    named = replace(many, thinking=Thinking(end="</think>"))
    loop = Seen(model)
    door.generate(named, model, plain_tokenizer, batch_size=3, own=loop)
    assert not loop.wrote
    loop = Seen(model)
    object.__setattr__(model, "generate", functools.partial(model.generate))
    door.generate(many, model, plain_tokenizer, batch_size=3, own=loop)
    assert not loop.wrote


def test_prompts_of_which_some_bring_a_start_token_are_lm_evals(plain_tokenizer, fixtures):
    """To lm-eval the first of a batch tells whether all do."""
    model = tiny("llama", plain_tokenizer)
    prompts = [("<s>" if at % 2 else "") + prompt for at, prompt in enumerate(questions(16))]
    for asked, wrote in ((prompts, False), (prompts[1::2] * 2, True)):
        prepared = task(plain_tokenizer, fixtures, asked)
        loop = Seen(model)
        found = door.generate(prepared, model, plain_tokenizer, batch_size=3, own=loop)
        assert loop.wrote is wrote
        assert [text.answer for text in found] == by_lm_eval(prepared, model, plain_tokenizer, 3)


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4])
def test_each_of_several_end_tokens_ends_a_text(size, plain_tokenizer, fixtures):
    model = tiny("llama", plain_tokenizer)
    prepared = task(plain_tokenizer, fixtures, questions(16))
    raw = OwnLoop(model)
    taken = collections.Counter()
    door.generate(
        prepared,
        model,
        plain_tokenizer,
        own=lambda *told: [taken.update(one.tokens[4:]) for one in raw(*told)] and None,
    )
    ends = [token for token, _ in taken.most_common(2)]
    model.generation_config.eos_token_id = ends
    loop = Seen(model)
    found = door.generate(prepared, model, plain_tokenizer, batch_size=size, own=loop)
    assert loop.wrote
    assert {len(raw.tokens) for raw in loop.found} - {TOKENS}
    assert all(set(ends).isdisjoint(raw.tokens[:-1]) for raw in loop.found)
    assert [text.answer for text in found] == by_lm_eval(prepared, model, plain_tokenizer, 1)


def test_thinking_ends_alike(plain_tokenizer, fixtures):
    """Markers and stop strings are pieces of the texts themselves."""
    model = tiny("llama", plain_tokenizer)
    prepared = task(plain_tokenizer, fixtures, questions(20))
    texts = [text.whole for text in door.generate(prepared, model, plain_tokenizer)]
    begin, end, *stops = stops_in([text[1:] for text in texts]) + stops_in(texts)
    prepared = replace(
        task(plain_tokenizer, fixtures, questions(20), until=stops), thinking=Thinking(((begin, end),))
    )
    expected = door.generate(prepared, model, plain_tokenizer, batch_size=1)
    assert {text.thinking for text in expected} == {"none", "ended", "open"}
    for size in (1, 4):
        loop = Seen(model)
        assert door.generate(prepared, model, plain_tokenizer, batch_size=size, own=loop) == expected
        assert loop.wrote


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_check_leaves_no_trace_in_the_texts(dtype, plain_tokenizer, fixtures):
    """What is shared went through batches of the check, and comes out of them bit by bit."""
    import torch

    model = tiny("llama", plain_tokenizer).to(getattr(torch, dtype))
    prepared = task(plain_tokenizer, fixtures, questions(20, EXAMPLES), until=["e"])
    loop, fresh = Seen(model), []
    for _ in range(3):
        door.generate(prepared, model, plain_tokenizer, batch_size=6, own=loop)
        fresh.append([raw.tokens for raw in loop.found])
    assert fresh[0] == fresh[1] == fresh[2]
    made = Writer(model, 4)
    prompts = [[1, 5, 9, 7, at, at + 1][: 5 + at % 2] for at in range(10, 20)]
    made.share([1, 5, 9, 7])
    before = [(keys.clone(), values.clone()) for keys, values in made._read]
    made.texts(
        prompts,
        6,
        lambda _: lambda rows, written: [len(t) > r for r, t in zip(rows, written, strict=True)],
    )
    after = made._read
    assert all(
        torch.equal(a, b)
        for one, two in zip(before, after, strict=True)
        for a, b in zip(one, two, strict=True)
    )


# --- speed and memory -----------------------------------------------------------------------------


def fed(model, write):
    """What a way of writing gives, and the rows and tokens of each forward pass."""
    shapes = []
    hook = model.register_forward_pre_hook(
        lambda _m, _a, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    try:
        return write(), shapes
    finally:
        hook.remove()


def test_examples_are_read_once_and_ended_texts_leave(plain_tokenizer, fixtures):
    model = tiny("llama", plain_tokenizer)
    endless = task(plain_tokenizer, fixtures, PROMPTS["shared"])
    texts = by_lm_eval(endless, model, plain_tokenizer, 6)
    prepared = task(plain_tokenizer, fixtures, PROMPTS["shared"], until=stops_in(texts))
    loop = Seen(model)
    door.generate(prepared, model, plain_tokenizer, batch_size=6, own=loop)  # checked from here on
    found, mine = fed(model, lambda: door.generate(prepared, model, plain_tokenizer, batch_size=6, own=loop))
    expected, theirs = fed(model, lambda: by_lm_eval(prepared, model, plain_tokenizer, 6))
    assert [text.answer for text in found] == expected
    read = [shape for shape in mine if shape[1] > 1]
    assert [rows for rows, _ in read] == [1, 6, 6, 6]
    length = len(plain_tokenizer.encode(EXAMPLES))
    assert read[0][1] >= length
    tokens = [sum(rows * width for rows, width in shapes) for shapes in (mine, theirs)]
    assert tokens[0] + 17 * length <= tokens[1]
    assert sum(rows for rows, width in mine if width == 1) == sum(len(raw.tokens) - 1 for raw in loop.found)


def test_where_memory_runs_out_the_batch_is_halved(plain_tokenizer, fixtures, monkeypatch):
    import torch

    model = tiny("llama", plain_tokenizer)
    prepared = task(plain_tokenizer, fixtures, questions(17, EXAMPLES))
    expected = door.generate(prepared, model, plain_tokenizer, batch_size=8)
    seen = []

    def tight(self, feed, mask, cache):
        seen.append(len(feed))
        if len(feed) > 2 and mask.shape[1] > 70:
            raise torch.OutOfMemoryError
        return logits(self, feed, mask, cache)

    monkeypatch.setattr(Writer, "_logits", tight)
    loop = Seen(model)
    found = door.generate(prepared, model, plain_tokenizer, batch_size=8, own=loop)
    assert loop.wrote
    assert found == expected
    assert loop.notes == ["fix_sums: memory ran out with 8 texts at once; from then on 2 were."]
    assert set(seen) >= {1, 2, 4, 8}
