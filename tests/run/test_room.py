"""Workers and host memory: as many as it holds weights for, told before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qeval.ask.order import Order
from qeval.base.records import Scheme, Suite, Task, Variant
from qeval.base.settings import Settings
from qeval.run import gpus, room
from qeval.run.seats import Seat, Seats

GIB = 2**30
ON_CPU = Seats(tuple(Seat(number) for number in range(4)))
ON_GPUS = Seats(tuple(Seat(number, {}, "cuda:0") for number in range(4)), "Left alone: 1 busy.")


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    """An order on a model of 13 billion weights, whose files take no room on the disk, and 64 GiB of host."""
    model = tmp_path / "large"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(26 * 10**9)
    shape = {"hidden_size": 5120, "num_hidden_layers": 40, "vocab_size": 32000, "dtype": "float16"}
    (model / "config.json").write_text(json.dumps(shape))
    monkeypatch.setattr("qeval.load.memory.host_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(gpus, "visible", lambda: (gpus.Gpu("GPU-0", "H100", 24 * 1024),) * 4)
    variants = tuple(Variant(kind, str(model), Scheme(kind)) for kind in ("fp16", "bnb4"))
    suite = Suite("s", (Task("t", "acc"),))
    return Order(variants, "fp16", suite, Settings(dtype="float16"), tmp_path / "runs", tmp_path / "cache")


def test_streamed_weights_count_for_each_worker(order: Order) -> None:
    found = room.holding(order, ON_GPUS)
    assert found.all == ON_GPUS.all[:2]
    said = "each may hold 26.6 GiB of host memory (fp16), and there are 64.0 GiB."
    assert found.note == f"Left alone: 1 busy. 2 of 4 workers are begun: {said}"


def test_on_a_cpu_all_weights_do(order: Order) -> None:
    assert room.holding(order, ON_CPU).all == ON_CPU.all[:2]
    assert room.holding(order, Seats(ON_CPU.all[:2])) == Seats(ON_CPU.all[:2])


@pytest.mark.parametrize(
    "changes", [{"gpus": 2}, {"placement": "resident"}], ids=["spread over GPUs", "kept on the GPU"]
)
def test_weights_that_lie_elsewhere_do_not(order: Order, changes: dict[str, Any]) -> None:
    asked = replace(order, settings=replace(order.settings, **changes))
    assert room.holding(asked, ON_GPUS) == ON_GPUS


def test_a_gpu_that_holds_them_leaves_host_memory_alone_unless_less_of_it_is_allowed(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "visible", lambda: (gpus.Gpu("GPU-0", "H100", 80 * 1024),) * 4)
    assert room.holding(order, ON_GPUS) == ON_GPUS
    less = replace(order, settings=replace(order.settings, gpu_memory=24 * GIB))
    assert len(room.holding(less, ON_GPUS).all) == 2


def test_one_worker_is_left_in_any_case(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qeval.load.memory.host_bytes", lambda: 8 * GIB)
    found = room.holding(order, ON_CPU)
    assert found.all == ON_CPU.all[:1]
    assert found.note.startswith("1 of 4 workers is begun: ")
    assert room.holding(order, Seats(ON_CPU.all[:1])) == Seats(ON_CPU.all[:1])


def test_a_model_that_cannot_be_read_is_told_of_elsewhere(order: Order, tmp_path: Path) -> None:
    gone = replace(order, variants=(Variant("fp16", str(tmp_path / "gone"), Scheme("fp16")),))
    assert room.holding(gone, ON_CPU) == ON_CPU
