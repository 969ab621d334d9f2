"""Where models are scored, where they are refused, and that the doctor and README say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from qeval.base.errors import QevalError, UsageError
from qeval.load import systems
from qeval.load.device import resolve_device

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("asked", ["mps", "mps:0"])
def test_apples_gpus_are_refused_with_a_reason(asked: str) -> None:
    with pytest.raises(UsageError, match="their numbers were never checked against") as found:
        resolve_device(asked)
    assert found.value.hint == "Use --device cpu."


def test_no_model_is_scored_on_windows_but_the_toy_is(qeval, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    with pytest.raises(QevalError, match="not scored on Windows"):
        systems.check_scores()
    told = qeval("run", "--model", tmp_path, "--schemes", "fp16,bf16", "--suite", "demo", code=1).stderr
    assert "Score in WSL 2 or on a Linux machine" in told
    qeval("run", "--model", "toy[items=10]", "--schemes", "fp16", "--tasks", "qeval_facts")
    assert systems.here().name == "Windows"


@pytest.mark.parametrize("name", ["Linux", "Darwin"])
def test_on_the_others_it_is(monkeypatch, name: str) -> None:
    monkeypatch.setattr("platform.system", lambda: name)
    systems.check_scores()
    assert f"| {systems.here().name} | {systems.here().scoring} |" in README.read_text("utf-8")


def test_a_system_that_nobody_tried_says_so(monkeypatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    assert systems.here().scoring == "not tested"
