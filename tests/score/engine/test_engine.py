"""The engine: every path gives the numbers of one-by-one scoring, and each model ends on a path that does."""

import numpy as np
import pytest
from architectures import tiny_model

from qeval.base.errors import QevalError
from qeval.score.engine import tree
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.engine import PATHS, open_engine
from qeval.score.engine.requests import TokenRequest

pytestmark = pytest.mark.torch

TREE = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "opt", "falcon"]
TREE += ["mixtral", "granite", "cohere", "gpt_oss"]
NOT_TREE = ["bloom", "mpt", "falcon_alibi", "gpt_neo", "mamba"]


def by_hand(model, request):
    """The request's log-probabilities and greedy flag, from the model's whole logits, nothing shared."""
    import torch

    tokens = torch.from_numpy(request.tokens.astype(np.int64))
    with torch.no_grad():
        table = torch.log_softmax(model(tokens[None, :-1]).logits[0].float(), -1)[-request.n_scored :]
    target = tokens[-request.n_scored :]
    values = table.gather(1, target[:, None])[:, 0]
    return values.numpy(), bool((table.argmax(-1) == target).all())


def assert_right(engine, model, requests, tolerance=1e-4):
    """Every request answered once, as by hand, to `tolerance` nats per scored token."""
    got = list(engine.score(requests))
    assert sorted(i for i, _ in got) == list(range(len(requests)))
    for i, answer in got:
        values, greedy = by_hand(model, requests[i])
        assert abs(answer.loglikelihood - values.sum(dtype=np.float64)) < tolerance * requests[i].n_scored
        assert answer.greedy == greedy


@pytest.mark.parametrize("architecture", TREE)
def test_the_tree_is_right(architecture, requests):
    model = tiny_model(architecture)
    engine = open_engine(model, sample=requests, budget=100)
    assert engine.path == "tree", engine.note
    assert_right(engine, model, requests, tolerance=1e-5)


@pytest.mark.parametrize("architecture", NOT_TREE)
def test_a_model_that_a_tree_would_wrong_steps_down_by_itself(architecture, requests):
    model = tiny_model(architecture)
    engine = open_engine(model, sample=requests)
    assert engine.path != "tree"
    assert "refused: Token tree" in engine.note
    assert_right(engine, model, requests, tolerance=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_right_for_a_llama(path, requests):
    model = tiny_model("llama")
    engine = open_engine(model, path, sample=requests, batch_size=3)
    assert engine.path == path
    assert_right(engine, model, requests, tolerance=1e-5)


def test_the_tree_feeds_few_tokens(requests):
    engine = open_engine(tiny_model("llama"), sample=requests)
    list(engine.score(requests))
    assert engine.tokens_fed == tree.pack(requests, 10**6).n_trie
    assert engine.tokens_fed < sum(len(r.tokens) - 1 for r in requests) / 3


def test_the_tree_goes_back_to_the_models_own_attention(requests):
    model = tiny_model("llama")
    open_engine(model, sample=requests)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("path", PATHS)
def test_answers_do_not_depend_on_what_is_wanted(path, requests):
    model = tiny_model("llama")
    engine = open_engine(model, path, sample=requests, budget=64, batch_size=4)
    everything = dict(engine.score(requests))
    fed, wanted = engine.tokens_fed, np.zeros(len(requests), bool)
    wanted[[2, 3, 17]] = True
    part = dict(engine.score(requests, wanted))
    assert sorted(part) == [2, 3, 17]
    assert all(part[i] == everything[i] for i in part)
    assert engine.tokens_fed - fed < fed


def test_a_chunk_that_does_not_fit_is_halved(requests, monkeypatch):
    import torch

    model = tiny_model("llama")
    engine = open_engine(model, sample=requests, budget=256)
    whole = dict(engine.score(requests))
    run = engine.lm.body.forward

    def small(input_ids, **more):
        if input_ids.numel() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(input_ids=input_ids, **more)

    monkeypatch.setattr(engine.lm.body, "forward", small)
    told = []
    engine.on_smaller = lambda name, size, _: told.append((name, size))
    halved = dict(engine.score(requests))
    assert engine.budget == 256
    assert dict(told) == engine.smaller
    assert {size for _, size in told} <= {128, 64}
    for i, answer in whole.items():
        assert answer.loglikelihood == pytest.approx(halved[i].loglikelihood, abs=1e-4)


@pytest.mark.parametrize("path", ["kv", "head", "plain"])
def test_a_batch_that_does_not_fit_is_halved(path, requests, monkeypatch):
    import torch

    model = tiny_model("llama")
    engine = open_engine(model, path, sample=requests, batch_size=8)
    whole = dict(engine.score(requests))
    name = "plain" if path == "plain" else "hidden"
    run = getattr(engine.lm, name)

    def small(tokens, **more):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(tokens, **more)

    monkeypatch.setattr(engine.lm, name, small)
    halved = dict(engine.score(requests))
    assert sorted(halved) == sorted(whole)
    for i, answer in whole.items():
        assert answer.loglikelihood == pytest.approx(halved[i].loglikelihood, abs=1e-4)


@pytest.mark.parametrize("path", ["tree", "plain"])
def test_one_sequence_that_does_not_fit_is_a_plain_error(path, requests, monkeypatch):
    import torch

    engine = open_engine(tiny_model("llama"), path, sample=requests)

    def never(*_args, **_more):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(engine.lm.body, "forward", never)
    monkeypatch.setattr(engine.lm, "plain", never)
    with pytest.raises(QevalError, match="does not fit in memory"):
        list(engine.score(requests))


def test_a_sequence_longer_than_the_budget_is_scored(requests):
    model = tiny_model("llama")
    engine = open_engine(model, sample=requests, budget=16)
    assert_right(engine, model, requests, tolerance=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_a_single_request_and_none_at_all(architecture, requests):
    model = tiny_model(architecture)
    engine = open_engine(model, sample=requests[:1])
    assert_right(engine, model, requests[:1], tolerance=1e-4)
    assert list(engine.score([])) == []


def test_a_sample_too_short_to_share_a_context_does_not_hide_that_there_is_no_cache(requests):
    model = tiny_model("mamba")
    engine = open_engine(model, sample=[TokenRequest(np.array([5, 6], np.int32), 1)])
    assert engine.path == "head"
    assert "no KV cache that can be copied" in engine.note
    assert_right(engine, model, requests, tolerance=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_logits_that_are_not_finite_name_the_request(path, requests):
    import torch

    model = tiny_model("llama")
    engine = open_engine(model, path, sample=requests)
    special = TokenRequest(np.array([5, 2, 7, 8], np.int32), 2)
    assert not any(2 in r.tokens for r in requests)
    with torch.no_grad():
        model.model.embed_tokens.weight[2] = torch.nan
    with pytest.raises(NonFiniteError) as caught:
        list(engine.score([*requests, special]))
    assert caught.value.index == len(requests)


def test_plain_batches_are_those_of_lm_eval(requests):
    from lm_eval.models.huggingface import HFLM

    class Tokenizer:
        """Nothing of it is used for requests that are tokens already."""

        pad_token_id = eos_token_id = 0
        vocab_size = 97
        name_or_path = "none"

        def __len__(self):
            return 97

    model = tiny_model("llama")
    engine = open_engine(model, "plain", sample=requests, batch_size=4)
    seen, theirs = [], []
    hook = model.register_forward_pre_hook(
        lambda _m, args, kwargs: seen.append((args or (kwargs["input_ids"],))[0].clone()), with_kwargs=True
    )
    ours = dict(engine.score(requests))
    mine, seen[:] = list(seen), []
    harness = object.__new__(HFLM)
    harness.__dict__ |= {
        "_model": model,
        "tokenizer": Tokenizer(),
        "backend": "causal",
        "logits_cache": True,
        "batch_size_per_gpu": 4,
        "_max_length": 128,
        "_device": engine.lm.device,
        "_rank": 0,
        "mixed_precision_dtype": None,
        "softmax_dtype": None,
        "_config": model.config,
    }
    harness.cache_hook = type("Hook", (), {"add_partial": lambda *_: None})()
    pairs = [(("", ""), r.tokens[: -r.n_scored].tolist(), r.tokens[-r.n_scored :].tolist()) for r in requests]
    theirs = harness._loglikelihood_tokens(pairs, disable_tqdm=True)
    hook.remove()
    assert [x.tolist() for x in mine] == [x.tolist() for x in seen]
    for i, (value, greedy) in enumerate(theirs):
        assert ours[i].loglikelihood == pytest.approx(value, abs=1e-5)
        assert ours[i].greedy == greedy


def test_one_slice_of_logits_is_held_at_a_time(monkeypatch):
    import weakref

    import torch

    from qeval.score.engine import body

    made, log_softmax = [], torch.log_softmax

    def watched(*args, **more):
        assert not any(one() is not None for one in made)
        table = log_softmax(*args, **more)
        made.append(weakref.ref(table))
        return table

    monkeypatch.setattr(torch, "log_softmax", watched)
    monkeypatch.setitem(body.LOGITS_BYTES, "cpu", 4 * 10 * 8)
    logits = torch.randn(40, 10)
    rows = np.arange(40)
    values, best = body.log_probs(
        lambda at: logits[at], 10, torch.device("cpu"), rows, rows.copy(), np.ones(40, np.int32)
    )
    assert len(made) == 2 * 5  # each in two halves
    assert torch.equal(values, log_softmax(logits, -1)[:, 1])
    assert torch.equal(best, logits.argmax(-1) == 1)
