"""A row each for long texts, short questions and generation: the engine against lm-eval's own HFLM.

On a GPU, random weights in the shape of a real model, float16; on a CPU, the demo model in float32:

    python benchmarks/engine_rows.py --shape llama-2-7b --json rows.json
    OMP_NUM_THREADS=1 python benchmarks/engine_rows.py --model demo

Nothing is read but the model: what is asked is made up, as token numbers, so that no tokenizer, data set or
network is needed. On a CPU all is short and asked once, to see that it works. Both are asked the same in one
process:

- `long texts`: windows of one text, each as long as the model's context, every token scored, as a rolling
  perplexity asks them;
- `short questions`: subjects with five examples and many questions of about 60 tokens, four choices of one
  token each, as MMLU asks them;
- `generation`: prompts of eight examples that all share and a question of their own, as GSM8K asks them; the
  likeliest tokens, of random weights always as many, since those know no end. qeval's loop writes twice, and
  the second time counts: the first one checks it.

Seconds are the median of `--repeat` runs for the engine and one run for lm-eval, both after a warm-up;
lm-eval scores with the batch size that was fastest on an eighth, and both write in batches of `--batch`.
Tokens are those that answer the question whoever does it: distinct contexts, or what is written. TFLOP/s
count 2 operations for each weight of the body and each token that really went through it, without padding;
the peak is the maker's, or, of a device that qeval knows no figure of, what a bare product reached.
`--only qeval` leaves lm-eval out, `--only lm-eval` the engine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from checks import a_model
from generation import by_lm_eval as written_by_lm_eval
from scoring import (
    SHAPES,
    Measured,
    Watch,
    body_parameters,
    by_engine,
    by_lm_eval,
    harness_model,
    run_lm_eval,
)
from tabulate import tabulate

from qeval.base.records import Task
from qeval.load.rates import by_driver
from qeval.score.engine import engine as engines
from qeval.score.engine.requests import TokenRequest
from qeval.score.harness import door
from qeval.score.harness.prepared import Content, PreparedTask

WAYS = ("lm-eval", "qeval")


@dataclass(frozen=True)
class Amounts:
    """How much is asked: windows of a text, subjects and questions of each; prompts, the tokens of what they
    share and at most of what they do not, and those of an answer."""

    windows: int
    subjects: int
    questions: int
    prompts: int
    examples: int
    prompt: int
    tokens: int


ON_GPU = Amounts(windows=16, subjects=8, questions=64, prompts=64, examples=880, prompt=90, tokens=96)
ON_CPU = Amounts(windows=2, subjects=1, questions=8, prompts=32, examples=64, prompt=4, tokens=6)
LONGEST_ON_CPU = 256
SIZES_ON_GPU = {"long texts": (1, 4), "short questions": (16, 64)}
SIZES_ON_CPU = {"long texts": (2,), "short questions": (8,)}
"""Batch sizes for lm-eval. On a CPU there is no time to try several, and all come to the same."""


@dataclass(frozen=True)
class Row:
    """What one way took for one row: `tokens` that answer it, `fed` through the body and `padded` with
    padding, operations in TFLOP/s, and as a share of the peak."""

    row: str
    way: str
    batch: int | None
    seconds: float
    tokens: int
    fed: int
    padded: int
    tokens_per_second: float
    tflops: float
    of_peak: float
    peak_gib: float


@dataclass(frozen=True)
class Bench:
    """A model at work: its longest sequence, operations for each token, and the device's peak in TFLOP/s."""

    model: Any
    context: int
    flops: float
    peak: float
    ways: tuple[str, ...]
    repeat: int

    def row(self, name: str, way: str, batch: int | None, tokens: int, found: Measured) -> Row:
        """The row of what was measured."""
        tflops = self.flops * found.fed / found.median / 1e12
        rate, share = tokens / found.median, tflops / self.peak
        sizes = (tokens, found.fed, found.padded)
        return Row(name, way, batch, found.median, *sizes, rate, tflops, share, found.peak / 2**30)


def main() -> None:
    options = _options()
    begun = time.perf_counter()
    tell = partial(_tell, begun)
    bench = _bench(options)
    tell(f"{_device()}; loaded, context {bench.context}, peak {bench.peak:.4g} TFLOP/s")
    asked = _amounts(options)
    rng = np.random.default_rng(0)
    long, short = _long(rng, bench, asked.windows), _short(rng, bench, asked)
    rows: list[Row] = []
    notes: list[str] = []
    _scored(bench, {"long texts": long, "short questions": short}, rows, notes, options, tell)
    _written(bench, _prompts(rng, bench, asked), asked.tokens, rows, notes, options.batch, tell)
    _table(rows)
    print(*notes, sep="\n")
    seconds = time.perf_counter() - begun
    tell(f"done, {time.process_time():.0f} s of the processor")
    if options.json:
        kept = {"device": _device(), "model": options.model or options.shape, "context": bench.context}
        told = {"peak_tflops": bench.peak, "amounts": asdict(asked), "notes": notes, "seconds": seconds}
        measured = {"rows": [asdict(row) for row in rows], "times_lm_eval": _ratios(rows)}
        Path(options.json).write_text(json.dumps(kept | told | measured, indent=1), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="demo, or the directory of a checkpoint")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights; the default, of llama-2-7b")
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--context", type=int, help=f"default: the model's; on a CPU {LONGEST_ON_CPU}")
    parser.add_argument("--windows", type=int, help="of the long text")
    parser.add_argument("--questions", type=int, help="of each subject")
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--tokens", type=int, help="of each answer")
    parser.add_argument("--batch", type=int, default=32, help="texts that are written at once")
    parser.add_argument("--repeat", type=int, help="default: 3, on a CPU 1")
    parser.add_argument("--eager", action="store_true", help="do not compile, on a GPU either")
    parser.add_argument("--json", help="write everything measured to this file")
    options = parser.parse_args()
    if not options.model and not options.shape:
        options.shape = "llama-2-7b"
    return options


def _tell(begun: float, text: str) -> None:
    print(f"[{time.perf_counter() - begun:5.1f} s] {text}", flush=True)


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _amounts(options: argparse.Namespace) -> Amounts:
    usual = asdict(ON_GPU if _on_gpu() else ON_CPU)
    named = {name: getattr(options, name, None) for name in usual}
    return Amounts(**usual | {name: value for name, value in named.items() if value})


# --- the model and the device


def _bench(options: argparse.Namespace) -> Bench:
    model = _loaded(options.model) if options.model else a_model(options.shape)
    longest = int(model.config.max_position_embeddings)
    context = min(longest, options.context or (longest if _on_gpu() else LONGEST_ON_CPU))
    ways = (options.only,) if options.only else WAYS
    flops = 2.0 * body_parameters(model)
    return Bench(model, context, flops, _peak(model), ways, options.repeat or (3 if _on_gpu() else 1))


def _loaded(named: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    place: Any = named
    if named == "demo":
        from qeval.load import demo

        place = demo.prepare(Path.home() / ".cache" / "qeval", print)
    device, dtype = ("cuda", torch.float16) if _on_gpu() else ("cpu", torch.float32)
    return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).to(device).eval()


def _device() -> str:
    import lm_eval
    import torch
    import transformers

    name = torch.cuda.get_device_name() if _on_gpu() else f"{os.cpu_count()} cores, {platform.machine()}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{name}, {torch.get_num_threads()} threads, {versions}, lm-eval {lm_eval.__version__}"


def _peak(model: Any) -> float:
    """TFLOP/s: what the maker of the GPU promises, or what a bare product reaches."""
    import torch

    known = by_driver(torch.cuda.get_device_name()) if _on_gpu() else None
    if known:
        return known[1].peak
    weight = next(model.parameters())
    n = 8192 if _on_gpu() else 1024
    a, b = (torch.randn((n, n), device=weight.device, dtype=weight.dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        float(torch.mm(a, b)[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds) / 1e12


# --- what is asked


def _text(rng: np.random.Generator, bench: Bench, tokens: int) -> Any:
    """Token numbers, few of them often, as words are in a text."""
    size = bench.model.config.vocab_size
    return (3 + rng.zipf(1.3, tokens) % (size - 3)).astype(np.int32)


def _long(rng: np.random.Generator, bench: Bench, windows: int) -> list[TokenRequest]:
    """A text cut into windows without overlap, each after the last token of the one before."""
    text, step = _text(rng, bench, windows * bench.context + 1), bench.context
    return [TokenRequest(text[at * step : (at + 1) * step + 1], step) for at in range(windows)]


def _short(rng: np.random.Generator, bench: Bench, asked: Amounts) -> list[TokenRequest]:
    """Questions of a subject behind the same five examples; the same four tokens are their choices."""
    letters = _text(rng, bench, 400)
    choices = np.unique(letters)[:4]
    made = []
    for _ in range(asked.subjects):
        examples = _text(rng, bench, min(5 * 65, bench.context // 2))
        for _ in range(asked.questions):
            question = _text(rng, bench, int(rng.integers(35, 90)))
            context = np.concatenate([examples, question])
            made += [TokenRequest(np.append(context, letter).astype(np.int32), 1) for letter in choices]
    return made


def _prompts(rng: np.random.Generator, bench: Bench, asked: Amounts) -> list[str]:
    """Examples and a question of their own, in the words of `_words`."""
    examples = _text(rng, bench, min(asked.examples, bench.context // 2))
    lengths = rng.integers(asked.prompt // 3 + 1, asked.prompt, asked.prompts)
    questions = [_text(rng, bench, int(length)) for length in lengths]
    return [" ".join(f"w{token}" for token in (*examples, *question)) for question in questions]


def _words(model: Any) -> Any:
    """A tokenizer whose words are the numbers of the model's tokens behind a letter, but for the end."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    ends = model.generation_config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends or 2
    vocabulary = {"</s>" if at == end else f"w{at}": at for at in range(model.config.vocab_size)}
    words = Tokenizer(WordLevel(vocabulary, "w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, **dict.fromkeys(("eos_token", "pad_token"), "</s>")
    )


# --- scoring


def _scored(
    bench: Bench,
    asked: dict[str, list[TokenRequest]],
    rows: list[Row],
    notes: list[str],
    options: argparse.Namespace,
    tell: Callable[[str], None],
) -> None:
    """Two rows by each way, and how far apart their answers are."""
    everything = [one for requests in asked.values() for one in requests]
    engine = None
    if "qeval" in bench.ways:
        engine = engines.open_engine(
            bench.model, "tree", sample=everything, compiled=_on_gpu() and not options.eager
        )
        tell(f"the engine is open, chunks of {engine.budget} tokens: {engine.note}")
    for name, requests in asked.items():
        tokens = sum(len(one) // 4 for one in {one.tokens[:-1].tobytes() for one in requests})
        theirs = ours = None
        if "lm-eval" in bench.ways:
            sizes = (SIZES_ON_GPU if _on_gpu() else SIZES_ON_CPU)[name]
            size = _best_size(bench.model, requests, sizes)
            theirs = by_lm_eval(bench.model, requests, size, 1)
            rows.append(bench.row(name, "lm-eval", size, tokens, theirs))
            tell(f"{name}: lm-eval {theirs.median:.2f} s in batches of {size}")
        if engine is not None:
            by_engine(engine, requests, 1)  # a warm-up
            ours = by_engine(engine, requests, bench.repeat)
            rows.append(bench.row(name, "qeval", None, tokens, ours))
            tell(f"{name}: qeval {ours.median:.2f} s")
        if theirs and ours:
            notes.append(_apart(name, requests, theirs, ours))


def _best_size(model: Any, requests: Sequence[TokenRequest], sizes: Sequence[int]) -> int:
    """The batch size by which lm-eval takes least time for an eighth of what is asked."""
    part = list(requests[: max(*sizes, len(requests) // 8)])
    took = {}
    for size in sizes:
        lm = harness_model(model, size)
        run_lm_eval(lm, part[:size])  # a warm-up
        if len(sizes) == 1:
            return size
        began = time.perf_counter()
        run_lm_eval(lm, part)
        took[size] = time.perf_counter() - began
    return min(took, key=lambda size: took[size])


def _apart(name: str, requests: Sequence[TokenRequest], theirs: Measured, ours: Measured) -> str:
    apart = abs(theirs.sums - ours.sums) / np.array([one.n_scored for one in requests])
    return f"{name}: log-likelihoods differ by at most {apart.max():.1e} nats a token."


# --- generation


def _written(
    bench: Bench,
    prompts: list[str],
    tokens: int,
    rows: list[Row],
    notes: list[str],
    batch: int,
    tell: Callable[[str], None],
) -> None:
    """The row of texts by each way, and how many texts differ."""
    tokenizer = _words(bench.model)
    loop = door.OwnLoop(bench.model)
    task = _task(prompts, tokens, bench.context)
    ways: dict[str, Callable[[Any], list[str]]] = {
        "lm-eval": lambda one: written_by_lm_eval(one, bench.model, tokenizer, batch),
        "qeval": lambda one: [
            text.answer for text in door.generate(one, bench.model, tokenizer, batch_size=batch, own=loop)
        ],
    }
    found: dict[str, list[str]] = {}
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    for way in bench.ways:
        began = time.perf_counter()
        ways[way](task if way == "qeval" else _task(prompts[:2], 4, bench.context))
        tell(f"generation: {way}, a warm-up{' with its check' * (way == 'qeval')},"
             f" {time.perf_counter() - began:.2f} s")  # fmt: skip
        measured, found[way] = _watched(bench.model, partial(ways[way], task))
        written = sum(len(text.split()) for text in found[way])
        rows.append(bench.row("generation", way, batch, written, measured))
        tell(f"generation: {way} {measured.median:.2f} s")
    notes += loop.notes
    if len(found) > 1:
        differ = sum(one != other for one, other in zip(*found.values(), strict=True))
        notes.append(f"generation: {differ} of {len(prompts)} texts differ.")


def _task(prompts: list[str], tokens: int, longest: int) -> PreparedTask:
    """A task that asks for the likeliest text after each prompt."""
    n = len(prompts)
    options = {"until": ["Question:"], "max_gen_toks": tokens, "do_sample": False}
    content = Content(
        docs=lambda: [{}] * n,
        features=(),
        doc_hash=("",) * n,
        prompt_hash=("",) * n,
        target_hash=("",) * n,
        owner=np.arange(n, dtype=np.int32),
        arguments=lambda: [(text, dict(options)) for text in prompts],
        spans=np.zeros(n + 1, np.int64),
        requests=(),
        truncated=0,
        n_available=n,
    )
    return PreparedTask(
        task=Task("made_up", "exact_match"),
        n=n,
        n_available=n,
        version="",
        dataset="",
        requests=(),
        truncated=0,
        generates=True,
        output_type="generate_until",
        max_length=longest,
        repeats=1,
        content=content,
        view=lambda: None,
    )


def _watched(model: Any, write: Callable[[], list[str]]) -> tuple[Measured, list[str]]:
    """What was written, and its seconds and the tokens that the model was given."""
    found = Measured()
    fed: list[tuple[Any, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _model, args, named: fed.append(_fed(args[0] if args else named["input_ids"], named)),
        with_kwargs=True,
    )
    with Watch(found):
        texts = write()
    hook.remove()
    found.fed, found.padded = (int(sum(one[at] for one in fed)) for at in (0, 1))
    return found, texts


def _fed(tokens: Any, named: dict[str, Any]) -> tuple[Any, int]:
    """The tokens of a call, without what its mask hides and with it. Keys of earlier calls lie in front."""
    mask = named.get("attention_mask")
    if mask is None or mask.shape[:-1] != tokens.shape[:-1]:
        return tokens.numel(), tokens.numel()
    return mask[:, -tokens.shape[1] :].sum(), tokens.numel()  # nobody waits for the device here


# --- what is told


def _ratios(rows: Sequence[Row]) -> dict[str, float]:
    """How many times as fast the engine is, where both were measured."""
    by_way = {(row.row, row.way): row.tokens_per_second for row in rows}
    names = [row for row, way in by_way if way == "qeval" and (row, "lm-eval") in by_way]
    return {name: by_way[name, "qeval"] / by_way[name, "lm-eval"] for name in names}


def _table(rows: Sequence[Row]) -> None:
    """The rows, in Markdown."""
    ratios = _ratios(rows)
    heads = ["row", "way", "batch", "seconds", "tokens", "tokens/s", "fed", "padding", "TFLOP/s", "of peak"]
    table = []
    for row in rows:
        ratio = f"{ratios[row.row]:.2f}" if row.way == "qeval" and row.row in ratios else ""
        padding = f"{row.padded / max(1, row.fed) - 1:.1%}"
        told = [row.row, row.way, row.batch or "", f"{row.seconds:.2f}", row.tokens]
        told += [f"{row.tokens_per_second:.0f}", row.fed, padding, f"{row.tflops:.3g}", f"{row.of_peak:.0%}"]
        table.append([*told, f"{row.peak_gib:.1f}", ratio])
    print(tabulate(table, [*heads, "peak GiB", "times lm-eval"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
