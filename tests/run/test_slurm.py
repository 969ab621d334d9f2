"""Slurm, by a stand-in that really runs arrays: what is submitted, what comes of it, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import fake_slurm
import pytest
from click.testing import CliRunner
from contract import the_run, wait_for

from qeval.ask import order as orders
from qeval.ask.order import Order
from qeval.base.errors import Exit
from qeval.base.next_steps import finishing
from qeval.cli.main import main
from qeval.run.executors import slurm
from qeval.store.runs import RunDir

pytestmark = pytest.mark.slow
TOY = ("run", "--model", "toy[items=20]", "--schemes", "fp16,rtn", "--tasks", "arc_easy,piqa")
TOKEN = "hf_" + "a1B2c3D4" * 4


@pytest.fixture
def call(tmp_path: Path):
    """`call(*words)`: the command, with the stand-in's sbatch on its path and a token in its environment."""
    more = fake_slurm.install(tmp_path / "bin", tmp_path / "slurm")

    def run(*words: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        there = {"QEVAL_RUNS_DIR": str(tmp_path / "runs"), "HF_TOKEN": TOKEN, "MY_API_KEY": "opensesame1"}
        done = subprocess.run(
            (sys.executable, "-m", "qeval", *map(str, words)),
            env={**os.environ, **there, **more, **environment},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def finished(tmp_path: Path, number: int) -> str:
    """What a job printed, once it is over."""
    wait_for((tmp_path / "slurm" / str(number) / "codes").exists)
    [log] = (tmp_path / "runs").glob(f"*/logs/slurm-{number}-finish.log")
    return log.read_text()


def test_an_array_is_submitted_and_behind_it_what_reports_and_judges(call, tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[[rule]]\nmax_drop = 99.0\n")
    words = ("run", "--model", "toy", "--schemes", "fp16,rtn", "--tasks", "arc_easy", "--gate", gate)
    more = ("--executor", "slurm", "--workers", 3, "--sbatch-args=--gres=gpu:1 --mem=4G")
    said = call(*words, *more, code=Exit.MISSING)
    assert "Submitted: job 1, 3 of qeval worker." in said.stderr
    assert "Nothing is judged yet" in said.stderr
    assert "PASS" not in said.stdout
    judged = finished(tmp_path, 2)
    assert "PASS" in judged
    assert json.loads((tmp_path / "slurm" / "2" / "codes").read_text()) == [0]
    array, last = (json.loads((tmp_path / "slurm" / n / "job.json").read_text()) for n in "12")
    assert array["options"]["array"] == "1-3"
    assert array["options"]["gres"] == "gpu:1"
    assert last["options"]["dependency"] == "afterany:1"
    assert (last["options"]["mem"], last["options"].get("gres")) == ("4G", None)
    assert [result.status for result in the_run(tmp_path).read().results] == ["done", "done"]


def test_secrets_are_nowhere_in_what_slurm_keeps(call, tmp_path: Path) -> None:
    call(*TOY, "--executor", "slurm", "--wait")
    kept = [file.read_text() for file in (tmp_path / "slurm").rglob("*") if file.is_file()]
    assert len(kept) > 2
    assert not [text for text in kept if TOKEN in text or "opensesame1" in text or "HF_TOKEN" in text]
    plans = [file.read_text() for file in (tmp_path / "runs").rglob("*.json")]
    assert not [text for text in plans if TOKEN in text]
    refused = call(*TOY, "--executor", "slurm", f"--sbatch-args=--comment={TOKEN}", code=Exit.USAGE)
    assert "The command contains a secret" in refused.stderr
    assert TOKEN not in refused.stderr


def test_a_missing_element_is_an_incomplete_run(call, tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[[rule]]\nmax_drop = 99.0\n")
    words = ("run", "--model", "toy[delay=60]", *TOY[3:], "--gate", gate)
    call(*words, "--executor", "slurm", "--workers", 1, code=Exit.MISSING)
    elements = tmp_path / "slurm" / "1" / "elements"
    wait_for(elements.exists)
    wait_for(lambda: list((tmp_path / "runs").rglob("lead.1.lease")))
    os.kill(json.loads(elements.read_text())[0], 9)
    judged = finished(tmp_path, 2)
    assert "[fp16] No worker finished it" in judged
    assert "PASS" not in judged
    assert json.loads((tmp_path / "slurm" / "2" / "codes").read_text()) == [1]


def test_a_dry_run_prints_what_would_be_submitted_and_does_nothing(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QEVAL_DATASETS_DIR", raising=False)  # else its option stands in the command
    said = call(
        *TOY, "--executor", "slurm", "--dry-run", "--sbatch-args", "--partition 'a b'", "--workers", 4
    )
    first, second = said.stdout.strip().split("\n\n")
    assert "--array=1-4" in first
    assert "--partition 'a b'" in first
    assert "-m qeval worker" in first
    assert "--dependency=afterany:ARRAY" in second
    assert second.splitlines()[-2].endswith("--tasks arc_easy,piqa --finish")
    assert not list((tmp_path / "slurm").iterdir())
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_leaves_the_newest_run_and_needs_no_slurm(
    qeval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm.shutil, "which", lambda _: None)
    qeval(*TOY)
    dry = ("--executor", "slurm", "--dry-run")
    assert "nothing would be submitted" in qeval(*TOY, *dry).stderr
    more = (*TOY[:4], "fp16,rtn,bnb4", *TOY[5:])
    assert "--array=1-3" in qeval(*more, *dry).stdout
    qeval("report", "-o", tmp_path / "newest.md")


def test_a_dry_run_counts_as_the_true_call_does(qeval, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", "--model", "toy[items=20,fail=rtn]", *TOY[3:])
    qeval(*words, code=1)
    submitted: list[int] = []

    def submit(*asked: object) -> slurm.Submitted:
        submitted.append(asked[-1])
        return slurm.Submitted("1", "2")

    monkeypatch.setattr(slurm.shutil, "which", lambda _: "sbatch")
    monkeypatch.setattr(slurm, "submit", submit)
    assert "--array=1-1" in qeval(*words, "--executor", "slurm", "--dry-run").stdout
    qeval(*words, "--executor", "slurm")
    assert submitted == [1]


def test_without_slurm_and_where_it_refuses(call, tmp_path: Path) -> None:
    start = time.monotonic()
    said = call(*TOY, "--executor", "slurm", code=1, PATH="/nowhere").stderr
    assert "needs Slurm's sbatch" in said
    said = call(*TOY, "--executor", "slurm", "--sbatch-args=--partition=nowhere", code=1).stderr
    assert "invalid partition" in said
    assert "unclosed" in call(*TOY, "--executor", "slurm", "--sbatch-args='", code=2).stderr.replace(
        "No closing quotation", "unclosed"
    )
    assert time.monotonic() - start < 90
    assert not list((tmp_path / "slurm").iterdir())


def test_what_is_finished_is_not_submitted_again(call, tmp_path: Path) -> None:
    call(*TOY, "--executor", "slurm", "--wait")
    said = call(*TOY, "--executor", "slurm")
    assert "average" in said.stdout
    assert len(list((tmp_path / "slurm").iterdir())) == 1


@pytest.mark.parametrize(
    "words",
    [("--wait",), ("--dry-run",), ("--sbatch-args", "-n1"), ("--executor", "slurm", "--devices", "all")],
)
def test_words_without_a_use_are_refused(qeval, words: tuple[str, ...]) -> None:
    told = qeval(*TOY, *words, code=Exit.USAGE).stderr
    assert re.match(rf"Error: {words[-2] if 'all' in words else words[0]} .*--executor slurm", told)


def test_words_that_only_the_workers_need_are_left_out_of_what_finishes() -> None:
    words = (
        "run",
        "--executor=slurm",
        "-m",
        "x",
        "--workers",
        "3",
        "--sbatch-args",
        "-p a",
        "--wait",
        "--json",
    )
    assert finishing(words) == ("run", "-m", "x", "--json", "--finish")
    own = ("--gres", "gpu:2", "-p", "a", "--gpus-per-node=2", "-G2", "-G", "2", "--mem=4G", "--mem-per-gpu=1")
    assert list(slurm._without_gpus(own)) == ["-p", "a", "--mem=4G"]


@pytest.mark.parametrize("name", ["cpus-per-gpu", "mem-per-gpu", "ntasks-per-gpu", "gpus-per-task", "gpus"])
def test_a_word_about_gpus_takes_its_value_along(name: str) -> None:
    assert list(slurm._without_gpus((f"--{name}", "4", "-p", "a"))) == ["-p", "a"]
    assert list(slurm._without_gpus((f"--{name}=4", "-p", "a"))) == ["-p", "a"]


@pytest.mark.parametrize("threads", [4, 4096])
def test_what_finishes_understands_the_words_that_are_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    words = [*TOY, "--executor", "slurm", "--workers", "3", "--threads", str(threads)]
    [_, last] = slurm.calls(parsed(words, monkeypatch), RunDir(tmp_path), words, 3)
    given = shlex.split(last.script.splitlines()[-1])
    order = parsed(given[given.index("run") :], monkeypatch)
    assert (order.only, order.threads) == ("finish", threads)


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Order:
    """What `qeval run` makes of its words."""
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(orders, "order", lambda **asked: found.append(asked))
        CliRunner().invoke(main, words)
    return orders.order(**found[0])
