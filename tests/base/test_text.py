"""Untrusted text: every character of it is seen, and none of them steers a reader, a terminal or a file."""

from __future__ import annotations

import unicodedata
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
