"""What reports say of costs: how they were found, and that those of different hardware do not compare."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import ARC, context, make_run

from qeval.base.costs import Cost, Timing
from qeval.base.records import Run
from qeval.compare.evidence import Evidence
from qeval.report import costs
from qeval.report.charts import charts as draw_all
from qeval.report.context import Context
from qeval.report.facts import provenance_facts
from qeval.report.formats import terminal
from qeval.report.formats.html import render_html
from qeval.report.formats.json import document
from qeval.report.formats.markdown import render_markdown

NOTES = ("Medians of 5 after 2.", "Measured on the layers as loaded.")


def measured(*hardware: str) -> tuple[Run, Context]:
    """A run whose variants were measured on this hardware, one each."""
    run, read, _ = make_run(len(hardware), (ARC,), n_items=40)
    results = [
        replace(
            result,
            provenance=replace(result.provenance, weight_bytes=1000 + place),
            cost=Cost(name, 1.0 + place, 10 + place, {"prefill": Timing(1.0 + place, 1, 9, 5, "ms")}, NOTES),
        )
        for place, (name, result) in enumerate(zip(hardware, run.results, strict=True))
    ]
    run = replace(run, results=tuple(results))
    return run, context(run, read, lambda _: {})


def texts(run: Run, context: Context) -> list[str]:
    return [terminal.costs(run), render_markdown(context), render_html(context)]


@pytest.mark.slow
def test_every_form_says_how_costs_were_found():
    for text in texts(*measured("H100", "H100")):
        for note in (*NOTES, "Measured on H100."):
            assert text.count(note) == 1


@pytest.mark.slow
def test_costs_of_different_hardware_are_marked_everywhere():
    for text in texts(*measured("H100", "A10")):
        assert "Measured on different hardware, so not comparable: H100; A10." in text


def test_a_share_is_shown_beside_the_bits_where_one_is_known():
    run, _ = measured("H100", "H100")
    assert "Quantised share" not in costs.cost_table(run).headers
    told = replace(run.results[1].provenance, bits_per_weight=4.5, bits_overall=14.2, quantised_share=0.093)
    result = replace(run.results[1], provenance=told)
    table = costs.cost_table(replace(run, results=(run.results[0], result)))
    rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    assert [rows[1][name] for name in ("Bits per weight", "Over the model")] == ["4.50", "14.2"]
    assert [row["Quantised share"] for row in rows] == ["-", "9.3%"]
    facts = dict(provenance_facts(run, result))
    assert facts["Bits per weight"] == "4.50 in the quantised layers, 14.2 over the model"
    assert facts["Quantised share"] == "9.3% of the weights, not counting embeddings and head"
    eight = replace(result, provenance=replace(told, bits_per_weight=8.0, bits_overall=15.0))
    (bits,) = (
        axis for axis in costs.axes(replace(run, results=(result, eight))) if axis.title == "Bits per weight"
    )
    assert bits.value(result) == 14.2  # charts are drawn by what was loaded


@pytest.mark.usefixtures("undrawn")
def test_the_share_and_its_warning_stand_in_every_form():
    run, read, _ = make_run(2, (ARC,), n_items=40)
    warning = "ONLY 9% OF THE WEIGHTS ARE QUANTISED"
    told = {"bits_per_weight": 4.5, "bits_overall": 14.2, "quantised_share": 0.093, "warnings": (warning,)}
    result = replace(run.results[1], provenance=replace(run.results[1].provenance, **told), cost=Cost("H100"))
    run = replace(run, results=(run.results[0], result))
    whole = context(run, read, lambda _: {})
    assert run.results[1].provenance.mostly_plain
    for text in (
        render_markdown(whole),
        render_html(whole),
        terminal.summary(whole.evidence) + terminal.details(run),
    ):
        assert warning in text
        assert "9.3%" in text
        assert "14.2" in text
    (found,) = [each for each in document(whole.evidence)["variants"] if each["name"] == "bnb4"]
    assert found["provenance"]["quantised_share"] == 0.093
    assert found["provenance"]["bits_overall"] == 14.2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("hardware", "comparable"), [(("H100", "H100"), True), (("H100", "A10"), False)])
def test_only_costs_of_the_same_hardware_are_laid_out_against_each_other(hardware, comparable):
    run, context = measured(*hardware)
    assert document(Evidence(run, (), {}, {}))["costs_comparable"] is comparable
    everywhere = {"weights"}
    assert {axis.id for axis in costs.axes(run)} == everywhere | (
        {"peak", "load", "prefill"} if comparable else set()
    )
    drawn = {chart.id: chart for chart in draw_all(context)}
    assert ("cost-prefill" in drawn) is comparable
    assert "Pareto" in drawn["cost-weights"].alt


def test_peak_memory_is_not_said_to_be_of_scoring():
    assert [axis.title for axis in costs.axes(measured("a", "a")[0]) if axis.id == "peak"] == ["Peak memory"]
