"""Write the JSON Schemas of a run's and a history's documents anew, from the records they are made of.

    python docs/schema/generate.py

The records of qeval/base/records.py stand in the document as they are; the classes here say what is put
beside them, or in another shape. Every key is always there, and any number may be null: JSON has no NaN.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from qeval.base import records
from qeval.base.costs import Cost
from qeval.base.fidelity import Passage, Role
from qeval.base.protocols import Protocol
from qeval.base.records import Kind, Level, Provenance, Rule, Scheme, Stop
from qeval.base.settings import Settings
from qeval.compare import margin
from qeval.compare.fidelity import Bin, Estimate, Traced
from qeval.report.history.series import Unit

Status = get_type_hints(records.Result)["status"]
SCHEMA = 1
PLACE = Path(__file__).parent / f"run-v{SCHEMA}.json"
PLACE_OF_HISTORY = Path(__file__).parent / f"history-v{SCHEMA}.json"


class Run(msgspec.Struct):
    """Which run it is."""

    id: str
    created: str
    model: str
    source: str
    command: list[str]
    settings: Settings


class Suite(msgspec.Struct):
    """What was asked."""

    name: str
    description: str
    average: list[str]


class Score(msgspec.Struct):
    """A row of the summary table."""

    task: str
    level: Level
    kind: Kind
    n: int
    n_available: int
    texts: int | None
    score: float
    perplexity: float


@dataclass(frozen=True)
class Cell(records.Cell):
    """What was stored for a leaf task."""

    limited: bool = field(kw_only=True)
    aggregate_only: bool = field(kw_only=True)


class Variant(msgspec.Struct):
    """What was asked for, what was loaded, what it scored and what it cost."""

    name: str
    is_baseline: bool
    status: Status  # type: ignore[valid-type]
    error: str | None
    stop: Stop | None
    model: str
    revision: str | None
    adapter: str | None
    scheme: Scheme
    scores: list[Score]
    cells: list[Cell]
    provenance: Provenance | None
    cost: Cost | None


class Ratio(msgspec.Struct):
    """The ratio of two perplexities and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison(records.Comparison):
    """A candidate against the baseline on one row. `delta` is candidate - baseline: below 0 is worse."""

    limited: bool = field(kw_only=True)
    perplexity_ratio: Ratio | None = field(kw_only=True)
    statistics: dict[str, float | None] = field(kw_only=True)


class Finding(msgspec.Struct):
    """The word for a difference."""

    status: margin.Status
    words: str
    margin: float
    claim: int


@dataclass(frozen=True)
class Found(Comparison):
    """A comparison with the word for it."""

    finding: Finding | None = field(kw_only=True)


class Margin(msgspec.Struct):
    """What difference matters."""

    points: float
    word_perplexity: float
    byte_perplexity: float


class Verdict(msgspec.Struct):
    """What a report says on top of a variant."""

    variant: str
    status: str
    words: str
    sentence: str
    task: str | None
    finding: Finding | None


class Worst(msgspec.Struct):
    """The task with the lowest `delta`, candidate - baseline."""

    task: str
    delta: float


class Entry(msgspec.Struct):
    """A line of the decision table."""

    variant: str
    status: str
    task: str | None
    delta: float | None
    proved_losses: list[str]
    worst: Worst | None
    perplexity_ratio: float | None
    kl: float | None
    same_top: float | None
    weight_bytes: int | None
    speed: float | None
    speed_of: str | None
    quantised_share: float | None


@dataclass(frozen=True)
class Decision(records.Decision):
    """A rule of a gate, applied to one row of one variant. `allowed` is the loss allowed, above 0, in the
    unit of `comparison.delta`: PASS where `comparison.low` > -`allowed`."""

    rule: Rule = field(kw_only=True)
    comparison: Comparison | None = field(kw_only=True)


class Floor(msgspec.Struct):
    """What two scorings of the same weights differ by on one row."""

    task: str
    level: Level
    kind: Kind
    n: int
    flips: int | None
    share: float | None
    delta: float
    reach: float
    ratio: float | None


class Within(msgspec.Struct):
    """A variant on a task that differs by at most twice the floor."""

    variant: str
    task: str


class Seeds(msgspec.Struct):
    """The differences of a scheme made with several seeds, on one row."""

    variant: str
    task: str
    level: Level
    kind: Kind
    deltas: list[float]
    low: float
    median: float
    high: float


class Noise(msgspec.Struct):
    """How far numbers move by themselves."""

    measured: bool
    sentence: str
    variant: str | None
    floor: list[Floor]
    within_twice: list[Within]
    seeds: list[Seeds]
    seed_sentences: list[str]


class DeltaP(msgspec.Struct):
    """How much the probability of the token that stands there changed."""

    mean: float
    rms: float


class Perplexities(msgspec.Struct):
    """The perplexity of the tokens that stand there."""

    baseline: float
    variant: float


class FidelityRow(msgspec.Struct):
    """One model by one protocol: a variant, or the baseline once more."""

    protocol: Protocol
    variant: str
    role: Role  # type: ignore[valid-type]
    stream: str
    n: int
    n_available: int
    windows: int
    units: int
    by_document: bool
    vocabulary: int
    cut: int
    batch: int
    dtype: str
    device: str
    checked: float
    seconds: float
    kl: Estimate
    kl_reverse: float
    quantiles: dict[str, float]
    same_top: Estimate
    ordered: float
    delta_p: DeltaP
    perplexity: Perplexities
    ratio: Estimate
    entropy: float
    of_floor: float | None
    within_noise: bool
    by_confidence: list[Bin]
    by_position: list[Bin]
    traced: Traced | None
    worst: list[Passage]


class Document(msgspec.Struct):
    """What --json prints; docs/json.md says what each key means."""

    schema: Literal[1]
    qeval: str
    run: Run
    suite: Suite
    baseline: str
    costs_comparable: bool
    variants: list[Variant]
    margin: Margin
    verdicts: list[Verdict]
    decision_table: list[Entry]
    cautions: list[str]
    comparisons: list[Found]
    decisions: list[Decision]
    forgiven: list[str]
    noise: Noise
    fidelity: list[FidelityRow]
    fidelity_damaged: list[str]


class Point(msgspec.Struct):
    """A run on a line of a history. `value` and its bounds are candidate - baseline: below 0 is worse;
    `allowed` is a loss, above 0."""

    run: str
    created: str
    revision: str | None
    n: int
    score: float
    value: float
    low: float
    high: float
    shown: str
    allowed: float
    judged: bool
    drawn: bool
    status: str | None
    words: str | None
    reason: str | None
    whole: bool
    lacks: list[str]
    broken: str | None


class Series(msgspec.Struct):
    """A line of a history."""

    model: str
    suite: str
    task: str
    variant: str
    measure: str
    unit: Unit
    versions: list[str]
    title: str
    baseline: str | None
    confidence: float
    points: list[Point]


class Unread(msgspec.Struct):
    """A run that could not be read."""

    run: str
    why: str


class History(msgspec.Struct):
    """What qeval history --json prints; docs/history.md says what each key means."""

    schema: Literal[1]
    runs: int
    limit: str
    unread: list[Unread]
    series: list[Series]


def schema(of: type = Document, title: str = "A run of qeval") -> dict[str, Any]:
    """The schema of a document, as JSON Schema 2020-12."""
    _, parts = msgspec.json.schema_components([of], ref_template="#/$defs/{name}")
    found = {name: _always(part) for name, part in parts.items()}
    top = {**found.pop(of.__name__), "title": title}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": found}


def _always(rule: Any) -> Any:
    """The rule for a document that leaves no key out and writes null for what is no number."""
    if isinstance(rule, list):
        return [_always(part) for part in rule]
    if not isinstance(rule, dict):
        return rule
    made = {key: _always(part) for key, part in rule.items() if key not in {"title", "default"}}
    if "properties" in rule:  # its keys are names, "title" and "default" among them if need be
        made["properties"] = {name: _always(part) for name, part in rule["properties"].items()}
        made["required"] = sorted(rule["properties"])
    return {**made, "type": ["number", "null"]} if made.get("type") == "number" else made


def schema_of_history() -> dict[str, Any]:
    """The schema of a history's document."""
    return schema(History, "A history of qeval's runs")


def text(found: dict[str, Any] | None = None) -> str:
    """The file of a schema, the run's if none is given, as it is committed."""
    return json.dumps(found or schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
    PLACE_OF_HISTORY.write_text(text(schema_of_history()), encoding="utf-8")
