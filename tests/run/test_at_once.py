"""Several commands at once on one run, and readers beside them: one works, the others say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qeval.base.errors import Exit

pytestmark = pytest.mark.slow
QEVAL = (sys.executable, "-m", "qeval")
COMMAND = (*QEVAL, "run", "--model", "toy[items=200]", "--suite", "demo", "--schemes", "fp16,rtn,bnb4")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and all that was said."""
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def start(runs: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        env={**os.environ, "QEVAL_RUNS_DIR": str(runs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def samples(runs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("samples.parquet"))}


def test_of_four_commands_one_works_and_readers_see_a_whole_run(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert ended(start(alone, *COMMAND))[0] == 0
    writers = [start(together, *COMMAND) for _ in range(4)]
    seen: list[tuple[int, str]] = []
    while any(writer.poll() is None for writer in writers):
        seen.append(ended(start(together, *QEVAL, "show")))
    told = [ended(writer) for writer in writers]
    assert sum(code == 0 for code, _ in told) >= 1, told
    for code, text in told:
        assert code == 0 or "Another qeval command is at work on" in text, text
    for code, text in seen:
        assert code in {0, Exit.ERROR, Exit.MISSING}, text
        assert "Traceback" not in text, text
        assert "unforeseen" not in text, text
    assert samples(together) == samples(alone)
    assert ended(start(together, *COMMAND))[0] == 0
    assert samples(together) == samples(alone)
