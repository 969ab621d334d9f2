"""`make audit` names the licence of everything that qeval needs, and goes on without a network."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

AUDIT = Path(__file__).parents[1] / "docs" / "audit.py"


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", AUDIT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_that_is_needed_names_its_licence(audit) -> None:
    packages = audit.needed()
    assert {"qeval", "torch", "click", "jinja2", "markupsafe", "hypothesis"} <= packages.keys()
    assert audit.licence(packages["qeval"]) == "Apache-2.0"
    assert [name for name, one in packages.items() if audit.licence(one) == "not named"] == []


LOOKED_UP = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]},
        {"name": "c", "skip_reason": "not found"},
    ]
}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "nothing was looked up"),
        (json.dumps({"dependencies": [{"name": "c", "skip_reason": "not found"}]}), "nothing was looked up"),
        (
            json.dumps(LOOKED_UP),
            "b 2: PYSEC-1, fixed in 3\n2 packages were looked up, 1 could not be; 1 findings.",
        ),
    ],
)
def test_what_pip_audit_found_is_told_and_that_it_could_not_look(audit, monkeypatch, said, told) -> None:
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda _: True)
    done = subprocess.CompletedProcess((), 1, said, "ConnectionError: Max retries exceeded")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    assert told in audit.audit()


def test_without_pip_audit_it_says_how_to_get_it(audit, monkeypatch) -> None:
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda _: None)
    assert "pip install pip-audit" in audit.audit()
