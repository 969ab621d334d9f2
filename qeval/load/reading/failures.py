"""What a library raises while it opens a model, as a sentence and a remedy."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator

from qeval.base.errors import MissingPackageError, QevalError
from qeval.load.source import Source, hub_refusal


def explain(error: Exception, source: Source, device: str) -> Exception:
    """`error` as a QevalError where its cause is known, else as it is."""
    name, text = source.path, str(error)
    refusal = hub_refusal(name, source.revision, _root(error))
    if refusal is not None:
        return refusal
    for applies, found in _known(error, text, name, device):
        if applies:
            return found
    return error


def _known(error: Exception, text: str, name: str, device: str) -> Iterator[tuple[bool, QevalError]]:
    """Whether `error` is of a kind that is known, and what is said then; the first that applies counts."""
    first = " ".join(text.split())[:300]
    yield (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text,
        QevalError(
            f"{name} does not fit into the memory of {device}.", "Choose a smaller model or another device."
        ),
    )
    yield (
        "trust_remote_code" in text,
        QevalError(
            f"{name} brings code of its own, which is not run without your permission.",
            "Read that code, and if you trust it add --trust-remote-code.",
        ),
    )
    yield (
        _of_pickle(error),
        QevalError(
            f"{name} has weights in a Python pickle that is damaged or holds more than tensors. Such a file"
            " can run any code when it is read, so it is not read.",
            "Take a version of the model in safetensors.",
        ),
    )
    yield (
        type(error).__name__ == "SafetensorError",
        QevalError(f"A weight file of {name} is damaged: {first}.", "Download or save the model again."),
    )
    yield (
        isinstance(error, ImportError),
        MissingPackageError(f"{name} cannot be loaded: {first}", "Install what it names."),
    )
    yield (
        isinstance(error, _OF_FILES) or of_kernel(error),
        QevalError(
            f"{name} cannot be loaded: {first}",
            "The run's log shows where it failed; for another command, type `qeval --debug` before it.",
        ),
    )


_OF_FILES = (
    ValueError,
    OSError,
    RuntimeError,  # RecursionError too
    LookupError,
    NotImplementedError,
    TypeError,
    AttributeError,
)
"""What libraries raise over files that hold something else than they expect."""
_BUILDERS = (
    "gptqmodel",
    "triton",
    "kernels",
    "torch.utils.cpp_extension",
    "torch._inductor",
    "torch._dynamo",
)
"""Packages that choose, fetch, build or start kernels."""


def of_kernel(error: BaseException) -> bool:
    """Whether an error comes from where kernels are chosen, fetched, built or started, whatever its class:
    no network, no compiler, a compiler that failed or took too long, a layer that a kernel does not take."""
    chain = list(_chain(error))
    if any(type(each).__name__ in {"OutOfMemoryError", "SafetensorError"} for each in chain):
        return False
    return _passed(chain, _BUILDERS)


_UNPICKLERS = ("torch.serialization", "torch._weights_only_unpickler", "pickle")


def _of_pickle(error: BaseException) -> bool:
    """Whether an error comes from reading a pickle, whatever its class: what is no pickle at all raises an
    IndexError, say. Its own words may be advice to switch the protection off, and are not passed on."""
    return _passed(list(_chain(error)), _UNPICKLERS)


def _passed(chain: Iterable[BaseException], packages: Iterable[str]) -> bool:
    """Whether one of these errors came through a module of one of the packages."""
    frames = (frame for each in chain for frame, _ in traceback.walk_tb(each.__traceback__))
    places = {str(frame.f_globals.get("__name__")) for frame in frames}
    return any(place == name or place.startswith(f"{name}.") for place in places for name in packages)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _root(error: BaseException) -> BaseException:
    """The first cause in a chain: transformers wraps the Hub's errors in OSError."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def forget_imports(package: str) -> None:
    """Drop the tracebacks of errors that modules of a package keep, as of an import that they do without.

    Each holds the frames that stood around the first import of the package: all that is loaded in them
    afterwards, a whole model above all, would never be let go of.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package:
            for value in list(vars(module).values()):
                if isinstance(value, BaseException):
                    value.__traceback__ = None
