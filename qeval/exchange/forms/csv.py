"""A run as CSV files, one for each table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qeval.exchange.source import Source
from qeval.exchange.tables import tables_of

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_csv(source: Source) -> Iterator[File]:
    """`TABLE.csv` for each table that has rows; lists inside a cell are JSON."""
    for name, rows in tables_of(source):
        yield f"{name}.csv", _csv(rows)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(json.dumps(value) if isinstance(value, list) else value for value in row.values())
    return text.getvalue()
