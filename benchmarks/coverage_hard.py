"""Candidates exactly at the limit that are hard to tell: all is carried by a few items, documents or texts.

A trial draws once and says whether the verdict was wrong; `coverage_simulation.py` counts. The true loss is
always the margin. What a candidate's columns look like is a Draw of its own, for `coverage_gate.py` writes
them to files and asks the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize, special

from qeval.base.sizes import MMLU_SUBJECTS
from qeval.compare import stats
from qeval.compare.stats.shrink import between_variance, settled

LEVEL = 0.9
ERROR = 0.05
PAGES = np.loadtxt(Path(__file__).with_name("wikitext_pages.txt"))
DOCUMENTS = {
    "20 equal": np.ones(20),
    "20 unequal": np.geomspace(1, 20, 20),
    "1 long, 19 short": np.array([40.0] + [1.0] * 19),
    "62 equal": np.ones(62),
    "wikitext's 62": PAGES,
}

Random = np.random.Generator
Trial = Callable[[Random], bool]
Setting = tuple[str, str, Trial, int]
"""Name, items, trial, cost."""


@dataclass(frozen=True)
class Drawn:
    """The columns of one draw, as the functions of qeval.compare.stats take them, and the loss allowed. With
    `flips` it is a share of changed answers that is allowed, not a loss."""

    baseline: np.ndarray
    candidate: np.ndarray
    margin: float
    weights: np.ndarray | None = None
    clusters: np.ndarray | None = None
    strata: np.ndarray | None = None
    flips: bool = False


Draw = Callable[[Random], Drawn]


def passes(drawn: Drawn) -> bool:
    """Whether the candidate passes by the functions that the gate uses."""
    columns = drawn.baseline, drawn.candidate
    if drawn.flips:
        return stats.changed_interval(columns[0] != columns[1], drawn.clusters, LEVEL)[1] < drawn.margin
    if drawn.strata is not None:
        return stats.stratified_interval(*columns, drawn.strata, LEVEL)[1] > -drawn.margin
    low = stats.paired_interval(*columns, drawn.weights, drawn.clusters, LEVEL)[1]
    if drawn.clusters is not None:
        low = min(low, stats.paired_interval(*columns, level=LEVEL)[1])
    return low > -drawn.margin


def passing(draw: Draw) -> Trial:
    """The trial that calls a PASS wrong."""
    return lambda random: passes(draw(random))


# --- bounded scores -------------------------------------------------------------------------------


def centre(mean: float, spread: float) -> float:
    """The logit about which normal noise of this spread gives probabilities of this mean."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    return float(optimize.brentq(lambda c: weights @ special.expit(c + spread * points) - mean, -60, 60))


def lost_whole(n: int, margin: float, times: float, spread: float) -> Draw:
    """A share of `times` margins of all items loses all; the others have noise on their logits."""
    middle = centre(1 / times, spread)

    def draw(random: Random) -> Drawn:
        baseline, candidate = special.expit(middle + spread * random.standard_normal((2, n)))
        return Drawn(baseline, np.where(random.random(n) < times * margin, 0.0, candidate), margin)

    return draw


def moved(n: int, margin: float, spread: float) -> Trial:
    """A candidate that loses nothing, only moves: the wrong verdict here is to leave it undecided."""

    def trial(random: Random) -> bool:
        baseline = random.uniform(0.35, 0.65, n)
        candidate = np.clip(baseline + random.normal(0, spread, n), 0, 1)
        return stats.paired_interval(baseline, candidate, level=LEVEL)[1] <= -margin

    return trial


# --- perplexities ---------------------------------------------------------------------------------


def bad_documents(words: np.ndarray, share: float, noise: float, *, varied: bool = False) -> Draw:
    """A share of the documents carries all the loss; `noise` is the others' spread, in margins. If `varied`
    the bad lose exponential amounts instead of one."""
    margin, n = math.log(1.02), len(words)

    def draw(random: Random) -> Drawn:
        amount = random.exponential(margin / share, n) if varied else margin / share
        lost = np.where(random.random(n) < share, amount, 0.0) + noise * margin * random.standard_normal(n)
        return Drawn(-2 * words, -words * (2 + lost), margin, words)

    return draw


def even_documents(words: np.ndarray, spread: float) -> Trial:
    """A candidate that costs x 1.01 evenly, under a limit of x 1.05: wrong is to leave it undecided."""

    def trial(random: Random) -> bool:
        lost = math.log(1.01) + spread * random.standard_normal(len(words))
        _, low, _ = stats.paired_interval(-2 * words, -words * (2 + lost), words, level=LEVEL)
        return low <= -math.log(1.05)

    return trial


# --- clusters -------------------------------------------------------------------------------------


def shape(items: int, texts: int) -> np.ndarray:
    """How many items each of so many texts has: one at least, the rest fallen at random, always alike."""
    return 1 + np.random.default_rng(texts).multinomial(items - texts, np.full(texts, 1 / texts))


SHAPES = {
    "204 in 67": shape(204, 67),
    "237 in 76": shape(237, 76),
    "165 in 60": shape(165, 60),
    "100 in 20": np.full(20, 5),
    "97 in 20, one of 40": np.array([40] + [3] * 19),
    "500 in 100": np.full(100, 5),
}


def changes(random: Random, sizes: np.ndarray, together: float, loss: float, gain: float) -> np.ndarray:
    """(n,) differences; in a share `together` of the texts all items change as one."""
    texts = np.repeat(np.arange(len(sizes)), sizes)
    drawn = random.random(len(texts))
    as_one = (random.random(len(sizes)) < together)[texts]
    drawn = np.where(as_one, random.random(len(sizes))[texts], drawn)
    return np.where(drawn < loss, -1.0, np.where(drawn < loss + gain, 1.0, 0.0))


def shared_texts(sizes: np.ndarray, together: float, margin: float, flips: float) -> Draw:
    loss, gain = (margin, 0.0) if not flips else ((flips + margin) / 2, (flips - margin) / 2)
    texts = np.repeat(np.arange(len(sizes)), sizes)

    def draw(random: Random) -> Drawn:
        change = changes(random, sizes, together, loss, gain)
        return Drawn((change < 0).astype(float), (change > 0).astype(float), margin, clusters=texts)

    return draw


def shared_flips(sizes: np.ndarray, together: float, allowed: float) -> Draw:
    texts = np.repeat(np.arange(len(sizes)), sizes)

    def draw(random: Random) -> Drawn:
        changed = (changes(random, sizes, together, allowed, 0.0) < 0).astype(float)
        right = np.arange(len(texts)) % 2.0  # a baseline that has nothing right is refused
        return Drawn(right, np.abs(right - changed), allowed, clusters=texts, flips=True)

    return draw


# --- small groups ---------------------------------------------------------------------------------

GROUPS = {
    "20 of 2 to 30": np.round(np.linspace(2, 30, 20)).astype(int),
    "3 of 2, 10 of 30": np.array([2] * 3 + [30] * 10),
    "7 of 2 to 30": np.array([2, 3, 5, 8, 12, 20, 30]),
    "57 of 2 to 30": np.round(np.geomspace(2, 30, 57)).astype(int),
}


def small_groups(sizes: np.ndarray, losing: int, margin: float, flips: float, *, whole: bool = True) -> Draw:
    """The `losing` smallest groups carry all the loss of the mean; if not `whole` scores are continuous."""
    strata = np.repeat(np.arange(len(sizes)), sizes)
    extra = np.where(strata < losing, margin * len(sizes) / losing, 0.0)

    def draw(random: Random) -> Drawn:
        drawn = random.random(len(strata))
        change = np.where(
            drawn < extra + flips / 2, -1.0, np.where(drawn > 1 - flips / 2 * (extra < 1), 1.0, 0.0)
        )
        if whole:
            baseline, candidate = (change < 0).astype(float), (change > 0).astype(float)
        else:
            noise = random.normal(0, 0.03, len(strata))
            baseline = np.where(change < 0, 1.0, np.where(change > 0, 0.0, 0.5))
            candidate = np.where(change, 1 - baseline, 0.5 + np.clip(noise, -0.5, 0.5))
        return Drawn(baseline, candidate, margin, strata=strata)

    return draw


# --- many statements ------------------------------------------------------------------------------


def false_claims(variants: int) -> Trial:
    """A report of so many variants on four tasks without any true difference: wrong is any claim."""

    def p_values(random: Random) -> Iterator[tuple[float, float]]:
        for n in (1172, 817, 300):
            losses, gains, _ = random.multinomial(n, [0.05, 0.05, 0.9])
            yield (gains - losses) / n, stats.mcnemar_midp(int(losses), int(gains))
        baseline = random.uniform(0.3, 0.7, 817)
        lost = 0.01 * random.standard_t(4, len(PAGES))
        for columns in (
            (baseline, baseline + random.uniform(-0.2, 0.2, 817), None),
            (-2 * PAGES, -PAGES * (2 + lost), PAGES),
        ):
            yield stats.paired_interval(*columns)[0], stats.paired_p_value(*columns)

    def trial(random: Random) -> bool:
        pairs = [pair for _ in range(variants) for pair in p_values(random)]
        return any(stats.claims([p for _, p in pairs], [delta for delta, _ in pairs]))

    return trial


def uncorrected(variants: int) -> Trial:
    """The same with one 0/1 task a variant and no correction, to show why."""

    def trial(random: Random) -> bool:
        drawn = random.multinomial(1172, [0.05, 0.05, 0.9], variants)
        return any(stats.mcnemar_midp(int(losses), int(gains)) <= ERROR for losses, gains, _ in drawn)

    return trial


def any_fail(tasks: int, n: int, margin: float) -> Trial:
    """So many 0/1 tasks exactly at the margin: wrong is to fail on any of them."""

    def trial(random: Random) -> bool:
        shares = [0.07 + margin / 2, 0.07 - margin / 2, 0.86]
        drawn = random.multinomial(n, shares, tasks)
        return any(stats.accuracy_interval(int(a), int(b), n, LEVEL)[1] < -margin for a, b, _ in drawn)

    return trial


# --- all ------------------------------------------------------------------------------------------


def families(sizes: Sequence[int]) -> dict[str, list[Setting]]:
    """Every setting for which 5% is promised, by what a table's columns are: those of scores at `sizes`."""
    return {
        "a share of the scores is lost whole": list(_scores(sizes)),
        "a share of n documents carries the loss": list(_documents()),
        "texts change as one": list(_texts()),
        "small groups carry the loss of the mean": list(_groups()),
        "a report without any true difference": [
            ("any false claim, five tasks", f"{variants} variants", false_claims(variants), 10)
            for variants in (1, 5, 10)
        ],
    }


def _scores(sizes: Sequence[int]) -> Iterator[Setting]:
    for margin in (0.005, 0.02, 0.1):
        for times, spread in ((1.2, 0.02), (1.2, 0.5), (3, 0.1), (9, 0.1)):
            for n in sizes:
                name = f"{times:g} limits lost whole, logit noise {spread:g}, limit {margin:.1%}"
                yield name, f"n = {n}", passing(lost_whole(n, margin, times, spread)), 1


def _documents() -> Iterator[Setting]:
    for name, words in DOCUMENTS.items():
        n = len(words)
        for times, noise in ((3, 0.05), (3, 0.5), (3, 2.0), (5, 0.5)):
            trial = passing(bad_documents(words, times / n, noise))
            yield f"{times} / n bad, noise {noise:g} limits", name, trial, 1
        yield "half are bad, noise 0.5 limits", name, passing(bad_documents(words, 0.5, 0.5)), 1
        trial = passing(bad_documents(words, 8 / n, 0.5, varied=True))
        yield "8 / n bad by unlike amounts, noise 0.5 limits", name, trial, 1


def _texts() -> Iterator[Setting]:
    for name, sizes in SHAPES.items():
        for together in (0.1, 0.5, 1.0):
            for margin, flips in ((0.1, 0.0), (0.05, 0.14), (0.2, 0.3)):
                churn = f"{flips:.0%} flips" if flips else "losses only"
                trial = passing(shared_texts(sizes, together, margin, flips))
                yield f"{together:.0%} as one, {churn}, limit {margin:.0%}", name, trial, 1
            trial = passing(shared_flips(sizes, together, 0.1))
            yield f"{together:.0%} as one, at most 10% flips", name, trial, 1


def _groups() -> Iterator[Setting]:
    for name, groups in GROUPS.items():
        for losing, most, flips in ((1, 0.04, 0.0), (3, 0.05, 0.0), (3, 0.05, 0.14), (7, 0.1, 0.0)):
            margin = min(most, 0.9 * losing / len(groups))
            trial = passing(small_groups(groups, losing, margin, flips))
            yield f"the smallest {losing} of them, {flips:.0%} flips, limit up to {most:.0%}", name, trial, 1
        trial = passing(small_groups(groups, 3, 0.04, 0.0, whole=False))
        yield "the smallest 3 of them, continuous scores, limit 4%", name, trial, 1


def at_random(random: Random, count: int) -> Iterator[Setting]:
    """Settings of the same kinds with parameters drawn at random."""
    kinds = (_random_scores, _random_documents, _random_texts, _random_groups)
    for number in range(count):
        n = int(np.exp(random.uniform(math.log(20), math.log(1000))))
        yield kinds[number % len(kinds)](random, n)


def _random_scores(random: Random, n: int) -> Setting:
    margin, times, spread = random.uniform(0.005, 0.1), random.uniform(1.2, 10), random.uniform(0.02, 1)
    title = f"{times * margin:.1%} of scores lost whole, logit noise {spread:.2f}, limit {margin:.1%}"
    return title, f"{n} items", passing(lost_whole(n, margin, times, spread)), 1


def _random_documents(random: Random, n: int) -> Setting:
    words = random.lognormal(0, random.uniform(0, 1.2), min(n, 200))
    share, noise = random.uniform(3 / len(words), 0.6), random.uniform(0.05, 2)
    title = f"{share:.0%} of documents carry the loss, noise {noise:.1f} limits"
    items = f"{len(words)} worth {stats.effective_number(words):.0f}"
    return title, items, passing(bad_documents(words, share, noise)), 1


def _random_texts(random: Random, n: int) -> Setting:
    texts = max(20, n // 5)
    sizes = 1 + random.poisson(random.uniform(0, 8), texts)
    together, margin, flips = random.random(), random.uniform(0.01, 0.15), random.choice([0.0, 0.2])
    title = f"{together:.0%} of texts change as one, {flips:.0%} flips, limit {margin:.1%}"
    trial = passing(shared_texts(sizes, together, margin, flips))
    return title, f"{sizes.sum()} in {texts}", trial, 1


def _random_groups(random: Random, _: int) -> Setting:
    sizes = np.sort(random.integers(2, 100, random.integers(5, 60)))
    losing = int(random.integers(1, len(sizes) + 1))
    margin, flips = 0.5 * random.random() * losing / len(sizes), random.choice([0.0, 0.1])
    title = f"the {losing} smallest groups lose, {flips:.0%} flips, limit {margin:.1%}"
    return title, f"{len(sizes)} of 2 to 99", passing(small_groups(sizes, losing, margin, flips)), 1


def without_promise() -> Iterator[Setting]:
    """What no method can, and what an uncorrected one does."""
    for name in ("20 equal", "wikitext's 62"):
        words = DOCUMENTS[name]
        for times in (1, 2):
            title = f"{times / len(words):.1%} of documents carry the loss: rarer than 3 / n"
            yield title, name, passing(bad_documents(words, times / len(words), 0.5)), 1
        title = f"{3 / len(words):.0%} of documents lose unlike amounts"
        yield title, name, passing(bad_documents(words, 3 / len(words), 0.5, varied=True)), 1
    for variants in (5, 10):
        yield "any false claim, one task, uncorrected", f"{variants} variants", uncorrected(variants), 1
    yield "any FAIL of four rules at the margin of 2%, 14% flips", "2000 each", any_fail(4, 2000, 0.02), 1


def undecided() -> Iterator[Setting]:
    """How often a good candidate is left undecided."""
    for spread in (0.03, 0.05, 0.1):
        yield f"mc2 moves by {spread:g} an item, limit 1%", "817", moved(817, 0.01, spread), 1
    for spread in (0.003, 0.01, 0.02):
        title = f"x 1.01 evenly (spread {spread:g} a page), limit x 1.05"
        yield title, "wikitext's 62", even_documents(PAGES, spread), 1


def widths(random: Random) -> Iterator[str]:
    """A table of half-widths in units of Student's t, for noise without any loss."""
    yield "| half-width, in units of t's | n = 20 | n = 100 | n = 817 | n = 5000 |"
    yield "|---|---:|---:|---:|---:|"
    counts = (20, 100, 817, 5000)
    for spread in (0.01, 0.03, 0.1, 0.3):
        cells = [_ratio(random, n, spread, bounded=True) for n in counts]
        yield f"| bounded scores that move by {spread:g} | {' | '.join(f'{one:.2f}' for one in cells)} |"
    cells = [_ratio(random, n, 0.1, bounded=False) for n in counts]
    yield f"| log-likelihoods of equal documents | {' | '.join(f'{one:.2f}' for one in cells)} |"


def _ratio(random: Random, n: int, spread: float, *, bounded: bool) -> float:
    found = []
    for _ in range(40):
        change = np.clip(random.normal(0, spread, n), -0.5, 0.5)
        baseline = np.full(n, 0.5 if bounded else -3.0)
        _, low, high = stats.paired_interval(baseline, baseline + change, level=LEVEL)
        error = change.std(ddof=1) / math.sqrt(n)
        found.append((high - low) / 2 / (float(special.stdtrit(n - 1, 0.95)) * error))
    return float(np.mean(found))


def spreads(random: Random, draws: int) -> Iterator[str]:
    """A table of the spread of MMLU's 57 subjects that comes back, and how often none does."""
    yield "| true spread of 57 subjects | churn | median found | found none |"
    yield "|---:|---:|---:|---:|"
    sizes = np.array([n for n, _ in MMLU_SUBJECTS.values()])
    for spread in (0.0, 0.01, 0.02, 0.04):
        for churn in (0.05, 0.14):
            found = [_found(random, sizes, spread, churn) for _ in range(draws)]
            none = np.mean([one == 0 for one in found])
            median = 100 * np.median(found)
            yield f"| {100 * spread:.0f} points | {churn:.0%} | {median:.1f} points | {none:.0%} |"


def _found(random: Random, sizes: np.ndarray, spread: float, churn: float) -> float:
    true = -0.01 + spread * random.standard_normal(len(sizes))
    share = np.maximum(churn, np.abs(true) + 0.001)
    losses = random.binomial(sizes, (share - true) / 2)
    gains = random.binomial(sizes - losses, (share + true) / 2 / (1 - (share - true) / 2))
    deltas = (gains - losses) / sizes
    errors = np.sqrt(((gains + losses) / sizes - deltas**2) / (sizes - 1))
    return math.sqrt(between_variance(deltas, settled(errors, sizes)))
