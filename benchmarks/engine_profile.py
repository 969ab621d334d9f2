"""What a GPU does while the engine scores: kernels by kind, idle time, and what bare products reach.

    python benchmarks/scoring.py --tokenizer DIR --datasets-dir DIR --limit 150 --save-requests requests.npz
    python benchmarks/engine_profile.py --shape llama-2-7b --requests requests.npz

Random weights in float16; the engine is opened compiled, scores each task once, and a second time under
torch.profiler. Rates count 2 operations for each weight of the body and each place of a chunk, with padding.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from typing import Any

from checks import a_model
from scoring import SHAPES, fitted, loaded

from qeval.score.engine import engine as engines

KINDS = (
    ("products", r"gemm|cutlass|nvjet|sm90_xmma|cublas|ampere|hopper"),
    ("attention", r"flex|attention|flash|fmha"),
    ("fused by the compiler", r"^triton_(poi|red|per|fused)|triton__"),
    ("log-softmax", r"softmax"),
    ("gathering", r"index|gather|scatter|argmax|reduce"),
    ("copies", r"Memcpy|Memset|copy"),
)


def main() -> None:
    options = _options()
    import torch

    model = a_model(options.shape)
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    sizes = SHAPES[options.shape]
    print(_products(sizes["hidden_size"], sizes["intermediate_size"], options.tokens), flush=True)
    requests = {
        name: fitted(found, model.config.vocab_size) for name, found in loaded(options.requests).items()
    }
    everything = [one for found in requests.values() for one in found]
    began = time.perf_counter()
    engine = engines.open_engine(model, "tree", sample=everything, compiled=not options.eager)
    print(f"opened in {time.perf_counter() - began:.1f} s: {engine.note}", flush=True)
    body = sum(p.numel() for p in engine.lm.body.parameters()) - model.get_input_embeddings().weight.numel()
    for name, found in requests.items():
        list(engine.score(found))
        _profiled(name, engine, found, body)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--requests", required=True, help="what scoring.py saved")
    parser.add_argument("--tokens", type=int, default=16384, help="rows of the bare products")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    return parser.parse_args()


def _products(hidden: int, inner: int, rows: int) -> str:
    """TFLOP/s of single products of (rows, a) and (a, b) in float16, as a block has them."""
    import torch

    told = []
    for a, b in (
        (hidden, hidden),
        (hidden, 3 * hidden),
        (hidden, inner),
        (hidden, 2 * inner),
        (inner, hidden),
    ):
        x, w = (torch.randn(shape, device="cuda", dtype=torch.float16) for shape in ((rows, a), (b, a)))
        for turn in range(2):
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(20 if turn else 3):
                torch.nn.functional.linear(x, w)
            torch.cuda.synchronize()
        told.append(f"{a} to {b}: {20 * 2 * rows * a * b / (time.perf_counter() - began) / 1e12:.0f}")
    return f"bare products of {rows} rows, TFLOP/s: {', '.join(told)}"


def _profiled(name: str, engine: engines.Engine, requests: Any, body: int) -> None:
    """Score once more and print where the time went."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    padded, began = engine.tokens_padded, time.perf_counter()
    list(engine.score(requests))
    torch.cuda.synchronize()
    wall, places = time.perf_counter() - began, engine.tokens_padded - padded
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        list(engine.score(requests))
        torch.cuda.synchronize()
    kinds: dict[str, float] = defaultdict(float)
    others: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        kind = next((kind for kind, words in KINDS if re.search(words, event.key)), "others")
        kinds[kind] += event.self_device_time_total / 1e6
        others[f"{kind}: {event.key[:90]}"] += event.self_device_time_total / 1e6
    busy = sum(kinds.values())
    print(
        f"{name}: {wall:.2f} s, {2 * body * places / wall / 1e12:.0f} TFLOP/s with padding ({places} places)"
    )
    shares = ", ".join(f"{kind} {s / wall:.1%}" for kind, s in sorted(kinds.items(), key=lambda one: -one[1]))
    print(f"  of it {shares}, idle {1 - busy / wall:.1%}")
    for key, seconds in sorted(others.items(), key=lambda one: -one[1])[:12]:
        print(f"    {seconds:7.3f} s  {key}", flush=True)


if __name__ == "__main__":
    main()
