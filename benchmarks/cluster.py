"""Fifty variants of 57 subjects each, by the toy: one worker here against a way of spreading them.

    python benchmarks/cluster.py --executor ray
    python benchmarks/cluster.py --workers 2

Says whether the samples are equal byte for byte, how long both took, and the coordinator's greatest memory.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

VARIANTS, ITEMS = 50, 20


def words(runs: Path, more: list[str]) -> list[str]:
    options = [(bits, 16 << size) for bits in range(2, 9) for size in range(7)][: VARIANTS - 1]
    schemes = ["fp16", *(f"rtn[bits={bits},group_size={size}]" for bits, size in options)]
    model = ("--model", f"toy[items={ITEMS}]", "--schemes", ",".join(schemes))
    return [sys.executable, "-m", "qeval", "run", *model, "--tasks", "mmlu", "--runs-dir", str(runs), *more]


def scored(runs: Path, more: list[str]) -> tuple[float, int, list[str]]:
    """Seconds, the command's greatest resident memory in bytes (its workers' not included), hashes."""
    begun = time.perf_counter()
    with (runs.parent / f"{runs.name}.log").open("wb") as log:
        pid = os.posix_spawn(
            sys.executable,
            words(runs, more),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
        )
        _, status, used = os.wait4(pid, 0)
    spent = time.perf_counter() - begun
    assert status == 0, (runs.parent / f"{runs.name}.log").read_text()[-2000:]
    files = runs.glob("*/cells/*/samples.parquet")
    return spent, used.ru_maxrss * 1024, sorted(hashlib.sha256(one.read_bytes()).hexdigest() for one in files)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = scored(Path(folder) / "one", [])
        many = scored(Path(folder) / "many", sys.argv[1:])
    assert len(one[2]) == VARIANTS * 57
    print(f"equal: {one[2] == many[2]} ({len(one[2])} cells)")
    for name, (spent, memory, _) in (("one worker", one), (" ".join(sys.argv[1:]) or "again", many)):
        print(f"{name}: {spent:.0f} s, {memory / 2**20:.0f} MiB at most")
    assert one[2] == many[2]


if __name__ == "__main__":
    main()
