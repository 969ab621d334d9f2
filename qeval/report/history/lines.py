"""The lines of a history, out of runs in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from qeval.compare.continuity import Frame, apart
from qeval.report.history.points import points_of
from qeval.report.history.series import History, Key, Point, Series, Source, Wanted


@dataclass
class _Line:
    points: list[Point] = field(default_factory=list)
    frame: Frame | None = None
    baseline: str = ""
    level: float | None = None


@dataclass
class _Lines:
    """The lines so far; `last` is the newest of each place, `early` holds points that came before
    any, which are a line without a number where none follows."""

    all: dict[Key, _Line] = field(default_factory=dict)
    last: dict[tuple[str, ...], _Line] = field(default_factory=dict)
    early: dict[tuple[str, ...], tuple[Key, _Line]] = field(default_factory=dict)

    def add(self, key: Key, point: Point, frame: Frame | None, baseline: str) -> None:
        """A point goes to the line of its key; one of which nothing was scored, which has no version, to the
        newest line of its place."""
        if frame is None:
            line = self.last.get(key.place) or self.early.setdefault(key.place, (key, _Line()))[1]
            line.points.append(point)
            line.baseline = line.baseline or baseline
            return
        if key not in self.all:
            _, begun = self.early.pop(key.place, (key, _Line()))
            self.all[key] = _Line(begun.points)
        line = self.last[key.place] = self.all[key]
        line.points.append(replace(point, apart=apart(line.frame, frame) if line.frame else ""))
        line.frame, line.baseline = frame, baseline
        line.level = point.comparison.confidence if point.comparison else line.level


def history(
    sources: Iterable[Source],
    wanted: Wanted,
    limit: str = "",
    unread: Sequence[tuple[str, str]] = (),
) -> History:
    """The lines of `sources`, which are of the wanted models and suites and come in the order of time; each
    is let go before the next is asked for. `limit` names the policy by which they were judged."""
    lines, count = _Lines(), 0
    for source in sources:
        count += 1
        for found in points_of(source, wanted):
            lines.add(*found)
    lines.all |= dict(lines.early.values())
    places = [key.place for key in lines.all]
    made = (
        Series(_told_apart(key, places), tuple(one.points), one.baseline, one.level)
        for key, one in lines.all.items()
    )
    return History(tuple(made), tuple(unread), limit, count)


def _told_apart(key: Key, places: Sequence[tuple[str, ...]]) -> Key:
    """The key, its title with the versions of the tasks where another line differs in them."""
    versions = ", ".join(filter(None, key.versions))
    if places.count(key.place) == 1 or not versions:
        return key
    return replace(key, title=f"{key.title}, version {versions}")
