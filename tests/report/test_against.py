"""What the page says against another variant is what a report on it says, of unfinished runs too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, context, make_run

from qeval.compare.evidence import with_baseline
from qeval.report.versus import versus


@pytest.fixture(scope="module")
def made():
    return make_run(4, (ARC, QUIZ, TRUTH, WIKI), 60, seed=3, effect=-0.05, churn=0.2)


def built(run, read, items):
    return context(run, read, lambda cell: {one.key: one for one in items(cell)})


def unfinished(run, kept):
    """The run with so many cells of each variant."""
    results = (replace(one, cells=one.cells[cells]) for one, cells in zip(run.results, kept, strict=True))
    return replace(run, results=tuple(results))


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [slice(1), slice(1, None), slice(-2)], ids=["one task", "but one", "but two"]
)
def test_an_unfinished_variant_is_compared_as_in_a_report_on_it(made, part):
    run, read, items = made
    run = unfinished(run, (slice(None), slice(None), part, slice(None)))
    own = built(run, read, items)
    met = versus(own)
    for one in met.others:
        true = built(with_baseline(run, one.run.baseline), read, items)
        assert one.title == f"Against {one.run.baseline}: {true.title}"
        assert [replace(entry, fixed=()) for entry in one.ranking.entries] == [
            replace(entry, fixed=()) for entry in true.ranking.entries
        ]
        assert one.ranking.title == true.ranking.title
        assert one.explorer.patterns == true.explorer.patterns
        assert (one.explorer.counts, one.explorer.shown) == (true.explorer.counts, true.explorer.shown)
    place, first = met.names.index("gptq"), own.ranking.heads[0].id
    told = [(name, first) in met.others[place - 1].evidence.pairs for name in met.names]
    others = [
        row[place] if len(row) > place else met.matrix[place][at]
        for at, row in enumerate(met.matrix)
        if at != place
    ]
    assert [one is not None for one in others] == [found for at, found in enumerate(told) if at != place]
