"""Every file from outside comes in here: regular files only, of a bounded size, line, depth and kind.

What is wrong with a file is an UnreadableError, an OSError: `told` says it in words, `remedy` what helps, and
a caller that knows more of the file makes its own sentence of them. A whole file of samples has no limit,
each of its lines has.
"""

from __future__ import annotations

import codecs
import csv
import errno
import io
import itertools
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

DOCUMENT = 64 << 20
"""The most bytes of a document that is read at once: a run's header, results, a config, an index."""
TABLE = 4 << 20
"""The most bytes of a TOML file, which a person writes."""
LINE = 64 << 20
"""The most bytes of a line of samples."""
DEPTH = 64
"""How deep values may lie within one another."""
WHOLE = 1 << 63
"""TOML's whole numbers lie below it and not below its negative."""

_KINDS = (
    (stat.S_ISDIR, "it is a directory"),
    (stat.S_ISFIFO, "it is a FIFO"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
_SHOWN = 60


class UnreadableError(OSError):
    """Why a file is not read: `strerror` in words, without a full stop, and `remedy`, a sentence."""

    def __init__(self, path: Path, why: str, remedy: str = "Check the path.") -> None:
        super().__init__(errno.EINVAL, why, str(path))
        self.remedy = remedy


class DamagedError(UnreadableError, ValueError):
    """What a file holds is not what it should be."""

    def __init__(self, path: Path, why: str, remedy: str = "Correct the file.") -> None:
        super().__init__(path, why, remedy)


class PointerError(DamagedError):
    """A file is a Git LFS pointer: what it stands for was never fetched."""


def told(error: OSError) -> str:
    """What is wrong, in words without a full stop, by this module or by the operating system."""
    return (error.strerror or type(error).__name__).removesuffix(".")


def remedy(error: OSError) -> str:
    """What helps against an error of this module or of the operating system."""
    if isinstance(error, PermissionError):
        return "Check its permissions."
    return getattr(error, "remedy", "Check the path.")


# --- bytes and text -----------------------------------------------------------------------------


def opened(path: Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError; UnreadableError where it is another thing, which is
    then neither waited for nor opened."""
    try:
        _check_kind(path, path.stat().st_mode)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise UnreadableError(path, "its name holds a NUL") from error
    file = os.fdopen(handle, "rb")
    try:
        _check_kind(path, os.fstat(handle).st_mode)
    except OSError:
        file.close()
        raise
    return file


def content(path: Path, most: int | None = DOCUMENT) -> bytes:
    """All bytes of a regular file, of `most` bytes at the most; None: of any size.

    Raises what `opened` raises, and UnreadableError where it is too long.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if most is not None and size > most else file.read(size + 1)
        if len(data) > size:  # it grew, or is of a system that tells no sizes
            data += file.read(-1 if most is None else most + 1 - len(data))
    size = max(size, len(data))
    if most is not None and size > most:
        raise UnreadableError(
            path,
            f"it has {_mega(size)} MB, and {_mega(most)} MB are the most that such a file may have",
            "Check that it is the file that you mean.",
        )
    return data


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = next((what for is_kind, what in _KINDS if is_kind(mode)), "it is no file")
        raise UnreadableError(
            path, f"{what}, not a regular file", "Copy what it gives into a file and name that."
        )


def _mega(size: int) -> int:
    return -(-size // (1 << 20))


def text(path: Path, most: int | None = DOCUMENT) -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises what `content` raises, and DamagedError."""
    return decoded(path, content(path, most))


def decoded(path: Path, data: bytes) -> str:
    """Bytes of a file as text. Raises DamagedError where they are no UTF-8, compressed, or hold a NUL."""
    check_fetched(path, data)
    packed = next((name for start, name in _PACKED.items() if data.startswith(start)), None)
    if packed is not None:
        raise DamagedError(path, f"it is compressed ({packed})", "Unpack it first.")
    try:
        found = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1} is no UTF-8"
        raise DamagedError(
            path, what, "Save it as UTF-8, for example by: iconv -f LATIN1 -t UTF-8"
        ) from error
    if "\0" in found:
        raise DamagedError(
            path, f"character {found.index(chr(0)) + 1} is a NUL", "Save it as plain UTF-8 text."
        )
    return found


def check_fetched(path: Path, data: bytes) -> None:
    """Raises PointerError where a file's first bytes are those of a Git LFS pointer: it is text of three
    lines that stands for the file until Git fetches it."""
    if data.startswith(_POINTER):
        raise PointerError(path, "it is a Git LFS pointer, not the file itself", "Fetch it by: git lfs pull")


# --- documents ----------------------------------------------------------------------------------


def json_document(path: Path, most: int = DOCUMENT) -> Any:
    """The value in a JSON file. Raises what `content` raises, and DamagedError where it is no such thing."""
    return json_value(path, text(path, most))


def json_table(path: Path, most: int = DOCUMENT) -> dict[str, Any]:
    """The object in a JSON file. Raises what `json_document` raises, and DamagedError for another value."""
    found = json_document(path, most)
    if not isinstance(found, dict):
        raise DamagedError(path, f"it holds {kind_of(found)} where an object belongs")
    return found


def json_value(path: Path, words: str | bytes, where: str = "") -> Any:
    """The value that JSON text of a file tells; `where` says which part of the file, as "line 3: ".

    Raises DamagedError where it is no JSON, nested too deeply, or holds a number of thousands of digits.
    """
    try:
        found = _json(words)
    except RecursionError as error:
        raise DamagedError(path, f"{where}{_TOO_DEEP}") from error
    except json.JSONDecodeError as error:
        place = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise DamagedError(path, f"{where}it is no JSON ({place})") from error
    except UnicodeDecodeError as error:
        raise DamagedError(path, f"{where}it is no UTF-8") from error
    except ValueError as error:  # Python's own limit on digits
        raise DamagedError(path, f"{where}{_TOO_LONG}") from error
    if _opens(words) > DEPTH and deeper(found):  # with fewer brackets nothing can be
        raise DamagedError(path, f"{where}{_TOO_DEEP}")
    return found


def _json(words: str | bytes) -> Any:
    """What json makes of a text, or its error. msgspec is twice as fast; about what it does not take (NaN,
    1e999, half of a surrogate pair) json is asked."""
    try:
        return msgspec.json.decode(words)
    except (msgspec.MsgspecError, UnicodeError):
        return json.loads(words)


def _opens(words: str | bytes) -> int:
    """How many brackets a JSON text opens at most: some may stand in its strings."""
    return (
        words.count("[") + words.count("{")
        if isinstance(words, str)
        else words.count(b"[") + words.count(b"{")
    )


_TOO_DEEP = f"it is nested too deeply, more than {DEPTH} levels"
_TOO_LONG = "it holds a number of thousands of digits"


def json_lines(path: Path, data: bytes) -> Iterator[Any]:
    """The values of a file of JSON lines, without empty ones. Raises DamagedError, with the line's number."""
    for number, line in enumerate(decoded(path, data).split("\n"), 1):
        if len(line) > LINE:
            what = f"line {number} is longer than {_mega(LINE)} MB"
            raise DamagedError(path, what, "Check that it is a file with a JSON object on each line.")
        if line.strip():
            yield json_value(path, line, f"line {number}: ")


def toml_document(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises what `content` raises, and DamagedError where it is no TOML."""
    words = text(path, TABLE)
    if _DOTTED.search(words):
        raise DamagedError(path, _TOO_DEEP)
    try:
        found = tomllib.loads(words)
    except RecursionError as error:
        raise DamagedError(path, _TOO_DEEP) from error
    except tomllib.TOMLDecodeError as error:
        raise DamagedError(path, f"it is not valid TOML: {_cut(str(error))}") from error
    except ValueError as error:
        raise DamagedError(path, _TOO_LONG) from error
    if deeper(found):
        raise DamagedError(path, _TOO_DEEP)
    if any(isinstance(one, int) and not -WHOLE <= one < WHOLE for one in _leaves(found)):
        raise DamagedError(path, "it holds a whole number beyond 64 bits, which TOML does not have")
    return found


# tomllib takes time in the square of the parts of a dotted key.
_DOTTED = re.compile(rf"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){{{DEPTH + 1}}}")


def csv_rows(path: Path) -> tuple[list[str], list[dict[str | None, Any]]]:
    """The head of a CSV file and its rows, as `csv.DictReader` gives them; commas, semicolons or tabs
    separate the cells, whichever the head has most of. Raises what `text` raises, and DamagedError for a cell
    that no table has."""
    words = text(path)
    head = words.lstrip().partition("\n")[0]
    separator = max(",;\t", key=head.count)
    table = csv.DictReader(io.StringIO(words, newline=""), skipinitialspace=True, delimiter=separator)
    try:
        rows: list[dict[str | None, Any]] = [{**row} for row in table]
    except csv.Error as error:
        raise DamagedError(path, f"it is no CSV: {error}", "Check the quotes around its cells.") from error
    return list(table.fieldnames or ()), rows


def check_object(path: Path) -> None:
    """Raises what `opened` raises, and DamagedError where a JSON file of any size begins as no object, or is
    no UTF-8."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with opened(path) as file:
        start = file.read(_PIECE)
        if not start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            raise DamagedError(path, "it holds no JSON object")
        try:
            for piece in itertools.chain([start], iter(lambda: file.read(_PIECE), b"")):
                decode(piece)
            decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DamagedError(path, "it is no UTF-8", "Download or save it again.") from error


_PIECE = 1 << 20


# --- values -------------------------------------------------------------------------------------


def deeper(value: Any, most: int = DEPTH) -> bool:
    """Whether values lie more than `most` levels within one another."""
    level = [value]
    for _ in range(most + 1):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterator[Any]:
    """The lists and tables in a list or a table."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (part for part in inside if isinstance(part, dict | list))


def _leaves(value: Any) -> Iterator[Any]:
    inside = value.values() if isinstance(value, dict) else value
    for part in inside:
        if isinstance(part, dict | list):
            yield from _leaves(part)
        else:
            yield part


def whole(words: str) -> int | None:
    """The number that ASCII digits write, of at most 15; None for anything else, such as ² or ٣."""
    return int(words) if words.isascii() and words.isdecimal() and len(words) <= _DIGITS else None


_DIGITS = 15


def number(words: str) -> float:
    """The number that ASCII writes; Python alone takes 1_0 for ten, and digits of any script. Raises
    ValueError for anything else."""
    if "_" in words or not words.isascii():
        raise ValueError("no plain number")
    return float(words)


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words."""
    return _NAMES.get(type(value), "another value")


_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def _cut(words: str) -> str:
    return words if len(words) <= 2 * _SHOWN else f"{words[: 2 * _SHOWN]}..."
