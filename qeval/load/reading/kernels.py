"""Opening a checkpoint with gptqmodel's kernels: the library's own choice, or the next that runs here.

To score, weights are dequantised, and no kernel is built: this is for measuring what kernels cost.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.failures import explain
from qeval.load.reading.opening import open_model
from qeval.load.reading.patience import ends_after
from qeval.load.source import weight_files_bytes
from qeval.load.spec import Recipe

LIMIT = 300.0
"""Seconds for choosing, fetching and building one kernel."""
DISK, NETWORK = 50e6, 5e6
"""Bytes of weights that come in a second at least, from here or from the Hub."""
UNKNOWN = 20e9
"""Bytes of weights where they cannot be told."""
STEPPED_DOWN = "does not run here"
NOTE = f"{{tried}} {STEPPED_DOWN} ({{reason}}); {{name}} does and is used."
OWN_CHOICE = "gptqmodel's own choice of kernel"
BACKEND_NOTE = (
    "Scored by gptqmodel's portable layer, whose weights are those of every kernel; backend={asked} is for"
    " costs, or for scoring with --no-materialize."
)
_LAYERS = "gptqmodel.nn_modules.qlinear."
"""Where gptqmodel has a module for each of its kernels."""


def open_stepping_down(
    recipe: Recipe, names: Sequence[str], choose: Callable[[str], Any], **others: Any
) -> Any:
    """The model with the first of the kernels `names` that loads it, the library's choice "auto" among them.

    gptqmodel chooses by the GPU and the checkpoint, and raises where the kernel takes not all layers of the
    model, or cannot be compiled (no nvcc) or fetched (no network); plain transformers ends there. `choose`
    makes a quantization_config for a kernel's name, `others` go to from_pretrained as they are. Which kernel
    it is in the end, provenance tells. Where several are named, the model answers one token before it counts
    as loaded, each has LIMIT seconds, and whatever a library raises, but for want of memory, makes room
    for the next; the last one builds nothing at all. Raises the first kernel's error where none loads, so
    that a damaged file is told as ever.
    """
    first: _Failure | None = None
    for name in names:
        keywords = {} if name == "auto" else {"quantization_config": choose(name)}
        try:
            with ends_after(_limit(recipe)) if len(names) > 1 else nullcontext():
                model = open_model(recipe, **keywords, **others)
                if len(names) > 1:
                    if name == names[-1]:
                        build_nothing(model)
                    _try_out(model, recipe)
        except (Exception, SystemExit) as error:
            if len(names) == 1 or not _may_step_down(error):
                raise
            first = first or _Failure(error, _tried(name, error), _reason(error))
            _let_go(error)
            continue
        if first is not None:
            recipe.notes.append(NOTE.format(tried=first.kernel, reason=first.reason, name=name))
        return model
    raise _told(first, recipe)


@dataclass(frozen=True, eq=False)
class _Failure:
    """What the first kernel raised, which one that was, and what it said."""

    error: BaseException
    kernel: str
    reason: str


def _limit(recipe: Recipe) -> float:
    """The seconds that a kernel has, with those that reading the weights may take."""
    size = None
    with suppress(QevalError):  # said where the files are opened
        size = weight_files_bytes(recipe.source)
    return LIMIT + (UNKNOWN if size is None else size) / (DISK if recipe.source.local else NETWORK)


def _told(first: _Failure | None, recipe: Recipe) -> BaseException:
    """What is raised where no kernel loads the model."""
    if first is None:
        return ValueError("no kernel was named")
    if isinstance(first.error, QevalError):
        return first.error
    return QevalError(
        f"{recipe.source.path} cannot be loaded: {first.reason}.",
        "The run's log shows where it failed; for another command, type `qeval --debug` before it.",
    )


def _may_step_down(error: BaseException) -> bool:
    """Whether another kernel may do: not where memory is short, nor where qeval itself refuses the files."""
    chain = list(_chain(error))
    if any(type(each).__name__ == "OutOfMemoryError" for each in chain):
        return False
    return not (isinstance(error, QevalError) and len(chain) == 1)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _tried(name: str, error: BaseException) -> str:
    """The kernel that was tried; for the library's choice, the one in whose module it failed."""
    if name != "auto":
        return name
    frames = (frame for each in _chain(error) for frame, _ in traceback.walk_tb(each.__traceback__))
    places = [str(frame.f_globals.get("__name__")) for frame in frames]
    found = [place.removeprefix(_LAYERS) for place in places if place.startswith(_LAYERS)]
    return f"{OWN_CHOICE}, {found[-1]}," if found else OWN_CHOICE


def _try_out(model: Any, recipe: Recipe) -> None:
    """Answer one token, since some kernels are built at their first use. QevalError where that fails."""
    import torch

    try:
        with torch.inference_mode():
            model(torch.zeros((1, 1), dtype=torch.long, device=model.device))
    except Exception as error:
        raise explain(error, recipe.source, recipe.device) from error


def build_nothing(model: Any) -> None:
    """Undo gptqmodel's torch.compile of unpacking, which costs half a minute on a CPU and a C++ compiler
    anywhere, and its kernel for triton, which builds what starts it."""
    for module in model.modules():
        vars(module).pop("dequantize_weight", None)
        if hasattr(module, "_triton_dequant_enabled"):
            module._triton_dequant_enabled = False  # noqa: SLF001 - there is but an environment variable


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of an error hold, a model that was half loaded among it, so that the next fits."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str:
    """What the kernel said, in a line."""
    told = error.__cause__ if isinstance(error, QevalError) and error.__cause__ else error
    text = " ".join(str(told).split()) or type(told).__name__
    return text if len(text) <= 160 else f"{text[:159]}…"  # noqa: PLR2004 - a line of a report
