"""Which runs may stand in one line over time: those that asked the same, of the same items, in one way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qeval.base.names import scheme_text
from qeval.base.records import Cell, Read, Result, Run, Samples, Task
from qeval.compare.conditions import ITEMS, unlike
from qeval.compare.merge import SHAPING
from qeval.compare.pairs import HASHES, SHOWN_AS, checked, facts_of, harness_of
from qeval.compare.rows import cell_of

_NO_ITEMS = "nothing proves that the items are the same, as they are not known"
_UNNAMED = "nothing proves that the model is the same, as its path was left out"
_SHORT = 12


@dataclass(frozen=True)
class Asked:
    """What the baseline of a run was asked in one leaf task: its cell, lm-eval's version, the settings that
    shape questions and answers, and the SHA-256 of each column that proves items the same, in the order of
    their keys; of items that are not known, or carry no hashes, there is none."""

    cell: Cell
    harness: tuple[str, str] | None
    settings: Mapping[str, object]
    items: Mapping[str, str]


@dataclass(frozen=True)
class Frame:
    """What a point of a line is measured in: the baseline and the scheme as they were asked for, what the
    tasks behind the row asked, and of fidelity the token stream and how many of its positions. Adapters are
    those that the variant and its baseline were held with; `unnamed` tells weights apart of which an earlier
    hand left out the name, "" where the model is known by it."""

    baseline: str
    scheme: str
    asked: Mapping[str, Asked]
    stream: str = ""
    positions: int = 0
    adapter: str = ""
    adapter_of_baseline: str = ""
    unnamed: str = ""


def asked_of(run: Run, base: Result, task: Task, read: Read) -> Asked | None:
    """What a run asked in a task, None where its baseline has no items of it.

    Raises QevalError where they are damaged.
    """
    cell = cell_of(base, task)
    if cell is None or not cell.n:
        return None
    settings = {name: getattr(run.settings, name) for name in sorted(SHAPING)}
    items = {} if cell.aggregate_only else _digests(checked(read(cell), base, cell))
    return Asked(replace(cell, provenance=None), harness_of(base), settings, items)


def _digests(samples: Samples) -> dict[str, str]:
    if not (np.all(samples.doc_hash != "") and np.all(samples.prompt_hash != "")):
        return {}
    order = np.argsort(samples.key, kind="stable")
    columns = {name: getattr(samples, name)[order] for name in ("key", *HASHES)}
    return {
        name: hashlib.sha256("\n".join(map(str, column.tolist())).encode()).hexdigest()
        for name, column in columns.items()
    }


def asked_scheme(result: Result) -> str:
    """A scheme with its options, without the place of a checkpoint: that may be another one each time, as a
    model's revision may."""
    return scheme_text(replace(result.variant.scheme, checkpoint=None, revision=None))


def apart(before: Frame, now: Frame) -> str:
    """Why two points are not compared, in a few words; "" where the line goes on from one to the other."""
    found = [
        f"{name}: {_word(one)}, then {_word(two)}"
        for name, one, two in (
            ("baseline", before.baseline, now.baseline),
            ("scheme", before.scheme, now.scheme),
            ("adapter", before.adapter, now.adapter),
            ("adapter of the baseline", before.adapter_of_baseline, now.adapter_of_baseline),
            ("token stream", before.stream[:_SHORT], now.stream[:_SHORT]),
            ("positions", before.positions, now.positions),
        )
        if one != two
    ]
    if before.unnamed != now.unnamed:
        found.append(_UNNAMED)
    if before.asked.keys() != now.asked.keys():
        return "; ".join([*found, "other tasks are behind it"])
    for task, one in before.asked.items():
        found += _differences(one, now.asked[task])
    return _joined(dict.fromkeys(found), several=len(now.asked) > 1)


def _joined(found: Mapping[str, None], *, several: bool) -> str:
    """The first differences; of a row of several tasks, that of any of them is the row's."""
    shown = list(found)[:3]
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    where = "of tasks behind it: " if several and shown else ""
    return f"{where}{'; '.join(shown)}{more}"


def _differences(before: Asked, now: Asked) -> Iterator[str]:
    told = [*facts_of(before.cell, now.cell, known_only=False), *_harnesses(before, now)]
    told += [(name, value, now.settings[name]) for name, value in before.settings.items() if name != "limit"]
    told.append(("data", before.cell.dataset, now.cell.dataset))
    told += unlike(before.cell, now.cell)
    differing = [(SHOWN_AS.get(name, name), one, two) for name, one, two in told if one != two]
    yield from (f"{name}: {_word(one)}, then {_word(two)}" for name, one, two in differing)
    if not (before.items and now.items):
        yield _NO_ITEMS
    elif not any("items" in name for name, *_ in differing):
        both = [cell.conditions.get(ITEMS) for cell in (before.cell, now.cell)]
        names = {"key": "which items there are", **HASHES}
        first = next((what for name, what in names.items() if before.items[name] != now.items[name]), None)
        if first:
            yield f"{first} differs for some item"
        elif None not in both and both[0] != both[1]:
            yield "prompts or choices differ for some item"


def _harnesses(before: Asked, now: Asked) -> Iterator[tuple[str, object, object]]:
    """What asked: where it is the same for both, or known of one alone, its version."""
    one, two = before.harness, now.harness
    if one and two and one[0] != two[0]:
        yield "harness", " ".join(filter(None, one)), " ".join(filter(None, two))
    else:
        yield (one or two or ("lm-eval", ""))[0], one[1] if one else "", two[1] if two else ""


def _word(value: object) -> str:
    return "none" if value in (None, "") else str(value)
