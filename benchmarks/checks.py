"""What the engine's self-check costs beside the scoring.

On a CPU, of the demo model on its own suite:

    OMP_NUM_THREADS=1 python benchmarks/checks.py

On a GPU, of random weights in float16, without and with compiling:

    python benchmarks/scoring.py --model DIR --datasets-dir MIRROR --limit 100000 --save-requests requests.npz
    python benchmarks/checks.py --shape llama-2-7b --requests requests.npz

Prints how long the engine takes to open for the first time, by the first task alone, and what extending that
check to the others takes; then by all tasks, once and again (what is compiled stays); and for each task what
a further check takes, where the check of all leaves something unproved, and scoring. Seconds are those of
the process's CPU, or of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scoring import SHAPES, fitted, loaded

from qeval.score.engine import engine as engines
from qeval.score.engine.memory import longest_checked
from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.sample import shape


def clocked(what: Callable[[], Any]) -> tuple[Any, float]:
    """What something gives, and its seconds: on a GPU those of the clock, on a CPU those of the process."""
    import torch

    gpu = torch.cuda.is_available()
    now = time.perf_counter if gpu else time.process_time
    if gpu:
        torch.cuda.synchronize()
    began = now()
    found = what()
    if gpu:
        torch.cuda.synchronize()
    return found, now() - began


def a_model(shape: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[shape]), dtype=dtype).eval()


def the_demo() -> tuple[Any, dict[str, list[TokenRequest]]]:
    """The demo model in float32, and what its suite asks."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qeval.ask import suites
    from qeval.base.places import tasks_dir
    from qeval.load import demo
    from qeval.score.harness import door

    place = demo.prepare(Path.home() / ".cache" / "qeval", print)
    tokenizer = AutoTokenizer.from_pretrained(place)
    parts = door.prepare(suites.load("demo").tasks, tokenizer, max_length=8192, tasks_dir=tasks_dir())
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    return model, {part.task.name: list(part.requests) for part in parts}


def measured(model: Any, requests: dict[str, list[TokenRequest]], *, compiled: bool, score: bool) -> None:
    everything = [one for found in requests.values() for one in found]
    first = next(iter(requests.values()))

    def opened(sample: list[TokenRequest] = everything) -> engines.Engine:
        return engines.open_engine(model, "tree", sample=sample, compiled=compiled)

    early, alone = clocked(lambda: opened(first))
    rest = sum(_checked_again(early, found)[0] for found in requests.values())
    print(f"opened by the first task alone in {alone:.1f} s, extended to the others in {rest:.1f} s")
    engine, seconds = clocked(opened)
    engine, again = clocked(opened)
    print(f"opened by all tasks in {seconds:.1f} s, again in {again:.1f} s: {engine.note}")
    total, repeated = 0.0, 0.0
    for name, found in requests.items():
        probing, why = _checked_again(engine, found)
        fed = engine.tokens_fed
        seconds = clocked(lambda found=found: list(engine.score(found)))[1] if score else 0.0
        total, repeated = total + seconds, repeated + probing
        print(f"{name}: checked again in {probing:.1f} s{why}, scored in {seconds:.1f} s,"
              f" {engine.tokens_fed - fed} tokens fed", flush=True)  # fmt: skip
    print(f"all tasks: {total:.1f} s; the check {again:.1f} s, and again {repeated:.1f} s", flush=True)


def _checked_again(engine: engines.Engine, found: list[TokenRequest]) -> tuple[float, str]:
    """Seconds of a further check, as a run makes it where requests go further than was checked, and why."""
    asked, checked = shape(found, longest_checked(engine.lm)), engine.checked
    if asked.within(checked):
        return 0.0, ""
    return clocked(lambda: engines.probe(engine, found))[1], f" ({asked} beyond {checked})"


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights instead of the demo model")
    parser.add_argument("--requests", help="what scoring.py saved, for a shape")
    parser.add_argument("--no-scoring", action="store_true")
    args = parser.parse_args()
    if args.shape:
        model, size = a_model(args.shape), SHAPES[args.shape]["vocab_size"]
        requests = {name: fitted(found, size) for name, found in loaded(args.requests).items()}
    else:
        model, requests = the_demo()
    gpu = torch.cuda.is_available()
    print(torch.cuda.get_device_name() if gpu else "CPU", torch.__version__)
    for compiled in (False, True) if gpu else (False,):
        measured(model, requests, compiled=compiled, score=not args.no_scoring)


if __name__ == "__main__":
    main()
