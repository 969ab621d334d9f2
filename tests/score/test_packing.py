"""How a variant is fed: decided once, known to the key, kept with the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from small_jobs import TASKS, a_job, score
from tiny_models import save_model

from qeval.base.messages import Fed, Finished, Job, Note, Todo
from qeval.base.packing import Packing, Smaller
from qeval.base.records import Result, Run, Suite, Variant
from qeval.score.packing import decide, in_words
from qeval.store.runs import Store

pytestmark = pytest.mark.torch
PLAIN = Packing("CPU AVX2", 2, 4096, 4, 4)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def fed(events: list[object]) -> Packing:
    return [event.packing for event in events if isinstance(event, Fed)][-1]


def keys(events: list[object]) -> set[str]:
    return {event.cell.key for event in events if isinstance(event, Finished)}


def kept(job: Job, events: list[object]) -> None:
    """Write what a runner keeps of a job that is done."""
    cells = tuple(event.cell for event in events if isinstance(event, Finished))
    result = Result(job.variant, "done", cells, packing=fed(events))
    run = Run(job.run_id, "2026-01-02T03:04:05Z", job.variant.model, Suite("s", TASKS), "fp32", (result,))
    Store(Path(job.runs_dir)).run_dir(job.run_id).write(run)


def test_the_key_knows_device_threads_and_sizes_but_not_the_rung() -> None:
    others = [
        {"device": "CPU AVX512"},
        {"threads": 1},
        {"budget": 2048},
        {"batch_size": 8},
        {"shard": 2},
        {"compiled": True},
    ]
    told = [str(replace(PLAIN, **change).in_key("t")) for change in others]
    assert len({str(PLAIN.in_key("t")), *told}) == 7
    assert replace(PLAIN, rung="Plain batches").in_key("t") == PLAIN.in_key("t")
    assert all(not PLAIN.same_as(replace(PLAIN, **change)) for change in others)
    assert "by_block" not in PLAIN.in_key("t")  # keys that are older than it stay
    by_block = replace(PLAIN, compiled=True, by_block=True)
    assert by_block.in_key("t") != replace(PLAIN, compiled=True).in_key("t")
    assert by_block.with_smaller(Smaller("a", 64, ("t",))).by_block


def test_the_key_knows_the_shards_of_its_task_that_did_not_fit() -> None:
    small = PLAIN.with_smaller(Smaller("a", 64, ("t", "u")))
    assert small.in_key("t") == small.in_key("u") != PLAIN.in_key("t")
    assert small.in_key("v") == PLAIN.in_key("v")
    assert small.same_as(PLAIN)
    smaller = small.with_smaller(Smaller("a", 32, ("t", "u")))
    assert [one.size for one in smaller.smaller] == [32]
    assert in_words(smaller, tokens=True)[0].startswith(
        "Memory ran out in t: some of it was fed in pieces of"
    )


def test_it_is_decided_before_loading_and_alike_for_every_scheme(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama)
    import torch

    found = decide(job, 1000)
    assert found.threads == torch.get_num_threads()
    assert found.device.startswith("CPU ")
    assert not found.compiled
    four = Variant("bnb4", str(llama), msgspec.convert({"kind": "bnb4"}, type(job.variant.scheme)))
    assert decide(msgspec.structs.replace(job, variant=four), 1000) == found
    known = replace(found, rung="Plain batches", smaller=(Smaller("a", 64, ("t",)),))
    assert decide(msgspec.structs.replace(job, packing=known), 1000) == known
    elsewhere = replace(known, threads=known.threads + 1)
    assert decide(msgspec.structs.replace(job, packing=elsewhere), 1000) == found


def test_other_threads_are_other_cells_and_that_is_said(runs_dir: Path, llama: Path) -> None:
    import torch

    job = a_job(runs_dir, llama)
    before = torch.get_num_threads()
    _, first = score(job)
    kept(job, first)
    torch.set_num_threads(before + 1)
    try:
        _, second = score(job)
    finally:
        torch.set_num_threads(before)
    _, third = score(job)
    assert [event.found for event in second if isinstance(event, Todo)] == [0]
    assert not keys(first) & keys(second)
    assert keys(third) == keys(first)
    said = [event.text for event in second if isinstance(event, Note) and "scored anew" in event.text]
    assert len(said) == 1
    assert not any("scored anew" in event.text for event in third if isinstance(event, Note))


def test_a_device_by_another_name_is_the_same_cell(runs_dir: Path, llama: Path) -> None:
    """The third GPU of a machine gives the numbers of the first: what counts is the kind."""
    job = a_job(runs_dir, llama)
    _, first = score(job)
    from qeval.score.cells import JobCells

    other = JobCells(msgspec.structs.replace(job, settings=replace(job.settings, device="cuda:3")), print)
    other.packing = fed(first)
    cell = next(event.cell for event in first if isinstance(event, Finished))
    other.asked = {cell.task.name: Store(runs_dir).run_dir("r").made_of(cell)["context"]["asked"]}
    made_of = Store(runs_dir).run_dir("r").made_of(cell)
    other.job = msgspec.structs.replace(other.job, context={"lm_eval": made_of["context"]["lm_eval"]})
    assert other.key(cell.task) == cell.key


def test_the_rung_is_kept_and_the_next_worker_takes_it(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama)
    _, events = score(job)
    found = fed(events)
    assert found.rung.startswith("Token tree")
    settled = replace(found, rung="Head only where needed")
    fresh = msgspec.structs.replace(job, run_id="other", runs_dir=str(runs_dir / "more"), packing=settled)
    _, again = score(fresh)
    assert fed(again).rung == "Head only where needed"
    assert keys(again) == keys(events)


def test_half_of_it_is_taken_over_where_a_run_says_so_and_nothing_else(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama)
    usual = decide(job, 100)
    half = replace(usual.halved, rung="Plain batches")
    assert (half.budget, half.batch_size) == (usual.budget // 2, usual.batch_size // 2)
    assert decide(msgspec.structs.replace(job, packing=half), 100) == half
    other = replace(usual, budget=usual.budget // 2)
    assert decide(msgspec.structs.replace(job, packing=other), 100) == usual
    assert half.in_key("t") != usual.in_key("t")


def test_a_shard_that_did_not_fit_is_remembered_beside_its_numbers(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from qeval.score.engine.body import CausalModel

    plain, _ = score(a_job(runs_dir / "plain", llama))
    hidden = CausalModel.hidden

    def short(self: CausalModel, tokens: torch.Tensor, **more: object) -> torch.Tensor:
        if tokens.numel() > 600:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(self, tokens, **more)

    with monkeypatch.context() as patch:
        patch.setattr(CausalModel, "hidden", short)
        job = a_job(runs_dir, llama)
        found, events = score(job)
    packing = fed(events)
    tasks = {task for one in packing.smaller for task in one.tasks}
    assert tasks
    assert all(one.size <= 1024 for one in packing.smaller)
    notes = [event.text for event in events if isinstance(event, Note) and "Memory ran out" in event.text]
    assert notes
    assert {note.split()[4].rstrip(":") for note in notes} == tasks
    place = Store(runs_dir).run_dir("r")
    for cell in (event.cell for event in events if isinstance(event, Finished)):
        stored = place.cell(cell.key)
        assert stored is not None
        assert stored.provenance is not None
        told = any(cell.task.name in note for note in stored.provenance.notes)
        assert told == (cell.task.name in tasks) == ("smaller" in place.made_of(cell)["packing"])
    # Resumed with what the run knows, where memory is not short: the same cells, nothing is scored.
    _, resumed = score(msgspec.structs.replace(job, packing=packing))
    assert [event.found for event in resumed if isinstance(event, Todo)] == [len(TASKS)]
    # Computed anew with what the run knows: the same numbers, bit for bit.
    elsewhere = a_job(runs_dir / "again", llama, packing=packing)
    again, _ = score(elsewhere)
    for name, samples in found.items():
        assert samples.scores.tolist() == again[name].scores.tolist()
        assert samples.value.tolist() == again[name].value.tolist()
    assert any(found[name].value.tolist() == plain[name].value.tolist() for name in plain)


@pytest.mark.parametrize(
    ("kind", "gpu", "asked", "budget"),
    [
        ("fp16", 80, "auto", 16384),
        ("fp16", 24, "auto", 16384),  # two blocks leave room for as much
        ("bnb4", 24, "auto", 16384),
        ("fp16", 24, "resident", 256),
        ("bnb8", 24, "auto", 8192),  # its layers lie on the device as they are
        ("fp16", 4, "auto", 1024),
        ("fp16", 80, "streamed", 16384),
    ],
)
def test_the_budget_counts_what_lies_on_the_device(
    runs_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    gpu: int,
    asked: str,
    budget: int,
) -> None:
    """The 13B shape; the same whatever is free at the moment."""
    from qeval.score import packing

    place = tmp_path / "large"
    place.mkdir()
    with (place / "model.safetensors").open("wb") as file:
        file.truncate(26 * 10**9)
    shape = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "vocab_size": 32000}
    (place / "config.json").write_text(msgspec.json.encode({**shape, "dtype": "float16"}).decode())
    for module in (packing, packing.memory):
        monkeypatch.setattr(module, "gpu_total", lambda _: gpu * 2**30)
    monkeypatch.setattr(packing, "device_kind", lambda _: "a GPU")
    monkeypatch.setattr(packing, "host_bytes", lambda: 2**37)
    job = a_job(runs_dir, save_model(tmp_path / "small"), device="cuda:0", placement=asked)
    scheme = msgspec.convert({"kind": kind}, type(job.variant.scheme))
    job = msgspec.structs.replace(job, variant=Variant(kind, str(place), scheme))
    found = decide(job, 10**9)
    assert (found.budget, found.compiled, found.by_block) == (budget, True, True)
