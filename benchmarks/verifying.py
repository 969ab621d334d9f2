"""What it costs on a CPU to have lm-eval's own code score 8 documents a row too, as leaderboard-v1 does.

    OMP_NUM_THREADS=1 python benchmarks/verifying.py --datasets-dir DIR --limit 8

A run of the demo model in float32 over the first items of the suite's rows (of MMLU three subjects). The
seconds of scoring are taken up to the row's real number of documents: what a row shares is read once for all
of them, so that this makes too much of the scoring, and too little of the share.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval.base.messages import Job
from qeval.base.places import tasks_dir
from qeval.base.records import Scheme, Task, Variant
from qeval.base.settings import Settings
from qeval.load import demo
from qeval.load.resolve import identity
from qeval.score import session
from qeval.score.cells import JobCells

FULL = {"arc_challenge": 1172, "hellaswag": 10042, "mmlu": 14042, "truthfulqa_mc2": 817, "wikitext": 62}
"""Documents of each row."""
SUBJECTS = ("abstract_algebra", "anatomy", "astronomy")


def tasks(limit: int) -> tuple[Task, ...]:
    mmlu = [Task(f"mmlu_{name}", "acc", num_fewshot=5, limit=limit, group="mmlu") for name in SUBJECTS]
    return (
        Task("arc_challenge", "acc_norm", num_fewshot=25, limit=limit),
        Task("hellaswag", "acc_norm", num_fewshot=10, limit=limit),
        *mmlu,
        Task("truthfulqa_mc2", "acc", num_fewshot=0, limit=limit, kind="score"),
        Task("wikitext", "word_perplexity", limit=min(limit, 8), kind="perplexity"),
    )


def clocked(owner: Any, name: str, into: list[tuple[str, float]], row: Any) -> None:
    """Have a method's CPU seconds kept by the row that it works on."""
    before = getattr(owner, name)

    def timed(self: Any, first: Any, *rest: Any) -> Any:
        if isinstance(self, session.Session):
            self.feeder.opened()  # its check is no row's
        began = time.process_time()
        found = before(self, first, *rest)
        into.append((row(first), time.process_time() - began))
        print(name, *into[-1], flush=True)
        return found

    setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets-dir", required=True)
    parser.add_argument("--limit", type=int, default=8)
    args = parser.parse_args()
    spent: list[tuple[str, float]] = []
    proved: list[tuple[str, float]] = []
    clocked(session.Session, "_by_engine", spent, lambda unit: unit[0].task.group or unit[0].task.name)
    clocked(session.Proof, "hold", proved, lambda part: part.task.group or part.task.name)
    place = Path(tempfile.mkdtemp())
    variant = Variant("fp32", str(demo.prepare(Path.home() / ".cache" / "qeval", print)), Scheme("fp32"))
    job = Job(
        runs_dir=str(place),
        run_id="r",
        variant=variant,
        identity=identity(variant, place / "cache"),
        context={},
        tasks=tasks(args.limit),
        settings=replace(Settings(device="cpu"), datasets_dir=args.datasets_dir),
        tasks_dir=str(tasks_dir()),
        cache_dir=str(place / "cache"),
        log=str(place / "log"),
        verify=8,
    )
    counts: dict[str, int] = defaultdict(int)
    cells = JobCells(job, lambda _: None)
    add = cells.add

    def counted(cell: Any, *rest: Any) -> None:
        counts[cell.task.group or cell.task.name] += cell.n
        add(cell, *rest)

    cells.add = counted  # type: ignore[method-assign]
    session.score(job, cells, lambda _: None)
    whole = checks = 0.0
    print("| row | documents | scoring, CPU seconds | verifying 8 | of all its documents | share |")
    print("|---|---|---|---|---|---|")
    for row, full in FULL.items():
        proving = sum(seconds for name, seconds in proved if name == row)
        scoring = sum(seconds for name, seconds in spent if name == row) - proving
        total = scoring * full / counts[row]
        whole, checks = whole + total, checks + proving
        print(
            f"| {row} | {counts[row]} | {scoring:.1f} | {proving:.1f} | {total:.0f} | {proving / total:.2%} |"
        )
    print(f"| all | {sum(counts.values())} | | {checks:.1f} | {whole:.0f} | {checks / whole:.2%} |")


if __name__ == "__main__":
    main()
