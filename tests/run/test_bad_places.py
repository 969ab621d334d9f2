"""Places that cannot work, one by one: each whole command ends in a sentence, a remedy and its exit code."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_ray_path import FAKE_RAY

from qeval.base.errors import Exit
from qeval.run import gpus, versions
from qeval.store import leases, lock

pytestmark = pytest.mark.slow
TOY = ("run", "--model", "toy[items=5]", "--schemes", "fp16,rtn", "--tasks", "arc_easy")
REAL = ("run", "--model", "demo", "--schemes", "fp16", "--tasks", "qeval_facts")
RAY = (*TOY, "--executor", "ray")
HOST = socket.gethostname()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for Ray, with two CPUs."""
    monkeypatch.syspath_prepend(FAKE_RAY)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield importlib.import_module("ray")
    sys.modules.pop("ray", None)


@pytest.fixture
def run_of(qeval: Callable[..., Any], runs_dir: Path) -> Callable[..., Path]:
    """`run_of(*words)`: the directory of a run that was begun so."""

    def begin(*words: str) -> Path:
        qeval(*words)
        [found] = [file.parent for file in runs_dir.glob("*/run.json")]
        return found

    return begin


def told(result: Any) -> str:
    """What a command said to a person, in one line."""
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("there", "words", "says"),
    [
        (2, ("--devices", "0,2"), "There is no GPU 2 here. There are: 0, 1."),
        (0, ("--devices", "all"), "No GPU is found here. Leave out --devices; qeval doctor shows what"),
        (0, ("--devices", "0"), "No GPU is found here. Leave out --devices; qeval doctor shows what"),
        (2, ("--gpus-per-variant", "3"), "--gpus-per-variant 3 asks for more GPUs than the 2 that can be"),
        (2, ("--gpus-per-variant", "3"), "Ask for 2 at most, or leave it out: what does not fit on one is"),
        (0, ("--gpus-per-variant", "2"), "No GPU is found here."),
    ],
)
def test_no_such_gpu_and_more_of_them_than_the_machine_has(
    qeval: Any, monkeypatch: pytest.MonkeyPatch, there: int, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setattr(gpus, "visible", lambda: tuple(gpus.Gpu(f"GPU-{at}", "H100") for at in range(there)))
    assert says in told(qeval(*REAL, *words, code=Exit.USAGE))


def test_a_dead_address_of_ray(qeval: Any, cluster: Any) -> None:
    del cluster
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = qeval(*RAY, "--ray-address", f"127.0.0.1:{port}", code=Exit.ERROR).stderr
    assert f"No cluster of Ray answers at 127.0.0.1:{port}." in said


def test_a_cluster_of_another_version_of_ray(
    qeval: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(**_: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9")

    monkeypatch.setattr(cluster, "init", refuses)
    said = qeval(*RAY, code=Exit.ERROR).stderr
    assert "No cluster of Ray can be joined: Version mismatch" in said
    assert "ray status" in said


@pytest.mark.parametrize("name", ["Python", "qeval"])
@pytest.mark.parametrize("by", ["ray", "worker"])
def test_a_node_with_another_version(
    qeval: Any,
    run_of: Callable[..., Path],
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    by: str,
) -> None:
    del cluster
    here = versions.versions()
    known = versions.versions

    def elsewhere(jobs: Any = ()) -> dict[str, str]:
        return {**known(jobs), name: "0.1"}

    for module in ("qeval.run.versions", "qeval.run.planning"):
        if hasattr(importlib.import_module(module), "versions"):
            monkeypatch.setattr(f"{module}.versions", elsewhere)
    words = RAY if by == "ray" else ("worker", run_of(*TOY, "--prepare"))
    said = told(qeval(*words, code=Exit.ERROR))
    assert f"{HOST} has {name} {here[name]} instead of 0.1." in said
    assert "All workers of a run need the same versions" in said


def test_a_store_that_a_node_does_not_see(
    qeval: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del cluster
    monkeypatch.setattr("qeval.run.remote.marked", lambda _: "a mark that only the coordinator's disk has")
    said = told(qeval(*RAY, code=Exit.ERROR))
    assert f"{HOST} does not see the run in" in said
    assert "--no-shared-store" in said
    said = told(qeval("worker", tmp_path / "nowhere", code=Exit.ERROR))
    assert f"There is no {tmp_path / 'nowhere'} on {HOST}." in said
    assert "The runs directory must lie on a file system that all workers share" in said


@pytest.mark.parametrize("more", [(), ("--prepare",), ("--again",)])
def test_two_coordinators_on_one_run(qeval: Any, run_of: Callable[..., Path], more: tuple[str, ...]) -> None:
    place = run_of(*TOY)
    with lock.held(place):
        said = told(qeval(*TOY, *more, code=Exit.ERROR))
    assert f"Another qeval command is at work on {place.name}: process {os.getpid()}" in said


def test_a_full_disk_on_a_node(
    qeval: Any, run_of: Callable[..., Path], cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cluster

    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    place = run_of(*TOY, "--prepare")
    monkeypatch.setattr(leases, "write_atomic", full)
    for words in (("worker", place), RAY):
        said = told(qeval(*words, code=Exit.ERROR))
        assert f"The disk that holds {place / 'work' / 'holders'} is full." in said
        assert "Free some space and run the same command again: what is finished is kept." in said
    assert f"That was on {HOST}." in said


def test_slurm_without_sbatch(qeval: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = told(qeval(*TOY, "--executor", "slurm", code=Exit.ERROR))
    assert "needs Slurm's sbatch" in said
