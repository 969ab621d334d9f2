"""Texts of a whole job: by our own loop, or, where lm-eval's engine was asked for, by lm-eval's class."""

import json
from dataclasses import replace

import msgspec
import pytest
import yaml
from small_jobs import a_job, score
from tiny_models import save_model

from qeval.base.messages import Finished, Note
from qeval.base.records import Task
from qeval.score.harness import own
from qeval.score.harness.own import OwnLoop

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
N = 18


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def tasks(tmp_path):
    """A task that has a sum written out, N times."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"How much is {at} plus {at * at}?", "answer": str(at + at * at)} for at in range(N)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "own_sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["a", "\n\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "sums.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.fixture
def wrote(monkeypatch):
    """Whether the loop of our own wrote, each time that it was asked."""
    seen = []
    before = OwnLoop.__call__
    monkeypatch.setattr(own, "CHECK_READS", 0)

    def call(self, *told):
        found = before(self, *told)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(OwnLoop, "__call__", call)
    return seen


def test_both_ways_write_the_same_and_are_cells_of_their_own(tmp_path, llama, tasks, wrote):
    asked = (Task("own_sums", "exact_match"),)
    found, keys = [], set()
    for engine, told in (("tree", [True]), ("plain", []), ("lm-eval", [])):
        wrote.clear()
        job = a_job(tmp_path, llama, tasks=asked, tasks_dir=str(tasks), engine=engine, run_id=engine)
        samples, events = score(job)
        assert wrote == told
        found.append(samples["own_sums"].written.tolist())
        keys |= {event.cell.key for event in events if isinstance(event, Finished)}
    assert found[0] == found[1] == found[2]
    assert len({text for texts in found[0] for text in texts}) > 6
    assert len(keys) == 3


def test_what_is_drawn_is_lm_evals(tmp_path, llama, tasks, wrote):
    job = a_job(tmp_path, llama, tasks=(Task("own_sums", "exact_match"),), tasks_dir=str(tasks))
    score(msgspec.structs.replace(job, settings=replace(job.settings, temperature=0.8, repeats=2)))
    assert wrote == [False]


def test_why_the_loop_was_not_used_is_told(tmp_path, llama, tasks, monkeypatch):
    from qeval.score.engine import proofread

    monkeypatch.setattr(proofread, "doubt", lambda *_: "off by 1 nat")
    monkeypatch.setattr(own, "CHECK_READS", 0)
    job = a_job(tmp_path, llama, tasks=(Task("own_sums", "exact_match"),), tasks_dir=str(tasks))
    _, events = score(job)
    told = [event.text for event in events if isinstance(event, Note)]
    assert "own_sums: texts were written by lm-eval's own code (off by 1 nat)." in told
