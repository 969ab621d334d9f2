"""The pages that list what the code has: every command with its help, and every message with its remedy."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

PACKAGE = Path(__file__).parents[1] / "qeval"
ERRORS = {
    "UsageError": 2,
    "QevalError": 1,
    "MissingPackageError": 1,
    "LostDeviceError": 1,
    "BrokenDeviceError": 1,
    "IncomparableError": 5,
}
"""The errors that a user sees, and what a command that meets one exits with."""
ROOMS = {
    "ask": "What was asked for",
    "load": "Loading and making models",
    "score": "Scoring",
    "store": "Runs on disk",
    "compare": "Comparing",
    "judge": "Judging",
    "report": "Reports",
    "exchange": "Importing and exporting",
    "run": "Conducting a run",
    "cli": "The command line",
    "base": "Everywhere",
}
_LONGEST = 400


@dataclass(frozen=True)
class Message:
    """A message of the code: `…` stands for what is known only when it is said."""

    room: str
    text: str
    remedy: str
    code: int


def cli() -> str:
    """Every command's own help."""
    from qeval.cli.main import main

    names = main.context_settings["help_option_names"]  # of which Click keeps the first that it is asked for
    context = click.Context(
        main, info_name="qeval", max_content_width=100, terminal_width=100, help_option_names=names
    )
    parts = [f"## qeval\n\n```text\n{main.get_help(context)}\n```"]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None  # noqa: S101 - it was listed
        inner = click.Context(command, info_name=name, parent=context, max_content_width=100)
        inner.terminal_width = 100
        parts.append(f"## qeval {name}\n\n```text\n{command.get_help(inner)}\n```")
    return "\n\n".join(re.sub(r"[ \t]+$", "", part, flags=re.MULTILINE) for part in parts)


def messages() -> str:
    """A table for each room of the house, of what it can say and what helps."""
    found = sorted(
        set(_found()), key=lambda one: (list(ROOMS).index(one.room), one.text.lower(), one.remedy, one.code)
    )
    parts = []
    for room, title in ROOMS.items():
        rows = [
            f"| {_cell(one.text)} | {_cell(one.remedy)} | {one.code} |" for one in found if one.room == room
        ]
        if rows:
            parts.append(
                "\n".join([f"## {title}\n", "| message | remedy | exit code |", "|---|---|---|", *rows])
            )
    return "\n\n".join(parts)


@functools.cache
def _found() -> tuple[Message, ...]:
    """Every message of the code; read once."""
    return tuple(message for file in sorted(PACKAGE.rglob("*.py")) for message in _said(file))


def _said(file: Path) -> Iterator[Message]:
    room, code = file.relative_to(PACKAGE).parts[0], file.read_text("utf-8")
    if not any(f"{error}(" in code for error in ERRORS):
        return
    for call in ast.walk(ast.parse(code)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS:
            text, remedy = [*map(_words, call.args), "", ""][:2]
            for keyword in call.keywords:
                remedy = _words(keyword.value) if keyword.arg == "hint" else remedy
            if text.strip("… "):
                yield Message(room if room in ROOMS else "base", text, remedy, ERRORS[call.func.id])


def _words(value: ast.expr) -> str:
    """What an expression says, as far as the code tells; what it does not tell is `…`."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(_words(one) for one in value.values)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _words(value.left) + _words(value.right)
    if isinstance(value, ast.IfExp):
        return " / ".join(dict.fromkeys(filter(None, (_words(value.body), _words(value.orelse)))))
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "did_you_mean":
        return "Did you mean …? (or what is known)"
    return "…"


def _cell(text: str) -> str:
    text = " ".join(text.split())[:_LONGEST]
    return re.sub(r"([\\|*_<>\[\]`#])", r"\\\1", text) or "none"
