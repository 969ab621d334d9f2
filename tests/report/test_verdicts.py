"""What is claimed of a variant without a rule: corrected for all that the report looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import ARC, TRUTH, WIKI, context, make_run

from qeval.compare.evidence import claims, gather

TASKS = (ARC, replace(ARC, name="hella"), TRUTH, WIKI)


def lines(made):
    """The candidates' lines of a report."""
    return context(*made).lines[1:]


def test_a_loss_that_stands_out_alone_may_be_chance_among_many():
    """Five variants on four tasks and their average: one in twenty is apart from zero by luck."""
    alone, many, tried = None, None, 0
    while alone is None and tried < 400:
        run, read, items = make_run(6, TASKS, 150, seed=tried, churn=0.1)
        evidence = gather(run, read)
        apart = [c for c in evidence.comparisons if c.level == "average" and c.high < 0]
        if apart and not any(claims(evidence).values()):
            alone, many = apart[0].variant, (run, read, items)
        tried += 1
    (line,) = [one for one in lines(many) if one.name == alone]
    assert line.verdict.status in {"UNDECIDED", "EQUIVALENT"}
    assert line.verdict.sentence.endswith(
        "The interval is this row's own: corrected for all 25 comparisons no loss is proved on average."
    )


def test_a_ruined_task_is_told_before_an_average_that_shows_nothing():
    run, read, items = make_run(2, TASKS, 300, seed=1, churn=0.02)
    ruined, theirs, _ = make_run(2, (WIKI,), 300, seed=1, effect=-0.5)
    cells = {cell.task.name: cell for cell in ruined.results[1].cells}
    mixed = tuple(cells.get(cell.task.name, cell) for cell in run.results[1].cells)
    base = {cell.task.name: cell for cell in ruined.results[0].cells}
    first = tuple(base.get(cell.task.name, cell) for cell in run.results[0].cells)
    results = (replace(run.results[0], cells=first), replace(run.results[1], cells=mixed))
    made = (
        replace(run, results=results),
        lambda cell: (theirs if cell.task.name == "wiki" else read)(cell),
        items,
    )
    (line,) = lines(made)
    assert line.verdict.word == "Worse than x1.10 on wiki"
    assert line.verdict.sentence.startswith("wiki: perplexity x")


@pytest.mark.rare
@pytest.mark.slow
def test_reports_in_which_nothing_differs_claim_something_in_five_per_cent():
    """Five variants of four tasks; two standard errors of 400 reports are 2.2 points."""
    claimed = 0
    for seed in range(400):
        run, read, _ = make_run(6, TASKS, 120, seed=seed, churn=0.1)
        claimed += any(claims(gather(run, read)).values())
    assert claimed / 400 <= 0.05 + 0.022
