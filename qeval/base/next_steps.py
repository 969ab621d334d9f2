"""What a person types after a run: the commands that render it and judge it, ready to be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_POLICIES = {"leaderboard-v1": "--policy leaderboard-v1"}
"""Suites with a policy that comes with qeval, whose limits their items can decide."""
_RUNS_DIR = "--runs-dir"


def rule_words(suite: str) -> str:
    """The words that say what may be lost, for `qeval gate` of a run on a suite."""
    return _POLICIES.get(suite, "--max-drop 1.0")


def report(run: str, words: Sequence[str] = ()) -> str:
    """The command that renders a run, named by its id or its directory, with further words."""
    return f"qeval report {shlex.join([run, *words])} -o report.html"


def gate(run: str, suite: str, words: Sequence[str] = (), rules: Sequence[str] = ()) -> str:
    """The command that judges a run on a suite, by these rules where some are known."""
    return f"qeval gate {shlex.join([run, *words])} {shlex.join(rules) or rule_words(suite)}"


def runs_dir_words(command: Sequence[str]) -> tuple[str, ...]:
    """The words of a command that say where runs are kept; none where it leaves that open."""
    for place, word in enumerate(command):
        if word == _RUNS_DIR:
            return tuple(command[place : place + 2])
        if word.startswith(f"{_RUNS_DIR}="):
            return (word,)
    return ()
