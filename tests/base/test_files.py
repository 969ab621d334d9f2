"""Directories appear whole or not at all, whoever is killed and however many build them."""

from __future__ import annotations

import threading
import time

import pytest

from qeval.base.errors import QevalError
from qeval.base.files import build_directory, write_atomic


def test_a_failed_build_leaves_nothing_and_the_next_one_works(tmp_path) -> None:
    target = tmp_path / "d"

    def fail(partial):
        (partial / "half").write_text("x")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        build_directory(target, fail)
    assert not target.exists()
    build_directory(target, lambda partial: (partial / "whole").write_text("y"))
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_what_a_killed_process_left_is_removed(tmp_path) -> None:
    left = tmp_path / ".d.partial-abc"
    left.mkdir()
    (left / "half").write_text("x")
    build_directory(tmp_path / "d", lambda partial: (partial / "whole").write_text("y"))
    assert not left.exists()


def test_of_several_builders_one_builds(tmp_path) -> None:
    built = []

    def build(partial):
        built.append(partial)
        time.sleep(0.2)
        (partial / "whole").write_text("y")

    threads = [threading.Thread(target=build_directory, args=(tmp_path / "d", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "d" / "whole").read_text() == "y"


def test_a_place_that_cannot_be_written_to_is_said_so(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QevalError, match="cannot be written to"):
        build_directory(tmp_path / "file" / "d", lambda _: None)


def test_a_file_is_replaced_whole(tmp_path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomic(path, b"1")
    write_atomic(path, b"2")
    assert path.read_text() == "2"
    assert [found.name for found in path.parent.iterdir()] == ["b.json"]
