"""`qeval fetch`: what a suite and a model need, from a stand-in for the Hub to a run without a network."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_stand_in import Hub, asked_by_this_process, serving

from qeval.cli.main import main
from qeval.load import hub_copy

MODEL = {"config.json": b"{}", "model.safetensors": b"weights" * 100}
TASK = """\
task: {name}
dataset_path: {path}
dataset_name: {configuration}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving() as hub:
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        yield hub


def fetch(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["fetch", *words])
    return done.exit_code, done.stdout, done.stderr


def test_the_model_alone(hub: Hub, tmp_path) -> None:
    commit = hub.add("model", "org/name", MODEL)
    code, out, _ = fetch("--model", "org/name", "--to", str(tmp_path / "to"))
    assert (code, out) == (0, f"models/org/name: commit {commit[:12]}, 2 files, 702 B, fetched\n")
    code, out, _ = fetch("--model", "org/name", "--to", str(tmp_path / "to"))
    assert (code, out) == (0, f"models/org/name: commit {commit[:12]}, 2 files, 702 B, already there\n")


@pytest.mark.slow
def test_what_the_schemes_read_too(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", MODEL)
    hub.add("model", "org/ready", MODEL, branch="act")
    hub.add("model", "org/adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"})
    hub.add("dataset", "allenai/c4", {"README.md": b"", "en/c4.json": b"{}\n"})
    code, out, err = fetch(
        *(
            "--model",
            "org/name",
            "--to",
            str(tmp_path / "to"),
            "--tasks",
            "qeval_facts",
            "--adapter",
            "org/adapter",
        ),
        *("--schemes", "fp16,mine=gptq[bits=3],gptq@org/ready:act", "--json"),
    )
    assert code == 0, err
    told = json.loads(out)
    places = [copy["place"] for copy in told["copies"]]
    assert places == ["allenai/c4", "models/org/name", "models/org/adapter", "models/org/ready--act"]
    words = shlex.split(told["command"])
    schemes = words[words.index("--schemes") + 1]
    to = tmp_path / "to"
    assert schemes == f"fp16,mine=gptq[bits=3],gptq=gptq@{to}/models/org/ready--act"
    assert words[words.index("--adapter") + 1] == f"{to}/models/org/adapter"
    assert words[words.index("--datasets-dir") + 1] == str(to)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "There is nothing to fetch."),
        (["--suite", "demo", "--tasks", "piqa"], "exclude each other"),
        (["--suite", "demo", "--schemes", "gptq"], "need a model"),
        (["--suite", "nowhere"], "There is no suite"),
    ],
)
def test_words_that_make_no_sense(words, said, tmp_path) -> None:
    code, _, err = fetch(*words, "--to", str(tmp_path))
    assert code == 2
    assert said in err


def test_nothing_is_fetched_into_the_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "cache"))
    for to in ("cache", "cache/models"):
        code, _, err = fetch("--model", "toy", "--to", str(tmp_path / to))
        assert code == 2
        assert "lies in qeval's cache" in err
    assert fetch("--model", "toy", "--to", str(tmp_path / "cached"))[0] == 0  # the remedy


def test_without_the_hub_nothing_is_begun(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hub_copy, "alone", None)  # neither a folder is made nor tasks are built
    for words in (["--tasks", "arc_easy"], ["--model", "org/name"], ["--suite", "quick", "--model", "demo"]):
        code, out, err = fetch(*words, "--to", str(tmp_path / "to"))
        assert (code, out) == (1, "")
        assert "HF_HUB_OFFLINE is set, so nothing can be fetched.\nUnset it and run the same command" in err
        assert "or run it where there is a network and copy the folder here." in err
        assert not (tmp_path / "to").exists()


def test_what_is_here_already_is_said(tmp_path) -> None:
    (tmp_path / "model").mkdir()
    for model, said in (("demo", "comes with the package"), (str(tmp_path / "model"), "copy it as it is")):
        code, out, err = fetch("--model", model, "--to", str(tmp_path / "to"))
        assert (code, out) == (0, "")
        assert said in err
    assert fetch("--model", "toy", "--to", str(tmp_path / "to"))[:2] == (0, "")


@pytest.fixture
def own_tasks(tmp_path, monkeypatch) -> Path:
    """Two tasks of one's own that read the stand-in's data sets."""
    import qeval.ask.suites
    import qeval.score.harness.wanted  # noqa: F401 - both look for the tasks when they are imported

    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "one.yaml").write_text(TASK.format(name="one", path="org/set", configuration="small"))
    (folder / "two.yaml").write_text(TASK.format(name="two", path="plainset", configuration="null"))
    monkeypatch.setattr("qeval.base.places.tasks_dir", lambda: folder)
    return folder


@pytest.mark.torch
@pytest.mark.usefixtures("own_tasks")
def test_the_data_sets_of_tasks_are_laid_out_as_a_mirror(hub: Hub, tmp_path) -> None:
    card = b"---\nconfigs:\n- config_name: small\n  data_files: small/*.jsonl\n---\n"
    hub.add("dataset", "org/set", {"README.md": card, "small/test.jsonl": b"{}\n", "big.jsonl": b"{}\n"})
    hub.add("dataset", "plainset", {"test.jsonl": b"{}\n"})
    to = tmp_path / "to"
    code, out, err = fetch("--tasks", "one,two", "--to", str(to))
    assert code == 0, err
    assert [line.partition(":")[0] for line in out.splitlines()] == ["org/set (small)", "plainset/plainset"]
    assert not (to / "org/set/big.jsonl").exists()

    from qeval.score.harness.sources import mirrored

    assert mirrored("org/set", to) == to / "org/set"
    assert mirrored("plainset", to) == to / "plainset/plainset"


@pytest.mark.torch
def test_every_data_set_of_the_leaderboard_is_known() -> None:
    from qeval.ask import suites
    from qeval.base.places import tasks_dir
    from qeval.score.harness.wanted import data_sets

    needs, remarks = data_sets(suites.load("leaderboard-v1").tasks, tasks_dir(), None)
    assert {need.path for need in needs} == {
        "allenai/ai2_arc",
        "Rowan/hellaswag",
        "cais/mmlu",
        "truthfulqa/truthful_qa",
        "EleutherAI/wikitext_document_level",
    }
    assert len(next(need for need in needs if need.path == "cais/mmlu").configurations) == 57
    assert remarks == ()
    assert data_sets(suites.load("demo").tasks, tasks_dir(), None) == ((), ())


@pytest.mark.slow
def test_by_the_address_in_the_environment(tmp_path) -> None:
    """The process that a person starts, with HF_ENDPOINT and HF_TOKEN as they set them."""
    with serving() as hub:
        hub.add("model", "org/name", MODEL, token="hf_right")
        words = [sys.executable, "-m", "qeval", "fetch", "--model", "org/name", "--to", str(tmp_path / "to")]
        env = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        env.pop("HF_TOKEN", None)
        refused = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert refused.returncode == 1
        assert "Error: org/name is gated, and no token is set." in refused.stderr
        assert "Traceback" not in refused.stderr
        env["HF_TOKEN"] = "hf_right"
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "to/models/org/name/model.safetensors").read_bytes() == MODEL["model.safetensors"]
