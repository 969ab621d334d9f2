"""A text that is stored once and named by many rows is counted for each, and never repeated to be counted."""

from __future__ import annotations

import resource
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.store import columns, unpacking
from qeval.store.unpacking import too_long

TEXTS = st.lists(st.text(max_size=40), max_size=30)


def written(**named: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(named), sink, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30,
        row_group_size=7,
    )  # fmt: skip
    return bytes(sink.getvalue())


def repeated(text: str, times: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))


@given(TEXTS, st.lists(TEXTS, max_size=30), st.integers(0, 3000))
def test_it_is_as_long_as_its_texts(texts: list[str], lists: list[list[str]], most: int) -> None:
    n = min(len(texts), len(lists))
    data = written(
        prompt=pa.array(texts[:n], pa.string()), choices=pa.array(lists[:n], pa.list_(pa.string()))
    )
    every = [*texts[:n], *(text for some in lists[:n] for text in some)]
    length = sum(len(text.encode()) for text in every)
    assert not too_long(data, ["prompt", "choices"], length)
    if too_long(data, ["prompt", "choices"], most):
        assert length > most
    elif length > 2 * most:
        raise AssertionError("a text was overlooked")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompt", "choices", "doc"])
def test_few_bytes_of_a_terabyte_are_told_at_once(name: str) -> None:
    column: pa.Array = repeated("x" * 10_000_000, 100_000)
    if name == "choices":
        column = pa.ListArray.from_arrays(pa.array(range(100_001), pa.int32()), column)
    if name == "doc":
        column = pa.StructArray.from_arrays([column], ["query"])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: column}), sink, store_schema=False, dictionary_pagesize_limit=1 << 30)
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert too_long(bytes(sink.getvalue()), [name], 1 << 30)
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@pytest.mark.parametrize("name", ["key", "prompt", "question", "choices", "gold"])
def test_such_a_file_is_no_table_of_items(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "SPARE", 1 << 20)
    texts: dict[str, pa.Array] = dict.fromkeys(("key", "question", "gold"), pa.array(["x"] * 4000))
    texts["prompt"] = pa.array(["x"] * 4000, pa.large_string())
    texts["choices"] = pa.array([["x"]] * 4000, pa.list_(pa.string()))
    long = pa.array(["y" * 9000] * 4000)
    kind = texts[name].type
    texts[name] = (
        pa.array([[text] for text in long.to_pylist()], kind) if name == "choices" else long.cast(kind)
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(texts), sink, compression="zstd")
    with pytest.raises(ValueError, match="each in its row, would be far more than such a file holds"):
        columns.items_from_parquet(bytes(sink.getvalue()))
