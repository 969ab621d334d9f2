"""Samples and items as Parquet files in memory, and back.

Columns are made from bytes and read from them: pa.array and to_numpy would load pandas first, which takes a
fifth of a second of every command.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from qeval.base.records import Item, Samples
from qeval.store.unpacking import most_of, too_long, too_many

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import ArrayLike, NDArray

_SHORT, _ASCII = 128, 127
_KEPT_IF_ANY = frozenset({"written", "logged", "arguments"})
"""Columns that a file lacks where they hold nothing, as all files of earlier versions do."""


def samples_to_parquet(samples: Samples) -> bytes:
    """The samples as a file, a row an item."""
    return _file_bytes(_samples_table(samples))


def samples_from_parquet(data: bytes, rows: int | None = None) -> Samples:
    """What `samples_to_parquet` wrote. Raises ValueError, in words, where it is another thing, or has another
    number of `rows`."""
    return _samples(file_table(data, _SAMPLE_COLUMNS, rows=rows))


def items_to_parquet(items: Sequence[Item]) -> bytes:
    """The texts of items as a file, a row an item."""
    return _file_bytes(_items_table(items))


def items_from_parquet(data: bytes) -> dict[str, Item]:
    """What `items_to_parquet` wrote, by key. Raises ValueError, in words, where it is another thing."""
    rows = file_table(data, _ITEM_COLUMNS).to_pylist()
    return {row["key"]: Item(**{**row, "choices": tuple(row["choices"])}) for row in rows}


def questions_from_parquet(data: bytes) -> dict[str, Item]:
    """The same without the prompts, which are most of the file: they are empty."""
    rows = file_table(data, _ITEM_COLUMNS, but="prompt").to_pylist()
    return {row["key"]: Item(**{**row, "prompt": "", "choices": tuple(row["choices"])}) for row in rows}


def _samples_table(samples: Samples) -> pa.Table:
    import pyarrow as pa

    columns = {}
    for column in fields(Samples):
        values = getattr(samples, column.name)
        if column.name in _KEPT_IF_ANY and not any(values):
            continue
        if column.name == "scores":
            columns[column.name] = _list_column(values, _float_column(list(itertools.chain(*values))))
        elif column.name == "written":
            flat = _text_column(list(itertools.chain(*values)), large=True)
            columns[column.name] = _list_column(values, flat)
        elif column.name == "logged":
            columns[column.name] = _text_column(values.tolist(), large=True)
        elif column.name in {"value", "weight"}:
            columns[column.name] = _float_column(values)
        else:
            columns[column.name] = _text_column(values.tolist())
    return pa.table(columns)


def _float_column(values: ArrayLike) -> pa.DoubleArray:
    import numpy as np
    import pyarrow as pa

    numbers = np.ascontiguousarray(values, np.float64)
    return pa.Array.from_buffers(pa.float64(), len(numbers), [None, pa.py_buffer(numbers)])


def _text_column(texts: Sequence[str], *, large: bool = False) -> pa.Array:
    """Strings; `large` ones may be more than 2 GiB together."""
    import pyarrow as pa

    data = [text.encode() for text in texts]
    kind, number = (pa.large_string(), "q") if large else (pa.string(), "i")
    return pa.Array.from_buffers(kind, len(data), [None, _ends(data, number), pa.py_buffer(b"".join(data))])


def _list_column(rows: Collection[Sequence[object]], flat: pa.Array) -> pa.ListArray:
    """Lists as long as `rows`, of the values that `flat` has one after the other."""
    import pyarrow as pa

    ends = pa.Array.from_buffers(pa.int32(), len(rows) + 1, [None, _ends(rows, "i")])
    return pa.ListArray.from_arrays(ends, flat)


def _ends(parts: Iterable[Sequence[object]], number: str) -> pa.Buffer:
    """0 and where each part ends, as integers of the kind `number` (of the module array)."""
    import pyarrow as pa

    return pa.py_buffer(array(number, itertools.accumulate(map(len, parts), initial=0)))


def _samples(table: pa.Table) -> Samples:
    columns: dict[str, Any] = {}
    for column in fields(Samples):
        if column.name in _KEPT_IF_ANY and column.name not in table.column_names:
            continue
        data = table.column(column.name).combine_chunks()
        if column.name in {"scores", "written"}:
            columns[column.name] = _tuples(data)
        elif column.name == "logged":
            columns[column.name] = _objects(data.to_pylist())
        elif column.name in {"value", "weight"}:
            columns[column.name] = _floats(data)
        else:
            columns[column.name] = _texts(data)
    return Samples(**columns)


def _floats(column: pa.DoubleArray) -> NDArray[np.float64]:
    """Numbers straight from Arrow's bytes."""
    import numpy as np

    _, data = column.buffers()
    return np.frombuffer(data or b"", np.float64)[column.offset : column.offset + len(column)]


def _texts(column: pa.StringArray) -> NDArray[np.str_]:
    """Strings as numpy text; short ASCII ones straight from Arrow's bytes, for speed."""
    import numpy as np

    if not len(column):
        return np.array([], dtype=np.str_)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    letters = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    lengths = np.diff(ends)
    width = int(lengths.max())
    if not 0 < width <= _SHORT or letters.max() > _ASCII:
        return np.array(column.to_pylist(), dtype=np.str_)
    wide = np.zeros((len(column), width), np.uint32)
    wide[np.arange(width) < lengths[:, None]] = letters
    return wide.view(f"<U{width}").reshape(len(column))


def _tuples(column: pa.ListArray) -> NDArray[np.object_]:
    """Lists of numbers or texts as tuples."""
    values = column.values.to_pylist()
    ends = column.offsets.to_pylist()
    return _objects([tuple(values[start:end]) for start, end in itertools.pairwise(ends)])


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    import numpy as np

    rows = np.empty(len(values), dtype=object)
    rows[:] = values
    return rows


def _items_table(items: Sequence[Item]) -> pa.Table:
    import pyarrow as pa

    choices = [choice for item in items for choice in item.choices]
    columns = {
        "key": _text_column([item.key for item in items]),
        "prompt": _text_column([item.prompt for item in items], large=True),
        "question": _text_column([item.question for item in items]),
        "choices": _list_column([item.choices for item in items], _text_column(choices)),
        "gold": _text_column([item.gold for item in items]),
    }
    if any(item.arguments for item in items):
        columns["arguments"] = _text_column([item.arguments for item in items], large=True)
    return pa.table(columns)


def _file_bytes(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


_SAMPLE_COLUMNS = {
    **dict.fromkeys((column.name for column in fields(Samples)), "string"),
    "value": "double",
    "weight": "double",
    "scores": "list<double>",
    "written": "list<large_string>",
    "logged": "large_string",
}
_ITEM_COLUMNS = {
    **dict.fromkeys((column.name for column in fields(Item)), "string"),
    "prompt": "large_string",
    "choices": "list<string>",
    "arguments": "large_string",
}
"""The columns of a file and the types that they are written in."""


def file_table(data: bytes, kinds: Mapping[str, str], but: str = "", rows: int | None = None) -> pa.Table:
    """The columns of a file that it should have, without the one named `but`, `rows` long.

    Raises ValueError where one is missing, of another type or has nulls, where the file is no Parquet, or
    where little of it would unpack to more than a machine holds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table: it loads pandas too. No threads: those of Arrow's pool are still joinable when a
        # process ends, and one in hundreds ended with "terminate called without an active exception".
        file = pq.ParquetFile(pa.BufferReader(data))
        if rows is not None and file.metadata.num_rows != rows:
            raise ValueError(f"it has {file.metadata.num_rows} items where its header says {rows}")
        _check_columns(file, kinds, len(data))
        names = [name for name in file.schema_arrow.names if name in kinds and name != but]
        if too_long(data, names, most_of(len(data))):
            raise ValueError("its texts, each in its row, would be far more than such a file holds")
        table = file.read(names, use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(f"it is damaged: {' '.join(str(error).split())[:200]}") from error
    nulls = next((name for name in names if _has_nulls(table.column(name))), None)
    if nulls is not None:
        raise ValueError(f"the column {nulls} has rows without a value")
    return table


def _check_columns(file: pq.ParquetFile, kinds: Mapping[str, str], size: int) -> None:
    schema, told = file.schema_arrow, file.metadata
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("a column is there twice")
    for name, kind in kinds.items():
        if name not in schema.names:
            if name not in _KEPT_IF_ANY:
                raise ValueError(f"the column {name} is missing")
        elif _kind(schema.field(name).type) != kind:
            raise ValueError(f"the column {name} is of the type {schema.field(name).type}, not {kind}")
    if too_many(told, most_of(size)):
        raise ValueError(f"its {told.num_rows} rows would unpack to far more than such a file holds")


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


def _has_nulls(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    inner = any(pa.types.is_list(chunk.type) and chunk.values.null_count for chunk in column.chunks)
    return bool(column.null_count or inner)
