"""Token streams and measured positions as Parquet files; 37 bytes a position before they are packed.

Files are read from Arrow's own bytes, as in `store.columns`, for the same reason.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from qeval.base.fidelity import Positions, Stream
from qeval.store.columns import file_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_STREAM = {"token": "int32", "window": "int32", "document": "int32", "scored": "bool"}
_POSITIONS = {
    "kl": "float32",
    "kl_reverse": "float32",
    "log_p": "float32",
    "log_q": "float32",
    "top_p": "int32",
    "top_q": "int32",
    "rank": "int32",
    "entropy": "float32",
    "confidence": "float32",
    "ordered": "bool",
}
_ARROW = {"float32": "float", "int32": "int32", "bool": "bool"}
_ABOUT = b"qeval.stream"


def stream_to_parquet(stream: Stream) -> bytes:
    """A stream as a file, a row a token."""
    import numpy as np

    lengths = stream.ends - stream.starts
    scored = np.zeros(len(stream.tokens), bool)
    scored[stream.scored()] = True
    columns = {
        "token": stream.tokens,
        "window": np.repeat(np.arange(len(stream), dtype=np.int32), lengths),
        "document": stream.document,
        "scored": scored,
    }
    about = {_ABOUT: f"{stream.available} {int(stream.documents)}".encode()}
    return _file(columns, _STREAM, about)


def stream_from_parquet(data: bytes) -> Stream:
    """What `stream_to_parquet` wrote. Raises ValueError, in words, where it is another thing."""
    import numpy as np

    columns, about = _columns(data, _STREAM)
    window, scored = columns["window"], columns["scored"]
    if not len(window) or np.any(np.diff(window) < 0):
        raise ValueError("its windows are not in order")
    numbers, begins = np.unique(window, return_index=True)
    ends = np.append(begins[1:], len(window)).astype(np.int64)
    counts = np.add.reduceat(scored.astype(np.int64), begins)
    words = about.get(_ABOUT, b"").split()
    try:
        available, documents = int(words[0]), bool(int(words[1]))
    except (IndexError, ValueError) as error:
        raise ValueError("it does not say how long the stream is") from error
    if len(numbers) != int(window[-1]) + 1:
        raise ValueError("a window is missing")
    return Stream(columns["token"], ends, ends - begins - counts, columns["document"], available, documents)


def positions_to_parquet(positions: Positions) -> bytes:
    """Positions as a file, a row each."""
    return _file({one.name: getattr(positions, one.name) for one in fields(Positions)}, _POSITIONS)


def positions_from_parquet(data: bytes, rows: int | None = None) -> Positions:
    """What `positions_to_parquet` wrote. Raises ValueError, in words, where it is another thing, or has
    another number of `rows`."""
    columns, _ = _columns(data, _POSITIONS)
    if rows is not None and len(columns["kl"]) != rows:
        raise ValueError(f"it has {len(columns['kl'])} positions where its header says {rows}")
    return Positions(**columns)


def _file(
    columns: dict[str, NDArray[Any]], kinds: dict[str, str], about: dict[bytes, bytes] | None = None
) -> bytes:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = {}
    for name, kind in kinds.items():
        values = np.ascontiguousarray(columns[name], kind)
        data = np.packbits(values, bitorder="little") if kind == "bool" else values
        arrow = pa.type_for_alias(_ARROW[kind])
        made[name] = pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(data)])
    table = pa.table(made).replace_schema_metadata(about)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _columns(data: bytes, kinds: dict[str, str]) -> tuple[dict[str, NDArray[Any]], dict[bytes, bytes]]:
    """The columns of a file, and what it says of itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = file_table(data, {name: _ARROW[kind] for name, kind in kinds.items()})
    columns = {name: _values(table.column(name).combine_chunks(), kind) for name, kind in kinds.items()}
    return columns, dict(pq.read_schema(pa.BufferReader(data)).metadata or {})


def _values(column: pa.Array, kind: str) -> NDArray[Any]:
    import numpy as np

    _, data = column.buffers()
    if kind == "bool":
        bits: NDArray[np.uint8] = np.unpackbits(np.frombuffer(data or b"", np.uint8), bitorder="little")
        return bits[column.offset : column.offset + len(column)].astype(bool)
    return np.frombuffer(data or b"", kind)[column.offset : column.offset + len(column)]
