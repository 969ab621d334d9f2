"""Whatever a text holds, GitHub's own parser shows it as it is, and links and mentions nothing in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given
from hypothesis import strategies as st

from qeval.base.markdown import code, escape
from qeval.base.text import one_line

PIECES = (
    *"@:/.#_*~`|\\[]()<>&!$=+-^{}'\" \t\n\r1a",
    *("://", "www.", "http://a.bc", "a@b.cd", "@team", "@a/b", "gptq@o/r:main", "user/repo#12", "#7", "GH-3"),
    *("mailto:a@b.cd", "xmpp:a@b.cd", "ftp://x.yz", ":tada:", "&amp;", "&#64;", "&copy;", "<b>", "<!-- -->"),
    *(
        "---",
        "===",
        "1. ",
        "2) ",
        "- ",
        "+ ",
        "# ",
        "> ",
        "|--|",
        "```",
        "~~",
        "**",
        "__",
        "![a](b)",
        "[a]: b",
    ),
    *("<details>", "</summary>", "https://x.yz/?a=b&c", "[^1]", "\x1b", "\u202e", "é", "模", "\\@", "\\|"),
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join)
LINKED = re.compile(
    r"(?<![\w`])@[a-z\d]|(?<!\w)#\d|\bGH-\d|:(?-i:[a-z\d_]*[a-z][a-z\d_]*|\+1|100):|://|\bwww\.",
    re.IGNORECASE,
)


class Page(HTMLParser):
    """The elements of a page, and its runs of text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.runs = [""]
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, _):
        self.tags.append(tag)
        self.runs.append("")

    def handle_comment(self, _):
        self.runs.append("")

    def handle_data(self, data):
        self.runs[-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.runs).split())


def page(markdown: str) -> Page:
    return Page(cmarkgfm.github_flavored_markdown_to_html(markdown, Options.CMARK_OPT_UNSAFE))


def expected(text: str) -> str:
    return " ".join(one_line(text).split())


@given(texts)
@pytest.mark.parametrize(
    ("around", "tags"),
    [
        ("{}", ["p"]),
        ("- {}", ["ul", "li"]),
        ("> {}", ["blockquote", "p"]),
        ("x **a: {} b.**", ["p", "strong"]),
        ("| a | b |\n|---|---|\n| {} | c |", None),
    ],
)
def test_a_text_comes_out_as_it_went_in(around, tags, text):
    made = page(around.format(escape(text)))
    assert expected(text) in made.text
    assert "a" not in made.tags
    assert not [run for run in made.runs if LINKED.search(run)]
    if text and tags and expected(text):
        assert made.tags == tags
    if tags is None:
        assert made.tags.count("td") == 2


@given(texts)
def test_so_does_code(text):
    made = page(f"x {code(text)} y")
    if expected(text):
        assert made.text == f"x {expected(text)} y"
        assert made.tags == ["p", "code"]


def test_what_is_plain_stays_readable():
    assert escape("gptq[bits=3] of org/model_a, 4 bits: 1.5 (n = 20)") == (
        "gptq\\[bits=3\\] of org/model_a, 4 bits: 1.5 (n = 20)"
    )
    assert escape("gptq@o/r") == "gptq@<!-- -->o/r"
