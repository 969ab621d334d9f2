"""The contract by a real Ray of three raylets on this machine, and what only that can show: make test-ray."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import MARK, QEVAL, Contract, samples, scorers, the_run, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOKEN = "hf_" + "a1B2c3D4" * 4
TOY = ("run", "--model", "toy[items=20]", "--schemes", "fp16,rtn,bnb4", "--tasks", "arc_easy,piqa")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that scores nothing, and two nodes of one core."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[MARK] = uuid.uuid4().hex  # the nodes' processes inherit it
    from ray.cluster_utils import Cluster  # without it these tests fail: they are for where it is

    head = {"num_cpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=100 << 20)
    found.wait_for_nodes(60)
    yield found
    found.shutdown()


@pytest.fixture
def around(cluster: Any) -> dict[str, str]:
    return {"RAY_ADDRESS": cluster.address, "HF_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(params=["", " --no-shared-store"], ids=["shared", "alone"])
def script(request: pytest.FixtureRequest) -> str:
    return f'exec {QEVAL} run "$@" --executor ray{request.param}'


class TestRealRay(Contract):
    """Each test of the contract."""


def call(there: dict[str, str], tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    more = {"QEVAL_RUNS_DIR": str(tmp_path / "runs"), "QEVAL_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.run(
        (sys.executable, "-m", "qeval", *map(str, words)),
        env={**os.environ, **there, **more},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )


def test_a_node_that_is_lost_is_followed_by_another_one(
    cluster: Any, around: dict[str, str], tmp_path: Path
) -> None:
    third = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    words = ("run", "--model", "toy[items=20,delay=3]", *TOY[3:], "--executor", "ray")
    more = {"QEVAL_RUNS_DIR": str(tmp_path / "runs")}
    process = subprocess.Popen(
        (sys.executable, "-m", "qeval", *words),
        env={**os.environ, **around, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    raylet = third.all_processes["raylet"][0].process.pid
    theirs = lambda: [one for one in scorers(tmp_path) if raylet in {up.pid for up in one.parents()}]  # noqa: E731
    wait_for(theirs)
    cluster.remove_node(third, allow_graceful=False)
    said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said
    assert "Another worker takes over." in said
    assert [result.status for result in the_run(tmp_path).read().results] == ["done"] * 3


def test_no_token_is_in_what_ray_keeps(cluster: Any, around: dict[str, str], tmp_path: Path) -> None:
    done = call(around, tmp_path, *TOY, "--executor", "ray")
    assert done.returncode == 0, done.stderr
    words = ("import ray", "ray.init(address='auto', log_to_driver=False, logging_level='ERROR')")
    ask = "; ".join((*words, "from ray._private.state import state", "print(state.job_table())"))
    kept = subprocess.run(
        (sys.executable, "-c", ask),
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Entrypoint" in kept.stdout, kept.stdout + kept.stderr
    assert TOKEN not in kept.stdout
    session = Path(cluster.head_node.get_session_dir_path())
    files = [file for file in session.rglob("*") if file.is_file()]
    assert not [str(file) for file in files if TOKEN.encode() in file.read_bytes()]


def test_an_address_that_answers_nothing_is_told_in_time(tmp_path: Path) -> None:
    start = time.monotonic()
    done = call({}, tmp_path, *TOY, "--executor", "ray", "--ray-address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "No cluster of Ray answers at 127.0.0.1:1." in done.stderr
    assert time.monotonic() - start < 10


def test_another_version_of_ray_is_refused(around: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.0.0'\n")
    path = os.pathsep.join((str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])))
    done = call({**around, "PYTHONPATH": path}, tmp_path, *TOY, "--executor", "ray")
    assert done.returncode == 1, done.stdout
    assert re.search(r"cannot be joined: .*[Vv]ersion mismatch.*2\.0\.0", done.stderr), done.stderr


@pytest.mark.torch
@pytest.mark.parametrize("more", [(), ("--no-shared-store",)], ids=["shared", "alone"])
def test_the_demo_model_gives_the_bytes_of_one_machine(
    around: dict[str, str], tmp_path: Path, more: tuple[str, ...]
) -> None:
    words = ("run", "--model", "demo", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts", "--limit", 12)
    here = call({}, tmp_path, *words, "--workers", 1, "--runs-dir", tmp_path / "here")
    assert here.returncode == 0, here.stderr
    there = call(around, tmp_path, *words, "--device", "cpu", "--executor", "ray", *more)
    assert there.returncode == 0, there.stderr
    one, two = (next((tmp_path / name).glob("demo*")) for name in ("here", "runs"))
    assert keyed(one) == keyed(two)
    assert samples(two)
    assert json.loads((two / "run.json").read_text())["results"][0]["packing"]["threads"] == 1


def keyed(place: Path) -> dict[str, str]:
    files = place.glob("cells/*/samples.parquet")
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_run_is_submitted_as_a_job_of_the_cluster(tmp_path: Path) -> None:
    """As docs/scale.md says; the cluster has a dashboard, which takes jobs: pip install 'ray[default]'."""
    from ray.cluster_utils import Cluster

    port = free_port()
    head = {
        "num_cpus": 2,
        "object_store_memory": 100 << 20,
        "include_dashboard": True,
        "dashboard_port": port,
    }
    head["dashboard_agent_listen_port"] = free_port()  # the usual one may be another cluster's
    with_dashboard = Cluster(initialize_head=True, head_node_args=head)
    try:
        submit = ("-m", "ray.scripts.scripts", "job", "submit", f"--address=http://127.0.0.1:{port}", "--")
        run = ("-m", "qeval", *TOY, "--executor", "ray", "--runs-dir", str(tmp_path / "runs"))
        done = _submitted((sys.executable, *submit, sys.executable, *run))
    finally:
        with_dashboard.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "average" in done.stdout
    assert [result.status for result in the_run(tmp_path).read().results] == ["done"] * 3


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _submitted(words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The call, once the node's agent is up, which takes its time."""
    until = time.monotonic() + 120
    while True:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        if "No available agent" not in done.stderr + done.stdout or time.monotonic() > until:
            return done
        time.sleep(2)
