"""A run as CSV files, one for each table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qeval.exchange.source import Source
from qeval.exchange.tables import tables_of

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_csv(source: Source) -> Iterator[File]:
    """`TABLE.csv` for each table that has rows; lists inside a cell are JSON. A text that a spreadsheet would
    take for a formula has a ' before it, as spreadsheets themselves write that."""
    for name, rows in tables_of(source):
        yield f"{name}.csv", csv(rows)


def csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table, which has at least one row."""
    lines = [rows[0], *(row.values() for row in rows)]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


_FORMULA = re.compile(r"[=+\-@\t\r\n\0＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _quoted(value: Any) -> str:
    """A cell; in quotes where it holds a mark of the format, a carriage return among them, which the
    standard library's writer leaves bare."""
    text = _cell(value)
    return '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(value)
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return "" if value is None else f"'{value}" if formula else str(value)
