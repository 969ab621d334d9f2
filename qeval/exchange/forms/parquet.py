"""A run as Parquet files, one for each table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qeval.exchange.source import Source
from qeval.exchange.tables import tables_of

if TYPE_CHECKING:
    import pyarrow as pa

    from qeval.exchange.source import File


def to_parquet(source: Source) -> Iterator[File]:
    """`TABLE.parquet` for each table that has rows."""
    import pyarrow as pa

    for name, rows in tables_of(source):
        table = pa.Table.from_pylist(rows)
        yield f"{name}.parquet", table.cast(pa.schema([_typed(field) for field in table.schema]))


def _typed(field: pa.Field) -> pa.Field:
    """A column of lists with its type, also where all of them are empty."""
    import pyarrow as pa

    if field.type != pa.list_(pa.null()):
        return field
    return field.with_type(pa.list_(pa.float64() if field.name == "scores" else pa.string()))
