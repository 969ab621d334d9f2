"""Untrusted text: every character of it is seen, and none steers a terminal, a reader or a CI runner."""

from __future__ import annotations

import json
import re

_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # they steer a terminal
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the direction of reading
    "\xad\u034f\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff"  # they are not seen at all
    "\ud800-\udfff\ufff9-\uffff\U000e0000-\U000e007f"
)
_JOINS = "\u200c\u200d"
"""Not seen either, but scripts from Hebrew on and emoji are written with them."""
_NOT_SEEN = re.compile(
    f"[{_UNSEEN}]|(?<![\u0590-\U0010ffff])[{_JOINS}]|[{_JOINS}](?![\u0590-\U0010ffff])|[{_JOINS}](?=[{_JOINS}{_UNSEEN}])"
)
_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|#(?=#(?:vso)?\[)", re.MULTILINE)
"""How a line begins that a CI runner takes for a command, and its older and its cousin's mark anywhere."""


def visible(text: str) -> str:
    """The text with characters that no document can hold, that steer a terminal, that turn the direction of
    reading or that nobody would see shown by their numbers; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text  # most are, and this is told at once
    return _NOT_SEEN.sub(_by_number, text)


def one_line(text: str) -> str:
    """Untrusted text on one line, every character of it `visible`."""
    return visible(" ".join(text.split()))


def printable(text: str) -> str:
    """What may be printed where a terminal or a CI runner listens: `visible`, and no line of it a command
    (`::error::`, `##[error]`) to a runner."""
    return _COMMAND.sub(lambda found: (found[1] or "") + _numbered(found[0][-1]), visible(text))


def printable_json(text: str) -> str:
    """A JSON document that means the same, with `printable`'s characters as JSON's own escapes."""
    escaped = _NOT_SEEN.sub(lambda found: json.dumps(found[0])[1:-1].replace("\x7f", "\\u007f"), text)
    return _COMMAND.sub(lambda found: (found[1] or "") + f"\\u{ord(found[0][-1]):04x}", escaped)


def _by_number(found: re.Match[str]) -> str:
    return _numbered(found[0])


def _numbered(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"
