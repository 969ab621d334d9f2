"""A Slurm of one machine for tests: an sbatch that really runs arrays and dependent jobs, squeue, scancel.

Called as `fake_slurm.py NAME WORDS...`; jobs are folders below QEVAL_TEST_SLURM. A job runs in a process of
its own group, its elements at once, as the real one starts them: with the environment that was exported.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ.get("QEVAL_TEST_SLURM", "/nowhere"))


def install(folder: Path, home: Path) -> dict[str, str]:
    """Put the commands into a folder; what must be in the environment for them."""
    folder.mkdir()
    home.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        file.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "QEVAL_TEST_SLURM": str(home)}


def _options(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        found[name] = value
    return found


def sbatch(words: list[str]) -> int:
    options = _options(words)
    if options.get("partition") == "nowhere":
        sys.stderr.write("sbatch: error: invalid partition specified: nowhere\n")
        return 1
    number = 1 + sum(1 for _ in HOME.iterdir())
    job = HOME / str(number)
    job.mkdir()
    (job / "script").write_text(sys.stdin.read())
    (job / "job.json").write_text(json.dumps({"options": options, "environment": dict(os.environ)}))
    subprocess.Popen(
        (sys.executable, __file__, "run", str(number)),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    sys.stdout.write(f"{number}\n")
    return 0


def run(words: list[str]) -> int:
    """The life of a job."""
    number = words[0]
    job = HOME / number
    (job / "pid").write_text(str(os.getpid()))
    options = json.loads((job / "job.json").read_text())["options"]
    _, _, before = options.get("dependency", "").partition(":")
    while before and not (HOME / before / "codes").exists():
        time.sleep(0.1)
    last = int(options["array"].partition("-")[2]) if "array" in options else 0
    elements = []
    for index in range(1, last + 1) if last else [0]:
        output = options["output"].replace("%A", number).replace("%j", number).replace("%a", str(index))
        more = {"SLURM_JOB_ID": number, "SLURM_PROCID": "0", "RANK": "0", "WORLD_SIZE": "2"}
        with Path(output).open("ab") as log:
            elements.append(
                subprocess.Popen(
                    ("sh", str(job / "script")),
                    env={**os.environ, **more, "SLURM_ARRAY_TASK_ID": str(index)},
                    stdout=log,
                    stderr=log,
                )
            )
    _tell(job / "elements", [element.pid for element in elements])
    codes = [element.wait() for element in elements]
    _tell(job / "codes", codes)
    return 0


def _tell(file: Path, what: list[int]) -> None:
    """Write what others wait for: it is there as a whole or not at all."""
    begun = file.with_name(f".{file.name}")
    begun.write_text(json.dumps(what))
    begun.replace(file)


def squeue(words: list[str]) -> int:
    job = HOME / _options(words)["jobs"]
    if not job.exists():
        sys.stderr.write("slurm_load_jobs error: Invalid job id specified\n")
        return 1
    if not (job / "codes").exists():
        sys.stdout.write("RUNNING\n")
    return 0


def scancel(words: list[str]) -> int:
    job = HOME / words[0]
    for pid in json.loads((job / "elements").read_text()) if (job / "elements").exists() else []:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "run": run, "squeue": squeue, "scancel": scancel}[sys.argv[1]](sys.argv[2:]))
