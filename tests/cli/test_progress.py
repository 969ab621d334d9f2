"""What is told of all variants together: one count and one time left."""

from __future__ import annotations

import io

import pytest

from qeval.base.messages import Done, Event, Expected, Failed, Finished, Note, Progress, Stage, Todo
from qeval.base.records import Cell, Scheme, Task, Variant
from qeval.cli.progress import Lines, Terminal, display
from qeval.cli.remaining import Total, clock

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
    assert total.text() == "all 3  27 %  elapsed 0:10  about 27 s left"


@pytest.mark.parametrize("end", [Done(), Failed("It broke.")])
def test_what_is_over_needs_nobody_any_more(end: Event) -> None:
    total = Total(2)
    for event in (ASKED, Progress("a", 30), end):
        total.hear("fp16", event)
    assert total.answered == 100
    total.hear("bnb4", Stage("finished earlier"))
    assert (total.of, total.answered) == (100, 100)
    assert total.left() is None or total.left() == 0


def test_a_line_says_turn_task_share_and_both_times() -> None:
    time, out = Time(), io.StringIO()
    lines = Lines(out, 3, now=time)
    lines(FIRST, Stage("finished earlier"))
    lines(SECOND, ASKED)
    lines(SECOND, Expected({"loading": 40.0, "scoring": 360.0}, "by a test"))
    lines(SECOND, Progress("a", 0))
    time.now = 190.0
    lines(SECOND, Progress("b", 43))
    told = out.getvalue().splitlines()
    assert told[0] == "[fp16] finished earlier: nothing is scored again"
    assert told[-2] == "[2/3] bnb4  b  43 %  elapsed 3:10  about 4 min left"
    assert told[-1].startswith("all 3  ")


def test_a_variant_of_which_nothing_was_predicted_goes_by_its_pace() -> None:
    time = Time()
    total = Total(3, time)
    total.hear("fp16", ASKED)
    for time.now, done in ((20.0, 0), (30.0, 25)):
        total.hear("fp16", Progress("a", done))
    assert total.time_of("fp16") == (30.0, 30.0)


def test_what_was_done_before_is_said() -> None:
    out = io.StringIO()
    Lines(out, 2)(FIRST, Todo((("a", 20),), 7))
    assert out.getvalue() == "[fp16] 1 task to score, 7 finished earlier\n"


def cell(name: str) -> Finished:
    return Finished(Cell(key="k", task=Task(name, "acc"), n=5, n_available=5, score=0.5, seconds=2.0))


def log(loudness: int, seconds: int = 600) -> list[str]:
    """What a log gets of a variant that answers a question a second."""
    time, out = Time(), io.StringIO()
    lines = Lines(out, 2, loudness, now=time)
    events: list[Event] = [Stage("loading the weights"), Todo((("a", seconds),), 0), Note("A note.")]
    for event in events:
        lines(FIRST, event)
    for second in range(1, seconds + 1):
        time.now = float(second)
        lines(FIRST, Progress("a", second))
        if not second % 10:
            lines(FIRST, Stage(f"scoring: window {second}"))
            lines(FIRST, cell(f"a_{second}"))
    lines(FIRST, Failed("It broke."))
    lines(FIRST, Done())
    return out.getvalue().splitlines()


def test_a_log_gets_one_line_a_minute() -> None:
    told = log(0)
    often = [line for line in told if line.startswith("[1/2]") or "window" in line or "items" in line]
    assert 9 <= len(often) <= 12
    assert "[fp16] A note." in told
    assert "[fp16] FAILED. It broke." in told


def test_more_and_less_may_be_asked_for() -> None:
    assert log(-1) == ["[fp16] FAILED. It broke."]
    assert sum("items in 2 s" in line for line in log(1)) == 60


@pytest.mark.parametrize("slower", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("predicted", [True, False])
@pytest.mark.parametrize("variants", [1, 3])
def test_after_a_tenth_the_time_left_is_right_within_30_per_cent(
    slower: float, predicted: bool, variants: int
) -> None:
    """Tasks of which one takes long, at another pace than was predicted; where nothing was, of one pace."""
    time = Time()
    total = Total(variants, time)
    tasks = (("long", 100), ("short", 400)) if predicted else (("even", 500),)
    a_request = {"long": 0.5, "short": 0.05, "even": 0.14}
    expected = Expected(
        {"loading": 5.0, "scoring": sum(n * a_request[task] for task, n in tasks)},
        "by a test",
        {task: n * a_request[task] for task, n in tasks},
    )
    work = variants * expected.seconds["scoring"]
    whole = variants * 5 + slower * work
    checked, worked = 0, 0.0
    for name in [f"v{number}" for number in range(variants)]:
        total.hear(name, Todo(tasks, 0))
        if predicted:
            total.hear(name, expected)
        time.now += 5
        done = 0
        for task, n in tasks:
            for _ in range(n):
                total.hear(name, Progress(task, done))
                time.now += slower * a_request[task]
                worked += a_request[task]
                done += 1
                total.hear(name, Progress(task, done))
                if 0.1 * work <= worked <= 0.9 * work:
                    checked += 1
                    assert total.left() == pytest.approx(whole - time.now, rel=0.3)
        total.hear(name, Done())
    assert checked > 100
    assert total.left() == 0


def test_a_clock_is_read_as_one() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 190, 3723)] == ["0:00", "0:59", "3:10", "1:02:03"]


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
        assert "left" in terminal.text(row.id, "")
        terminal(FIRST, Expected({"scoring": 60.0}, "by a test"))
        assert "left" in terminal.text(terminal.rows["fp16"], "a")
        terminal(FIRST, Done())
        assert row.completed == 130
        assert Terminal(bars, 1).last is None


def test_a_terminal_draws_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", screen := Screen())
    with display() as listen:
        listen(FIRST, ASKED)
        listen(FIRST, Expected({"scoring": 6000.0}, "by a test"))
        listen(FIRST, Progress("a", 43))
        listen(FIRST, Note("A note."))
    told = screen.getvalue()
    assert "about 1 h 40 min to go" in told
    assert "[1/1] fp16  a  43 %  elapsed 0:00  about " in told
    assert "A note." in told


def test_a_terminal_says_what_is_reused_and_how_each_ended() -> None:
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(file=io.StringIO())) as bars:
        terminal = Terminal(bars, 3)
        terminal(FIRST, Stage("finished earlier"))
        terminal(SECOND, ASKED)
        terminal(SECOND, Progress("a", 30))
        rows = terminal.rows
        assert terminal.text(rows["fp16"], "") == "[1/3] fp16  finished earlier"
        assert terminal.text(rows["bnb4"], "a").startswith("[2/3] bnb4  a  30 %  elapsed 0:00")
        terminal(SECOND, Done())
        assert terminal.text(rows["bnb4"], "") == "[2/3] bnb4  done in 0:00"
        assert terminal.text(terminal.last, "").startswith("all 3  50 %")  # of what there was to do
