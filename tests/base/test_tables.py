"""TOML that a person wrote: a typed struct, or one sentence that names file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from qeval.base.errors import UsageError
from qeval.base.tables import read, typed


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    share: Annotated[float, Meta(gt=0, lt=1, description="a share, such as 0.5")] | None = None
    count: int = 0
    sure: bool = False
    colour: Literal["red", "green"] | None = None


class Form(msgspec.Struct, forbid_unknown_fields=True):
    leaf: tuple[Leaf, ...]
    head: Leaf | None = None
    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({}, "f.toml has no [[leaf]].", "Add at least one."),
        ({"leaf": [{}]}, "f.toml, leaf 1 has no name.", "Add text in quotes."),
        (
            {"leaf": [{"name": "a"}, {"nam": 1}]},
            "f.toml, leaf 2: there is no key 'nam'.",
            "Did you mean 'name'?",
        ),
        ({"leaf": [], "loaf": 1}, "f.toml: there is no key 'loaf'.", "Did you mean 'leaf'?"),
        ({"leaf": "x"}, "f.toml: leaf = 'x' is not allowed.", "It must be a list of tables."),
        (
            {"leaf": {"name": "a"}},
            "f.toml: leaf = {'name': 'a'} is not allowed.",
            "It must be a list of tables.",
        ),
        ({"leaf": [3]}, "f.toml: leaf 1 = 3 is not allowed.", "It must be a table."),
        (
            {"leaf": [], "head": {"name": 1}},
            "f.toml, [head]: name = 1 is not allowed.",
            "It must be text in quotes.",
        ),
        (
            {"leaf": [], "words": "abc"},
            "f.toml: words = 'abc' is not allowed.",
            "It must be a list, each entry text in quotes.",
        ),
        (
            {"leaf": [], "words": ["a", 2]},
            "f.toml: words 2 = 2 is not allowed.",
            "It must be text in quotes.",
        ),
        (
            {"leaf": [{"name": "a", "share": 1}]},
            "f.toml, leaf 1: share = 1 is not allowed.",
            "It must be a share, such as 0.5.",
        ),
        (
            {"leaf": [{"name": "a", "share": True}]},
            "f.toml, leaf 1: share = True is not allowed.",
            "It must be a share, such as 0.5.",
        ),
        (
            {"leaf": [{"name": "a", "count": 1.5}]},
            "f.toml, leaf 1: count = 1.5 is not allowed.",
            "It must be a whole number.",
        ),
        (
            {"leaf": [{"name": "a", "sure": "false"}]},
            "f.toml, leaf 1: sure = 'false' is not allowed.",
            "It must be true or false.",
        ),
        (
            {"leaf": [{"name": "a", "colour": "gren"}]},
            "f.toml, leaf 1: colour = 'gren' is not allowed.",
            "Did you mean 'green'?",
        ),
        (
            {"leaf": [{"name": "a", "colour": 1}]},
            "f.toml, leaf 1: colour = 1 is not allowed.",
            "It must be one of green, red.",
        ),
        (
            {"leaf": [{"name": [10**99]}]},
            f"f.toml, leaf 1: name = [1{'0' * 55}... is not allowed.",
            "It must be text in quotes.",
        ),
    ],
)
def test_each_slip_has_its_sentence_and_its_remedy(table: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed(table, Form, "f.toml")
    assert (caught.value.message, caught.value.hint) == (message, hint)


KEYS = st.sampled_from(["leaf", "head", "words", "name", "share", "count", "sure", "colour", "x y", "`$."])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.dates()
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(st.dictionaries(KEYS, ANYTHING, max_size=4))
def test_whatever_stands_there_is_taken_or_refused_with_a_sentence(table: dict[str, Any]) -> None:
    refusal, form = _tried(table)
    if refusal is not None:
        assert refusal.message.startswith("f.toml")
        assert refusal.hint
    else:
        assert typed(msgspec.to_builtins(form), Form, "f.toml") == form


def _tried(table: dict[str, Any]) -> tuple[UsageError | None, Form | None]:
    try:
        return None, typed(table, Form, "f.toml")
    except UsageError as error:
        return error, None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[[x]\n", "not valid TOML"),
        (b"x = '\xff'", "byte 6 is no UTF-8"),
        (b"x = " + b"[" * 100_000, "f.toml"),
    ],
)
def test_a_file_that_is_no_toml(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "f.toml").write_bytes(data)
    with pytest.raises(UsageError, match=says) as caught:
        read(tmp_path / "f.toml", "policy")
    assert caught.value.hint


def test_a_file_that_is_not_there_or_begins_with_a_mark(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The policy .*none.toml cannot be read: No such file"):
        read(tmp_path / "none.toml", "policy")
    (tmp_path / "f.toml").write_bytes(b"\xef\xbb\xbfx = 1")
    assert read(tmp_path / "f.toml", "policy") == {"x": 1}
