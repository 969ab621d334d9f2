"""How long fidelity takes, and how much memory, on random weights in a real shape at wikitext-2048's size.

    python benchmarks/fidelity.py
    python benchmarks/fidelity.py --shape llama-3-8b --windows 140
    python benchmarks/fidelity.py --shape smollm2-135m --windows 2

The first is for a GPU: Llama-2-7B and 166 windows of 2048 tokens; the second has a vocabulary of 128 256; the
third is small enough for a CPU. Prints, one JSON line each: scoring's own peak; what it takes to store what
enters the baseline's head; a variant measured against it (its weights rounded to 4 bits), beyond loading; the
baseline against itself, which must be exactly 0; the noise floor by other packing, by the plain path, and in
float32 where it fits; and how far the numbers of one window are from those of whole tables of logits in
float64. The cache lies in --cache, by default a temporary directory.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scoring import SHAPES as OTHERS

from qeval.base.fidelity import Positions, Stream
from qeval.load.reading.grid import round_to_nearest
from qeval.score.engine import memory
from qeval.score.engine.body import CausalModel
from qeval.score.engine.engine import open_engine
from qeval.score.engine.requests import TokenRequest
from qeval.score.fidelity import inputs
from qeval.score.fidelity.passes import Feed, compared
from qeval.store.inputs import Kept
from qeval.store.positions import positions_to_parquet

GROUP, BITS, FLOOR = 64, 4, 32
SHAPES: dict[str, dict[str, int]] = {
    **OTHERS,
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--windows", type=int, default=166)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--no-scoring", action="store_true", help="leave scoring's own peak out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options, options.cache or Path(folder))


def run(options: argparse.Namespace, cache: Path) -> None:
    model = weights(options.shape)
    lm = CausalModel(model)
    stream = invented(lm.vocabulary, options.windows, options.length)
    tell("device", name=device_name(lm), shape=options.shape, positions=stream.n, vocabulary=lm.vocabulary)
    if not options.no_scoring:
        timed("scoring", lm, lambda: score(model, lm.vocabulary))
    place = inputs.Place(cache, 1 << 40, "f" * 64, lm.vocabulary)
    kept = timed("inputs", lm, lambda: inputs.make(lm, stream, place, lambda _: None))
    tell("kept", gigabytes=kept.positions * kept.width * lm.dtype.itemsize / 1e9, batch=kept.batch)
    itself = timed("itself", lm, lambda: measured(cache, kept, lm, stream))
    tell("itself", greatest=float(np.abs(itself.kl).max()), exactly_nothing=not itself.kl.any())
    floor = stream.beginning(min(FLOOR, len(stream)))
    for name, batch, plain in (("packing", 1 if kept.batch > 1 else 2, False), ("plain", 1, True)):
        found = timed(name, lm, lambda b=batch, p=plain: measured(cache, kept, lm, floor, b, plain=p))
        tell(name, kl=float(found.kl.mean()), same_top=float((found.top_p == found.top_q).mean()))
    in_float32(cache, kept, lm, floor)
    before = first_logits(lm, stream)
    timed("rounding", lm, lambda: to_grid(model))
    variant = timed("variant", lm, lambda: measured(cache, kept, lm, stream))
    tell("variant", kl=float(variant.kl.mean()), same_top=float((variant.top_p == variant.top_q).mean()))
    tell("stored", bytes_a_position=len(positions_to_parquet(variant)) / len(variant))
    exact(before, lm, stream, variant)


def weights(shape: str) -> Any:
    """A random model in float16 on a GPU, in float32 on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    with torch.device("cuda" if cuda else "cpu"):
        return AutoModelForCausalLM.from_config(
            LlamaConfig(**SHAPES[shape]), dtype=torch.float16 if cuda else torch.float32
        ).eval()


def invented(vocabulary: int, windows: int, length: int) -> Stream:
    """Random tokens."""
    draw = np.random.default_rng(0)
    return Stream(
        tokens=draw.integers(3, vocabulary, size=windows * length).astype(np.int32),
        ends=np.arange(1, windows + 1, dtype=np.int64) * length,
        first=np.ones(windows, np.int64),
        document=np.repeat(np.arange(windows, dtype=np.int32), length),
        available=windows * (length - 1),
    )


def score(model: Any, vocabulary: int) -> None:
    """Requests as MMLU's: a shared context of 600 tokens, and 100 of their own, of which the last is
    scored."""
    draw = np.random.default_rng(1)
    shared = draw.integers(3, vocabulary, size=600)
    requests = [
        TokenRequest(np.concatenate([shared, draw.integers(3, vocabulary, size=100)]).astype(np.int32), 1)
        for _ in range(400 if model.device.type == "cuda" else 8)
    ]
    engine = open_engine(model, sample=requests)
    list(engine.score(requests))


def measured(
    cache: Path, kept: Kept, lm: CausalModel, stream: Stream, batch: int | None = None, *, plain: bool = False
) -> Positions:
    """What a command measures of a variant once it is loaded."""
    import torch

    opened = inputs.Opened(cache, kept, lm)
    with torch.no_grad():
        inputs.proved(lm, stream, lm.logits, kept.vocabulary)
        head: Callable[[Any], Any] = (lambda logits: logits) if plain else lm.logits
        feed = Feed(lm, stream, batch or kept.batch, plain=plain)
        return compared(stream, opened.states, feed.rows(), (opened.logits, head), kept.vocabulary)


def in_float32(cache: Path, kept: Kept, lm: CausalModel, stream: Stream) -> None:
    """The baseline in float32, on a GPU that has room for it."""
    import torch

    if lm.device.type != "cuda":
        return
    size = 4 * sum(one.numel() for one in lm.model.parameters())
    if size * 1.2 > torch.cuda.mem_get_info()[0]:
        tell("float32", fits=False)
        return
    found = timed("float32", lm, lambda: measured_by(cache, kept, lm, stream))
    tell("float32", kl=float(found.kl.mean()), same_top=float((found.top_p == found.top_q).mean()))
    memory.free()


def measured_by(cache: Path, kept: Kept, lm: CausalModel, stream: Stream) -> Positions:
    import torch

    other = CausalModel(copy.deepcopy(lm.model).float())
    opened = inputs.Opened(cache, kept, lm)
    with torch.no_grad():
        rows = Feed(other, stream, kept.batch).rows()
        return compared(stream, opened.states, rows, (opened.logits, other.logits), kept.vocabulary)


def to_grid(model: Any) -> None:
    """Round the weights of every linear layer but the head to the nearest of 16 values, in place."""
    import torch

    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not head:
                for part in module.weight.split(1024):
                    part.copy_(round_to_nearest(part.float(), BITS, GROUP, False).to(part.dtype))


def first_logits(lm: CausalModel, stream: Stream) -> Any:
    """The baseline's logits of the beginning of the first window, as they are."""
    import torch

    with torch.no_grad():
        return lm.plain(torch.tensor(stream.window(0)[None, :256].astype(np.int64), device=lm.device))[
            0
        ].cpu()


def exact(before: Any, lm: CausalModel, stream: Stream, found: Positions) -> None:
    """How far the numbers are from those of both models' whole logits."""
    import torch

    p, q = (torch.log_softmax(one.double(), -1) for one in (before, first_logits(lm, stream)))
    kl = (p.exp() * (p - q)).sum(-1).numpy()
    count = min(len(kl) - 1, len(found))
    tell("exact", furthest=float(np.abs(kl[:count] - found.kl[:count]).max()), mean=float(kl.mean()))


def timed(name: str, lm: CausalModel, work: Callable[[], Any]) -> Any:
    """What the work gives; its seconds and its peak of memory are printed."""
    import torch

    cuda = lm.device.type == "cuda"
    if cuda:
        memory.free()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    found = work()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    tell(name, seconds=round(seconds, 2), peak_gib=None if peak is None else round(peak, 2))
    return found


def device_name(lm: CausalModel) -> str:
    import torch

    return (
        torch.cuda.get_device_name()
        if lm.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )


def tell(what: str, **numbers: Any) -> None:
    print(json.dumps({"what": what, **numbers}), flush=True)


if __name__ == "__main__":
    main()
