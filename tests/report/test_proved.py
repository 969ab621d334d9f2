"""What is proved has a sign in every form of the report, not a colour alone, and a key beside the table."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, WIKI, context, edited, make_run

from qeval.compare.evidence import gather
from qeval.report.figures import proofs
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown
from qeval.report.formats.terminal import summary

KEY = "▾: proved loss"


def spoilt():
    run, read, items = make_run(2, (ARC,), n_items=400, churn=0.02)
    cell = run.results[1].cells[0]
    value = read(cell).value.copy()
    value[np.flatnonzero(value == 1)[:60]] = 0.0
    return run, edited(read, cell.key, value=value), items


@pytest.mark.usefixtures("undrawn")
def test_a_proved_loss_has_a_sign_and_the_sign_a_key_in_every_form():
    run, read, items = spoilt()
    evidence = gather(run, read)
    loss = min(evidence.findings.values(), key=lambda one: one.comparison.delta)
    assert loss.claim < 0
    assert proofs(evidence).startswith(KEY)
    assert f"({loss.interval_text}) ▾" in summary(evidence)
    assert KEY in summary(evidence)
    whole = context(run, read, items)
    assert f"**{loss.delta_text}** ▾ <sub>" in render_markdown(whole)
    assert KEY in render_markdown(whole)
    page = render_html(whole)
    assert 'aria-label="proved loss" title="proved loss">▾</span>' in page
    assert KEY in page


@pytest.mark.usefixtures("undrawn")
def test_the_decision_table_marks_every_number_that_is_a_proved_loss():
    """The perplexity of the first candidate is proved worse, of the other nothing is."""
    run, read, items = make_run(3, (ARC, WIKI), n_items=400, churn=0.0)
    cell = run.results[1].cells[1]
    worse = edited(read, cell.key, value=read(cell).value - 0.02 * read(cell).weight)
    whole = context(run, worse, items)
    by_name = {entry.variant: entry for entry in whole.ranking.entries}
    assert [by_name[one].ratio_of.claim for one in ("bnb4", "gptq")] == [-1, 0]
    rows = [line for line in render_markdown(whole).splitlines() if line.startswith("| **")][:3]
    assert {row.split("**")[1]: "▾" in row for row in rows} == {"bnb4": True, "gptq": False, "fp16": False}
    page = render_html(whole)
    marked = re.findall(r"<td class=\"number\" data-ratio>([^<]*)(<span[^>]*>▾</span>)?</td>", page)
    assert sorted(bool(sign) for _, sign in marked[:3]) == [False, False, True]


def test_what_is_not_proved_is_said_of_its_row_alone():
    run, read, _ = make_run(2, (ARC,), n_items=100, churn=0.02)
    (one,) = [found for found in gather(run, read).findings.values() if found.comparison.level == "task"]
    apart = replace(one.comparison, delta=-0.03, low=-0.05, high=-0.01)
    found = replace(one, comparison=apart, claim=0)
    assert found.sentence.endswith("no loss is proved.")
    assert replace(found, of="on arc").sentence.endswith("no loss is proved there.")
    mean = replace(found, comparison=replace(apart, level="average"), of="on average")
    assert mean.sentence.endswith("no loss is proved on average.")


@pytest.mark.usefixtures("undrawn")
def test_without_anything_proved_there_is_neither():
    run, read, items = make_run(2, (ARC,), n_items=100, churn=0.02)
    assert proofs(gather(run, read)) == ""
    assert "▾" not in render_html(context(run, read, items))
