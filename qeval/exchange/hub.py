"""What the Hugging Face Hub is told of a row: its data set, its number, its difference from the baseline."""

from __future__ import annotations

import math
import re
from typing import Any

from qeval.base import numbers
from qeval.base.records import Result
from qeval.base.text import visible
from qeval.compare import wording
from qeval.compare.rows import Row, cell_of, score_of
from qeval.exchange.source import Source, perplexity

_COMMIT = re.compile(r"revision ([0-9a-f]{40})")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def dataset_of(result: Result, row: Row) -> str | None:
    """The Hub's name of the data set behind a row, where all its members have the same."""
    cells = [cell for task in row.members if (cell := cell_of(result, task))]
    names = {cell.dataset.partition(",")[0].strip() for cell in cells}
    name = names.pop() if len(names) == 1 else ""
    return name if _HUB_ID.fullmatch(name) else None


def revision_of(result: Result, row: Row) -> str | None:
    """The commit of the data set behind a row, where all its members tell the same."""
    cells = [cell for task in row.members if (cell := cell_of(result, task))]
    told = {found[1] if (found := _COMMIT.search(cell.dataset)) else None for cell in cells}
    return told.pop() if len(told) == 1 else None


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository."""
    return _HUB_ID.fullmatch(name) is not None


def value_of(source: Source, result: Result, row: Row) -> float:
    """Points of 100, or the perplexity; to four decimals."""
    score = score_of(source.run, result, row)
    value = score.score if score else math.nan
    return round(perplexity(value) if row.kind == "perplexity" else 100 * value, 4)


def note_of(source: Source, result: Result, row: Row) -> str:
    """The difference from the baseline with its interval, "" where there is none."""
    difference = source.evidence.comparison(result.variant.name, row.id)
    if difference is None:
        return ""
    level = numbers.level(difference.confidence)
    change, around = wording.named(difference), wording.interval(difference)
    limited = f", {difference.n} of {difference.n_available} items" if difference.limited else ""
    return f"; {change} against {source.run.baseline} ({level} interval {around}{limited})"


def yaml_text(value: Any) -> str:
    """A value as YAML, its keys in their order and no line broken, every character of it seen."""
    import yaml

    return visible(str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)))
