"""What is proved has a sign in every form of the report, not a colour alone, and a key beside the table."""

from __future__ import annotations

import numpy as np
import pytest
from factories import ARC, context, edited, make_run

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
def test_without_anything_proved_there_is_neither():
    run, read, items = make_run(2, (ARC,), n_items=100, churn=0.02)
    assert proofs(gather(run, read)) == ""
    assert "▾" not in render_html(context(run, read, items))
