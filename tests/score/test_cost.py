"""Costs are measured on what was loaded, in the units they say, and what is left out is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import save_llama, save_model

from qeval.base.records import Provenance, Scheme, Variant
from qeval.load import model as models
from qeval.score import cost
from qeval.score.cost import Bench, measure

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]
BENCH = Bench(16, (1, 3), (2,), (4, 6), repeats=3, warmup=1, seconds=6000)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> models.Loaded:
    place = tmp_path_factory.mktemp("cost")
    variant = Variant("v", str(save_llama(place / "llama")), Scheme("fp32"))
    return models.load(variant, device="cpu", cache_dir=place)


def test_everything_asked_is_measured_in_its_unit(loaded: models.Loaded) -> None:
    said: list[str] = []
    found = measure(loaded, progress=said.append, bench=BENCH)
    names = [
        "prefill/batch=1/prompt=16",
        "prefill/batch=3/prompt=16",
        "generate/batch=2/new=4/cache=on",
        "generate/batch=2/new=4/cache=off",
        "generate/batch=2/new=6/cache=on",
        "generate/batch=2/new=6/cache=off",
    ]
    assert list(found.measures) == [each for name in names for each in (name, f"{name}/throughput")]
    assert len(said) == len(names)
    for name in names:
        latency, rate = found.measures[name], found.measures[f"{name}/throughput"]
        batch = int(name.split("batch=")[1].split("/")[0])
        assert (latency.unit, rate.unit, latency.repeats) == ("ms/token", "tokens/s", 3)
        assert 0 < latency.low <= latency.median <= latency.high
        assert rate.median == pytest.approx(batch * 1000 / latency.median)
    assert found.load_seconds == loaded.load_seconds > 0
    assert found.hardware == loaded.provenance.device
    [note] = found.notes
    assert note == (
        "Medians of 3 after 1 that do not count, in brackets the least and the greatest; greedy, prompt of"
        " random tokens."
    )


def test_each_pass_feeds_what_it_says(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int]] = []
    forward = loaded.model.forward

    def spy(tokens: Any, **keywords: Any) -> Any:
        shapes.append(tuple(tokens.shape))
        return forward(tokens, **keywords)

    monkeypatch.setattr(loaded.model, "forward", spy)
    one = Bench(5, (), (2,), (3,), repeats=1, warmup=0, seconds=6000)
    measure(loaded, bench=one)
    with_cache, without = shapes[:4], shapes[4:]
    assert with_cache == [(2, 5), (2, 1), (2, 1), (2, 1)]
    assert without == [(2, 5), (2, 6), (2, 7), (2, 8)]


def test_what_the_time_does_not_allow_is_said(loaded: models.Loaded) -> None:
    found = measure(loaded, bench=Bench(4, (1, 2), (), (), repeats=1, warmup=0, seconds=0))
    assert found.measures == {}
    [note] = found.notes
    assert note == (
        "Not measured: prefill/batch=1/prompt=4, prefill/batch=2/prompt=4 (for want of time or memory)."
    )


@pytest.mark.parametrize(
    ("budget", "turns", "counted"),
    [
        (64, 7, 5),  # two warm-ups and five that count
        (63, 6, 4),  # there is no time for the seventh
        (46, 5, 3),
        (45, 2, 0),  # three that count would not fit, which is seen before the first of them
        (15, 1, 0),
        (-1, 0, 0),
    ],
)
def test_what_takes_long_is_measured_less_often_or_left_out(
    monkeypatch: pytest.MonkeyPatch, budget: float, turns: int, counted: int
) -> None:
    """Each turn takes nine seconds of a clock that only turns move, the first, which compiles, ten."""
    clock = [0.0]
    seen: list[float] = []

    def once(*_: Any) -> float:
        seen.append(9.0)
        clock[0] += 9.0 if len(seen) > 1 else 10.0
        return 9.0

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cost, "_once", once)
    bench = Bench(4, (1,), (), (), repeats=5, warmup=2, seconds=budget)
    found = cost._repeat(lambda: None, bench, None, budget)
    assert len(seen) == turns
    assert (found or []) == [9.0] * counted


def test_what_does_not_fit_into_memory_is_left_out(
    loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loaded.model, "forward", full)
    found = measure(loaded, bench=Bench(4, (1,), (), (), repeats=1, warmup=0, seconds=6000))
    assert "Not measured" in found.notes[0]


def test_what_fails_costs_its_own_figure_only(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = loaded.model.forward

    def broken(tokens: Any, *, use_cache: bool, **keywords: Any) -> Any:
        if not use_cache:
            raise RuntimeError("no such kernel\nand a long story")
        return forward(tokens, use_cache=use_cache, **keywords)

    monkeypatch.setattr(loaded.model, "forward", broken)
    found = measure(loaded, bench=Bench(4, (1,), (1,), (2, 3), repeats=1, warmup=0, seconds=6000))
    names = [name for name in found.measures if not name.endswith("throughput")]
    assert names == [
        "prefill/batch=1/prompt=4",
        "generate/batch=1/new=2/cache=on",
        "generate/batch=1/new=3/cache=on",
    ]
    _, note = found.notes
    assert note == (
        "Not measured: generate/batch=1/new=2/cache=off, generate/batch=1/new=3/cache=off"
        " (RuntimeError: no such kernel)."
    )


def test_a_model_of_few_positions_is_measured_within_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    monkeypatch.setattr(cost, "CPU", replace(cost.CPU, seconds=6000))  # whoever else is at work here
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=1, n_head=2)).eval()
    found = measure(models.Loaded(model, None, Provenance("tiny", device="here")))
    names = [name for name in found.measures if not name.endswith("throughput")]
    assert names == [
        "prefill/batch=1/prompt=56",
        "prefill/batch=4/prompt=56",
        "generate/batch=1/new=8/cache=on",
        "generate/batch=1/new=8/cache=off",
    ]
    assert found.notes[1:] == ("Clipped to what the model takes: prompts of 56 tokens and up to 8 new ones.",)


@pytest.mark.parametrize(
    ("longest", "prompt", "new"),
    [
        (None, 512, (30, 512)),
        (1024, 512, (30, 512)),
        (1023, 512, (30, 511)),
        (64, 32, (30, 32)),
        (40, 20, (20,)),
    ],
)
def test_prompt_and_new_tokens_fit_into_the_positions(
    longest: int | None, prompt: int, new: tuple[int, ...]
) -> None:
    clipped = cost._clipped(cost.GPU, longest)
    assert (clipped.prompt, clipped.new) == (prompt, new)


def test_on_a_cpu_less_is_measured_and_said(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Bench] = []
    monkeypatch.setattr(cost, "_measures", lambda _, bench: chosen.append(bench) or iter(()))
    assert measure(loaded).notes == (cost.CPU_NOTE,)
    assert chosen == [cost.CPU]


@pytest.mark.parametrize(
    ("spent", "loading", "seconds"), [(95, 0, 5), (95, 4, 1), (95, 5, None), (0, 0, None), (10_000, 0, 40)]
)
def test_costs_that_nobody_asked_for_take_a_twentieth_of_the_whole(
    spent: float, loading: float, seconds: float | None
) -> None:
    bench = cost.affordable("cuda", spent, loading)
    assert (bench and bench.seconds) == (seconds and pytest.approx(seconds))
    assert cost.affordable("cpu", spent, loading) is None


def test_what_will_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes one second at either batch, by a clock that only turns move: generating three tokens
    without the cache takes four of them a turn, and four turns are more than are left."""
    clock, begun = [0.0], list[str]()

    def once(work: Any, _: Any) -> float:
        seconds = 4.0 if work == "generate/batch=1/new=3/cache=off" else 1.0
        clock[0] += seconds
        begun.append(work)
        return seconds

    names = ("prefill/batch=1/prompt=4", "prefill/batch=2/prompt=4", "generate/batch=1/new=3/cache=off")
    each = [(name, 3, int(name.split("batch=")[1][0]), name) for name in names]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cost, "_once", once)
    monkeypatch.setattr(cost, "_measures", lambda *_: iter(each))
    monkeypatch.setattr(cost, "_clipped", lambda bench, _: bench)
    model = SimpleNamespace(device=SimpleNamespace(type="cuda"), config=SimpleNamespace())
    monkeypatch.setattr(cost, "positions", lambda _: None)
    loaded = models.Loaded(model, None, Provenance("tiny", device="here"))
    bench = Bench(4, (1, 2), (1,), (3,), repeats=3, warmup=1, seconds=23)
    assert len(measure(loaded, bench=bench).measures) == 4
    assert begun == [names[0]] * 4 + [names[1]] * 4
    clock[0], begun[:] = 0.0, []
    found = measure(loaded, bench=replace(bench, seconds=24))
    assert begun.count(names[2]) == 4
    assert found.measures[names[2]].median == pytest.approx(4000 / 3)


@pytest.mark.slow
def test_a_finished_run_is_measured_when_costs_are_asked_for(
    qeval: Any, tmp_path: Path, runs_dir: Path
) -> None:
    words = ("run", "--model", save_model(tmp_path / "llama"), "--device", "cpu", "--schemes", "fp32")
    words += ("--tasks", "qeval_facts", "--limit", 4)
    first = qeval(*words)
    assert "prefill" not in first.stdout
    cells = {path: path.stat().st_mtime_ns for path in runs_dir.rglob("cells/*/*")}
    for again in (qeval(*words, "--cost"), qeval("show")):
        assert "prefill, batch=4, prompt=64 (ms/token)" in again.stdout
        assert "Medians of 3 after 1" in again.stdout
    assert cells
    assert {path: path.stat().st_mtime_ns for path in runs_dir.rglob("cells/*/*")} == cells
    assert "finished earlier" in qeval(*words, "--cost").stderr
