"""Devices that are there, and those that are there in vain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from small_jobs import a_job
from tiny_models import save_model

from qeval.load import device

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("built", [None, "13.0"])
def test_a_gpu_that_torch_cannot_use_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str | None
) -> None:
    import torch

    monkeypatch.setattr(device, "NODES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    assert device.overlooked() is None
    (tmp_path / "nvidia0").touch()
    told = device.overlooked()
    assert told is not None
    assert ("its driver does not answer" in told) == (built is not None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.overlooked() is None


def test_a_worker_says_so_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.base.messages import Note
    from qeval.score import session, worker

    heard: list[object] = []
    monkeypatch.setattr(session, "score", lambda *_: None)
    monkeypatch.setattr(device, "resolve_device", lambda _: "cpu")
    monkeypatch.setattr(device, "overlooked", lambda: "There is one.")
    job = a_job(tmp_path, save_model(tmp_path / "llama"))
    worker.score_model(job, heard.append)
    assert heard == []  # the CPU was asked for
    worker.score_model(
        msgspec.structs.replace(job, settings=replace(job.settings, device="auto")), heard.append
    )
    assert heard == [Note("There is one.")]
