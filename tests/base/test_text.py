"""Untrusted text: every character of it is seen, and none of them steers a reader, a terminal or a file."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.base.errors import QevalError
from qeval.base.names import file_name, inside, is_file_name
from qeval.base.text import one_line, visible

anything = st.text(st.characters() | st.sampled_from("\x00\x1b\r\n\t\x85\u2028\u202e\u2066\ud800\ufffe"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\x1b[2J", "a⟨U+001B⟩[2J"),
        ("a\u202egnp.exe", "a⟨U+202E⟩gnp.exe"),
        ("a\n# b\r\n\tc\u2028d", "a # b c d"),
        ("\ud800", "⟨U+D800⟩"),
        ("naïve 模型 🏴‍☠️", "naïve 模型 🏴‍☠️"),
    ],
)
def test_untrusted_text_on_one_line(text, line):
    assert one_line(text) == line


@given(anything)
def test_what_is_visible_can_be_written_anywhere_and_steers_nothing(text):
    shown = visible(text)
    assert {unicodedata.category(character) for character in shown if character not in "\n\t"}.isdisjoint(
        {"Cc", "Cs"}
    )
    assert all(not unicodedata.bidirectional(character).endswith(("E", "O", "I")) for character in shown)
    ET.fromstring(f"<a>{escape(shown)}</a>".encode())
    assert visible(shown) == shown
    assert len(one_line(text).splitlines()) <= 1


ODD = [
    "", ".", "..", "/", "../../x", "/etc/passwd", "a/b", "a\\b", "a\nb", "a\0b", "\x1b[31m", "\x7f",
    "x" * 300, "é" * 200, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    assert not is_file_name(name)
    with pytest.raises(QevalError, match="is not a possible file name"):
        inside(tmp_path, name)


@given(text=st.text(max_size=300))
def test_any_name_from_outside_becomes_one_of_a_file(text):
    name = file_name(text)
    assert is_file_name(f"{name}-01234567")
    assert not name.startswith(("-", "."))
    assert file_name(name) == name
    assert (inside(Path("/runs"), name)).parent == Path("/runs")


def test_plain_names_stay_and_others_are_told_apart():
    for name in ("mine", "Llama-2_7b.v1", "my scores"):
        assert file_name(name) == name
    names = ["../../x", "/x", "..\\x", "x/", "-rf", "-rf/", "x\n", "x" * 300, "x" * 301]
    assert len({file_name(name) for name in names}) == len(names)
