"""wikitext-2048's perplexity is that of the papers' own method, written out here."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from byte_tokenizer import a_tokenizer  # noqa: E402

from qeval.ask.protocols import parse  # noqa: E402
from qeval.score.engine.body import CausalModel  # noqa: E402
from qeval.score.fidelity import inputs, streams  # noqa: E402
from qeval.score.fidelity.passes import Feed, compared  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
MIRROR = Path(os.environ.get("QEVAL_DATASETS_DIR", "/nowhere"))
WINDOWS = 2
needs_wikitext = pytest.mark.skipif(
    not (MIRROR / "Salesforce" / "wikitext").is_dir(), reason="WikiText-2 is not here"
)


def by_the_papers(model, tokenizer) -> float:
    """The method of the GPTQ papers' evaluation: lines joined, windows of 2048, cross entropy, exp of the
    mean."""
    from datasets import load_dataset

    lines = load_dataset(str(MIRROR / "Salesforce" / "wikitext"), "wikitext-2-raw-v1", split="test")["text"]
    tokens = tokenizer("\n\n".join(lines), return_tensors="pt").input_ids
    losses = []
    for number in range(WINDOWS):
        window = tokens[:, number * 2048 : (number + 1) * 2048]
        with torch.no_grad():
            logits = model(window).logits
        flat = logits[:, :-1].reshape(-1, logits.shape[-1])
        loss = torch.nn.functional.cross_entropy(flat, window[:, 1:].reshape(-1))
        losses.append(loss.float() * 2048)
    return math.exp(torch.stack(losses).sum() / (WINDOWS * 2048))


@needs_wikitext
def test_it_is_the_papers(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.3,
    )
    model, tokenizer = LlamaForCausalLM(config).eval(), a_tokenizer()
    [protocol] = parse(f"wikitext-2048[windows={WINDOWS}]")
    stream = streams.stream_of(protocol, tokenizer, MIRROR, 4096)
    lm = CausalModel(model)
    place = inputs.Place(tmp_path, 1 << 40, "a" * 64, len(tokenizer))
    kept = inputs.make(lm, stream, place, lambda _: None)
    opened = inputs.Opened(tmp_path, kept, lm)
    with torch.no_grad():
        rows = Feed(lm, stream, kept.batch).rows()
        found = compared(stream, opened.states, rows, (opened.logits, lm.logits), kept.vocabulary)
    ours = math.exp(-found.log_p.mean(dtype=float))
    assert ours == pytest.approx(by_the_papers(model, tokenizer), rel=1e-5)
