"""What a person types after a run: the commands that render it and judge it, ready to be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal, NamedTuple

from qeval.base.records import Run

_POLICIES = {"leaderboard-v1": "--policy leaderboard-v1"}
"""Suites with a policy that comes with qeval, whose limits their items can decide."""
_RUNS_DIR = "--runs-dir"
_BY_OTHERS = ("--prepare", "--finish")
_FEW = 5


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


def go_on(run: Run) -> str:
    """The command that goes on with an unfinished run: its own, without what leaves scoring to others; "" for
    a run of which it is not known, or that qeval did not make."""
    mine = run.command if run.source == "qeval" else ()
    return shlex.join(word for word in mine if word not in _BY_OTHERS)


class Standing(NamedTuple):
    """How an unfinished run stands, "" where that is not known, and its directory as it is to be typed, ""
    where it is not to be told."""

    state: Literal["", "at work", "prepared", "interrupted"] = ""
    place: str = ""


UNKNOWN = Standing()


def unfinished(run: Run, standing: Standing = UNKNOWN) -> str:
    """How a run of qeval's own stands that has not come to its end, with the command that goes on with it; ""
    where each variant has."""
    names = [result.variant.name for result in run.results if result.status == "partial"]
    if not names or run.source != "qeval":
        return ""
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    told = f"{_TOLD[standing.state]} Unfinished: {', '.join(names[:_FEW])}{more}."
    if standing.state == "at work":
        return f"{told} Wait for it."
    command = go_on(run)
    if standing.state == "prepared":
        worker = f"qeval worker {shlex.quote(standing.place) if standing.place else 'RUN'}"
        return f"{told} Go on with: {worker}, then: {command or 'the same qeval run'} --finish"
    return f"{told} Go on with: {command or 'the same qeval run'}"


_TOLD = {
    "": "The run was interrupted, or is still at work.",
    "at work": "The run is still at work.",
    "prepared": "The run is prepared, and nobody is at work on it.",
    "interrupted": "The run was interrupted.",
}


def not_yet(variant: str, where: str, standing: Standing) -> str:
    """Why an unfinished run has nothing of a variant (`where`: " on such a task", or ""), the begin of a
    sentence in lower case."""
    if standing.state == "at work":
        return f"the run is still at work, and {variant} is not scored{where} yet."
    if standing.state == "prepared":
        return f"the run is prepared, and {variant} is not scored{where} yet."
    return f"the run was interrupted before {variant} was scored{where}."
