"""Opening a checkpoint with gptqmodel's kernels: the library's own choice, or the next that runs here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.opening import open_model
from qeval.load.spec import Recipe

_OURS = (ImportError, NotImplementedError, RuntimeError, ValueError, AssertionError)
"""What a kernel raises that takes no such layer, or cannot be built. Files raise other errors."""
NOTE = "gptqmodel's own choice of kernel does not run here ({reason}); {name} does and is used."


def open_stepping_down(
    recipe: Recipe, names: Sequence[str], choose: Callable[[str], Any], **others: Any
) -> Any:
    """The model with the first of the kernels `names` that loads it, the library's choice "auto" among them.

    gptqmodel chooses by the GPU and the checkpoint, and raises where the kernel takes not all layers of the
    model or cannot be compiled (no nvcc, no network); plain transformers ends there. `choose` makes a
    quantization_config for a kernel's name, `others` go to from_pretrained as they are. Which kernel it is in
    the end, provenance tells. Raises the first kernel's QevalError where none loads, and every error that is
    not a kernel's at once.
    """
    first: QevalError | None = None
    for name in names:
        keywords = {} if name == "auto" else {"quantization_config": choose(name)}
        try:
            model = open_model(recipe, **keywords, **others)
        except QevalError as error:
            if not isinstance(error.__cause__, _OURS) or _out_of_memory(error.__cause__):
                raise
            first = first or error
            continue
        if first is not None:
            recipe.notes.append(NOTE.format(reason=_reason(first), name=name))
        return model
    if first is None:
        raise ValueError("no kernel was named")
    raise first


def _out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError"


def _reason(error: QevalError) -> str:
    """What the kernel said, in a line."""
    text = " ".join(str(error.__cause__).split())
    return text if len(text) <= 160 else f"{text[:159]}…"  # noqa: PLR2004 - a line of a report
