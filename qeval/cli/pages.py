"""What `qeval view` serves of several runs: a list, each run's report, two variants compared, and lines.

A page is found by looking its name up among the runs that are shown; no path is ever made of an address.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from qeval.base.errors import IncomparableError, QevalError, UsageError
from qeval.cli import options, past

if TYPE_CHECKING:
    from qeval.base.records import Result, Run
    from qeval.compare.evidence import Evidence
    from qeval.compare.margin import Margin
    from qeval.store.reader import Reader
    from qeval.store.runs import RunDir

_OK, _NOT_FOUND, _CONFLICT = 200, 404, 409
_REPORT = "/report/"


@dataclass(frozen=True)
class Site:
    """The runs that are shown: those named, or all below `runs_dir`, looked for at each request. `any_model`
    lets variants of different models be compared. `redact`: no page has a path of a model, and each is called
    the same on all pages, so that what one offers another finds."""

    runs_dir: Path
    names: tuple[str, ...] = ()
    baseline: str | None = None
    any_model: bool = False
    redact: bool = False
    margin: Margin | None = None
    _one: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)
    _paths: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def page(self, path: str, asked: Mapping[str, str]) -> tuple[int, str]:
        """The page at a path, with its status; what cannot be shown is a page that says why."""
        from qeval.report.history.picking import trouble

        pages: dict[str, Callable[[Mapping[str, str]], str]] = {
            "/": self._list,
            "/index.html": self._list,
            "/compare": self._compare,
            "/history": self._history,
        }
        try:
            with self._one:
                if path.startswith(_REPORT):
                    return _OK, self._report(path.removeprefix(_REPORT))
                if path in pages:
                    return _OK, pages[path](asked)
        except KeyError as missing:
            return _NOT_FOUND, trouble(f"There is no run {missing.args[0]!r} here.", "Go back to the list.")
        except QevalError as error:
            return _CONFLICT, trouble(self._hidden(error.message), self._hidden(error.hint))
        return _NOT_FOUND, trouble("There is no such page.", "Go back to the list.")

    def _places(self) -> dict[str, RunDir]:
        """The runs that are shown, by the names in addresses."""
        from qeval.store.runs import Store

        store, found = Store(self.runs_dir), {}
        for place in [store.open(name) for name in self.names] or store.runs():
            name = self._name(place)
            while name in found:
                name += "~"
            found[name] = place
        return found

    def _name(self, place: RunDir) -> str:
        if not self.redact:
            return place.path.name
        try:
            return self._shown(place.read()).id
        except QevalError:
            return "a damaged run"

    def _shown(self, run: Run) -> Run:
        from qeval.base.redacted import redacted

        return redacted(run, self._paths) if self.redact else run

    def _pathless(self, words: str) -> str:
        from qeval.base.redacted import without_paths

        return without_paths(words, self._paths) if self.redact else words

    def _hidden(self, words: str) -> str:
        """A sentence without paths and names of runs that tell of some, where they are left out."""
        if not (self.redact and words):
            return words
        with self._one:
            try:
                places = self._places()
            except QevalError:
                return "What is wrong names a run that cannot be shown without its paths."
            for name, place in places.items():
                words = words.replace(f"{place.path}{os.sep}", "").replace(str(place.path), name)
            for path in sorted(self._paths, key=len, reverse=True):
                words = words.replace(path, self._paths[path])
            for name, place in places.items():
                words = re.sub(
                    rf"(?<![\w-]){re.escape(place.path.name)}(?![\w-])", name.replace("\\", r"\\"), words
                )
            return self._pathless(words)

    def _list(self, _: Mapping[str, str]) -> str:
        from qeval.base.redacted import is_redacted
        from qeval.load.toy import is_toy
        from qeval.report.history.picking import entry, listing, unread

        places = {place: name for name, place in self._places().items()}
        runs, damaged = past.readable(places)
        entries = [
            entry(
                places[place],
                _address(places[place]),
                self._shown(run),
                toy=is_toy(run.model),
                pathless=is_redacted(run),
            )
            for place, run in reversed(runs)
        ]
        by_folder = {place.path.name: name for place, name in places.items()}
        return listing([*entries, *(unread(by_folder[name], self._pathless(why)) for name, why in damaged)])

    def _report(self, name: str) -> str:
        place = self._places()[name]
        return _rendered(
            *options.open_runs(
                [str(place.path)],
                self.runs_dir,
                self.baseline,
                redact=self.redact,
                paths=self._paths,
                margin=self.margin,
            ),
            baseline=self.baseline,
        )

    def _compare(self, asked: Mapping[str, str]) -> str:
        """Two variants, `one` the baseline, each as RUN/VARIANT."""
        from qeval.compare.fidelity import FidelityRows

        places = self._places()
        one, other = (self._chosen(asked.get(name, ""), places) for name in ("one", "other"))
        opened = list({place.path: (place, place.read()) for place, _ in (one, other)}.values())
        alone = len(opened) == 1  # two runs become one of a new name, which would tell those of both
        told = [run if alone else self._shown(run) for run in (one[0].read(), other[0].read())]
        picked = [(run, run.results[at]) for run, (_, at) in zip(told, (one, other), strict=True)]
        run = versus(*picked, any_model=self.any_model or asked.get("models") == "any")
        paths = self._paths if alone else None
        evidence, read = options.evidence_of(run, opened, redact=self.redact, paths=paths, margin=self.margin)
        if len(opened) > 1:  # what was measured of either was measured against a baseline of its own
            evidence = replace(evidence, fidelity=FidelityRows())
        if not evidence.pairs:
            raise IncomparableError(
                "There is no row on which both have all items.", "Pick two from the same suite."
            )
        names = [result.variant.name for result in evidence.candidates]
        kind = "" if evidence.one_model else ", of different models"
        return _rendered(evidence, read, f"{names[0]} against {evidence.run.baseline}{kind}")

    def _chosen(self, words: str, places: Mapping[str, RunDir]) -> tuple[RunDir, int]:
        """The variant that RUN/VARIANT means, by the names that are shown, as its place in the run. Raises
        KeyError for a run that is not shown, UsageError for a variant that it does not have."""
        name, _, variant = words.partition("/")
        place = places[name]
        for at, result in enumerate(self._shown(place.read()).results):
            if result.variant.name == variant:
                return place, at
        raise UsageError(f"{name} has no variant {variant!r}.", "Pick one on the list.")

    def _history(self, asked: Mapping[str, str]) -> str:
        from qeval.report.history.page import page
        from qeval.report.history.series import Wanted

        places = self._places()
        wanted = Wanted(**{name: asked.get(name, "") for name in ("model", "suite", "variant", "task")})
        found = past.history(
            places.values(), wanted, margin=self.margin, redact=self.redact, paths=self._paths
        )
        return page(found, {name: _address(name) for name in places}, back="/")


def _address(name: str) -> str:
    return _REPORT + quote(name, safe="", errors="surrogateescape")


def _rendered(
    evidence: Evidence, read: Reader, title: str | None = None, *, baseline: str | None = None
) -> str:
    from qeval.report.context import build
    from qeval.report.facts import asked_of
    from qeval.report.formats.html import render_html

    return render_html(build(evidence, read.items, title=title, asked=asked_of(evidence, baseline)))


def versus(one: tuple[Run, Result], other: tuple[Run, Result], *, any_model: bool) -> Run:
    """A run of two variants, the first of which is its baseline.

    Raises IncomparableError where both are the same, or their runs are of different models or were asked in
    different ways; whether the items are the same is proved when they are paired.
    """
    from qeval.compare.merge import merge

    first, second = (
        replace(run, baseline=result.variant.name, results=(replace(result, stop=None),))
        for run, result in (one, other)
    )
    same = first.id == second.id
    if same and first.baseline == second.baseline:
        raise IncomparableError("The same variant was picked twice.", "Pick two different ones.")
    if same:
        return replace(first, results=first.results + second.results)
    alike = first.baseline == second.baseline
    name = f"{first.baseline}@{first.id}" if alike else first.baseline
    try:
        joined = merge([first, second], name, allow_different_models=True)
    except UsageError as error:  # the two became one: the same cells
        raise IncomparableError(
            "Both hold the very same scored items: nothing differs.", "Pick another."
        ) from error
    try:
        return joined if any_model else merge([first, second], name)
    except IncomparableError as error:
        raise IncomparableError(error.message, _TICK) from error


_TICK = "If they are to be compared all the same, tick that their models may differ."
