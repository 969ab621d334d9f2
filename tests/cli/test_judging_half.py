"""An installation for judging alone lacks torch and the Hub's library: commands say so, and doctor works."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from qeval.cli import doctor, surprises

LACKING = ("torch", "transformers", "lm_eval", "datasets", "huggingface_hub", "safetensors", "tokenizers")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LACKING:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("bare")
def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    found = {one.name: one for one in doctor.examine(runs_dir=tmp_path)}
    assert found["Hugging Face Hub"].state == "missing"
    assert found["Hugging Face Hub"].remedy == "pip install huggingface_hub"
    assert found["fp16"].text == "needs torch, transformers"
    assert found["fp16"].remedy == "pip install torch transformers"
    assert "runs" in found
    assert "Hub cache" not in found


@pytest.mark.usefixtures("bare")
def test_whatever_else_is_missing_is_named() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("huggingface_hub")
    error = surprises.explained(caught.value)
    assert error is not None
    assert error.message == "huggingface_hub is not installed."
    assert error.hint == "Install it with: pip install huggingface_hub"
    assert surprises.explained(ModuleNotFoundError("no", name="qeval.nothing")) is None
