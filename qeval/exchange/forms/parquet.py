"""A run as Parquet files, one for each table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qeval.exchange.source import Source
from qeval.exchange.tables import tables_of

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_parquet(source: Source) -> Iterator[File]:
    """`TABLE.parquet` for each table that has rows."""
    import pyarrow as pa

    for name, rows in tables_of(source):
        yield f"{name}.parquet", pa.Table.from_pylist(rows)
