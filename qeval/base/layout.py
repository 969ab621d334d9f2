"""Text laid out in the columns of a terminal: tables that give up columns, then become blocks; whole words.

A width of None is that of a file or a pipe: everything in one table, a sentence on one line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

GAP = 2
"""Blanks between the columns of a table."""
_LEAST = 18
"""Columns that a text keeps at least where it is wrapped within a table."""
_COMMAND = re.compile(r"\s*(?:Next: *|\$ )?(?:cd .+ && )?(?:qeval|pip) |Try: ")
"""How a line begins that a person pastes, which is therefore left whole."""
_RULE = re.compile(r"[-\s]+")
_CALL = (
    r"(?: cd [ ] .+? [ ] && [ ] )? (?: [A-Z][A-Z0-9_]*=\S+ [ ] )* (?: qeval | pip | hf | ray | unset ) [ ]"
)
_THEN = ",[ ]then:"
"""What stands between two commands of a sentence; where they take a line each, that is enough of a comma."""
_PIECE = re.compile(
    rf"""\s* (?:
        (?<=:[ ]) {_CALL} .*? (?= {_THEN}[ ] | $)   # behind a colon: to the end
        | {_THEN}
        | [^\s`]* ` {_CALL} [^`]* ` \S*              # in backticks
        | \(? (?<![^\s(]) qeval [ ] \S+             # in a sentence: with its options, and what is put in
            (?: [ ] (?: \.\.\.\S* | [A-Z]{{2,}}\b\S* | -\S+ (?: [ ] [^\s-]\S* )? ) )*
        | \S+ )""",
    re.VERBOSE,
)
"""What no line is broken in: a word, or a command, which would not be one any more."""


@dataclass(frozen=True)
class Column:
    """A column of a table. Where the table is too wide, those with the highest `goes` give way first, and 0
    never; what is `wrapped` is a text that may take several lines. `leads`: it names the row, and heads its
    block where no table fits."""

    title: str
    align: Literal["left", "right"] = "left"
    goes: int = 0
    wrapped: bool = False
    leads: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows of one-line cells as a table that fits `width`: without the columns that may go, then with the
    first that leads as headings, then as blocks, a row each. A cell that leads and is empty says the same as
    the one above it."""
    return with_titles(columns, rows, width)[0]


def with_titles(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None
) -> tuple[str, frozenset[str]]:
    """The same table, and the titles of the columns that it kept: what is said of another does not belong
    below it."""
    for kept in _choices(columns):
        shown = [columns[place] for place in kept]
        cells = _wrapped(shown, [[row[place] for place in kept] for row in rows], width)
        if cells is None:
            continue
        text = _drawn(shown, cells)
        titles = frozenset(column.title for column in shown)
        if width is None or widest(text) <= width:
            return text, titles
    sections = _sections(columns, rows)
    if sections and width is not None and widest(sections) <= width:
        return sections, titles
    blocks = "\n".join(block(columns, row, width or 0) for row in rows)
    return blocks, frozenset(column.title for column in columns)


def beside(
    first: Column, others: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None
) -> str:
    """A table whose columns are things of one kind: where they do not fit side by side, some of them in a
    table each, as many as fit."""
    for size in range(max(len(others), 1), 0, -1):
        parts = [
            table(
                [first, *others[at : at + size]],
                [[row[0], *row[1 + at : 1 + at + size]] for row in rows],
            )
            for at in range(0, max(len(others), 1), size)
        ]
        if width is None or max(map(widest, parts)) <= width:
            return "\n\n".join(parts)
    return "\n\n".join(
        table([first, one], [[row[0], row[1 + at]] for row in rows], width) for at, one in enumerate(others)
    )


def facts(lines: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """Labels and their values in two columns, a value that is too long going on below itself."""
    label = max((len(name) for name, _ in lines), default=0)
    return "\n".join(
        wrapped(f"{name:<{label}}  {value}".rstrip(), width, hang=label + GAP) for name, value in lines
    )


def wrapped(text: str, width: int | None, hang: int = 0) -> str:
    """A line broken between words to fit `width`, where it goes on below itself `hang` blanks to the right; a
    word that does not fit there begins further left, and one that is longer than a line stays whole; so does
    a command, as whoever pastes it needs it."""
    if width is None or columns_of(text) <= width:
        return text
    start = text[: len(text) - len(text.lstrip())]
    least = len(start) + GAP
    return "\n".join(_lines(text, width, hang if hang + _LEAST <= width else least, least))


def _lines(text: str, width: int, hang: int = 0, least: int = 0) -> Iterator[str]:
    """The lines of a text in so many columns, all but the first some blanks to the right, or fewer, down to
    the `least`, for what does not fit there."""
    line = ""
    for piece in _PIECE.findall(text):
        then = piece.startswith(", ")
        if line.strip() and (then or columns_of(line + piece) > width):
            yield line
            word = piece[2:] if then else piece.lstrip()
            line = " " * min(hang, max(width - columns_of(word), least)) + word
        else:
            line += piece
    yield line


def fitted(text: str, width: int | None) -> str:
    """A text whose lines go on below themselves where they are too long, but for those of tables that fit
    already and commands that a person pastes."""
    if width is None:
        return text
    return "\n".join(_fitted(line, width) for line in text.split("\n"))


def _fitted(line: str, width: int) -> str:
    if columns_of(line) <= width or _COMMAND.match(line) or _RULE.fullmatch(line):
        return line
    return wrapped(line, width, hang=len(line) - len(line.lstrip()) + GAP)


def columns_of(text: str) -> int:
    """How many columns a line takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(unicodedata.combining(sign) > 0 for sign in text)


def widest(text: str) -> int:
    """The columns of the longest line."""
    return max((columns_of(line) for line in text.split("\n")), default=0)


def _choices(columns: Sequence[Column]) -> Iterator[list[int]]:
    """The columns of ever narrower tables, by their places."""
    kept = list(range(len(columns)))
    yield kept
    for turn in sorted({column.goes for column in columns if column.goes}, reverse=True):
        kept = [place for place in kept if columns[place].goes != turn]
        yield kept


def _wrapped(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> list[list[str]] | None:
    """The cells, texts on as many lines as the width asks for; None where that is not to be had."""
    cells = [list(row) for row in rows]
    texts = [place for place, column in enumerate(columns) if column.wrapped]
    if width is None or not texts:
        return cells
    natural = [
        max(map(columns_of, (column.title, *(row[place] for row in rows))))
        for place, column in enumerate(columns)
    ]
    spare = width - GAP * (len(columns) - 1) - sum(natural)
    if spare >= 0:
        return cells
    for place in sorted(texts, key=lambda place: -natural[place]):
        taken = min(-spare, max(0, natural[place] - _LEAST))
        if taken > 0:
            spare += taken
            for row in cells:
                row[place] = "\n".join(_lines(row[place], max(natural[place] - taken, 1)))
    return cells if spare >= 0 else None


def _drawn(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    titles = [column.title for column in columns]
    align = [column.align for column in columns]
    if not cells:
        align = []
    return str(tabulate(cells, titles, tablefmt="simple", disable_numparse=True, colalign=align or None))


def _sections(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The narrowest table, its first column that leads as a line above its rows; "" where it has but one
    such column, or texts that are wrapped."""
    [*_, kept] = _choices(columns)
    leading = [place for place in kept if columns[place].leads]
    if len(leading) < 2 or any(columns[place].wrapped for place in kept):  # noqa: PLR2004 - one is kept
        return ""
    rest = [place for place in kept if place != leading[0]]
    drawn = _drawn([columns[place] for place in rest], [[row[place] for place in rest] for row in rows])
    head, rule, *lines = drawn.split("\n")
    told, above = [head, rule], ""
    for row, line in zip(rows, lines, strict=True):
        name = row[leading[0]] or above
        told += [line] if name == above else [f"{name}:", line]
        above = name
    return "\n".join(told)


def block(columns: Sequence[Column], row: Sequence[str], width: int) -> str:
    """A row where no table fits: what names it line by line, and below that the rest by its titles."""
    named = list(zip(columns, row, strict=True))
    leading = [cell for column, cell in named if column.leads]
    heads = [" " * GAP * place + cell for place, cell in enumerate(leading) if cell]
    rest = [(column, cell) for column, cell in named if not column.leads and cell]
    parts = [f"{column.title} {cell}".strip() for column, cell in rest if not column.wrapped]
    texts = [f"{column.title}: {cell}" for column, cell in rest if column.wrapped]
    indent = " " * GAP * max(len(leading), 1)
    below = [
        *_packed(parts, indent, width),
        *(wrapped(indent + text, width, len(indent) + GAP) for text in texts),
    ]
    return "\n".join([*heads, *below])


def _packed(parts: Iterable[str], indent: str, width: int) -> Iterator[str]:
    """Short parts side by side on indented lines, as many on each as fit."""
    line = ""
    for part in parts:
        if line and columns_of(f"{line}   {part}") > width:
            yield line
            line = ""
        line = f"{line}   {part}" if line else wrapped(indent + part, width, len(indent) + GAP)
    if line:
        yield line
