"""How long the texts of a Parquet file become: a text of 10 MB is stored once, however many rows name it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


SPARE, RATIO = 1 << 30, 200
"""What a file may unpack to: so many bytes, and so many times its own."""


def most_of(size: int) -> int:
    """The most bytes that a file of `size` bytes may unpack to."""
    return SPARE + RATIO * size


def too_many(told: pq.FileMetaData, most: int) -> bool:
    """Whether the rows of a file would become more than `most` bytes, by what it says of itself."""
    packed = sum(told.row_group(at).total_byte_size for at in range(told.num_row_groups))
    return bool(max(packed, 8 * told.num_rows * told.num_columns) > most)


def too_long(data: bytes, columns: Collection[str], most: int) -> bool:
    """Whether the texts of these columns are more than `most` bytes together once each stands in its row.

    Nothing is repeated to find out. Columns that the file cannot hold so much of are not looked at.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = pq.ParquetFile(pa.BufferReader(data))
    suspects = dict.fromkeys(name for name, size in _at_most(plain, columns) if size > most)
    if not suspects:
        return False
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(suspects))
    total = 0
    for group in range(file.num_row_groups):
        for name in suspects:
            longest = _longest(file, group, name) * _values(file, group, name)
            if longest <= most // len(suspects) // file.num_row_groups:
                continue
            total += _length(file.read_row_group(group, [name], use_threads=False))
            if total > most:
                return True
    return False


def _at_most(file: pq.ParquetFile, columns: Collection[str]) -> Iterator[tuple[str, int]]:
    """The columns of texts, by their paths, and more than what each can become in one group of rows."""
    told = file.metadata
    for group in range(told.num_row_groups):
        for at in range(told.num_columns):
            part = told.row_group(group).column(at)
            texts = part.physical_type == "BYTE_ARRAY" and part.has_dictionary_page
            if texts and part.path_in_schema.partition(".")[0] in columns:
                yield part.path_in_schema, part.num_values * part.total_uncompressed_size


def _values(file: pq.ParquetFile, group: int, name: str) -> int:
    """How many texts a group has."""
    part = file.metadata.row_group(group)
    columns = (part.column(at) for at in range(part.num_columns))
    return next(int(column.num_values) for column in columns if column.path_in_schema == name)


def _longest(file: pq.ParquetFile, group: int, name: str) -> int:
    """The length of a group's longest text that is stored to be repeated."""
    import pyarrow.compute as pc

    for batch in file.iter_batches(1, row_groups=[group], columns=[name], use_threads=False):
        texts = _flat(batch.column(0))
        return int(pc.max(pc.binary_length(texts.dictionary)).as_py() or 0)
    return 0


def _length(table: pa.Table) -> int:
    """Bytes of all texts of one column, each counted as often as it is named."""
    import pyarrow.compute as pc

    total = 0
    for chunk in table.column(0).chunks:
        texts = _flat(chunk)
        total += pc.sum(pc.binary_length(texts.dictionary).take(texts.indices)).as_py() or 0
    return total


def _flat(texts: pa.Array) -> pa.DictionaryArray:
    """The texts themselves, where they lie in lists and tables."""
    import pyarrow as pa

    while not pa.types.is_dictionary(texts.type):
        texts = texts.field(0) if pa.types.is_struct(texts.type) else texts.values
    return texts
