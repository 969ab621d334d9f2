"""Texts by qeval's own loop against lm-eval's HFLM: the same requests, the same batch size, in one run.

    python benchmarks/generation.py --model demo --requests 48 --batch-sizes 1,8
    python benchmarks/generation.py --shape llama-2-7b --tokenizer DIR --requests 128 --batch-sizes 8,32

The questions are those of tasks/demo/facts.jsonl, each after the same examples. A shape has random weights,
in float16 on a GPU, whose texts know no end: --until makes them end like those of a model that does.

Three ways: lm-eval's class by itself, the same in qeval (which ends a batch once each of its texts has met
any stop string), the loop of our own; that one twice, with its check and without. Memory is the peak above
what the loaded model takes: of the GPU, or resident on a CPU. CPU seconds are those of all threads.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scoring import SHAPES

from qeval.base.places import tasks_dir
from qeval.base.records import Task
from qeval.score.harness import door
from qeval.score.harness.reference import hflm_of, instances_of
from qeval.score.harness.tame import lm_eval_tamed


def prompts(n: int, shots: int) -> list[str]:
    """Questions behind the same examples, of which each is one of the others."""
    lines = (tasks_dir() / "demo" / "facts.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    asked = [f"Question: {row['question']}\nAnswer:" for row in rows]
    answered = [f"{text} {row['choices'][row['answer']]}\n\n" for text, row in zip(asked, rows, strict=True)]
    examples = "".join(answered[len(answered) - shots :])
    rest = asked[: len(asked) - shots]
    return [examples + rest[at % len(rest)] for at in range(n)]


def a_task(tokenizer: Any, asked: list[str], until: list[str], tokens: int, longest: int) -> Any:
    (made,) = door.prepare(
        [Task("qeval_facts", "acc", limit=1)], tokenizer, max_length=longest, tasks_dir=tasks_dir()
    )
    options = {"until": until, "max_gen_toks": tokens, "do_sample": False}
    content = replace(
        made.content,
        owner=np.zeros(len(asked), np.int32),
        arguments=lambda: [(text, copy.deepcopy(options)) for text in asked],
    )
    return replace(made, content=content, output_type="generate_until", generates=True)


def a_model(args: argparse.Namespace) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.shape:
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        torch.manual_seed(0)
        config = LlamaConfig(**{**SHAPES[args.shape], "vocab_size": len(tokenizer)})
        with torch.device(device):
            dtype = torch.float16 if device == "cuda" else torch.float32
            return AutoModelForCausalLM.from_config(config, dtype=dtype).eval(), tokenizer
    place = args.model
    if place == "demo":
        from qeval.load import demo

        place = demo.prepare(Path.home() / ".cache" / "qeval", print)
    dtype = getattr(torch, args.dtype)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype).to(device).eval()
    return model, AutoTokenizer.from_pretrained(place)


class Peak:
    """The most memory since it was made, above what was taken then, in MiB."""

    def __init__(self) -> None:
        import torch

        gc.collect()
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
        else:
            import ctypes

            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.before = self._resident("VmRSS")

    def _resident(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) / 2**10

    def mib(self) -> float:
        """The peak by now."""
        import torch

        most = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else self._resident("VmHWM")
        return most - self.before


def clocked(write: Callable[[], list[str]]) -> tuple[list[str], float, float, float]:
    """What is written, the seconds, those of the CPU, and the peak of memory."""
    import torch

    peak, began, cpu = Peak(), time.perf_counter(), time.process_time()
    found = write()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, time.perf_counter() - began, time.process_time() - cpu, peak.mib()


def by_lm_eval(task: Any, model: Any, tokenizer: Any, size: int) -> list[str]:
    with lm_eval_tamed():
        lm = hflm_of(task, model, tokenizer, size)
        found: list[str] = lm.generate_until(instances_of(task), disable_tqdm=True)
    return found


def measured(task: Any, model: Any, tokenizer: Any, size: int) -> None:
    loop = door.OwnLoop(model)

    def ours(own: Any = None) -> list[str]:
        texts = door.generate(task, model, tokenizer, batch_size=size, own=own)
        return [text.answer for text in texts]

    ways: dict[str, Callable[[], list[str]]] = {
        "lm-eval": lambda: by_lm_eval(task, model, tokenizer, size),
        "lm-eval's class in qeval": ours,
        "own loop and its check": lambda: ours(loop),
        "own loop": lambda: ours(loop),
    }
    base: list[str] = []
    for name, write in ways.items():
        found, seconds, cpu, mib = clocked(write)
        base = base or found
        differ = np.mean([one != other for one, other in zip(found, base, strict=True)])
        print(f"| {size} | {name} | {seconds:.1f} | {cpu:.1f} | {mib:.0f} | {differ:.1%} |", flush=True)
    print(*loop.notes, sep="\n")


def main() -> None:
    import torch
    import transformers

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="demo, or the directory of a checkpoint")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights instead of a model")
    parser.add_argument("--tokenizer", help="the directory of a tokenizer, for a shape")
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--shots", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--until", action="append", help="a stop string; as often as wanted")
    parser.add_argument("--batch-sizes", default="1,8")
    args = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, tokenizer = a_model(args)
    task = a_task(tokenizer, prompts(args.requests, args.shots), args.until or ["\n\n"], args.tokens, 2048)
    lengths = [len(tokenizer.encode(text)) for text, _ in task.content.arguments()]
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU", torch.__version__)
    print(transformers.__version__, f"{len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens")
    print(
        "| batch | way | seconds | CPU seconds | peak MiB | texts that differ |\n|---|---|---|---|---|---|",
        flush=True,
    )
    by_lm_eval(a_task(tokenizer, prompts(2, args.shots), ["."], 4, 2048), model, tokenizer, 2)  # a warm-up
    for size in map(int, args.batch_sizes.split(",")):
        measured(task, model, tokenizer, size)


if __name__ == "__main__":
    main()
