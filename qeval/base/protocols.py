"""Protocols of fidelity: what is read, and which of its positions are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qeval.base.errors import QevalError

Kind = Literal["wikitext", "llama.cpp", "prose", "text", "prompts", "trace"]
FIXED: dict[str, Kind] = {"wikitext-2048": "wikitext", "llama.cpp-512": "llama.cpp", "prose": "prose"}
OF_FILES: dict[str, Kind] = {"text": "text", "prompts": "prompts", "trace": "trace"}
"""The names of protocols, and the beginnings of those that read a file."""
OWN = "own"
"""The prompts that come with qeval, where a file is asked for."""
LONGEST = 1 << 28
"""The most bytes of a text."""
ANSWER_TOKENS = 64
"""The most tokens of an answer that is traced, where nobody says otherwise."""


@dataclass(frozen=True)
class Protocol:
    """What is read, and which of its positions are scored. `name` is how it was written.

    `file` is read by text, prompts and trace ("own": the prompts that come with qeval). `windows` is the most
    windows that are read, None for all. `answer` is the most tokens of a traced answer. `clamp` drops from
    each divergence what llama.cpp's stored logits drop: tokens that the baseline gives less than e^-16.
    """

    name: str
    kind: Kind
    file: str = ""
    windows: int | None = None
    answer: int = ANSWER_TOKENS
    clamp: bool = False


def names_protocol(text: str) -> bool:
    """Whether words can name a protocol."""
    return text.partition("[")[0] in FIXED or text.partition(":")[0] in OF_FILES


def file_text(protocol: Protocol) -> str:
    """The text of a protocol's file. Raises QevalError where it cannot be read, is empty or no text."""
    from qeval.base import reading  # not needed to name a protocol
    from qeval.base.places import at_home

    path = at_home(protocol.file)
    try:
        text = reading.text(path, LONGEST)
    except OSError as error:
        raise QevalError(
            f"{path}, of the protocol {protocol.name}, cannot be read: {reading.told(error)}.",
            reading.remedy(error),
        ) from error
    if not text.strip():
        raise QevalError(
            f"{path}, of the protocol {protocol.name}, is empty.", "Name a UTF-8 file that holds some text."
        )
    return text
