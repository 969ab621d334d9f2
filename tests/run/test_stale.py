"""`qeval run` twice around a change of what numbers depend on, its size and time kept: new numbers."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model
from tiny_worlds import QUIET

from qeval.base import messages
from qeval.base.records import Result
from qeval.run import workers
from qeval.run.executors import EXECUTORS

pytestmark = QUIET

TASK = """\
task: stories
dataset_path: {place}
dataset_name: null
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}} and so"
doc_to_choice: "{{{{ends}}}}"
doc_to_target: "{{{{right}}}}"
process_results: !function scoring.judge
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
SCORING = """\
def judge(doc, results):
    best = max(range(len(results)), key=lambda at: results[at][0])
    return {"acc": float(best == doc["right"]) * 1.0}
"""
ROWS = [
    {"text": f"story {at} tells", "ends": ["it rains", "a cat sat", "it ends"], "right": at % 3}
    for at in range(9)
]


def kept(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change what a file holds, but neither its size nor its time."""
    before, times = path.read_bytes(), path.stat()
    after = change(before)
    assert before != after
    assert len(before) == len(after)
    path.write_bytes(after)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def swapped(first: str, second: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(first.encode(), second.encode())


def swap_letters(data: bytes) -> bytes:
    """The tokens of two letters, one for the other."""
    return data.replace(b'"a": ', b'"?": ').replace(b'"e": ', b'"a": ').replace(b'"?": ', b'"e": ')


def save_adapter(model: Path, place: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    made.save_pretrained(place)
    return place


class World:
    """A model, an adapter, a task of one's own and its mirror, and the command that scores them."""

    def __init__(self, place: Path, qeval: Any) -> None:
        self.place, self.qeval = place, qeval
        self.model = save_model(place / "model")
        self.adapter = save_adapter(self.model, place / "adapter")
        self.tasks, self.mirror = place / "tasks", place / "mirror" / "somebody" / "stories"
        self.tasks.mkdir()
        self.mirror.mkdir(parents=True)
        (self.tasks / "scoring.py").write_text(SCORING)
        (self.tasks / "stories.yaml").write_text(TASK.format(place="somebody/stories"))
        (self.mirror / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def run(self, *more: object) -> tuple[Any, str]:
        """What was scored of each variant, and what was said on the way."""
        words = ("--model", self.model, "--device", "cpu", "--dtype", "float32", "--tasks", "stories:acc")
        places = ("--datasets-dir", self.place / "mirror", "--schemes", "fp32")
        found = self.qeval("run", *words, *places, "--adapter", self.adapter, "--json", *more)
        variants = json.loads(found.stdout)["variants"]
        files = [cell["files"]["samples.parquet"] for one in variants for cell in one["cells"]]
        assert files
        return files, found.stderr


@pytest.fixture
def world(tmp_path: Path, qeval: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """Everything is scored in this process, as loading libraries anew would take longer than all else."""

    def here(job: messages.Job, listen: workers.Listener) -> Result:
        from qeval.score import worker

        result = Result(variant=job.variant, status="partial")

        def hear(event: messages.Event) -> None:
            nonlocal result
            result = workers.after(event, result)
            listen(event)

        worker.answer(job, hear)
        return result

    import datasets

    made = World(tmp_path, qeval)
    monkeypatch.setitem(EXECUTORS, "local", here)
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    for module in ("qeval.run.runner", "qeval.run.identity", "qeval.base.places"):
        monkeypatch.setattr(f"{module}.tasks_dir", lambda: made.tasks)
    return made


CHANGES: dict[str, Callable[[World], None]] = {
    "a weight": lambda w: kept(
        w.model / "model.safetensors", lambda data: data[:-2] + bytes([data[-2] ^ 255, data[-1]])
    ),
    "tokenizer": lambda w: kept(w.model / "tokenizer.json", swap_letters),
    "configuration": lambda w: kept(w.model / "config.json", swapped("1e-06", "1e-01")),
    "adapter": lambda w: kept(
        w.adapter / "adapter_model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 128])
    ),
    "task": lambda w: kept(w.tasks / "stories.yaml", swapped("and so", "but no")),
    "scoring": lambda w: kept(w.tasks / "scoring.py", swapped("* 1.0", "* 0.5")),
    "data": lambda w: kept(w.mirror / "test.jsonl", swapped("a cat sat", "a dog sat")),
    "answers": lambda w: kept(w.mirror / "test.jsonl", swapped('"right": 0', '"right": 2')),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_gives_new_numbers(world: World, what: str) -> None:
    first, _ = world.run()
    again, said = world.run()
    assert again == first
    assert "finished earlier" in said
    CHANGES[what](world)
    after, said = world.run()
    assert after != first
    assert "finished earlier" not in said


def test_what_moved_and_changed_nothing_is_taken_over(world: World) -> None:
    first, _ = world.run()
    shutil.copytree(world.model, world.place / "copy")
    world.model = world.place / "copy"
    (world.mirror / "test.jsonl").touch()
    again, said = world.run()
    assert again == first
    assert "1 finished" in said or "finished earlier" in said


def test_a_mirror_behind_a_link_is_looked_into(world: World) -> None:
    real = world.place / "real"
    world.mirror.rename(real)
    world.mirror.symlink_to(real)
    first, _ = world.run()
    kept(real / "test.jsonl", swapped("a cat sat", "a dog sat"))
    assert world.run()[0] != first


def test_the_card_of_a_mirror_tells_which_files_are_read(world: World) -> None:
    for folder, text in (("a", "a cat sat"), ("b", "a dog sat")):
        (world.mirror / folder).mkdir()
        data = (world.mirror / "test.jsonl").read_text().replace("a cat sat", text)
        (world.mirror / folder / "test.jsonl").write_text(data)
    (world.mirror / "test.jsonl").unlink()
    card = world.mirror / "README.md"
    files = "  - split: test\n    path: a/test.jsonl\n"
    card.write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    first, _ = world.run()
    kept(card, swapped("a/test", "b/test"))
    assert world.run()[0] != first


@pytest.mark.parametrize("how", ["file", "folder", "include", "code"])
def test_data_elsewhere_counts(world: World, how: str) -> None:
    outside = world.place / "outside"
    outside.mkdir()
    rows = outside / "rows.jsonl"
    rows.write_bytes((world.mirror / "test.jsonl").read_bytes())
    task, base = world.tasks / "stories.yaml", TASK.format(place="json")
    where = f"dataset_kwargs:\n  data_files:\n    test: {rows}\n"
    if how == "folder":
        where = f"dataset_kwargs:\n  data_dir: {outside}\n"
        base = TASK.format(place="json").replace("test_split: test", "test_split: train")
    if how == "code":
        base, where = base.replace("dataset_path: json\n", ""), "custom_dataset: !function reading.rows\n"
        (world.tasks / "reading.py").write_text(
            "from datasets import Dataset, DatasetDict\nimport json\n\ndef rows(**_):\n"
            f"    lines = open({str(rows)!r}).read().splitlines()\n"
            "    return DatasetDict(test=Dataset.from_list([json.loads(line) for line in lines]))\n"
        )
    if how == "include":
        (outside / "base.yaml").write_text(where)
        where = f"include: {outside / 'base.yaml'}\n"
    task.write_text(base + where)
    first, _ = world.run()
    assert world.run()[0] == first
    kept(rows, swapped("a cat sat", "a dog sat"))
    assert world.run()[0] != first


@pytest.mark.parametrize("how", ["a table", "a table elsewhere", "a module elsewhere"])
def test_what_scoring_code_reads_counts(world: World, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = world.place / "outside"
    outside.mkdir()
    table = (world.tasks if how == "a table" else outside) / "worth.json"
    table.write_text("1.0")
    worth = f"json.loads(Path({str(outside / 'worth.json')!r}).read_text())"
    if how == "a table":
        worth = "json.loads((Path(__file__).parent / 'worth.json').read_text())"
    if how == "a module elsewhere":
        monkeypatch.syspath_prepend(outside)
        table = outside / "worth_of_answers.py"
        table.write_text("worth = 1.0\n")
        worth = "worth_of_answers.worth"
    more = "import worth_of_answers\n" if how == "a module elsewhere" else ""
    scoring = SCORING.replace("1.0", worth)
    (world.tasks / "scoring.py").write_text(f"{more}import json\nfrom pathlib import Path\n\n{scoring}")
    first, _ = world.run()
    assert world.run()[0] == first
    kept(table, swapped("1.0", "0.5"))
    sys.modules.pop("worth_of_answers", None)  # each worker is a process of its own
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shutil.rmtree(outside / "__pycache__", ignore_errors=True)
    assert world.run()[0] != first
