"""Protocols of fidelity: the words of --fidelity, and of a suite's file, as Protocols.

protocols = protocol { "," protocol }
protocol  = name [ "[" option { "," option } "]" ]
name      = "wikitext-2048" | "llama.cpp-512" | "prose" | "text:" FILE | "prompts:" FILE
| "trace:" FILE [ "," tokens ]
option    = "windows=" number | "clamp=true"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qeval.base import reading
from qeval.base.errors import UsageError, did_you_mean
from qeval.base.protocols import ANSWER_TOKENS, FIXED, OF_FILES, OWN, Protocol, file_text

_SYNTAX = "Write e.g. wikitext-2048, text:FILE, prompts:FILE, trace:own,64 or wikitext-2048[windows=16]."
_OPTIONS = re.compile(r"(?P<name>.*?)(?:\[(?P<options>[^\[\]]*)\])?")

_TOKENS = re.compile(r"\d+(?:\[[^\[\]]*\])?", re.ASCII)


def parse(text: str) -> tuple[Protocol, ...]:
    """The protocols that words name, in their order. Raises UsageError for what is none, or named twice."""
    found = tuple(map(_protocol, _parts(text)))
    for one in found:
        if sum(one.name == other.name for other in found) > 1:
            raise UsageError(f"The protocol {one.name!r} is named twice.", "Name it once.")
    if not found:
        raise UsageError("No protocol is named.", _SYNTAX)
    return found


def of_suite(words: Sequence[str]) -> tuple[Protocol, ...]:
    """The protocols that a suite's file lists. Raises what `parse` raises."""
    return parse(",".join(words)) if words else ()


def check_files(protocols: Sequence[Protocol]) -> None:
    """Raise QevalError for a protocol's file that cannot be read, is empty or no text."""
    for one in protocols:
        if one.file and one.file != OWN:
            file_text(one)


def _parts(text: str) -> Iterator[str]:
    """The protocols between commas: a number belongs to the trace before it, what stands in brackets to its
    name."""
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    held = ""
    for part in parts:
        if held.startswith("trace:") and _TOKENS.fullmatch(part):
            yield f"{held},{part}"
            held = ""
            continue
        if held:
            yield held
        held = part
    if held:
        yield held


def _protocol(word: str) -> Protocol:
    found = _OPTIONS.fullmatch(word)
    name, options = (found["name"].strip(), found["options"] or "") if found else (word, "")
    if name in FIXED:
        return _with_options(Protocol(word, FIXED[name]), options)
    kind, colon, file = name.partition(":")
    if not colon or kind not in OF_FILES:
        known = [*FIXED, *(f"{one}:FILE" for one in OF_FILES)]
        raise UsageError(f"There is no protocol {name!r}.", did_you_mean(name, known))
    answer = ANSWER_TOKENS
    if kind == "trace" and (last := file.rpartition(","))[0]:
        answer = _number(last[2], word)
        file = last[0]
    if not file.strip():
        raise UsageError(f"{kind}: names no file.", _SYNTAX)
    if kind == "text" and file == OWN:
        raise UsageError(
            "text:own is no text that comes with qeval.",
            "Use prose, which is the text that comes with qeval.",
        )
    return _with_options(Protocol(word, OF_FILES[kind], file=file.strip(), answer=answer), options)


def _with_options(protocol: Protocol, text: str) -> Protocol:
    """The protocol with what stands in its brackets."""
    windows, clamp = protocol.windows, protocol.clamp
    for option in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (part.strip() for part in option.partition("="))
        if key == "windows":
            windows = _number(value, protocol.name)
        elif key == "clamp" and protocol.kind == "llama.cpp" and value in {"true", "false"}:
            clamp = value == "true"
        else:
            hint = "clamp=true is for llama.cpp-512." if key == "clamp" else did_you_mean(key, ["windows"])
            raise UsageError(f"{protocol.name}: {option!r} is not an option.", hint)
    return Protocol(
        protocol.name, protocol.kind, protocol.file, windows=windows, answer=protocol.answer, clamp=clamp
    )


def _number(text: str, where: str) -> int:
    found = reading.whole(text.strip())
    if not found:
        raise UsageError(f"{where}: {text!r} is not a number of 1 or more.", _SYNTAX)
    return found
