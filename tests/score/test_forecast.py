"""Predictions against what was measured, and counts against what an engine feeds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_jobs import TASKS, a_job, score
from tiny_models import save_model

from qeval.base.errors import UsageError
from qeval.base.messages import Expected, Finished
from qeval.base.packing import Packing
from qeval.base.records import Variant
from qeval.base.work import Counted, Work
from qeval.load import rates
from qeval.load.schemes import SCHEMES, parse_schemes
from qeval.score import counting, counts, forecast, probe, prospect
from qeval.score.engine import tiles, tree
from qeval.score.engine.reach import Reach
from qeval.score.engine.requests import TokenRequest

LLAMA = forecast.Shape(6.476e9, 4096, 11008, 32, 49152)
PACKING = Packing("h100", 0, 16384, 16, 4, compiled=True, by_block=True)
CHECKING = Work(16, 12867, 12867, 19018046, 12867)
LEADERBOARD = {
    "arc_challenge": Work(4687, 4633150, 1196032, 589985411, 21088),
    "hellaswag": Work(5808, 3089350, 901120, 270800353, 165261),
    "mmlu": Work(56168, 40643200, 1474560, 1353410441, 14015),
    "truthfulqa_mc2": Work(5882, 1167509, 65536, 9991754, 41235),
    "wikitext": Work(106, 357654, 393216, 674278603, 291823),
}
"""leaderboard-v1 with 1452 rows of HellaSwag by the demo model's tokenizer, as counted for that packing."""
SIX_ITEMS = {
    "arc_challenge": Work(24, 22684, 16384, 2768023, 120),
    "hellaswag": Work(24, 12470, 16384, 958701, 386),
    "mmlu": Work(1368, 860964, 65536, 39084617, 342),
    "truthfulqa_mc2": Work(41, 8306, 16384, 102643, 352),
    "wikitext": Work(9, 30270, 32768, 54685057, 23994),
}
VERIFYING = {
    "all": Work(138, 106848, 106848, 103935397, 106848),
    "six": Work(106, 79218, 79218, 72920437, 79218),
}
LEAVES = 61
DEMO = forecast.Shape(1.063e8, 576, 1536, 30, 49152, 9, 3)


def even(rate: float) -> probe.Parts:
    """A CPU that does all parts of a model equally fast."""
    return probe.Parts(body=rate, attention=rate, head=rate, compared=rate, reading=1e10)


def near(predicted: float, measured: float) -> bool:
    return abs(predicted - measured) <= 0.3 * measured


def worker(rows: dict[str, Work], verifying: Work, scheme: str, *, first: bool) -> forecast.Phases:
    counted = Counted(rows, CHECKING, verifying)
    rest = forecast.after_questions(
        counted,
        LLAMA,
        forecast.H100,
        PACKING,
        weights=13_476_831_232,
        spec=SCHEMES[scheme],
        made=False,
        leaves=LEAVES,
        first=first,
    )
    return forecast.whole(counted, LEAVES, forecast.H100, rest, first=first)


@pytest.mark.parametrize(
    ("row", "seconds"),
    [("arc_challenge", 28.1), ("hellaswag", 21.1), ("truthfulqa_mc2", 1.6), ("wikitext", 10.0)],
)
def test_rows_of_the_main_job_on_an_h100(row: str, seconds: float) -> None:
    """Compiled, "What the engine's check costs"; WikiText-2 as the first run at true size had it."""
    assert near(forecast.scoring(LEADERBOARD[row], LLAMA, forecast.H100, PACKING), seconds)


def test_the_main_job_on_an_h100_phase_by_phase() -> None:
    """benchmarks/RESULTS.md, "Where the time of the main job goes": alone, and without costs unasked."""
    first = worker(SIX_ITEMS, VERIFYING["six"], "fp16", first=True)
    scored = ("scoring", "storing", "verifying", "costs")
    assert near(sum(seconds for name, seconds in first.items() if name not in scored), 35.4)
    assert near(first["verifying"], 7.8)
    assert near(first["scoring"] + first["storing"], 5.2)
    assert near(sum(first.values()), 79.2 - 30.9 + 1.3)
    second = worker(SIX_ITEMS, VERIFYING["six"], "bnb4", first=False)
    assert near(sum(second.values()), 43.2 - 18.4)  # its imports ran while the first one scored


def test_all_items_of_the_main_job_on_an_h100() -> None:
    """101 s of scoring were measured in the whole job, 16 of questions and 2.8 of loading."""
    found = worker(LEADERBOARD, VERIFYING["all"], "fp16", first=True)
    assert near(found["scoring"], 101)
    assert near(found["questions"], 16)
    assert near(found["loading"], 2.8)


def test_making_a_checkpoint_on_an_h100() -> None:
    common = {"weights": 0, "leaves": 1, "first": True, "made": True}
    counted = Counted({}, Work(), Work())
    for scheme, seconds in (("gptq", 69.0), ("awq", 26.0)):
        spec = SCHEMES[scheme]
        found = forecast.after_questions(counted, LLAMA, forecast.H100, PACKING, spec=spec, **common)
        assert near(found["loading"], seconds)


def test_making_a_checkpoint_on_a_cpu() -> None:
    """The demo's, with its 16 samples of 256 tokens: 138 s where others left it a third of two cores."""

    def seconds(scheme: str, tokens: int, free: float = 1.0) -> float:
        found = forecast.after_questions(
            Counted({}, Work(), Work()),
            DEMO,
            forecast.of_cpu(even(2e11), 5.0, free),
            Packing("CPU", 2, 4096, 4, 4),
            weights=0,
            spec=SCHEMES[scheme],
            made=True,
            leaves=1,
            first=True,
            calibrated=tokens,
        )
        return found["loading"]

    assert near(seconds("gptq", 4096), 43)
    assert near(seconds("gptq", 4096, 0.31), 138)
    for scheme in ("gptq", "awq"):  # the text counts, as it does not on a GPU
        assert seconds(scheme, 4096) < seconds(scheme, 65536) < 16 * seconds(scheme, 4096)


@pytest.mark.parametrize(
    ("scheme", "tokens"),
    [
        ("gptq", 16 * 256),
        ("awq[samples=4]", 4 * 256),
        ("gptq[calibration=c4]", 128 * 2048),
        ("rtn", forecast.USUAL_TOKENS),
    ],
)
def test_the_tokens_of_a_calibration(scheme: str, tokens: int) -> None:
    [(name, one)] = parse_schemes(scheme)
    job = SimpleNamespace(variant=Variant(name, "demo", one))
    assert prospect._calibrated(job) == tokens  # type: ignore[arg-type]


def test_other_gpus_have_the_h100s_share_of_their_peak() -> None:
    time = {
        name: forecast.scoring(LEADERBOARD["mmlu"], LLAMA, forecast.of_gpu(rates.GPUS[name]), PACKING)
        for name in ("h100", "h200", "a100", "rtx4090")
    }
    assert time["h100"] == time["h200"] < time["a100"] < time["rtx4090"]
    assert time["a100"] / time["h100"] == pytest.approx(989.4 / 312, rel=0.05)
    assert "estimate" not in forecast.of_gpu(rates.GPUS["h100"]).how
    assert "estimate" in forecast.of_gpu(rates.GPUS["a100"]).how


def test_a_cpu_that_others_use_is_as_much_slower() -> None:
    idle, busy = forecast.of_cpu(even(1e11), 5.0), forecast.of_cpu(even(1e11), 5.0, free=0.25)
    work, packing = LEADERBOARD["arc_challenge"], Packing("CPU", 2, 4096, 4, 4)
    took = [forecast.scoring(work, LLAMA, speed, packing) for speed in (idle, busy)]
    assert took[1] == pytest.approx(4 * took[0])
    assert idle.how == busy.how


def test_the_parts_of_a_model_are_as_slow_on_a_cpu_as_each_was_measured() -> None:
    packing, work = Packing("CPU", 2, 4096, 4, 4), Work(1, 100, 100, 2000, 30)
    whole = forecast.scoring(work, LLAMA, forecast.of_cpu(even(1e11), 5.0), packing)
    body = 2 * LLAMA.body * 100 / 1e11
    attention = 4 * LLAMA.width * LLAMA.layers * 2000 / 1e11
    head = 2 * LLAMA.width * LLAMA.vocabulary * 30 / 1e11
    assert whole == pytest.approx(body + attention + head)
    slow = forecast.of_cpu(
        probe.Parts(body=1e11, attention=2e10, head=5e10, compared=1e11, reading=1e10), 5.0
    )
    assert forecast.scoring(work, LLAMA, slow, packing) == pytest.approx(body + 5 * attention + 2 * head)


def test_short_passes_of_the_check_take_what_reading_all_weights_takes_on_a_cpu() -> None:
    """Of the demo on two cores, with one thread: 7.2 s, of which 15 passes of 3 to 39 tokens took 2."""
    measured = probe.Parts(body=1.30e11, attention=6.3e10, head=7.6e10, compared=4e10, reading=4.7e9)
    short, batched, tree = Work(17, 986, 986, 68869, 986), Work(3, 276, 276, 4144, 276), Work(20, 1071, 824)
    counted = Counted({}, short, Work(), batched, tree)
    speed = forecast.of_cpu(measured, 5.0)
    assert near(forecast.checking(counted, DEMO, speed), 7.2)
    once_more = Counted({}, Work(18, 986, 986, 68869, 986), Work(), batched, tree)
    further = forecast.checking(once_more, DEMO, speed) - forecast.checking(counted, DEMO, speed)
    assert further == pytest.approx(4 * DEMO.passed / 4.7e9)


def test_tiles_are_counted_as_they_are_laid_out() -> None:
    generator = np.random.default_rng(0)
    trunk = generator.integers(0, 50, 300)
    requests = [
        TokenRequest(np.append(trunk[: 7 * k % 300], generator.integers(0, 50, 40)).astype(np.int32), 3)
        for k in range(60)
    ]
    for budget in (400, 4096):
        laid = tree.pack(requests, budget)
        chunks = [laid.chunk(c) for c in range(len(laid))]
        pairs = 0
        for chunk in chunks:
            for begin in range(0, len(chunk.tokens), tiles.TILE):
                stop = min(begin + tiles.TILE, len(chunk.tokens))
                keys, _ = tiles.tile(chunk, Reach(), begin, stop)
                pairs += len(keys) * (stop - begin)
        assert counts._packed(requests, Packing("CPU", 1, budget, 4, 4)).seen == pairs


def test_batches_of_the_check_are_counted_with_their_padding() -> None:
    requests = [TokenRequest(np.arange(length, dtype=np.int32), 2) for length in (4, 11, 6, 3, 8)]
    assert counts._batched(requests, 4) == Work(2, 42, 42, 4 * 55 + 3, 42)


@pytest.mark.parametrize(
    ("wall", "spent", "counts"), [(1.25, 2.0, 1.25), (8.0, 2.0, 1.0)], ids=["idle", "others are at it"]
)
def test_a_step_that_others_keep_waiting_counts_by_what_its_threads_spend(
    wall: float, spent: float, counts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"wall": 0.0, "spent": 0.0}
    clock = SimpleNamespace(perf_counter=lambda: now["wall"], process_time=lambda: now["spent"])
    monkeypatch.setattr(probe, "time", clock)

    def way() -> None:
        now["wall"], now["spent"] = now["wall"] + wall, now["spent"] + spent

    assert probe._fastest(way, threads=2) == [counts]
    assert probe._fastest(way) == [wall]  # a GPU's work is none of the processor's


@pytest.mark.torch
def test_the_parts_of_a_model_are_measured_on_this_cpu() -> None:
    found = probe.parts(64, 128, 4, 2, 1000, "float32")
    assert min(found.body, found.attention, found.head, found.compared, found.reading) > 0
    assert probe.parts(64, 128, 4, 2, 1000, "float32") is found  # for all variants of a plan


@pytest.mark.parametrize(
    ("load", "threads", "share"), [(1.0, 2, 1.0), (3.0, 2, 0.5), (7.0, 1, 2 / 7), (0.2, 1, 1)]
)
def test_the_share_of_a_cpu_that_is_free(
    load: float, threads: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 9.0, 9.0))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert probe.free_share(threads) == pytest.approx(share)


def test_experts_that_are_not_taken_cost_nothing() -> None:
    dense = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100}
    plain = forecast.shape(dense, 500_000)
    assert plain is not None
    assert plain.body == 500_000 - 2 * 64 * 100
    mixture = forecast.shape({**dense, "num_local_experts": 8, "num_experts_per_tok": 2}, 500_000)
    assert mixture is not None
    assert plain.body - mixture.body == 6 * 3 * 64 * 128 * 2
    assert forecast.shape({}, 500_000) is None
    assert forecast.shape(dense, 0) is None


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla T4", "t4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_drivers_names(driver: str, name: str | None) -> None:
    found = rates.by_driver(driver)
    assert (found and found[0]) == name


def test_names_that_a_person_writes() -> None:
    assert rates.named("H100") is rates.named("h100")
    assert rates.named("A100_40GB") is rates.GPUS["a100-40gb"]
    with pytest.raises(UsageError, match="No figures are known for a GPU 'h10'"):
        rates.named("h10")


def test_what_the_first_worker_imports_is_seen_by_the_clock_and_further_ones_import_as_they_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(counting, "import_libraries", lambda: imported.append("all"))
    counting.tell(counting.Asked((), "h100"))
    assert not imported  # whose host has figures
    counting.tell(counting.Asked((), rates.HERE))
    assert imported == ["all"]
    speed = forecast.of_cpu(even(1e11), 7.0, further=2.0)
    nothing = Counted({}, Work(), Work())
    begin = [forecast.whole(nothing, 1, speed, {}, first=first)["imports"] for first in (True, False)]
    assert begin == [7.0, 2.0]
    both = [sum(forecast.whole(nothing, 1, speed, {}, first=first).values()) for first in (True, False)]
    assert both[1] - both[0] == pytest.approx(  # all is imported, though some of it with the questions
        forecast.questions(Work(), 1, first=False) - forecast.questions(Work(), 1, first=True)
    )
    assert forecast.of_cpu(even(1e11), 7.0).further == 7.0


@pytest.mark.torch
def test_the_tokens_that_are_counted_are_those_that_are_fed(runs_dir: Path, tmp_path: Path) -> None:
    llama = save_model(tmp_path / "llama")
    _, events = score(a_job(runs_dir, llama, tasks=TASKS))
    told = [event for event in events if isinstance(event, Expected)]
    assert len(told) == 1
    assert told[0].seconds["scoring"] > 0

    from transformers import AutoTokenizer

    from qeval.base.places import tasks_dir
    from qeval.score.counts import counted
    from qeval.score.harness import door

    prepared = door.prepare(
        TASKS, AutoTokenizer.from_pretrained(llama), max_length=256, tasks_dir=tasks_dir()
    )
    rows = counted(prepared, Packing("CPU", 1, 4096, 4, 4)).rows
    fed = {event.cell.task.name: event.cell.tokens for event in events if isinstance(event, Finished)}
    assert {name: row.fed for name, row in rows.items()} == fed
