"""The published schema is what the records say: it is generated, and nobody edits it by hand."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
from factories import make_run

from qeval.base import records
from qeval.base.records import Rule, Stop
from qeval.compare.evidence import gather
from qeval.report.formats.json import SCHEMA, document
from qeval.report.history import documents
from qeval.report.history.lines import history
from qeval.report.history.series import Source, Wanted

FOLDER = Path(__file__).parents[2] / "docs" / "schema"


@pytest.fixture(scope="module")
def made() -> Iterator[ModuleType]:
    """docs/schema/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("schema_generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # where msgspec looks for what annotations name
        spec.loader.exec_module(module)
        yield module


def test_the_committed_schema_is_the_generated_one(made: ModuleType) -> None:
    assert made.PLACE.read_text("utf-8") == made.text(), "after a look at the difference: make docs"
    assert FOLDER / f"run-v{SCHEMA}.json" == made.PLACE


def test_so_is_that_of_a_history(made: ModuleType) -> None:
    found = made.schema_of_history()
    assert made.PLACE_OF_HISTORY.read_text("utf-8") == made.text(found), (
        "after a look at the difference: make docs"
    )
    assert FOLDER / f"history-v{documents.SCHEMA}.json" == made.PLACE_OF_HISTORY


def test_a_history_is_what_its_schema_says_and_the_page_tells_every_key(made: ModuleType) -> None:
    run, read, _ = make_run(3, n_items=10)
    failed = replace(run.results[2], status="failed", cells=(), error="it broke")
    run = replace(run, results=(*run.results[:2], failed))
    found = history([Source(run, read, gather(run, read))], Wanted(), unread=[("d", "damaged")])
    told = documents.document(found)
    schema = made.schema_of_history()
    jsonschema.validate(told, schema)
    page = (FOLDER.parent / "history.md").read_text("utf-8").partition("## The JSON document")[2]
    keys = set(re.findall(r"`([a-z]+)`", page))
    for part in (schema, *schema["$defs"].values()):
        assert set(part.get("properties", ())) <= keys
    for name, one in (("Series", told["series"][0]), ("Point", told["series"][0]["points"][0])):
        assert set(one) == set(schema["$defs"][name]["properties"])


@pytest.mark.parametrize("name", ["Cell", "Comparison", "Decision", "Provenance", "Rule", "Settings", "Task"])
def test_every_field_of_a_record_is_a_key_that_is_always_there(made: ModuleType, name: str) -> None:
    rules = made.schema()["$defs"][name]
    keys = {field.name for field in fields(getattr(records, name))}
    assert keys <= set(rules["properties"])
    assert set(rules["required"]) == set(rules["properties"])


@pytest.mark.slow
def test_a_variant_that_was_stopped_early_is_valid_and_an_unknown_status_is_not(made: ModuleType) -> None:
    run, read, _ = make_run(2, n_items=10)
    stopped = replace(
        run.results[1], status="stopped", error="it broke", stop=Stop("arc", Rule(max_drop=1.0), 5, 10)
    )
    run = replace(run, results=(run.results[0], stopped))
    told = document(gather(run, read))
    jsonschema.validate(told, made.schema())
    told["variants"][1]["status"] = "halted"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, made.schema())
