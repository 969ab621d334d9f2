"""How long it takes to a verdict: `qeval run` and `qeval gate` against lm-eval's own command line.

    python benchmarks/to_verdict.py --model demo --datasets-dir MIRROR --suite quick --limit 24 --slice 0.25
    python benchmarks/to_verdict.py --shape llama-2-7b --tokenizer DIR --datasets-dir MIRROR --slice 0.05

Both are given the same model, rows, examples and device, with empty caches, one after the other; data sets
come from a mirror, DIR/<org>/<name>. lm-eval (model `hf`) runs once for each scheme, as it has to, with the
fastest of `--batch-sizes` in scoring one document of each task, or the one that is named. What it cannot
make is given to it saved (bitsandbytes: `load_in_4bit` raises under transformers 5) or is left out of the
comparison, by name, for both.

Where the whole would take hours, `--slice F` gives lm-eval the first F of each task's rows, and its time for
all of them is told from that: scoring by the tokens that it feeds, tokenising by the tokens of all requests,
building by rows; starting, loading, reading data sets and the end are taken as they are. `--limit N` is for
both; with `--whole` the time without it is told for both, qeval's scoring by the tokens that its tree feeds
then, its questions as they really take (built here once more), all else as it is. On a CPU both calculate in
float32, and the seconds of the processor stand beside those of the clock, for a machine that does other
things as well (set OMP_NUM_THREADS=1 there). `--json FILE` keeps everything that was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml
from main_job import SHAPES, weights
from tabulate import tabulate

ROWS = {
    "starting, imports": ("starting", "imports", "waiting"),
    "data, requests, tokens": ("questions", "data sets", "building", "tokenising"),
    "loading": ("hashing", "loading", "dequantising"),
    "check, compiling": ("checking", "compiling"),
    "scoring": ("scoring", "storing"),
    "verifying by lm-eval": ("verifying",),
    "costs": ("costs",),
    "end, command, verdict": ("end", "command", "verdict"),
}
"""What a phase of either is told under."""
MARKS = (
    (r"Initializing hf model", "loading"),
    (r"Building contexts for", "building"),
    (r"Generating \w+ split|\[api\.task:|\[Task: ", "data sets"),
    (r"\] Running \w+ requests", "tokenising"),
    (r"^(Running \w+ requests|Running loglikelihood requests): +0%|^ *0%\|.*\| 0/", "scoring"),
)
"""What lm-eval prints when a phase begins. A phase of building begins anew after any other."""
GIVEN = frozenset({"fp32", "fp16", "bf16"})
SAVED = frozenset({"bnb4", "bnb8"})


class Amount(NamedTuple):
    """What there is to do: rows, tokens of all requests, those that lm-eval feeds, and that qeval does."""

    rows: int
    tokens: int
    fed: int
    tree: int


@dataclass
class Measured:
    """One command: its seconds, by phase, and those of all rows; and the processor's, of all rows too."""

    name: str
    seconds: float
    phases: dict[str, float]
    all_rows: dict[str, float]
    cpu: float
    cpu_all_rows: float


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        place = Path(folder)
        model = options.model or str(weights(place / "weights", options.shape, Path(options.tokenizer)))
        schemes, left_out = _both_can(options.schemes.split(","))
        qeval = _qeval(model, schemes, place, options)
        model = _directory(model)
        asked = _questions(model, options, place)
        _extrapolate(qeval, asked)
        theirs = [_lm_eval(model, scheme, asked, place, options) for scheme in schemes]
    _tell(qeval, theirs, asked, left_out)
    if options.json:
        kept = {"qeval": asdict(qeval), "lm-eval": [asdict(one) for one in theirs], "device": _machine()}
        amounts = {name: getattr(asked, name)._asdict() for name in ("whole", "ours", "theirs")}
        counts = {**amounts, "words": sys.argv[1:]}
        Path(options.json).write_text(json.dumps(kept | counts, indent=1), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint, or demo, instead of random weights")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--tokenizer", help="directory of a tokenizer, for random weights")
    parser.add_argument("--datasets-dir", required=True)
    parser.add_argument("--suite", default="leaderboard-v1")
    parser.add_argument("--schemes", default="fp16")
    parser.add_argument("--limit", type=int, help="rows of each task, for both")
    parser.add_argument("--whole", action="store_true", help="tell the time without --limit too")
    parser.add_argument("--slice", type=float, default=1.0, help="share of each task's rows for lm-eval")
    parser.add_argument("--batch-sizes", help="for lm-eval; default 1,4,8, and 32 on a GPU")
    parser.add_argument("--work", help="where weights and caches go, for want of room in /tmp")
    parser.add_argument("--json", help="write everything measured to this file")
    return parser.parse_args()


def _both_can(schemes: Sequence[str]) -> tuple[list[str], list[str]]:
    """The schemes that lm-eval can be given, and those that it cannot."""
    can = [scheme for scheme in schemes if scheme in GIVEN | SAVED]
    return can, [scheme for scheme in schemes if scheme not in can]


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _environment(place: Path, whose: str) -> dict[str, str]:
    """Empty caches of one's own, and no network."""
    caches = {"QEVAL_CACHE_DIR": str(place / "cache"), "HF_DATASETS_CACHE": str(place / f"datasets-{whose}")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | caches | offline | {"TMPDIR": str(place), "PYTHONUNBUFFERED": "1"}


# --- qeval


def _qeval(model: str, schemes: Sequence[str], place: Path, options: argparse.Namespace) -> Measured:
    """A run and its verdict, with the run's own phases."""
    runs = place / "runs"
    run = [sys.executable, "-m", "qeval", "run", "--model", model, "--suite", options.suite]
    run += ["--schemes", ",".join(schemes), "--datasets-dir", options.datasets_dir, "--runs-dir", str(runs)]
    run += ["--limit", str(options.limit)] if options.limit else []
    begun, before = time.perf_counter(), _cpu_of_children()
    _must(run, _environment(place, "qeval"), (0,))
    scored = time.perf_counter() - begun
    judge = [sys.executable, "-m", "qeval", "gate", "--runs-dir", str(runs), "--max-drop", "1.0"]
    _must(judge, _environment(place, "qeval"), (0, 3, 4, 5))
    whole = time.perf_counter() - begun
    told = json.loads(next(runs.glob("*/run.json")).read_text("utf-8"))
    phases: dict[str, float] = {}
    for result in told["results"]:
        for name, seconds in result["seconds"].items():
            phases[name] = phases.get(name, 0.0) + seconds
    phases["command"] = scored - sum(phases.values())  # less than nothing, where workers overlap
    phases["verdict"] = whole - scored
    cpu = _cpu_of_children() - before
    return Measured("qeval", whole, phases, phases, cpu, cpu)


def _cpu_of_children() -> float:
    """Seconds of the processor of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _extrapolate(qeval: Measured, asked: Asked) -> None:
    """Have it tell the time of all rows; the processor's is taken to be spent as the clock's is."""
    qeval.all_rows = dict(qeval.phases)
    qeval.all_rows["scoring"] *= asked.whole.tree / asked.ours.tree
    if asked.building is not None:
        qeval.all_rows["questions"] = max(asked.building, qeval.phases["questions"])
    qeval.cpu_all_rows = qeval.cpu * sum(qeval.all_rows.values()) / sum(qeval.phases.values())


def _must(command: Sequence[str], environment: dict[str, str], codes: Sequence[int]) -> None:
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(*(line for line in done.stdout.splitlines() if line.startswith("[")), sep="\n", flush=True)
    if done.returncode not in codes:
        raise SystemExit(done.stdout)


# --- what is asked


def _directory(model: str) -> str:
    """Where the model lies: lm-eval knows no demo."""
    from qeval.base.places import cache_dir
    from qeval.load import demo

    return str(demo.prepare(cache_dir(), print)) if model == "demo" else model


class Asked(NamedTuple):
    """lm-eval's entry for each leaf task, the rows of each that it gets, what there is to do in all, for
    qeval and for lm-eval, and the seconds in which the questions of all rows were built, if they were."""

    tasks: list[dict[str, Any]]
    rows: dict[str, int]
    whole: Amount
    ours: Amount
    theirs: Amount
    building: float | None = None


def _questions(model: str, options: argparse.Namespace, place: Path) -> Asked:
    """What both are asked."""
    from transformers import AutoConfig, AutoTokenizer

    from qeval.ask import suites
    from qeval.base.places import tasks_dir
    from qeval.score.harness import door, leaves
    from qeval.score.harness.sources import mirrored

    mirror = Path(options.datasets_dir).resolve()
    suite = suites.adjust(suites.load(options.suite), limit=options.limit)
    tokenizer = AutoTokenizer.from_pretrained(model)
    length = door.longest(AutoConfig.from_pretrained(model), tokenizer)
    known = {"datasets_dir": mirror, "tasks_dir": tasks_dir(), "cache_dir": place / "cache"}
    prepared = door.prepare(suite.tasks, tokenizer, max_length=length, **known)
    entries = []
    for leaf in leaves.expand(suite.tasks, tasks_dir(), place / "cache"):
        data = mirrored(str(leaf.config.get("dataset_path") or ""), mirror)
        entry: dict[str, Any] = {"task": leaf.task.name, "num_fewshot": leaf.task.num_fewshot or 0}
        entry |= {"dataset_path": str(data)} if data else {}
        entry |= {} if leaf.task.num_fewshot else {"training_split": None}  # a mirror may lack it
        entries.append(entry)
    rows = {part.task.name: math.ceil(part.n * options.slice) for part in prepared}
    ours = whole = _amount(prepared, None)
    building = None
    if options.whole:
        begun = time.perf_counter()
        parts = door.prepare(suites.load(options.suite).tasks, tokenizer, max_length=length, **known)
        building = time.perf_counter() - begun
        whole = _amount(parts, None)
    return Asked(entries, rows, whole, ours, _amount(prepared, rows), building)


def _amount(prepared: Sequence[Any], rows: dict[str, int] | None) -> Amount:
    """What the tasks hold, or the first rows of each. lm-eval feeds equal beginnings of one task once."""
    from qeval.base.packing import Packing
    from qeval.score.counts import counted

    packing = Packing("", 0, 16384, 16, 4) if _on_gpu() else Packing("", 1, 4096, 4, 4)
    found = Amount(0, 0, 0, counted(prepared, packing).scoring.fed)
    for part in prepared:
        n = part.n if rows is None else rows[part.task.name]
        content = part.content
        last = int(content.spans[int((content.owner < n).sum())])
        requests = part.requests[:last]
        fed = {request.tokens[:-1].tobytes(): len(request.tokens) - 1 for request in requests}
        tokens = sum(len(request.tokens) for request in requests)
        more = (n, tokens, sum(fed.values()))
        found = Amount(found.rows + more[0], found.tokens + more[1], found.fed + more[2], found.tree)
    return found


# --- lm-eval


def _lm_eval(model: str, scheme: str, asked: Asked, place: Path, options: argparse.Namespace) -> Measured:
    """lm-eval's command line on one variant, and what it would take for all rows."""
    if scheme in SAVED:
        model = _saved(model, scheme, place)
    sizes = (options.batch_sizes or ("32" if _on_gpu() else "1,4,8")).split(",")
    if len(sizes) > 1:
        few = dict.fromkeys(asked.rows, 1)
        tried = {size: _called(model, scheme, asked.tasks, few, size, place)[0]["scoring"] for size in sizes}
        told = ", ".join(f"{size}: {seconds:.1f} s" for size, seconds in tried.items())
        print(f"lm-eval scores one document of each task with batches of {told}", flush=True)
        sizes = sorted(sizes, key=tried.__getitem__)
    phases, cpu = _called(model, scheme, asked.tasks, asked.rows, sizes[0], place)
    whole, some = asked.whole, asked.theirs
    grown = {
        "building": whole.rows / some.rows,
        "tokenising": whole.tokens / some.tokens,
        "scoring": whole.fed / some.fed,
    }
    all_rows = {name: seconds * grown.get(name, 1.0) for name, seconds in phases.items()}
    cpu_all_rows = sum(seconds * grown.get(name, 1.0) for name, seconds in cpu.items())
    name = f"lm-eval {scheme}, batches of {sizes[0]}"
    return Measured(name, sum(phases.values()), phases, all_rows, sum(cpu.values()), cpu_all_rows)


def _saved(model: str, scheme: str, place: Path) -> str:
    """The variant as a checkpoint, quantised by transformers; what that takes counts for nobody."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    where = place / scheme
    if not where.exists():
        dtype = torch.float16 if _on_gpu() else torch.float32
        four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        asked = four if scheme == "bnb4" else BitsAndBytesConfig(load_in_8bit=True)
        device = "cuda:0" if _on_gpu() else "cpu"
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, quantization_config=asked, device_map={"": device}
        )
        loaded.save_pretrained(where)
        AutoTokenizer.from_pretrained(model).save_pretrained(where)
        del loaded
        if _on_gpu():
            torch.cuda.empty_cache()
    return str(where)


def _called(
    model: str, scheme: str, tasks: list[dict[str, Any]], rows: dict[str, int], size: str, place: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """The phases of one call of lm-eval's command line on so many rows of each task: seconds of the clock,
    and of the processor."""
    from qeval.base.places import tasks_dir

    folder = place / "asked"
    folder.mkdir(exist_ok=True)
    (folder / "verdict.yaml").write_text(yaml.safe_dump({"group": "verdict", "task": tasks}), "utf-8")
    for own in tasks_dir().iterdir():
        if own.is_dir():  # copied, for lm-eval's search follows no links
            shutil.copytree(own, folder / own.name, dirs_exist_ok=True)
    samples = place / "rows.json"
    samples.write_text(json.dumps({name: list(range(count)) for name, count in rows.items()}), "utf-8")
    dtype = "float16" if _on_gpu() else "float32"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", "verdict"]
    command += ["--model_args", f"pretrained={model},dtype={dtype}", "--include_path", str(folder)]
    command += ["--batch_size", size, "--device", "cuda:0" if _on_gpu() else "cpu"]
    command += ["--samples", str(samples), "--output_path", str(place / f"lm-eval-{scheme}")]
    return _followed(command, _environment(place, "lm-eval"), place / f"lm-eval-{scheme}.log")


def _followed(
    command: Sequence[str], environment: dict[str, str], log: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by phase of a command, by when its lines came; those that overwrite one another count."""
    phases: dict[str, float] = {}
    cpu: dict[str, float] = {}
    now, since, used, line = "starting", time.perf_counter(), 0.0, b""
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
        log.open("wb") as kept,
    ):
        assert process.stdout is not None
        itself = psutil.Process(process.pid)
        while piece := os.read(process.stdout.fileno(), 65536):
            kept.write(piece)
            *lines, line = re.split(rb"[\r\n]", line + piece)
            for one in [*lines, line]:  # a bar at 0% has no end yet
                begins = _begins(one.decode("utf-8", "replace"), now)
                if begins != now:
                    phases[now] = phases.get(now, 0.0) + time.perf_counter() - since
                    cpu[now] = cpu.get(now, 0.0) + sum(itself.cpu_times()[:2]) - used
                    now, since, used = begins, time.perf_counter(), sum(itself.cpu_times()[:2])
    phases[now] = phases.get(now, 0.0) + time.perf_counter() - since
    if process.returncode != 0 or "scoring" not in phases:
        raise SystemExit(log.read_text("utf-8", "replace")[-3000:])
    return phases, cpu


def _begins(line: str, now: str) -> str:
    """The phase after a line."""
    if now == "scoring" and re.search(r"requests: 100%", line):
        return "end"
    for pattern, phase in MARKS:
        if re.search(pattern, line) and not (phase == "scoring" and now not in ("tokenising", "end")):
            return phase if (now, phase) != ("building", "data sets") else now
    return now


# --- what is told


def _tell(qeval: Measured, theirs: Sequence[Measured], asked: Asked, left: Sequence[str]) -> None:
    """The seconds of both by phase, and the ratio."""
    everyone = [qeval, *theirs]
    table = [
        [
            row,
            *(_sum(one.phases, names) for one in everyone),
            *(_sum(one.all_rows, names) for one in everyone),
        ]
        for row, names in ROWS.items()
    ]
    totals = [sum(one.all_rows.values()) for one in everyone]
    cpu = [one.cpu_all_rows for one in everyone]
    table.append(["**whole**", *(one.seconds for one in everyone), *totals])
    table.append(["seconds of the processor", *(one.cpu for one in everyone), *cpu])
    heads = [one.name for one in everyone]
    print(_machine())
    heads = [*heads, *(f"{name}, all rows" for name in heads)]
    print(tabulate(table, ["seconds", *heads], tablefmt="github", floatfmt=".1f"))
    for name in ("whole", "ours", "theirs"):
        rows, tokens, fed, tree = getattr(asked, name)
        print(f"{name}: {rows} rows, {tokens} tokens, of which lm-eval feeds {fed} and qeval {tree}")
    if left:
        print(f"Left out, for lm-eval's command line cannot load them here: {', '.join(left)}.")
    print(f"The verdict comes {sum(totals[1:]) / totals[0]:.1f} times sooner by qeval; in seconds of the")
    print(f"processor {sum(cpu[1:]) / cpu[0]:.1f} times.", flush=True)


def _sum(phases: dict[str, float], names: Sequence[str]) -> float:
    return sum(phases.get(name, 0.0) for name in names)


def _machine() -> str:
    import lm_eval
    import torch
    import transformers

    device = torch.cuda.get_device_name() if _on_gpu() else f"{os.cpu_count()} cores, {platform.machine()}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{device}, {versions}, lm-eval {lm_eval.__version__}"


if __name__ == "__main__":
    main()
