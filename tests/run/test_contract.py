"""The contract of every executor, and of every other way of scoring a run, with stand-ins for clusters."""

from __future__ import annotations

import os
from pathlib import Path

import fake_slurm
import pytest
from contract import QEVAL, Contract
from fake_ray_path import FAKE_RAY

from qeval.run.executors import EXECUTORS, SUMMARIES

pytestmark = pytest.mark.slow

BY_WORKERS = f"""
run=$({QEVAL} run "$@" --prepare) || exit
{QEVAL} worker "$run" --timeout 60 & one=$!
{QEVAL} worker "$run" --timeout 60 & two=$!
trap 'kill $one $two; wait; exit 130' INT TERM
{QEVAL} run "$@" --finish --wait
"""
WAYS = {
    **{name: f'exec {QEVAL} run "$@" --executor {name}' for name in EXECUTORS},
    "ray-alone": f'exec {QEVAL} run "$@" --executor ray --no-shared-store',
    "prepared": BY_WORKERS,
    "slurm": f'exec {QEVAL} run "$@" --executor slurm --wait',
}


def test_every_executor_is_tested_here() -> None:
    assert set(SUMMARIES) <= set(WAYS)


RARELY = {"ray-alone"}  # as ray in most; what differs is tested in test_remote.py too


@pytest.fixture(params=[pytest.param(way, marks=[pytest.mark.rare] * (way in RARELY)) for way in WAYS])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def script(way: str) -> str:
    return WAYS[way]


@pytest.fixture
def around(way: str, tmp_path: Path) -> dict[str, str]:
    if way.startswith("ray"):
        return {"PYTHONPATH": os.pathsep.join((FAKE_RAY, *filter(None, [os.environ.get("PYTHONPATH")])))}
    return fake_slurm.install(tmp_path / "bin", tmp_path / "slurm") if way == "slurm" else {}


class TestEveryWay(Contract):
    """Each test for each way."""
