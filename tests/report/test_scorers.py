"""By what else cells of a run were scored: each scorer in one sentence, however many variants it scored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import ARC, QUIZ, make_run

from qeval.base.scored import Scored
from qeval.report import scorers


@pytest.mark.parametrize(
    ("variants", "rest"),
    [(4, ""), (5, " and tasks of 1 more variant"), (7, " and tasks of 3 more variants")],
)
def test_many_variants_are_named_in_part(variants, rest):
    run, *_ = make_run(variants, (ARC, QUIZ), n_items=5)
    old = Scored("0.0.1", "2026-01-02T03:04:05+00:00", "", {})
    results = tuple(
        replace(one, cells=(replace(one.cells[0], scored=old), *one.cells[1:])) for one in run.results
    )
    (said,) = scorers.sentences(replace(run, results=results, qeval_version="9"))
    every = len(run.results[0].cells)
    named = ", ".join(f"1 of {every} tasks of {one.variant.name}" for one in run.results[:4])
    assert said == f"Scored by qeval 0.0.1 on 2026-01-02: {named}{rest}."
