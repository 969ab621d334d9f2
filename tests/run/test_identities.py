"""What cannot be found, or has no such revision, is refused before anything is loaded; the others go on."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_llama
from tiny_worlds import QUIET

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model as models
from qeval.load import packages
from qeval.load.packages import missing_packages
from qeval.load.schemes import SCHEMES
from qeval.load.source import model_identity

pytestmark = QUIET


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama", max_position_embeddings=512)


@pytest.mark.parametrize("what", ["directory", "demo"])
def test_a_revision_of_what_has_none_is_refused(llama: Path, tmp_path: Path, what: str) -> None:
    """It would be recorded, and never read."""
    model = str(llama) if what == "directory" else "demo"
    with pytest.raises(QevalError, match="no revision 'v2' of it") as caught:
        model_identity(model, "v2", tmp_path)
    assert "Leave the revision out" in caught.value.hint
    with pytest.raises(QevalError, match="no revision 'v2' of it"):
        models.load(Variant("v", model, Scheme("fp32"), "v2"), device="cpu", cache_dir=tmp_path)
    ready = Scheme("gptq", {}, str(llama), "v2")
    with pytest.raises(QevalError, match="no revision 'v2' of it"):
        models.load(Variant("v", str(llama), ready), device="cpu", cache_dir=tmp_path)


def run(qeval: Any, llama: Path, lacking: str, code: int) -> Any:
    words = ("--model", llama, "--device", "cpu", "--suite", "demo", "--limit", 2, "--json")
    return qeval("run", *words, "--schemes", f"fp32,{lacking},rtn", code=code)


def test_a_variant_that_cannot_be_found_keeps_nobody_back(qeval, llama: Path, tmp_path: Path) -> None:
    result = run(qeval, llama, f"gptq@{tmp_path / 'nowhere'}", 1)
    plain, lost, rounded = json.loads(result.stdout)["variants"]
    assert (plain["status"], lost["status"], rounded["status"]) == ("done", "failed", "done")
    assert "nowhere" in lost["error"]
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_baseline_that_cannot_be_found_ends_it(qeval, llama: Path, tmp_path: Path) -> None:
    words = ("--model", llama, "--suite", "demo", "--schemes", f"bnb4@{tmp_path / 'nowhere'},rtn")
    assert "nowhere" in qeval("run", *words, code=1).stderr


def test_where_nothing_is_left_to_compare_nothing_is_scored(qeval, llama: Path, tmp_path: Path) -> None:
    words = ("--model", llama, "--suite", "demo", "--schemes", f"fp32,bnb4@{tmp_path / 'nowhere'}")
    result = qeval("run", *words, code=1)
    assert "nowhere" in result.stderr
    assert "[fp32]" not in result.stderr


def test_quantising_is_no_part_of_the_load_time(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    slept = 0.5

    def make(order: Any) -> Path:
        time.sleep(slept)
        made.append(order.model)
        return tmp_path

    monkeypatch.setitem(SCHEMES, "fp32", replace(SCHEMES["fp32"], make=make))
    begun = time.perf_counter()
    loaded = models.load(Variant("v", str(llama), Scheme("fp32")), device="cpu", cache_dir=tmp_path)
    assert made == [str(llama)]
    assert 0 < loaded.load_seconds <= time.perf_counter() - begun - slept


@pytest.mark.parametrize("absent", ["optimum", "optimum.quanto"])
def test_a_package_is_not_there_because_its_parent_is(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    """optimum, which gptq needs, makes the parent of quanto's module."""
    find = packages.importlib.util.find_spec

    def find_spec(name: str) -> Any:
        if name.startswith(f"{absent}."):
            raise ModuleNotFoundError(name)
        return None if name == absent else find(name)

    monkeypatch.setattr(packages.importlib.util, "find_spec", find_spec)
    assert "optimum-quanto" in [package.distribution for package in missing_packages(SCHEMES["quanto"])]


def test_a_plain_directory_is_not_taken_for_another_scheme(llama: Path, tmp_path: Path) -> None:
    variant = Variant("v", str(llama), Scheme("gptq", {}, str(llama)))
    with pytest.raises(QevalError, match="is not quantised") as caught:
        models.load(variant, device="cpu", cache_dir=tmp_path)
    assert caught.value.hint == "Check the name of the checkpoint."
