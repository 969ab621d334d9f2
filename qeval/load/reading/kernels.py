"""Opening a checkpoint with gptqmodel's kernels: the library's own choice, or the next that runs here."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.failures import explain, of_kernel
from qeval.load.reading.opening import open_model
from qeval.load.spec import Recipe

_OURS = (ImportError, NotImplementedError, RuntimeError, ValueError, AssertionError)
"""What a kernel raises that takes no such layer, or cannot be built, wherever that is raised. Files raise
other errors; what else comes from where kernels are made is told by `of_kernel`."""
PATIENCE = 60
"""Seconds after which a download of a kernel that stands still has failed."""
NOTE = "gptqmodel's own choice of kernel does not run here ({reason}); {name} does and is used."


def open_stepping_down(
    recipe: Recipe, names: Sequence[str], choose: Callable[[str], Any], **others: Any
) -> Any:
    """The model with the first of the kernels `names` that loads it, the library's choice "auto" among them.

    gptqmodel chooses by the GPU and the checkpoint, and raises where the kernel takes not all layers of the
    model, or cannot be compiled (no nvcc) or fetched (no network); plain transformers ends there. `choose`
    makes a quantization_config for a kernel's name, `others` go to from_pretrained as they are. Which kernel
    it is in the end, provenance tells. Where several are named the model answers one token before it counts
    as loaded. Raises the first kernel's QevalError where none loads, and every error that is not a kernel's
    at once.
    """
    first: QevalError | None = None
    for name in names:
        keywords = {} if name == "auto" else {"quantization_config": choose(name)}
        try:
            with _impatient():
                model = open_model(recipe, **keywords, **others)
                if len(names) > 1:
                    _try_out(model, recipe)
        except QevalError as error:
            if not _of_kernel(error.__cause__):
                raise
            first = first or error
            _let_go(error)
            continue
        if first is not None:
            recipe.notes.append(NOTE.format(reason=_reason(first), name=name))
        return model
    if first is None:
        raise ValueError("no kernel was named")
    raise first


def _of_kernel(cause: BaseException | None) -> bool:
    if cause is None or type(cause).__name__ == "OutOfMemoryError":
        return False
    return isinstance(cause, _OURS) or of_kernel(cause)


def _try_out(model: Any, recipe: Recipe) -> None:
    """Answer one token, since some kernels are built at their first use. QevalError where that fails."""
    import torch

    try:
        with torch.inference_mode():
            model(torch.zeros((1, 1), dtype=torch.long, device=model.device))
    except Exception as error:
        raise explain(error, recipe.source, recipe.device) from error


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of an error hold, a model that was half loaded among it, so that the next fits."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextmanager
def _impatient() -> Iterator[None]:
    """Within it a download without a limit of its own ends when nothing has come for a while."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: QevalError) -> str:
    """What the kernel said, in a line."""
    text = " ".join(str(error.__cause__).split())
    return text if len(text) <= 160 else f"{text[:159]}…"  # noqa: PLR2004 - a line of a report
