"""What the system or Python raises wherever they like, as a sentence and a remedy."""

from __future__ import annotations

import traceback

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.refusals import refused
from qeval.cli import streams

SCORING = {
    **{
        name: name
        for name in ("torch", "transformers", "tokenizers", "accelerate", "datasets", "safetensors")
    },
    "lm_eval": "lm-eval",
    "huggingface_hub": "huggingface_hub",
    "vl_convert": "vl-convert-python",
}
"""Modules that judging does without though qeval asks for them, and the packages that bring them."""


def explained(error: Exception) -> QevalError | None:
    """The error as a QevalError, where nobody but a person can mend it: a path, a disk, memory, or data
    beyond all measure; None where it is a mistake of ours."""
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError) or _for_want_of_memory(error):
        return QevalError("Memory ran out.", "Take a larger machine, or less data at once.")
    if isinstance(error, ModuleNotFoundError) and (package := _package(error.name)):
        return QevalError(f"{package} is not installed.", f"Install it with: pip install {package}")
    if isinstance(error, RecursionError):
        return QevalError("A file is nested too deeply.", "Check the files named on the command line.")
    return _of_value(error) if isinstance(error, ValueError) else None


def _package(module: str | None) -> str | None:
    """What brings a module that an installation for judging alone lacks; None for every other one."""
    return SCORING.get((module or "").partition(".")[0])


def _for_want_of_memory(error: Exception) -> bool:
    """Whether a library could not be loaded for it."""
    said = ("failed to map segment", "annot allocate memory")
    return isinstance(error, ImportError) and any(words in str(error) for words in said)


def _of_value(error: ValueError) -> QevalError | None:
    if isinstance(error, UnicodeEncodeError):
        return QevalError(
            "A word or a name is not valid UTF-8.", "Write it in UTF-8, or rename what it names."
        )
    if "null byte" in str(error):
        return QevalError("A path holds a NUL.", "Check the paths on the command line.")
    if "integer string conversion" in str(error):
        return QevalError("A number has thousands of digits.", "Correct it.")
    return None


def _of_system(error: OSError) -> QevalError:
    if error.filename is None and _by_printing(error):
        streams.abandon()
        return QevalError(
            f"Standard output cannot be written: {reading.told(error)}.",
            "Free some space there, or send it elsewhere.",
        )
    return refused(error) or QevalError(f"{error}.", "Check the paths on the command line.")


def _by_printing(error: OSError) -> bool:
    """Whether an error comes from where Click prints."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "click.utils" for frame in frames)
