"""The grammar of --schemes: `fp16,bnb4[quant_type=fp4],ao=gptq[act_order=true]@org/name:revision`.

    schemes    = entry { "," entry }
    entry      = [ name "=" ] kind [ "[" option { "," option } "]" ] [ "@" checkpoint ]
    option     = key "=" value
    checkpoint = path | hub-id [ ":" revision ] | quoted [ ":" revision ]

A checkpoint that begins like a path (`/`, `./`, `../`, `~`, `C:/`, a backslash) is a path to its end,
colons included; anything else is a Hub id up to the first colon, and its revision after it. (A relative
directory without `./` that exists is still found, for that is decided when it is opened.) Commas,
brackets and colons are literal within double quotes, where a quote itself is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.names import PATH, QUOTED, option_text, scheme_text, unquote
from qeval.base.records import Option, Scheme
from qeval.load.spec import OptionSpec, SchemeSpec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+#-]*")
SYNTAX = "Write kind[option=value,...]@checkpoint:revision, for instance gptq[bits=3,group_size=64]."

SpecOf = Callable[[str], SchemeSpec]
"""Gives a scheme by its name; raises UsageError for one that is not known."""


class NamedScheme(NamedTuple):
    """A scheme under the name that tables show."""

    name: str
    scheme: Scheme


def parse(text: str, spec_of: SpecOf) -> tuple[NamedScheme, ...]:
    """The schemes that `text` names, in its order; raises UsageError saying what is wrong and the remedy."""
    found = tuple(_entry(part.strip(), spec_of) for part in _split(text))
    names = [named.name for named in found]
    for at, name in enumerate(names):
        if name in names[:at]:
            plain = name.split("[")[0].split("@")[0]
            free = next(other for n in count(2) if (other := f"{plain}-{n}") not in names)
            raise UsageError(
                f"Two schemes are named {name!r}.",
                f"Name one of them, for instance: {free}={scheme_text(found[at].scheme)}",
            )
    return found


def _split(text: str) -> list[str]:
    """The entries between the commas that stand outside brackets and quotes."""
    parts, start = [], 0
    for position in _outside(text, ","):
        parts.append(text[start:position])
        start = position + 1
    parts.append(text[start:])
    if not all(part.strip() for part in parts):
        raise UsageError("A scheme is missing: the list is empty or has an extra comma.", SYNTAX)
    return parts


def _outside(text: str, wanted: str) -> Iterator[int]:
    """The positions of `wanted` outside double quotes and square brackets.

    A bracket counts only in the options, that is before the `@` of its entry: a path may hold brackets.
    """
    depth, quoted, checkpoint = 0, False, False
    for position, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char == wanted and depth == 0:
            checkpoint = False
            yield position
        elif char == "@" and depth == 0:
            checkpoint = True
        elif not checkpoint:
            depth += (char == "[") - (char == "]")
    if quoted or depth:
        raise UsageError(f"A {'quote' if quoted else 'bracket'} is not closed in {text!r}.", SYNTAX)


def _entry(text: str, spec_of: SpecOf) -> NamedScheme:
    head, at, tail = _cut(text, "@")
    name, equals, body = _cut(head, "=")
    if not equals:
        name, body = "", head
    if equals and not NAME.fullmatch(name.strip()):
        raise UsageError(
            f"{name.strip()!r} is not a valid name for a scheme.", "Use letters, digits and . _ + - in names."
        )
    kind, bracket, rest = body.strip().partition("[")
    spec = spec_of(kind.strip())
    if bracket and not rest.endswith("]"):
        raise UsageError(f"{body.strip()!r} has something after its options.", SYNTAX)
    options = _options(rest[:-1], spec) if bracket else {}
    checkpoint, revision = _checkpoint(tail.strip(), spec) if at else (None, None)
    if spec.checkpoint == "required" and checkpoint is None:
        raise UsageError(
            f"{spec.name} reads only ready checkpoints, and none is named.",
            f"Write {spec.name}@<Hub id or directory>.",
        )
    written = Scheme(spec.name, options, checkpoint, revision)
    scheme = spec.settle(written) if spec.settle else written
    return NamedScheme(name.strip() or scheme_text(scheme), scheme)


def _cut(text: str, mark: str) -> tuple[str, str, str]:
    """`text` before, at and after the first `mark` outside brackets and quotes."""
    position = next(_outside(text, mark), None)
    return (text, "", "") if position is None else (text[:position], mark, text[position + 1 :])


def _options(text: str, spec: SchemeSpec) -> dict[str, Option]:
    """The options as they are written, in the order of the specification, whatever theirs was."""
    known = {option.name: option for option in spec.options}
    found: dict[str, Option] = {}
    for part in _split(text) if text.strip() else ():
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in known:
            hint = did_you_mean(key, known) if known else f"{spec.name} takes no options."
            raise UsageError(f"{spec.name} has no option {key!r}.", hint)
        if key in found:
            raise UsageError(f"{spec.name} is given {key} twice.", "Leave one of them out.")
        found[key] = _value(unquote(value), known[key], spec.name)
    return {key: found[key] for key in known if key in found}


def _value(word: str, option: OptionSpec, scheme: str) -> Option:
    """`word` as the option's type, within its choices and not below its least value."""
    try:
        value = _READ[option.type](word)
    except ValueError:
        raise UsageError(f"{scheme}[{option.name}=...] cannot be {word!r}.", _allowed(option)) from None
    low = option.low is not None and not isinstance(value, str) and value < option.low
    if low or (option.choices and value not in option.choices):
        raise UsageError(f"{scheme}[{option.name}=...] cannot be {word!r}.", _allowed(option))
    return value


def _allowed(option: OptionSpec) -> str:
    if option.choices:
        return f"Choose from: {', '.join(option_text(choice) for choice in option.choices)}."
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[option.type]
    return f"It takes {kind}{'' if option.low is None else f', at least {option.low:g}'}."


def _read_bool(word: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if word.lower() not in known:
        raise ValueError(word)
    return known[word.lower()]


def _read_float(word: str) -> float:
    value = float(word)
    if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - the test for NaN
        raise ValueError(word)
    return value


def _read_text(word: str) -> str:
    if not word:
        raise ValueError(word)
    return word


_READ: dict[type, Callable[[str], Option]] = {bool: _read_bool, int: int, float: _read_float, str: _read_text}


def _checkpoint(text: str, spec: SchemeSpec) -> tuple[str, str | None]:
    """The path or Hub id and the revision that stand after the `@`."""
    if spec.checkpoint == "no":
        raise UsageError(f"{spec.name} reads no ready checkpoints.", f"Leave out @{text}.")
    quoted = QUOTED.match(text)
    if quoted:
        path, rest = unquote(quoted[0]), text[quoted.end() :]
    elif PATH.match(text):
        path, rest = text, ""
    else:
        path, rest = text.partition(":")[0].strip(), "".join(text.partition(":")[1:])
    revision = unquote(rest[1:].strip())
    if not path or (rest and (rest[0] != ":" or not revision)):
        raise UsageError(f"{spec.name}@{text} names no checkpoint.", SYNTAX)
    return path, revision or None
