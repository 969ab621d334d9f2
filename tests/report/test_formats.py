"""One contract for every format of the report: the same runs, the odd ones among them, in each."""

from __future__ import annotations

import html
from dataclasses import replace

import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, context, judge, make_run

from qeval.base.errors import UsageError
from qeval.base.records import Policy, Result, Rule
from qeval.compare.columns import COLUMNS
from qeval.report.formats import Options, formats, render

POLICY = Policy((Rule(tasks="arc", max_drop=6.0),), source="policy.toml")


def runs():
    """A whole run, one of a single variant, one without items, and one with a failed variant."""
    whole = make_run(3, (ARC, QUIZ, TRUTH, WIKI), 40, -0.04, seed=7)
    run, read, items = whole
    failed = Result(run.results[1].variant, "failed", error="No kernel for this device.")
    return {
        "whole": whole,
        "alone": (replace(run, results=run.results[:1]), read, items),
        "empty": make_run(2, n_items=0),
        "failed": (replace(run, results=(run.results[0], failed, run.results[2])), read, items),
    }


def built(made, policy=None):
    run, read, read_items = made
    decisions = judge(run, read, policy) if policy else ()
    return context(run, read, lambda cell: {item.key: item for item in read_items(cell)}, decisions, policy)


@pytest.mark.parametrize("ending", sorted(formats()))
@pytest.mark.parametrize("name", sorted(runs()))
def test_every_format_renders_every_run(ending, name):
    made = built(runs()[name])
    text = formats()[ending].render(made, Options())
    assert text.strip()
    for result in made.run.results if name != "empty" else ():
        assert result.variant.name in text
    assert "No kernel for this device." in text or name != "failed"


@pytest.mark.parametrize("ending", sorted(formats()))
def test_every_format_shows_every_statistic(ending):
    text = html.unescape(formats()[ending].render(built(runs()["whole"]), Options())).lower()
    for column in COLUMNS:
        shown = column.id if ending == ".json" else column.title.lower()
        assert shown in text or (ending == ".txt" and not column.brief)


@pytest.mark.parametrize("ending", sorted(formats()))
def test_every_format_says_what_the_gate_found(ending):
    text = formats()[ending].render(built(runs()["whole"], POLICY), Options())
    assert "arc" in text
    assert any(word in text for word in ("Undecided", "INCONCLUSIVE", "Fail", "FAIL"))


def test_an_ending_of_no_format_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"no report format '\.pdf'"):
        render(built(runs()["alone"]), tmp_path / "x.pdf")
