"""Which run is meant where none is named: the one that began or ended last, by a mark of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qeval.base import reading
from qeval.base.errors import IncomparableError, QevalError
from qeval.base.files import disk_errors, write_atomic
from qeval.base.names import is_file_name
from qeval.base.next_steps import Standing, unfinished
from qeval.base.private import private
from qeval.base.text import one_line
from qeval.store.standing import standing

if TYPE_CHECKING:
    from qeval.base.records import Run
    from qeval.store.runs import RunDir, Store

NEWEST_FILE = ".newest"
_MOST = 1 << 12
"""The most bytes of the file that names the newest run."""
_LONGEST = 400
"""The most characters that are kept of a model's name, and of why its run did not begin."""
INTERRUPTED = "it was interrupted"
_STANDS = {
    "": "it was interrupted, or is still at work",
    "at work": "it is still at work",
    "workers": "workers are at work on it",
    "awaited": "a command waits for its workers, and nobody is at work on it",
    "prepared": "it is prepared, and nobody is at work on it",
    "scored": "it is scored, not finished",
    "interrupted": INTERRUPTED,
}
"""Why a run has no results yet, by how it stands."""
_MAKE_ONE = "Make one with: qeval run --model demo"


class Mark(NamedTuple):
    """The run that began or ended last: its id, "" for one that never got so far as to have one, with the
    model that it was to be of and why there is none, as far as that is known. `unread` is why nothing of this
    can be told, "" where it can. `command` is the import that was refused, "" where it was to be scored."""

    run: str
    model: str = ""
    why: str = ""
    command: str = ""
    unread: str = ""

    @property
    def sentence(self) -> str:
        """That a run has no id, for a person."""
        of = f", of {self.model}," if self.model else ""
        why = f" ({self.why.rstrip('.')})" if self.why else ""
        if self.command:
            return f"The last command was refused: {self.command}{why}"
        return f"The newest run{of} did not get far enough to have results{why}"

    @property
    def redacted(self) -> Mark:
        """The same without a name in it."""
        return Mark("", command="qeval import" if self.command else "")

    @property
    def remedy(self) -> str:
        """What makes that run after all: the same command, corrected where it was refused."""
        refused = self.why and self.why != INTERRUPTED
        return "Correct that command and run it again" if refused else "Run it again"


class Shown(NamedTuple):
    """A run that is shown where none was named, why a newer one is passed over, "" where none is, what makes
    that one after all, "" where it is there, and how it stands where it is not complete."""

    place: RunDir
    passed_over: str = ""
    remedy: str = ""
    unfinished: str = ""


def mark(root: Path, run: str, model: str = "", why: str = "", command: str = "") -> None:
    """Remember that a run began or ended now; see `Mark`."""
    said = (one_line(private(text))[:_LONGEST] for text in (model, why, command))
    with disk_errors(root):
        write_atomic(root / NEWEST_FILE, "\n".join([run, *said]).rstrip().encode() + b"\n")


def marked(root: Path) -> Mark | None:
    """What is remembered; None where nothing is."""
    try:
        lines = reading.text(root / NEWEST_FILE, _MOST).split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Mark("", unread=reading.told(error))
    except ValueError:
        return Mark("", unread="it is no text")
    found = Mark(*(line.strip() for line in lines[:4]))
    return found if not found.run or is_file_name(found.run) else Mark("", unread="it names no run")


@contextlib.contextmanager
def beginning(root: Path, model: str) -> Iterator[None]:
    """Remember that a run of a model is beginning, and why it did not begin, where an error or Ctrl-C comes
    before it has an id."""
    mark(root, "", model)
    try:
        yield
    except (QevalError, KeyboardInterrupt) as error:
        found = marked(root)
        if found and not found.run:
            not_begun(root, model, error.message if isinstance(error, QevalError) else INTERRUPTED)
        raise


def not_begun(root: Path, model: str, why: str, command: str = "") -> None:
    """Remember why no run of a model was made, or of an import by this command, where runs are kept
    already."""
    if root.is_dir():
        with contextlib.suppress(QevalError):  # the first error is the one to be told
            mark(root, "", model, why, command)


def strictly(store: Store, *, told: bool = True) -> RunDir:
    """The newest run and no other, for whoever judges. `told`: whether names of models may be.

    Raises IncomparableError where the newest did not begin or is gone, and where nothing tells which of
    several it is: an older one that passes proves nothing of it, and times of files tell of copying as well.
    """
    found, runs = marked(store.root), store.runs()
    if runs and (lost := _lost(store, found, len(runs), told=told)):
        raise IncomparableError(lost, "Name a run; list them with: qeval list runs")
    if found and runs and not found.run:
        older = _with_results(runs)
        which = f" ({older.path.name} is the newest that has results)" if older else ""
        raise _not_begun(found, "an older run is not judged in its place", which, told=told)
    return _newest(store, found, runs)


def shown(store: Store, *, told: bool = True) -> Shown:
    """The newest run that has results, for whoever shows; where none has any, the newest of all.

    Raises QevalError where there is no run, where the newest of all did not begin, and where it cannot be
    read.
    """
    found, runs = marked(store.root), store.runs()
    lost = _lost(store, found, len(runs), told=told) if found and runs else ""
    if found and runs and not found.run and not lost:
        older = _with_results(runs)
        if older is None:
            none = "no older run has results" if found.command else "no older one has any"
            raise _not_begun(found, none, told=told)
        return Shown(older, f"{(found if told else found.redacted).sentence}.", found.remedy)
    first = _newest(store, found, runs)
    run = first.read()
    if has_results(run):
        return Shown(first, lost)
    older = _with_results(one for one in runs if one.path != first.path)
    if older is None:
        return Shown(first)
    stands = standing(first, run)
    left = unfinished(run, stands) if told else ""
    return Shown(older, _without_results(run, stands, told=told), unfinished=left)


def _lost(store: Store, found: Mark | None, runs: int, *, told: bool) -> str:
    """Why it cannot be told which of the runs is the newest, or that it is gone; "" where neither is so."""
    file = store.root / NEWEST_FILE
    if found is None:
        missing = f"{file} is missing, so nothing tells which of {runs} runs is the newest."
        return missing if runs > 1 else ""
    if found.unread:
        return f"{file} cannot be read ({found.unread}), so nothing tells which run is the newest."
    gone = found.run and not (store.root / found.run).is_dir()
    return (
        f"The newest run{f', {found.run},' if told else ''} is not in {store.root} any more." if gone else ""
    )


def _newest(store: Store, found: Mark | None, runs: list[RunDir]) -> RunDir:
    """The run that is remembered, else that of the latest change."""
    if found and is_file_name(found.run) and (store.root / found.run).is_dir():
        return store.run_dir(found.run)  # reading it says what is wrong with it, if it is lost or damaged
    if not runs and (store.root / "run.json").is_file():
        raise QevalError(
            f"{store.root} is a run, and holds none.", "Name it as the run, and leave --runs-dir out."
        )
    if not runs:
        raise QevalError(f"There is no run in {store.root} yet.", _MAKE_ONE)
    return runs[0]


def _not_begun(found: Mark, then: str, which: str = "", *, told: bool) -> IncomparableError:
    what = (found if told else found.redacted).sentence
    return IncomparableError(
        f"{what}; {then}.", f"{found.remedy}, or name a run{which}; list them with: qeval list runs"
    )


def refused(store: Store) -> str:
    """That the newest run was never made, with the reason and the remedy; "" where it was."""
    found = marked(store.root)
    none = found and not found.run and not found.unread
    return f"{found.sentence}. {found.remedy}." if found and none else ""


def has_results(run: Run) -> bool:
    """Whether anything was scored, or measured, in a run."""
    return any(result.cells or result.cost for result in run.results)


def _with_results(runs: Iterator[RunDir] | list[RunDir]) -> RunDir | None:
    """The first of some runs that has results; what cannot be read has none."""
    for place in runs:
        with contextlib.suppress(QevalError):
            if has_results(place.read()):
                return place
    return None


def _without_results(run: Run, stands: Standing, *, told: bool) -> str:
    failed = next((result for result in run.results if result.error), None)
    why = f": {failed.variant.name if told else 'a variant'} failed" if failed else ""
    if failed is None and any(result.status == "partial" for result in run.results):
        why = f": {_STANDS[stands.state]}"
    said = f" ({one_line(failed.error or '')[:_LONGEST].rstrip('.')})" if failed and told else ""
    return f"The newest run, {run.id}, has no results{why}{said}."
