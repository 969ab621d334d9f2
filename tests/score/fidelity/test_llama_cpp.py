"""Under llama.cpp-512 our figures are those of llama.cpp's own perplexity tool, within what its storage
rounds; and with our logits put through such a storage, to the digits that it prints.

`make test-llamacpp` builds the tool from the source that the sdist of llama-cpp-python carries and runs this;
there, with QEVAL_LLAMACPP naming its programs, nothing is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qeval.ask.protocols import parse
from qeval.load.demo import _gguf_file

pytestmark = [pytest.mark.torch, pytest.mark.rare, pytest.mark.filterwarnings("ignore")]
TOOLS = os.environ.get("QEVAL_LLAMACPP", "")
MIRROR = Path(os.environ.get("QEVAL_DATASETS_DIR", "/nowhere"))
WINDOWS = 4
ROUNDED = 16 / 65535
"""The tool keeps log-probabilities in 16 bits over a range of 16 nats or so: it is off by half of that at
most."""
PRINTED = 1e-4
"""What is left between two programs that calculate in 32 bits, each in its own order."""


def tool(name: str, *words: object) -> str:
    command = [str(Path(TOOLS) / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The demo model in 32 bits, and the same once its weights went through 4 bits; and WikiText as a
    file."""
    if not TOOLS:
        pytest.skip("QEVAL_LLAMACPP names no folder of llama.cpp's programs")
    place, first = tmp_path_factory.mktemp("gguf"), _gguf_file()
    for source, target, kind in (
        (first, "f16", "F16"),
        (place / "f16.gguf", "base", "F32"),
        (place / "f16.gguf", "q4", "Q4_0"),
        (place / "q4.gguf", "variant", "F32"),
    ):
        tool("llama-quantize", "--allow-requantize", "--pure", source, place / f"{target}.gguf", kind)
    from datasets import load_dataset

    lines = load_dataset(str(MIRROR / "Salesforce" / "wikitext"), "wikitext-2-raw-v1", split="test")["text"]
    (place / "wiki.test.raw").write_text("".join(line or " \n" for line in lines))
    return place


@pytest.fixture(scope="module")
def theirs(files):
    """What the tool prints, by name."""
    common = ("-f", files / "wiki.test.raw", "--chunks", WINDOWS, "-c", 512, "-b", 512, "-t", 1)
    common = (*common, "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--kl-divergence-base", files / "base.kld")
    said = tool("llama-perplexity", "-m", files / "base.gguf", *common)
    said += tool("llama-perplexity", "-m", files / "variant.gguf", *common, "--kl-divergence")
    names = {
        "ppl": r"Mean PPL\(Q\) *: +([\d.]+)",
        "ppl_base": r"Final estimate: PPL = +([\d.]+)",
        "ppl_stored": r"Mean PPL\(base\) *: +([\d.]+)",
        "kl": r"Mean +KLD: +([\d.]+)",
        "median": r"Median +KLD: +([\d.]+)",
        "p99": r"99\.0% +KLD: +([\d.]+)",
        "most": r"Maximum KLD: +([\d.]+)",
        "top": r"Same top p: +([\d.]+)",
        "rms": r"RMS Δp +: +([\d.]+)",
    }
    found = {name: re.search(pattern, said) for name, pattern in names.items()}
    assert all(found.values()), said[-3000:]
    return {name: float(one[1]) for name, one in found.items()}


@pytest.fixture(scope="module")
def pair(files):
    """The stream, what enters the baseline's head, the rows of the variant's, and both heads; of weights
    read from the same files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qeval.score.engine.body import CausalModel
    from qeval.score.fidelity import inputs, streams
    from qeval.score.fidelity.passes import Feed

    tokenizer = AutoTokenizer.from_pretrained(files, gguf_file="base.gguf")
    [protocol] = parse(f"llama.cpp-512[windows={WINDOWS},clamp=true]")
    stream = streams.stream_of(protocol, tokenizer, MIRROR, 4096)

    def model(name):
        found = AutoModelForCausalLM.from_pretrained(files, gguf_file=f"{name}.gguf", dtype=torch.float32)
        return CausalModel(found)

    base = model("base")
    place = inputs.Place(files / "cache", 1 << 40, "a" * 64, len(tokenizer))
    kept = inputs.make(base, stream, place, lambda _: None)
    other = model("variant")
    opened = inputs.Opened(files / "cache", kept, other)
    return stream, opened.states, Feed(other, stream, 1), (opened.logits, other.logits), kept.vocabulary


@pytest.fixture(scope="module")
def ours(pair):
    """The same by qeval."""
    import torch

    from qeval.score.fidelity.passes import compared

    stream, states, feed, heads, vocabulary = pair
    with torch.no_grad():
        return compared(stream, states, feed.rows(), heads, vocabulary, clamp=True)


@pytest.fixture(scope="module")
def stored(pair):
    """The same of our logits put through the tool's storage: columns (positions,) of log p, KL, and whether
    the most likely tokens are one."""
    import torch

    stream, states, feed, heads, vocabulary = pair
    targets, found, at = torch.from_numpy(stream.tokens[stream.scored()].astype(np.int64)), [], 0
    with torch.no_grad():
        for _, rows in feed.rows():
            end = at + len(rows)
            first, second = heads[0](states(at, end)), heads[1](rows)
            found.append(through_storage(first[:, :vocabulary], second[:, :vocabulary], targets[at:end]))
            at = end
    return [torch.cat(column).double().numpy() for column in zip(*found, strict=True)]


def through_storage(first, second, targets):
    """What the tool makes of the baseline's logits (r, v) once they were 16-bit steps between the greatest
    and the least, or 16 below the greatest, of a row; against the variant's (r, v)."""
    import torch

    most, least = first.amax(1, keepdim=True), first.amin(1, keepdim=True)
    least = least.maximum(most - 16)
    step = (most - least) / 65535
    codes = ((first - least) / step).round().clamp(min=0)
    log_p = step * codes + (least - first.logsumexp(1, keepdim=True))
    terms = torch.where(log_p > -16, log_p.exp() * (log_p - second.log_softmax(1)), 0)
    same = log_p.argmax(1) == second.argmax(1)
    return log_p.gather(1, targets[:, None])[:, 0], terms.sum(1, dtype=torch.float64), same


def test_as_many_positions(ours):
    assert len(ours) == WINDOWS * 255


def test_perplexities_agree(ours, theirs):
    for name, column in (("ppl_base", ours.log_p), ("ppl", ours.log_q)):
        assert float(np.exp(-column.mean(dtype=float))) == pytest.approx(theirs[name], rel=ROUNDED)


def test_divergences_agree(ours, theirs):
    assert float(ours.kl.mean(dtype=float)) == pytest.approx(theirs["kl"], abs=ROUNDED / 2)
    assert float(np.median(ours.kl)) == pytest.approx(theirs["median"], abs=5 * ROUNDED)
    assert float(ours.kl.max()) == pytest.approx(theirs["most"], rel=0.01)
    assert float(np.quantile(ours.kl, 0.99)) == pytest.approx(theirs["p99"], rel=0.05)


def test_most_likely_tokens_and_probabilities_agree(ours, theirs):
    same = 100 * float((ours.top_p == ours.top_q).mean())
    assert same == pytest.approx(theirs["top"], abs=100 * 3 / len(ours))  # ties within the storage's rounding
    moved = np.exp(ours.log_q.astype(float)) - np.exp(ours.log_p.astype(float))
    assert 100 * float(np.sqrt((moved**2).mean())) == pytest.approx(theirs["rms"], abs=0.01)


def test_its_perplexity_of_the_baseline_is_that_of_stored_logits(ours, stored, theirs):
    """Tokens more than 16 below the greatest logit count there as if they were 16 below it, which lowers
    the perplexity."""
    assert float(np.exp(-stored[0].mean())) == pytest.approx(theirs["ppl_stored"], rel=PRINTED)
    raised = stored[0] - ours.log_p
    rare = raised > ROUNDED
    assert rare.any()
    assert np.abs(raised[~rare]).max() <= ROUNDED / 2 + 1e-5
    exact = float(np.exp(-ours.log_p.mean(dtype=float)))
    assert exact * np.exp(-raised[rare].sum() / len(ours)) == pytest.approx(theirs["ppl_stored"], rel=ROUNDED)


def test_through_its_storage_divergences_are_its_own(stored, theirs):
    assert stored[1].mean() == pytest.approx(theirs["kl"], abs=PRINTED)
    assert np.median(stored[1]) == pytest.approx(theirs["median"], abs=PRINTED)
    assert stored[1].max() == pytest.approx(theirs["most"], rel=PRINTED)
    assert np.quantile(stored[1], 0.99) == pytest.approx(theirs["p99"], rel=PRINTED)
    assert 100 * stored[2].mean() == pytest.approx(theirs["top"], abs=0.001)
