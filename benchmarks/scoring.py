"""The scoring engine against lm-eval's own HFLM, on the same requests in one run.

On a CPU, with real questions out of a mirror of Hub data sets (DIR/<org>/<name>):

    python benchmarks/scoring.py --model DIR_OF_A_CHECKPOINT --datasets-dir DIR --limit 40

On a GPU without network: save the requests where the data are, carry the file, load it there.

    python benchmarks/scoring.py --tokenizer DIR --datasets-dir DIR --limit 150 --save-requests requests.npz
    python benchmarks/scoring.py --shape llama-2-7b --load-requests requests.npz --compile --json out.json

lm-eval runs with the batch size that was fastest on a tenth of the requests, and with float32 softmax.
Times are medians of `--repeat` runs, after a warm-up. Differences are those of log-likelihoods in nats.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qeval.score.engine import engine as engines
from qeval.score.engine import tree
from qeval.score.engine.requests import TokenRequest

SUBJECTS = ("abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge")
TASKS = ("mmlu", "arc", "hellaswag", "truthfulqa")
FULL = {  # tokens of the whole suite, SmolLM2's tokenizer: what HFLM feeds, and the trie
    "arc": (4.22e6, 1.16e6),
    "hellaswag": (35.5e6, 8.86e6),
    "truthfulqa": (1.08e6, 46e3),
    "mmlu": (10.1e6, 1.38e6),
}
SHAPES = {
    "llama-2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "llama-2-13b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "llama-2-70b": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
}


@dataclass
class Measured:
    """What one engine did with one task."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    fed: int = 0
    padded: int = 0
    peak: int = 0
    sums: Any = None
    greedy: Any = None

    @property
    def median(self) -> float:
        """The median of `seconds`."""
        return statistics.median(self.seconds)


def main() -> None:
    args = arguments()
    if args.show:
        show(json.loads(Path(args.show).read_text()))
        return
    requests = loaded(args.load_requests) if args.load_requests else built(args)
    if args.save_requests:
        saved(args.save_requests, requests)
        return
    model = the_model(args)
    requests = {name: fitted(found, model.config.vocab_size) for name, found in requests.items()}
    if args.ours_only:
        results = long_run(model, requests, args)
    else:
        results = measure(model, requests, args)
        show(results)
    results["setting"] = setting(model, args)
    say(json.dumps(results["setting"]))
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="directory of a checkpoint")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape instead")
    parser.add_argument("--tokenizer", help="directory of a tokenizer (default: the model's)")
    parser.add_argument("--dtype", default=None, help="default: float32 on a CPU, float16 on CUDA")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help="MMLU subjects")
    parser.add_argument("--limit", type=int, default=40, help="documents per task, and per MMLU subject")
    parser.add_argument("--datasets-dir")
    parser.add_argument("--save-requests")
    parser.add_argument("--load-requests")
    parser.add_argument("--batch-sizes", help="for lm-eval; default 1,4,8,16 and on CUDA 32,64")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--budget", type=int, help="tokens per chunk")
    parser.add_argument("--compile", action="store_true", help="measure the compiled body as well")
    parser.add_argument("--truth", action="store_true", help="also compare with the weights in float32")
    parser.add_argument("--ours-only", action="store_true", help="leave lm-eval out: for long runs")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", help="write everything measured to this file")
    parser.add_argument("--show", metavar="FILE", help="print the tables of such a file, and measure nothing")
    return parser.parse_args()


def built(args: argparse.Namespace) -> dict[str, list[TokenRequest]]:
    """The requests of each task, by qeval.score.harness."""
    from transformers import AutoTokenizer

    from qeval.base.records import Task
    from qeval.score.harness import door

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer or args.model)
    limit = args.limit
    wanted = {
        "mmlu": [Task(f"mmlu_{s}", "acc", num_fewshot=5, limit=limit) for s in args.subjects.split(",")],
        "arc": [Task("arc_challenge", "acc_norm", num_fewshot=25, limit=limit)],
        "hellaswag": [Task("hellaswag", "acc_norm", num_fewshot=10, limit=limit)],
        "truthfulqa": [Task("truthfulqa_mc2", "acc", num_fewshot=0, limit=limit)],
    }
    out = {}
    for name in args.tasks.split(","):
        began = time.perf_counter()
        prepared = door.prepare(
            wanted[name], tokenizer, max_length=2048, datasets_dir=Path(args.datasets_dir)
        )
        out[name] = [request for task in prepared for request in task.requests]
        print(f"{name}: {len(out[name])} requests built in {time.perf_counter() - began:.1f} s", flush=True)
    return out


def saved(path: str, requests: dict[str, list[TokenRequest]]) -> None:
    columns = {}
    for name, found in requests.items():
        columns[f"{name}.tokens"] = np.concatenate([r.tokens for r in found]).astype(np.int32)
        columns[f"{name}.lengths"] = np.array([len(r.tokens) for r in found], np.int32)
        columns[f"{name}.scored"] = np.array([r.n_scored for r in found], np.int32)
    np.savez_compressed(path, **columns)


def loaded(path: str) -> dict[str, list[TokenRequest]]:
    columns = np.load(path)
    out: dict[str, list[TokenRequest]] = {}
    for name in sorted({key.partition(".")[0] for key in columns}, key=TASKS.index):
        lengths, scored = columns[f"{name}.lengths"], columns[f"{name}.scored"]
        parts = np.split(columns[f"{name}.tokens"], np.cumsum(lengths)[:-1])
        out[name] = [TokenRequest(t, int(n)) for t, n in zip(parts, scored, strict=True)]
    return out


def fitted(requests: list[TokenRequest], vocabulary: int) -> list[TokenRequest]:
    """The requests with token ids folded into the vocabulary of a model that has a smaller one."""
    return [TokenRequest(r.tokens % vocabulary, r.n_scored) for r in requests]


def the_model(args: argparse.Namespace) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, args.dtype or ("float16" if device == "cuda" else "float32"))
    if args.shape:
        torch.manual_seed(0)
        torch.set_default_device(device)
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[args.shape]), dtype=dtype)
        torch.set_default_device(None)
        return model.eval()
    return AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).to(device).eval()


def measure(model: Any, requests: dict[str, list[TokenRequest]], args: argparse.Namespace) -> dict[str, Any]:
    cuda = next(model.parameters()).device.type == "cuda"
    sizes = [int(s) for s in (args.batch_sizes or ("1,4,8,16,32,64" if cuda else "1,4,8,16")).split(",")]
    everything = [r for found in requests.values() for r in found]
    tried = best_size(model, requests, sizes)
    best = min(tried, key=lambda size: tried[size])
    say(f"lm-eval's seconds on a tenth, by batch size: {tried}")
    ways = {"tree": opened(model, everything, args, compiled=False)}
    if args.compile:
        ways["compiled"] = opened(model, everything, args, compiled=True)
    results: dict[str, Any] = {
        "best_batch_size": best,
        "batch_sizes": tried,
        "notes": {name: engine.note for name, engine in ways.items()},
        "tasks": {},
    }
    everything_measured = {}
    for name, found in requests.items():
        measured = {way: by_engine(engine, found, args.repeat) for way, engine in ways.items()}
        measured["lm-eval"] = by_lm_eval(model, found, best, args.repeat)
        results["tasks"][name] = compared(model, found, measured)
        everything_measured[name] = measured
        say(f"{name}: {results['tasks'][name]}")
    if args.truth:
        against_float32(model, requests, everything_measured, results)
    return results


def long_run(model: Any, requests: dict[str, list[TokenRequest]], args: argparse.Namespace) -> dict[str, Any]:
    """Our engine alone over all tasks in one go, as a run does it: where the last chunk no longer matters."""
    everything = [r for found in requests.values() for r in found]
    trie, flops = tree.pack(everything, 10**9).n_trie, 2 * body_parameters(model)
    results = {}
    for way in ("tree", "compiled") if args.compile else ("tree",):
        engine = opened(model, everything, args, compiled=way == "compiled")
        found = by_engine(engine, everything, args.repeat)
        results[way] = {
            "requests": len(everything),
            "trie": trie,
            "fed": found.fed,
            "fed_and_padding": found.padded,
            "seconds": found.median,
            "tflops_fed": flops * found.fed / found.median / 1e12,
            "tflops_padded": flops * found.padded / found.median / 1e12,
            "peak_gib": found.peak / 2**30,
        }
        say(f"all tasks, {way}: {results[way]}")
    return results


def against_float32(
    model: Any,
    requests: dict[str, list[TokenRequest]],
    measured: dict[str, dict[str, Measured]],
    results: dict[str, Any],
) -> None:
    """How far each way is from lm-eval with the same weights in float32, on a tenth of the requests."""
    truth = harness_model(copy.deepcopy(model).float(), 1)
    for name, found in requests.items():
        which = tenth(found, 16)
        want = np.array([a for a, _ in run_lm_eval(truth, found[which])])
        per_token = np.array([r.n_scored for r in found[which]])
        apart = {way: (m.sums[which] - want) / per_token for way, m in measured[name].items()}
        results["tasks"][name]["from_float32"] = {
            way: {"largest": float(abs(x).max()), "rms": float(np.sqrt((x**2).mean()))}
            for way, x in apart.items()
        }
        say(f"{name}, per token, from float32: {results['tasks'][name]['from_float32']}")


def tenth(requests: list[TokenRequest], least: int) -> slice:
    """Neighbours that make a tenth of the requests, or `least` of them."""
    middle = len(requests) // 2
    return slice(middle, middle + max(least, len(requests) // 10))


def opened(model: Any, sample: list[TokenRequest], args: argparse.Namespace, *, compiled: bool) -> Any:
    """The tree engine with or without a compiled body, warmed up."""
    began = time.perf_counter()
    engine = engines.open_engine(model, "tree", sample=sample, budget=args.budget, compiled=compiled)
    say(f"opened in {time.perf_counter() - began:.1f} s, budget {engine.budget}: {engine.note}")
    return engine


def best_size(model: Any, requests: dict[str, list[TokenRequest]], sizes: list[int]) -> dict[int, float]:
    """Seconds per batch size on whole documents that hold a tenth of all requests."""
    part = []
    for found in requests.values():
        part += found[tenth(found, 8)]
    tried = {}
    for size in sizes:
        lm = harness_model(model, size)
        run_lm_eval(lm, part[:size])  # warm up
        began = time.perf_counter()
        run_lm_eval(lm, part)
        tried[size] = round(time.perf_counter() - began, 3)
        say(f"lm-eval, batch size {size}: {tried[size]} s")
    return tried


def harness_model(model: Any, batch_size: int) -> Any:
    """lm-eval's HFLM around the live model, with float32 softmax, and a tokenizer that is never asked."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    names = dict.fromkeys(("pad_token", "eos_token"), "word")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of live models, each time
    words = Tokenizer(WordLevel({"word": 0}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **names)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")


def run_lm_eval(lm: Any, requests: list[TokenRequest]) -> list[tuple[float, bool]]:
    pairs = [
        ((str(i), ""), r.tokens[: -r.n_scored].tolist(), r.tokens[-r.n_scored :].tolist())
        for i, r in enumerate(requests)
    ]
    return lm._loglikelihood_tokens(pairs, disable_tqdm=True)  # noqa: SLF001  # its door for token requests


def by_lm_eval(model: Any, requests: list[TokenRequest], size: int, repeat: int) -> Measured:
    lm, found = harness_model(model, size), Measured()
    fed: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _m, args, kwargs: fed.append(int((args[0] if args else kwargs["input_ids"]).numel())),
        with_kwargs=True,
    )
    for _ in range(repeat):
        fed.clear()
        with Watch(found):
            answers = run_lm_eval(lm, requests)
    hook.remove()
    found.padded = sum(fed)
    found.fed = sum(len(key) // 4 for key in {r.tokens[:-1].tobytes() for r in requests})
    found.sums, found.greedy = np.array([a for a, _ in answers]), np.array([g for _, g in answers])
    return found


def by_engine(engine: Any, requests: list[TokenRequest], repeat: int) -> Measured:
    found = Measured()
    for _ in range(repeat):
        engine.tokens_fed = engine.tokens_padded = 0
        with Watch(found):
            answers = dict(engine.score(requests))
    found.fed, found.padded = engine.tokens_fed, engine.tokens_padded
    ordered = [answers[i] for i in range(len(requests))]
    found.sums = np.array([a.loglikelihood for a in ordered])
    found.greedy = np.array([a.greedy for a in ordered])
    return found


class Watch:
    """Adds the seconds, the process's CPU seconds and the peak of device memory of a block to a Measured."""

    def __init__(self, found: Measured) -> None:
        self.found = found

    def __enter__(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.began, self.cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.found.peak = torch.cuda.max_memory_allocated()
        self.found.seconds.append(time.perf_counter() - self.began)
        self.found.cpu_seconds.append(time.process_time() - self.cpu)


def compared(model: Any, requests: list[TokenRequest], measured: dict[str, Measured]) -> dict[str, Any]:
    """One task's row for every way of scoring."""
    theirs = measured["lm-eval"]
    trie = tree.pack(requests, 10**9).n_trie
    row: dict[str, Any] = {"requests": len(requests), "trie": trie, "ways": {}}
    per_token = np.array([r.n_scored for r in requests])
    flops = 2 * body_parameters(model)
    for way, found in measured.items():
        apart = abs(found.sums - theirs.sums)
        row["ways"][way] = {
            "seconds": round(found.median, 3),
            "cpu_seconds": round(statistics.median(found.cpu_seconds), 3),
            "fed": found.fed,
            "fed_and_padding": found.padded,
            "fed_over_trie": round(found.fed / trie, 3),
            "ratio": round(theirs.median / found.median, 2),
            "peak_gib": round(found.peak / 2**30, 2),
            "tflops_fed": round(flops * found.fed / found.median / 1e12, 2),
            "tflops_padded": round(flops * found.padded / found.median / 1e12, 2),
            "largest_difference": float(apart.max()),
            "largest_difference_per_token": float((apart / per_token).max()),
            "greedy_differs": int((found.greedy != theirs.greedy).sum()),
        }
    row["noise"] = noise(model, requests)
    return row


def noise(model: Any, requests: list[TokenRequest]) -> dict[str, Any]:
    """How far lm-eval is from itself with batch sizes 1 and 16, on a tenth of the requests."""
    part = requests[tenth(requests, 16)]
    one, many = (np.array([a for a, _ in run_lm_eval(harness_model(model, size), part)]) for size in (1, 16))
    apart, n = abs(one - many), np.array([r.n_scored for r in part])
    return {
        "largest_difference": float(apart.max()),
        "largest_difference_per_token": float((apart / n).max()),
        "requests": len(part),
    }


def body_parameters(model: Any) -> int:
    """Parameters that multiply every fed token: without embeddings and head."""
    outer = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    return sum(p.numel() for p in model.parameters() if id(p) not in outer)


def setting(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    import lm_eval
    import torch
    import transformers

    weight = next(model.parameters())
    return {
        "model": args.shape or Path(args.model).name,
        "dtype": str(weight.dtype),
        "device": torch.cuda.get_device_name() if weight.device.type == "cuda" else platform.processor(),
        "threads": torch.get_num_threads(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "lm_eval": getattr(lm_eval, "__version__", "?"),
            "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d"),
        "repeat": args.repeat,
    }


def show(results: dict[str, Any]) -> None:
    """The tables, in Markdown."""
    from tabulate import tabulate

    print(f"\nlm-eval's best batch size: {results['best_batch_size']}\n")
    head = ["task", "way", "seconds", "ratio", "fed", "fed / trie", "TFLOP/s fed", "with padding", "peak GiB"]
    apart = ["largest difference a token", "rms from float32", "other greedy"]
    rows = []
    for name, task in results["tasks"].items():
        far = task.get("from_float32", {})
        for way, r in task["ways"].items():
            from_truth = f"{far[way]['rms']:.1e}" if way in far else ""
            rows.append([name, way, *cells(r), from_truth, r["greedy_differs"]])
        own = f"{task['noise']['largest_difference_per_token']:.1e}"
        rows.append([name, "lm-eval, batches of 1 and 16", *[""] * 7, own, "", ""])
    print(tabulate(rows, [*head, *apart], tablefmt="github", disable_numparse=True))
    print()
    whole_suite(results)


def cells(r: dict[str, Any]) -> list[str]:
    """A row's figures as text."""
    return [
        f"{r['seconds']:.2f}",
        f"{r['ratio']:.2f}",
        f"{r['fed']:,}".replace(",", " "),
        f"{r['fed_over_trie']:.3f}",
        f"{r['tflops_fed']:.1f}",
        f"{r['tflops_padded']:.1f}",
        f"{r['peak_gib']:.1f}",
        f"{r['largest_difference_per_token']:.1e}",
    ]


def whole_suite(results: dict[str, Any]) -> None:
    """The ratio over the whole leaderboard suite, at the seconds per token measured on its part."""
    ways = next(iter(results["tasks"].values()))["ways"]
    for way in ways:
        theirs = ours = 0.0
        for name, task in results["tasks"].items():
            fed, trie = FULL[name]
            theirs += task["ways"]["lm-eval"]["seconds"] / task["ways"]["lm-eval"]["fed"] * fed
            ours += task["ways"][way]["seconds"] / task["trie"] * trie
        if way != "lm-eval":
            print(f"whole suite, {way}: {ours:.0f} s, lm-eval {theirs:.0f} s: {theirs / ours:.2f} times")
            results.setdefault("whole_suite", {})[way] = {"seconds": ours, "lm_eval": theirs}


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
