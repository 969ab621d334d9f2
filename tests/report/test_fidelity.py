"""Fidelity in reports: every number in every format, charts that are valid, and texts that stay texts."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest
from factories import make_run

from qeval.base.fidelity import Measured, Passage
from qeval.base.protocols import Protocol
from qeval.compare.evidence import gather
from qeval.compare.fidelity import rows_of, summarise
from qeval.report import fidelity
from qeval.report.charts import charts, drawing
from qeval.report.context import build
from qeval.report.formats.html import render_html
from qeval.report.formats.json import document
from qeval.report.formats.markdown import render_markdown
from qeval.score.fidelity import toy

NASTY = "</pre><script>alert(1)</script> ``` **bold** | \x1b[31m \u202e <b>"


@pytest.fixture(scope="module")
def evidence():
    run, read, _ = make_run(2, n_items=30, effect=0.0)
    found = gather(run, read)
    stream, name = toy.stream(Protocol("prose", "prose")), run.results[1].variant.name
    made = {}
    for role, who in (("packing", run.baseline), ("candidate", name)):
        one = Measured(
            key=role,
            protocol=Protocol("trace:<b>", "trace", "<b>"),
            variant=who,
            baseline=run.baseline,
            role=role,
            stream=stream.sha256,
            n=stream.n,
            n_available=stream.n + 1,
            windows=len(stream),
            vocabulary=1000,
            cut=3,
            cut_baseline=3,
            batch=1,
            dtype="float32",
            device="CPU",
            variant_digest=who,
            baseline_digest="b",
            worst=(Passage(3, 7, 1.25, 16, NASTY, NASTY),),
        )
        made[role] = one, toy.invented(stream, 1e-5 if role == "packing" else 0.03, role)
    order = [result.variant.name for result in run.results]
    rows = rows_of(
        [one for one, _ in made.values()], lambda one: (made[one.key][1], stream), order, run.baseline
    )
    return replace(found, fidelity=rows)


@pytest.fixture(scope="module")
def context(evidence):
    return build(evidence, lambda _: {})


@pytest.mark.slow
def test_the_page_shows_all_of_it_and_runs_none_of_it(context):
    page = render_html(context)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    for cells in (*context.fidelity.rows, *context.fidelity.more, *context.fidelity.traces):
        assert len(cells[2:]) > 3
    assert page.count("Worst passages:") == 1
    assert "Traced answers" in page


def test_markdown_keeps_texts_in_their_fence(context):
    text = render_markdown(context)
    assert "````text" in text
    assert "\x1b" not in text
    assert "| Protocol" in text
    assert "trace:<b>" not in text.replace("`trace:<b>`", "")


def test_sentences_say_what_a_reader_must_know(evidence):
    said = " ".join(fidelity.sentences(evidence.fidelity))
    assert "(the noise floor of KL, not of answers)" in said
    assert "1536 of 1537 positions were measured; no rule of a gate passes on that." in said
    assert "3 padding rows of the head were cut off before the softmax." in said
    assert fidelity.NOT_TOLD_APART not in said


def test_a_variant_within_twice_the_floor_is_not_told_apart(evidence):
    rows = [replace(row, of_floor=1.9) if row.role == "candidate" else row for row in evidence.fidelity.rows]
    said = " ".join(fidelity.sentences(replace(evidence.fidelity, rows=tuple(rows))))
    assert fidelity.NOT_TOLD_APART in said


def test_numbers_for_programs_are_those_of_the_rows(evidence):
    told = document(evidence)["fidelity"]
    for row, one in zip(evidence.fidelity.rows, told, strict=True):
        assert one["kl"]["value"] == row.kl.value
        assert one["quantiles"]["0.999"] == row.quantiles[4]
    json.dumps(told, allow_nan=False)


@pytest.mark.slow
def test_charts_are_valid(context, monkeypatch):
    altair = pytest.importorskip("altair", reason="Altair carries the schema of Vega-Lite")
    seen, original = [], drawing.to_svg

    def spy(spec):
        seen.append(spec)
        return original(spec)

    monkeypatch.setattr(drawing, "to_svg", spy)
    names = {chart.id for chart in charts(context)}
    assert {"fidelity-confidence-trace:<b>", "fidelity-position-trace:<b>"} <= names
    schema = json.loads((files(altair.__name__) / "vegalite/v6/schema/vega-lite-schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    for spec in seen:
        assert [error.message for error in validator.iter_errors(spec)] == []


def test_a_row_of_equal_models_has_numbers_too(evidence):
    row = evidence.fidelity.rows[1]
    positions, stream = evidence.fidelity.read(row.measured)
    same = replace(
        positions,
        kl=positions.kl * 0,
        kl_reverse=positions.kl * 0,
        log_q=positions.log_p,
        top_q=positions.top_p,
        ordered=positions.ordered | True,
    )
    made = summarise(row.measured, same, stream)
    assert (made.kl.value, made.kl.high, made.ratio.value, made.same_top.value) == (0, 0, 1, 1)
    assert made.traced.diverged == 0


def test_what_is_compared_with_itself_has_no_interval_of_equal_tokens(evidence):
    rows = [
        replace(row, same_top=replace(row.same_top, value=1.0, low=0.0, high=1.0))
        for row in evidence.fidelity.rows
    ]
    told = fidelity.told(replace(evidence.fidelity, rows=tuple(rows))).more
    place = fidelity.MORE_HEADERS.index("Same top-1, interval")
    shown = {row.role: line[place] for row, line in zip(rows, told, strict=True)}
    assert shown["packing"] == ""
    assert shown["candidate"] == "0.00% to 100.00%"
