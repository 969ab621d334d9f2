"""Errors of libraries: what is let go of."""

from __future__ import annotations

import sys
import weakref
from types import ModuleType

import pytest

from qeval.load.reading.failures import forget_imports


class _Model:
    """Something large."""


def test_a_package_that_keeps_an_error_keeps_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("invented_package.part")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def load() -> _Model:
        try:
            __import__("no_such_extra")
        except ModuleNotFoundError as error:
            module.kept = error  # type: ignore[attr-defined]
        return _Model()

    def caller() -> weakref.ref[_Model]:
        model = load()
        return weakref.ref(model)

    alive = caller()
    assert alive() is not None
    forget_imports("invented_package")
    assert alive() is None
    assert module.kept.__traceback__ is None  # type: ignore[attr-defined]
