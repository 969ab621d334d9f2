"""What a person types next: the commands that go on with a run, show it and judge it, ready to be pasted."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from qeval.base.records import Result, Run, Task

_POLICIES = {"leaderboard-v1": "--policy leaderboard-v1"}
"""Suites with a policy that comes with qeval, whose limits their items can decide."""
_RUNS_DIR = "--runs-dir"
_BY_OTHERS = {"--prepare": 0, "--finish": 0}
_SUBMITTING = {"--executor": 1, "--workers": 1, "--sbatch-args": 1, "--wait": 0, "--dry-run": 0}
"""Words of `qeval run` that whoever finishes a run has no use for, and how many words follow each."""
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


TABLE = "scores"
"""How the source of a run begins that was a table of scores, of which a person can name the model."""
UNPROVED = "--allow-unproved-model"
"""What a gate wants for imported results that nothing proves to be of one model."""
_OF_TWO = ("--allow-different-models", UNPROVED)


def names_model(run: Run) -> bool:
    """Whether whoever imports the results of a run may say which model they are of: a table of scores takes
    it from a column or an option, other results only from what was measured."""
    return all(part.startswith(TABLE) for part in run.source.split(", "))


def unprovable(run: Run) -> bool:
    """Whether the results of a run may be beside others of one model that nothing proves to be so: an import,
    but for a table of scores that names its model."""
    named = all(result.variant.model for result in run.results)
    return run.source != "qeval" and not (names_model(run) and named)


def gate_of_two(place: str, run: Run) -> str:
    """The command that judges a run of one variant beside another run, RUN, with all that a gate wants where
    nothing proves the two to be of one model."""
    allowing = _OF_TWO if unprovable(run) else ()
    return gate(place, run.suite.name, ("RUN", "--baseline", run.baseline, *allowing))


def listed(commands: Sequence[str]) -> str:
    """Commands to go on with, each on a line of its own, which no terminal breaks."""
    return "Next: " + "\n      ".join(commands)


# --- the words of a command -------------------------------------------------------------------------


def runs_dir_words(command: Sequence[str]) -> tuple[str, ...]:
    """The words of a command that say where runs are kept; none where it leaves that open."""
    for place, word in enumerate(command):
        if word == _RUNS_DIR:
            return tuple(command[place : place + 2])
        if word.startswith(f"{_RUNS_DIR}="):
            return (word,)
    return ()


def without(command: Sequence[str], options: Mapping[str, int]) -> Iterator[str]:
    """The words of a command but for these options and the values that they have."""
    left = iter(command)
    for word in left:
        name, equals, _ = word.partition("=")
        if name not in options:
            yield word
        elif not equals:
            for _ in range(options[name]):
                next(left, None)


def by_slurm(command: Sequence[str]) -> bool:
    """Whether a command submits its run to Slurm, where a job of its own finishes it."""
    return "--executor slurm" in " ".join(command).replace("=", " ")


def scoring(command: Sequence[str]) -> tuple[str, ...]:
    """The words that score what a command left to others, or waited for."""
    waits = {} if by_slurm(command) else {"--wait": 0}
    return tuple(without(command, {**_BY_OTHERS, **waits}))


def finishing(command: Sequence[str]) -> tuple[str, ...]:
    """The words that finish what a command left to others."""
    return (*without(command, {**_BY_OTHERS, **_SUBMITTING}), "--finish")


# --- a run that is not complete ---------------------------------------------------------------------


State = Literal["", "at work", "workers", "awaited", "prepared", "scored", "interrupted"]


class Standing(NamedTuple):
    """How an unfinished run stands, "" where that is not known: a command is at work on it, or workers are;
    a command waits for workers, and there are none; it is prepared for them; all is scored, and not finished;
    or it was interrupted.

    `place` is its directory as it is to be typed, "" where it is not to be told; `runs_dir` where it is kept,
    "" where its own command says that; `made_in` the directory that its own command is to be typed in, ""
    where that is this one or not known. `kept` are the tasks that unfinished variants have nevertheless
    finished, by variant; `failed` the variants of which workers found that they cannot be scored.
    """

    state: State = ""
    place: str = ""
    runs_dir: str = ""
    kept: Mapping[str, tuple[Task, ...]] = MappingProxyType({})
    failed: tuple[str, ...] = ()
    made_in: str = ""


UNKNOWN = Standing()


def go_on(run: Run, standing: Standing = UNKNOWN) -> str:
    """The command that goes on with an unfinished run: its own, without what leaves scoring to others."""
    return _typed(run, scoring(run.command), standing)


def finish(run: Run, standing: Standing = UNKNOWN) -> str:
    """The command that finishes a run which others score."""
    return _typed(run, finishing(run.command), standing)


def prepare(run: Run, standing: Standing = UNKNOWN) -> str:
    """The command that plans what is left of a run, for workers."""
    words = without(run.command, {**_BY_OTHERS, **_SUBMITTING, "--devices": 1})
    return _typed(run, (*words, "--prepare"), standing)


def worker(standing: Standing) -> str:
    """The command of a worker of a prepared run."""
    return f"qeval worker {shlex.quote(standing.place) if standing.place else 'RUN'}"


def _typed(run: Run, words: Sequence[str], standing: Standing) -> str:
    """The words as they are to be typed; of a run whose command is not known, or that qeval did not make, in
    words."""
    if not run.command or run.source != "qeval":
        asked = [word for word in _BY_OTHERS if word in words]
        return f"the same qeval run{' with ' if asked else ''}{''.join(asked)}"
    if standing.runs_dir:
        words = (*without(words, {_RUNS_DIR: 1}), _RUNS_DIR, standing.runs_dir)
    there = f"cd {shlex.quote(standing.made_in)} && " if standing.made_in else ""
    return f"{there}{shlex.join(words)}"


def unfinished(run: Run, standing: Standing = UNKNOWN) -> str:
    """How a run of qeval's own stands that has not come to its end, what is there and what is missing, with
    the command that goes on with it; "" where each variant has."""
    left = [result for result in run.results if result.status == "partial"]
    if not left or run.source != "qeval":
        return ""
    if standing.state == "scored":
        failed = f", and {', '.join(standing.failed)} failed" if standing.failed else ""
        return f"{_TOLD['scored']}{failed}. {_next(run, standing)}"
    more = f" and {len(left) - _FEW} more" if len(left) > _FEW else ""
    names = ", ".join(f"{one.variant.name}{_there(run, one, standing)}" for one in left[:_FEW])
    return f"{_TOLD[standing.state]} Unfinished: {names}{more}. {_next(run, standing)}"


def _next(run: Run, standing: Standing) -> str:
    """What to do about an unfinished run, its commands last."""
    match standing.state:
        case "at work":
            return "Wait for it."
        case "workers":
            return f"Wait for them with: {finish(run, standing)}"
        case "awaited":
            return f"Start a worker with: {worker(standing)}"
        case "prepared":
            return f"Go on with: {worker(standing)}, then: {finish(run, standing)}"
        case "scored":
            return f"Finish it with: {finish(run, standing)}"
    return f"Go on with: {go_on(run, standing)}"


def steps(run: Run, standing: Standing) -> list[str]:
    """The commands that go on with an unfinished run, in turn; none where that is not known."""
    match standing.state if run.command else "":
        case "awaited":
            return [worker(standing)]
        case "prepared":
            return [worker(standing), finish(run, standing)]
        case "workers" | "scored":
            return [finish(run, standing)]
        case "interrupted":
            return [go_on(run, standing)]
    return []


_TOLD = {
    "": "The run was interrupted, or is still at work.",
    "at work": "The run is still at work.",
    "workers": "Workers are at work on the run.",
    "awaited": "A command waits for the workers of the run, and nobody is at work on it.",
    "prepared": "The run is prepared, and nobody is at work on it.",
    "scored": "The run is scored, not finished",
    "interrupted": "The run was interrupted.",
}


def _there(run: Run, result: Result, standing: Standing) -> str:
    """What an unfinished variant has and what it lacks, in parentheses; "" where it has nothing."""
    kept = standing.kept.get(result.variant.name, ())
    if not kept:
        return ""
    names, parts = {task.name for task in kept}, Counter(task.group for task in kept)
    scored, missing = [], []
    for task in run.suite.tasks:
        if task.name in names or (parts[task.name] and parts[task.name] == _members(run, task.name)):
            scored.append(task.name)
        elif parts[task.name]:
            scored.append(f"{parts[task.name]} of {task.name}'s tasks")
            missing.append(f"the rest of {task.name}")
        else:
            missing.append(task.name)
    if not missing:
        return " (every task is scored)"
    return f" (scored: {_some(scored)}; missing: {_some(missing)})"


def _members(run: Run, group: str) -> int:
    """How many tasks a group has, as far as a finished variant tells."""
    done = (result for result in run.results if result.status == "done")
    return max((sum(cell.task.group == group for cell in one.cells) for one in done), default=0)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


def not_yet(variant: str, where: str, standing: Standing) -> str:
    """Why an unfinished run has nothing of a variant (`where`: " on such a task", or ""), the begin of a
    sentence in lower case."""
    fully = "" if where or not standing.kept.get(variant) else "fully "
    if standing.state == "scored":
        return "the run is scored, not finished."
    if standing.state in {"at work", "workers"}:
        return f"the run is still at work, and {variant} is not {fully}scored{where} yet."
    if standing.state in {"awaited", "prepared"}:
        return f"the run is prepared, and {variant} is not {fully}scored{where} yet."
    return f"the run was interrupted before {variant} was {fully}scored{where}."
