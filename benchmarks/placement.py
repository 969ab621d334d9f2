"""Weights that are streamed from host memory against those that lie on the GPU: time and memory of chunks.

    python benchmarks/placement.py --shape llama-2-13b --gpu-memory 24GiB --cache /dev/shm
    python benchmarks/placement.py --shape llama-2-7b --schemes fp16 --resident-only --cache /dev/shm

Checkpoints of random weights are made in the cache, and loaded as `qeval run` loads them. The GPU is limited
while weights are streamed only: those that lie there may have all of it. Both are fed the same chunks.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from random_checkpoints import packed, plain

from qeval.base.records import Scheme, Variant
from qeval.load import model as models
from qeval.load.device import limit_memory
from qeval.score.engine import memory
from qeval.score.engine.engine import open_engine
from qeval.score.engine.materialize import compute_in_own_dtype, materialize
from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.streaming import stream, streamer_of

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-2-13b")
    parser.add_argument("--schemes", default="fp16,bnb4,gptq")
    parser.add_argument("--gpu-memory", default="24GiB")
    parser.add_argument("--cache", type=Path, required=True, help="a directory, best in memory")
    parser.add_argument("--device", default="cuda:0", help="cpu tries the script out")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--budget", type=int, default=16384)
    parser.add_argument("--resident-only", action="store_true")
    parser.add_argument("--compiled", default="all", help="all, or such as fp16/resident,fp16/streamed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    limit = int(float(args.gpu_memory.removesuffix("GiB")) * GIB)
    requests = chunks_of_requests(args.chunks, args.budget)
    rows: list[dict[str, Any]] = []
    for scheme in args.schemes.split(","):
        variant = variant_of(scheme, args.cache, args.shape)
        whole: Any = None
        for streamed in (False,) if args.resident_only else (False, True):
            if args.device != "cpu":
                limit_memory(args.device, limit if streamed else 10**15)
            found = measured(variant, args, requests, streamed=streamed)
            rows += found
            if not streamed:
                whole = found[0].pop("answers")
            else:
                found[0]["equal"] = found[0].pop("answers") == whole
            for row in found:
                row.pop("answers", None)
                print(json.dumps(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def variant_of(scheme: str, cache: Path, shape: str) -> Variant:
    """A variant of random weights, which are made at the first call."""
    base = str(plain(cache, shape))
    checkpoint = str(packed(cache, shape, "gptq")) if scheme == "gptq" else None
    return Variant(scheme, base, Scheme(scheme, checkpoint=checkpoint))


def chunks_of_requests(chunks: int, budget: int) -> list[TokenRequest]:
    """Questions with four choices each, 512 nodes of the tree, that fill so many chunks."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(chunks * budget // 512):
        context = rng.integers(3, 30000, 476)
        for _ in range(4):
            tokens = np.concatenate([context, rng.integers(3, 30000, 9)]).astype(np.int32)
            made.append(TokenRequest(tokens, 9))
    return made


def windows(count: int) -> list[TokenRequest]:
    """Texts of 2048 tokens of which all are scored, as perplexity asks for."""
    rng = np.random.default_rng(1)
    return [TokenRequest(rng.integers(3, 30000, 2048).astype(np.int32), 2047) for _ in range(count)]


def measured(
    variant: Variant, args: argparse.Namespace, requests: list[TokenRequest], *, streamed: bool
) -> list[dict[str, Any]]:
    """A row for the body as it is, and one for it compiled; the first holds the answers."""
    began = time.perf_counter()
    model = models.load(variant, device=args.device, cache_dir=args.cache, streamed=streamed).model
    loaded = time.perf_counter() - began
    compute_in_own_dtype(model)
    if streamed:
        stream(model, args.device)
    elif variant.scheme.kind != "fp16":
        model, _ = materialize(model)
    ready = time.perf_counter() - began - loaded
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    rows = []
    name = f"{variant.scheme.kind}/{'streamed' if streamed else 'resident'}"
    both = {"all", name} & set(args.compiled.split(","))
    for compiled in (False, True) if both else (False,):
        peak_since()
        began = time.perf_counter()
        engine = open_engine(model, sample=requests, budget=args.budget, compiled=compiled)
        opening = time.perf_counter() - began
        row: dict[str, Any] = {
            "scheme": variant.scheme.kind,
            "placement": "streamed" if streamed else "resident",
            "rung": engine.note[:160],
            "load": round(loaded, 1),
            "ready": round(ready, 1),
            "opening": round(opening, 1),
            "weights_gib": round(weights / GIB, 2),
            "check_peak_gib": peak_since(),
        }
        for name, asked in (("tree", requests), ("windows", windows(args.budget * 2 // 2048))):
            list(engine.score(asked[: len(asked) // 2]))
            peak_since()
            engine.tokens_padded = 0
            began = time.perf_counter()
            answers = dict(engine.score(asked))  # the last of them is fetched, so all is computed
            seconds = time.perf_counter() - began
            row[f"{name}_s_a_chunk"] = round(seconds / (engine.tokens_padded / args.budget), 3)
            row[f"{name}_peak_gib"] = peak_since()
            if name == "tree":
                row["answers"] = [answers[i].loglikelihood for i in range(len(asked))]
        streamer = streamer_of(model)
        if streamer is not None:
            row["host_gib"] = round(streamer.size / GIB, 2)
            row["pinned"] = all(block.host.is_pinned() for block in streamer.blocks)
        rows.append(row)
        del engine
    del model
    gc.collect()
    memory.free()
    return rows


def peak_since() -> float:
    """GiB that tensors held at most since the last call; 0 on a CPU."""
    import torch

    memory.free()
    if not torch.cuda.is_available():
        return 0.0
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return round(peak / GIB, 2)


if __name__ == "__main__":
    main()
