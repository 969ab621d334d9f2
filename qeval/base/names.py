"""Names as a person, a file system and a web page can read them: slugs, and a scheme as it is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from qeval.base.errors import QevalError
from qeval.base.records import Scheme

MACRO = "_macro"
"""What stands behind a group's name where the row is the unweighted mean of its members."""
TYPED = "tasks"
"""The name of the suite that `--tasks` makes, whose average is over all of them: nobody named its rows."""
PATH = re.compile(r"[/~\\]|\.{1,2}[/\\]|\.{1,2}$|[A-Za-z]:[/\\]")
"""How a checkpoint begins that is a path, not a Hub id: colons in it are its own."""
QUOTED = re.compile(r'"(?:[^"]|"")*"')
_PLAIN_WORD = re.compile(r"[^\s\",\[\]@=]+")
_LONGEST_NAME = 255
_PLAIN_NAME = re.compile(r"\w(?:[\w .+-]{0,62}[\w.+-])?", re.ASCII)
_PLAIN_CHECKPOINT = re.compile(r"[^\s\",](?:[^\",]*[^\s\",])?")


def slug(text: str, length: int = 40) -> str:
    """`text` as a file name: letters, digits, dot and dash, at most `length` characters."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[-length:].strip("-.") or "run"


def is_file_name(name: str) -> bool:
    """Whether a name is that of one file: no way to another directory, nothing unseen, at most 255 bytes."""
    plain = name not in {"", ".", ".."} and not re.search(r"[/\\\x00-\x1f\x7f\ud800-\udfff]", name)
    return plain and len(name.encode()) <= _LONGEST_NAME


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in a folder. Raises QevalError where it is not the name of one file in it."""
    if not is_file_name(name):
        shown = short(ascii(name)[1:-1])
        raise QevalError(
            f"{shown!r} is not a possible file name in {folder}.",
            "Use a name without slashes or control characters.",
        )
    return folder / name


def file_name(text: str) -> str:
    """A name that came from outside as that of a file: as it is where it is plain and short, else its `slug`,
    told apart by a hash."""
    if _PLAIN_NAME.fullmatch(text):
        return text
    return f"{slug(text)}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def scheme_text(scheme: Scheme) -> str:
    """The scheme as the user writes it, gptq[bits=3]@repo:revision; `--schemes` reads it back as it was."""
    words = ",".join(f"{key}={_word(value)}" for key, value in scheme.options.items())
    options = f"[{words}]" if words else ""
    return f"{scheme.kind}{options}{_checkpoint(scheme.checkpoint, scheme.revision)}"


def _checkpoint(path: str | None, revision: str | None) -> str:
    """A checkpoint with the `@` before it; quoted where it would be read as something else."""
    if path is None:
        return ""
    like_path = PATH.match(path) is not None
    plain = _PLAIN_CHECKPOINT.fullmatch(path) and (revision is None if like_path else ":" not in path)
    return f"@{path if plain else quote(path)}{'' if revision is None else f':{_word(revision)}'}"


def _word(value: object) -> str:
    """A value as `scheme_text` writes it: text is quoted where a mark of the grammar stands in it."""
    text = option_text(value)
    return quote(text) if isinstance(value, str) and not _PLAIN_WORD.fullmatch(text) else text


def option_text(value: object) -> str:
    """An option's value for a person: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def quote(word: str) -> str:
    """`word` in double quotes, those within it written twice."""
    return '"' + word.replace('"', '""') + '"'


def unquote(word: str) -> str:
    """What `quote` was given; a word without quotes around it as it is."""
    return word[1:-1].replace('""', '"') if len(word) > 1 and word[0] == word[-1] == '"' else word


def slugged(text: str) -> str:
    """A name as a part of an HTML id or a file name: letters, digits and dashes, told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40]
    return (
        plain
        if plain == text
        else f"{plain or 'x'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"
    )


def short(name: str, longest: int = 48) -> str:
    """A name that fits a table or a chart, its middle left out where it is longer than `longest`."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def in_a_sentence(names: Sequence[str]) -> str:
    """Names as a sentence has them, all of them: "a", "a and b", "a, b and c"; there must be one."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
