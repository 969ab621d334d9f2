"""Colours and widths: what a terminal gets, what a pipe gets, and what the environment says of both."""

from __future__ import annotations

import io

import click
import pytest

from qeval.cli import speech


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_sign_at_the_end_of_a_line_of_history_is_coloured() -> None:
    told = speech.painted("bnb4 on qeval_facts   -3.00 ?\nbnb4 on prose   x1.021 ≈\nWhat is 3 ? not\n")
    assert told.count("\x1b[33m") == 2
    assert click.unstyle(told).startswith("bnb4 on qeval_facts   -3.00 ?\n")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("stream", "environment", "wanted"),
    [
        (Screen, {}, True),
        (io.StringIO, {}, False),
        (Screen, {"NO_COLOR": "1"}, False),
        (Screen, {"NO_COLOR": ""}, True),
        (Screen, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (Screen, {"TERM": "dumb"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"CLICOLOR_FORCE": "1"}, True),
        (io.StringIO, {"CLICOLOR_FORCE": "0"}, False),
    ],
)
def test_who_gets_colours(monkeypatch, stream, environment, wanted) -> None:
    monkeypatch.setattr("sys.stdout", out := stream())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    speech.say("FAIL: bnb4\n▼ bnb4: A real loss. It lost.", paint=True)
    assert ("\x1b[" in out.getvalue()) == wanted
    assert click.unstyle(out.getvalue()) == "FAIL: bnb4\n▼ bnb4: A real loss. It lost.\n"


def test_only_verdicts_are_coloured_and_nobody_elses_colours_pass(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    speech.say("PASSPORT \x1b[31mred\x1b[0m PASS", paint=True)
    assert out.getvalue().count("\x1b[") == 3  # bold, green and reset, of one word
    assert "PASSPORT ⟨U+001B⟩[31mred" in out.getvalue()
    speech.say("PASS")
    assert out.getvalue().endswith("\nPASS\n")


@pytest.mark.parametrize(
    ("line", "painted"),
    [
        ("? gptq[bits=3]: Undecided. average: 0.00 points.", "? gptq[bits=3]: Undecided."),
        ("= bnb4: Equivalent within 1 point. average: 0.1 points.", "= bnb4: Equivalent within 1 point."),
        ("▼ bnb4: Worse than x1.10. wiki: x1.2.", "▼ bnb4: Worse than x1.10."),
        ("! awq: Did not run. No kernel.", "! awq: Did not run."),
        ("! This is the toy model: every number here is invented.", ""),
        ("A sentence: no verdict.", ""),
    ],
)
def test_what_of_a_line_is_in_colour(line: str, painted: str) -> None:
    told = speech.painted(line)
    assert click.unstyle(told) == line
    assert told.partition("\x1b[0m")[0].rpartition("m")[2] == painted or not painted
    assert ("\x1b[" in told) == bool(painted)


def test_a_terminal_and_columns_say_how_wide_it_is_and_a_pipe_does_not(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert speech.width() is None
    monkeypatch.setenv("COLUMNS", "72")
    assert speech.width() == 72
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("sys.stdout", Screen())
    assert speech.width() == 80


def test_sentences_go_on_between_words(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout", out := Screen())
    sentence = "No word of this sentence may be broken, however long the sentence itself is, or becomes."
    speech.say(sentence)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert " ".join(out.getvalue().split()) == sentence


def test_no_line_that_is_broken_becomes_a_command_to_a_ci_runner(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    speech.say("A note that is just as long as one line ::error::no")
    assert not any(line.lstrip().startswith("::") for line in out.getvalue().splitlines())


def test_verdicts_at_the_end_of_a_row_are_coloured(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    speech.say(
        "2026-01-01  -5.00  ▼ worse\n2026-01-02  +0.10  ✓ pass\n??▼ x  ? no, this is not one", paint=True
    )
    assert out.getvalue().count("\x1b[0m") == 2
    assert click.style("▼ worse", fg="red", bold=True) in out.getvalue()
