"""Where weights lay while they were scored, as a reader is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import make_run

from qeval.base.settings import Settings
from qeval.report.facts import Asked, commands, provenance_facts, run_facts


@pytest.mark.parametrize(
    ("placement", "materialized", "told"),
    [
        ("", False, {}),
        ("", True, {"Weights dequantised once for scoring": "yes"}),
        ("streamed", False, {"Placement": "streamed from host memory layer by layer"}),
        (
            "streamed",
            True,
            {"Placement": "streamed from host memory layer by layer, and dequantised layer by layer"},
        ),
    ],
)
def test_the_placement_is_told(placement: str, materialized: bool, told: dict[str, str]) -> None:
    run, *_ = make_run(2)
    first = run.results[0]
    assert first.provenance is not None
    made = replace(first.provenance, placement=placement, materialized=materialized)
    facts = dict(provenance_facts(run, replace(first, provenance=made)))
    kept = {
        name: facts[name] for name in ("Placement", "Weights dequantised once for scoring") if name in facts
    }
    assert kept == told


def test_what_was_asked_of_memory_is_told_where_it_was_asked() -> None:
    run, *_ = make_run(2)
    labels = ("Requested placement", "GPU memory allowed")
    usual = dict(run_facts(replace(run, source="qeval")))
    assert not any(usual.get(label) for label in labels)
    asked = Settings(placement="streamed", gpu_memory=24 * 2**30)
    facts = dict(run_facts(replace(run, source="qeval", settings=asked)))
    assert [facts[label] for label in labels] == ["streamed", "24.0 GiB"]


def test_a_long_list_of_layers_is_cut_and_counted() -> None:
    run, *_ = make_run(2)
    first = run.results[0]
    assert first.provenance is not None
    names = [f"model.layers.{number}.mlp.up_proj" for number in range(40)]
    told = {
        "bits": 4,
        "modules_in_block_to_quantize": [names],
        "dynamic": {f"-:^{name}$": {} for name in names},
    }
    made = replace(first.provenance, quantization=told)
    fact = dict(provenance_facts(run, replace(first, provenance=made)))["Quantisation"]
    assert fact.count("… (40 in all)") == 2
    assert len(fact) < 800
    few = replace(first.provenance, quantization={"bits": 4, "modules_to_not_convert": names[:2]})
    fact = dict(provenance_facts(run, replace(first, provenance=few)))["Quantisation"]
    assert fact == f'bits 4, modules_to_not_convert ["{names[0]}", "{names[1]}"]'


def test_joined_runs_are_made_and_shown_by_commands_that_name_each() -> None:
    run, *_ = make_run(2)
    runs = [replace(run, id=name, command=("qeval", "run", "-s", name)) for name in ("one", "two")]
    joined = replace(runs[0], id="one+two")
    told = dict(commands(joined, Asked(("--baseline", "fp16"), rules=("--max-drop", "2")), runs))
    assert told["Make the runs"] == "qeval run -s one\nqeval run -s two"
    words = "one two --baseline fp16 --max-drop 2"
    assert told["Make this report"] == f"qeval report {words} -o report.html"
    assert told["Judge it"] == f"qeval gate {words}"
    alone = dict(commands(runs[0], Asked(("--baseline", "bnb4"))))
    assert alone["Make this report"] == "qeval report one --baseline bnb4 -o report.html"


def test_the_command_of_a_report_with_earlier_runs_asks_for_them() -> None:
    run = make_run(2)[0]
    made = dict(commands(run, Asked(rules=("--max-drop", "1.0"), history=True)))
    assert "--max-drop 1.0 --history -o report.html" in made["Make this report"]
    assert "--history" not in made["Judge it"]


def test_a_run_that_was_imported_is_to_be_imported_first() -> None:
    run = replace(make_run(2)[0], source="table.csv", command=())
    labels = [label for label, _ in commands(run)]
    assert (
        "Make this report (import the run first, with qeval import: that command is not kept in it)" in labels
    )
    known = dict(commands(replace(run, command=("qeval", "import", "table.csv"))))
    assert (known["Make the run"], "Make this report" in known) == ("qeval import table.csv", True)
