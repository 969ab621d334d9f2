"""Positions and streams on disk: what goes in comes out, and what was changed is found out."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from qeval.base.errors import QevalError
from qeval.base.fidelity import Measured, Passage, Positions
from qeval.base.protocols import Protocol
from qeval.score.fidelity import toy
from qeval.store import fidelity as stored
from qeval.store.positions import (
    positions_from_parquet,
    positions_to_parquet,
    stream_from_parquet,
    stream_to_parquet,
)

PROTOCOL = Protocol("prose", "prose")
STREAM = toy.stream(PROTOCOL)
POSITIONS = toy.invented(STREAM, 0.03, "seed")


def a_measure(key="a" * 64, **changes):
    return Measured(
        **{
            "key": key,
            "protocol": PROTOCOL,
            "variant": "bnb4",
            "baseline": "fp16",
            "role": "candidate",
            "stream": STREAM.sha256,
            "n": STREAM.n,
            "n_available": STREAM.available,
            "windows": len(STREAM),
            "vocabulary": 1000,
            "cut": 0,
            "cut_baseline": 0,
            "batch": 1,
            "dtype": "none",
            "device": "none",
            "variant_digest": "v",
            "baseline_digest": "b",
            "created": "2026-01-01",
            "worst": (Passage(1, 2, 0.5, 3, "some <b>text</b>", "before"),),
            **changes,
        }
    )


def test_a_position_takes_forty_bytes_at_most():
    assert sum(getattr(POSITIONS, one.name).itemsize for one in fields(Positions)) <= 40
    assert len(positions_to_parquet(POSITIONS)) < 40 * len(POSITIONS) + 8000


def test_what_goes_in_comes_out():
    again = positions_from_parquet(positions_to_parquet(POSITIONS), len(POSITIONS))
    for one in fields(Positions):
        assert np.array_equal(getattr(again, one.name), getattr(POSITIONS, one.name))
    stream = stream_from_parquet(stream_to_parquet(STREAM))
    assert stream.sha256 == STREAM.sha256
    assert np.array_equal(stream.document, STREAM.document)
    assert (stream.available, stream.documents) == (STREAM.available, True)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 500])
def test_what_is_no_table_is_refused(data):
    for read in (positions_from_parquet, stream_from_parquet):
        with pytest.raises(ValueError, match="it is damaged"):
            read(data)
    with pytest.raises(ValueError, match="column"):
        positions_from_parquet(stream_to_parquet(STREAM))
    with pytest.raises(ValueError, match="where its header says 3"):
        positions_from_parquet(positions_to_parquet(POSITIONS), 3)


def test_a_run_keeps_what_was_measured(tmp_path):
    one = stored.add(tmp_path, a_measure(), POSITIONS, STREAM)
    assert stored.measured(tmp_path) == (one,)
    assert stored.whole(tmp_path, one.key) == one
    assert np.array_equal(stored.positions(tmp_path, one).kl, POSITIONS.kl)
    assert stored.stream(tmp_path, one).n == one.n


def test_a_newer_measure_takes_the_place_of_an_older_one(tmp_path):
    stored.add(tmp_path, a_measure(), POSITIONS, STREAM)
    other = stored.add(tmp_path, a_measure("b" * 64), POSITIONS, STREAM)
    floor = stored.add(tmp_path, a_measure("c" * 64, role="packing", created="2027"), POSITIONS, STREAM)
    assert stored.measured(tmp_path) == (other, floor)
    assert stored.add(tmp_path, a_measure("b" * 64), POSITIONS, STREAM) == other


@pytest.mark.parametrize("name", [stored.HEADER, stored.POSITIONS])
def test_what_was_changed_counts_as_missing(tmp_path, name):
    one = stored.add(tmp_path, a_measure(), POSITIONS, STREAM)
    file = tmp_path / stored.FOLDER / one.key / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert stored.whole(tmp_path, one.key) is None
    stored.add(tmp_path, a_measure(), POSITIONS, STREAM)
    assert stored.whole(tmp_path, one.key) == one


def test_another_stream_in_the_place_of_one_is_found_out(tmp_path):
    one = stored.add(tmp_path, a_measure(), POSITIONS, STREAM)
    file = tmp_path / stored.FOLDER / "streams" / f"{one.stream}.parquet"
    file.write_bytes(stream_to_parquet(STREAM.beginning(3)))
    with pytest.raises(QevalError, match="its SHA-256 differs"):
        stored.stream(tmp_path, one)


@pytest.mark.parametrize("name", [stored.HEADER, stored.POSITIONS])
def test_what_is_damaged_is_named_until_it_is_measured_again(tmp_path, name):
    run = tmp_path / "a-run"
    one = stored.add(run, a_measure(), POSITIONS, STREAM)
    other = stored.add(run, a_measure("b" * 64, variant="bnb8"), POSITIONS, STREAM)
    assert stored.sound(run) == ((one, other), ())
    with (run / stored.FOLDER / one.key / name).open("ab") as file:
        file.write(b" ")
    whole, [told] = stored.sound(run)
    assert whole == (other,)
    assert told.startswith(f"a-run/fidelity/{one.key}/{name} is not what was written")
    assert "what is damaged is made again" in told
    again = stored.add(run, a_measure("c" * 64), POSITIONS, STREAM)  # by another version, so of another key
    assert stored.sound(run) == ((other, again), ())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_a_header_that_says_nothing_is_damaged(tmp_path, data):
    one = stored.add(tmp_path, a_measure(), POSITIONS, STREAM)
    (tmp_path / stored.FOLDER / one.key / stored.HEADER).write_bytes(data)
    assert len(stored.sound(tmp_path)[1]) == 1
    other = stored.add(tmp_path, a_measure("b" * 64), POSITIONS, STREAM)
    assert stored.measured(tmp_path) == (other,)
