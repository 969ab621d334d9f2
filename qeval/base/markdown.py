"""Untrusted text in Markdown: GitHub shows it as it is, and nothing in it is a link, a mention or a mark."""

from __future__ import annotations

import re

from qeval.base.text import one_line

_BREAK = "<!-- -->"
"""Ends a run of text for what looks for links and mentions, and is not shown. An entity would not do: it is
text again by the time that they are looked for."""
_LINKING = re.compile(
    r"@(?=[^\s@])"  # a mention, an address
    r"|:(?=//)|www(?=\.)|(?:mailto|xmpp)(?=:)"  # a link
    r"|#(?=\d)|GH-(?=\d)"  # an issue
    r"|:(?=(?-i:[a-z0-9_-]*[a-z][a-z0-9_-]*|[+-]1|100|1234):)",  # an emoji
    re.IGNORECASE,
)


def escape(text: str) -> str:
    """Untrusted text on one line, to stand where Markdown expects text, a table's cell included.

    GitHub shows its characters as `one_line` has them; the test reads them back by the parser of GitHub.
    """
    plain = _LINKING.sub(lambda found: found[0] + _HERE, one_line(text))
    plain = re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], plain)
    plain = re.sub(r"([\\`*\[\]|~$])", r"\\\1", plain)
    plain = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", plain)  # within a word it means nothing
    plain = re.sub(r"^(?:(\d+)(?=[.)]( |$))|(?=[-+#=](?:[ #=-]|$)))", r"\1\\", plain)
    return plain.replace(_HERE, _BREAK)


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_HERE = "\0"
"""Where a break comes: no character of a visible text."""


def code(text: str) -> str:
    """Untrusted text as code on one line, between more backticks than it has in a row."""
    plain = one_line(text)
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", plain)), default=0) + 1)
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{ticks}{space}{plain}{space}{ticks}"
