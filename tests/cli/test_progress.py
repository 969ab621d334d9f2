"""What is told of all variants together: one count and one time left."""

from __future__ import annotations

import io

import pytest

from qeval.base.messages import Done, Event, Expected, Failed, Progress, Stage, Todo
from qeval.base.records import Scheme, Variant
from qeval.cli.progress import Lines, Terminal, Total, display

FIRST, SECOND = (Variant(name, "m", Scheme("fp16")) for name in ("fp16", "bnb4"))
ASKED = Todo((("a", 60), ("b", 40)), 0)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_not_known_yet_is_taken_to_be_as_long_as_what_is() -> None:
    time = Time()
    total = Total(3, time)
    assert (total.of, total.answered, total.left()) == (0, 0, None)
    total.hear("fp16", ASKED)
    assert (total.of, total.answered, total.left()) == (300, 0, None)
    total.hear("fp16", Progress("a", 0))
    time.now = 10.0
    total.hear("fp16", Progress("a", 50))
    assert (total.of, total.answered, total.left()) == (300, 50, 50.0)
    total.hear("bnb4", Todo((("a", 20),), 1))
    assert total.of == 220
    total.hear("bnb4", Progress("a", 10))
    assert total.answered == 60
    assert total.text() == " (all variants: 27%, 27 s left)"


@pytest.mark.parametrize("end", [Done(), Failed("It broke.")])
def test_what_is_over_needs_nobody_any_more(end: Event) -> None:
    total = Total(2)
    for event in (ASKED, Progress("a", 30), end):
        total.hear("fp16", event)
    assert total.answered == 100
    total.hear("bnb4", Stage("finished earlier"))
    assert (total.of, total.answered) == (100, 100)
    assert total.left() is None or total.left() == 0


def test_one_variant_is_no_total() -> None:
    total = Total(1)
    total.hear("fp16", ASKED)
    assert total.text() == ""


def test_lines_tell_it_beside_a_variants_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qeval.cli.progress._EVERY_SECONDS", 0.0)
    out = io.StringIO()
    lines = Lines(out, variants=2)
    lines(FIRST, ASKED)
    lines(FIRST, Progress("a", 25))
    assert "[fp16] a: 25 of 100 requests (all variants: 12%" in out.getvalue()


def test_bars_have_one_for_all_variants() -> None:
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(file=io.StringIO())) as bars:
        terminal = Terminal(bars, 2)
        for variant in (FIRST, SECOND):
            terminal(variant, ASKED)
            terminal(variant, Progress("a", 30))
        row = next(task for task in bars.tasks if task.description == "all")
        assert (row.total, row.completed) == (200, 60)
        assert terminal.left(row.id) is not None
        assert terminal.left(terminal.rows["fp16"]) is None
        terminal(FIRST, Expected({"scoring": 60.0}, "by a test"))
        assert terminal.left(terminal.rows["fp16"]) is not None
        terminal(FIRST, Done())
        assert row.completed == 130
        assert Terminal(bars, 1).last is None


def test_a_terminal_draws_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr("sys.stderr", screen := Screen())
    with display() as listen:
        listen(FIRST, ASKED)
        listen(FIRST, Expected({"scoring": 6000.0}, "by a test"))
        listen(FIRST, Progress("a", 0))
    assert "about 1 h 40 min to go" in screen.getvalue()
    assert "1 h 40 min left" in screen.getvalue()
