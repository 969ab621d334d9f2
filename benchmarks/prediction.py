"""What `qeval plan` predicts of a run, and what the run takes: the two side by side, phase by phase.

    python benchmarks/prediction.py --model demo --suite demo --schemes fp16,bnb4,gptq
    python benchmarks/prediction.py --model DIR --datasets-dir MIRROR --schemes fp16,bnb4 --gpu h100

The plan counts with a cache of its own, so that the run begins with an empty one, as was predicted; so the
checkpoints of gptq and awq are made anew. What is handed on is the demo model, which a plan unpacks, for it
reads its configuration; a run that no plan came before takes 3 s more for it. Fidelity is predicted on a
CPU; elsewhere it is left out of what is compared, and told beside it. Words behind `--` go to the run.
`--within F` ends in 1 where a variant, or the command, is further off than that. On a machine that others
use, the load of the last minute is part of the prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from qeval.base.places import MODELS


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        place = Path(folder)
        words = ["--model", options.model, "--schemes", options.schemes, "--suite", options.suite]
        words += ["--limit", str(options.limit)] if options.limit else []
        words += ["--datasets-dir", options.datasets_dir] if options.datasets_dir else []
        told = json.loads(_qeval(["plan", *words, "--gpu", options.gpu, "--json"], place / "plan"))["time"]
        if (place / "plan" / MODELS).is_dir():
            shutil.copytree(place / "plan" / MODELS, place / "run" / MODELS)
        begun = time.perf_counter()
        run = ["run", *words, "--runs-dir", str(place / "runs"), *options.others]
        _qeval(run, place / "run")
        seconds = time.perf_counter() - begun
        results = json.loads(next((place / "runs").glob("*/run.json")).read_text("utf-8"))["results"]
    far = [_tell(predicted, result) for predicted, result in zip(told["variants"], results, strict=True)]
    beside = 0.0
    if not any("fidelity" in one["phases"] for one in told["variants"]):
        beside = sum(result["seconds"].get("fidelity", 0.0) for result in results)
    far.append(told["seconds"] / (seconds - beside) - 1)
    print(
        f"the command: {told['seconds']:.0f} s predicted ({told['rate']}), {seconds - beside:.0f} s taken",
        end="",
    )
    print(f" and {beside:.0f} more for fidelity: {far[-1]:+.0%}" if beside else f": {far[-1]:+.0%}")
    if options.within is not None and max(map(abs, far)) > options.within:
        raise SystemExit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--suite", default="demo")
    parser.add_argument("--schemes", default="fp16,bnb4,gptq")
    parser.add_argument("--gpu", default="here")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--within", type=float, help="the share by which a prediction may be off, e.g. 0.3")
    parser.add_argument("--datasets-dir")
    parser.add_argument("--work", help="where caches go, for want of room in /tmp")
    parser.add_argument("others", nargs="*", help="further words for qeval run, after --")
    return parser.parse_args()


def _qeval(words: list[str], cache: Path) -> str:
    """What a command prints, with a cache of its own."""
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


def _tell(predicted: dict[str, Any], result: dict[str, Any]) -> float:
    """Print the phases of a variant; by which share its prediction is off."""
    told, taken = dict(predicted["phases"]), dict(result["seconds"])
    taken["imports"] = taken.get("imports", 0.0) + taken.pop("starting", 0.0) + taken.pop("waiting", 0.0)
    taken["loading"] = taken.get("loading", 0.0) + taken.pop("dequantising", 0.0)
    rows = [[name, told.get(name, 0.0), taken.get(name, 0.0)] for name in dict.fromkeys([*told, *taken])]
    known = "fidelity" in told
    whole = sum(taken.values()) - (0.0 if known else taken.get("fidelity", 0.0))
    far = sum(told.values()) / whole - 1
    rows.append(["whole" if known else "whole, without fidelity", sum(told.values()), whole])
    print(tabulate(rows, [predicted["variant"], "predicted", "taken"], floatfmt=".1f"))
    print(f"{predicted['variant']}: {far:+.0%}\n")
    return far


if __name__ == "__main__":
    main()
