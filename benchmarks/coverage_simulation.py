"""How often does a candidate that has lost exactly the margin pass? At most as often as promised.

    python benchmarks/coverage_simulation.py [--trials 20000] [--seed 1] [--jobs 1] [--random 10]
    python benchmarks/coverage_simulation.py --through-gate 200 [--seed 1] [--jobs 1]

Prints Markdown tables and exits with 1 if a method errs more often than promised by more than three
standard errors of the simulation. All rules have a one-sided confidence of 95%, so 5% is promised.
`--through-gate` takes so many candidates a setting through `qeval import` and `qeval gate` instead.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import coverage_gate
import coverage_hard as hard
import coverage_plan
import numpy as np
from scipy import special

from qeval.base.records import Cell, Policy, Result, Rule, Run, Samples, Scheme, Suite, Task, Variant
from qeval.compare import stats
from qeval.compare.evidence import gather
from qeval.judge import betting, gate

CONFIDENCE = 0.95
PROMISED = 1 - CONFIDENCE
LEVEL = 2 * CONFIDENCE - 1
FLIPS = 0.14
SIZES = (20, 100, 500, 2000)
MARGINS = (0.01, 0.02, 0.03)
ARTICLE = (1172, 10042, 14042, 817)
PERPLEXITY_MARGIN = math.log(1.02)

Random = np.random.Generator
Table = np.ndarray
Trial = Callable[[Random], bool]


@dataclass(frozen=True)
class Scenario:
    """A candidate exactly at the limit; `trial` says whether it got the wrong verdict once. `items` heads
    the table's column; `cost` divides the number of trials."""

    name: str
    items: str
    trial: Trial
    cost: int = 1


@dataclass(frozen=True)
class Measured:
    """The share of `trials` with the wrong verdict."""

    scenario: Scenario
    rate: float
    trials: int

    @property
    def allowed(self) -> float:
        """The promise and three standard errors of a simulation of this size."""
        return PROMISED + 3 * math.sqrt(PROMISED * (1 - PROMISED) / self.trials)

    @property
    def cell(self) -> str:
        """The share for a table with its standard error in points, bold where it is too great."""
        error = 100 * math.sqrt(self.rate * (1 - self.rate) / self.trials)
        share = f"**{self.rate:.1%}**" if self.rate > self.allowed else f"{self.rate:.1%}"
        return f"{share} ± {error:.2f}" if error else share


# --- one task -----------------------------------------------------------------------------------


def rates(margin: float, flips: float) -> tuple[float, float]:
    """True shares of losses and gains, whose difference is the margin."""
    return (margin, 0.0) if not flips else ((flips + margin) / 2, (flips - margin) / 2)


@functools.cache
def gate_bound(losses: int, gains: int, n: int) -> float:
    return stats.accuracy_interval(losses, gains, n, LEVEL)[0]


def counts(random: Random, n: int, margin: float, flips: float) -> tuple[int, int]:
    loss, gain = rates(margin, flips)
    losses, gains, _ = random.multinomial(n, [loss, gain, 1 - loss - gain])
    return int(losses), int(gains)


def task(n: int, margin: float, flips: float) -> Trial:
    return lambda random: gate_bound(*counts(random, n, margin, flips), n) > -margin


def plain_task(n: int, margin: float, flips: float) -> Trial:
    """The usual interval, mean and normal standard error, for comparison: no gate uses it."""

    def trial(random: Random) -> bool:
        losses, gains = counts(random, n, margin, flips)
        mean = (gains - losses) / n
        error = math.sqrt(((losses + gains) / n - mean**2) / n)
        return mean - 1.6449 * error > -margin

    return trial


def differences(random: Random, n: int, margin: float, flips: float) -> np.ndarray:
    """(n,) differences in random order."""
    loss, gain = rates(margin, flips)
    drawn = random.random(n)
    return np.where(drawn < loss, -1.0, np.where(drawn < loss + gain, 1.0, 0.0))


def as_scores(random: Random, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0/1 columns of baseline and candidate with these differences; half of the rest is right."""
    coins = random.integers(0, 2, len(change))
    baseline = np.where(change == 0, coins, change < 0).astype(float)
    return baseline, baseline + change


def continuous(random: Random, n: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores in [0, 1] that move by a heavy-tailed amount and lose the margin on average."""
    baseline = random.uniform(0.3, 0.7, n)
    moved = np.clip(random.standard_t(3, n) * 0.05, -0.25, 0.25)
    return baseline, baseline + moved - margin


def continuous_task(n: int, margin: float) -> Trial:
    return lambda random: stats.paired_interval(*continuous(random, n, margin), level=LEVEL)[1] > -margin


def clustered_task(clusters: int, size: int, margin: float) -> Trial:
    """Items in groups that share a text; half of the groups change as one."""

    def trial(random: Random) -> bool:
        change = differences(random, clusters * size, margin, FLIPS).reshape(clusters, size)
        together = random.integers(0, 2, clusters) == 1
        change[together] = change[together, :1]
        labels = np.repeat(np.arange(clusters), size)
        scores = as_scores(random, change.ravel())
        return stats.paired_interval(*scores, None, labels, LEVEL)[1] > -margin

    return trial


# --- other rules --------------------------------------------------------------------------------


def recovery(n: int, ratio: float, flips: float) -> Trial:
    """A baseline of 60% and a candidate whose score is exactly `ratio` of it."""
    score = 0.6
    margin = (1 - ratio) * score

    def trial(random: Random) -> bool:
        loss, gain = rates(margin, flips)
        shares = [loss, gain, score - loss, 1 - score - gain]
        losses, gains, right, wrong = random.multinomial(n, shares)
        baseline = np.repeat([1.0, 0.0, 1.0, 0.0], [losses, gains, right, wrong])
        candidate = np.repeat([0.0, 1.0, 1.0, 0.0], [losses, gains, right, wrong])
        return stats.paired_ratio_margin(baseline, candidate, ratio, LEVEL)[1] > 0

    return trial


def flip_rule(n: int, allowed: float) -> Trial:
    return lambda random: stats.proportion_interval(int(random.binomial(n, allowed)), n, LEVEL)[1] < allowed


def perplexity(documents: int, noise: str) -> Trial:
    """Documents of very unequal length, each losing its own amount per word."""
    lognormal = 0.7

    def trial(random: Random) -> bool:
        words = np.ceil(3000 * random.lognormal(0, 0.8, documents))
        if noise == "heavy tails":
            lost = PERPLEXITY_MARGIN + 0.02 * random.standard_t(3, documents)
        else:
            lost = PERPLEXITY_MARGIN * random.lognormal(-(lognormal**2) / 2, lognormal, documents)
        baseline = -2.0 * words
        return stats.paired_interval(baseline, baseline - words * lost, words, None, LEVEL)[1] > (
            -PERPLEXITY_MARGIN
        )

    return trial


def published(n: int, margin: float, *, same_items: bool) -> Trial:
    score = 0.6

    def trial(random: Random) -> bool:
        if same_items:
            baseline, candidate = as_scores(random, differences(random, n, margin, FLIPS))
            pair = float(baseline.mean()), float(candidate.mean())
        else:
            pair = random.binomial(n, score) / n, random.binomial(n, score - margin) / n
        return stats.unpaired_interval(pair[0], n, pair[1], n, LEVEL)[0] > -margin

    return trial


# --- means --------------------------------------------------------------------------------------


def macro(sizes: tuple[int, ...], margin: float, flips: float) -> Trial:
    """Subjects that lose and churn unequally, the last ones most; their mean loses the margin."""
    strata = np.repeat(np.arange(len(sizes)), sizes)
    unequal = np.linspace(0.2, 1.8, len(sizes))[strata]

    def trial(random: Random) -> bool:
        loss, gain = rates(margin, flips)
        drawn = random.random(len(strata)) / unequal
        change = np.where(drawn < loss, -1.0, np.where(drawn < loss + gain, 1.0, 0.0))
        scores = as_scores(random, change)
        return stats.stratified_interval(*scores, strata, LEVEL)[1] > -margin

    return trial


def average(sizes: tuple[int, ...], margin: float, flips: float) -> Trial:
    """Tasks of 0/1 scores and a last one of continuous scores; each loses the margin."""

    def trial(random: Random) -> bool:
        rows = []
        for n in sizes[:-1]:
            losses, gains = counts(random, n, margin, flips)
            rows.append(((gains - losses) / n, *stats.accuracy_interval(losses, gains, n, LEVEL)))
        rows.append(stats.paired_interval(*continuous(random, sizes[-1], margin), level=LEVEL))
        sides = [stats.side_errors(*row, LEVEL) for row in rows]
        return stats.average_interval([row[0] for row in rows], sides, LEVEL)[1] > -margin

    return trial


def joint(n: int, margin: float, tasks: int) -> Trial:
    """Four rules, of which `tasks` are exactly at the margin and the others far from it."""

    def trial(random: Random) -> bool:
        drawn = [counts(random, n, margin, FLIPS) for _ in range(tasks)]
        drawn += [counts(random, n, -3 * margin, FLIPS) for _ in range(4 - tasks)]
        return all(gate_bound(*pair, n) > -margin for pair in drawn)

    return trial


def samples(values: np.ndarray) -> Samples:
    """Items that agree in everything but their values."""
    numbers = np.arange(len(values)).astype(str)
    none = np.full(len(values), "")
    return Samples(
        key=numbers,
        doc_hash=numbers,
        prompt_hash=numbers,
        target_hash=numbers,
        value=values,
        weight=np.ones(len(values)),
        cluster=none,
        answer=values.astype(str),
        gold=none,
        scores=np.full(len(values), None),
    )


def whole_gate(n: int, margin: float, flips: float) -> Trial:
    """`qeval.judge.gate` itself on a run of three tasks: one at the margin, two with churn but no loss, and a
    rule for each. The verdict on the variant must not be PASS."""
    tasks = tuple(Task(name, "acc,none") for name in "abc")
    policy = Policy((Rule(max_drop=100 * margin, confidence=CONFIDENCE),))

    def result(name: str, columns: dict[str, np.ndarray]) -> Result:
        cells = tuple(
            Cell(f"{name}/{one.name}", one, n, n, float(columns[one.name].mean()), files={"items": "here"})
            for one in tasks
        )
        return Result(Variant(name, "model", Scheme(name)), "done", cells)

    def trial(random: Random) -> bool:
        changes = [differences(random, n, one, FLIPS if not one else flips) for one in (margin, 0.0, 0.0)]
        pairs = [as_scores(random, change) for change in changes]
        both = [{task.name: pair[side] for task, pair in zip(tasks, pairs, strict=True)} for side in (0, 1)]
        names = ("fp16", "bnb4")
        values = {
            f"{name}/{task}": column
            for name, one in zip(names, both, strict=True)
            for task, column in one.items()
        }
        results = tuple(result(name, one) for name, one in zip(names, both, strict=True))
        run = Run("run", "2026-01-01T00:00:00Z", "model", Suite("three", tasks), "fp16", results)
        decisions = gate.judge(gather(run, lambda cell: samples(values[cell.key])), policy)
        return gate.verdicts(decisions, policy)["bnb4"] == "PASS"

    return trial


def stopped(n: int, margin: float, flips: float) -> Trial:
    """The bet looks after every item; here the error is to call the rule broken."""

    def trial(random: np.random.Generator) -> bool:
        bet = betting.update(betting.start(margin), differences(random, n, margin, flips))
        return bet.broken_at is not None

    return trial


# --- all ----------------------------------------------------------------------------------------


def scenarios() -> Iterator[Scenario]:
    """Everything a gate decides with, once with losses alone and once among many flips."""
    for flips, churn in ((0.0, "losses only"), (FLIPS, "14% flips")):
        for n in SIZES:
            yield from _by_size(n, flips, churn)
        yield from _means(flips, churn)
    for n in SIZES:
        yield Scenario("continuous score, limit 1%", f"{n}", continuous_task(n, 0.01))
        yield Scenario("at most 5% flips", f"{n}", flip_rule(n, 0.05))
    for n, margin in ((52, 0.05), (133, 0.02), (268, 0.01)):
        yield Scenario(
            f"one task, losses only, limit {margin * 100:.0f}%", f"unlucky: {n}", task(n, margin, 0.0)
        )
    yield Scenario("clusters, 14% flips, limit 2%", "100 of 5", clustered_task(100, 5, 0.02))
    for noise in ("heavy tails", "skewed losses"):
        yield Scenario(f"perplexity ratio 1.02, {noise}", "62 documents", perplexity(62, noise))
    for name, same in (("the same items", True), ("other items", False)):
        trial = published(1172, 0.02, same_items=same)
        yield Scenario(f"published scores of {name}, limit 2%", "1172", trial)
    for tasks in (1, 4):
        trial = joint(500, 0.02, tasks)
        yield Scenario(f"four rules, {tasks} of them at the limit of 2%", "500 each", trial)


def _by_size(n: int, flips: float, churn: str) -> Iterator[Scenario]:
    for margin in MARGINS:
        yield Scenario(f"one task, {churn}, limit {margin * 100:.0f}%", f"{n}", task(n, margin, flips))
    yield Scenario(f"recovery of 97%, {churn}", f"{n}", recovery(n, 0.97, flips))
    gate_trial = whole_gate(n, 0.03, flips)
    yield Scenario(f"the whole gate, three tasks, {churn}, limit 3%", f"{n}", gate_trial, cost=10)
    bet = stopped(n, 0.02, flips)
    yield Scenario(f"stopped early, looking after every item, {churn}, limit 2%", f"{n}", bet, cost=4)


def _means(flips: float, churn: str) -> Iterator[Scenario]:
    unequal = tuple(int(n) for n in np.geomspace(1500, 100, 57))
    for items, sizes in (("100 each", (100,) * 57), ("5 each", (5,) * 57), ("1500 to 100", unequal)):
        trial = macro(sizes, 0.01, flips)
        yield Scenario(f"mean of 57 subjects, {churn}, limit 1%", items, trial, cost=2)
    for items, sizes in (("20 each", (20,) * 4), ("100 each", (100,) * 4), ("the article's", ARTICLE)):
        trial = average(sizes, 0.01, flips)
        yield Scenario(f"average of four tasks, {churn}, limit 1%", items, trial)


def comparisons() -> Iterator[Scenario]:
    """What no gate uses, to show why."""
    for n in SIZES:
        trial = plain_task(n, 0.02, 0.0)
        yield Scenario("the plain paired interval, losses only, limit 2%", f"{n}", trial)


def hard_scenarios() -> dict[str, list[Scenario]]:
    """Those in which a few items, documents, texts or groups carry all, by kind."""
    return {
        name: list(itertools.starmap(Scenario, settings)) for name, settings in hard.families(SIZES).items()
    }


def random_scenarios(seed: int, count: int) -> list[Scenario]:
    """So many settings drawn at random, for which 5% is promised too."""
    return list(itertools.starmap(Scenario, hard.at_random(np.random.default_rng(seed), count)))


def measure(scenario: Scenario, trials: int, seed: int) -> Measured:
    """Run `trials` over the scenario's cost, at least 200, with a generator of its own."""
    random = np.random.default_rng([seed, *f"{scenario.name}, {scenario.items}".encode()])
    number = max(trials // scenario.cost, 200)
    return Measured(scenario, sum(scenario.trial(random) for _ in range(number)) / number, number)


_WAITING: list[Scenario] = []


def measure_all(waiting: Iterator[Scenario] | list[Scenario], options: argparse.Namespace) -> list[Measured]:
    """Measure all, by `options.jobs` processes; the numbers do not depend on how many there are."""
    _WAITING[:] = waiting
    tasks = [(index, options.trials, options.seed) for index in range(len(_WAITING))]
    if options.jobs == 1:
        return list(itertools.starmap(_measure_at, tasks))
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        return pool.starmap(_measure_at, tasks, chunksize=1)


def _measure_at(index: int, trials: int, seed: int) -> Measured:
    return measure(_WAITING[index], trials, seed)


# --- all tables of one task, enumerated ---------------------------------------------------------


def passing(losses: Table, gains: Table, n: int, margin: float, z: float, correction: float) -> np.ndarray:
    """Which tables pass: the score test at -margin is beyond z. Written apart from qeval's own search."""
    b = -(2 * n - gains + losses) * margin - losses - gains
    c = losses * margin * (1 + margin)
    share = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
    variance = np.maximum(2 * share - margin * (1 + margin), 0)
    return gains - losses + n * margin - correction > z * np.sqrt(n * variance)


def exact_rate(n: int, margin: float, gain: float, z: float, correction: float) -> float:
    """The probability that a candidate that loses exactly the margin passes, over all tables that matter."""
    loss = margin + gain
    most = [int(min(n, n * rate + 8 * math.sqrt(n * rate) + 12)) for rate in (loss, gain)]
    losses = np.arange(most[0] + 1)[:, None]
    gains = np.arange(most[1] + 1 if gain else 1)[None, :]
    rest = n - losses - gains
    lost = [special.gammaln(one + 1) for one in (losses, gains, np.maximum(rest, 0))]
    chance = special.gammaln(n + 1) - sum(lost) + rest * math.log1p(-loss - gain)
    chance = chance + special.xlogy(losses, loss) + special.xlogy(gains, gain)
    chances = np.where(rest >= 0, np.exp(chance), 0)
    return float(chances[passing(losses, gains, n, margin, z, correction)].sum())


def worst_case(confidence: float, correction: float) -> tuple[float, int, float, float]:
    """The greatest exact rate, with its n, margin and share of gains, over a grid of them."""
    z = NormalDist().inv_cdf(confidence)
    grid = itertools.product(
        [*range(20, 400, 4), *range(400, 3001, 100)],
        (0.005, 0.01, 0.02, 0.03, 0.05),
        (0.0, 0.0005, 0.002, 0.005, 0.01, 0.03, 0.07, 0.15),
    )
    return max((exact_rate(n, margin, gain, z, correction), n, margin, gain) for n, margin, gain in grid)


def exact() -> Iterator[str]:
    """A table of the worst cases of one accuracy, with and without the correction."""
    yield "| one-sided confidence | promised | Tango, worst case | with half an item, worst case |"
    yield "|---:|---:|---:|---:|"
    for confidence in (0.9, 0.95, 0.975, 0.99):
        cells = []
        for correction in (0.0, stats.HALF_ITEM):
            rate, n, margin, gain = worst_case(confidence, correction)
            cells.append(f"{rate:.2%} (n = {n}, limit {margin:.1%}, gains {gain:.2%})")
        yield f"| {confidence:.1%} | {1 - confidence:.1%} | {' | '.join(cells)} |"


# --- printing -----------------------------------------------------------------------------------


def by_size(found: list[Measured]) -> Iterator[str]:
    """A table of the scenarios measured at all sizes, a column for each."""
    yield f"| candidate exactly at the limit | {' | '.join(f'n = {n}' for n in SIZES)} |"
    yield "|---|" + "---:|" * len(SIZES)
    rows: dict[str, dict[str, str]] = {}
    for one in found:
        rows.setdefault(one.scenario.name, {})[one.scenario.items] = one.cell
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells[str(n)] for n in SIZES)} |"


def matrix(found: list[Measured], heading: str) -> Iterator[str]:
    """A table of scenarios that all have the same items, a column for each."""
    columns = list(dict.fromkeys(one.scenario.items for one in found))
    cells = {(one.scenario.name, one.scenario.items): one.cell for one in found}
    yield f"| {heading} | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)
    for name in dict.fromkeys(one.scenario.name for one in found):
        yield f"| {name} | {' | '.join(cells[name, column] for column in columns)} |"


def one_by_one(found: list[Measured], heading: str = "candidate exactly at the limit") -> Iterator[str]:
    """A table of the others."""
    yield f"| {heading} | items | wrong verdicts |\n|---|---|---:|"
    for one in found:
        yield f"| {one.scenario.name} | {one.scenario.items} | {one.cell} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--random", type=int, default=10, help="settings drawn at random")
    parser.add_argument("--through-gate", type=int, default=0, metavar="N", help="candidates a setting")
    options = parser.parse_args()
    if options.through_gate:
        return through_gate(options)
    found = measure_all(scenarios(), options)
    plain = measure_all(comparisons(), options)
    sizes = {str(n) for n in SIZES}
    show(by_size([one for one in found if one.scenario.items in sizes] + plain))
    show(one_by_one([one for one in found if one.scenario.items not in sizes]))
    for name, settings in hard_scenarios().items():
        of_kind = measure_all(settings, options)
        show(matrix(of_kind, name))
        found += of_kind
    drawn = measure_all(random_scenarios(options.seed, options.random), options)
    show(one_by_one(drawn, f"drawn at random, seed {options.seed}"))
    for name, others in (("no promise", hard.without_promise()), ("a good candidate", hard.undecided())):
        show(one_by_one(measure_all(list(itertools.starmap(Scenario, others)), options), name))
    random = np.random.default_rng(options.seed)
    show(hard.widths(random))
    show(hard.spreads(random, max(options.trials // 20, 100)))
    show(coverage_plan.table(options.trials, options.seed))
    show(coverage_plan.widths(random))
    show(exact())
    return int(any(one.rate > one.allowed for one in found + drawn))


def through_gate(options: argparse.Namespace) -> int:
    """The verdicts of the whole gate on files."""
    settings = list(coverage_gate.settings())
    tasks = [(setting, options.through_gate, options.seed) for setting in range(len(settings))]
    if options.jobs == 1:
        found = list(itertools.starmap(_through_gate_at, tasks))
    else:
        with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
            found = pool.starmap(_through_gate_at, tasks, chunksize=1)
    show(coverage_gate.table(found))
    return int(not all(one.holds for one in found))


def _through_gate_at(index: int, trials: int, seed: int) -> coverage_gate.Judged:
    return coverage_gate.judge(list(coverage_gate.settings())[index], trials, seed)


def show(table: Iterator[str]) -> None:
    print(*table, "", sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
