"""Tables and sentences fit a terminal, and no word of them is broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.base import layout
from qeval.base.layout import Column

COLUMNS = (
    Column("task", leads=True),
    Column("n", "right", goes=1),
    Column("variant", leads=True),
    Column("score", "right"),
    Column("changed", "right", goes=2),
)
ROWS = [["arc", "60", "fp16", "63.33", ""], ["", "", "gptq[bits=3,group_size=64]", "58.33", "17"]]


def test_columns_go_first_then_headings_then_blocks():
    assert layout.table(COLUMNS, ROWS).splitlines()[0].split() == ["task", "n", "variant", "score", "changed"]
    assert layout.table(COLUMNS, ROWS, 54).splitlines()[0].split() == ["task", "n", "variant", "score"]
    assert layout.table(COLUMNS, ROWS, 46).splitlines()[0].split() == ["task", "variant", "score"]
    headings = layout.table(COLUMNS, ROWS, 38).splitlines()
    assert headings[0].split() == ["variant", "score"]
    assert headings[2] == "arc:"
    assert layout.table(COLUMNS, ROWS, 30).splitlines() == [
        "arc",
        "  fp16",
        "    n 60   score 63.33",
        "  gptq[bits=3,group_size=64]",
        "    score 58.33   changed 17",
    ]


def test_a_heading_stands_once_above_the_rows_that_it_is_of():
    rows = [["arc", "60", "fp16", "63.33", ""], ["arc", *ROWS[1][1:]]]
    assert layout.table(COLUMNS, rows, 38) == layout.table(COLUMNS, ROWS, 38)


def test_a_text_takes_several_lines_before_columns_go():
    columns = (Column("name", leads=True), Column("what", wrapped=True), Column("here", goes=1))
    rows = [["gptq", "rounds weights column by column so that what is left makes up for it", "ready"]]
    assert "here" in layout.table(columns, rows, 40)
    assert layout.widest(layout.table(columns, rows, 40)) <= 40


def test_what_stands_beside_is_split_into_several_tables():
    names = [Column(f"variant-{number}") for number in range(12)]
    rows = [["Weights", *("1.86 GiB" for _ in names)], ["Load (s)", *("1.50" for _ in names)]]
    text = layout.beside(Column(""), names, rows, 60)
    assert layout.widest(text) <= 60
    assert text.count("Weights") > 1
    assert all(column.title in text.split() for column in names)
    assert layout.beside(Column(""), names, rows).count("Weights") == 1


def test_a_command_and_what_is_longer_than_a_line_stay_whole():
    command = "Next: qeval report /a/rather/long/directory/of/runs/toy-20260102-030405 -o report.html"
    assert layout.fitted(command, 40) == command
    word = "x" * 90
    assert layout.fitted(f"{word} and more", 40).splitlines() == [word, "  and more"]


WHOLE = "qeval run --model org/name --schemes fp16,bnb4 --suite demo --finish"


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        (f"The run is scored, and that is not all of it. Finish it with: {WHOLE}", [WHOLE]),
        (f"Nobody is there. Go on with: qeval worker 'a b', then: {WHOLE}", ["qeval worker 'a b'", WHOLE]),
        (f"It is in {'x ' * 20}`qeval run ... --prepare` which you know.", ["`qeval run ... --prepare`"]),
        (f"Not {'known ' * 9}(qeval run --repeat-baseline measures it).", ["qeval run --repeat-baseline"]),
        (f"Say {'it ' * 15}with qeval gate --max-drop 1.0 or so.", ["qeval gate --max-drop 1.0"]),
        ("Install what is not there yet, with: pip install 'qeval[gptq]'", ["pip install 'qeval[gptq]'"]),
        ("For want of any network: HF_HUB_OFFLINE=1 qeval run -m x", ["HF_HUB_OFFLINE=1 qeval run -m x"]),
    ],
)
def test_no_line_is_broken_inside_a_command(text: str, commands: list[str]):
    for width in (40, 46, 60, 80):
        lines = layout.fitted(text, width).splitlines()
        for command in commands:
            assert any(command in line for line in lines), (width, lines)
        prose = [line for line in lines if not any(command in line for command in commands)]
        assert all(layout.columns_of(line) <= width for line in prose)


def test_two_commands_of_a_sentence_take_a_line_each_and_nothing_else():
    lines = layout.fitted(f"Go on with: qeval worker runs/x, then: {WHOLE}", 60).splitlines()
    assert lines == ["Go on with: qeval worker runs/x", "  then:", f"  {WHOLE}"]


def test_a_command_in_a_cell_is_not_broken_either():
    columns = (Column("name", leads=True), Column("what", wrapped=True))
    rows = [["spqr", "It is not here yet. Install it with: pip install 'qeval[spqr]'"]]
    for width in range(30, 80):
        assert "pip install 'qeval[spqr]'" in layout.table(columns, rows, width)


def test_values_go_on_below_themselves():
    text = layout.facts([("Model", "a b c d e f g h i j k l m n o p q r s t u v"), ("Seed", "1")], 40)
    first, second, third = text.splitlines()
    assert first.startswith("Model  a b")
    assert second.startswith(" " * 7)
    assert third == "Seed   1"


@given(st.text(), st.integers(20, 120))
def test_no_word_is_broken_or_lost(text: str, width: int):
    told = layout.fitted(text, width)
    assert told.split() == text.split()
    longest = max((layout.columns_of(word) for word in text.split()), default=0)
    if longest + 4 < width and not text.lstrip().startswith(("qeval", "pip", "Try", "Next", "$")):
        heads = max((len(line) - len(line.lstrip()) for line in text.split("\n")), default=0)
        assert all(
            layout.columns_of(line) <= max(width, heads + longest + 2)
            for line in told.split("\n")
            if line.strip()
        )


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("names", [1, 3, 12])
def test_a_table_fits_whatever_the_names(width: int, names: int):
    rows = [[f"task_{n}", "14042", f"gptq[bits={n},group_size=64]"[:34], "58.33", "17"] for n in range(names)]
    assert layout.widest(layout.table(COLUMNS, rows, width)) <= width


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_word_that_does_not_fit_below_itself_begins_further_left(columns: int):
    path = "/" + "x" * (columns - 6)
    told = layout.wrapped(f"  ok  demo model   unpacked in {path}", columns, hang=20)
    assert layout.widest(told) <= columns
    assert told.split("\n")[-1] == " " * (columns - len(path)) + path
