"""Where the time of the main job goes: `qeval run` on random weights in a real shape, phase by phase.

    python benchmarks/main_job.py --shape llama-2-7b --tokenizer DIR --datasets-dir MIRROR --runs 2

Makes the weights (float16, the tokenizer's own vocabulary), then runs

    qeval run --model WEIGHTS --suite leaderboard-v1 --schemes fp16,bnb4

once with empty caches and the other times with what the first left behind, each into a directory of runs of
its own, and prints the seconds of every phase. What the phases of the workers leave of the whole is the
command itself: Python, hashing the weights, and the report on the screen. `--limit N` asks N items a task:
enough to see what comes before the first answer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scoring import SHAPES

BEFORE = (
    "starting",
    "imports",
    "waiting",
    "questions",
    "hashing",
    "loading",
    "dequantising",
    "checking",
    "compiling",
)
"""The phases that come before the first answer."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        place = Path(folder)
        model = options.model or str(weights(place / "weights", options.shape, Path(options.tokenizer)))
        for turn in range(options.runs):
            print("with empty caches:" if turn == 0 else "once more:", flush=True)
            _tell(_run(model, place, place / f"runs{turn}", options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint instead of random weights")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--tokenizer", help="directory of a tokenizer, for random weights")
    parser.add_argument("--datasets-dir", required=True)
    parser.add_argument("--suite", default="leaderboard-v1")
    parser.add_argument("--schemes", default="fp16,bnb4")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--work", help="where weights and caches go, for want of room in /tmp")
    parser.add_argument("others", nargs="*", help="further words for qeval run, after --")
    return parser.parse_args()


def weights(place: Path, shape: str, tokenizer: Path) -> Path:
    """A checkpoint of random weights in the shape, with the tokenizer and as many rows as it has tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    torch.manual_seed(0)
    known = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(**{**SHAPES[shape], "vocab_size": len(known)})
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    model.save_pretrained(place, max_shard_size="5GB")
    known.save_pretrained(place)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the memory is for those who score
    return place


def _run(model: str, place: Path, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What a run's record tells, and its seconds as a whole."""
    command = [sys.executable, "-m", "qeval", "run", "--model", model, "--suite", options.suite]
    command += ["--schemes", options.schemes, "--datasets-dir", options.datasets_dir, "--runs-dir", str(runs)]
    command += ["--limit", str(options.limit)] if options.limit else []
    begun = time.perf_counter()
    caches = {"QEVAL_CACHE_DIR": str(place / "cache"), "TMPDIR": str(place)}
    done = subprocess.run(
        [*command, *options.others],
        env=os.environ | caches,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    print(*(line for line in done.stdout.splitlines() if line.startswith("[")), sep="\n", flush=True)
    found = next(runs.glob("*/run.json"), None)
    if found is None:
        raise SystemExit(done.stdout)
    return {"seconds": seconds, **json.loads(found.read_text("utf-8"))}


def _tell(run: dict[str, Any]) -> None:
    """The phases of each variant, and what is left for the command."""
    for result in run["results"]:
        phases = result["seconds"]
        before = sum(phases.get(name, 0.0) for name in BEFORE)
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())
        print(f"  {result['variant']['name']}: {sum(phases.values()):.1f} s ({told})")
        print(f"    before the first answer: {before:.1f} s; {result['status']}")
        for cell in _rows(result["cells"]).items():
            print(f"    {cell[0]}: {cell[1]['seconds']:.1f} s, {cell[1]['tokens']} tokens")
    rest = run["seconds"] - sum(sum(result["seconds"].values()) for result in run["results"])
    print(f"  the whole: {run['seconds']:.1f} s, of which the command itself {rest:.1f} s", flush=True)


def _rows(cells: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds and tokens of each task, or of a group's members together."""
    found: dict[str, dict[str, float]] = {}
    for cell in cells:
        row = found.setdefault(cell["task"]["group"] or cell["task"]["name"], {"seconds": 0.0, "tokens": 0})
        row["seconds"] += cell["seconds"]
        row["tokens"] += cell["tokens"]
    return found


if __name__ == "__main__":
    main()
