"""Where gptqmodel's choice of kernel does not run, the next that does is taken and told; not other errors."""

from __future__ import annotations

import gc
import socket
import subprocess
import urllib.error
import weakref
from pathlib import Path
from typing import Any

import pytest

from qeval.base.errors import QevalError
from qeval.load.reading import kernels
from qeval.load.reading.failures import explain
from qeval.load.schemes import SCHEMES, awq, gptq
from qeval.load.source import Source
from qeval.load.spec import Recipe

STEPS = ("auto", "fast", "slow")


def recipe(**options: Any) -> Recipe:
    source = Source("model")
    settings = {"attention": "auto", "backend": "auto", **options}
    return Recipe("model", source, source, True, settings, "float16", "float16", "cuda:0", Path("cache"))


def refusing(monkeypatch: pytest.MonkeyPatch, causes: dict[str, Exception]) -> list[str]:
    """Let opening fail with these causes, by the kernel's name; returns the names that were tried."""
    tried: list[str] = []

    def open_model(_: Recipe, **keywords: Any) -> str:
        name = keywords.get("quantization_config", "auto")
        tried.append(name)
        if name in causes:
            raise QevalError(f"model cannot be loaded: {causes[name]}") from causes[name]
        return f"loaded by {name}"

    monkeypatch.setattr(kernels, "open_model", open_model)
    monkeypatch.setattr(kernels, "_try_out", lambda *_: None)
    return tried


def test_the_librarys_own_choice_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, asked = refusing(monkeypatch, {}), recipe()
    assert kernels.open_stepping_down(asked, STEPS, str) == "loaded by auto"
    assert tried == ["auto"]
    assert asked.notes == []


@pytest.mark.parametrize("kind", [ValueError, NotImplementedError, RuntimeError, ImportError])
def test_a_kernel_that_refuses_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    causes = {"auto": kind("out_features: 576\n must be divisible by [128]"), "fast": kind("no nvcc")}
    tried, asked = refusing(monkeypatch, causes), recipe()
    assert kernels.open_stepping_down(asked, STEPS, str) == "loaded by slow"
    assert tried == list(STEPS)
    (note,) = asked.notes
    assert "(out_features: 576 must be divisible by [128]); slow does and is used." in note


def raised_in(module: str, error: Exception) -> Exception:
    """The error as if it were raised by a function of that module."""
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as caught:  # noqa: BLE001 - the one that was given
        return caught
    raise AssertionError


REASONS: dict[str, Exception] = {
    "no network": urllib.error.URLError("Name or service not known"),
    "network broke off": ConnectionResetError("by peer"),
    "timeout": TimeoutError("timed out"),
    "compiler failed": subprocess.CalledProcessError(1, ["nvcc"], "error: no kernel image"),
    "compiler hung": subprocess.TimeoutExpired(["ninja"], 600),
    "no compiler": FileNotFoundError(2, "No such file or directory", "nvcc"),
    "cache not writable": PermissionError(13, "Permission denied"),
    "library half installed": AttributeError("module has no attribute 'gptq_marlin'"),
    "symbol missing": KeyError("gptq_marlin_gemm"),
    "own class": type("KernelBuildError", (Exception,), {})("boom"),
}


@pytest.mark.parametrize("place", ["gptqmodel.utils.cpp", "torch.utils.cpp_extension", "triton.compiler"])
@pytest.mark.parametrize("reason", list(REASONS))
def test_no_class_of_reason_ends_the_run(monkeypatch: pytest.MonkeyPatch, reason: str, place: str) -> None:
    cause = raised_in(place, REASONS[reason])
    tried, asked = refusing(monkeypatch, {"auto": cause}), recipe()
    assert kernels.open_stepping_down(asked, STEPS, str) == "loaded by fast"
    assert tried == ["auto", "fast"]
    (note,) = asked.notes
    assert "fast does and is used." in note


@pytest.mark.parametrize("reason", list(REASONS))
def test_every_such_reason_is_a_sentence(reason: str) -> None:
    cause = raised_in("gptqmodel.utils.cpp", REASONS[reason])
    assert isinstance(explain(cause, Source("model"), "cuda:0"), QevalError)


@pytest.mark.torch
def test_a_kernel_that_fails_at_its_first_use_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    class Model(torch.nn.Module):
        device = "cpu"

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, tokens: Any) -> Any:
            if self.name == "auto":
                raise raised_in("triton.runtime", subprocess.CalledProcessError(1, ["ptxas"]))
            return tokens

    held: list[Any] = []

    def open_model(_: Recipe, **keywords: Any) -> Model:
        model = Model(keywords.get("quantization_config", "auto"))
        held.append(weakref.ref(model))
        return model

    monkeypatch.setattr(kernels, "open_model", open_model)
    asked = recipe()
    assert kernels.open_stepping_down(asked, STEPS, str).name == "fast"
    assert len(asked.notes) == 1
    gc.collect()
    assert held[0]() is None  # its memory is free for the next


def test_downloads_of_kernels_do_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(kernels, "open_model", lambda *_, **__: found.append(socket.getdefaulttimeout()))
    kernels.open_stepping_down(recipe(), ("auto",), str)
    assert found == [kernels.PATIENCE]
    assert socket.getdefaulttimeout() is None


def test_where_none_runs_the_first_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = refusing(monkeypatch, {name: RuntimeError(name) for name in STEPS})
    with pytest.raises(QevalError, match="cannot be loaded: auto"):
        kernels.open_stepping_down(recipe(), STEPS, str)
    assert tried == list(STEPS)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize("cause", [OSError("no such file"), KeyError("weight"), OutOfMemoryError("full")])
def test_what_is_no_kernels_fault_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    tried = refusing(monkeypatch, {"auto": cause})
    with pytest.raises(QevalError):
        kernels.open_stepping_down(recipe(), STEPS, str)
    assert tried == ["auto"]


def test_only_a_gpu_without_a_wish_steps_down() -> None:
    assert gptq._kernels(recipe()) == gptq.STEPS
    assert gptq._kernels(recipe(backend="marlin")) == ("marlin",)


@pytest.mark.parametrize("family", [gptq, awq])
def test_every_step_is_a_kernel_that_can_be_asked_for(family: Any) -> None:
    (spec,) = family.SPECS
    (option,) = [option for option in SCHEMES[spec.name].options if option.name == "backend"]
    assert set(family.STEPS) <= set(option.choices)
    assert family.STEPS[0] == option.default == "auto"
