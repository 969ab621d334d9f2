"""The card of a checkpoint that was made here: what was used, and the base model where others can find it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from qeval.load.making.calibration import Calibration
from qeval.load.making.card import write_card

MADE_OF = {
    "model": {"commit": "0" * 40},
    "options": {"bits": 4, "calibration": "auto", "length": 0, "samples": 0},
    "plan": {"group_size": 64},
    "samples": 16,
    "calibration": {"length": 256},
    "versions": {"torch": "2"},
}


def test_the_card_shows_what_was_used(tmp_path: Path) -> None:
    write_card(tmp_path, "org/name", "gptq", MADE_OF, "CPU", Calibration("own", 16, 256))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("org/name", "quantized")
    for name, value in (("calibration", "own"), ("length", 256), ("samples", 16), ("group_size", 64)):
        assert f"| {name} | {value} |" in card.text.replace("\\", "")


def test_a_directory_of_this_machine_is_no_base_model(tmp_path: Path) -> None:
    model = tmp_path / "mine"
    model.mkdir()
    write_card(tmp_path, str(model), "gptq", MADE_OF, "CPU", Calibration("own", 16, 256))
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "# mine, quantised by gptq" in text
    assert "base_model" not in text
    assert str(tmp_path) not in text
