"""What `qeval plan` predicts of a run, and what the run takes: the two side by side, phase by phase.

    python benchmarks/prediction.py --model demo --suite demo --schemes fp16,bnb4
    python benchmarks/prediction.py --model DIR --datasets-dir MIRROR --schemes fp16,bnb4 --gpu h100

The plan counts with a cache of its own, so that the run begins with an empty one, as was predicted; so the
checkpoints of gptq and awq are made anew. Words behind `--` go to the run.
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

from tabulate import tabulate


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        place = Path(folder)
        words = ["--model", options.model, "--schemes", options.schemes, "--suite", options.suite]
        words += ["--limit", str(options.limit)] if options.limit else []
        words += ["--datasets-dir", options.datasets_dir] if options.datasets_dir else []
        told = json.loads(_qeval(["plan", *words, "--gpu", options.gpu, "--json"], place / "plan"))["time"]
        begun = time.perf_counter()
        run = ["run", *words, "--runs-dir", str(place / "runs"), *options.others]
        _qeval(run, place / "run")
        seconds = time.perf_counter() - begun
        results = json.loads(next((place / "runs").glob("*/run.json")).read_text("utf-8"))["results"]
    for predicted, result in zip(told["variants"], results, strict=True):
        _tell(predicted, result)
    far = told["seconds"] / seconds - 1
    print(
        f"the command: {told['seconds']:.0f} s predicted ({told['rate']}), {seconds:.0f} s taken: {far:+.0%}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--suite", default="demo")
    parser.add_argument("--schemes", default="fp16,bnb4")
    parser.add_argument("--gpu", default="here")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--datasets-dir")
    parser.add_argument("--work", help="where caches go, for want of room in /tmp")
    parser.add_argument("others", nargs="*", help="further words for qeval run, after --")
    return parser.parse_args()


def _qeval(words: list[str], cache: Path) -> str:
    """What a command prints, with a cache of its own; that of the demo model is made beforehand."""
    environment = os.environ | {"QEVAL_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "qeval", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(*(line for line in done.stderr.splitlines() if "to go" in line), sep="\n", flush=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _tell(predicted: dict[str, Any], result: dict[str, Any]) -> None:
    """The phases of a variant."""
    told, taken = dict(predicted["phases"]), dict(result["seconds"])
    taken["imports"] = taken.get("imports", 0.0) + taken.pop("starting", 0.0) + taken.pop("waiting", 0.0)
    taken["loading"] = taken.get("loading", 0.0) + taken.pop("dequantising", 0.0)
    rows = [[name, told.get(name, 0.0), taken.get(name, 0.0)] for name in dict.fromkeys([*told, *taken])]
    rows.append(["whole", sum(told.values()), sum(taken.values())])
    print(tabulate(rows, [predicted["variant"], "predicted", "taken"], floatfmt=".1f"), end="\n\n")


if __name__ == "__main__":
    main()
