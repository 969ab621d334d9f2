"""A worker that is killed, and a GPU that is dead: whether the same command still gives the same bytes.

    python benchmarks/killed.py --model WEIGHTS --datasets-dir MIRROR --tasks hellaswag:acc_norm --limit 400
    python benchmarks/killed.py --model demo --datasets-dir DIR --tasks arc_challenge:acc --limit 64 --workers

The command runs on two GPUs three times: undisturbed; with the worker that began last killed (SIGKILL) a few
seconds after the first engine was ready; and with the second GPU's number replaced by one that no GPU has.
`--workers` takes two workers of a CPU instead, and leaves the third out. Tells how long each took, what it
said of its workers, and how many samples are equal to the undisturbed run's, byte for byte. Exit code 1
where none was killed, or bytes differ.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from scaling import _digests

DEAD = "9"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        place = Path(folder)
        first = _told("undisturbed", _run("undisturbed", place, options), None)
        if not first["digests"]:
            raise SystemExit("Nothing was scored, so there is nothing to compare.")
        found = [_told("a worker killed", _run("killed", place, options, kill=True), first)]
        if not options.workers:
            one = options.gpus.split(",")[0]
            dead = {"CUDA_VISIBLE_DEVICES": f"{one},{DEAD}"}
            found.append(_told("a GPU that is dead", _run("dead", place, options, dead), first))
        if not found[0]["killed"]:
            raise SystemExit(
                "No worker was killed: the run was over before. Ask more items, or --after less."
            )
        if any(one["digests"] != first["digests"] for one in found):
            raise SystemExit("The samples differ.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--datasets-dir", required=True)
    parser.add_argument("--tasks", default="hellaswag:acc_norm")
    parser.add_argument("--schemes", default="fp16")
    parser.add_argument("--limit", default="400")
    parser.add_argument("--gpus", default="0,1", help="the numbers of two GPUs")
    parser.add_argument("--workers", action="store_true", help="two workers of a CPU instead")
    parser.add_argument("--after", type=float, default=3, help="seconds from the first engine to the kill")
    parser.add_argument("--cache", help="a cache that is kept, instead of an empty one")
    parser.add_argument("--work", help="where caches and runs go")
    return parser.parse_args()


def _run(
    name: str,
    place: Path,
    options: argparse.Namespace,
    own: Mapping[str, str] = {},
    *,
    kill: bool = False,
) -> dict[str, Any]:
    """One command: its seconds, its run, and what was killed."""
    runs, told = place / name, place / f"{name}.jsonl"
    words = ["run", "--model", options.model, "--schemes", options.schemes, "--tasks", options.tasks]
    words += ["--limit", options.limit, "--datasets-dir", options.datasets_dir, "--runs-dir", str(runs)]
    words += [
        "--verify",
        "0",
        "--no-cost",
        *(("--workers", "2") if options.workers else ("--devices", "0,1")),
    ]
    cache = {"QEVAL_CACHE_DIR": options.cache or str(place / "cache")}
    visible = {} if options.workers else {"CUDA_VISIBLE_DEVICES": options.gpus}
    begun, ended = time.time(), ""
    with (place / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("scaling.py")), "--child", str(told), *words],
            env=os.environ | cache | visible | dict(own),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            time.sleep(0.05)
            if kill and not ended and time.time() - _ready(told) >= options.after:
                ended = _killed(process.pid)
    found = next(runs.glob("*/run.json"), None)
    if found is None:
        raise SystemExit((place / f"{name}.log").read_text("utf-8"))
    run = json.loads(found.read_text("utf-8"))
    words = re.compile(r"given up|killed|lost|no device|takes over")
    rows = [json.loads(line) for line in told.read_text("utf-8").splitlines()]
    said = [text for row in rows if words.search(text := row.get("text") or row.get("message") or "")]
    return {
        "seconds": time.time() - begun,
        "run": run,
        "digests": _digests(found.parent, run),
        "killed": ended,
        "said": said,
    }


def _ready(told: Path) -> float:
    """When the first engine was ready; never, as long as none is."""
    for line in told.read_text("utf-8").splitlines() if told.exists() else ():
        if '"Fed"' in line and line.endswith("}"):
            return float(json.loads(line)["at"])
    return math.inf


def _killed(command: int) -> str:
    """Kill the youngest worker of a command; its process id, or nothing where none is at work."""
    workers = [one for one in psutil.Process(command).children() if _works(one)]
    if not workers:
        return ""
    youngest = max(workers, key=lambda one: one.create_time())
    youngest.send_signal(signal.SIGKILL)
    return str(youngest.pid)


def _works(process: psutil.Process) -> bool:
    """Whether a process is a worker, and not one that has ended and was not yet asked for its exit code."""
    try:
        return "qeval.score.worker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _told(name: str, found: dict[str, Any], first: dict[str, Any] | None) -> dict[str, Any]:
    digests = (first or found)["digests"]
    same = sum(found["digests"].get(key) == value for key, value in digests.items())
    status = {one["variant"]["name"]: one["status"] for one in found["run"]["results"]}
    print(
        f"{name}: {found['seconds']:.1f} s, {status}, {same} of {len(digests)} samples equal",
        *([f"killed: process {found['killed']}"] if found["killed"] else []),
        *found["said"],
        *(one["error"] for one in found["run"]["results"] if one["error"]),
        sep="\n  ",
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
