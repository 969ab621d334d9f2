"""What leaves the machine: no home directory, no secret, and with --redact no path of a model."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from qeval.base.records import Run
from qeval.store.checksums import summed

pytestmark = pytest.mark.slow

TASKS = ("--tasks", "qeval_facts")
RUN = ("run", "--model", "toy[items=30]", "--schemes", "fp16,bnb4", *TASKS)
SECRET = "correct-horse-battery"  # of nobody


def everything(folder: Path) -> str:
    return "\n".join(f"{path}\n{path.read_bytes()!r}" for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    home = tmp_path / "home" / "alice"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return home


def edited(place: Path, old: str, new: str) -> None:
    """Have run.json say something else, as if it had been made so."""
    text = msgspec.json.encode(msgspec.json.decode((place / "run.json").read_bytes(), type=Run)).decode()
    told = json.loads(text)
    told["command"] = ["qeval", "run", "--model", new, "--gate", f"{new}/policy.toml"]
    text = json.dumps(told).replace(old, new)
    (place / "run.json").write_bytes(summed(msgspec.json.decode(text, type=Run)))


def test_neither_home_nor_a_secret_is_kept(qeval, home: Path, monkeypatch) -> None:
    from qeval.score import worker

    def fails(*_):
        raise RuntimeError(f"GET https://me:pass@hub.example with {SECRET} from {home}/m failed")

    monkeypatch.setattr(worker, "score_toy", fails)
    words = ("--gate", home / "p.toml")
    (home / "p.toml").write_text("[[rule]]\nmax_drop = 60\n")
    monkeypatch.setattr("sys.argv", ["qeval", *map(str, RUN), *map(str, words), f"--note={SECRET}"])
    result = qeval(*RUN, *words, "--runs-dir", home / "runs", code=1)
    for secret in (SECRET, "me:pass"):
        assert secret not in result.stdout + result.stderr
        assert secret not in everything(home / "runs")
    [run] = (home / "runs").glob("*/run.json")
    assert str(home) not in run.read_text()
    assert "~/p.toml" in json.loads(run.read_text())["command"]
    assert "~/m failed" in run.read_text()


def test_a_run_of_an_older_version_is_read_without_home(qeval, home: Path, runs_dir: Path, tmp_path) -> None:
    qeval(*RUN)
    [place] = [path.parent for path in runs_dir.glob("*/run.json")]
    text = (place / "run.json").read_text().replace("toy[items=30]", f"{home}/llama")
    told = {key: value for key, value in json.loads(text).items() if key != "checksum"}
    (place / "run.json").write_text(json.dumps(told))  # as before checksums
    for words in (("show",), ("show", "--json"), ("gate", "--max-drop", "60")):
        assert str(home) not in qeval(*words, code=None).stdout
    qeval(
        "report",
        "-o",
        tmp_path / "o" / "r.html",
        "-o",
        tmp_path / "o" / "r.md",
        "-o",
        tmp_path / "o" / "r.json",
    )
    assert str(home) not in everything(tmp_path / "o")
    assert "~/llama" in (tmp_path / "o" / "r.md").read_text()


@pytest.mark.parametrize("to", ["lm-eval", "csv", "model-card"])
def test_redact_leaves_paths_of_models_out(qeval, runs_dir: Path, tmp_path: Path, to: str) -> None:
    qeval(*RUN)
    [place] = [path.parent for path in runs_dir.glob("*/run.json")]
    edited(place, "toy[items=30]", "/data/secret/llama")
    out = tmp_path / "out"
    open_ = qeval("report", "-o", out / "open.md").stdout
    assert "/data/secret/llama" in (out / "open.md").read_text(), open_
    assert "incomplete" not in (out / "open.md").read_text()
    (out / "open.md").unlink()
    qeval(
        "report",
        "--redact",
        "-o",
        out / "r.html",
        "-o",
        out / "r.md",
        "-o",
        out / "r.json",
        "-o",
        out / "r.txt",
    )
    qeval("export", "--redact", "--to", to, "-o", out / to)
    said = qeval(
        "gate", "--redact", "--max-drop", "60", "--allow-identical", "--junit", out / "j.xml", code=None
    )
    found = everything(out).replace(str(tmp_path), "") + said.stdout
    for word in ("secret", "/data", "llama"):
        assert word not in found
    assert "Make the run (incomplete: --redact left paths out)" in (out / "r.md").read_text()
    assert "incomplete: --redact left paths out" in (out / "r.html").read_text()
    assert "[path 1]/policy.toml" in (out / "r.md").read_text()


def test_redacted_the_baseline_that_was_typed_is_called_as_in_the_run(qeval, tmp_path: Path) -> None:
    ready = tmp_path / "secret" / "ready"
    ready.mkdir(parents=True)
    (ready / "config.json").write_text("{}")
    baseline = f"gptq@{ready}"
    qeval("run", "--model", "toy[items=30]", "--schemes", f"fp16,{baseline}", "--tasks", "arc_easy")
    out = tmp_path / "r.md"
    qeval("report", "--redact", "--baseline", baseline, "--max-drop", "60", "-o", out)
    assert "--baseline 'gptq@[path 1]' --max-drop 60" in out.read_text()
    assert "secret" not in out.read_text()


def test_a_tilde_is_home_whether_a_shell_saw_it_or_not(qeval, home: Path) -> None:
    qeval(*RUN, "--runs-dir", "~/runs")
    [place] = [path.parent for path in (home / "runs").glob("*/run.json")]
    (home / "p.toml").write_text("[[rule]]\nmax_drop = 60\n")
    gate = (
        "gate",
        f"~/runs/{place.name}",
        "--policy",
        "~/p.toml",
        "--allow-identical",
        "--junit",
        "~/new/j.xml",
    )
    qeval(*gate)
    qeval("report", "--runs-dir", "~/runs", "-o", "~/r.html")
    qeval("export", "--runs-dir", "~/runs", "--to", "csv", "-o", "~/csv")
    (home / "s.toml").write_text('name = "mine"\ndescription = "x"\n[[task]]\nname = "qeval_facts"\n')
    qeval(
        "run", "--model", "toy[items=30]", "--suite", "~/s.toml", "--schemes", "fp16", "--runs-dir", "~/runs"
    )
    assert {path.name for path in home.iterdir()} >= {"runs", "new", "r.html", "csv"}
    assert not Path("~").exists()


@pytest.mark.torch
def test_a_model_below_home_is_known_by_its_tilde(qeval, home: Path) -> None:
    from tiny_models import save_llama

    save_llama(home / "models" / "x")
    for written in (home / "models" / "x", "~/models/x"):  # one run
        qeval(
            "run",
            "--model",
            written,
            "--schemes",
            "fp32,fp16",
            *TASKS,
            "--limit",
            4,
            "--verify",
            0,
            "--runs-dir",
            home / "runs",
        )
    [place] = [path.parent for path in (home / "runs").glob("*/run.json")]
    assert place.name.startswith("models-x-")
    assert str(home) not in (place / "run.json").read_text()
    assert '"~/models/x"' in (place / "run.json").read_text()
    assert all(str(home) not in path.read_text() for path in place.glob("cells/*/*.json"))
