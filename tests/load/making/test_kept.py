"""A full disk while a checkpoint is made: a sentence, finished blocks stay, and the same command goes on."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_worlds import QUIET, World, new_world

from qeval.base.errors import QevalError

pytestmark = QUIET


def refusals() -> list[Exception]:
    from safetensors import SafetensorError

    return [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ]


@pytest.fixture(scope="module", params=["gptq", "awq"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    options = {"group_size": 32, "samples": 4, "length": 32}
    return new_world(tmp_path_factory.mktemp(request.param), request.param, options)


def fill(monkeypatch: pytest.MonkeyPatch, refusal: Exception, part: str) -> None:
    """Let the disk be full from the first file on whose name begins with `part`."""
    from qeval.load.making import kept

    save = kept.save_file
    full: list[bool] = []

    def refuse(tensors: Any, path: Path, *more: Any) -> None:
        if full or path.name.startswith(part):
            full.append(True)
            path.write_bytes(b"half")
            raise refusal
        save(tensors, path, *more)

    monkeypatch.setattr(kept, "save_file", refuse)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(("part", "blocks"), [("aside-0000", 0), ("block-0001", 1), ("model", 2)])
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(
    world: World, tmp_path: Path, which: int, part: str, blocks: int
) -> None:
    undisturbed = (world.make() / "model.safetensors").read_bytes()
    other = replace(world, cache=tmp_path / "cache", said=[])
    with pytest.MonkeyPatch.context() as patch:
        fill(patch, refusals()[which], part)
        with pytest.raises(QevalError, match=r"^The disk that holds .* is full\.") as caught:
            other.make()
    assert "run the same command again" in caught.value.hint
    left = {path.name for path in (other.cache / "checkpoints").rglob("*") if path.is_file()}
    assert sum(name.startswith("block") for name in left) == blocks
    assert not any("partial" in name for name in left)
    with pytest.MonkeyPatch.context() as patch:
        solved = count(patch, world.kind)
        assert (other.make() / "model.safetensors").read_bytes() == undisturbed
    assert len(solved) == 2 - blocks


def count(patch: pytest.MonkeyPatch, kind: str) -> list[bool]:
    """Have blocks counted that are worked on."""
    from qeval.load.making import awq, gptq

    place, name = (gptq, "_solve_block") if kind == "gptq" else (awq, "_search_block")
    real, solved = getattr(place, name), list[bool]()
    patch.setattr(place, name, lambda *given: solved.append(True) or real(*given))
    return solved


def test_another_error_of_a_file_is_raised_as_it_is(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    fill(monkeypatch, SafetensorError("invalid"), "aside-0000")
    with pytest.raises(SafetensorError, match="invalid"):
        replace(world, cache=tmp_path / "cache", said=[]).make()


@pytest.mark.parametrize(("part", "blocks"), [("block-0001", 1), ("model", 2)])
def test_a_kill_while_a_file_is_written_changes_nothing(world: World, tmp_path: Path, part: str, blocks: int):
    undisturbed = world.make()
    other = replace(world, cache=tmp_path / "cache", said=[])
    child = os.fork()
    if not child:
        _make_until_killed(other, part)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pytest.MonkeyPatch.context() as patch:
        solved = count(patch, world.kind)
        made = other.make()
    assert len(solved) == 2 - blocks
    assert (made / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    assert _names(other.cache) == _names(world.cache)


def _make_until_killed(world: World, part: str) -> None:
    """In a process of its own: it dies with half a file written."""
    from qeval.load.making import kept

    save = kept.save_file

    def die(tensors: Any, path: Path, *more: Any) -> None:
        if path.name.startswith(part):
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(tensors, path, *more)

    try:
        kept.save_file = die
        world.make()
    finally:
        os._exit(1)


def _names(cache: Path) -> list[str]:
    # hashes of files are kept once these are some seconds old, which is no part of what is made
    found = sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
    return [name for name in found if name != "contents.json"]
