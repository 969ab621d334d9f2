"""What a CUDA device makes of the engine: which layouts run, how right they are, how fast chunks go.

    python benchmarks/gpu_probe.py [--shape llama-2-7b] [--skip-speed] [--skip-checks]

First, small random models of many architectures in three dtypes: the path and layout chosen, the reason,
and the largest difference from one-by-one scoring. Then one big random model: seconds, TFLOP/s and peak
memory of a forward pass over a full chunk, by layout, chunk length, and with the body compiled. Nothing is
downloaded; the architectures are those of tests/helpers/architectures.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scoring import SHAPES, body_parameters

from qeval.score.engine import attention, memory, tree
from qeval.score.engine.engine import CausalModel, Engine, open_engine
from qeval.score.engine.flex import Flex
from qeval.score.engine.requests import TokenRequest

SKIPPED = ("wide_llama",)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="llama-2-7b", choices=sorted(SHAPES))
    parser.add_argument("--lengths", default="4096,8192,16384,32768")
    parser.add_argument("--dtypes", default="float32,float16,bfloat16")
    parser.add_argument("--skip-checks", action="store_true")
    parser.add_argument("--skip-speed", action="store_true")
    args = parser.parse_args()
    if not args.skip_checks:
        checks(args.dtypes.split(","))
    if not args.skip_speed:
        speeds(args.shape, [int(x) for x in args.lengths.split(",")])


def checks(dtypes: list[str]) -> None:
    """One line for every architecture and dtype."""
    import torch

    tiny = conftest()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    requests = questions(np.random.default_rng(0), tiny.VOCABULARY, 8, 60, 12, 6)
    for name in tiny.configurations(64):
        for dtype in dtypes:
            if name in SKIPPED:
                continue
            began = time.perf_counter()
            try:
                model = tiny.tiny_model(name, dtype, head=64).to(device)
                print(f"{name:13}{dtype:9}", checked(model, requests), f"{time.perf_counter() - began:.1f} s")
            except Exception as error:  # noqa: BLE001  # the probe goes on, whatever happens to one model
                print(f"{name:13}{dtype:9} FAILED {type(error).__name__}: {error}", flush=True)


def checked(model: Any, requests: list[TokenRequest]) -> str:
    """Path, layout, largest difference per token from plain batches of one, and the engine's note."""
    engine = open_engine(model, sample=requests, budget=512)
    plain = open_engine(model, "plain", sample=requests, batch_size=1)
    ours, theirs = dict(engine.score(requests)), dict(plain.score(requests))
    worst = max(
        abs(ours[i].loglikelihood - theirs[i].loglikelihood) / r.n_scored for i, r in enumerate(requests)
    )
    layout = engine.layout.name if engine.layout else ""
    return f"{engine.path:6}{layout:14} off {worst:.1e} | {engine.note[:400]}"


def conftest() -> Any:
    """The tests' tiny models."""
    path = Path(__file__).parent.parent / "tests" / "helpers" / "architectures.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def questions(
    rng: np.random.Generator, vocabulary: int, documents: int, shots: int, question: int, choice: int
) -> list[TokenRequest]:
    """Four choices for each document, after examples common to all."""
    common = rng.integers(3, vocabulary, shots)
    made = []
    for _ in range(documents):
        context = np.concatenate([common, rng.integers(3, vocabulary, question)])
        for _ in range(4):
            tokens = np.concatenate([context, rng.integers(3, vocabulary, choice)])
            made.append(TokenRequest(tokens.astype(np.int32), choice))
    return made


def speeds(shape: str, lengths: list[int]) -> None:
    """One line for every layout and chunk length."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    torch.set_default_device(device)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[shape]), dtype=dtype).eval()
    torch.set_default_device(None)
    lm = CausalModel(model)
    each = memory.token_bytes(vars(lm.config), next(lm.model.parameters()).element_size())
    print(json.dumps({"chosen budget": memory.limits(lm).budget, "bytes per token": each}))
    for length in lengths:
        # One long document's tree per chunk: 1000 tokens of examples, questions of 60, choices of 12.
        requests = questions(np.random.default_rng(1), 30000, (length - 1000) // 108 - 1, 1000, 60, 12)
        for compiled in (False, True):
            for _, layout in attention.layouts(lm):
                made = layout()
                if compiled and made.name != Flex.name:
                    continue
                try:
                    timed(lm, made, requests, length, compiled=compiled)
                except Exception as error:  # noqa: BLE001  # the probe goes on
                    print(
                        f"{made.name} {length} FAILED {type(error).__name__}: {str(error)[:300]}", flush=True
                    )


def timed(lm: CausalModel, layout: Any, requests: list[TokenRequest], length: int, *, compiled: bool) -> None:
    """The median of five passes over one chunk, head included."""
    import torch

    lm.compile(compiled)
    engine = Engine(lm, "tree", layout, memory.Limits(length, 16, 0))
    planned = tree.pack(requests, length, length)
    seconds = []
    for k in range(7):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        engine._chunk(planned, 0).log_probs.cpu()  # noqa: SLF001  # one pass is what is timed
        seconds.append(time.perf_counter() - began)
        if k == 0:
            first = seconds.pop()
    middle = float(np.median(seconds))
    n = layout.padded(int(planned.sizes[0]), length)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    print(
        f"{layout.name}{', compiled' if compiled else ''}: {n} places, {planned.sizes[0]} nodes, "
        f"{middle * 1e3:.0f} ms, {2 * body_parameters(lm.model) * n / middle / 1e12:.0f} TFLOP/s, "
        f"peak {peak:.1f} GiB, first pass {first:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
