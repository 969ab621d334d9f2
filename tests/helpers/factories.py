"""Toy Runs with Samples in memory, for tests: every level, kind and number of items, seeded."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.records import Cell, Item, Provenance, Result, Run, Samples, Scheme, Suite, Task, Variant
from qeval.base.settings import Settings
from qeval.compare.evidence import gather, with_baseline
from qeval.compare.interval import compare
from qeval.judge import gate
from qeval.report.context import build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCHEMES = ("fp16", "bnb4", "gptq", "awq", "bnb8", "hqq")

ARC = Task("arc", "acc_norm", num_fewshot=25, chance=0.25)
TRUTH = Task("truth", "acc", num_fewshot=0, kind="score")
WIKI = Task("wiki", "word_perplexity", num_fewshot=0, kind="perplexity")
QUIZ = Task("quiz", "acc", num_fewshot=5, chance=0.25)  # a group: its members stand in MEMBERS
MEMBERS = tuple(
    replace(QUIZ, name=f"quiz_{name}", group="quiz", category=category)
    for name, category in (("algebra", "STEM"), ("biology", "STEM"), ("law", "humanities"))
)
TASKS = (ARC, QUIZ, TRUTH, WIKI)


def make_run(
    n_variants: int = 2,
    tasks: Sequence[Task] = TASKS,
    n_items: int | Mapping[str, int] = 100,
    effect: float = 0.0,
    seed: int = 0,
    *,
    churn: float = 0.1,
    limit: int | None = None,
    n_available: int | None = None,
) -> tuple[Run, Callable[[Cell], Samples], Callable[[Cell], tuple[Item, ...]]]:
    """A Run of `n_variants` (the first, fp16, is the baseline), and readers of its samples and items.

    `n_items` is the number of items of every leaf task, or a number per task name. Each candidate's
    true difference from the baseline is `effect` (a fraction; nats per word for perplexities), and
    a share `churn` of the accuracy items changes between right and wrong. `n_available` defaults to
    the number of items; a greater one makes the cells limited. What was made is kept for the next who asks.
    """
    many = n_items if isinstance(n_items, int) else tuple(n_items.items())
    return _made(n_variants, tuple(tasks), many, effect, seed, churn, limit, n_available)


@functools.lru_cache(maxsize=64)
def _made(
    n_variants: int,
    tasks: tuple[Task, ...],
    n_items: int | tuple[tuple[str, int], ...],
    effect: float,
    seed: int,
    churn: float,
    limit: int | None,
    n_available: int | None,
) -> tuple[Run, Callable[[Cell], Samples], Callable[[Cell], tuple[Item, ...]]]:
    rng = np.random.default_rng(seed)
    samples: dict[str, Samples] = {}
    names = [SCHEMES[i] if i < len(SCHEMES) else f"v{i}" for i in range(n_variants)]
    leaves = [replace(leaf, limit=limit) for task in tasks for leaf in (MEMBERS if task == QUIZ else (task,))]
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    for task in leaves:
        n = n_items if isinstance(n_items, int) else dict(n_items).get(task.name, 100)
        base = first_samples(task, n, rng)
        for index, name in enumerate(names):
            made = base if index == 0 else candidate_samples(task, base, effect, churn, rng)
            cell = make_cell(f"{name}-{task.name}", task, made, n_available)
            samples[cell.key] = _kept(made)
            cells[name].append(cell)
    suite = Suite("toy", tuple(replace(task, limit=limit) for task in tasks), average_rows(tasks))
    results = tuple(make_result(name, cells[name]) for name in names)
    run = Run("run-1", "2026-01-02T03:04:05Z", "toy", suite, names[0], results, Settings(limit=limit))
    return run, lambda cell: samples[cell.key], lambda cell: make_items(cell, samples[cell.key])


def _kept(samples: Samples) -> Samples:
    """The same, of which nobody can change what others get too."""
    for field in fields(samples):
        column = getattr(samples, field.name)
        if isinstance(column, np.ndarray):
            column.flags.writeable = False
    return samples


def average_rows(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The row ids of the suite's average: groups by their macro mean, no perplexities."""
    return tuple(
        f"{task.name}_macro" if task == QUIZ else task.name for task in tasks if task.kind != "perplexity"
    )


def make_cell(key: str, task: Task, samples: Samples, n_available: int | None = None) -> Cell:
    """A cell with the true score of its samples (0 where there are none)."""
    weight = float(samples.weight.sum())
    return Cell(
        key=key,
        task=task,
        n=len(samples),
        n_available=len(samples) if n_available is None else n_available,
        score=float(samples.value.sum()) / weight if weight else 0.0,
        task_version="1.0",
        files={"samples.parquet": "0" * 64},
    )


def make_result(name: str, cells: Sequence[Cell]) -> Result:
    """A finished Result of the variant `name`."""
    scheme = Scheme(name if name in {"fp16", "bnb4", "gptq", "awq", "bnb8", "hqq"} else "fake")
    provenance = Provenance(model="toy", revision="0" * 40, versions={"lm_eval": "0.4.13"})
    return Result(Variant(name, "toy", scheme), "done", tuple(cells), provenance)


@functools.cache
def hashes(prefix: str, n: int) -> Any:
    """(n,) str: SHA-256 of `prefix` and the item's number, as lm-eval's hashes look."""
    made = np.array([hashlib.sha256(f"{prefix}/{i}".encode()).hexdigest() for i in range(n)], dtype="<U64")
    made.flags.writeable = False  # many runs share it
    return made


def first_samples(task: Task, n: int, rng: np.random.Generator) -> Samples:
    """The baseline's samples: about 60 % right, mc2-like scores, or about -2 nats per word."""
    weight = np.ones(n)
    answer = gold = np.full(n, "", dtype="<U1")
    if task.kind == "perplexity":
        weight = rng.integers(50, 500, n).astype(float)
        value = -weight * rng.uniform(1.5, 2.5, n)
    elif task.kind == "score":
        value = rng.uniform(0.1, 0.9, n)
    else:
        right = rng.random(n) < 0.6
        value = right.astype(float)
        numbers = rng.integers(0, 4, n)
        gold = numbers.astype("<U1")
        answer = np.where(right, numbers, (numbers + rng.integers(1, 4, n)) % 4).astype("<U1")
    return Samples(
        key=np.arange(n).astype("<U8"),
        doc_hash=hashes(f"{task.name}/doc", n),
        prompt_hash=hashes(f"{task.name}/prompt", n),
        target_hash=hashes(f"{task.name}/target", n),
        value=value,
        weight=weight,
        cluster=np.full(n, "", dtype="<U1"),
        answer=answer,
        gold=gold,
        scores=choice_scores(answer, rng),
    )


def choice_scores(answer: Any, rng: np.random.Generator) -> Any:
    """(n,) object: for each item the log-likelihoods of four choices, the answer's the greatest."""
    falling = np.sort(-rng.exponential(2.0, (len(answer), 4)))[:, ::-1]
    if "" in answer:
        rows: list[list[float]] = [[]] * len(answer)
    else:
        turned = (np.arange(4) - answer.astype(int)[:, None]) % 4
        rows = np.take_along_axis(falling, turned, axis=1).tolist()
    return np.fromiter(map(tuple, rows), dtype=object, count=len(rows))


def candidate_samples(
    task: Task, base: Samples, effect: float, churn: float, rng: np.random.Generator
) -> Samples:
    """The same items answered by a candidate whose expected difference is `effect`."""
    n = len(base)
    if task.kind != "accuracy":
        noise = rng.normal(0.0, 0.02, n)
        return replace(base, value=base.value + base.weight * (effect + noise))
    right = base.value == 1.0
    share = max(float(right.mean()), 1e-9) if n else 1.0
    lose = right & (rng.random(n) < (churn - effect) / 2 / share)
    gain = ~right & (rng.random(n) < (churn + effect) / 2 / max(1 - share, 1e-9))
    value = np.where(lose, 0.0, np.where(gain, 1.0, base.value))
    wrong = ((base.gold.astype(int) if n else np.zeros(0, int)) + 1) % 4
    answer = np.where(gain, base.gold, np.where(lose, wrong.astype("<U1"), base.answer))
    return replace(base, value=value, answer=answer, scores=choice_scores(answer, rng))


def make_items(cell: Cell, samples: Samples) -> tuple[Item, ...]:
    """What the items of a cell looked like: short made-up questions with four choices."""
    choices = () if cell.task.kind == "perplexity" else (" alpha", " beta", " gamma", " delta")
    return tuple(
        Item(
            key=str(key),
            prompt=f"Answer the questions.\n\nWhich is letter {key} of {cell.task.name}?",
            question=f"Which is letter {key} of {cell.task.name}?",
            choices=choices,
            gold=str(gold),
        )
        for key, gold in zip(samples.key, samples.gold, strict=True)
    )


def edited(read: Callable[[Cell], Samples], cell_key: str, **columns: Any) -> Callable[[Cell], Samples]:
    """A reader that gives the cell `cell_key` with some columns replaced."""

    def read_edited(cell: Cell) -> Samples:
        samples = read(cell)
        return replace(samples, **columns) if cell.key == cell_key else samples

    return read_edited


def by_characters(
    run: Run, read: Callable[[Cell], Samples], choices: Sequence[str]
) -> Callable[[Cell], Samples]:
    """A reader whose answers are chosen by log-likelihood a character of `choices`; the first is right."""
    divisors = [len(choice.removeprefix(" ")) for choice in choices]
    rng = np.random.default_rng(7)
    made = {}
    for result in run.results:
        for cell in result.cells:
            samples = read(cell)
            rows = -rng.uniform(0.5, 1.5, (len(samples.key), len(divisors))) * divisors
            answers = (rows / divisors).argmax(axis=1)
            scores = np.empty(len(rows), dtype=object)
            scores[:] = [tuple(row) for row in rows.tolist()]
            made[cell.key] = replace(
                samples, answer=answers.astype(str), value=(answers == 0).astype(float), scores=scores
            )
    return lambda cell: made[cell.key]


def several_units(n_items: int) -> tuple[Run, Callable[[Cell], Samples], Callable[[Cell], dict[str, Item]]]:
    """A run of three variants on a task that is decided by nats a character, one by nats, and one whose
    answers were written."""
    choices = (" a", " a long choice", " four", " the longest choice of all")
    sums, writes = replace(ARC, name="sums", metric="acc"), Task("writes", "exact_match", "strict")
    run, read, make = make_run(3, n_items=n_items, tasks=(ARC, sums, writes), churn=0.3)
    divided, nothing = by_characters(run, read, choices), np.empty(n_items, dtype=object)
    nothing[:] = [()] * n_items

    def samples(cell: Cell) -> Samples:
        if cell.task.name == "writes":
            return replace(read(cell), scores=nothing)
        return divided(cell) if cell.task.name == "arc" else read(cell)

    def items(cell: Cell) -> dict[str, Item]:
        own = {item.key: item for item in make(cell)}
        shown = {"arc": choices, "writes": ()}.get(cell.task.name)
        return own if shown is None else {key: replace(item, choices=shown) for key, item in own.items()}

    return run, samples, items


def with_cell(run: Run, variant: str, name: str, /, **changes: Any) -> Run:
    """The run with some fields of the cell of the task `name` replaced."""
    results = tuple(
        replace(
            result,
            cells=tuple(replace(c, **changes) if c.task.name == name else c for c in result.cells),
        )
        if result.variant.name == variant
        else result
        for result in run.results
    )
    return replace(run, results=results)


def without_cell(run: Run, variant: str, task: str) -> Run:
    """The run without one cell."""
    results = tuple(
        replace(result, cells=tuple(c for c in result.cells if c.task.name != task))
        if result.variant.name == variant
        else result
        for result in run.results
    )
    return replace(run, results=results)


# --- what the rooms behind the runs make of them -------------------------------------------------


def pair(run, read, *, baseline=None):
    """The pairs of every row of every candidate."""
    return tuple(gather(with_baseline(run, baseline), read).pairs.values())


def compare_run(run, read, *, baseline=None, confidence=0.95):
    """Every comparison of a run, at a confidence."""
    return tuple(compare(one, confidence) for one in pair(run, read, baseline=baseline))


def judge(run, read, policy, *, baseline=None):
    """The gate's decisions on a run."""
    return gate.judge(gather(with_baseline(run, baseline), read), policy)


def conclude(run, read, policy, *, baseline=None):
    """The gate's outcome on a run."""
    return gate.conclude(gather(with_baseline(run, baseline), read), policy)


def context(run, read, read_items, decisions=(), policy=None, *, title=None):
    """The context of a report on a run."""
    let = conclude(run, read, policy).forgiven if policy else ()
    return build(gather(run, read), read_items, decisions, policy, title=title, forgiven=let)
