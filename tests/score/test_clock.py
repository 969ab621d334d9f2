"""Every second of a worker belongs to one phase, and all together are its life."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from qeval.score.clock import Clock


@pytest.fixture
def clock() -> tuple[Clock, list[float]]:
    now = [100.0]
    return Clock(lambda: now[0], earlier=2.0), now


def test_an_inner_phase_stops_the_outer_one(clock: tuple[Clock, list[float]]) -> None:
    told, now = clock
    now[0] += 1
    with told.phase("scoring"):
        now[0] += 10
        with told.phase("checking"):
            now[0] += 5
        now[0] += 20
        assert told.spent("scoring") == 30
    now[0] += 3
    assert told.all() == {"starting": 6, "scoring": 30, "checking": 5}
    assert sum(told.all().values()) == 2 + now[0] - 100


def test_a_phase_ends_where_it_fails(clock: tuple[Clock, list[float]]) -> None:
    told, now = clock

    def fail() -> None:
        with told.phase("loading"):
            now[0] += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    now[0] += 4
    assert told.all() == {"starting": 6, "loading": 1}


def test_a_phase_may_come_again_and_what_took_no_time_is_not_told(clock: tuple[Clock, list[float]]) -> None:
    told, now = clock
    for seconds in (1, 2):
        with told.phase("storing"):
            now[0] += seconds
    with told.phase("hashing"):
        now[0] += 0.004
    assert told.all() == {"starting": 2, "storing": 3}


@pytest.mark.torch
@pytest.mark.slow
def test_what_nobody_uses_is_not_imported_and_is_there_all_the_same() -> None:
    code = (
        "import sys\n"
        "from qeval.score import worker\n"
        "worker.import_libraries()\n"
        "here = [name in sys.modules for name in ('lm_eval.models.huggingface', 'sklearn')]\n"
        "from sklearn.metrics import f1_score\n"  # which lm-eval calls for some metrics
        "print(*here, f1_score([0, 1], [0, 1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.split("\n")[-2:]) == (0, ["True False 1.0", ""]), done.stderr


def test_a_process_counts_from_its_own_start_and_from_no_earlier() -> None:
    code = "from qeval.score.clock import CLOCK; print(CLOCK.spent('starting'))"
    begun = time.monotonic()
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 0 < float(told) < time.monotonic() - begun + 0.05  # the kernel's clock ticks in hundredths
