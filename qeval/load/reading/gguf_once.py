"""Reading the head of a GGUF file once, which transformers reads three times over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any


@contextmanager
def read_once() -> Iterator[None]:
    """While open, whoever asks the package gguf for a file again gets what was read of it, and the same names
    for the same architecture; both are only looked at.

    A file's words are read one by one, in Python, and a slice of a file that is mapped into memory takes five
    times as long as one of an ordinary array; names are made anew for each module of a model. Unpacking the
    demo model took 14 seconds of a processor with all that, and takes 2.5.
    """
    import gguf

    before = gguf.GGUFReader, gguf.get_tensor_name_map
    reader = cache(_plain(gguf.GGUFReader))
    gguf.GGUFReader = lambda path: reader(Path(path))
    gguf.get_tensor_name_map = cache(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


def _plain(kind: Any) -> Any:
    """A class of readers to whom the file is an ordinary array, mapped as before."""
    import numpy as np

    class Plain(kind):  # type: ignore[misc]  # the package has no types
        @property
        def data(self) -> Any:
            """The bytes of the file."""
            return self.mapped

        @data.setter
        def data(self, mapped: Any) -> None:
            self.mapped = np.asarray(mapped)

    return Plain
