"""Finished blocks of a checkpoint that is being made: written while the next is solved, joined at the end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from qeval.base.errors import QevalError
from qeval.base.files import is_full

WHOLE = 2 * 2**30
"""Bytes up to which a checkpoint is one file; of a larger one each block is a file of its own, the very one
that was kept."""
FORMAT = {"format": "pt"}


class Blocks:
    """The finished blocks of a model, kept in the directory `work` for a later call to go on from.

    A block is `tensors` by their names in the checkpoint, and what is needed `aside` to go on after it. With
    a `writer` one is written beside the next one's work, so that its errors are raised there. Raises
    QevalError where the disk is full.
    """

    def __init__(self, work: Path, writer: ThreadPoolExecutor | None = None) -> None:
        self.work, self.writer = work, writer
        self.pending: Future[None] | None = None

    def path(self, index: int) -> Path:
        """Where a block is written."""
        return self.work / f"block-{index:04d}.safetensors"

    def has(self, index: int) -> bool:
        """Whether a block is finished."""
        return self.path(index).is_file()

    def keep(self, index: int, tensors: Mapping[str, Tensor], aside: Mapping[str, Tensor]) -> None:
        """Have a finished block written, after the one before it."""
        here, there = _on_cpu(tensors), _on_cpu(aside)
        self.settle()
        if self.writer is None:
            self._write(index, here, there)
        else:
            self.pending = self.writer.submit(self._write, index, here, there)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """A finished block's."""
        return dict(load_file(self.path(index)))

    def aside(self, index: int) -> dict[str, Tensor]:
        """What else a finished block left."""
        return dict(load_file(self._beside(index)))

    def _beside(self, index: int) -> Path:
        return self.work / f"aside-{index:04d}.safetensors"

    def settle(self) -> None:
        """Wait for what is being written."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def _write(self, index: int, tensors: dict[str, Tensor], aside: dict[str, Tensor]) -> None:
        _write_whole(self._beside(index), aside)  # first: a block whose tensors are there is finished
        _write_whole(self.path(index), tensors)


@contextmanager
def written_beside(work: Path) -> Iterator[Blocks]:
    """The blocks in `work`, written in a thread; at the end, whatever ended it, what was begun is written."""
    with ThreadPoolExecutor(1, "blocks") as writer:
        blocks = Blocks(work, writer)
        yield blocks
        blocks.settle()


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}


def _write_whole(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, whole or not at all."""
    partial = path.with_suffix(".partial")
    try:
        with told_when_full(path.parent):
            save_file(tensors, partial, FORMAT)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def told_when_full(place: Path) -> Iterator[None]:
    """Turn a full disk, told by the system or by safetensors, into a sentence and a remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise QevalError(
            f"The disk that holds {place.parent} is full.",
            "Free some space there and run the same command again: it resumes after the last finished block.",
        ) from error


def write_model(model: Any, blocks: Blocks, files: int, packed: set[str], target: Path) -> None:
    """Write the checkpoint: the first `files` kept blocks, and all of the model but the layers `packed`,
    which they hold, with its configuration. Plain transformers loads it."""
    rest = {
        name: tensor for name, tensor in model.state_dict().items() if name.rpartition(".")[0] not in packed
    }
    with told_when_full(target):
        model.save_pretrained(target, state_dict=rest)
        _join(target, [blocks.path(index) for index in range(files)])
        for path in target.glob("model*.safetensors"):  # which safetensors writes for their owner alone
            shutil.copymode(target / "config.json", path)


def _join(target: Path, blocks: list[Path]) -> None:
    """Add the files of blocks to the weights in `target`."""
    parts = [*sorted(target.glob("model*.safetensors")), *blocks]
    total = sum(part.stat().st_size for part in parts)
    if total <= WHOLE:
        tensors = {name: tensor for part in parts for name, tensor in load_file(part).items()}
        whole = target / "model.partial"
        save_file(tensors, whole, FORMAT)  # not over a file that is mapped
        whole.replace(target / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        _place(part, target / name)
        with safe_open(target / name, "pt") as file:
            places |= dict.fromkeys(file.keys(), name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (target / "model.safetensors.index.json").write_text(f"{json.dumps(index, indent=2)}\n", "utf-8")


def _place(part: Path, target: Path) -> None:
    """Put a file at `target`; one of another directory stays, for a call that is killed begins from it."""
    if part.parent == target.parent:
        part.replace(target)
        return
    try:
        os.link(part, target)
    except OSError:  # file systems without links
        shutil.copyfile(part, target)
