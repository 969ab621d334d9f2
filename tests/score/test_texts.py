"""Which items share a text is found when a real, tiny model is scored, stored, judged and told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from invented import words
from tiny_models import save_model

from qeval.base import places
from qeval.store.runs import RunDir

pytestmark = pytest.mark.torch
HASHES = ("doc_hash", "prompt_hash", "target_hash")
MIRROR = os.environ.get("QEVAL_DATASETS_DIR", "")
N = 66
THREES = [str(at - at % 3) for at in range(N)]


def passage(at: int) -> str:
    """Three questions each stand under one text."""
    return words(70, f"text {at // 3}")


def history(at: int, text: str) -> dict[str, object]:
    return {"question": f"This refers to the following.\n{text}\n\n{words(9, at)} {at}?", "label": at % 2}


TASKS = {
    # MMLU's histories: the passage stands in the question, and in the examples' questions too.
    "history": (
        "{{question}}\nAnswer:",
        [history(at, passage(at)) for at in range(N)],
        [history(at, words(70, f"example {at}")) for at in range(5)],
    ),
    "lone": (
        "{{question}}\nAnswer:",
        [history(at, words(70, f"lone {at}")) for at in range(N)],
        [history(at, words(70, f"example {at}")) for at in range(5)],
    ),
    "boolq": (
        "{{passage}}\nQuestion: {{question}}?\nAnswer:",
        [{"passage": words(12, at // 3), "question": f"is it {at}", "label": 1} for at in range(N)],
        [{"passage": words(12, "example"), "question": "is it", "label": 0}],
    ),
    "race": (
        "Article: {{article}}\n\nQuestion: {{question}}\nAnswer:",
        [{"article": passage(at), "question": f"{words(7, at)} _ .", "label": 0} for at in range(N)],
        [{"article": words(80, "example"), "question": "why?", "label": 0}],
    ),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def _own(tmp_path: Path, monkeypatch) -> None:
    """A directory of our own tasks, each with examples drawn at random for every document."""
    import datasets

    folder = tmp_path / "tasks"
    shutil.copytree(places.tasks_dir(), folder)
    for name, (text, docs, examples) in TASKS.items():
        for split, rows in (("test", docs), ("dev", examples)):
            file = folder / f"{name}_{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = {
            "task": f"own_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {s: str(folder / f"{name}_{s}.jsonl") for s in ("test", "dev")}},
            "test_split": "test",
            "fewshot_split": "dev",
            "output_type": "multiple_choice",
            "description": f"{words(80, 'description')}\n\n",
            "doc_to_text": text,
            "doc_to_choice": ["no", "yes"],
            "doc_to_target": "label",
            "num_fewshot": 1,
            "metric_list": [{"metric": "acc"}],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    for module in ("qeval.base.places", "qeval.run.runner"):
        monkeypatch.setattr(f"{module}.tasks_dir", lambda: folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def stored(place: Path) -> dict[str, list[str]]:
    """The clusters that a run's first variant stored, by task."""
    run = RunDir(place).read()
    return {cell.task.name: RunDir(place).samples(cell).cluster.tolist() for cell in run.results[0].cells}


@pytest.mark.usefixtures("_own")
def test_a_run_fills_clusters_tells_and_judges_by_them(qeval, runs_dir, llama) -> None:
    names = ",".join(f"own_{name}" for name in TASKS)
    qeval("run", "--model", llama, "--schemes", "fp32,bf16", "--tasks", names, "--device", "cpu")
    [place] = runs_dir.glob("*/")
    found = stored(place)
    assert found.pop("own_lone") == [""] * N
    assert found == dict.fromkeys((f"own_{name}" for name in TASKS if name != "lone"), THREES)

    told = json.loads(qeval("show", "--json").stdout)
    cells = {cell["task"]["name"]: cell["texts"] for cell in told["variants"][0]["cells"]}
    assert cells == {"own_history": 22, "own_lone": N, "own_boolq": 22, "own_race": 22}
    rows = {row["task"]: row for row in told["comparisons"] if row["level"] == "task"}
    assert {name: row["texts"] for name, row in rows.items()} == {**cells, "own_lone": None}
    assert rows["own_history"]["method"] == "Tango, or cluster-robust where wider"
    assert rows["own_lone"]["method"] == "Tango"
    assert "66 in 22 texts" in qeval("show").stdout


@pytest.mark.usefixtures("_own")
def test_a_chat_frame_is_no_text_and_few_texts_decide_nothing(qeval, runs_dir, llama, tmp_path) -> None:
    from transformers import AutoTokenizer

    model = tmp_path / "chat"
    shutil.copytree(llama, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    turn = "<|{{ m.role }}|>\n\n{{ m.content }}<|end|>\n"
    tokenizer.chat_template = f"{{% for m in messages %}}{turn}{{% endfor %}}<|assistant|>\n\n"
    tokenizer.save_pretrained(model)
    words = ("run", "--model", model, "--schemes", "fp32,bf16", "--tasks", "own_history,own_lone")
    ran = qeval(*words, "--chat-template", "--limit", "45", "--device", "cpu")
    assert "45/66 in 15 texts" in ran.stdout
    [place] = runs_dir.glob("*/")
    assert stored(place) == {"own_history": THREES[:45], "own_lone": [""] * 45}

    judged = qeval("gate", "--max-drop", "90", "--allow-limited", "--allow-identical", "--json", code=4)
    found = json.loads(judged.stdout)["decisions"]
    few, lone = (one for one in found if one["comparison"])
    assert (few["comparison"]["texts"], few["items_needed_more"], few["status"]) == (15, None, "INCONCLUSIVE")
    assert "as its 45 items share only 15 texts, and 20 are needed" in few["reason"]
    assert (lone["comparison"]["texts"], lone["status"]) == (None, "PASS")


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="QEVAL_DATASETS_DIR names no mirror")
def test_a_history_of_mmlu_is_counted_by_run_and_import(qeval, runs_dir, llama, tmp_path) -> None:
    words = ("run", "--model", llama, "--schemes", "fp32,bf16", "--tasks", "mmlu_high_school_us_history")
    ran = qeval(*words, "--num-fewshot", "1", "--device", "cpu", "--datasets-dir", MIRROR)
    assert "204 in 66 texts" in ran.stdout
    [place] = runs_dir.glob("*/")
    run = RunDir(place).read()
    assert [cell.texts for result in run.results for cell in result.cells] == [66, 66]
    told = as_lm_eval_logs(run, RunDir(place), tmp_path / "logged")
    imported = Path(qeval("import", told, "--baseline", "fp32").stdout.strip())
    again = RunDir(imported).read()
    assert [cell.texts for result in again.results for cell in result.cells] == [66, 66]
    assert stored(imported) == stored(place)


def as_lm_eval_logs(run, place, folder: Path) -> Path:
    """The run as lm-eval itself would have logged it: with the documents' own fields, without ours."""
    import pyarrow.parquet as pq
    from harness_files import results, sample, write

    task = "mmlu_high_school_us_history"
    file = Path(MIRROR) / "cais" / "mmlu" / task.removeprefix("mmlu_") / "test.parquet"
    docs = pq.ParquetFile(file).read().to_pylist()
    for result in run.results:
        samples, items = place.samples(result.cells[0]), place.items(result.cells[0])
        lines = [
            sample(
                at,
                right=bool(samples.value[at]),
                doc=doc,
                arguments={
                    f"gen_args_{i}": {"arg_0": items[str(at)].prompt, "arg_1": choice}
                    for i, choice in enumerate(items[str(at)].choices)
                },
                resps=[[[str(score), "False"]] for score in samples.scores[at]],
                filtered_resps=[[str(score), "False"] for score in samples.scores[at]],
                target=str(samples.gold[at]),
                **{
                    name: str(getattr(samples, name)[at])
                    for name in ("doc_hash", "prompt_hash", "target_hash")
                },
            )
            for at, doc in enumerate(docs)
        ]
        write(
            folder / result.variant.name,
            results(task, name=f"org/{result.variant.name}"),
            samples={task: lines},
        )
    return folder
