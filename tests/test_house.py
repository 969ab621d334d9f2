"""The plan of the house: which folder may import which, what stays light, and how long a file may grow."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qeval"
ALLOWED = {
    "cli": {"run", "exchange", "report", "ask", "score", "judge", "load", "compare", "store", "base"},
    "run": {"ask", "load", "judge", "compare", "store", "base"},
    "exchange": {"store", "compare", "score", "base"},
    "report": {"judge", "compare", "base"},
    "score": {"load", "judge", "store", "compare", "base"},
    "ask": {"load", "base"},
    "judge": {"compare", "base"},
    "compare": {"base"},
    "load": {"base"},
    "store": {"base"},
    "base": set(),
}
"""One row a folder of qeval/: the folders that it may import anything of, lazily or not."""
NAMED = {("run", "score"): {"qeval.score.worker"}}
"""Modules of a folder that another one names in a string only, to start them as processes of their own."""
ONLY = {("exchange", "score"): "qeval.score.harness.rules"}
"""Where a folder may import one module alone of another."""
HEAVY = frozenset(
    [
        "torch",
        "transformers",
        "lm_eval",
        "datasets",
        "bitsandbytes",
        "gptqmodel",
        "optimum",
        "accelerate",
        "peft",
    ]
)
LIGHT = ("ask", "base", "compare", "exchange", "judge", "report", "run", "store")
MOST_ARROWS, MOST_LINES, MOST_AT_THE_ROOT = 45, 400, 4
FILES = sorted(PACKAGE.rglob("*.py"))


def _folder(path: Path) -> str:
    """The folder of qeval/ that a file belongs to, "" for those at the root."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """Whatever a file holds, at any depth."""
    return tuple(ast.walk(_tree(path)))


@functools.cache
def _names(path: Path) -> frozenset[str]:
    """Every module, or name in a module, that a file imports anywhere: in functions and for types too."""
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@functools.cache
def _strings(path: Path) -> frozenset[str]:
    """The modules of qeval that a file names in strings of their own."""
    constants = (node.value for node in _nodes(path) if isinstance(node, ast.Constant))
    words = {text for text in constants if isinstance(text, str) and re.fullmatch(r"qeval(\.\w+)+", text)}
    return frozenset(
        word for word in words if (PACKAGE.parent / word.replace(".", "/")).with_suffix(".py").exists()
    )


def _arrows(names: dict[Path, frozenset[str]]) -> dict[tuple[str, str], set[str]]:
    """(folder, folder that it reaches into) and what it takes there."""
    arrows: dict[tuple[str, str], set[str]] = {}
    for path, found in names.items():
        for name in found:
            parts = name.split(".")
            if parts[0] == "qeval" and len(parts) > 1 and parts[1] in ALLOWED and parts[1] != _folder(path):
                arrows.setdefault((_folder(path), parts[1]), set()).add(name)
    return arrows


def _where(paths: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


def test_every_folder_has_a_row_and_every_row_a_folder() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders == set(ALLOWED)
    assert set(ALLOWED) >= {target for row in ALLOWED.values() for target in row}


def test_imports_point_one_way() -> None:
    for (folder, target), names in _arrows({path: _names(path) for path in FILES}).items():
        if folder:
            assert target in ALLOWED[folder], f"{folder} may not import {sorted(names)}"
        only = ONLY.get((folder, target))
        assert only is None or all(name.startswith(only) for name in names), (folder, sorted(names))


def test_a_folder_that_only_names_another_starts_it_as_a_process() -> None:
    named = _arrows({path: _strings(path) for path in FILES})
    upward = {arrow: names for arrow, names in named.items() if arrow[1] not in ALLOWED.get(arrow[0], set())}
    assert upward == NAMED


def test_nothing_goes_round_in_a_circle() -> None:
    assert _circle(ALLOWED) == []
    known = {_dotted(path): path for path in FILES}
    graph = {
        _dotted(path): {_module(name, known) for name in _at_start(path)} - {"", _dotted(path)}
        for path in FILES
    }
    assert _circle(graph) == []
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some names each of which leads to the next and the last to the first; none where there is no circle."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def _dotted(path: Path) -> str:
    parts = ("qeval", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(name: str, known: dict[str, Path]) -> str:
    """The module that an imported name belongs to, "" where it is none of ours."""
    return name if name in known else name.rpartition(".")[0] if name.rpartition(".")[0] in known else ""


def _at_start(path: Path) -> set[str]:
    """What a file imports when it is imported itself."""
    found = set()
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_arrows_between_folders_stay_few() -> None:
    imported = _arrows({path: _names(path) for path in FILES})
    named = _arrows({path: _strings(path) for path in FILES})
    assert len(set(imported) | set(named)) <= MOST_ARROWS


def test_the_root_stays_empty() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_ROOT


def test_what_judges_a_run_never_imports_what_scores_it() -> None:
    light = {path: _names(path) for path in FILES if _folder(path) in LIGHT}
    assert _where(p for p, names in light.items() if any(n.split(".")[0] in HEAVY for n in names)) == []


@pytest.mark.slow
def test_importing_what_judges_a_run_loads_nothing_heavy() -> None:
    modules = [_dotted(path) for path in FILES if _folder(path) in (*LIGHT, "cli")]
    names = ", ".join(["qeval.load.schemes", *modules])
    code = f"import sys, {names}; print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_file_says_in_its_first_line_what_it_is_for() -> None:
    assert _where(path for path in FILES if not path.read_text().startswith('"""')) == []


def test_no_file_holds_more_than_a_reader_takes_in() -> None:
    assert _where(path for path in FILES if len(path.read_text().splitlines()) > MOST_LINES) == []


OPENS = {"read_text", "read_bytes", "open", "safe_open", "load_file", "DictReader", "ParquetFile"}
OPENS_IN_FULL = {"np.load", "torch.load", "yaml.load", "json.load", "tomllib.load", "tomllib.loads"}
"""What opens or parses a file from outside without a look at what it is."""
BARE = {
    "ask/harness_config.py:_read": "text that came in by the door",
    "score/harness/written.py:written": "text that came in by the door",
    "base/contents.py:_block": "hashes a file of any size in blocks, which `stamp` has looked at",
    "base/elsewhere.py:_places": "parses YAML whose text came in by the door",
    "base/files.py:_write_through": "writes",
    "base/installed.py:_direct_url": "what pip noted, by importlib",
    "base/installed.py:url": "pyproject.toml of the checkout that runs",
    "base/redirect.py:libraries_to": "writes a log",
    "base/uses.py:hold": "a lock, which is never read",
    "base/uses.py:unused": "a lock, which is never read",
    "cli/fidelity.py:fidelity": "a run, not a file",
    "cli/options.py:open_runs": "a run, not a file",
    "cli/pages.py:_places": "runs, not files",
    "cli/report.py:_earlier": "a run, not a file",
    "score/clock.py:_age": "two lines of the kernel's, of this process",
    "cli/view.py:_serve": "a browser",
    "cli/view.py:_show_one": "a browser",
    "cli/view.py:view": "runs, not files",
    "cli/streams.py:_fill": "the null device in place of a closed stream",
    "cli/streams.py:abandon": "the null device in place of a full stdout",
    "judge/formats/__init__.py:_append": "appends to the summary that GitHub names",
    "load/hub_book.py:sum_of": "hashes a file of any size, which is_file has looked at",
    "load/device.py:_cpu_name": "the kernel's own",
    "load/making/calibration.py:_own_text": "a file of the package",
    "load/making/kept.py:tensors": "a checkpoint that this very process writes",
    "load/making/kept.py:aside": "a checkpoint that this very process writes",
    "load/making/kept.py:_join": "a checkpoint that this very process writes",
    "load/memory.py:_allowed": "the kernel's own",
    "load/memory.py:peak_of_process": "the kernel's own",
    "load/reading/headers.py:_handle": "weights by safetensors, which looks at them itself",
    "load/reading/unused.py:_open": "weights by torch, as data alone",
    "load/schemes/__init__.py:here": "a file of the package",
    "report/formats/html.py:_joined": "files of the package",
    "run/workers.py:_log": "writes a log",
    "score/fidelity/inputs.py:__init__": "the cache's own, whose hash was looked at",
    "score/fidelity/inputs.py:_write_states": "writes the cache",
    "score/harness/cache.py:read_prepared": "the cache, in which what is damaged counts as missing",
    "score/harness/cache.py:write_prepared": "writes the cache",
    "score/worker.py:_print_to": "writes a log",
    "store/lock.py:_alone": "a directory, to lock it",
    "store/shards.py:_opened": "makes the file whose bytes are locked",
    "store/shards.py:begin": "counts tries in a file of its own",
    "run/ahead.py:_read": "reads nothing itself, and is_file has looked at it",
    "exchange/readers/lighteval.py:_rows": "bytes that came in by the door",
    "store/columns.py:file_table": "bytes that came in by the door",
    "store/unpacking.py:too_long": "bytes that came in by the door",
}
"""Where that may be all the same, and why."""
DOOR = "base/reading.py"


def _opens(node: ast.AST) -> bool:
    """Whether it is a call that opens or parses a file."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
        return False
    last = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
    return last in OPENS or (last.startswith("load") and ast.unparse(node.func) in OPENS_IN_FULL)


def _bare(path: Path) -> Iterable[str]:
    """The functions of a file that open one."""
    opening = {node for node in _nodes(path) if _opens(node)}
    for function in _nodes(path) if opening else ():
        if isinstance(function, ast.FunctionDef) and not opening.isdisjoint(ast.walk(function)):
            yield f"{path.relative_to(PACKAGE).as_posix()}:{function.name}"


def test_files_from_outside_come_in_by_one_door() -> None:
    found = {place for path in FILES for place in _bare(path) if not place.startswith(DOOR)}
    assert found - set(BARE) == set(), f"read it by {DOOR}, or say here why not"
    assert set(BARE) - found <= {"run/workers.py:_log"}, "nothing of the kind is there any more"
