"""Whether large runs stay quick and small: seconds and peak memory of each command, and sizes of reports.

Seconds of the clock, those that processors worked (where other work shares them, the clock tells less), and
the system's load when the command began.

    python benchmarks/load.py [--items 200000] [--variants 50] [--runs 500]

The toy answers ITEMS items in two variants, exports them in lm-eval's layout and imports that again; VARIANTS
variants of 57 subjects make a wide report; RUNS small runs are listed; one item of 10 MB is shown. Everything
is done by the commands of `qeval` in processes of their own, on this machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

GIB = 2**30
SUBJECTS = 57
SMALL = ("run", "--model", "toy[items=20]", "--tasks", "arc_challenge", "--schemes", "fp16,rtn")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        print("| command | seconds | CPU seconds | load | peak GiB | wrote |\n|---|---|---|---|---|---|")
        _long(place / "long", options.items)
        _wide(place / "wide", options.variants)
        _many(place / "many", options.runs)
        _heavy(place / "heavy")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--variants", type=int, default=50)
    parser.add_argument("--runs", type=int, default=500)
    return parser.parse_args()


def _long(place: Path, items: int) -> None:
    """Four tasks of a quarter of the items each, in two variants."""
    model = f"toy[items={items // 4}]"
    tasks = "arc_challenge,hellaswag,winogrande,truthfulqa_mc2"
    _timed(place, "run (toy)", "run", "--model", model, "--tasks", tasks, "--schemes", "fp16,rtn")
    _timed(place, "show", "show")
    _timed(place, "gate", "gate", "--max-drop", "5")
    [run] = (path.parent for path in (place / "runs").glob("*/run.json"))
    _timed(place, "plan", "plan", "--from", str(run), "--max-drop", "1")
    _timed(place, "report (html)", "report", "-o", str(place / "report.html"))
    _timed(place, "report (markdown)", "report", "-o", str(place / "report.md"))
    _timed(place, "export to lm-eval", "export", "--to", "lm-eval", "-o", str(place / "exported"))
    _timed(place, "export to parquet", "export", "--to", "parquet", "-o", str(place / "tables"))
    again = place / "again"
    again.mkdir()
    _timed(again, "import", "import", str(place / "exported"), "--baseline", f"{model}[scheme=fp16]")
    _timed(again, "gate the import", "gate", "--max-drop", "5")


def _wide(place: Path, variants: int) -> None:
    """Many variants of MMLU's subjects."""
    schemes = ",".join(["fp16", *(f"v{at}=rtn[bits={2 + at % 7}]" for at in range(variants - 1))])
    words = ("run", "--model", "toy[items=20]", "--tasks", "mmlu", "--schemes", schemes)
    _timed(place, f"run, {variants} variants", *words)
    _timed(place, f"report, {variants} x {SUBJECTS}", "report", "-o", str(place / "report.html"))
    _timed(place, f"gate, {variants} x {SUBJECTS}", "gate", "--max-drop", "5")


def _many(place: Path, runs: int) -> None:
    """One run, and copies of it under other names."""
    _timed(place, "run (small)", *SMALL)
    [first] = (path.parent for path in (place / "runs").glob("*/run.json"))
    for at in range(runs - 1):
        copy = first.with_name(f"{first.name}-{at}")
        shutil.copytree(first, copy)
    _timed(place, f"list of {runs} runs", "list", "runs")


def _heavy(place: Path) -> None:
    """A task of one's own with an item of 10 MB, imported as lm-eval's output."""
    _timed(place, "run (to be changed)", *SMALL)
    _timed(place, "export", "export", "--to", "lm-eval", "-o", str(place / "exported"))
    for samples in (place / "exported").rglob("samples_*.jsonl"):
        lines = samples.read_text("utf-8").splitlines()
        first = json.loads(lines[0])
        first["doc"]["question"] = "word " * 2_000_000
        samples.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n", encoding="utf-8")
    again = place / "again"
    again.mkdir()
    baseline = "toy[items=20][scheme=fp16]"
    _timed(again, "import an item of 10 MB", "import", str(place / "exported"), "--baseline", baseline)
    _timed(again, "report it", "report", "-o", str(again / "report.html"))


def _timed(place: Path, what: str, *words: str) -> None:
    """Run a command and print a row."""
    place.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "QEVAL_RUNS_DIR": str(place / "runs"),
        "QEVAL_CACHE_DIR": str(place / "cache"),
    }
    load, worked, begun = os.getloadavg()[0], _worked(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "qeval", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watch.start()
    _, told = process.communicate()
    seconds, worked = time.perf_counter() - begun, _worked() - worked
    wrote = ", ".join(f"{size / 1e6:.1f} MB" for size in _sizes(words)) or "-"
    failed = "" if process.returncode in {0, 3, 4} else f" FAILED {process.returncode}: {told[-300:]}"
    figures = f"{seconds:.1f} | {worked:.1f} | {load:.1f} | {peak[0] / GIB:.2f}"
    print(f"| {what} | {figures} | {wrote} |{failed}", flush=True)


def _worked() -> float:
    """Seconds that processors worked for all commands that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(pid: int, peak: list[int]) -> None:
    """Note the most memory that a process and its children hold together."""
    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            family = [parent, *parent.children(recursive=True)]
            peak[0] = max(peak[0], sum(process.memory_info().rss for process in family))
            time.sleep(0.02)
    except psutil.Error:
        return


def _sizes(words: tuple[str, ...]) -> list[int]:
    """Bytes of the file or directory that a command was told to write."""
    if "-o" not in words:
        return []
    out = Path(words[words.index("-o") + 1])
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    return [sum(path.stat().st_size for path in files)]


if __name__ == "__main__":
    main()
