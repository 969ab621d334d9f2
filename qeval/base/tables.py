"""Reading what a person wrote as TOML: a table becomes a typed struct, or a sentence that names file and key.

The struct is the table's form: its fields are the keys that there are, their types and bounds what may stand
there. Nothing is bent into shape: "3" is no number, nor is true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from qeval.base import reading
from qeval.base.errors import UsageError, did_you_mean

Form = TypeVar("Form", bound=msgspec.Struct)
Place = tuple[str | int, ...]
_LONGEST = 60
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


def read(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; `what` names in errors what it should hold ("policy").

    Raises UsageError where it cannot be read or is no TOML.
    """
    try:
        return reading.toml_document(path)
    except OSError as error:
        raise UsageError(
            f"The {what} {path} cannot be read: {reading.told(error)}.", reading.remedy(error)
        ) from error


def typed(
    table: Mapping[str, Any], form: type[Form], where: str, meant: Mapping[str, str] | None = None
) -> Form:
    """The table as a `form`, whose classes should forbid unknown fields.

    `where` names the file, or the words, in errors. `meant` maps keys that people write by mistake to those
    they mean. Raises UsageError for an unknown or missing key and for a value that may not stand there.
    """
    try:
        return msgspec.convert(table, form)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `$")
        raise _sentence(
            text or str(error), _place(path if text else ""), table, form, where, meant
        ) from error


def _place(path: str) -> Place:
    """The keys and numbers of a path such as .task[0].limit."""
    parts = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", path)
    return tuple(int(number) if number else key for key, number in parts)


def _sentence(
    text: str,
    place: Place,
    table: Mapping[str, Any],
    form: type[msgspec.Struct],
    where: str,
    meant: Mapping[str, str] | None,
) -> UsageError:
    """What msgspec said of the value at a place, as this project says it."""
    kind = _kind_at(inspect.type_info(form), place)
    if unknown := _UNKNOWN.fullmatch(text):
        word = unknown[1]
        hint = did_you_mean((meant or {}).get(word, word), _fields(kind))
        return UsageError(f"{_named(where, place)}: there is no key {word!r}.", hint)
    if missing := _MISSING.fullmatch(text):
        lacking = _fields(kind)[missing[1]]
        many = _is_list_of_tables(lacking)
        key, hint = (
            (f"[[{missing[1]}]]", "Add at least one.") if many else (missing[1], f"Add {_need(lacking)}.")
        )
        return UsageError(f"{_named(where, place)} has no {key}.", hint)
    *above, last = place
    key = f"{above.pop()} {last + 1}" if isinstance(last, int) else last
    value = _value_at(table, place)
    message = f"{_named(where, tuple(above))}: {key} = {_short(value)} is not allowed."
    return UsageError(message, _hint(value, kind))


def _hint(value: Any, kind: inspect.Type) -> str:
    plain = _plain(kind)
    if isinstance(plain, inspect.LiteralType) and isinstance(value, str):
        return did_you_mean(value, map(str, plain.values))
    return f"It must be {_need(kind)}."


def _named(where: str, place: Place) -> str:
    """The table at a place in words: "policy.toml, rule 2"."""
    words = [where]
    for part, after in zip_longest(place, place[1:]):
        if isinstance(part, str):
            words.append(f"{part} {after + 1}" if isinstance(after, int) else f"[{part}]")
    return ", ".join(words)


def _value_at(table: Any, place: Place) -> Any:
    for part in place:
        table = table[part]
    return table


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _kind_at(kind: inspect.Type, place: Place) -> inspect.Type:
    """The type that a form gives to the value at a place."""
    for part in place:
        kind = _fields(kind)[part] if isinstance(part, str) else _item(kind)
    return kind


def _plain(kind: inspect.Type) -> inspect.Type:
    """The type without its description, and without None, which TOML cannot say."""
    if isinstance(kind, inspect.Metadata):
        return _plain(kind.type)
    return _plain(_some(kind)) if isinstance(kind, inspect.UnionType) else kind


def _some(kind: inspect.UnionType) -> inspect.Type:
    """The one type of "this or None"."""
    [some] = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    return some


def _fields(kind: inspect.Type) -> dict[str, inspect.Type]:
    plain = _plain(kind)
    fields = plain.fields if isinstance(plain, inspect.StructType) else ()
    return {field.encode_name: field.type for field in fields}


def _item(kind: inspect.Type) -> inspect.Type:
    plain = _plain(kind)
    return (
        plain.item_type if isinstance(plain, inspect.VarTupleType | inspect.ListType) else inspect.AnyType()
    )


def _is_list_of_tables(kind: inspect.Type) -> bool:
    return isinstance(_plain(_item(kind)), inspect.StructType)


def _need(kind: inspect.Type) -> str:
    """What a value must be, in words: the type's description where it has one."""
    if isinstance(kind, inspect.UnionType):
        return _need(_some(kind))
    if isinstance(kind, inspect.Metadata):
        return str((kind.extra_json_schema or {}).get("description") or _need(kind.type))
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return (
            "a list of tables" if _is_list_of_tables(kind) else f"a list, each entry {_need(kind.item_type)}"
        )
    return _WORDS.get(type(kind), "something else")


_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "text in quotes",
    inspect.StructType: "a table",
}
