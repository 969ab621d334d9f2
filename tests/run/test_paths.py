"""What a plan names by relative paths means the same to a worker, whatever directory it is started in."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import save_model

from qeval.base.errors import QevalError
from qeval.base.messages import Job
from qeval.base.records import Scheme, Variant
from qeval.base.settings import Settings
from qeval.run import taking
from qeval.run.paths import paths_of, where_it_was_made
from qeval.store.runs import RunDir
from qeval.store.work import Part, Plan, Work


def a_job(variant: Variant, **more: object) -> Job:
    return Job("", "r", variant, {}, {}, (), Settings(**more), "", "", "")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a project that the test stands in, with a folder of some names."""
    for name in ("model", "adapter", "made", "mirror"):
        (tmp_path / "my project" / name).mkdir(parents=True)
    (tmp_path / "my project" / "text.txt").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "my project")
    return tmp_path / "my project"


@pytest.mark.usefixtures("project")
def test_the_paths_of_jobs_are_what_exists_of_all_that_they_name() -> None:
    scheme = Scheme("gptq", {"calibration": "text.txt", "bits": 4}, "./made")
    jobs = [
        a_job(Variant("fp16", "model", Scheme("fp16"), adapter="merged:adapter"), datasets_dir="mirror"),
        a_job(Variant("gptq", "model", scheme)),
        a_job(Variant("hub", "org/model", Scheme("gptq", {"calibration": "c4"}, "org/made"))),
        a_job(Variant("toy", "toy", Scheme("gptq", {}, "made"))),
    ]
    assert paths_of(jobs) == ("model", "adapter", "mirror", "./made", "text.txt")


def test_a_worker_stands_where_the_plan_was_made_and_comes_back(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan((), {}, "mark", str(project), ("model",))
    elsewhere = project.parent / "elsewhere"
    monkeypatch.chdir(elsewhere)
    with where_it_was_made(plan, RunDir(project / "runs" / "r")):
        assert Path.cwd() == project
    assert Path.cwd() == elsewhere


@pytest.mark.parametrize("gone", [False, True])
def test_a_worker_that_does_not_see_what_the_plan_names_claims_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    place = RunDir(project / "my runs" / "r")
    made_in = project / "gone" if gone else project
    job = a_job(Variant("fp16", "lost", Scheme("fp16")))
    Work(place.work).write(Plan((Part(job),), {}, "mark", str(made_in), ("lost", "model")))
    monkeypatch.setattr(taking, "check_same", lambda _: None)  # any versions will do
    monkeypatch.chdir(project.parent / "elsewhere")
    before = sorted(place.path.rglob("*"))
    with pytest.raises(QevalError) as caught:
        taking.work(place, lambda *_: None)
    lost = "lost, model" if gone else "lost"
    assert f"does not see {lost}, which the run was prepared with in {made_in}." in caught.value.message
    assert caught.value.hint.endswith(f"cd '{made_in}' && qeval worker '{place.path}'")
    assert sorted(place.path.rglob("*")) == before


def _cells(place: Path) -> dict[str, str]:
    files = place.glob("cells/*/samples.parquet")
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
@pytest.mark.torch
def test_a_run_of_a_relative_model_is_scored_the_same_by_a_worker_elsewhere(qeval, project: Path) -> None:
    """And what it prints next finishes the run there, and names the failed variant of another one."""
    save_model(project / "tiny")
    words = (
        *("run", "--model", "./tiny", "--schemes", "fp32,rtn", "--tasks", "qeval_facts", "--limit", 4),
        *("--device", "cpu", "--threads", 1),
    )
    qeval(*words, "--runs-dir", project / "whole")
    [whole] = (project / "whole").glob("*/run.json")
    place = _typed(project, " ".join(map(str, ("qeval", *words, "--prepare")))).stdout.strip()
    elsewhere = project.parent / "elsewhere"
    worked = _typed(elsewhere, f"qeval worker {shlex.quote(place)}")
    assert worked.returncode == 0, worked.stderr
    assert _cells(Path(place)) == _cells(whole.parent) != {}
    [finish] = re.findall(r"^Next: (.*)$", worked.stderr, re.MULTILINE)
    assert finish.startswith(f"cd '{project}' && qeval run --model ./tiny ")
    assert _typed(elsewhere, finish).returncode == 0
    assert [one.status for one in RunDir(Path(place)).read().results] == ["done", "done"]
    assert RunDir(Path(place)).read().model == "./tiny"


def _typed(where: Path, command: str) -> subprocess.CompletedProcess[str]:
    """What comes of a command that is typed into a shell in a directory."""
    called = f"{shlex.quote(sys.executable)} -m qeval "
    line = re.sub(r"(^|&& )qeval ", lambda found: f"{found[1]}{called}", command)
    path = os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
    return subprocess.run(
        ("sh", "-c", line),
        cwd=where,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
