"""Files of the next variant are read while another one is at work, where there is room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_models import save_model

from qeval.base.records import Scheme, Variant
from qeval.run import ahead

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    return Variant("rtn", str(save_model(tmp_path_factory.mktemp("ahead"))), Scheme("rtn"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The advice that the system is given."""
    found: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: found.append(words[-1]), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    return found


def test_every_file_is_asked_for_once(variant: Variant, asked: list[int]) -> None:
    thread = ahead.read_ahead(variant)
    assert thread is not None
    thread.join()
    assert asked == [3] * len([path for path in Path(variant.model).rglob("*") if path.is_file()])


def test_nothing_is_read_where_there_is_no_room(
    variant: Variant, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_free", lambda: 1000)
    assert ahead.read_ahead(variant) is None
    assert asked == []


def test_what_is_not_there_is_left_to_the_variants_own_turn(asked: list[int], tmp_path: Path) -> None:
    for model in (str(tmp_path / "none"), "toy"):
        assert ahead.read_ahead(Variant("v", model, Scheme("fp16"))) is None
    assert asked == []
