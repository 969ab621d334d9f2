"""The contract by a real Slurm of one node, and what only that can show: make test-slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_slurm
from contract import QEVAL, Contract, samples, the_run, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
TOKEN = "hf_" + "a1B2c3D4" * 4
ARGS = "--mem=500M"


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    assert not real_slurm.missing(), f"not here: {real_slurm.missing()}"
    with real_slurm.cluster(tmp_path_factory.mktemp("slurm")) as there:
        yield {**there, "HF_TOKEN": TOKEN}


@pytest.fixture
def script() -> str:
    return f'exec {QEVAL} run "$@" --executor slurm --wait --sbatch-args={ARGS}'


class TestRealSlurm(Contract):
    """Each test of the contract."""


def call(around: dict[str, str], tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    there = {"QEVAL_RUNS_DIR": str(tmp_path / "runs")}
    return subprocess.run(
        (sys.executable, "-m", "qeval", *map(str, words)),
        env={**os.environ, **around, **there},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )


def state(around: dict[str, str], job: str) -> dict[str, str]:
    words = ("scontrol", "show", "job", job, "--oneliner")
    said = subprocess.run(words, env={**os.environ, **around}, capture_output=True, text=True, check=True)
    return dict(word.split("=", 1) for word in said.stdout.split() if "=" in word)


def jobs_of(said: str) -> list[str]:
    return [word.strip(",.") for word in said.split() if word.strip(",.").isdigit()]


def test_a_dependent_job_reports_and_judges_and_no_token_is_kept(
    around: dict[str, str], tmp_path: Path
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[[rule]]\nmax_drop = 99.0\n")
    words = ("run", "--model", "toy", "--schemes", "fp16,rtn", "--tasks", "arc_easy", "--gate", gate)
    done = call(around, tmp_path, *words, "--executor", "slurm", f"--sbatch-args={ARGS}")
    assert done.returncode == 5, done.stderr
    last = next(line for line in done.stderr.splitlines() if line.startswith("Then job")).split()[2]
    wait_for(lambda: state(around, last)["JobState"] == "COMPLETED")
    home = Path(around["SLURM_CONF"]).parent
    kept = [file for folder in ("state", "spool") for file in (home / folder).rglob("*") if file.is_file()]
    assert [file for file in kept if file.name == "environment"], "Slurm keeps it no more?"
    assert not [file for file in kept if TOKEN.encode() in file.read_bytes()]
    [log] = (tmp_path / "runs").glob(f"*/logs/slurm-{last}-finish.log")
    assert "PASS" in log.read_text()
    assert TOKEN not in log.read_text()


def test_an_element_that_is_requeued_in_the_middle_goes_on(around: dict[str, str], tmp_path: Path) -> None:
    words = ("run", "--model", "toy[items=20,delay=2]", "--schemes", "fp16", "--tasks", "arc_easy,piqa,boolq")
    done = call(around, tmp_path, *words, "--executor", "slurm", f"--sbatch-args={ARGS}")
    assert done.returncode == 0, done.stderr
    array = done.stderr.partition("Submitted: job ")[2].partition(",")[0]
    last = done.stderr.partition("Then job ")[2].partition(" ")[0]
    wait_for(lambda: list((tmp_path / "runs").glob("*/cells/*/cell.json")))
    subprocess.run(("scontrol", "requeue", array), env={**os.environ, **around}, check=True)
    wait_for(lambda: state(around, last)["JobState"] in {"COMPLETED", "FAILED"}, 150)
    assert state(around, last)["JobState"] == "COMPLETED"
    place = the_run(tmp_path)
    assert [result.status for result in place.read().results] == ["done"]
    [log] = (place.path / "logs").glob("slurm-*_1.log")
    assert "1 finished earlier" in log.read_text()


def test_an_element_that_is_cancelled_leaves_an_incomplete_run(
    around: dict[str, str], tmp_path: Path
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[[rule]]\nmax_drop = 99.0\n")
    words = (
        "run",
        "--model",
        "toy[delay=60]",
        "--schemes",
        "fp16,rtn",
        "--tasks",
        "arc_easy",
        "--gate",
        gate,
    )
    done = call(around, tmp_path, *words, "--executor", "slurm", f"--sbatch-args={ARGS}")
    array = done.stderr.partition("Submitted: job ")[2].partition(",")[0]
    last = done.stderr.partition("Then job ")[2].partition(" ")[0]
    wait_for(lambda: list((tmp_path / "runs").rglob("lead.1.lease")))
    subprocess.run(("scancel", array), env={**os.environ, **around}, check=True)
    wait_for(lambda: state(around, last)["JobState"] == "FAILED", 150)
    assert state(around, last)["ExitCode"] == "1:0"
    [log] = (tmp_path / "runs").glob(f"*/logs/slurm-{last}-finish.log")
    assert "No worker finished it" in log.read_text()
    assert "PASS" not in log.read_text()


@pytest.mark.torch
def test_the_demo_model_gives_the_bytes_of_one_machine(around: dict[str, str], tmp_path: Path) -> None:
    words = ("run", "--model", "demo", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts", "--limit", 12)
    here = call({}, tmp_path, *words, "--device", "cpu", "--threads", 1, "--runs-dir", tmp_path / "here")
    assert here.returncode == 0, here.stderr
    memory = "--sbatch-args=--mem=3G"
    there = call(around, tmp_path, *words, "--device", "cpu", "--executor", "slurm", "--wait", memory)
    assert there.returncode == 0, there.stderr
    one, two = (next((tmp_path / name).glob("demo*")) for name in ("here", "runs"))
    assert samples(one) == samples(two) != []
    assert json.loads((two / "run.json").read_text())["results"][0]["packing"]["threads"] == 1
