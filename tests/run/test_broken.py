"""A GPU that gives up in the middle of one variant: it fails by name, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_jobs import TASKS
from tiny_models import save_model

from qeval.ask import order as orders
from qeval.base.messages import Failed, Job
from qeval.base.records import Result
from qeval.run import runner, workers
from qeval.run.executors import EXECUTORS
from qeval.score import worker

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def an_order(model: Path, runs_dir: Path) -> orders.Order:
    asked = dict.fromkeys(("suite", "num_fewshot", "baseline", "revision", "adapter", "gate", "datasets_dir"))
    return orders.order(
        model=str(model),
        schemes="fp32,rtn,bf16",
        tasks=",".join(task.name for task in TASKS),
        limit=6,
        runs_dir=runs_dir,
        command=(),
        verify=0,
        cost=False,
        again=False,
        no_materialize=False,
        device="cpu",
        **asked,
    )


def test_the_others_go_on(runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.score.engine.body import CausalModel

    model, plain = save_model(tmp_path / "llama"), CausalModel.hidden
    at_work: list[str] = []

    def execute(job: Job, listen: Any) -> Result:
        """The worker's own code in this process, with the same messages."""
        at_work.append(job.variant.name)
        lines: list[bytes] = []
        worker.answer(job, lambda event: lines.append(msgspec.json.encode(event) + b"\n"))
        return workers.follow(lines, job, listen)

    def hidden(self: CausalModel, tokens: Any, **more: Any) -> Any:
        if at_work[-1] == "rtn":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return plain(self, tokens, **more)

    monkeypatch.setitem(EXECUTORS, "local", execute)
    said: list[tuple[Any, ...]] = []
    with monkeypatch.context() as broken:
        broken.setattr(CausalModel, "hidden", hidden)
        run = runner.execute(an_order(model, runs_dir), lambda *heard: said.append(heard)).read()
    assert at_work == ["fp32", "rtn", "bf16"]
    assert [result.status for result in run.results] == ["done", "failed", "done"]
    assert "The GPU failed in the middle of the work: CUDA error: an illegal memory access" in str(
        run.results[1].error
    )
    assert [variant.name for variant, event in said if isinstance(event, Failed)] == ["rtn"]
    again = runner.execute(an_order(model, runs_dir), lambda *_: None).read()
    assert [result.status for result in again.results] == ["done", "done", "done"]
