"""Where gptqmodel's choice of kernel does not run, for any reason, the next that does is taken and told."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import time
import urllib.error
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from qeval.base.errors import QevalError
from qeval.load.reading import kernels, patience
from qeval.load.reading.failures import explain
from qeval.load.schemes import SCHEMES, awq, gptq
from qeval.load.source import Source
from qeval.load.spec import Recipe

STEPS = ("auto", "fast", "slow")


def recipe(*, fast: bool = True, **options: Any) -> Recipe:
    source = Source("model")
    settings = {"attention": "auto", "backend": "auto", **options}
    held = ("float16", "float16", "cuda:0", Path("cache"))
    return Recipe("model", source, source, True, settings, *held, fast=fast)


def refusing(monkeypatch: pytest.MonkeyPatch, causes: dict[str, BaseException]) -> list[str]:
    """Let opening fail with these causes, by the kernel's name; returns the names that were tried."""
    tried: list[str] = []

    def open_model(_: Recipe, **keywords: Any) -> str:
        name = keywords.get("quantization_config", "auto")
        tried.append(name)
        if isinstance(causes.get(name), SystemExit):
            raise causes[name]
        if name in causes:
            raise QevalError(f"model cannot be loaded: {causes[name]}") from causes[name]
        return f"loaded by {name}"

    monkeypatch.setattr(kernels, "open_model", open_model)
    monkeypatch.setattr(kernels, "_try_out", lambda *_: None)
    monkeypatch.setattr(kernels, "build_nothing", lambda *_: None)
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
    told = "(out_features: 576 must be divisible by [128]); slow does and is used."
    assert note == f"{kernels.OWN_CHOICE} does not run here {told}"


def raised_in(module: str, error: Exception) -> Exception:
    """The error as if it were raised by a function of that module."""
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as caught:  # noqa: BLE001 - the one that was given
        return caught
    raise AssertionError


REASONS: dict[str, BaseException] = {
    "no network": urllib.error.URLError("Name or service not known"),
    "network broke off": ConnectionResetError("by peer"),
    "timeout": TimeoutError("timed out"),
    "compiler failed": subprocess.CalledProcessError(1, ["nvcc"], "error: no kernel image"),
    "compiler hung": subprocess.TimeoutExpired(["ninja"], 600),
    "no compiler": FileNotFoundError(2, "No such file or directory", "nvcc"),
    "cache not writable": PermissionError(13, "Permission denied"),
    "library half installed": AttributeError("module has no attribute 'gptq_marlin'"),
    "symbol missing": KeyError("gptq_marlin_gemm"),
    "library gives up": SystemExit("no compiler"),
    "own class": type("KernelBuildError", (Exception,), {})("boom"),
}


PLACES = ["gptqmodel.utils.cpp", "torch.utils.cpp_extension", "triton.compiler", "anywhere.else"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reason", list(REASONS))
def test_no_class_of_reason_ends_the_run(monkeypatch: pytest.MonkeyPatch, reason: str, place: str) -> None:
    cause = raised_in(place, REASONS[reason]) if "gives up" not in reason else REASONS[reason]
    tried, asked = refusing(monkeypatch, {"auto": cause}), recipe()
    assert kernels.open_stepping_down(asked, STEPS, str) == "loaded by fast"
    assert tried == ["auto", "fast"]
    (note,) = asked.notes
    assert note.startswith(kernels.OWN_CHOICE)
    assert note.endswith("fast does and is used.")


def test_the_note_names_both_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own choice by the module in which it failed."""
    cause = raised_in("gptqmodel.nn_modules.qlinear.machete", urllib.error.URLError("no network"))
    refusing(monkeypatch, {"auto": cause, "fast": RuntimeError("no nvcc")})
    asked = recipe()
    kernels.open_stepping_down(asked, STEPS, str)
    (note,) = asked.notes
    own = "gptqmodel's own choice of kernel, machete, does not run here"
    assert note == f"{own} (<urlopen error no network>); slow does and is used."


@pytest.mark.parametrize("reason", [name for name in REASONS if name != "library gives up"])
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
    monkeypatch.setattr(kernels, "_try_out", lambda *_: None)
    monkeypatch.setattr(kernels, "build_nothing", lambda *_: None)
    kernels.open_stepping_down(recipe(), ("auto", "torch"), str)
    assert found == [patience.DOWNLOAD]
    assert socket.getdefaulttimeout() is None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["waits for it", "waits for a lock", "swallows the error"])
def test_a_compiler_that_hangs_is_ended_and_the_next_kernel_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    """A stand-in for nvcc that starts a process of its own and never ends. On a busy machine it may be ended
    before it has; then it has longer."""
    handler = signal.getsignal(signal.SIGALRM)
    for seconds in (1.0, 5.0, 25.0, 125.0):
        place = tmp_path / str(seconds)
        place.mkdir()
        with monkeypatch.context() as patch:
            child = _of_a_compiler_that_hangs(patch, place, way, seconds)
        if child is not None:
            break
    assert child is not None
    assert _gone(child)
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 1  # pytest-timeout's goes on


def _of_a_compiler_that_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, seconds: float
) -> int | None:
    """The number of the process that the compiler had started when its time was over, if it had."""
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\nsleep 600 &\necho $! > child.new\nmv child.new child\nsleep 600\n")
    compiler.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def build() -> None:
        started.append(subprocess.Popen([compiler], cwd=tmp_path))
        while way == "waits for a lock":
            time.sleep(0.1)
        try:
            started[0].wait()
        except TimeoutError:
            if way == "waits for it":
                raise
            started[0].wait()

    def open_model(_: Recipe, **keywords: Any) -> str:
        if "quantization_config" not in keywords:
            try:
                build()
            except TimeoutError as error:
                raise QevalError("model cannot be loaded") from error
            raise QevalError("model cannot be loaded") from subprocess.CalledProcessError(-9, ["nvcc"])
        return "loaded"

    monkeypatch.setattr(kernels, "open_model", open_model)
    monkeypatch.setattr(kernels, "_try_out", lambda *_: None)
    monkeypatch.setattr(kernels, "build_nothing", lambda *_: None)
    limits = iter((seconds,))
    monkeypatch.setattr(kernels, "_limit", lambda _: next(limits, 600.0))  # the next kernel has all its time
    monkeypatch.setattr(patience, "AGAIN", 0.5)
    asked, began = recipe(), time.monotonic()
    assert kernels.open_stepping_down(asked, STEPS, str) == "loaded"
    assert time.monotonic() - began < seconds + 300  # and not the compiler's 600
    (note,) = asked.notes
    assert note.startswith(kernels.OWN_CHOICE)
    assert note.endswith("fast does and is used.")
    if not (tmp_path / "child").exists():
        return None
    started[0].wait(
        300
    )  # its code may be lost: the time-out may come between the kernel's answer and Popen's
    return int((tmp_path / "child").read_text())


def _gone(pid: int) -> bool:
    """Whether a process has ended, which takes a moment after it was killed; it may be nobody's child."""
    with suppress(psutil.NoSuchProcess):
        process, until = psutil.Process(pid), time.monotonic() + 60
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
    return True


def test_an_alarm_that_rings_while_it_is_turned_off_is_turned_off_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual, rung, handler = signal.setitimer, [], signal.getsignal(signal.SIGALRM)

    def rings(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        if seconds == 0 and not rung:
            rung.append(True)
            raise TimeoutError
        return usual(which, seconds, interval)

    monkeypatch.setattr(signal, "setitimer", rings)
    with pytest.raises(TimeoutError), patience.ends_after(600):
        pass
    assert rung
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL)[1] == 0  # nothing rings again and again


def test_there_is_time_for_weights_beside_building(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 5000)
    asked = replace(recipe(), source=Source(str(tmp_path)))
    assert kernels._limit(asked) == pytest.approx(kernels.LIMIT + 5000 / kernels.DISK)
    assert kernels._limit(recipe()) == pytest.approx(kernels.LIMIT + kernels.UNKNOWN / kernels.NETWORK)


def test_where_none_runs_the_first_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = refusing(monkeypatch, {name: RuntimeError(name) for name in STEPS})
    with pytest.raises(QevalError, match="cannot be loaded: auto"):
        kernels.open_stepping_down(recipe(), STEPS, str)
    assert tried == list(STEPS)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def test_memory_that_is_short_is_no_kernels_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = refusing(monkeypatch, {"auto": OutOfMemoryError("full")})
    with pytest.raises(QevalError):
        kernels.open_stepping_down(recipe(), STEPS, str)
    assert tried == ["auto"]


def test_files_that_qeval_refuses_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def open_model(*_: Any, **__: Any) -> None:
        tried.append(True)
        raise QevalError("model gives no values to 3 tensors of the model")

    monkeypatch.setattr(kernels, "open_model", open_model)
    with pytest.raises(QevalError, match="gives no values"):
        kernels.open_stepping_down(recipe(), STEPS, str)
    assert len(tried) == 1


@pytest.mark.parametrize("cause", [OSError("no such file"), KeyError("weight")])
def test_files_that_no_kernel_reads_are_told_as_ever(
    monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    tried, asked = refusing(monkeypatch, dict.fromkeys(STEPS, cause)), recipe()
    with pytest.raises(QevalError, match="cannot be loaded"):
        kernels.open_stepping_down(asked, STEPS, str)
    assert tried == list(STEPS)
    assert asked.notes == []


def test_an_interrupt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_model(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kernels, "open_model", open_model)
    with pytest.raises(KeyboardInterrupt):
        kernels.open_stepping_down(recipe(), STEPS, str)


def test_only_a_gpu_without_a_wish_steps_down() -> None:
    assert gptq._kernels(recipe()) == gptq.STEPS
    assert gptq._kernels(recipe(backend="marlin")) == ("marlin",)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("backend", ["auto", "torch", "marlin"])
def test_what_is_scored_has_the_portable_layer_on_every_machine(device: str, backend: str) -> None:
    asked = replace(recipe(fast=False, backend=backend), device=device)
    assert gptq._kernels(asked) == ("torch",)
    assert any("backend=marlin is for costs" in note for note in asked.notes) is (backend == "marlin")


@pytest.mark.parametrize("family", [gptq, awq])
def test_every_step_is_a_kernel_that_can_be_asked_for(family: Any) -> None:
    (spec,) = family.SPECS
    (option,) = [option for option in SCHEMES[spec.name].options if option.name == "backend"]
    assert set(family.STEPS) <= set(option.choices)
    assert family.STEPS[0] == option.default == "auto"
