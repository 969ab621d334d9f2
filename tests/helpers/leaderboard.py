"""A made-up run the size and shape of the Open LLM Leaderboard's suite, for tests and for timing reports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.costs import Cost, Timing
from qeval.base.records import Cell, Item, Provenance, Result, Run, Samples, Scheme, Suite, Task, Variant
from qeval.base.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SUBJECTS = {
    "STEM": "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science "
    "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
    "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
    "high_school_mathematics high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history "
    "high_school_world_history international_law jurisprudence logical_fallacies moral_disputes "
    "moral_scenarios philosophy prehistory professional_law world_religions",
    "social sciences": "econometrics high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality "
    "professional_psychology public_relations security_studies sociology us_foreign_policy",
    "other": "business_ethics clinical_knowledge college_medicine global_facts human_aging "
    "management marketing medical_genetics miscellaneous nutrition professional_accounting "
    "professional_medicine virology",
}
ARC = Task("arc_challenge", "acc_norm", num_fewshot=25, chance=0.25)
HELLASWAG = Task("hellaswag", "acc_norm", num_fewshot=10, chance=0.25)
MMLU = Task("mmlu", "acc", num_fewshot=5, chance=0.25)
TRUTHFULQA = Task("truthfulqa_mc2", "acc", num_fewshot=0, kind="score")
WIKITEXT = Task("wikitext", "word_perplexity", num_fewshot=0, kind="perplexity")
MEMBERS = tuple(
    replace(MMLU, name=f"mmlu_{name}", group="mmlu", category=category)
    for category, names in SUBJECTS.items()
    for name in names.split()
)
SUITE = Suite(
    "leaderboard-v1",
    (ARC, HELLASWAG, MMLU, TRUTHFULQA, WIKITEXT),
    ("arc_challenge", "hellaswag", "mmlu_macro", "truthfulqa_mc2"),
    "ARC, HellaSwag, MMLU and TruthfulQA as the Open LLM Leaderboard asked them, and wikitext",
)
FULL = {ARC.name: 1172, HELLASWAG.name: 10042, TRUTHFULQA.name: 817, WIKITEXT.name: 62}
ACCURACY = {ARC.name: 0.55, HELLASWAG.name: 0.79, "mmlu": 0.47}
VARIANTS = (
    # name, scheme, mean shift of the right answer's log-probability, noise, bytes, bits, tokens a second
    ("fp16", Scheme("fp16"), 0.0, 0.0, 13_476_831_232, None, 31.2),
    ("bnb8", Scheme("bnb8"), -0.004, 0.06, 7_002_210_304, 8.03, 12.7),
    ("gptq", Scheme("gptq", {"bits": 4, "act_order": True}), -0.02, 0.15, 3_896_508_416, 4.16, 38.4),
    ("bnb4", Scheme("bnb4"), -0.03, 0.2, 3_829_399_552, 4.13, 24.5),
    ("gptq-3bit", Scheme("gptq", {"bits": 3, "group_size": 64}), -0.10, 0.45, 3_143_632_896, 3.25, 33.0),
    ("awq", Scheme("awq"), -0.02, 0.17, 3_890_000_000, 4.15, 41.0),
    ("hqq", Scheme("hqq"), -0.04, 0.24, 3_800_000_000, 4.1, 22.0),
    ("hqq-3bit", Scheme("hqq", {"bits": 3}), -0.12, 0.5, 3_100_000_000, 3.2, 21.0),
    ("gptq-8bit", Scheme("gptq", {"bits": 8}), -0.003, 0.05, 7_000_000_000, 8.02, 30.0),
    ("awq-g64", Scheme("awq", {"group_size": 64}), -0.015, 0.14, 4_000_000_000, 4.3, 40.0),
    ("quip-2bit", Scheme("quip", {"bits": 2}), -0.2, 0.8, 2_400_000_000, 2.1, 26.0),
    ("rtn-4bit", Scheme("rtn", {"bits": 4}), -0.06, 0.3, 3_700_000_000, 4.0, 35.0),
)


def leaderboard(
    scale: float = 1.0, variants: int = 5, seed: int = 0, words: int = 30, texts: int = FULL[WIKITEXT.name]
) -> tuple[Run, Callable[[Cell], Samples], Callable[[Cell], Mapping[str, Item]]]:
    """The run, and what reads its samples and items; `scale` shrinks the number of items of each task; texts
    of perplexity there are `texts` of."""
    rng = np.random.default_rng(seed)
    leaves = [ARC, HELLASWAG, *MEMBERS, TRUTHFULQA, WIKITEXT]
    samples: dict[str, Samples] = {}
    cells: dict[str, list[Cell]] = {name: [] for name, *_ in VARIANTS[:variants]}
    for place, task in enumerate(leaves):
        full = {**FULL, WIKITEXT.name: texts}
        n = max(3, int(full.get(task.name, 100 + (place * 37) % 292) * scale))
        scores = truth = None
        for name, _, shift, noise, *_ in VARIANTS[:variants]:
            if scores is None:
                truth, scores = _first(task, n, rng)
            made = _samples(task, n, truth, _moved(task, scores, truth, shift, noise, rng))
            cell = _cell(f"{name}-{task.name}", task, made)
            samples[cell.key] = made
            cells[name].append(cell)
    results = tuple(_result(row, cells[row[0]]) for row in VARIANTS[:variants])
    command = ("qeval", "run", "--model", "example-org/example-7b", "--schemes", ",".join(cells))
    run = Run(
        "example-7b-2026", "2026-01-02T03:04:05Z", "example-org/example-7b", SUITE, "fp16", results,
        Settings(), command, qeval_version="0.1.0",
    )  # fmt: skip
    return run, lambda cell: samples[cell.key], lambda cell: _items(cell, words)


def _first(task: Task, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """The right choices and the baseline's log-probabilities, (n, 4); for texts, weights and sums, (n,)."""
    if task.kind == "perplexity":
        weight = rng.integers(800, 9000, n).astype(float)
        return weight, -weight * rng.normal(2.16, 0.15, n)
    right = rng.integers(0, 4, n)
    scores = -rng.gamma(4.0, 1.6, (n, 4))
    lead = {0.55: 1.9, 0.79: 3.6, 0.47: 1.4}[ACCURACY.get(task.group or task.name, 0.55)]
    scores[np.arange(n), right] += rng.normal(lead, 2.2, n)
    return right, scores


def _moved(task: Task, scores: Any, truth: Any, shift: float, noise: float, rng: np.random.Generator) -> Any:
    """What a variant makes of the baseline's numbers."""
    if task.kind == "perplexity":
        return scores + truth * rng.normal(shift, abs(shift) / 2 + 1e-9, len(scores))
    moved = scores + rng.normal(0.0, noise + 1e-12, scores.shape)
    moved[np.arange(len(scores)), truth] += shift
    return moved


def _samples(task: Task, n: int, truth: Any, scores: Any) -> Samples:
    if task.kind == "perplexity":
        value, weight = scores, truth
        answer = gold = np.full(n, "")
        rows = np.array([()] * n + [None], dtype=object)[:n]
    else:
        weight = np.ones(n)
        best = scores.argmax(1)
        value = (best == truth).astype(float)
        answer, gold = best.astype(str), truth.astype(str)
        rows = np.empty(n, dtype=object)
        rows[:] = [tuple(row) for row in scores.tolist()]
    if task.kind == "score":
        spread = np.exp(scores - scores.max(1, keepdims=True))
        value = spread[np.arange(n), truth] / spread.sum(1)
        answer = gold = np.full(n, "")
    hashes = np.char.add(f"{task.name}/", np.arange(n).astype(str))
    alone = np.full(n, "")
    keys = np.arange(n).astype(str)
    return Samples(keys, hashes, hashes, hashes, value, weight, alone, answer, gold, rows)


def _cell(key: str, task: Task, samples: Samples) -> Cell:
    score = float(samples.value.sum() / samples.weight.sum())
    return Cell(
        key, task, len(samples), len(samples), score, task_version="1.0", files={"samples.parquet": "0" * 64}
    )


def _result(row: tuple[Any, ...], cells: Sequence[Cell]) -> Result:
    name, scheme, _, _, size, bits, rate = row
    provenance = Provenance(
        model="example-org/example-7b",
        revision="8cca527612d856d7d32bd94f8103728d614eb852",
        fingerprint="1f0a6b7c",
        architecture="LlamaForCausalLM",
        dtype="float16",
        quantization={} if bits is None else {"quant_method": scheme.kind, **scheme.options},
        modules={} if bits is None else {"QuantLinear": 224},
        linears=225,
        bits_per_weight=bits,
        weight_bytes=size,
        device="NVIDIA H100 80GB",
        engine="tree",
        engine_note="8 requests, largest difference 0.0004 nats",
        batch_size="auto",
        versions={"torch": "2.13.0", "transformers": "5.23.0", "lm_eval": "0.4.13"},
    )
    measures = {
        "prefill/batch=1/prompt=512": Timing(
            0.11 * 31 / rate, 0.1 * 31 / rate, 0.13 * 31 / rate, 5, "ms/token"
        ),
        "generate/batch=1/new=30": Timing(rate, 0.97 * rate, 1.02 * rate, 5, "tokens/s"),
        "generate/batch=16/new=30": Timing(rate * 11, 10.8 * rate, 11.3 * rate, 5, "tokens/s"),
    }
    cost = Cost("NVIDIA H100 80GB", 4.0 + size / 4e9, int(size * 1.15), measures)
    return Result(Variant(name, "example-org/example-7b", scheme), "done", tuple(cells), provenance, cost)


def _items(cell: Cell, words: int) -> dict[str, Item]:
    """Made-up questions of a realistic length."""
    shots = "".join(f"Question: an example, number {shot}?\nAnswer: yes\n\n" for shot in range(5))
    made = {}
    for number in range(cell.n):
        text = " ".join(_WORDS[(number * 31 + place * place * 7) % len(_WORDS)] for place in range(words))
        question = f"Question {number} of {cell.task.name}: {text}?\nAnswer:"
        choices = tuple(
            " ".join(_WORDS[(number * 13 + place * 5 + choice) % len(_WORDS)] for place in range(words // 3))
            for choice in range(4)
        )
        made[str(number)] = Item(str(number), shots + question, question, choices, "")
    return made


_WORDS = [
    *("river", "mountain", "paper", "engine", "window", "garden", "silver", "winter", "letter", "market"),
    *("bottle", "candle", "forest", "harbour", "island", "journey", "kitchen", "ladder", "mirror", "needle"),
    *("orchard", "pencil", "quarter", "ribbon", "saddle", "temple", "umbrella", "valley", "whistle"),
]
