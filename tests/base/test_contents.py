"""A file is known by what it holds, whatever its name, size and times say."""

from __future__ import annotations

import hashlib
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.base import contents
from qeval.base.errors import QevalError


@pytest.fixture
def settled(monkeypatch):
    """Files need not lie still to be remembered."""
    monkeypatch.setattr(contents, "_SETTLED_NS", -1)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read, one for each block."""
    found, whole = [], contents._block
    monkeypatch.setattr(contents, "_block", lambda place: found.append(place[0].name) or whole(place))
    return found


@pytest.fixture
def file(tmp_path):
    place = tmp_path / "weights"
    place.write_bytes(b"12345678")
    return place


def test_a_small_file_has_its_own_sha256(file, tmp_path):
    assert contents.hashes([file, file], tmp_path) == [hashlib.sha256(b"12345678").hexdigest()] * 2


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(file, tmp_path, read):
    assert contents.hashes([file], tmp_path / "c") == contents.hashes([file], tmp_path / "c")
    assert read == ["weights"]
    contents.forget(tmp_path / "c")
    contents.hashes([file], tmp_path / "c")
    assert read == ["weights", "weights"]


@pytest.mark.usefixtures("settled")
def test_without_a_place_nothing_is_remembered(file, read):
    contents.hashes([file], None)
    contents.hashes([file], None)
    assert read == ["weights", "weights"]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["written", "replaced", "linked"])
def test_a_file_of_the_same_size_and_time_is_another_file(file, tmp_path, how):
    (first,) = contents.hashes([file], tmp_path / "c")
    times = file.stat()
    time.sleep(0.02)  # a tick of the clock
    other = file if how == "written" else tmp_path / "other"
    other.write_bytes(b"12345679")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    if how == "replaced":
        other.replace(file)
    elif how == "linked":
        file.unlink()
        file.symlink_to(other)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert contents.hashes([file], tmp_path / "c") != [first]


def test_a_file_that_was_written_just_now_is_not_remembered(file, tmp_path, read, monkeypatch):
    assert contents._SETTLED_NS >= 2e9
    monkeypatch.setattr(contents, "_SETTLED_NS", 10**12)  # a busy machine may take seconds to come here
    contents.hashes([file], tmp_path / "c")
    contents.hashes([file], tmp_path / "c")
    assert read == ["weights", "weights"]


@pytest.mark.usefixtures("settled")
def test_a_damaged_book_is_written_anew(file, tmp_path, read):
    (first,) = contents.hashes([file], tmp_path)
    for damage in ("{half", "[]", '{"a": 1}', '{"a": null}'):
        (tmp_path / "contents.json").write_text(damage)
        assert contents.hashes([file], tmp_path) == [first]
    assert len(read) == 5


def test_a_file_that_changes_while_it_is_read_is_refused(file, tmp_path, monkeypatch):
    whole = contents._block

    def meddled(place):
        file.write_bytes(b"123456789")
        return whole(place)

    monkeypatch.setattr(contents, "_block", meddled)
    with pytest.raises(QevalError, match="is changing while it is read"):
        contents.hashes([file], tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(QevalError, match="weights cannot be read"):
        contents.hashes([tmp_path / "weights"], None)


@given(st.binary(max_size=64), st.integers(1, 9))
def test_blocks_are_hashed_whatever_the_number_of_threads(tmp_path_factory, data, block):
    place = tmp_path_factory.mktemp("blocks") / "x"
    place.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "BLOCK", block)
        found = contents.hashes([place], None)
        patch.setattr(contents, "_THREADS", 1)
        assert contents.hashes([place], None) == found
    parts = [data[at : at + block] for at in range(0, max(len(data), 1), block)]
    one = hashlib.sha256(data).hexdigest()
    joined = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    assert found == [joined if len(parts) > 1 else one]
