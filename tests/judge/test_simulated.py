"""Short runs of the simulations in benchmarks/: plans keep their promise, the gate says what they say."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A module of benchmarks/, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.rare
@pytest.mark.slow
def test_a_plan_keeps_its_promise_of_power(benchmark):
    """Candidates that lose nothing pass the smallest provable loss in 80% of draws, and not nearly always."""
    simulation = benchmark("coverage_plan")
    promises = list(simulation.promises())
    kinds = ("one task", "mc2", "texts", "mmlu_macro", "mmlu,", "perplexity")
    assert all(any(one.name.startswith(kind) for one in promises) for kind in kinds)
    for promise in promises:
        _, share = simulation.power(promise, 200, seed=7)
        assert 0.8 - 3 * math.sqrt(0.8 * 0.2 / 200) < share < 0.97, promise.name


def test_texts_cost_mmlu_little(benchmark):
    simulation = benchmark("coverage_plan")
    strata, texts = simulation.mmlu()
    for together in (0.0, 0.5, 1.0):
        ratios = simulation.width_ratios(np.random.default_rng(1), strata, texts, 0.1, together)
        assert all(1 <= ratio < 1.15 for ratio in ratios)


def test_the_gate_says_of_files_what_its_functions_say_of_columns(benchmark):
    simulation = benchmark("coverage_gate")
    settings = [one for place, one in enumerate(simulation.settings()) if one.few or place % 4 == 0]
    found = [simulation.judge(setting, 2, seed=2) for setting in settings]
    assert [one.setting.name for one in found if one.unlike] == []
    [few] = [one for one in found if one.setting.few]
    assert set(few.counts) == {"INCONCLUSIVE"}


@pytest.mark.rare
@pytest.mark.slow
def test_the_gate_keeps_the_promise_on_files(benchmark):
    simulation = benchmark("coverage_gate")
    found = [simulation.judge(setting, 40, seed=3) for setting in simulation.settings()]
    assert [(one.setting.name, one.counts) for one in found if not one.holds] == []
    assert {name for one in found for name in one.counts} == {"PASS", "FAIL", "INCONCLUSIVE"}
