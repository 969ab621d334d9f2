"""Does a candidate as good as the baseline pass what `qeval plan` calls provable; what do texts cost MMLU?

`coverage_simulation.py` prints the tables. A plan promises a power of 80%: its smallest provable loss, given
as the limit, must be passed that often by candidates that lose nothing while as much changes as was supposed,
or as a run measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import coverage_hard as hard
import numpy as np
from coverage_hard import Draw, Drawn

from qeval.base.records import Cell, Kind, Result, Run, Samples, Scheme, Suite, Task, Variant
from qeval.base.sizes import MMLU_SUBJECTS, TASK_TEXTS, Shared
from qeval.compare import stats
from qeval.compare.evidence import Evidence, gather
from qeval.judge import plan, sizing

POWER = 0.8
MACRO, POOLED = "mmlu_macro", "mmlu"
MEASURED = 40  # runs that a plan starts from, each with its own smallest loss
Random = np.random.Generator


@dataclass(frozen=True)
class Promise:
    """A setting: candidates that lose nothing, and the smallest loss that a plan calls provable for them.

    `smallest` is asked once for each measured run, with that run's draw; where nothing is measured it is
    always the same.
    """

    name: str
    items: str
    draw: Draw
    smallest: Callable[[Drawn], float]


# --- candidates that lose nothing ---------------------------------------------------------------


def churning(texts: np.ndarray, churn: float, together: float, strata: np.ndarray | None = None) -> Draw:
    """0/1 scores of which a share `churn` changes, in a share `together` of the `texts` (n,) as one."""
    sizes = np.bincount(texts)
    clusters = texts if sizes.max() > 1 else None

    def draw(random: Random) -> Drawn:
        drawn = random.random(len(texts))
        as_one = (random.random(len(sizes)) < together)[texts]
        drawn = np.where(as_one, random.random(len(sizes))[texts], drawn)
        lost, gained = drawn < churn / 2, drawn > 1 - churn / 2
        return Drawn(lost.astype(float), gained.astype(float), 0.0, clusters=clusters, strata=strata)

    return draw


def moving(n: int, spread: float) -> Draw:
    """Scores in [0, 1] that move at random."""

    def draw(random: Random) -> Drawn:
        baseline = random.uniform(0.35, 0.65, n)
        return Drawn(baseline, np.clip(baseline + random.normal(0, spread, n), 0, 1), 0.0)

    return draw


def pages(spread: float, freedom: float) -> Draw:
    """WikiText's pages, whose log-likelihoods per word move by Student's t of so many degrees of freedom."""

    def draw(random: Random) -> Drawn:
        moved = spread * random.standard_t(freedom, len(hard.PAGES))
        return Drawn(-2 * hard.PAGES, hard.PAGES * (moved - 2), 0.0, hard.PAGES)

    return draw


# --- plans --------------------------------------------------------------------------------------


def smallest(task: Task, sizes: dict[str, sizing.Size], row: str, **known: object) -> float:
    rows = plan.plan(Suite("s", (task,)), sizes, power=POWER, **known)  # type: ignore[arg-type]
    found = next(one.smallest for one in rows if one.task == row)
    return math.nan if found is None else found


def supposed(n: int, churn: float, shared: Shared | None = None) -> Callable[[Drawn], float]:
    """The plan of a task of which nothing was measured."""
    task = Task("task", "acc")
    sizes = sizing.sizes(Suite("s", (task,)), {"task": n}, shared={"task": shared} if shared else None)
    return lambda _: smallest(task, sizes, "task", churn=churn)


def of_mmlu(row: str, churn: float) -> Callable[[Drawn], float]:
    """The plan of MMLU, of whose texts it knows by itself."""
    task = Task("mmlu", "acc")
    sizes = sizing.sizes(Suite("s", (task,)))
    return lambda _: smallest(task, sizes, row, churn=churn)


def measured(kind: Kind) -> Callable[[Drawn], float]:
    """The plan of a task from a run."""
    task = Task("task", "word_perplexity" if kind == "perplexity" else "acc", kind=kind)

    def ask(drawn: Drawn) -> float:
        found = evidence(task, drawn)
        sizes = sizing.sizes(found.run.suite, run=found.run, shared=sizing.shared_texts(found))
        return smallest(task, sizes, "task", measured=sizing.measure(found))

    return ask


def evidence(task: Task, drawn: Drawn) -> Evidence:
    """A run of one task with these columns."""
    columns = {"fp16": drawn.baseline, "int4": drawn.candidate}
    n = len(drawn.baseline)
    results = tuple(
        Result(Variant(name, "m", Scheme(name)), "done", (Cell(name, task, n, n, 0.0, files={"items": ""}),))
        for name in columns
    )
    run = Run("run", "2026-01-01T00:00:00Z", "m", Suite("s", (task,)), "fp16", results)
    return gather(run, lambda cell: samples(columns[cell.key], drawn))


def samples(values: np.ndarray, drawn: Drawn) -> Samples:
    numbers, none = np.arange(len(values)).astype(str), np.full(len(values), "")
    return Samples(
        key=numbers,
        doc_hash=numbers,
        prompt_hash=numbers,
        target_hash=numbers,
        value=values,
        weight=np.ones(len(values)) if drawn.weights is None else drawn.weights,
        cluster=none if drawn.clusters is None else drawn.clusters.astype(str),
        answer=values.astype(str),
        gold=none,
        scores=np.full(len(values), None),
    )


# --- promises -----------------------------------------------------------------------------------


def promises() -> Iterator[Promise]:
    for n in (300, 1172):
        for churn in (0.05, 0.14):
            draw = churning(np.arange(n), churn, 0)
            yield Promise(f"one task, churn {churn:.0%}", f"{n}", draw, supposed(n, churn))
    for n, spread in ((100, 0.1), (817, 0.03), (817, 0.1)):
        yield Promise(f"mc2 that moves by {spread:g}, measured", f"{n}", moving(n, spread), measured("score"))
    sizes = hard.SHAPES["204 in 67"]
    texts = np.repeat(np.arange(len(sizes)), sizes)
    known = Shared(len(sizes), float((sizes**2).sum() / sizes.sum()))
    for together in (0.5, 1.0):
        draw = churning(texts, 0.1, together)
        name = f"texts, {together:.0%} as one, churn 10%"
        yield Promise(name, "204 in 67", draw, supposed(204, 0.1, known))
        yield Promise(f"{name}, measured", "204 in 67", draw, measured("accuracy"))
    strata, texts = mmlu()
    for row in (MACRO, POOLED):
        for together in (0.0, 1.0):
            draw = churning(texts, 0.1, together, strata if row == MACRO else None)
            name = f"{row}, {together:.0%} of texts as one, churn 10%"
            yield Promise(name, f"{len(texts)} in {texts.max() + 1}", draw, of_mmlu(row, 0.1))
    for name, freedom in (("evenly", math.inf), ("with heavy tails", 3)):
        draw = pages(0.01, 1e9 if math.isinf(freedom) else freedom)
        yield Promise(
            f"perplexity, pages move {name}, measured", "wikitext's 62", draw, measured("perplexity")
        )


def mmlu() -> tuple[np.ndarray, np.ndarray]:
    """(n,) the subject and (n,) the text of each of MMLU's questions, in shapes with the known counts."""
    subjects, texts, before = [], [], 0
    for place, (name, (n, _)) in enumerate(MMLU_SUBJECTS.items()):
        if name == "mmlu_formal_logic":  # an instruction of fifteen items, one of six, and a pair
            sizes = np.array([15, 6, 2, *[1] * (n - 23)])
        else:
            sizes = hard.shape(n, TASK_TEXTS[name].texts) if name in TASK_TEXTS else np.ones(n, dtype=int)
        subjects.append(np.full(n, place))
        texts.append(before + np.repeat(np.arange(len(sizes)), sizes))
        before += len(sizes)
    return np.concatenate(subjects), np.concatenate(texts)


def power(promise: Promise, trials: int, seed: int) -> tuple[float, float]:
    """The smallest loss, on average over measured runs, and the share of candidates that pass it."""
    random = np.random.default_rng([seed, *f"{promise.name}, {promise.items}".encode()])
    rounds = MEASURED if "measured" in promise.name else 1
    losses, passed = [], []
    for _ in range(rounds):
        loss = promise.smallest(promise.draw(random))
        draws = max(trials // rounds, 5)
        passed += [hard.passes(replace(promise.draw(random), margin=loss)) for _ in range(draws)]
        losses.append(loss)
    return float(np.mean(losses)), float(np.mean(passed))


def table(trials: int, seed: int) -> Iterator[str]:
    yield "| as good as the baseline | items | smallest provable loss | passes it |"
    yield "|---|---|---:|---:|"
    for promise in promises():
        number = max(trials // 10, 200)
        loss, share = power(promise, number, seed)
        text = f"x {math.exp(loss):.4f}" if "perplexity" in promise.name else f"{100 * loss:.2f} points"
        error = 100 * math.sqrt(share * (1 - share) / number)
        yield f"| {promise.name} | {promise.items} | {text} | {share:.0%} ± {error:.1f} |"


# --- the price of texts -------------------------------------------------------------------------


def width_ratios(
    random: Random, strata: np.ndarray, texts: np.ndarray, churn: float, together: float
) -> tuple[float, float]:
    """How many times as wide texts make the intervals of MMLU's pooled score and of its mean."""
    draw, found = churning(texts, churn, together), []
    for _ in range(20):
        drawn = draw(random)
        columns = drawn.baseline, drawn.candidate
        plain = stats.paired_interval(*columns, level=hard.LEVEL)
        shared = stats.paired_interval(*columns, None, texts, hard.LEVEL)
        pooled = max(plain[2], shared[2]) - min(plain[1], shared[1])
        alone = stats.stratified_interval(*columns, strata, hard.LEVEL)
        wide = stats.stratified_interval(*columns, strata, hard.LEVEL, texts)
        found.append((pooled / (plain[2] - plain[1]), (wide[2] - wide[1]) / (alone[2] - alone[1])))
    pooled, mean = np.mean(found, axis=0)
    return float(pooled), float(mean)


def widths(random: Random) -> Iterator[str]:
    """What texts cost MMLU, in units of the width without them."""
    columns = [(churn, together) for churn in (0.05, 0.1, 0.14) for together in (0.0, 0.5, 1.0)]
    heads = [f"{churn:.0%}, {together:.0%} as one" for churn, together in columns]
    yield f"| width with texts, churn | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(columns)
    strata, texts = mmlu()
    found = [width_ratios(random, strata, texts, *column) for column in columns]
    for place, name in enumerate(("MMLU, all items", "MMLU, mean of 57 subjects")):
        yield f"| {name} | {' | '.join(f'{pair[place]:.2f}' for pair in found)} |"
