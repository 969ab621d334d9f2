"""Whether the data sets that a run reads can be had: found once for all, before weights are loaded."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qeval.base.errors import QevalError

if TYPE_CHECKING:
    from qeval.base.records import Task
    from qeval.score.harness.needed import Needed

_MOST = 5
"""Data sets that a sentence names."""


class Reads(NamedTuple):
    """What reads data sets: the tasks of a suite and the user's folder of them, protocols of fidelity by
    name, and the mirror that is read first."""

    tasks: Sequence[Task]
    own: Path | None
    cache_dir: Path
    mirror: Path | None
    wikitext: str = ""


def missing(reads: Reads, tell: Callable[[str], None] = lambda _: None) -> QevalError | None:
    """What is to be said of data sets that cannot be had; None where all may be. `tell` hears where a mirror
    holds none of them and the Hub is asked instead."""
    from qeval.load import mirror
    from qeval.load.source import hub_answers

    sets = tuple(_sets(reads))
    if cut := [one for one in sets if _left_out(one, reads.mirror)]:
        return _incomplete(cut, reads)
    absent = mirror.absent((one.path for one in sets), reads.mirror)
    if not absent:
        return None
    variable = mirror.offline()
    if variable is None and hub_answers(absent[0], "dataset"):
        if reads.mirror is not None and not any(mirror.mirrored(one.path, reads.mirror) for one in sets):
            tell(f"Note: {_in_none(absent, reads.mirror)}")
        return None
    return _absent([one for one in sets if one.path in absent], reads, variable)


def _sets(reads: Reads) -> Iterator[Needed]:
    from qeval.base.places import tasks_dir
    from qeval.score.harness.catalogue import catalogue
    from qeval.score.harness.needed import Needed, needed

    yield from needed(reads.tasks, catalogue(tasks_dir(), reads.cache_dir, reads.own))
    if reads.wikitext:
        from qeval.score.fidelity.streams import WIKITEXT

        yield Needed(*WIKITEXT[:2], _FIDELITY)


_FIDELITY = "fidelity"
"""What reads a data set beside the tasks."""


def _in_none(absent: Sequence[str], folder: Path) -> str:
    from qeval.load import mirror

    told = f"--datasets-dir {folder} holds none of the data sets that are read, so the Hub is asked."
    return f"{told} {mirror.remedy(absent, folder, f'It {mirror.described(folder)}.')}"


def _absent(sets: Sequence[Needed], reads: Reads, variable: str | None) -> QevalError:
    from qeval.load import mirror

    why = f"{variable} is set" if variable else "The Hub cannot be reached"
    there = f" {reads.mirror} {mirror.described(reads.mirror)}." if reads.mirror else ""
    online = f"unset {variable} once" if variable else "go online once"
    paths = list(dict.fromkeys(one.path for one in sets))
    return QevalError(
        f"{why}, and there is no copy here of {_named(sets)}.{there}",
        mirror.remedy(paths, reads.mirror, _ways(sets, reads, online)),
    )


def _named(sets: Sequence[Needed]) -> str:
    """Data sets, each with what reads it: "allenai/ai2_arc (arc_easy, arc_challenge)"."""
    by_path: dict[str, dict[str, None]] = {}
    for one in sets:
        by_path.setdefault(one.path, {})[one.what] = None
    words = [f"{path} ({', '.join(list(whose)[:_MOST])})" for path, whose in by_path.items()]
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    return f"{', '.join(words[:_MOST])}{more}"


def _ways(sets: Sequence[Needed], reads: Reads, other: str) -> str:
    """What helps where data sets are missing: one way of several, and last, for it is pasted, the command
    that fetches what tasks read."""
    from qeval.load.mirror import may_be_filled

    tasks = list(dict.fromkeys(one.what for one in sets if one.what != _FIDELITY))
    filled = reads.mirror is not None and may_be_filled(reads.mirror)
    to = str(reads.mirror) if filled else "mirror"
    words = ["qeval", "fetch", "--tasks", ",".join(tasks), "--to", to]
    words += ["--tasks-dir", str(reads.own)] if reads.own else []
    none = f"leave {reads.wikitext} out with --fidelity none"
    if not tasks:
        return _sentence(f"{none}, or {other}.")
    also = f"{none} and " if any(one.what == _FIDELITY for one in sets) else ""
    way = "fetch what is missing" if filled else f"add --datasets-dir {to} after filling that folder"
    return _sentence(f"{other}, or {also}{way}, where there is a network, with: {shlex.join(words)}")


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"


def _left_out(one: Needed, folder: Path | None) -> tuple[str, ...]:
    from qeval.load import mirror

    place = mirror.mirrored(one.path, folder)
    return mirror.left_out(place, one.name) if place is not None else ()


def _incomplete(sets: Sequence[Needed], reads: Reads) -> QevalError:
    """That the mirror has data sets without configurations that are read, of which it is the one source."""
    first = sets[0]
    lacks = ", ".join(dict.fromkeys(f"{one.path} without {one.name} ({one.what})" for one in sets[:_MOST]))
    held = ", ".join(_left_out(first, reads.mirror)[:_MOST])
    return QevalError(
        f"The mirror {reads.mirror} has {lacks}. It has {held} of {first.path}.",
        _ways(sets, reads, "name another mirror with --datasets-dir"),
    )
