"""The self-check: what counts as rounding, which requests it picks, and models that cannot do it."""

from dataclasses import replace

import numpy as np
import pytest
import zoo
from architectures import VOCABULARY, tiny_model

from qeval.base.errors import QevalError
from qeval.score.engine import selfcheck, shards
from qeval.score.engine.body import UnsupportedError
from qeval.score.engine.engine import Engine, open_engine, probe
from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.sample import choose


def test_rounding_agrees_and_a_mistake_does_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1e-6, 500)
    assert selfcheck.agrees(rng.normal(0, 1e-6, 500), noise, "float32")
    assert not selfcheck.agrees(rng.normal(0, 1e-3, 500), noise, "float32")


def test_one_token_far_off_is_a_mistake():
    difference = np.zeros(1000)
    difference[3] = 0.4
    assert not selfcheck.agrees(difference, np.zeros(1000), "float16")


def test_noise_of_the_dtype_is_allowed_for():
    rng = np.random.default_rng(0)
    assert selfcheck.agrees(rng.normal(0, 0.02, 500), rng.normal(0, 0.02, 500), "bfloat16")
    assert not selfcheck.agrees(rng.normal(0, 0.5, 500), rng.normal(0, 0.02, 500), "bfloat16")


def test_rounding_of_another_kernel_is_allowed_for_where_batches_are_all_alike():
    rng = np.random.default_rng(0)
    alike, off = np.zeros(500), rng.normal(0, 0.07, 500)
    assert not selfcheck.agrees(off, alike, "bfloat16")
    assert selfcheck.agrees(off, alike, "bfloat16", rounding=0.1)
    assert not selfcheck.agrees(off * 5, alike, "bfloat16", rounding=0.1)


@pytest.mark.torch
@pytest.mark.parametrize(("dtype", "least"), [("float32", 0), ("bfloat16", 1e-4), ("float16", 1e-5)])
def test_the_rounding_of_attention_written_out_counts_in_16_bits_only(dtype, least):
    model = tiny_model("llama", dtype)
    engine = open_engine(model, "plain", sample=sample([30, 40]), batch_size=1)
    requests = sample([30, 40])
    found = selfcheck._rounding(engine, requests, selfcheck._values(engine, requests), dtype)
    assert least <= found <= selfcheck.MOST_ROUNDING * selfcheck.FLOOR[dtype]
    assert (found > 0) == (dtype != "float32")


def test_what_is_not_finite_never_agrees():
    assert not selfcheck.agrees(np.array([0.0, np.nan]), np.array([1.0, 1.0]), "float32")


def sample(lengths):
    rng = np.random.default_rng(0)
    return [TokenRequest(rng.integers(3, VOCABULARY, n).astype(np.int32), 2) for n in lengths]


def test_few_real_tokens_are_picked():
    picked, few = choose(sample(range(20, 220)), 600)
    real = [r for r in picked[:few] if r.n_scored == 2 and len(r.tokens) >= 20]
    assert 2 <= len(real) <= 5
    assert sum(len(r.tokens) for r in real) <= 600


def test_a_request_beyond_the_window_comes_along_whatever_its_length():
    picked, few = choose(sample([30, 40, 50, 1000, 900, 800]), 100, [512])
    assert max(len(r.tokens) for r in picked[:few]) < 100
    assert sorted(len(r.tokens) for r in picked[few:]) == [800, 1000]


def test_long_requests_only_are_still_a_sample():
    picked, _ = choose(sample([900, 800]), 100)
    assert 800 in [len(r.tokens) for r in picked]


def plain_sums(model, requests):
    engine = open_engine(model, "plain", sample=requests, batch_size=1)
    return [dict(engine.score(requests))[i].loglikelihood for i in range(len(requests))]


def without(model, *, names, ignore):
    """The model with a body whose forward refuses, or silently ignores, arguments of these names."""
    body = model.model
    forward = body.forward

    def ignoring(input_ids=None, **more):
        return forward(input_ids=input_ids, **{k: v for k, v in more.items() if k not in names})

    def refusing(input_ids=None, use_cache=None):
        return forward(input_ids=input_ids, use_cache=use_cache)

    body.forward = ignoring if ignore else refusing
    return model


@pytest.mark.torch
@pytest.mark.parametrize("names", [{"position_ids"}, {"attention_mask"}, {"position_ids", "attention_mask"}])
@pytest.mark.parametrize("ignore", [True, False])
def test_a_model_that_takes_no_mask_or_positions_steps_down(names, ignore, requests):
    want = plain_sums(tiny_model("llama"), requests)
    model = without(tiny_model("llama"), names=names, ignore=ignore)
    if not ignore:
        # What its causal model hands to such a body
        forward = model.forward
        model.forward = lambda input_ids=None, use_cache=None: _bare(model, forward, input_ids, use_cache)
    engine = open_engine(model, sample=requests)
    assert engine.path != "tree"
    assert "refused: Token tree" in engine.note
    got = dict(engine.score(requests))
    assert [got[i].loglikelihood for i in range(len(requests))] == pytest.approx(want, abs=1e-4)


def _bare(model, _forward, input_ids, use_cache):
    from transformers.modeling_outputs import CausalLMOutput

    return CausalLMOutput(logits=model.lm_head(model.model(input_ids=input_ids, use_cache=use_cache)[0]))


@pytest.mark.torch
def test_a_model_without_a_body_is_scored_plainly(requests):
    import torch

    class Bigram(torch.nn.Module):
        """The next token depends on the last alone; nothing about it is transformers'."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(VOCABULARY, VOCABULARY)

        def forward(self, input_ids):
            return (self.table(input_ids),)

    model = Bigram()
    engine = open_engine(model, sample=requests)
    assert engine.path == "plain"
    got = dict(engine.score(requests))
    for i, r in enumerate(requests):
        table = torch.log_softmax(model.table.weight, -1).detach().numpy()
        want = table[r.tokens[-r.n_scored - 1 : -1], r.tokens[-r.n_scored :]].sum()
        assert got[i].loglikelihood == pytest.approx(want, abs=1e-4)


@pytest.mark.torch
def test_a_bug_in_a_faster_path_is_told_with_its_traceback(requests, monkeypatch, capsys):
    from qeval.score.engine.tiles import Tiles

    monkeypatch.setattr(Tiles, "masks", lambda *_: None + 1)
    engine = open_engine(tiny_model("llama"), sample=requests)
    (failure,) = engine.failures
    assert failure.startswith(
        "The faster path 'Token tree with tiles' failed unexpectedly (TypeError: unsupp"
    )
    assert failure.endswith(") and was left out")
    assert "refused: Token tree with tiles: failed unexpectedly (TypeError" in engine.note
    assert "None + 1" in capsys.readouterr().err
    assert engine.path == "tree"


@pytest.mark.torch
@pytest.mark.parametrize("architecture", ["bloom", "falcon_alibi", "gpt_neo", "mpt", "mamba"])
def test_a_model_whose_own_attention_fails_with_the_mask_refuses_it(architecture, requests, capsys):
    engine = open_engine(tiny_model(architecture), sample=requests)
    assert engine.path != "tree"
    assert engine.failures == ()
    assert "Traceback" not in capsys.readouterr().err


HYBRID = ["lfm2", "jamba", "zamba2", "bamba", "qwen3_next", "nemotron_h", "granitemoehybrid", "falcon_h1"]


@pytest.mark.torch
@pytest.mark.parametrize("architecture", [*HYBRID, "deepseek_v4"])
def test_states_that_are_not_copied_with_the_keys_are_a_known_refusal(architecture, requests, capsys):
    """Where recurrent layers stand beside attention, the cache can be copied in part only."""
    engine = open_engine(zoo.model(architecture), sample=requests)
    assert engine.path == "head"
    assert engine.failures == ()
    assert "it has no KV cache that can be copied" in engine.note
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.torch
def test_a_bug_of_ours_is_told_for_such_a_model_too(requests, monkeypatch):
    from qeval.score.engine.dense import Dense

    monkeypatch.delattr(Dense, "_mask")
    engine = open_engine(tiny_model("bloom"), sample=requests)
    (failure,) = engine.failures
    assert "'Token tree with a dense mask' failed unexpectedly (AttributeError" in failure


@pytest.mark.torch
def test_known_refusals_are_no_failures(requests, monkeypatch, capsys):
    import torch

    from qeval.score.engine.tiles import Tiles

    for error in (
        UnsupportedError("it has none"),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        NotImplementedError("no such operator"),
        RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'"),
        torch._dynamo.exc.BackendCompilerFailed(len, ValueError("inside"), None),
    ):

        def refuse(*_, error=error):
            raise error

        monkeypatch.setattr(Tiles, "masks", refuse)
        engine = open_engine(tiny_model("llama"), sample=requests)
        assert engine.failures == (), error
        assert "refused: Token tree with tiles: " in engine.note
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.torch
def test_a_model_that_fails_plainly_says_so(requests):
    import torch

    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(QevalError, match="not finite"):
        list(open_engine(model, sample=requests).score(requests))


@pytest.mark.torch
def test_long_rope_keeps_long_and_short_apart(requests):
    model = tiny_model("phi3_longrope")
    engine = open_engine(model, sample=requests)
    assert engine.path == "tree", engine.note
    got = dict(engine.score(requests))
    assert [got[i].loglikelihood for i in range(len(requests))] == pytest.approx(
        plain_sums(model, requests), abs=1e-4
    )


# --- what later requests could break ---------------------------------------------------------------


def lengthy(lengths, scored=2):
    """Requests that share nothing."""
    rng = np.random.default_rng(5)
    return [TokenRequest(rng.integers(3, VOCABULARY, n).astype(np.int32), scored) for n in lengths]


@pytest.mark.torch
@pytest.mark.parametrize("architecture", ["gpt_neo", "mistral", "gemma3", "phi3"])
def test_a_window_that_the_first_task_does_not_reach_is_seen(architecture, requests):
    """Short requests first, then long ones: every path sees both before it is trusted."""
    model = tiny_model(architecture)
    everything = [*lengthy([4, 5, 6]), *requests, *lengthy([80, 90])]
    engine = open_engine(model, sample=everything)
    got = dict(engine.score(everything))
    want = plain_sums(model, everything)
    for i, one in enumerate(everything):
        assert abs(got[i].loglikelihood - want[i]) < 1e-5 * one.n_scored


@pytest.mark.torch
def test_requests_beyond_what_was_checked_are_probed(monkeypatch):
    from qeval.score.engine import engine as engines
    from qeval.score.engine.tiles import Tiles

    model = tiny_model("mistral")
    engine = open_engine(model, sample=lengthy([4, 5, 6]))
    assert engine.path == "tree"
    assert engine.below[-1] == "Plain batches"
    far = lengthy([80, 90])
    assert engines.probe(engine, far) is None
    assert engine.checked.longest == 90
    masks = Tiles.masks

    def wrong(self, chunk):
        """Right for short chunks alone: in long ones requests see their neighbours."""
        n = len(chunk.tokens)
        return masks(self, replace(chunk, end=np.full_like(chunk.end, n)) if n > 200 else chunk)

    monkeypatch.setattr(Tiles, "masks", wrong)
    reason = engines.probe(engine, lengthy([120, 125, 100]))
    assert reason is not None
    assert "nat per token" in reason


@pytest.mark.torch
@pytest.mark.parametrize("path", ["tree", "kv", "head", "plain"])
def test_longrope_parts_lengths_on_every_path(path, requests):
    model = tiny_model("phi3_longrope")
    everything = [*requests, *lengthy([30, 60, 100, 45])]
    engine = open_engine(model, path, sample=everything)
    want = plain_sums(model, everything)
    got = dict(engine.score(everything))
    for i, one in enumerate(everything):
        assert abs(got[i].loglikelihood - want[i]) < 1e-4 * one.n_scored


def swayed(by):
    """A model whose logits depend on how many sequences stand in its batch."""
    import torch

    class Swayed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(VOCABULARY, VOCABULARY)

        def forward(self, input_ids):
            turned = torch.roll(self.table(input_ids), 1, dims=-1)
            return (self.table(input_ids) + by * (len(input_ids) - 1) * turned,)

    return Swayed()


@pytest.mark.torch
def test_beyond_the_ceiling_items_are_scored_one_by_one_with_a_warning(requests):
    model = swayed(0.3)
    engine = open_engine(model, sample=requests)
    assert (engine.path, engine.batch_size) == ("plain", 1)
    assert "one by one" in engine.warnings[0]
    assert "nat" in engine.warnings[0]
    got = dict(engine.score(requests))
    want = plain_sums(model, requests)
    assert [got[i].loglikelihood for i in range(len(requests))] == pytest.approx(want, abs=1e-4)


@pytest.mark.torch
def test_noise_within_the_ceiling_is_no_reason_for_a_warning(requests):
    engine = open_engine(swayed(1e-5), sample=requests)
    assert engine.warnings == ()
    assert engine.batch_size == 4


@pytest.mark.torch
def test_layers_that_round_a_batch_together_are_told_and_left_to_it(requests):
    engine = open_engine(swayed(0.3), sample=requests, mates=True)
    assert engine.batch_size == 4
    assert "round activations together" in engine.warnings[0]
    assert "batches of 4" in engine.warnings[0]


def test_no_noise_excuses_what_lies_beyond_the_ceiling():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 500)
    for dtype, ceiling in selfcheck.CEILING.items():
        assert selfcheck.allowance(noise * 10, dtype) == ceiling
        assert selfcheck.allowance(noise * 10, dtype, bounded=False) > ceiling
        assert not selfcheck.agrees(np.full(500, 1.1 * ceiling), noise * 10, dtype)


@pytest.mark.torch
def test_plain_batches_that_move_numbers_are_scored_one_by_one_by_every_worker(requests):
    """The first worker finds it out; one that goes on knows the rung alone."""
    first = open_engine(swayed(0.3), sample=requests, batch_size=4)
    assert (first.path, first.batch_size) == ("plain", 1)
    next_one = open_engine(swayed(0.3), sample=requests, batch_size=4, rung=first.rung)
    assert (next_one.batch_size, next_one.warnings) == (1, first.warnings)
    assert next_one.tolerance == first.tolerance


@pytest.mark.torch
def test_sizes_of_a_faster_path_mean_nothing_to_a_slower_one(requests):
    few = requests[:10]
    tokens = {shards.name(few): 2048}
    after = open_engine(tiny_model("llama"), "plain", sample=requests, batch_size=4, smaller=tokens)
    want = open_engine(tiny_model("llama"), "plain", sample=requests, batch_size=4)
    assert dict(after.score(few)) == dict(want.score(few))
    assert after.tokens_padded == want.tokens_padded


@pytest.mark.torch
def test_what_does_not_fit_of_a_probe_is_told_to_nobody(requests, monkeypatch):
    import torch

    engine = open_engine(tiny_model("llama"), sample=requests)
    told = []
    engine.on_pass = engine.on_smaller = lambda *what: told.append(what)
    run, times = Engine._chunk, []

    def short_at_first(self, *what):
        times.append(1)
        if len(times) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(self, *what)

    monkeypatch.setattr(Engine, "_chunk", short_at_first)
    fed = engine.tokens_fed
    assert probe(engine, requests) is None
    assert len(times) > 1
    assert (told, engine.smaller, engine.tokens_fed) == ([], {}, fed)
