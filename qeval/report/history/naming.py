"""The names that runs of a history have, so that one which none has is refused with the nearest ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from qeval.base.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from qeval.base.records import Run
    from qeval.report.history.series import Source, Wanted

_NEAREST = 3


class Names:
    """The names that were met, by what they name: those that are shown, and those that a person may know them
    by besides."""

    def __init__(self, wanted: Wanted) -> None:
        kinds = {
            "model": wanted.model,
            "suite": wanted.suite,
            "variant": wanted.variant,
            "task": wanted.task,
        }
        self.wanted = kinds
        self.shown: dict[str, set[str]] = {kind: set() for kind in kinds}
        self.meant: dict[str, bool] = {kind: not pattern for kind, pattern in kinds.items()}

    def of_run(self, run: Run, hidden: dict[str, str] | None) -> bool:
        """Whether a run is of the wanted model and suite. `hidden` is what paths are called, None where they
        are shown; a model may be meant by either name."""
        from qeval.base.redacted import redacted

        shown = run.model if hidden is None else redacted(run, hidden).model
        return self._met("model", {shown}, (run.model,)) and self._met("suite", {run.suite.name})

    def noted(self, source: Source) -> Source:
        """The source as it is; its variants and rows were met."""
        from qeval.compare.rows import rows_of

        evidence = source.evidence
        self._met("variant", {one.variant.name for one in source.run.results}, source.called)
        rows = {row.id for row in (evidence.rows if evidence else rows_of(source.run))}
        self._met("task", rows.union(evidence.fidelity.protocols if evidence else ()))
        return source

    def refuse(self) -> None:
        """Raise UsageError for the first name that no run has; where there is no run, none is unknown."""
        for kind, pattern in self.wanted.items():
            known = self.shown[kind]
            if known and not self.meant[kind]:
                raise UsageError(
                    f"No run here has a {kind} {pattern!r}.",
                    did_you_mean(pattern, known, _NEAREST) or "qeval show RUN shows what a run has.",
                )

    def _met(self, kind: str, shown: set[str], besides: Collection[str] = ()) -> bool:
        from qeval.report.history.series import meant

        found = any(meant(name, self.wanted[kind]) for name in shown.union(besides))
        self.shown[kind] |= shown
        self.meant[kind] = self.meant[kind] or found
        return found
