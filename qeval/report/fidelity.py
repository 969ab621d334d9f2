"""How far each variant moved from the baseline, in words, for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qeval.base import layout, numbers
from qeval.base.fidelity import Role
from qeval.base.layout import Column
from qeval.base.names import short
from qeval.base.numbers import Numeral
from qeval.base.text import one_line
from qeval.compare.fidelity import QUANTILES, Bin, Estimate, FidelityRows, Row, floor_sentence, within_noise

NOT_TOLD_APART = "not distinguishable from the baseline's own noise"
HEADERS = (
    "Protocol",
    "Variant",
    "Positions",
    "KL, nats",
    "95% interval",
    "Same top-1",
    "Perplexity",
    "Ratio",
)
"""Of the table that every format shows."""
MORE_HEADERS = (
    "Protocol",
    "Variant",
    "Median",
    "90%",
    "95%",
    "99%",
    "99.9%",
    "Most",
    "KL the other way",
    "Same top-1, interval",
    "First five in order",
    "Mean Δp",
    "RMS Δp",
    "Ratio, interval",
    "Entropy",
)
TRACE_HEADERS = ("Protocol", "Variant", "Answers", "Diverged", "Median first divergence", "Identical up to")
BIN_HEADERS = ("From", "To", "Positions", "KL, nats", "Same top-1")
PASSAGE_HEADERS = ("Window", "Token", "Tokens", "KL, nats")
_ROLES: dict[Role, str] = {
    "packing": "again, other packing",
    "plain": "again, plain path",
    "float32": "again, in float32",
    "candidate": "",
}


@dataclass(frozen=True)
class Passages:
    """The worst passages of a variant by a protocol: rows of numbers, and the text of each, which is
    untrusted."""

    title: str
    rows: tuple[tuple[tuple[str, ...], str, str], ...]


@dataclass(frozen=True)
class Told:
    """All of it in words. `rows`, `more` and `traces` are those of three tables, `sentences` what to know of
    them, `bins` tables with their titles, `passages` the worst passages of each variant. `found` is what it
    is made of."""

    found: FidelityRows
    rows: tuple[tuple[str, ...], ...] = ()
    more: tuple[tuple[str, ...], ...] = ()
    traces: tuple[tuple[str, ...], ...] = ()
    sentences: tuple[str, ...] = ()
    bins: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()
    passages: tuple[Passages, ...] = ()


def told(found: FidelityRows) -> Told:
    """Everything that a report says of fidelity; empty where nothing was measured."""
    rows = found.rows
    candidates = [row for row in rows if row.role == "candidate"]
    return Told(
        found=found,
        rows=tuple(_row(row) for row in rows),
        more=tuple(_more(row) for row in rows),
        traces=tuple(_trace(row) for row in candidates if row.traced),
        sentences=sentences(found),
        bins=tuple(_tables_of_bins(candidates)),
        passages=tuple(_passages(row) for row in candidates if row.measured.worst),
    )


def name_of(row: Row) -> str:
    """A row's variant, of the baseline how it was measured once more."""
    role = _ROLES[row.role]
    return f"{short(row.variant)} ({role})" if role else short(row.variant)


def sentences(found: FidelityRows) -> tuple[str, ...]:
    """What a reader must know of the numbers: the noise floor and who is within it, what was cut or left
    out."""
    alike = [row for row in found.rows if within_noise(row)]
    lines = [
        *(f"Damaged and left out: {one}" for one in found.damaged),
        *floor_sentence(found),
        *(f"{short(row.variant)} by {row.protocol.name}: {NOT_TOLD_APART}." for row in alike),
    ]
    for name in found.protocols:
        rows = found.of(name)
        first = next(row for row in rows if row.role == "candidate")
        unit = "documents" if first.by_document else "windows"
        lines.append(f"{name}: intervals by {first.units} {unit}; token stream {first.measured.stream[:16]}.")
        if first.measured.limited:
            n, of = (numbers.count(one) for one in (first.measured.n, first.measured.n_available))
            lines.append(f"{name}: {n} of {of} positions were measured; no rule of a gate passes on that.")
        cut = {row.measured.cut for row in rows} | {row.measured.cut_baseline for row in rows}
        if cut - {0}:
            rows_cut = " or ".join(str(one) for one in sorted(cut))
            lines.append(f"{name}: {rows_cut} padding rows of the head were cut off before the softmax.")
    notes = (note for row in found.rows for note in row.measured.notes)
    return tuple(dict.fromkeys([*lines, *notes]))


def _itself(row: Row) -> bool:
    """Whether this is the baseline beside itself and every token stayed: of a thing that is compared with
    itself an interval from nought to all of it says nothing."""
    return row.role != "candidate" and row.same_top.value == 1


def _shares(estimate: Estimate) -> str:
    return f"{numbers.percent(estimate.low, 2)} to {numbers.percent(estimate.high, 2)}"


def _row(row: Row) -> tuple[str, ...]:
    return (
        row.protocol.name,
        name_of(row),
        numbers.count(row.measured.n),
        nats(row.kl.value),
        _interval(row.kl),
        numbers.percent(row.same_top.value, 2),
        numbers.plain(row.ppl[1], 3),
        _ratio(row.ratio.value),
    )


def _more(row: Row) -> tuple[str, ...]:
    return (
        row.protocol.name,
        name_of(row),
        *(nats(value) for value in row.quantiles),
        nats(row.kl_reverse),
        "" if _itself(row) else _shares(row.same_top),
        numbers.percent(row.ordered, 2),
        numbers.percent(row.delta_p[0], 3) if row.delta_p[0] else numbers.percent(0.0, 3),
        numbers.percent(row.delta_p[1], 3),
        f"{_ratio(row.ratio.low)} to {_ratio(row.ratio.high)}",
        numbers.significant(row.entropy),
    )


def _trace(row: Row) -> tuple[str, ...]:
    traced = row.traced
    if traced is None:
        return ()
    first = numbers.plain(traced.median_first, 0) if traced.median_first is not None else numbers.NONE
    identical = ", ".join(f"{k}: {numbers.percent(share, 0)}" for k, share in traced.identical)
    return (
        row.protocol.name,
        name_of(row),
        numbers.count(traced.answers),
        numbers.count(traced.diverged),
        first,
        identical,
    )


def nats(value: float) -> Numeral:
    """A divergence with three significant digits."""
    return numbers.significant(value)


def _interval(estimate: Estimate) -> Numeral:
    return Numeral(f"{nats(estimate.low)} to {nats(estimate.high)}")


def _ratio(value: float) -> Numeral:
    return Numeral(f"x{numbers.plain(value, 4)}")


def _tables_of_bins(rows: Sequence[Row]) -> list[tuple[str, tuple[tuple[str, ...], ...]]]:
    made = []
    for row in rows:
        about = f"{row.protocol.name}, {name_of(row)}"
        made.append((f"{about}: by the baseline's confidence", tuple(map(_share_bin, row.by_confidence))))
        made.append((f"{about}: by place in the window", tuple(map(_place_bin, row.by_position))))
    return made


def _share_bin(one: Bin) -> tuple[str, ...]:
    return (numbers.plain(one.low), numbers.plain(one.high), *_bin(one))


def _place_bin(one: Bin) -> tuple[str, ...]:
    return (numbers.plain(one.low, 0), numbers.plain(one.high - 1, 0), *_bin(one))


def _bin(one: Bin) -> tuple[str, ...]:
    return numbers.count(one.n), nats(one.kl), numbers.percent(one.same_top)


def _passages(row: Row) -> Passages:
    rows = tuple(
        ((str(one.window), str(one.place), str(one.n), nats(one.kl)), one.before, one.text)
        for one in row.measured.worst
    )
    return Passages(f"{row.protocol.name}, {name_of(row)}", rows)


def terminal(found: FidelityRows, width: int | None = None) -> str:
    """The table and its sentences for so many columns; a sentence where nothing was measured."""
    if not found.rows:
        return "\n".join(map(one_line, sentences(found))) or "No fidelity was measured."
    lines = [[one_line(cell) for cell in _row(row)] for name in found.protocols for row in found.of(name)]
    names = [line[0] for line in lines]
    for at, line in enumerate(lines):
        line[0] = "" if at and names[at - 1] == names[at] else names[at]
    headers = [header if header.startswith("KL") else header.lower() for header in HEADERS]
    table = layout.table([*map(_column, headers, _GOES)], lines, width)
    traces = [_trace(row) for row in found.rows if row.traced]
    more = ""
    if traces:
        cells = [[one_line(cell) for cell in line] for line in traces]
        titles = [Column(title.lower(), leads=place < _NAMES) for place, title in enumerate(TRACE_HEADERS)]
        more = f"\n\n{layout.table(titles, cells, width)}"
    return "\n".join([table + more, "", *map(one_line, sentences(found))])


_GOES = (0, 0, 2, 0, 0, 1, 3, 1)
"""Which of HEADERS give way first on a narrow terminal."""
_NAMES = 2


def _column(title: str, goes: int) -> Column:
    leads = title in {"protocol", "variant"}
    return Column(title, "left" if leads else "right", goes, leads=leads)


def as_data(found: FidelityRows) -> list[dict[str, Any]]:
    """The rows for programs: numbers as they are."""
    return [_data(row) for row in found.rows]


def _data(row: Row) -> dict[str, Any]:
    one = row.measured
    return {
        "protocol": dataclasses.asdict(one.protocol),
        "variant": one.variant,
        "role": one.role,
        "stream": one.stream,
        "n": one.n,
        "n_available": one.n_available,
        "windows": one.windows,
        "units": row.units,
        "by_document": row.by_document,
        "vocabulary": one.vocabulary,
        "cut": one.cut,
        "batch": one.batch,
        "dtype": one.dtype,
        "device": one.device,
        "checked": one.checked,
        "seconds": one.seconds,
        "kl": dataclasses.asdict(row.kl),
        "kl_reverse": row.kl_reverse,
        "quantiles": {f"{share:g}": value for share, value in zip(QUANTILES, row.quantiles, strict=True)},
        "same_top": dataclasses.asdict(row.same_top),
        "ordered": row.ordered,
        "delta_p": {"mean": row.delta_p[0], "rms": row.delta_p[1]},
        "perplexity": {"baseline": row.ppl[0], "variant": row.ppl[1]},
        "ratio": dataclasses.asdict(row.ratio),
        "entropy": row.entropy,
        "of_floor": row.of_floor,
        "within_noise": within_noise(row),
        "by_confidence": [dataclasses.asdict(part) for part in row.by_confidence],
        "by_position": [dataclasses.asdict(part) for part in row.by_position],
        "traced": dataclasses.asdict(row.traced) if row.traced else None,
        "worst": [dataclasses.asdict(part) for part in one.worst],
    }
