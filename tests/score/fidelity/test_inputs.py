"""Head inputs: stored once, replayed exactly on every kind of model, proved or refused, made anew when
damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from architectures import VOCABULARY, tiny_model
from fidelity_streams import by_brute_force, random_stream

torch = pytest.importorskip("torch")

from qeval.base.errors import QevalError  # noqa: E402
from qeval.score.engine.body import CausalModel  # noqa: E402
from qeval.score.fidelity import heads, inputs  # noqa: E402
from qeval.score.fidelity.passes import Feed, compared, usual_batch  # noqa: E402
from qeval.store import inputs as store  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
KNOWN = 90  # tokens of the tokenizer; the models have 97 rows
KEY = "a" * 64
# scaled head; soft cap and tied head; sliding windows; biases in the head; states that recur; experts
ARCHITECTURES = [
    "llama",
    "granite",
    "cohere",
    "gemma2",
    "mistral",
    "phi3",
    "gpt2",
    "gpt_oss",
    "mamba",
    "bloom",
]


def noisy(architecture, size=0.02):
    model = tiny_model(architecture)
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * size)
    return model


def make(lm, stream, cache: Path, limit=1 << 40, key=KEY, known=KNOWN):
    return inputs.make(lm, stream, inputs.Place(cache, limit, key, known), lambda _: None)


def positions(kept, lm, cache, stream, batch=None, *, plain=False):
    opened = inputs.Opened(cache, kept, lm)
    heads_ = (opened.logits, (lambda logits: logits) if plain else lm.logits)
    feed = Feed(lm, stream, batch or kept.batch, plain=plain)
    with torch.no_grad():
        return compared(stream, opened.states, feed.rows(), heads_, kept.vocabulary)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_divergence_of_whole_logits_and_nothing_from_itself(architecture, tmp_path):
    stream = random_stream(KNOWN)
    base, other = CausalModel(tiny_model(architecture)), CausalModel(noisy(architecture))
    kept = make(base, stream, tmp_path)
    assert (kept.vocabulary, kept.cut) == (KNOWN, VOCABULARY - KNOWN)
    same = positions(kept, base, tmp_path, stream)
    assert not same.kl.any()
    assert not same.kl_reverse.any()
    assert same.ordered.all()
    found = positions(kept, other, tmp_path, stream, batch=1)
    kl, log_p, log_q = by_brute_force(base.model, other.model, stream, KNOWN)
    assert kl.mean() > 1e-3
    chaos = 30 if architecture == "mamba" else 1  # its states, fed in batches, differ more
    assert np.abs(found.kl - kl).max() < 1e-6 * chaos
    assert np.abs(found.log_p - log_p).max() < 1e-5 * chaos
    assert np.abs(found.log_q - log_q).max() < 1e-5 * chaos


def test_only_what_is_scored_counts(tmp_path):
    stream = random_stream(KNOWN, first=11)
    base, other = CausalModel(tiny_model("llama")), CausalModel(noisy("llama"))
    kept = make(base, stream, tmp_path)
    assert kept.positions == stream.n == 5 * 9
    kl, _, _ = by_brute_force(base.model, other.model, stream, KNOWN)
    assert np.abs(positions(kept, other, tmp_path, stream).kl - kl).max() < 1e-6


def test_other_packing_and_the_plain_path_are_the_noise_of_rounding(tmp_path):
    stream = random_stream(KNOWN, windows=8)
    base = CausalModel(tiny_model("llama"))
    kept = make(base, stream, tmp_path)
    assert kept.batch > 1
    for again in (
        positions(kept, base, tmp_path, stream, batch=1),
        positions(kept, base, tmp_path, stream, batch=1, plain=True),
    ):
        assert np.abs(again.kl).max() < 1e-8
        assert again.rank.max() == 0


class Packed(torch.nn.Module):
    """A head whose weight is held in 8 bits, unpacked when it is used."""

    def __init__(self, linear, *, activations=False):
        super().__init__()
        weight = linear.weight.detach()
        self.scale = torch.nn.Parameter(weight.abs().amax(1, keepdim=True) / 127, requires_grad=False)
        self.codes = torch.nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.in_features, self.activations = weight.shape[1], activations

    def forward(self, x):
        if self.activations:
            step = x.abs().amax(-1, keepdim=True) / 7
            x = torch.where(step > 0, (x / step).round() * step, x)
        return x @ (self.codes.float() * self.scale).T


def test_a_quantised_head_is_unpacked_through_itself(tmp_path):
    stream = random_stream(KNOWN)
    models = [tiny_model("llama"), noisy("llama")]
    for model in models:
        model.set_output_embeddings(Packed(model.get_output_embeddings()))
    base, other = map(CausalModel, models)
    kept = make(base, stream, tmp_path)
    kl, _, _ = by_brute_force(base.model, other.model, stream, KNOWN)
    assert np.abs(positions(kept, other, tmp_path, stream).kl - kl).max() < 1e-6
    assert np.abs(positions(kept, base, tmp_path, stream).kl).max() < 1e-9


def test_a_head_that_does_other_arithmetic_is_refused(tmp_path):
    model = tiny_model("llama")
    model.set_output_embeddings(Packed(model.get_output_embeddings(), activations=True))
    with pytest.raises(QevalError, match="by itself, does not make the model's own logits"):
        make(CausalModel(model), random_stream(KNOWN), tmp_path)
    assert store.find(tmp_path, KEY) is None


def test_models_that_cannot_be_compared_are_refused():
    lm = CausalModel(tiny_model("llama"))
    heads.check_causal(lm)
    lm.model.config.is_encoder_decoder = True
    with pytest.raises(QevalError, match="is an encoder-decoder model"):
        heads.check_causal(lm)
    lm.model.config.is_encoder_decoder = False
    lm.body = None
    with pytest.raises(QevalError, match="has no head"):
        heads.check_causal(lm)


def test_a_variant_of_another_class_is_refused(tmp_path):
    kept = make(CausalModel(tiny_model("llama")), random_stream(KNOWN), tmp_path)
    with pytest.raises(QevalError, match="The baseline is a LlamaForCausalLM, and the variant a"):
        inputs.Opened(tmp_path, kept, CausalModel(tiny_model("mistral")))


def test_another_process_gives_the_same_numbers(tmp_path):
    stream = random_stream(KNOWN)
    base, other = CausalModel(tiny_model("gemma2")), CausalModel(noisy("gemma2"))
    kept = make(base, stream, tmp_path)
    here = positions(kept, other, tmp_path, stream)
    code = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2] / "helpers")]!r}
from pathlib import Path
import torch
torch.set_num_threads({torch.get_num_threads()})
from test_inputs import *
cache = Path({str(tmp_path)!r})
found = positions(store.find(cache, KEY), CausalModel(noisy("gemma2")), cache, random_stream(KNOWN))
print(found.kl.tobytes().hex())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert bytes.fromhex(done.stdout.split()[-1]) == here.kl.tobytes()


# --- the store ----------------------------------------------------------------------------------


@pytest.fixture
def entry(tmp_path):
    lm, stream = CausalModel(tiny_model("llama")), random_stream(KNOWN)
    make(lm, stream, tmp_path)
    return lm, stream, tmp_path


def changed_in_the_middle(file: Path):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", [store.STATES, store.HEAD, store.STREAM, store.HEADER])
@pytest.mark.parametrize("how", ["changed", "cut", "gone", "a folder"])
def test_a_damaged_entry_counts_as_missing_and_is_made_anew(entry, name, how):
    lm, stream, cache = entry
    file = store.folder_of(cache, KEY) / name
    before = (store.folder_of(cache, KEY) / store.STATES).read_bytes()
    if how == "changed":
        changed_in_the_middle(file)
    elif how == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.unlink()
        if how == "a folder":
            file.mkdir()
    assert store.find(cache, KEY) is None
    make(lm, stream, cache)
    assert store.find(cache, KEY) is not None
    assert (store.folder_of(cache, KEY) / store.STATES).read_bytes() == before


def test_an_entry_of_another_type_is_not_what_is_asked_for(entry):
    """The type is part of what the key is made of; a header that lies about it is found out by its sum."""
    _, _, cache = entry
    header = store.folder_of(cache, KEY) / store.HEADER
    told = json.loads(header.read_text())
    told["kept"]["dtype"] = "float16"
    header.write_text(json.dumps(told))
    assert store.find(cache, KEY) is None


def test_a_copied_entry_is_not_another_one(entry):
    _, _, cache = entry
    shutil.copytree(store.folder_of(cache, KEY), store.folder_of(cache, "b" * 64))
    assert store.find(cache, "b" * 64) is None


def test_the_entry_that_was_longest_unused_gives_way(entry):
    lm, stream, cache = entry
    make(lm, stream, cache, key="b" * 64)
    old, new = (store.folder_of(cache, key) for key in (KEY, "b" * 64))
    os.utime(old / store.HEADER, (1, 1))
    size = sum(file.stat().st_size for file in new.iterdir())
    store.make_room(cache, size, 2 * size + 100)
    assert not old.exists()
    assert new.exists()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(QevalError, match="is full: the baseline's head inputs take"):
        make(CausalModel(tiny_model("llama")), random_stream(KNOWN), tmp_path)


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inputs, "_write_head", full)
    with pytest.raises(QevalError, match="No space left"):
        make(CausalModel(tiny_model("llama")), random_stream(KNOWN), tmp_path)
    assert [path for path in (tmp_path / store.FOLDER).iterdir() if not path.name.endswith(".lock")] == []


def test_a_limit_takes_whole_windows_and_one_at_least():
    stream = random_stream(KNOWN)
    assert inputs.fitting(stream, 32, 4, 1 << 30) is stream
    part = inputs.fitting(stream, 32, 4, 2 * 19 * 32 * 4)
    assert (len(part), part.n, part.available) == (2, 38, 95)
    with pytest.raises(
        QevalError, match=r"--fidelity-cache-limit allows 2\.43 kB, and one window takes 2\.43 kB"
    ):
        inputs.fitting(stream, 32, 4, 19 * 32 * 4 - 1)


def test_memory_that_runs_out_halves_the_batch(monkeypatch):
    stream = random_stream(KNOWN, windows=8)
    lm = CausalModel(tiny_model("llama"))
    whole = torch.cat([states for _, states in Feed(lm, stream, 8).rows()])
    hidden = lm.hidden

    def small(tokens, **more):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return hidden(tokens, **more)

    monkeypatch.setattr(lm, "hidden", small)
    feed = Feed(lm, stream, usual_batch(lm, stream))
    found = torch.cat([states for _, states in feed.rows()])
    assert feed.batch == 2
    assert torch.allclose(found, whole, atol=1e-4)


def test_logits_that_are_not_finite_name_their_place(entry):
    lm, stream, cache = entry
    kept = store.find(cache, KEY)
    opened = inputs.Opened(cache, kept, lm)
    count = 0

    def broken(states):
        nonlocal count
        logits = lm.logits(states)
        logits[3 - count if count == 0 else 0, 5] = float("nan")
        count += 1
        return logits

    with (
        torch.no_grad(),
        pytest.raises(QevalError, match="not finite at position 3 of the stream, in window 0"),
    ):
        compared(stream, opened.states, Feed(lm, stream, 2).rows(), (opened.logits, broken), kept.vocabulary)
