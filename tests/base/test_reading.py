"""Files from outside: regular ones only, no longer and no deeper than they may be, each refusal in words."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from bad_files import BYTES, KINDS, put
from hypothesis import given
from hypothesis import strategies as st

from qeval.base import reading
from qeval.base.reading import DamagedError, UnreadableError

READERS = {
    "json": reading.json_document,
    "table": reading.json_table,
    "toml": reading.toml_document,
    "lines": lambda path: list(reading.json_lines(path, reading.content(path))),
    "csv": reading.csv_rows,
}
FINE = {
    *(("json", kind) for kind in ("null", "number", "text", "list", "list of null")),
    *(("lines", kind) for kind in ("null", "number", "text", "list", "list of null", "empty")),
    *(("toml", kind) for kind in ("empty", "list of null")),
    *(("csv", kind) for kind in BYTES),
}
"""What some reader takes, or may take."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_a_bad_file_is_refused_in_words_and_at_once(tmp_path, reader, kind):
    path = put(tmp_path / "file", kind)
    begun, error = time.monotonic(), None
    try:
        READERS[reader](path)
    except OSError as found:
        error = found
    if error is None:
        assert (reader, kind) in FINE
    else:
        assert reading.told(error)
        assert reading.remedy(error)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("kind", ["FIFO", "directory", "socket", "device"])
def test_what_is_no_file_is_named(tmp_path, kind):
    with pytest.raises(UnreadableError, match=f"it is a {kind}, not a regular file"):
        reading.content(put(tmp_path / "file", kind))


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert reading.text(tmp_path / "link") == "x"


def test_a_document_has_a_cap_and_samples_have_none(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 101)
    with pytest.raises(UnreadableError, match="1 MB are the most"):
        reading.content(path, 100)
    assert len(reading.content(path, 101)) == len(reading.content(path, None)) == 101


def test_a_line_has_a_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LINE", 20)
    path = tmp_path / "file"
    assert list(reading.json_lines(path, b'{"a": 1}\n\n' * 100)) == [{"a": 1}] * 100
    with pytest.raises(DamagedError, match="line 2 is longer"):
        list(reading.json_lines(path, b'1\n"' + b"x" * 20 + b'"\n'))


def test_depth_is_counted(tmp_path):
    path = tmp_path / "file"
    path.write_text("[" * 65 + "]" * 65)
    assert reading.json_document(path)
    path.write_text("[" * 66 + "]" * 66)
    with pytest.raises(DamagedError, match="more than 64 levels"):
        reading.json_document(path)
    path.write_text("a" + ".b" * 64 + " = 1")
    assert reading.toml_document(path)


@pytest.mark.parametrize(
    "words", ["", "²", "٣", "-1", "+1", " 1", "1_0", "1.0", "0x1", "9" * 5000, "1e3", "nan"]
)
def test_only_ascii_digits_are_a_number(words):
    assert reading.whole(words) is None
    assert reading.whole("0120") == 120


def test_a_cell_of_a_table_beyond_all_measure_is_a_sentence(tmp_path):
    (tmp_path / "file.csv").write_text("a,b\n1," + "x" * 200_000)
    with pytest.raises(DamagedError, match="no CSV: field larger"):
        reading.csv_rows(tmp_path / "file.csv")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=20)
WORDS = st.text('[]{}":,.-+eE0123456789 \\\nabtrufls"\x00\ud800\u2028é', max_size=30)


@given(
    st.builds(json.dumps, VALUES, ensure_ascii=st.booleans())
    | WORDS
    | st.from_regex(r"-?\d+\.?\d*([eE]-?\d+)?")
)
def test_json_is_what_pythons_own_reader_says(words):
    """The quicker reader that is asked first takes nothing that json does not, and makes the same of it."""
    try:
        expected = repr(json.loads(words))
    except ValueError:
        with pytest.raises(DamagedError):
            reading.json_value(Path("x"), words)
        return
    assert repr(reading.json_value(Path("x"), words)) == expected


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1}', None),
        (b"\xef\xbb\xbf \n{", None),  # how it goes on is its reader's business
        (b"[]", "no JSON object"),
        (b"", "no JSON object"),
        (b'{"a": "\xe9"}', "no UTF-8"),
        (b'{"a": "\xc3', "no UTF-8"),
        (b"{" + b" " * (1 << 20) + b"\xff", "no UTF-8"),
        (b"{" + b" " * ((1 << 20) - 2) + "\u00e9".encode() + b"}", None),  # a letter over two pieces
    ],
    ids=["object", "mark", "list", "empty", "latin-1", "cut", "late", "two pieces"],
)
def test_a_file_of_any_size_is_an_object_in_utf_8(tmp_path, data, said):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    if said is None:
        reading.check_object(path)
    else:
        with pytest.raises(DamagedError, match=said):
            reading.check_object(path)
