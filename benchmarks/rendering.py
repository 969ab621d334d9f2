"""How long a report of the full leaderboard suite takes: `python benchmarks/rendering.py`.

Five made-up variants of 26 000 items each, with prompts of a realistic length, are written to a store; then
`qeval report` reads, compares and renders them in a process of its own, on one core. Target: under 10
seconds, 1 GB and 3 MB of HTML.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from leaderboard import leaderboard

from qeval.store.runs import Store

PROMPT = 3_000  # characters of few-shot examples before each question


def store(root: Path, scale: float = 1.0) -> Path:
    """The run in a store below `root`."""
    run, read, read_items = leaderboard(scale)
    place = Store(root).run_dir(run.id)
    shots = ("An example of a question and its right answer. " * 100)[:PROMPT]
    results = []
    for result in run.results:
        cells = []
        for cell in result.cells:
            items = [replace(item, prompt=shots + item.question) for item in read_items(cell).values()]
            cells.append(place.add(cell, read(cell), items))
        results.append(replace(result, cells=tuple(cells)))
    place.write(replace(run, results=tuple(results)))
    return place.path


def one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = store(Path(folder))
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "qeval", "report", str(path), "-o", str(page)]
        started = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=one_core,
        )
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"wall {wall:.1f} s, processor {used.ru_utime + used.ru_stime:.1f} s")
        print(f"peak memory {used.ru_maxrss / 1024:.0f} MiB, page {page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
