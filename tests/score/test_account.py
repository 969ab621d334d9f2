"""What finished cells say of their variant, when nothing or only a part is left to score."""

from __future__ import annotations

from dataclasses import replace

from factories import ARC, make_run

from qeval.base.records import Provenance
from qeval.score.account import told_by, warned_by


def test_what_every_finished_cell_says_is_kept() -> None:
    """The first cell knows only what was known when it was finished; the last may have a warning more."""
    run, _, _ = make_run(1, (ARC,))
    [cell, *_] = run.results[0].cells
    first = replace(cell, provenance=Provenance("m", notes=("loaded",), warnings=("plain",), engine="tree"))
    last = replace(cell, provenance=Provenance("m", notes=("loaded", "cut"), warnings=("plain", "endless")))
    silent = replace(cell, provenance=None)
    told = told_by([None, silent, first, last])
    assert told == Provenance("m", notes=("loaded", "cut"), warnings=("plain", "endless"), engine="tree")
    assert warned_by([None, silent, first, last]) == ("plain", "endless")
    assert told_by([None, silent]) is None
    assert warned_by([None]) == ()
