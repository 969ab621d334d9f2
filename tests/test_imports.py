"""Imports point one way, and what judges a run never needs what scored it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qeval"
HEAVY = {
    "torch",
    "transformers",
    "lm_eval",
    "datasets",
    "bitsandbytes",
    "gptqmodel",
    "optimum",
    "accelerate",
    "peft",
}
# Each module may import those of a lower line only; modules of one line not each other.
LAYERS = [
    {"errors"},
    {"records", "sizes", "storage"},
    {"jobs", "stats", "suites", "store", "toy", "demo_model", "calibration", "betting"},
    {"sources"},
    {"schemes", "policy", "plan", "scoring"},
    {"compare", "memory"},
    {"models", "gate", "importers"},
    {"harness", "cost", "doctor", "gate_formats", "document", "terminal", "report"},
    {"session"},
    {"worker", "executors"},
    {"runner", "progress", "listing"},
    {"cli"},
    {"__main__"},
]
LIGHT = {
    "compare",
    "gate",
    "gate_formats",
    "policy",
    "plan",
    "report",
    "stats",
    "store",
    "terminal",
    "document",
}
LIGHT |= {
    "importers",
    "listing",
    "suites",
    "toy",
    "runner",
    "progress",
    "executors",
    "cli",
    "records",
    "betting",
}


def _module(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Top-level names (of qeval, or of others) that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def _layer(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if module in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = _module(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "qeval" and len(parts) > 1 and (PACKAGE / parts[1]).with_suffix(".py").exists():
            assert parts[1] == own or _layer(parts[1]) < _layer(own), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_judges_a_run_never_imports_what_scores_it(path: Path) -> None:
    if _module(path) in LIGHT:
        heavy = {name for name in _imports(path) if name.split(".")[0] in HEAVY}
        assert heavy == set()


@pytest.mark.parametrize("module", sorted(LIGHT | {"schemes"}))
def test_importing_it_loads_no_torch(module: str) -> None:
    code = f"import sys, qeval.{module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_file_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith('"""')
