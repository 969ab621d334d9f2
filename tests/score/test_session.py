"""Scoring a real, tiny model: lm-eval's own numbers, resumed bit by bit, never a silent 0."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from small_jobs import TASKS, a_job, score
from tiny_models import edit_json, save_model

from qeval.ask import policy
from qeval.base.errors import QevalError
from qeval.base.messages import Done, Fed, Finished, Job, Note, Todo
from qeval.base.places import tasks_dir
from qeval.base.records import Provenance, Run, Scheme, Suite, Task, Variant
from qeval.load.resolve import identity
from qeval.score.cells import StoppedEarly
from qeval.score.engine.tree import Chunk
from qeval.score.harness.prepared import PreparedTask
from qeval.store.runs import Store

pytestmark = pytest.mark.torch
GROUP = tuple(replace(task, group="g") for task in TASKS[:2])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def test_the_numbers_are_those_of_lm_eval(runs_dir: Path, llama: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama, dtype="float32").eval()
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(llama), batch_size=1),
        tasks=[task.name for task in TASKS],
        task_manager=TaskManager(include_path=str(tasks_dir()), include_defaults=False),
        limit=6,
        bootstrap_iters=0,
        log_samples=True,
    )
    ours, events = score(a_job(runs_dir, llama))
    for task in TASKS:
        rows = sorted(theirs["samples"][task.name], key=lambda row: row["doc_id"])
        mine = ours[task.name]
        assert mine.doc_hash.tolist() == [row["doc_hash"] for row in rows]
        assert mine.prompt_hash.tolist() == [row["prompt_hash"] for row in rows]
        if task.name == "qeval_prose":
            expected = [row["word_perplexity"] for row in rows]
            np.testing.assert_allclose(mine.value, [value for value, _ in expected], rtol=1e-5)
            assert mine.weight.tolist() == [weight for _, weight in expected]
        else:
            assert mine.value.tolist() == [row[task.metric] for row in rows]
            expected = [[response[0] for response in row["filtered_resps"]] for row in rows]
            np.testing.assert_allclose([list(row) for row in mine.scores], expected, atol=1e-4)
    (done,) = (event for event in events if isinstance(event, Done))
    assert done.cost is not None
    assert done.cost.peak_bytes is not None
    assert done.cost.peak_bytes > 2**26  # torch alone takes more
    assert any("the variant's whole process" in note for note in done.cost.notes)
    cells = {event.cell.task.name: event.cell for event in events if isinstance(event, Finished)}
    assert cells["qeval_prose"].truncated == 0
    assert all(cell.limited for cell in cells.values())


@pytest.mark.parametrize(("asked", "quick", "names"), [(None, True, 1), (None, False, 0), (False, True, 0)])
def test_affordable_costs_are_measured_unasked_on_a_gpu_but_not_against_a_no(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, asked: bool | None, quick: bool, names: int
) -> None:
    from qeval.score import cost

    bench = cost.Bench(4, (1,), (), (), repeats=1, warmup=0, seconds=60)
    monkeypatch.setattr(cost, "affordable", lambda *_: bench if quick else None)
    _, events = score(a_job(tmp_path, llama, tasks=TASKS[:1], cost=asked))
    (done,) = (event for event in events if isinstance(event, Done))
    assert done.cost is not None
    assert len(done.cost.measures) == 2 * names
    assert done.cost.peak_bytes is not None


@pytest.mark.parametrize("engine", ["plain", "lm-eval"])
def test_every_engine_says_the_same(runs_dir: Path, llama: Path, engine: str) -> None:
    tree, _ = score(a_job(runs_dir, llama, run_id="tree"))
    other, events = score(a_job(runs_dir, llama, run_id="other", engine=engine))
    for name, samples in tree.items():
        np.testing.assert_allclose(samples.value, other[name].value, rtol=1e-5, atol=1e-5)
    provenance = events[-1].provenance
    assert provenance.engine == engine


def test_a_faster_path_that_fails_by_a_bug_is_told_where_the_report_tells_it(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factories import make_run

    from qeval.compare.evidence import gather
    from qeval.report.cautions import cautions
    from qeval.score.engine.tiles import Tiles

    monkeypatch.setattr(Tiles, "masks", lambda *_: {}["planted"])
    job = a_job(runs_dir, llama, tasks=TASKS[:1])
    _, events = score(job)
    (done,) = (event for event in events if isinstance(event, Done))
    sentence = (
        "The faster path 'Token tree with tiles' failed unexpectedly (KeyError: 'planted') and was left out;"
        f" see {job.log}."
    )
    assert done.provenance is not None
    assert sentence in done.provenance.notes
    assert Note(sentence) in events
    run, read, _ = make_run(1)
    run = replace(run, results=(replace(run.results[0], provenance=done.provenance),))
    assert sentence in cautions(gather(run, read)).first


def test_verify_tells_the_largest_difference(runs_dir: Path, llama: Path) -> None:
    _, events = score(a_job(runs_dir, llama, verify=4))
    [note] = [event.text for event in events if isinstance(event, Note) and "Verified" in event.text]
    assert "Verified 12 documents" in note  # four of each task
    largest = float(note.split("difference is ")[1].split()[0])
    assert 0 <= largest < 1e-4
    assert "0 greedy flags differ" in note


def test_verify_sees_that_the_model_was_given_another_length(
    runs_dir: Path, llama: Path, monkeypatch
) -> None:
    """lm-eval asks the model's own configuration, so that questions which were cut too short are off."""
    from qeval.score.harness import door

    wrong, longest = [64], door.longest  # for the questions; later calls are told the truth
    monkeypatch.setattr(door, "longest", lambda *of: wrong.pop() if wrong else longest(*of))
    with pytest.raises(QevalError, match="lm-eval's own code gives other numbers for qeval_facts"):
        score(a_job(runs_dir, llama, verify=40))
    wrong.append(200)  # long enough for these
    _, events = score(a_job(runs_dir / "short", llama, verify=40, tasks=TASKS[:1]))
    [told] = [event.text for event in events if isinstance(event, Note) and "by itself" in event.text]
    assert re.search(r"see \d{3,} tokens at a time; it was asked with 200", told)


def test_a_start_token_that_stands_twice_is_told_with_both_numbers(
    runs_dir: Path, llama: Path, tmp_path
) -> None:
    """The tokenizer adds <s>: the engine scores the first windows with one of them too."""
    copied = shutil.copytree(llama, tmp_path / "starts")
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
    template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    edit_json(copied / "tokenizer.json", post_processor=template)
    variant = Variant("fp32", str(copied), Scheme("fp32"))
    _, events = score(a_job(runs_dir, llama, variant=variant, identity=identity(variant, runs_dir / "cache")))
    [cell] = [e.cell for e in events if isinstance(e, Finished) and e.cell.task.name == "qeval_prose"]
    one = cell.metrics["word_perplexity_with_one_start,none"]
    assert one != pytest.approx(cell.metrics["word_perplexity,none"], rel=1e-6)
    [note] = [e.text for e in events if isinstance(e, Note) and "start token" in e.text]
    assert f"{one:.4g}" in note
    [done] = [event for event in events if isinstance(event, Done)]
    assert note in done.provenance.warnings


def test_framed_perplexities_are_cells_of_their_own(runs_dir: Path, llama: Path, tmp_path) -> None:
    copied = shutil.copytree(llama, tmp_path / "chats")
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    edit_json(copied / "tokenizer_config.json", chat_template=template)
    variant = Variant("fp32", str(copied), Scheme("fp32"))
    changes = {"variant": variant, "identity": identity(variant, runs_dir / "cache"), "tasks": TASKS[2:]}
    raw, events = score(a_job(runs_dir, llama, **changes))
    [plain] = [event.cell for event in events if isinstance(event, Finished)]
    job = a_job(runs_dir, llama, verify=4, **changes)
    framed, events = score(msgspec.structs.replace(job, settings=replace(job.settings, framed=True)))
    [cell] = [event.cell for event in events if isinstance(event, Finished)]
    assert cell.key != plain.key
    assert cell.score != pytest.approx(plain.score, rel=1e-3)
    before, after = raw["qeval_prose"], framed["qeval_prose"]
    assert after.weight.tolist() == before.weight.tolist()
    assert not set(after.prompt_hash) & set(before.prompt_hash)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("perplexity inside the chat template" in note for note in notes)
    assert not any("Verified" in note for note in notes)


def test_a_lost_cell_is_computed_again_to_the_very_same_bytes(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama)
    first, _ = score(job)
    files = {path: path.read_bytes() for path in (runs_dir / "r").rglob("samples.parquet")}
    lost = min(files)
    for path in lost.parent.iterdir():
        path.unlink()
    lost.parent.rmdir()
    score(job)
    assert {path: path.read_bytes() for path in (runs_dir / "r").rglob("samples.parquet")} == files
    assert len(first) == 3


def test_nothing_is_loaded_when_everything_is_finished(runs_dir: Path, llama: Path, monkeypatch) -> None:
    from qeval.load import model as models

    job = a_job(runs_dir, llama)
    _, events = score(job)
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("weights were loaded"))
    again, more = score(job)
    assert len(again) == 3
    assert more[-1].provenance == events[-1].provenance


BENCH = {"repeats": 1, "warmup": 0, "seconds": 60}


@pytest.fixture
def short_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.score import cost

    monkeypatch.setattr(cost, "CPU", cost.Bench(4, (1,), (), (), **BENCH))


@pytest.mark.usefixtures("short_bench")
def test_costs_asked_for_are_measured_of_what_is_finished_and_nothing_is_scored_again(
    runs_dir: Path, llama: Path, monkeypatch
) -> None:
    from qeval.score import session

    job = a_job(runs_dir, llama)
    _, events = score(job)
    monkeypatch.setattr(session, "Session", lambda *_: pytest.fail("a session was opened to score"))
    _, more = score(msgspec.structs.replace(job, cost=True))
    done = more[-1]
    assert done.provenance == events[-1].provenance
    assert "prefill/batch=1/prompt=4" in done.cost.measures
    assert done.cost.peak_bytes is None  # that of scoring is another process's


@pytest.mark.usefixtures("short_bench")
def test_where_nothing_is_scored_peak_memory_is_said_to_be_that_of_measuring(
    runs_dir: Path, llama: Path
) -> None:
    _, scored = score(a_job(runs_dir, llama, cost=True))
    _, unscored = score(a_job(runs_dir, llama, tasks=(), cost=True, run_id="cost"))
    note = "Nothing was scored: peak memory is that of measuring."
    said = [note in events[-1].cost.notes for events in (scored, unscored)]
    assert said == [False, True]
    assert unscored[-1].cost.peak_bytes > 2**26
    assert unscored[-1].cost.measures
    assert unscored[-1].provenance.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize("finished", [False, True])
def test_a_failure_while_measuring_is_a_note_and_the_variant_is_done(
    runs_dir: Path, llama: Path, monkeypatch, finished: bool
) -> None:
    from qeval.score import cost

    def broken(*_: object, **__: object) -> None:
        raise IndexError("index out of range in self\nand a long story")

    monkeypatch.setattr(cost, "measure", broken)
    job = a_job(runs_dir, llama, tasks=TASKS[:1])
    if finished:
        score(job)
    _, events = score(msgspec.structs.replace(job, cost=True))
    note = "Not measured: IndexError: index out of range in self."
    assert events[-1].cost.notes[0] == note
    assert (events[-1].cost.peak_bytes is None) is finished
    assert Note(note) in events


@pytest.mark.usefixtures("short_bench")
def test_costs_are_those_of_the_schemes_own_layers_never_of_materialised_ones(
    runs_dir: Path, llama: Path, monkeypatch
) -> None:
    pytest.importorskip("bitsandbytes")
    from qeval.score import cost

    measure, seen = cost.measure, []

    def spy(loaded, **keywords):
        found = [module for module in loaded.model.modules() if type(module).__name__ == "Linear4bit"]
        seen.extend(getattr(module, "support_avx512bf16_for_cpu", None) for module in found)
        return measure(loaded, **keywords)

    monkeypatch.setattr(cost, "measure", spy)
    variant = Variant("bnb4", str(llama), Scheme("bnb4"))
    _, events = score(a_job(runs_dir, llama, variant=variant, tasks=TASKS[:1], cost=True))
    done = events[-1]
    assert done.provenance.materialized
    assert len(seen) == sum(done.provenance.modules.values()) > 0
    assert any("of the layers as loaded (Linear4bit)" in note for note in done.cost.notes)


@pytest.mark.usefixtures("short_bench")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("materialize", [True, False])
def test_the_librarys_own_kernels_are_for_costs_alone(
    runs_dir: Path, llama: Path, monkeypatch, materialize: bool
) -> None:
    """Unless nothing is dequantised: then what is scored is what is timed, and nothing is loaded twice."""
    pytest.importorskip("gptqmodel")
    from qeval.load import model as models

    load, fast = models.load, []

    def spy(*given: object, **named: object) -> models.Loaded:
        fast.append(named["fast"])
        found = load(*given, **named)
        note = "gptqmodel's own choice of kernel, machete, does not run here (no); torch does and is used."
        notes = (*found.provenance.notes, *([note] if named["fast"] else []))
        return replace(found, provenance=replace(found.provenance, notes=notes))

    monkeypatch.setattr(models, "load", spy)
    options = {"group_size": 32, "calibration": "own", "samples": 2, "length": 16}
    variant = Variant("gptq", str(llama), Scheme("gptq", options))
    job = a_job(runs_dir, llama, variant=variant, tasks=TASKS[:1], cost=True)
    job = msgspec.structs.replace(job, settings=replace(job.settings, materialize=materialize))
    done = score(job)[1][-1]
    assert fast == ([False, True] if materialize else [True])
    assert done.provenance.materialized is materialize
    assert done.provenance.modules == {"TorchLinear": 14}
    assert any("of the layers as loaded (TorchLinear)" in note for note in done.cost.notes)
    assert any("machete, does not run here" in note for note in done.cost.notes)
    assert any("machete" in note for note in done.provenance.notes) is not materialize


@pytest.mark.parametrize(("device", "forgotten"), [("cuda:1", ["loaded", "cuda:1"]), ("cpu", ["loaded"])])
def test_a_gpus_peak_memory_is_counted_from_the_end_of_loading(
    runs_dir: Path, llama: Path, monkeypatch, device: str, forgotten: list[str]
) -> None:
    import torch

    from qeval.load import model as models
    from qeval.score import inputs

    seen: list[str] = []
    loaded = models.Loaded(None, None, Provenance("m"))
    monkeypatch.setattr(models, "load", lambda *_, **__: seen.append("loaded") or loaded)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", seen.append)
    job = a_job(runs_dir, llama)
    job = msgspec.structs.replace(job, settings=replace(job.settings, device=device))
    assert inputs.loaded_variant(job, lambda _: None) is loaded
    assert seen == forgotten


@pytest.mark.parametrize("engine", ["tree", "plain", "lm-eval"])
def test_logits_that_are_no_numbers_fail_with_task_and_item(
    runs_dir: Path, llama: Path, tmp_path: Path, engine: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(llama, dtype="float32")
    model.model.norm.weight.data[:] = float("nan")
    model.save_pretrained(broken)
    AutoTokenizer.from_pretrained(llama).save_pretrained(broken)
    with pytest.raises(QevalError, match=r"not finite.* item \d+ of qeval_facts") as caught:
        score(a_job(runs_dir, broken, engine=engine))
    assert "dtype" in caught.value.hint
    assert list(runs_dir.glob("r/cells/*/cell.json")) == []


def test_a_gate_stops_a_real_model_too(runs_dir: Path, llama: Path, tmp_path: Path) -> None:
    tasks = (replace(TASKS[0], limit=120),)
    first = a_job(runs_dir, llama, tasks=tasks)
    good, _ = score(first)
    bad = Variant("bad", str(save_model(tmp_path / "ruined", seed=5)), Scheme("fp32"))
    rules = policy.parse({"rule": [{"max_flips": 0.01}]})
    watched = {"run_id": "s", "policy": rules, "baseline": first.identity}
    job = a_job(runs_dir, llama, tasks=tasks, variant=bad, **watched)
    run = Run("s", "2026-01-02T03:04:05Z", str(llama), Suite("facts", tasks), "fp32", ())
    Store(runs_dir).run_dir("s").write(run)
    with pytest.raises(StoppedEarly) as caught:
        score(job)
    assert caught.value.stop.items < len(good["qeval_facts"]) == 120


# --- scored a second time ------------------------------------------------------------------------


def test_the_other_path_asks_the_same_and_says_nearly_the_same(runs_dir: Path, llama: Path) -> None:
    tree, first = score(a_job(runs_dir, llama))
    again, events = score(a_job(runs_dir, llama, engine="plain", shuffled=True))
    assert tree.keys() == again.keys()
    for name, samples in tree.items():
        for column in ("key", "doc_hash", "prompt_hash", "target_hash", "weight", "gold"):
            assert getattr(samples, column).tolist() == getattr(again[name], column).tolist()
        np.testing.assert_allclose(samples.value, again[name].value, rtol=1e-5, atol=1e-5)
    assert any(tree[name].scores.tolist() != again[name].scores.tolist() for name in tree)
    keys = [{e.cell.key for e in said if isinstance(e, Finished)} for said in (first, events)]
    assert len(keys[0] | keys[1]) == 2 * len(TASKS)
    assert [next(e for e in said if isinstance(e, Done)).provenance.engine for said in (first, events)] == [
        "tree",
        "plain",
    ]


def test_part_of_a_group_that_is_stored_leaves_the_rest_as_it_was(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama, engine="plain", shuffled=True, tasks=GROUP)
    whole, events = score(job)
    lost, kept = (event.cell for event in events if isinstance(event, Finished))
    shutil.rmtree(Store(runs_dir).run_dir("r").path / "cells" / lost.key)
    resumed, said = score(job)
    assert [e.found for e in said if isinstance(e, Todo)] == [1]
    assert sorted(e.cell.key for e in said if isinstance(e, Finished)) == sorted([lost.key, kept.key])
    for name, samples in whole.items():
        assert samples.scores.tolist() == resumed[name].scores.tolist()


# --- numbers do not depend on history ----------------------------------------------------------------


def gated(runs_dir: Path, llama: Path, rules: dict[str, object], run_id: str = "s") -> Job:
    """A job of a variant that is watched on GROUP, beside a baseline that is scored first."""
    first = a_job(runs_dir, llama, tasks=(*GROUP, TASKS[2]))
    score(first)
    found = policy.parse({"rule": [rules]})
    run = Run(run_id, "2026-01-02T03:04:05Z", str(llama), Suite("facts", first.tasks), "fp32", ())
    Store(runs_dir).run_dir(run_id).write(run)
    other = Variant("other", str(llama), Scheme("bf16"))
    watched = {"run_id": run_id, "policy": found, "baseline": first.identity}
    return a_job(runs_dir, llama, tasks=first.tasks, variant=other, **watched)


def test_a_gated_group_of_which_a_part_is_stored_keeps_its_numbers(runs_dir: Path, llama: Path) -> None:
    job = gated(runs_dir, llama, {"max_drop": 90.0})
    whole, events = score(job)
    place = Store(runs_dir).run_dir("s")
    lost = next(e.cell for e in events if isinstance(e, Finished))
    shutil.rmtree(place.path / "cells" / lost.key)
    resumed, said = score(job)
    assert [e.found for e in said if isinstance(e, Todo)] == [len(TASKS) - 1]
    for name, samples in whole.items():
        assert samples.scores.tolist() == resumed[name].scores.tolist()


def test_what_no_rule_watches_is_the_same_cell_with_and_without_a_gate(runs_dir: Path, llama: Path) -> None:
    """The key names no policy, so a policy that watches a task and one that does not must not share a key
    with numbers of different orders."""
    job = gated(runs_dir, llama, {"max_drop": 90.0, "tasks": "qeval_facts"})
    _, events = score(job)
    shuffled = {
        e.cell.task.name: Store(runs_dir).run_dir("s").made_of(e.cell)["shuffled"]
        for e in events
        if isinstance(e, Finished)
    }
    assert shuffled == {"qeval_facts": True, "qeval_continuations": True, "qeval_prose": False}
    plain = msgspec.structs.replace(job, run_id="p", policy=None, baseline=None)
    _, said = score(plain)
    assert [e.found for e in said if isinstance(e, Todo)] == [1]


def test_a_path_that_fails_between_two_blocks_leaves_no_answer_of_it(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.score.engine.engine import Engine
    from qeval.score.feeding import Feeder

    job = gated(runs_dir, llama, {"max_drop": 90.0})
    job = msgspec.structs.replace(job, tasks=tuple(replace(task, limit=60) for task in job.tasks[:2]))
    score(
        msgspec.structs.replace(
            job,
            variant=Variant("fp32", str(llama), Scheme("fp32")),
            identity=job.baseline,
            policy=None,
            baseline=None,
        )
    )
    run, asked = Feeder.answered, []

    def fails_at_the_second(self: Feeder, *what: object) -> object:
        asked.append(self.packing.rung)
        if len(asked) == 2:
            monkeypatch.setattr(Engine, "_chunk", broken)
        return run(self, *what)

    def broken(*_: object) -> object:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Feeder, "answered", fails_at_the_second)
        found, events = score(job)
    assert len(asked) > 2
    packing = [e.packing for e in events if isinstance(e, Fed)][-1]
    assert packing.rung == "Shared KV cache"
    again = msgspec.structs.replace(job, runs_dir=str(runs_dir / "again"), packing=packing)
    shutil.copytree(runs_dir, runs_dir / "again")
    for e in events:
        if isinstance(e, Finished):
            shutil.rmtree(runs_dir / "again" / "s" / "cells" / e.cell.key)
    fresh, _ = score(again)
    for name, samples in found.items():
        assert samples.scores.tolist() == fresh[name].scores.tolist()


def generating(folder: Path) -> Path:
    """A folder of tasks with one that generates."""
    import yaml

    fixtures = Path(__file__).parent / "harness" / "fixtures"
    task = yaml.safe_load((fixtures / "sums.yaml").read_text())
    task["dataset_kwargs"]["data_files"]["test"] = str(fixtures / "sums.jsonl")
    task["generation_kwargs"]["max_gen_toks"] = 24
    folder.mkdir()
    (folder / "sums.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_checkpoints_that_differ_in_generation_settings_alone_answer_alike(
    tmp_path: Path, llama: Path
) -> None:
    from qeval.load import model

    loaded = model.load(
        Variant("bnb4", str(llama), Scheme("bnb4")), device="cpu", cache_dir=tmp_path / "cache"
    )
    ready = [tmp_path / "of" / "plain", tmp_path / "of" / "odd"]
    for place in ready:
        loaded.model.save_pretrained(place)
    edit_json(ready[1] / "generation_config.json", repetition_penalty=5.0, min_new_tokens=9)
    tasks = (Task("fix_sums", "exact_match", filter="whole"),)
    folder, answers, said = str(generating(tmp_path / "tasks")), [], []
    for place in ready:
        variant = Variant(place.name, str(llama), Scheme("bnb4", {}, str(place)))
        job = a_job(tmp_path, llama, variant=variant, tasks=tasks, tasks_dir=folder, run_id=place.name)
        samples, events = score(job)
        answers.append(samples["fix_sums"].answer.tolist())
        said.append([event.text for event in events if isinstance(event, Note)])
    assert any(answers[0])
    assert answers[0] == answers[1]
    told = [[text for text in texts if "generation settings of its own" in text] for texts in said]
    assert [len(texts) for texts in told] == [0, 1]
    assert "(min_new_tokens, repetition_penalty)" in told[1][0]


def longer_tokenizer(llama: Path, place: Path, *words: str) -> Path:
    """A copy whose tokenizer knows words that the model has no embeddings for."""
    from transformers import AutoTokenizer

    shutil.copytree(llama, place)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens([f"~{at}~" for at in range(60)])
    tokenizer.add_tokens(list(words))
    tokenizer.save_pretrained(place)
    return place


def test_a_longer_tokenizer_is_refused_only_where_a_question_holds_such_a_token(
    tmp_path: Path, llama: Path
) -> None:
    plain, _ = score(a_job(tmp_path, llama))
    fits = longer_tokenizer(llama, tmp_path / "of-fits")
    same, events = score(a_job(tmp_path, fits, run_id="fits"))
    for name, samples in plain.items():
        assert samples.value.tolist() == same[name].value.tolist()
    told = [event.text for event in events if isinstance(event, Note) and "embeddings for 300" in event.text]
    assert len(told) == 1
    holds = longer_tokenizer(llama, tmp_path / "of-holds", "the")
    with pytest.raises(QevalError, match=r"asks for the token 'the' \(\d+\), and .* for 300 tokens"):
        score(a_job(tmp_path, holds, run_id="holds"))
    job = a_job(
        tmp_path,
        longer_tokenizer(llama, tmp_path / "of-asks", "How"),
        run_id="asks",
        tasks=(Task("fix_sums", "exact_match", filter="whole"),),
        tasks_dir=str(generating(tmp_path / "tasks")),
    )
    with pytest.raises(QevalError, match=r"fix_sums asks for the token 'How'"):
        score(job)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_an_adapter_that_brings_new_tokens_is_scored_as_by_lm_eval(tmp_path: Path, llama: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["the", *(f"~{at}~" for at in range(309 - len(tokenizer)))])
    model.resize_token_embeddings(310)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    variant = Variant("fp32", str(llama), Scheme("fp32"), adapter=str(tmp_path / "adapter"))
    ours, events = score(a_job(tmp_path, llama, variant=variant, run_id="tree"))
    theirs, _ = score(a_job(tmp_path, llama, variant=variant, run_id="other", engine="lm-eval"))
    assert events[-1].provenance.engine == "tree"
    plain, _ = score(a_job(tmp_path, llama, run_id="plain"))
    for name, samples in ours.items():
        np.testing.assert_allclose(samples.value, theirs[name].value, rtol=1e-5, atol=1e-5)
    assert not np.allclose(ours["qeval_prose"].value, plain["qeval_prose"].value)


# --- paths that fail, and lm-eval's word ------------------------------------------------------------


def test_a_path_that_fails_in_the_middle_is_left_for_the_next(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.score.engine.engine import Engine

    plain, _ = score(a_job(runs_dir / "plain", llama))
    run, seen = Engine._chunk, []

    def fails_later(self: Engine, packing: object, *more: object) -> object:
        if len(packing.requests) > 30:  # more than the check asks at once
            seen.append(len(packing.requests))
            raise ValueError("The size of tensor a (2048) must match the size of tensor b (64).")
        return run(self, packing, *more)

    monkeypatch.setattr(Engine, "_chunk", fails_later)
    tasks = (replace(TASKS[0], limit=40), *TASKS[1:])
    _, events = score(a_job(runs_dir, llama, tasks=tasks))
    assert seen
    (done,) = (event for event in events if isinstance(event, Done))
    assert done.provenance.engine == "kv"
    left = [note for note in done.provenance.notes if "was left at qeval_facts" in note]
    assert [note.partition(" was")[0] for note in left] == [
        "Token tree with tiles",
        "Token tree with a dense mask",
    ]
    assert all("must match the size" in note for note in left)
    place = Store(runs_dir).run_dir("r")
    cells = {event.cell.task.name: event.cell for event in events if isinstance(event, Finished)}
    np.testing.assert_allclose(
        [list(row) for row in place.samples(cells["qeval_facts"]).scores[:6]],
        [list(row) for row in plain["qeval_facts"].scores],
        atol=1e-4,
    )
    assert len(cells) == len(TASKS)


@pytest.mark.parametrize("gate", [False, True])
def test_what_was_checked_is_not_checked_again_for_each_task_or_block(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, *, gate: bool
) -> None:
    """More than nine texts begin with one token: more than are ever checked that share a context."""
    from qeval.score.engine import engine as engines

    def refused(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(engines, "probe", refused)
    tasks = (TASKS[0], replace(TASKS[2], limit=12))
    job = gated(runs_dir, llama, {"max_drop": 90.0}) if gate else a_job(runs_dir, llama)
    found, _ = score(msgspec.structs.replace(job, tasks=tasks))
    assert len(found["qeval_prose"]) == 12


@pytest.mark.parametrize("first_alone", [False, True])
def test_a_path_that_is_wrong_for_the_second_task_alone_stores_nothing_of_it(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, *, first_alone: bool
) -> None:
    """It is seen before anything is scored, for all tasks are looked at; and where only the first was, before
    the second is scored. What was stored is kept when the run is resumed."""
    from qeval.score.engine.tiles import Tiles
    from qeval.score.session import Session

    tasks = (TASKS[0], TASKS[2])
    plain, _ = score(a_job(runs_dir / "plain", llama, tasks=tasks))
    masks, expect, reach = Tiles.masks, Session.expect, [0]

    def looked_at(self: Session, parts: Sequence[PreparedTask]) -> None:
        reach[0] = max(len(request.tokens) for request in parts[0].requests)
        assert reach[0] < max(len(request.tokens) for request in parts[1].requests)
        expect(self, parts[:1] if first_alone else parts)

    def wrong(self: Tiles, chunk: Chunk) -> object:
        """In a chunk with a text longer than all questions of the first task, neighbours are seen."""
        everyone = np.full_like(chunk.end, len(chunk.tokens))
        return masks(self, replace(chunk, end=everyone) if chunk.positions.max() >= reach[0] else chunk)

    monkeypatch.setattr(Session, "expect", looked_at)
    monkeypatch.setattr(Tiles, "masks", wrong)
    job = a_job(runs_dir, llama, tasks=tasks)
    found, events = score(job)
    steps = [
        event.packing.rung if isinstance(event, Fed) else event.cell.task.name
        for event in events
        if isinstance(event, (Fed, Finished))
    ]
    right, facts, prose = "Token tree with a dense mask", "qeval_facts", "qeval_prose"
    late = ["Token tree with tiles", facts, right, prose]
    assert steps == (late if first_alone else [right, facts, prose])
    for name, samples in plain.items():
        np.testing.assert_allclose(found[name].value, samples.value, rtol=1e-5, atol=1e-5)
    lost, packing = ([e for e in events if isinstance(e, kind)][-1] for kind in (Finished, Fed))
    shutil.rmtree(Store(runs_dir).run_dir("r").path / "cells" / lost.cell.key)
    again, said = score(msgspec.structs.replace(job, packing=packing.packing))
    assert [event.found for event in said if isinstance(event, Todo)] == [1]
    assert [event.packing.rung for event in said if isinstance(event, Fed)] == [right]
    for name, samples in found.items():
        assert samples.scores.tolist() == again[name].scores.tolist()


def test_where_lm_eval_finds_other_numbers_the_variant_fails_and_nothing_wrong_is_stored(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.score.engine.engine import Engine
    from qeval.score.engine.requests import Answer

    run = Engine.score

    def off(self: Engine, requests: object, wanted: object = None) -> object:
        for index, answer in run(self, requests, wanted=wanted):
            yield index, Answer(answer.loglikelihood - 0.05, answer.greedy)

    monkeypatch.setattr(Engine, "score", off)
    with pytest.raises(QevalError, match=r"lm-eval's own code gives other numbers for qeval_facts") as caught:
        score(a_job(runs_dir, llama, verify=2))
    assert "--engine lm-eval" in caught.value.hint
    assert list(runs_dir.glob("r/cells/*/cell.json")) == []
    monkeypatch.undo()
    _, events = score(a_job(runs_dir, llama, verify=2))
    assert [event.found for event in events if isinstance(event, Todo)] == [0]


def test_what_was_stored_unverified_is_verified_when_that_is_asked_for(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.score.engine.engine import Engine
    from qeval.score.engine.requests import Answer

    job = a_job(runs_dir, llama)
    first, _ = score(job)
    checked, events = score(msgspec.structs.replace(job, verify=2))
    assert [len(e.tasks) for e in events if isinstance(e, Todo)] == [len(TASKS)]
    assert any("Verified 6 documents" in e.text for e in events if isinstance(e, Note))
    for name, samples in first.items():
        assert samples.scores.tolist() == checked[name].scores.tolist()
    _, again = score(msgspec.structs.replace(job, verify=2))
    assert [(len(e.tasks), e.found) for e in again if isinstance(e, Todo)] == [(0, len(TASKS))]
    run = Engine.score

    def off(self: Engine, requests: object, wanted: object = None) -> object:
        for index, answer in run(self, requests, wanted=wanted):
            yield index, Answer(answer.loglikelihood - 0.05, answer.greedy)

    monkeypatch.setattr(Engine, "score", off)
    with pytest.raises(QevalError, match="gives other numbers"):
        score(msgspec.structs.replace(job, verify=4))


def test_lm_eval_verifies_documents_of_every_row(runs_dir: Path, llama: Path) -> None:
    tasks = (*GROUP, TASKS[2])
    _, events = score(a_job(runs_dir, llama, verify=3, tasks=tasks))
    (done,) = (event for event in events if isinstance(event, Done))
    notes = [note for note in done.provenance.notes if note.startswith("Verified 6 documents")]
    assert len(notes) == 1
    assert "0 greedy flags differ" in notes[0]


def test_what_libraries_warn_of_stands_beside_the_numbers_once(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging
    import warnings

    from qeval.load import model as models
    from qeval.score.harness import door

    load, collect = models.load, door.collect

    def loading(*given: object, **more: object) -> object:
        logging.getLogger("transformers.x").warning("The fast path is not available because of this machine.")
        return load(*given, **more)

    def collecting(*given: object) -> object:
        for length in (300, 400):
            logging.getLogger("lm_eval.models.huggingface").warning(
                "Combined length of context (%d) and continuation (1) exceeds model's maximum length (256).",
                length,
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("Applied prompt returns empty string", stacklevel=1)
        return collect(*given)

    monkeypatch.setattr(models, "load", loading)
    monkeypatch.setattr(door, "collect", collecting)
    _, said = score(a_job(tmp_path, llama))
    expected = (
        "The fast path is not available because of this machine.",
        "lm-eval cuts questions from the left where they are longer than the model accepts (256 tokens).",
    )
    (done,) = [event for event in said if isinstance(event, Done)]
    assert [note for note in done.provenance.notes if note in expected] == list(expected)
    notes = [event.text for event in said if isinstance(event, Note)]
    assert [note for note in notes if note in expected] == list(expected)


def test_a_warning_while_loading_stands_in_the_notes(tmp_path: Path, llama: Path) -> None:
    from qeval.load import model as models

    strange = tmp_path / "strange"
    shutil.copytree(llama, strange)
    yarn = {"rope_type": "yarn", "factor": 7.25, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    edit_json(strange / "config.json", rope_parameters=yarn)
    variant = Variant("v", str(strange), Scheme("fp32"))
    loaded = models.load(variant, device="cpu", cache_dir=tmp_path / "cache")
    (note,) = [note for note in loaded.provenance.notes if "RoPE scaling factor" in note]
    assert "7.25" in note


def test_lm_evals_warnings_are_heard_where_it_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from qeval.base.listening import listening
    from qeval.score.harness.tame import lm_eval_tamed

    logger = logging.getLogger("lm_eval")
    before = logger.level, logger.propagate, list(logger.handlers)
    with listening() as heard, lm_eval_tamed():
        logging.getLogger("lm_eval.api.task").warning("Applied prompt returns empty string")
        logging.getLogger("lm_eval.api.task").error("This is broken.")
    assert heard.drain() == ("Applied prompt returns empty string.",)
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    printed = capsys.readouterr()
    assert "Applied prompt" not in printed.out + printed.err
    assert "This is broken." in printed.err
