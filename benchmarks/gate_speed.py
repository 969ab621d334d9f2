"""Time comparing and gating 100 000 items of 10 variants on one core, from memory and from a run directory.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/gate_speed.py

Seconds of processor time; scoring and writing the run are not counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from factories import ARC, QUIZ, TRUTH, WIKI, make_run

from qeval.ask import policy
from qeval.base.records import Samples
from qeval.compare.evidence import gather
from qeval.judge import gate
from qeval.store import runs

ITEMS = {
    "arc": 40_000,
    "quiz_algebra": 15_000,
    "quiz_biology": 15_000,
    "quiz_law": 15_000,
    "truth": 14_938,
    "wiki": 62,
}


def main() -> None:
    """Print a line per measurement."""
    run, read, _ = make_run(11, (ARC, QUIZ, TRUTH, WIKI), ITEMS, -0.002, seed=3)
    cells = [cell for result in run.results for cell in result.cells]
    # Copies, since variants made here share the columns that do not differ.
    samples = {cell.key: copied(read(cell)) for cell in cells}
    rules = policy.from_max_drop(["1.0", "average=0.5", "quiz_*=2"], max_ppl_ratio=1.02)
    print(f"{sum(ITEMS.values())} items, {len(run.results) - 1} candidates")
    report("gate, from memory", lambda: gate.conclude(gather(run, lambda cell: samples[cell.key]), rules))
    report("compare, from memory", lambda: gather(run, lambda cell: samples[cell.key]).comparisons)
    with tempfile.TemporaryDirectory() as folder:
        place = runs.RunDir(Path(folder) / "run")
        place.write(
            replace(
                run,
                results=tuple(
                    replace(r, cells=tuple(place.add(c, samples[c.key], ()) for c in r.cells))
                    for r in run.results
                ),
            )
        )
        report("gate, from files", lambda: gate.conclude(gather(place.read(), place.samples), rules))


def copied(samples: Samples) -> Samples:
    columns = {field.name: getattr(samples, field.name).copy() for field in fields(Samples)}
    return Samples(**columns)


def report(what: str, act: Callable[[], object]) -> None:
    start = time.process_time()
    act()
    print(f"{what}: {time.process_time() - start:.2f} s")


if __name__ == "__main__":
    main()
