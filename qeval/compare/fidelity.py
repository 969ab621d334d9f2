"""How far each variant is from the baseline by each protocol: THE rows of fidelity, out of stored
positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.fidelity import Measured, Positions, Role, Stream
from qeval.base.protocols import OWN, Protocol
from qeval.compare import stats
from qeval.compare.stats.divergence import mean_divergence

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
"""The two-sided confidence of intervals that nothing else decides."""
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
UPTO = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Tokens of an answer up to which traces are compared."""
TWICE = 2.0
"""Up to so many times the noise floor a variant is not told from the baseline."""
_CONFIDENCE_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)
_PARTS = 16

Read = Callable[[Measured], tuple[Positions, Stream]]
"""Gives the positions and the stream of what was measured."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Positions that are alike: from `low` to `high` of what they are sorted by, how many, and the mean
    divergence and the share with the same most likely token among them."""

    low: float
    high: float
    n: int
    kl: float
    same_top: float


@dataclass(frozen=True)
class Traced:
    """What became of the baseline's answers: how many there are, in how many of them the variant would write
    another token, the median place (from 1) of the first one among those, and the share of answers that are
    the same up to so many tokens."""

    answers: int
    diverged: int
    median_first: float | None
    identical: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Row:
    """One model by one protocol. `kl` (nats) by documents, of which there are `units` (windows where the
    stream has none); its quantiles as in QUANTILES; the mean the other way round. `same_top` and `ordered`:
    the share of positions with the same most likely token, and with the same first five in order. `delta_p`:
    the mean and the root mean square of the change in the probability of the token that stands there. `ppl`:
    the baseline's and the variant's perplexity, `ratio` what one is of the other. `mean_log` are the same as
    mean log-likelihoods with the interval of their difference."""

    measured: Measured
    units: int
    by_document: bool
    kl: Estimate
    kl_reverse: float
    quantiles: tuple[float, ...]
    same_top: Estimate
    ordered: float
    delta_p: tuple[float, float]
    ppl: tuple[float, float]
    ratio: Estimate
    entropy: float
    by_confidence: tuple[Bin, ...] = ()
    by_position: tuple[Bin, ...] = ()
    traced: Traced | None = None
    of_floor: float | None = None

    @property
    def protocol(self) -> Protocol:
        """The protocol."""
        return self.measured.protocol

    @property
    def variant(self) -> str:
        """The variant's name, or the baseline's."""
        return self.measured.variant

    @property
    def role(self) -> Role:
        """Whether it is a variant, or the baseline once more."""
        return self.measured.role


@dataclass(frozen=True, eq=False)
class FidelityRows:
    """The rows of a run, the baseline's own before the variants' in each protocol, and what reads their
    positions. `floors` are, by protocol, the greatest mean divergence of the baseline from itself. `damaged`
    says of each file that is damaged, and so left out, which it is and what to do."""

    rows: tuple[Row, ...] = ()
    floors: Mapping[str, float] | None = None
    read: Read | None = None
    damaged: tuple[str, ...] = ()

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of the protocols that a variant was measured by."""
        return tuple(dict.fromkeys(row.protocol.name for row in self.rows if row.role == "candidate"))

    def row(self, variant: str, protocol: str) -> Row | None:
        """A variant's row."""
        places = ((row.variant, row.protocol.name, row.role) for row in self.rows)
        return next(
            (
                row
                for row, place in zip(self.rows, places, strict=True)
                if place == (variant, protocol, "candidate")
            ),
            None,
        )

    def of(self, protocol: str) -> tuple[Row, ...]:
        """The rows of a protocol."""
        return tuple(row for row in self.rows if row.protocol.name == protocol)


def rows_of(measured: Sequence[Measured], read: Read, order: Sequence[str], baseline: str) -> FidelityRows:
    """What was measured against `baseline`, as rows: protocol by protocol as they came, variants in this
    order.

    Of a variant whose stream is not that of the others by the same protocol nothing is shown, for nothing is
    compared across streams.
    """
    known = [one for one in measured if one.baseline == baseline and one.variant in order]
    protocols = list(dict.fromkeys(one.protocol.name for one in known))
    rows: list[Row] = []
    floors: dict[str, float] = {}
    for name in protocols:
        mine = [one for one in known if one.protocol.name == name]
        newest = max(
            (one for one in mine if one.role == "candidate"), key=lambda one: one.created, default=None
        )
        if newest is None:
            continue
        kept = [one for one in mine if one.role != "candidate" or one.stream == newest.stream]
        kept.sort(key=lambda one: (one.role == "candidate", order.index(one.variant)))
        made = [_measured_row(one, read) for one in kept if one.baseline_digest == newest.baseline_digest]
        own = [row for row in made if row.role != "candidate"]
        if own:
            floors[name] = max(row.kl.value for row in own)
        rows += [_with_floor(row, own, read) for row in made]
    return FidelityRows(tuple(rows), floors, read)


def _measured_row(one: Measured, read: Read) -> Row:
    return summarise(one, *read(one))


def _with_floor(row: Row, own: Sequence[Row], read: Read) -> Row:
    """A variant's row with its mean divergence as a multiple of the noise floor, both over the positions that
    the floor was measured on."""
    if row.role != "candidate" or not own:
        return row
    floor = max(own, key=lambda one: one.kl.value)
    positions, stream = read(row.measured)
    part = stream.beginning(floor.measured.windows)
    if part.sha256 != floor.measured.stream:
        return row
    mine = float(positions.kl[: part.n].mean(dtype=np.float64))
    if mine <= 0:
        return replace(row, of_floor=0.0)
    return replace(row, of_floor=mine / floor.kl.value if floor.kl.value > 0 else math.inf)


def summarise(one: Measured, positions: Positions, stream: Stream) -> Row:
    """The row of what was measured, out of its positions and the stream that they belong to."""
    places = stream.scored()
    document = stream.document[places]
    same = positions.top_p == positions.top_q
    log_p, log_q = positions.log_p.astype(np.float64), positions.log_q.astype(np.float64)
    moved = np.exp(log_q) - np.exp(log_p)
    mean_p, mean_q = float(log_p.mean()), float(log_q.mean())
    return Row(
        measured=one,
        units=len(np.unique(document)),
        by_document=stream.documents,
        kl=divergence(positions, document, LEVEL),
        kl_reverse=float(positions.kl_reverse.mean(dtype=np.float64)),
        quantiles=tuple(float(value) for value in np.quantile(positions.kl, QUANTILES)),
        same_top=agreement(positions, document, LEVEL),
        ordered=float(positions.ordered.mean()),
        delta_p=(float(moved.mean()), math.sqrt(float(np.square(moved).mean()))),
        ppl=(_exp(-mean_p), _exp(-mean_q)),
        ratio=_ratio(perplexity(positions, document, LEVEL)),
        entropy=float(positions.entropy.mean(dtype=np.float64)),
        by_confidence=_by_confidence(positions, same),
        by_position=_by_position(positions, same, stream, places),
        traced=_traced(same, stream) if one.protocol.kind == "trace" else None,
    )


def divergence(positions: Positions, document: NDArray[np.int32], level: float) -> Estimate:
    """The mean divergence, by documents."""
    return Estimate(*mean_divergence(positions.kl, document, level))


def agreement(positions: Positions, document: NDArray[np.int32], level: float) -> Estimate:
    """The share of positions with the same most likely token, by documents."""
    changed = positions.top_p != positions.top_q
    low, high = stats.changed_interval(changed, document, level)
    return Estimate(1 - float(changed.mean()), 1 - high, 1 - low)


def perplexity(positions: Positions, document: NDArray[np.int32], level: float) -> Estimate:
    """The difference of the mean log-likelihoods of the tokens that stand there, variant less baseline, in
    nats; paired, by documents."""
    codes = np.unique(document, return_inverse=True)[1]
    sums = [np.bincount(codes, column.astype(np.float64)) for column in (positions.log_p, positions.log_q)]
    weights = np.bincount(codes).astype(np.float64)
    return Estimate(*stats.paired_interval(sums[0], sums[1], weights, level=level))


def _ratio(difference: Estimate) -> Estimate:
    """A difference of log-likelihoods as a ratio of perplexities."""
    return Estimate(_exp(-difference.value), _exp(-difference.high), _exp(-difference.low))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # noqa: PLR2004 - a float ends there


def _by_confidence(positions: Positions, same: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Positions by the baseline's probability of its most likely token."""
    edges = np.array(_CONFIDENCE_EDGES)
    places = np.clip(np.searchsorted(edges, positions.confidence, side="right") - 1, 0, len(edges) - 2)
    return _bins(positions, same, places, edges)


def _by_position(
    positions: Positions, same: NDArray[np.bool_], stream: Stream, places: NDArray[np.int64]
) -> tuple[Bin, ...]:
    """Positions by their place in the window, in equal parts of the longest one."""
    starts = np.repeat(stream.starts, stream.counts)
    at = places - starts
    edges = np.unique(np.linspace(0, int(at.max()) + 1, _PARTS + 1).astype(np.int64))
    return _bins(positions, same, np.searchsorted(edges, at, side="right") - 1, edges.astype(np.float64))


def _bins(
    positions: Positions, same: NDArray[np.bool_], places: NDArray[np.intp], edges: NDArray[np.float64]
) -> tuple[Bin, ...]:
    count = len(edges) - 1
    n = np.bincount(places, minlength=count)
    kl = np.bincount(places, positions.kl.astype(np.float64), count)
    tops = np.bincount(places, same.astype(np.float64), count)
    return tuple(
        Bin(
            float(edges[at]), float(edges[at + 1]), int(n[at]), float(kl[at] / n[at]), float(tops[at] / n[at])
        )
        for at in range(count)
        if n[at]
    )


def _traced(same: NDArray[np.bool_], stream: Stream) -> Traced:
    """What became of the answers of a trace, a window each."""
    ends = np.cumsum(stream.counts)
    parts = np.split(same, ends[:-1])
    first = [int(np.argmin(part)) + 1 if not part.all() else None for part in parts]
    known = [place for place in first if place is not None]
    longest = int(stream.counts.max())
    identical = tuple(
        (k, float(np.mean([bool(part[:k].all()) for part in parts]))) for k in UPTO if k <= longest
    )
    return Traced(len(parts), len(known), float(np.median(known)) if known else None, identical)


def names_without_files(found: FidelityRows) -> dict[str, str]:
    """For each protocol that reads a person's file, by its name, one that tells the kind and the token stream
    instead."""
    rows = [row for row in found.rows if row.role == "candidate" and row.protocol.file not in {"", OWN}]
    return {row.protocol.name: f"{row.protocol.kind}:{row.measured.stream[:8]}" for row in rows}


def without_files(found: FidelityRows) -> FidelityRows:
    """The same without the names of files."""
    names = names_without_files(found)
    rows = []
    for row in found.rows:
        if row.protocol.name in names:
            protocol = replace(row.protocol, name=names[row.protocol.name], file="")
            row = replace(row, measured=replace(row.measured, protocol=protocol))  # noqa: PLW2901
        rows.append(row)
    floors = {names.get(name, name): floor for name, floor in (found.floors or {}).items()}
    return replace(found, rows=tuple(rows), floors=floors)


def renamed(found: FidelityRows, names: Mapping[str, str]) -> FidelityRows:
    """The same with other names of variants, by their own."""
    rows = tuple(
        replace(
            row,
            measured=replace(
                row.measured,
                variant=names.get(row.variant, row.variant),
                baseline=names.get(row.measured.baseline, row.measured.baseline),
            ),
        )
        for row in found.rows
    )
    return replace(found, rows=rows)


def within_noise(row: Row) -> bool:
    """Whether a variant is no further from the baseline than twice the baseline is from itself."""
    return row.role == "candidate" and row.of_floor is not None and row.of_floor <= TWICE


def floor_sentence(found: FidelityRows) -> Iterable[str]:
    """A sentence for each protocol whose noise floor is known, and for each without one."""
    for name in found.protocols:
        floor = (found.floors or {}).get(name)
        if floor is None:
            yield f"{name}: the baseline's own noise was not measured."
        else:
            own = "the noise floor of KL, not of answers"
            yield f"{name}: the baseline is {floor:.2g} nats from itself ({own})."
