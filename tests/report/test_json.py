"""The JSON document: valid by its published schema, and the same numbers as the table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from factories import judge, make_run, with_cell

from qeval.base.costs import Cost, Timing
from qeval.base.records import Policy, Result, Rule
from qeval.compare.evidence import gather
from qeval.report.formats.json import SCHEMA, document

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def schema():
    made = json.loads((DOCS / "schema" / f"run-v{SCHEMA}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(made)
    return made


def made_document():
    run, read, _ = make_run(3, n_items=60, effect=-0.05)
    cost = Cost("CPU", 1.0, 2**20, {"prefill": Timing(1.0, 0.9, 1.1, 3, "ms/token")}, ("small",))
    run = replace(run, results=(replace(run.results[0], cost=cost), *run.results[1:]))
    decisions = judge(run, read, Policy((Rule(max_drop=1.0),)))
    return run, document(gather(run, read), decisions)


def test_the_document_is_valid_by_its_schema(schema):
    _, made = made_document()
    jsonschema.validate(json.loads(json.dumps(made, allow_nan=False)), schema)


def test_a_failed_and_a_not_finite_run_are_valid_too(schema):
    run, read, _ = make_run(2, n_items=10)
    run = with_cell(run, "fp16", "arc", score=math.nan)
    run = replace(run, results=(run.results[0], Result(run.results[1].variant, "failed", error="no")))
    made = json.loads(json.dumps(document(gather(run, read)), allow_nan=False))
    jsonschema.validate(made, schema)
    assert made["variants"][0]["scores"][0]["score"] is None


def test_the_schema_knows_every_key(schema):
    """A key added to the records must be added to the schema and to its documentation."""
    _, made = made_document()
    text = (DOCS / "json.md").read_text()

    def walk(value, rules, path):
        rules = schema["$defs"][rules["$ref"].rpartition("/")[2]] if "$ref" in rules else rules
        if "anyOf" in rules:
            rules = next(rule for rule in rules["anyOf"] if rule.get("type") != "null")
            return walk(value, rules, path)
        if isinstance(value, dict) and "properties" in rules:
            assert set(value) == set(rules["properties"]), path
            assert all(f"`{key}`" in text for key in value), path
            for key, entry in value.items():
                walk(entry, rules["properties"][key], f"{path}.{key}")
        if isinstance(value, list) and value and "items" in rules:
            walk(value[0], rules["items"], f"{path}[]")
        return None

    walk(made, schema, "")


def test_ratios_stand_beside_perplexities():
    run, made = made_document()
    row = next(c for c in made["comparisons"] if c["kind"] == "perplexity")
    ratio = row["perplexity_ratio"]
    assert ratio["low"] < ratio["value"] < ratio["high"]
    assert ratio["value"] == pytest.approx(math.exp(row["baseline"] - row["candidate"]))
    assert made["run"]["id"] == run.id
