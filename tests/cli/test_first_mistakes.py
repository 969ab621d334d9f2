"""What the first mistakes of a newcomer are answered with: the command to correct, the file that is meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_run

from qeval.base.errors import QevalError, UsageError
from qeval.base.records import Task
from qeval.load.source import resolve_commit
from qeval.score.harness.catalogue import Catalogue, scan
from qeval.score.harness.written import check, items_of
from qeval.store.newest import mark
from qeval.store.runs import Store


@pytest.fixture
def kept(runs_dir: Path) -> str:
    """A whole run, and after it the mark of a command that was refused."""
    run, read, _ = make_run()
    place = Store(runs_dir).run_dir(run.id)
    whole = [
        replace(one, cells=tuple(place.add(cell, read(cell), ()) for cell in one.cells))
        for one in run.results
    ]
    place.write(replace(run, results=tuple(whole)))
    mark(runs_dir, "", "toy", "There is no suite 'quikc'.")
    return run.id


AGAIN = "Correct that command and run it again"


def test_after_a_refused_command_the_gate_asks_for_its_correction(qeval, kept: str) -> None:
    said = qeval("gate", "--max-drop", "1.0", code=5).stderr
    assert "of toy, did not get far enough to have results (There is no suite 'quikc')" in said
    assert f"{AGAIN}, or name a run ({kept} is the newest that has results)" in said


def test_the_runs_are_listed_with_the_refused_command_that_is_the_newest(qeval, kept: str) -> None:
    listed = qeval("list", "runs")
    assert kept in listed.stdout
    assert f"(There is no suite 'quikc'). {AGAIN}." in listed.stderr


def test_what_shows_says_why_the_older_run_may_be_shown_and_not_judged(qeval, kept: str, tmp_path) -> None:
    for words in (("show",), ("report", "-o", tmp_path / "r.md")):
        said = qeval(*words).stderr
        assert f"the newest that has results: {kept}" in said
        assert "It may be shown, not judged: for qeval gate, correct that command and run it again" in said


def test_a_run_that_was_interrupted_needs_no_correction(qeval, kept: str, runs_dir: Path) -> None:
    mark(runs_dir, "", "toy", "it was interrupted")
    said = qeval("gate", "--max-drop", "1.0", code=5).stderr
    assert f"Run it again, or name a run ({kept} is" in said


# --- files and folders that are not there, or are something else ---------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a suite and its task, in the folder that commands are typed in."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "sums.toml").write_text('average = []\n[[task]]\nname = "my_sums"\n')
    (folder / "my_sums.yaml").write_text("task: my_sums\ndataset_path: json\nprocess_docs: !function a.b\n")
    (folder / "my_group.yaml").write_text("group: my_group\ntask:\n  - my_sums\n")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("own/my_sums.yaml", "is a task, not a suite.\nName it with: --tasks my_sums --tasks-dir own"),
        ("own/my_group.yaml", "is a group, not a suite.\nName it with: --tasks my_group --tasks-dir own"),
        ("own/sum.toml", "There is no file own/sum.toml.\nDid you mean own/sums.toml?"),
        ("own/sums", "There is no file own/sums.\nDid you mean own/sums.toml?"),
        ("own/sums.yaml", "There is no file own/sums.yaml.\nDid you mean own/sums.toml?"),
        ("onw/sums.toml", "There is no folder onw.\nDid you mean own/sums.toml?"),
        ("own", "own is a folder, and a suite is a file.\nName a file in it: own/sums.toml."),
        ("own/nothing.toml", "There is no file own/nothing.toml.\nName one of: qeval list suites."),
        ("quick.toml", "There is no file quick.toml.\nDid you mean quick, which comes with qeval?"),
        ("quikc", "There is no suite 'quikc'.\nDid you mean 'quick'?"),
    ],
)
def test_a_suite_that_is_none_is_told_what_is_meant(qeval, own, suite: str, said: str) -> None:
    assert own.is_dir()
    assert said in qeval("run", "--model", "toy", "--suite", suite, code=2).stderr


def test_a_model_that_is_nearly_a_directory_here_is_told_so(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    (tmp_path / "mines").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QevalError, match="mien is neither a directory here nor in the local cache") as caught:
        resolve_commit("mien", None)
    assert caught.value.hint == "Did you mean ./mine?"
    assert str(caught.value).lower().count("did you mean") == 1
    with pytest.raises(QevalError, match="is neither a directory here nor a Hub id") as caught:
        resolve_commit(str(tmp_path / "mien"), None)
    assert caught.value.hint == f"Did you mean {tmp_path / 'mine'}?"


def test_a_checkpoint_without_its_scheme_is_told_with_it(qeval, tmp_path: Path, monkeypatch) -> None:
    for method in ("gptq", "awq", "none_known"):
        (tmp_path / method).mkdir()
        config = {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128}}
        (tmp_path / method / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    for path, meant in (
        ("./gptq", "gptq@./gptq"),
        ("awq/", "awq@awq/"),
        (f"{tmp_path}/awq", f"awq@{tmp_path}/awq"),
    ):
        said = qeval("run", "--model", "demo", "--schemes", f"fp16,{path}", code=2).stderr
        assert f"There is no scheme {path!r}.\nDid you mean {meant}?" in said
    said = qeval("run", "--model", "demo", "--schemes", "fp16,./none_known", code=2).stderr
    assert "There is no scheme './none_known'." in said
    assert "@" not in said


def test_a_path_in_a_folder_that_is_here_is_no_model_of_the_hub(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QevalError, match="There is no directory build/checkpoint, though build is") as caught:
        resolve_commit("build/checkpoint", None)
    assert caught.value.hint == "Check the spelling, or make it first."
    with pytest.raises(QevalError, match="is not in the local cache") as caught:
        resolve_commit("org/checkpoint", None)
    assert "hf download org/checkpoint" in caught.value.hint


# --- what would fail for each variant ---------------------------------------------------------------


def test_a_plan_counts_the_items_that_lie_beside_a_suite(qeval, own: Path) -> None:
    (own / "my_sums.yaml").write_text(
        "task: my_sums\ndataset_path: json\ndataset_kwargs: {data_files: sums.jsonl}\ntest_split: train\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    (own / "sums.jsonl").write_text('{"question": "1 + 1"}\n\n' * 37)
    [row] = json.loads(qeval("plan", "--suite", "own/sums.toml", "--json").stdout)["rows"]
    assert row["n"] == 37
    (own / "sums.jsonl").write_text(json.dumps([{"question": "1 + 1"}] * 5))
    assert items_of(own / "my_sums.yaml") == 5
    with (own / "my_sums.yaml").open("a") as file:
        file.write("process_docs: !function other.choose\n")
    assert items_of(own / "my_sums.yaml") is None


def test_a_metric_and_a_file_that_are_not_there_are_refused_before_a_model_is_loaded(own: Path) -> None:
    path = own / "my_sums.yaml"
    path.write_text(
        "task: my_sums\ndataset_path: json\ndataset_kwargs: {data_files: {test: sums.jsonl}}\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    known = Catalogue({"my_sums": str(path)})
    with pytest.raises(UsageError, match="The task 'my_sums' has no metric 'acc_nrom'") as caught:
        check([Task("my_sums", "acc_nrom")], known, own)
    assert caught.value.hint == "Did you mean 'acc_norm'?"
    with pytest.raises(QevalError, match="The data of the task 'my_sums' are not there"):
        check([Task("my_sums", "acc")], known, own)
    (own / "sums.jsonl").touch()
    check([Task("my_sums", "acc"), Task("unknown", "acc")], known, own)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task("sums", "f1"), "The metric 'f1' of task 'sums' cannot be compared item by item"),
        (Task("sums", "loss"), "cannot be compared item by item: less of it is better"),
        (Task("sums", "accc"), "The task 'sums' has no metric 'accc'"),
        (Task("sums", "acc", filter="strct"), "The task 'sums' has no filter 'strct'"),
        (Task("all_sums", "accc"), "The task 'sums' has no metric 'accc'"),
        (Task("tagged", "accc"), "The task 'sums' has no metric 'accc'"),
        (Task("corpus", ""), "The task 'corpus' has no metric that judges item by item"),
        (Task("sums", "acc", filter="strict"), ""),
        (Task("sums", "own"), ""),
        (Task("all_sums", "acc"), ""),
        (Task("itself", "anything"), ""),
    ],
)
def test_what_a_file_tells_is_refused_as_lm_evals_task_would_be(own: Path, task: Task, said: str) -> None:
    (own / "sums.yaml").write_text(
        "task: sums\ntag: [tagged]\nfilter_list: [{name: strict}, {name: loose}]\nmetric_list:\n"
        "  - {metric: acc, aggregation: mean, higher_is_better: true}\n  - {metric: f1}\n"
        "  - {metric: loss, aggregation: mean}\n  - {metric: own, aggregation: !function a.b}\n"
    )
    (own / "all_sums.yaml").write_text("group: all_sums\ntask: [sums]\n")
    (own / "itself.yaml").write_text("group: itself\ntask: [itself]\n")
    (own / "corpus.yaml").write_text("task: corpus\nmetric_list: [{metric: bleu, aggregation: bleu}]\n")
    if not said:
        check([task], scan(own), None)
        return
    with pytest.raises(QevalError) as caught:
        check([task], scan(own), None)
    assert said in caught.value.message


PLAIN = ("--schemes", "fp16", "--tasks", "qeval_facts")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("--schemes", "fp16", "--tasks", "qeval_facts:accc"),
            2,
            "has no metric 'accc'.\nDid you mean 'acc'",
        ),
        ((*PLAIN, "--dtype", "int3"), 2, "There is no dtype 'int3'.\nUse one of: auto, fp16, "),
        ((*PLAIN, "--device", "gpu7"), 2, "There is no device 'gpu7' here.\nUse auto or cpu; qeval doctor"),
        ((*PLAIN, "--device", "mps"), 2, "Apple's GPUs (mps) are not used"),
        ((*PLAIN, "--gpu-memory", "8GiB", "--device", "cpu"), 2, "limits a GPU, and the device is cpu."),
        ((*PLAIN, "--seed", "-1"), 2, "'-1' is too small; it must be at least 0."),
        ((*PLAIN, "--adapter", "./nowhere"), 1, "There is no model './nowhere': it is neither a directory"),
        (
            ("--schemes", "fp8[unpack=true]", "--tasks", "qeval_facts"),
            1,
            "fp8[unpack=true] unpacks a ready checkpoint, and none is named.",
        ),
        (
            ("--schemes", "gptq@./nowhere", "--tasks", "qeval_facts"),
            1,
            "There is no model './nowhere': it is neither a directory",
        ),
    ],
)
@pytest.mark.parametrize("model", ["toy", "a model"])
def test_the_toy_is_refused_what_a_model_is(
    qeval, tmp_path: Path, model: str, words: tuple[str, ...], code: int, said: str
) -> None:
    if model != "toy":
        model = str(tmp_path / "model")
        Path(model).mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
    assert said in qeval("run", "--model", model, *words, code=code).stderr


@pytest.mark.torch
def test_a_device_that_is_not_here_is_refused_to_the_toy_too(qeval_with_workers, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = qeval_with_workers("run", "--model", "toy", *PLAIN, "--device", "cuda:7", code=1)
    assert "There is no device 'cuda:7' here. Use auto or cpu" in told.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tasks", "arc_challenge:accc"), "The task 'arc_challenge' has no metric 'accc'."),
        (("--tasks", "mmlu:accc"), "has no metric 'accc'.\nDid you mean 'acc'?"),
        (("--model", "toy", "--schemes", "fp17"), "There is no scheme 'fp17'."),
        (("--model", "toy[itmes=4]"), "The toy has no option 'itmes'."),
        (("--model", "toy", "--gpus-per-variant", "2"), "The toy does not use a GPU."),
        (("--model", "toy", "--schemes", "fp8[unpack=true]"), "unpacks a ready checkpoint, and none is"),
    ],
)
def test_a_plan_is_refused_what_a_run_is(qeval, words: tuple[str, ...], said: str) -> None:
    assert said in qeval("plan", *words, code=None).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("gate", "~0", "--max-drop", "3"),
        ("gate", "--max-drop", "~0"),
        ("gate", "--policy", "~0"),
        ("run", "--model", "toy", "--suite", "~0"),
        ("run", "--model", "toy", "--suite", "~0.toml"),
        ("run", "--model", "toy", "--suite", "~0.yaml"),
        ("plan", "--model", "~0/x", "--suite", "quick"),
        ("worker", "~0"),
    ],
)
def test_the_home_of_nobody_is_a_path_that_is_not_there(qeval, words) -> None:
    said = qeval(*words, code=None)
    assert said.exit_code not in (0, 70)
    assert "unforeseen" not in said.stderr
    assert "~0" in said.stderr
