"""Imports point one way, and what judges a run never needs what scored it."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from graphlib import TopologicalSorter
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
# What each part may never import, whatever the reason.
FORBIDDEN = {
    "errors": {"*"},
    "records": {"*"},
    "stats": {"*", "-errors"},
    "scoring": {"harness", "models", "schemes", "store", "session"},
    "schemes": {"harness", "models", "scoring", "store", "session"},
    "harness": {"models", "schemes", "store", "session"},
    "compare": {"store", "harness", "models", "scoring", "schemes", "report", "gate"},
    "gate": {"store", "harness", "models", "scoring", "schemes", "report"},
    "report": {"harness", "models", "scoring", "schemes", "session", "runner"},
    "session": {"runner", "executors", "compare", "gate", "report"},
    "orders": {"runner", "executors", "session", "worker", "models", "scoring", "report", "store"},
    "runner": {"session", "worker", "models", "scoring", "report"},
}
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
    "orders",
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


@functools.cache
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


@functools.cache
def _arrows() -> dict[str, set[str]]:
    """Each module of the package (a folder counts as one), and those that it imports anywhere."""
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        own = _module(path)
        found = arrows.setdefault(own, set())
        for parts in (name.split(".") for name in _imports(path)):
            known = len(parts) > 1 and (
                (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists()
            )
            if parts[0] == "qeval" and known and parts[1] != own:
                found.add(parts[1])
    return arrows


def test_no_import_goes_round_in_a_circle() -> None:
    order = list(TopologicalSorter(_arrows()).static_order())  # raises CycleError and names the circle
    assert order[-1] == "__main__"


@pytest.mark.parametrize(("module", "never"), FORBIDDEN.items())
def test_imports_point_one_way(module: str, never: set[str]) -> None:
    found = _arrows()[module]
    allowed = {name.removeprefix("-") for name in never if name.startswith("-")}
    assert (found - allowed if "*" in never else found & never) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_judges_a_run_never_imports_what_scores_it(path: Path) -> None:
    if _module(path) in LIGHT:
        heavy = {name for name in _imports(path) if name.split(".")[0] in HEAVY}
        assert heavy == set()


def test_importing_what_judges_a_run_loads_nothing_heavy() -> None:
    modules = ", ".join(f"qeval.{module}" for module in sorted(LIGHT | {"schemes"}))
    code = f"import sys, {modules}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_file_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith('"""')
