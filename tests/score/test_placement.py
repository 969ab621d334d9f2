"""A variant that is streamed from host memory: the numbers, the words, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from small_jobs import TASKS, a_job, score
from tiny_models import save_model, save_tokenizer

from qeval.base.errors import QevalError
from qeval.base.messages import Done, Failed, Fed, Finished, Note, Stage
from qeval.base.records import Provenance, Scheme, Variant
from qeval.score import session, worker
from qeval.score.engine import spreading

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
GIB = 2**30


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def made(llama: Path, kind: str, options: dict[str, object] | None = None) -> Variant:
    return Variant(kind, str(llama), Scheme(kind, options or {}))


def the_same(runs: Path, variant: Variant, **settings: object) -> list[object]:
    """Score a variant resident and streamed; what was said of the second, once the numbers are the same."""
    whole, before = score(a_job(runs / "whole", Path(variant.model), variant=variant, **settings))
    apart, events = score(
        a_job(runs / "apart", Path(variant.model), variant=variant, placement="streamed", **settings)
    )
    assert whole.keys() == apart.keys() == {task.name for task in TASKS}
    for name, samples in whole.items():
        assert samples.value.tolist() == apart[name].value.tolist()
        assert [list(row) for row in samples.scores] == [list(row) for row in apart[name].scores]
    kept, again = ([e.cell for e in said if isinstance(e, Finished)] for said in (before, events))
    assert [cell.key for cell in kept] == [cell.key for cell in again]
    first, second = (told_at_the_end(said) for said in (before, events))
    assert (first.placement, second.placement) == ("", "streamed")
    same = ("modules", "linears", "weight_bytes", "bits_per_weight", "dtype", "engine", "materialized")
    assert [getattr(first, name) for name in same] == [getattr(second, name) for name in same]
    return events


def told_at_the_end(events: list[object]) -> Provenance:
    (done,) = (event for event in events if isinstance(event, Done))
    assert done.provenance is not None
    return done.provenance


@pytest.mark.parametrize("engine", ["tree", "plain", "lm-eval"])
def test_plain_weights_are_the_same_and_the_words_come_first(
    runs_dir: Path, llama: Path, engine: str
) -> None:
    events = the_same(runs_dir, made(llama, "fp32"), engine=engine)
    texts = [event.text for event in events if isinstance(event, (Note, Stage))]
    told = "The weights are streamed from host memory layer by layer, as asked."
    assert texts.count(told) == 1
    assert texts.index(told) < texts.index("loading the weights")
    assert told in told_at_the_end(events).notes
    assert not told_at_the_end(events).materialized


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bnb4", {}),
        ("bnb4", {"double_quant": True, "quant_type": "fp4"}),
        ("rtn", {"bits": 3, "group_size": 32}),
    ],
)
def test_quantised_weights_are_the_same(
    runs_dir: Path, llama: Path, kind: str, options: dict[str, object]
) -> None:
    events = the_same(runs_dir, made(llama, kind, options))
    assert told_at_the_end(events).materialized == (kind == "bnb4")


@pytest.mark.parametrize("kind", ["bnb4", "rtn"])
def test_stacks_of_experts_are_the_same(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    from qeval.load import model as models
    from qeval.score.engine.materialize import compute_in_own_dtype, materialize
    from qeval.score.engine.streaming import stream

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        max_position_embeddings=64,
    )
    MixtralForCausalLM(config).half().save_pretrained(tmp_path / "mixtral")
    save_tokenizer(tmp_path / "mixtral")
    variant = made(tmp_path / "mixtral", kind)
    whole, apart = (
        models.load(variant, device="cpu", cache_dir=tmp_path, streamed=streamed).model
        for streamed in (False, True)
    )
    compute_in_own_dtype(whole)
    compute_in_own_dtype(apart)
    if kind == "bnb4":
        whole, _ = materialize(whole)
    stream(apart, "cpu")
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(apart(tokens).logits, whole(tokens).logits)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_checkpoints_that_are_made_here_are_the_same(
    runs_dir: Path, llama: Path, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("gptqmodel")
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran under a tree. " * 40)
    options = {"calibration": str(text), "samples": 4, "length": 32}
    events = the_same(runs_dir, made(llama, kind, options))
    assert told_at_the_end(events).materialized


def test_costs_are_measured_only_where_they_are_asked_for(runs_dir: Path, llama: Path) -> None:
    _, events = score(a_job(runs_dir, llama, tasks=TASKS[:1], placement="streamed", cost=None))
    (done,) = (event for event in events if isinstance(event, Done))
    assert done.cost is not None
    assert not done.cost.measures
    assert "Not measured unasked: the weights were streamed from host memory." in done.cost.notes


def test_a_scheme_that_cannot_be_streamed_is_refused_before_it_is_loaded(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama, variant=made(llama, "bnb8"), placement="streamed")
    said: list[object] = []
    worker.answer(job, said.append)
    (failed,) = (event for event in said if isinstance(event, Failed))
    assert "bnb8 cannot be streamed" in failed.message
    assert "fp16" in failed.hint
    assert not any(isinstance(event, Stage) and event.text == "loading the weights" for event in said)


def test_too_little_memory_is_told_before_loading(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.score import packing

    monkeypatch.setattr(packing, "host_bytes", lambda: 1000)
    said: list[object] = []
    worker.answer(a_job(runs_dir, llama), said.append)
    (failed,) = (event for event in said if isinstance(event, Failed))
    assert "of memory, and there are 1000 B" in failed.message
    assert failed.hint.startswith("Use a machine with ")
    assert not any(isinstance(event, Stage) and event.text == "loading the weights" for event in said)


def test_memory_of_a_gpu_is_limited_where_there_is_one(runs_dir: Path, llama: Path) -> None:
    said: list[object] = []
    worker.answer(a_job(runs_dir, llama, gpu_memory=GIB), said.append)
    (failed,) = (event for event in said if isinstance(event, Failed))
    assert failed.message == "--gpu-memory limits a GPU, and the device is cpu."


ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"


@pytest.mark.parametrize("kind", ["RuntimeError", "AcceleratorError"])
@pytest.mark.parametrize("checked", [False, True])
def test_a_gpu_that_fails_in_a_chunk_ends_its_variant_in_a_sentence(
    runs_dir: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, kind: str, checked: bool
) -> None:
    """Wherever it fails, in the self-check too: no other path is tried on a GPU that answers no more."""
    import torch

    from qeval.score.engine.body import CausalModel

    plain, said, asked = CausalModel.hidden, list[object](), []
    raised = RuntimeError if kind == "RuntimeError" else torch.AcceleratorError

    def fails(self: CausalModel, tokens: torch.Tensor, **more: object) -> torch.Tensor:
        if not checked or any(isinstance(event, Fed) for event in said):
            asked.append(tokens)
            raise raised(ILLEGAL)
        return plain(self, tokens, **more)

    monkeypatch.setattr(CausalModel, "hidden", fails)
    worker.answer(a_job(runs_dir, llama), said.append)
    (failed,) = (event for event in said if isinstance(event, Failed))
    assert failed.message == (
        "The GPU failed in the middle of the work: CUDA error: an illegal memory access was encountered."
    )
    assert "Run the same command again" in failed.hint
    assert not any(isinstance(event, Note) and "was left at" in event.text for event in said)
    assert len(asked) == 1


def test_memory_that_runs_out_is_no_broken_gpu() -> None:
    from qeval.score.engine.memory import refuse_broken

    refuse_broken(RuntimeError("CUDA error: out of memory"))
    refuse_broken(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"))
    refuse_broken(ValueError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(QevalError, match="The GPU failed"):
        refuse_broken(RuntimeError("CUDA error: device-side assert triggered"))


def test_the_job_carries_both_wishes(runs_dir: Path, llama: Path) -> None:
    job = a_job(runs_dir, llama, placement="resident", gpu_memory=24 * GIB)
    back = msgspec.json.decode(msgspec.json.encode(job), type=type(job))
    assert (back.settings.placement, back.settings.gpu_memory) == ("resident", 24 * GIB)


def test_a_variant_on_two_gpus_says_so_and_scores_the_same(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def on_the_cpu(model: object, devices: list[str]) -> int:
        asked.append(devices)
        return spreading.spread(model, ["cpu"] * len(devices))

    monkeypatch.setattr(session, "spread", on_the_cpu)
    for kind in ("fp16", "rtn"):
        variant = made(llama, kind)
        whole, before = score(a_job(tmp_path / kind, llama, variant=variant))
        apart, events = score(a_job(tmp_path / f"{kind}2", llama, variant=variant, gpus=2))
        assert asked.pop() == ["cuda:0", "cuda:1"]
        assert all(whole[name].value.tolist() == apart[name].value.tolist() for name in whole)
        kept, again = ([e.cell.key for e in said if isinstance(e, Finished)] for said in (before, events))
        assert kept == again
        told = told_at_the_end(events)
        assert told.placement == "2 GPUs"
        assert "The weights lie on 2 GPUs, a run of layers on each, as asked." in told.notes
