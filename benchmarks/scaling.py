"""The same command on one GPU and on more: seconds, how busy each GPU is, and whether the numbers are equal.

    python benchmarks/scaling.py --shape llama-2-7b --tokenizer DIR --datasets-dir MIRROR --counts 8,4,2,1 \
        --limit 40 --json scaling.json --work /dev/shm
    python benchmarks/scaling.py --schemes fp16 --tasks hellaswag:acc_norm --num-fewshot 10 --counts 1,2 ...
    python benchmarks/scaling.py --model demo --schemes fp16,bnb4 --counts 1,2 --workers ...   (on a CPU)
    python benchmarks/scaling.py --draw scaling.json timeline.svg

Each count is `qeval run --devices 0,1,...` (or `--workers N`) with a directory of runs of its own and the
caches of all, so that the first one also pays for compiling and tokenising. "span" is from the first engine
that is ready to the last answer of any variant, "whole" the command from its start to its end. How busy a GPU
is its driver tells, a few times a second; the share by tokens is what was fed in the span, over what that
GPU feeds at the pace of the longest task of its variants.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from random_checkpoints import SHAPES, in_shards

SIXTEEN = ",".join(
    (
        "fp16",
        "bnb4",
        "nf4-double=bnb4[double_quant=true]",
        "fp4=bnb4[quant_type=fp4]",
        "fp4-double=bnb4[quant_type=fp4,double_quant=true]",
        *(
            f"rtn{bits}-{group}=rtn[bits={bits},group_size={group}]"
            for bits in (3, 4, 8)
            for group in (32, 64, 128)
        ),
        "rtn4-symmetric=rtn[symmetric=true]",
        "rtn5=rtn[bits=5]",
    )
)
"""Sixteen variants, none of which needs calibration."""
_PERIOD_MS = 200
_COLOURS = {"loading": "#9ecae1", "checking": "#c7a76c", "scoring": "#2b7a4b", "after": "#cccccc"}


def main() -> None:
    if "--draw" in sys.argv:
        source, target = map(Path, sys.argv[sys.argv.index("--draw") + 1 :][:2])
        target.write_text(drawn(json.loads(source.read_text("utf-8"))), "utf-8")
        return
    if "--child" in sys.argv:
        _child()
        return
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        place = Path(folder)
        model = options.model or str(in_shards(place / "weights", options.shape, Path(options.tokenizer)))
        found = []
        for count in map(int, options.counts.split(",")):
            found.append(_measured(count, model, place, options))
            _tell(found[-1], found[0])
            if options.json:
                options.json.write_text(json.dumps(found), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint, or demo, instead of random weights")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--tokenizer", help="directory of a tokenizer, for random weights")
    parser.add_argument("--datasets-dir")
    parser.add_argument("--suite", default="leaderboard-v1")
    parser.add_argument("--tasks", help="instead of the suite")
    parser.add_argument("--num-fewshot")
    parser.add_argument("--schemes", default=SIXTEEN)
    parser.add_argument("--counts", default="1,2")
    parser.add_argument("--gpus", help="the numbers of the GPUs that may be used; default: the first ones")
    parser.add_argument("--workers", action="store_true", help="workers of a CPU instead of GPUs")
    parser.add_argument("--limit")
    parser.add_argument("--work", help="where weights, caches and runs go")
    parser.add_argument("--cache", help="a cache that is kept, instead of an empty one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("others", nargs="*", help="further words for qeval run, after --")
    return parser.parse_args()


def _measured(count: int, model: str, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run with so many workers: its record, what it told and when, and how busy the GPUs were."""
    there = (options.gpus or ",".join(map(str, range(count)))).split(",")[:count]
    runs, told = place / f"runs-{count}", place / f"told-{count}.jsonl"
    words = ["run", "--model", model, "--schemes", options.schemes, "--runs-dir", str(runs)]
    words += ["--tasks", options.tasks] if options.tasks else ["--suite", options.suite]
    for name in ("limit", "num_fewshot", "datasets_dir"):
        words += [f"--{name.replace('_', '-')}", getattr(options, name)] if getattr(options, name) else []
    words += ["--workers", str(count)] if options.workers else ["--devices", ",".join(map(str, range(count)))]
    cache = Path(options.cache or place / "cache")
    caches = {"QEVAL_CACHE_DIR": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    caches["TMPDIR"] = str(place)
    visible = {} if options.workers else {"CUDA_VISIBLE_DEVICES": ",".join(there)}
    with _sampled(there if not options.workers else []) as samples:
        begun = time.time()
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(told), *words, *options.others],
            env=os.environ | caches | visible,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        whole = time.time() - begun
    found = next(runs.glob("*/run.json"), None)
    if found is None:
        raise SystemExit(done.stdout)
    events = [json.loads(line) for line in told.read_text("utf-8").splitlines()]
    return _summed(count, whole, events, samples, found)


def _summed(
    count: int, whole: float, events: list[dict[str, Any]], samples: list[Any], path: Path
) -> dict[str, Any]:
    run = json.loads(path.read_text("utf-8"))
    first = min(event["at"] for event in events if event["kind"] == "Fed")
    last = max(event["at"] for event in events if event["kind"] == "Progress")
    within = [sample for sample in samples if first <= sample[0] <= last]
    gpus = sorted({sample[1] for sample in within})
    busy = {gpu: _mean([sample[2] for sample in within if sample[1] == gpu]) for gpu in gpus}
    cells = [cell for result in run["results"] for cell in result["cells"]]
    tokens = sum(cell["tokens"] for cell in cells)
    paces = [pace for result in run["results"] if (pace := _pace(result["cells"]))]
    return {
        "workers": count,
        "whole": whole,
        "span": last - first,
        "busy": busy,
        "tokens": tokens,
        "by_tokens": tokens / _mean(paces) / count / (last - first) if paces else 0.0,
        "seconds": {result["variant"]["name"]: result["seconds"] for result in run["results"]},
        "status": {result["variant"]["name"]: result["status"] for result in run["results"]},
        "errors": [result["error"] for result in run["results"] if result["error"]],
        "digests": _digests(path.parent, run),
        "events": events,
        "samples": samples,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _pace(cells: list[dict[str, Any]]) -> float:
    """Tokens a second in the task, or group, of which most was fed."""
    rows: dict[str, list[float]] = {}
    for cell in cells:
        row = rows.setdefault(cell["task"]["group"] or cell["task"]["name"], [0.0, 0.0])
        row[0] += cell["tokens"]
        row[1] += cell["seconds"]
    tokens, seconds = max(rows.values(), default=[0.0, 0.0])
    return tokens / seconds if seconds else 0.0


def _digests(place: Path, run: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of every cell's samples, by variant and task."""
    return {
        f"{result['variant']['name']}/{cell['task']['name']}": hashlib.sha256(
            (place / "cells" / cell["key"] / "samples.parquet").read_bytes()
        ).hexdigest()
        for result in run["results"]
        for cell in result["cells"]
    }


@contextmanager
def _sampled(gpus: list[str]) -> Any:
    """While open, how busy the GPUs are is asked again and again: [time, GPU, share]; filled at the end."""
    found: list[Any] = []
    if not gpus:
        yield found
        return
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile("w+") as out:
        smi = subprocess.Popen([*query, f"-lms={_PERIOD_MS}", f"--id={','.join(gpus)}"], stdout=out)
        begun = time.time()
        try:
            yield found
        finally:
            smi.terminate()
            smi.wait()
            took = time.time() - begun
            out.seek(0)
            rows = [line.split(",") for line in out.read().splitlines() if line.count(",") == 1]
            turns = max(1, len(rows) // len(gpus))
            for i, (index, share) in enumerate(rows):
                at = begun + took * (i // len(gpus)) / turns
                found.append([at, index.strip(), float(share) / 100 if share.strip().isdigit() else 0.0])


def _child() -> None:
    """The command itself, with a listener that writes down what is told, and when."""
    at = sys.argv.index("--child")
    told, words = Path(sys.argv[at + 1]), sys.argv[at + 2 :]
    from qeval.cli import progress
    from qeval.cli.main import main as command

    file = told.open("w", encoding="utf-8")

    @contextmanager
    def recorded(_variants: int, *_more: Any, **_others: Any) -> Any:
        def listen(variant: Any, event: Any) -> None:
            row = {"at": time.time(), "variant": variant.name, "kind": type(event).__name__}
            for name in ("text", "message", "task", "done"):
                row |= {name: getattr(event, name)} if hasattr(event, name) else {}
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield listen

    progress.display = recorded
    sys.argv = ["qeval", *words]
    command(prog_name="qeval")


def _tell(found: dict[str, Any], first: dict[str, Any]) -> None:
    busy = ", ".join(f"{share:.0%}" for share in found["busy"].values())
    same = sum(found["digests"].get(key) == value for key, value in first["digests"].items())
    print(
        f"{found['workers']} workers: {found['span']:.1f} s from the first pass to the last"
        f" ({first['span'] / found['span']:.2f} times the first row's), {found['whole']:.1f} s in all"
        f" ({first['whole'] / found['whole']:.2f}); busy by the driver {busy or 'not asked'}, by tokens"
        f" {found['by_tokens']:.0%}; {same} of {len(first['digests'])} samples equal;"
        f" {sum(status == 'done' for status in found['status'].values())} of {len(found['status'])} done",
        *found["errors"],
        sep="\n  ",
        flush=True,
    )


def drawn(found: list[dict[str, Any]]) -> str:
    """An SVG of all runs in a file, one below the other: what each variant did when, and each GPU's share of
    busy time below it."""
    width, row, left, parts, y = 1100, 14, 130, list[str](), 10
    scale = (width - left - 10) / max(one["whole"] for one in found)
    for one in found:
        begun = min(event["at"] for event in one["events"])
        parts.append(f'<text x="0" y="{y + 11}" font-weight="bold">{one["workers"]} at work</text>')
        y += row + 4
        for name in dict.fromkeys(event["variant"] for event in one["events"]):
            parts.append(f'<text x="0" y="{y + 11}">{name}</text>')
            mine = [event for event in one["events"] if event["variant"] == name]
            for since, until, what in _phases(mine):
                x, wide = left + (since - begun) * scale, max(0.5, (until - since) * scale)
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{row - 3}" fill="{what}"/>'
                )
            y += row
        for gpu in sorted({sample[1] for sample in one["samples"]}):
            parts.append(f'<text x="0" y="{y + 11}">GPU {gpu}</text>')
            wide, bars = _PERIOD_MS / 1000 * scale, []
            for at, _, share in (sample for sample in one["samples"] if sample[1] == gpu):
                x, tall = left + (at - begun) * scale, share * (row - 3)
                if share and x >= left:
                    bars.append(f"M{x:.1f} {y + row - 3}v-{tall:.1f}h{wide:.1f}v{tall:.1f}z")
            parts.append(f'<path d="{"".join(bars)}" fill="#444"/>')
            y += row
        y += 10
    legend = "".join(
        f'<rect x="{left + 130 * i}" y="{y}" width="12" height="10" fill="{colour}"/>'
        f'<text x="{left + 130 * i + 17}" y="{y + 10}">{name}</text>'
        for i, (name, colour) in enumerate(_COLOURS.items())
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 20}" font-family="sans-serif"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'{head} font-size="11">{ground}{"".join(parts)}{legend}</svg>\n'


def _phases(events: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """From when to when a variant's worker did what, by colour."""
    found: list[tuple[float, float, str]] = []
    now, since = "loading", events[0]["at"]
    for event in events:
        then = now
        if event["kind"] == "Stage" and "checking" in event["text"]:
            then = "checking"
        elif event["kind"] == "Progress":
            then = "scoring"
        elif event["kind"] == "Stage" and now == "scoring":
            then = "after"
        if then != now:
            found.append((since, event["at"], _COLOURS[now]))
            now, since = then, event["at"]
    return [*found, (since, events[-1]["at"], _COLOURS[now])]


if __name__ == "__main__":
    main()
