"""Words that Click refuses are refused in our sentences, with the nearest ones, not with lists of Click's."""

from __future__ import annotations

import click
import pytest

from qeval.cli.main import main
from qeval.cli.meant import OneOf, near_option

TOY = ("run", "--model", "toy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*TOY, "--scheme", "fp16"), "No such option '--scheme'. Did you mean '--schemes'?"),
        ((*TOY, "--max_gen_toks", "3"), "No such option '--max_gen_toks'. Did you mean '--max-gen-toks'?"),
        (("plan", "--scheme", "fp16"), "No such option '--scheme'. Did you mean '--schemes'?"),
        (("gate", "--jnuit", "x"), "No such option '--jnuit'. Did you mean '--junit'?"),
        (("gate", "--xyzzy"), "No such option '--xyzzy'."),
        (("report", "-x"), "No such option '-x'."),
        ((*TOY, "--schemes"), "--schemes needs a value: --schemes LIST"),
        (("--model", "toy"), "Put it after the command: qeval run --model"),
        (("--policy", "p", "gate"), "Put it after the command: qeval gate --policy p"),
        (("--runs-dir", "run", "gate"), "after the command: qeval gate --runs-dir run"),
        (("--debug", "--margin=2", "show", "x"), "after the command: qeval --debug show --margin=2 x"),
        (("--quiet", "gate", "--max-drop", "1"), "after the command: qeval gate --quiet --max-drop 1"),
        (("gate", "--metric", "acc"), "when it is scored: qeval run --model MODEL --tasks TASK:METRIC"),
        (("history", "-o"), "-o needs a value: -o FILE"),
        (("gate", "--confidence", "0.9"), "Add a limit: --max-drop 1.0 --confidence 0.9"),
        (("--debgu", "run"), "No such option '--debgu'. Did you mean '--debug'?"),
        ((*TOY, "--engine", "tre"), "'tre' is not one of the choices. Did you mean 'tree'?"),
        (("list", "rns"), "'rns' is not one of the choices. Did you mean 'runs'?"),
        (("list",), "Choose from: schemes, suites, runs."),
        (("cache", "--kind", "x"), "Known: checkpoints, compiled, inputs, models, requests."),
        ((*TOY, "--limit", "x"), "'x' is not a whole number."),
        ((*TOY, "--limit", "0"), "'0' is too small; it must be at least 1."),
        ((*TOY, "--temperature", "0"), "'0' is too small; it must be more than 0."),
        (("view", "--port", "99999"), "'99999' is too large; it must be at most 65535."),
        (("plan", "--power", "much"), "'much' is not a number."),
        ((*TOY, "--schemes", "zz"), "There is no scheme 'zz'."),
    ],
)
def test_a_word_that_is_not_known(qeval, words: tuple[str, ...], said: str) -> None:
    refused = qeval(*words, code=2).stderr
    assert said in refused
    assert "Did you mean one of" not in refused
    assert "\t" not in refused


def test_every_choice_of_every_command_is_of_our_kind() -> None:
    context = click.Context(main)
    commands = [main.get_command(context, name) for name in main.list_commands(context)]
    choices = [
        one.type for command in commands for one in command.params if isinstance(one.type, click.Choice)
    ]
    assert len(choices) >= 6
    assert all(isinstance(one, OneOf) for one in choices)


def test_a_variable_is_held_to_the_same_numbers(qeval, monkeypatch) -> None:
    monkeypatch.setenv("QEVAL_RUN_LIMIT", "0")
    assert "'0' is too small; it must be at least 1." in qeval(*TOY, code=2).stderr
    monkeypatch.setenv("QEVAL_RUN_LIMIT", "20")
    qeval(*TOY, "--schemes", "fp16", "--tasks", "qeval_facts")


def test_where_to_write_is_found_by_other_words_for_it() -> None:
    assert near_option("--to", ["--output", "--model"]) == "Did you mean '--output'?"
    assert near_option("--to", ["--model"]) == ""
