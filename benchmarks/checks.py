"""What the engine's self-check costs beside the scoring, on a GPU.

    python benchmarks/scoring.py --model DIR --datasets-dir MIRROR --limit 100000 --save-requests requests.npz
    python benchmarks/checks.py --shape llama-2-7b --requests requests.npz

The model has random weights of the shape, in float16. Prints, without and with compiling, how long the engine
takes to open for the first time, a second time (what is compiled stays), and for each task to score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from scoring import SHAPES, fitted, loaded

from qeval.score.engine import engine as engines
from qeval.score.engine.requests import TokenRequest


def clocked(what: Callable[[], Any]) -> tuple[Any, float]:
    """What something gives, and its seconds on the device."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    found = what()
    torch.cuda.synchronize()
    return found, time.perf_counter() - began


def a_model(shape: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[shape]), dtype=torch.float16).eval()


def measured(model: Any, requests: dict[str, list[TokenRequest]], *, compiled: bool) -> None:
    everything = [one for found in requests.values() for one in found]

    def opened() -> engines.Engine:
        return engines.open_engine(model, "tree", sample=everything, compiled=compiled)

    engine, first = clocked(opened)
    engine, again = clocked(opened)
    print(f"opened in {first:.1f} s, again in {again:.1f} s: {engine.note}", flush=True)
    total = 0.0
    for name, found in requests.items():
        fed = engine.tokens_fed
        _, seconds = clocked(lambda found=found: list(engine.score(found)))
        total += seconds
        print(f"{name}: {seconds:.1f} s, {engine.tokens_fed - fed} tokens fed", flush=True)
    print(f"all tasks: {total:.1f} s; the check is {again / total:.1%} of it", flush=True)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--requests", required=True, help="what scoring.py saved")
    args = parser.parse_args()
    model = a_model(args.shape)
    requests = {name: fitted(found, model.config.vocab_size) for name, found in loaded(args.requests).items()}
    print(torch.cuda.get_device_name(), torch.__version__)
    for compiled in (False, True):
        measured(model, requests, compiled=compiled)


if __name__ == "__main__":
    main()
