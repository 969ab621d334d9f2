"""The damage matrix: whatever becomes of a file of a run, no command ends in a traceback or judges what is
damaged, and the same command makes all as it was before, byte for byte."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from in_process import in_this_process

from qeval.run.executors import EXECUTORS

pytestmark = pytest.mark.slow

TASKS = ("--tasks", "qeval_facts,qeval_words", "--verify", "2")
RUN = ("run", "--model", "toy[items=30]", "--schemes", "fp16,bnb4", *TASKS)
GATE = ("--max-drop", "60", "--allow-identical")
FILES = ("run.json", "cell.json", "samples.parquet", "made-of.json", "verified.json", "items", ".newest")
"""The files of a run; `items` stands for one of the files of texts."""


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unreadable(path: Path) -> None:
    """For root too, whom no mode keeps out."""
    path.unlink()
    path.symlink_to(path)


KINDS = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncate,
    "a flipped bit": flip,
    "wrong JSON": lambda path: path.write_text('{"a": [null, 1e999, "\\ud800"]}'),
    "null": lambda path: path.write_text("null"),
    "a directory": a_directory,
    "unreadable": unreadable,
}
COMMANDS = {
    "show": ("show",),
    "gate": ("gate", *GATE),
    "report": ("report", "-o", "OUT/r.md", "-o", "OUT/r.json"),
    "export": ("export", "--to", "lm-eval", "-o", "OUT/lm-eval"),
    "export csv": ("export", "--to", "csv", "-o", "OUT/csv"),
    "plan": ("plan", "--from", "RUN"),
    "list": ("list", "runs"),
}


class World:
    """A directory of runs, and what commands say of it."""

    def __init__(self, root: Path) -> None:
        self.runs, self.out = root / "runs", root / "out"

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, what is printed and written (but for where), and what is said beside it."""
        from qeval.cli.main import main

        shutil.rmtree(self.out, ignore_errors=True)
        told = [word.replace("OUT/", f"{self.out}/") for word in words]
        told = [self.run.name if word == "RUN" else word for word in told]
        result = CliRunner(env={"QEVAL_RUNS_DIR": str(self.runs)}).invoke(main, told)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "unforeseen" not in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
        written = [
            f"{path.name}\n{path.read_text()}" for path in sorted(self.out.rglob("*")) if path.is_file()
        ]
        shown = "\n".join([result.stdout, *written]).replace(str(self.runs.parent), "")
        return result.exit_code, shown, result.stderr

    @property
    def run(self) -> Path:
        return next(path for path in self.runs.iterdir() if path.is_dir() and path.name != ".newest")

    def file(self, name: str) -> Path:
        """A file of the run; of the cells, the first in the order of names."""
        if name == ".newest":
            return self.runs / name
        if name == "items":
            return min(self.run.glob("items/*"))
        return self.run / name if name == "run.json" else min(self.run.glob(f"cells/*/{name}"))

    def tree(self) -> dict[str, bytes | None]:
        """Every file and directory but logs; None for a directory."""
        return {
            str(path.relative_to(self.runs)): path.read_bytes() if path.is_file() else None
            for path in sorted(self.runs.rglob("*"))
            if "logs" not in path.parts
        }


@pytest.fixture(scope="module", autouse=True)
def _quiet_world():
    """The clock stands still, and the toy is scored in this process."""
    from qeval.run import keeping
    from qeval.score import cells, worker

    class Clock:
        now = staticmethod(lambda tz: dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXECUTORS, "local", functools.partial(in_this_process, None))  # the toy forks nothing
        for module in (keeping, cells):
            patch.setattr(module, "dt", SimpleNamespace(datetime=Clock, UTC=dt.UTC))
        patch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: 1.0))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """A world with one run, and what every command says of it."""
    world = World(tmp_path_factory.mktemp("whole"))
    first = world(*RUN)
    assert first[0] == 0, first
    return world, first, {name: world(*words) for name, words in COMMANDS.items()}


@pytest.fixture
def copy(whole, tmp_path: Path) -> World:
    """A copy of that world, which may be damaged."""
    world = World(tmp_path)
    shutil.copytree(whole[0].runs, world.runs, copy_function=shutil.copy2)
    return world


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_said_and_never_judged_and_healed_by_the_same_command(whole, copy, name, kind) -> None:
    before, first, said = whole
    KINDS[kind](copy.file(name))
    for command, words in COMMANDS.items():
        code, shown, beside = copy(*words)
        as_ever = (code, shown) == said[command][:2]
        refused = code in {1, 5} and "Error: " in beside and not (command == "gate" and "PASS" in shown)
        assert as_ever or refused or command == "list", (command, code, shown, beside)
    code, shown, beside = copy(*RUN)
    assert (code, shown) == first[:2], beside
    assert copy.tree() == before.tree()
    again = copy(*COMMANDS["gate"])
    assert again[:2] == said["gate"][:2]


@pytest.mark.parametrize("kind", ["missing", "a flipped bit", "a directory"])
@pytest.mark.parametrize("name", FILES)
def test_so_does_again(whole, copy, name, kind) -> None:
    KINDS[kind](copy.file(name))
    code, shown, beside = copy(*RUN, "--again")
    assert (code, shown) == whole[1][:2], beside
    told = copy.tree()
    assert told.pop(f"{copy.run.name}/run.json").replace(b"--again", b"")
    assert told == {path: data for path, data in whole[0].tree().items() if not path.endswith("run.json")}


def test_several_files_are_healed_at_once(whole, copy) -> None:
    for name, damage in zip(FILES, (*KINDS.values(),), strict=False):
        damage(copy.file(name))
    assert copy(*RUN)[:2] == whole[1][:2]
    assert copy.tree() == whole[0].tree()


def test_what_another_run_holds_is_taken_over_in_the_place_of_what_is_damaged(copy) -> None:
    less = ("run", "--model", "toy[items=30]", "--schemes", "fp16", "--tasks", "qeval_words", "--verify", "2")
    whole_run = copy.run
    assert copy(*less)[0] == 0
    [other] = [path.parent for path in copy.runs.glob("*/run.json") if path.parent != whole_run]
    before = copy.tree()
    for name in ("samples.parquet", "cell.json", "items"):
        [file] = other.glob("items/*" if name == "items" else f"cells/*/{name}")
        file.unlink()  # a link of the other's
        file.write_bytes(b"x")
        assert copy(*less)[0] == 0
        assert copy.tree() == before


def test_only_what_is_damaged_is_scored_again(copy) -> None:
    copy.file("samples.parquet").write_bytes(b"")
    beside = copy(*RUN)[2]
    assert beside.count("finished earlier") == 2  # a variant, and the other task of the damaged one
    assert beside.count("1 task to score") == 1
    assert copy(*RUN)[2].count("finished earlier") == 2


def test_what_a_person_put_in_a_place_is_not_deleted(copy) -> None:
    file = copy.file("run.json")
    a_directory(file)
    (file / "thesis.tex").write_text("x")
    code, _, beside = copy(*RUN)
    assert code == 1
    assert "Directory not empty" in beside
    assert (file / "thesis.tex").read_text() == "x"


# --- the remedies that errors name ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "samples.parquet", "items"])
def test_the_remedy_for_damage_is_the_same_command(whole, copy, name) -> None:
    flip(copy.file(name))
    code, _, beside = copy(*COMMANDS["report"])
    assert code == 1
    assert "by the same command" in beside
    assert copy(*RUN)[0] == 0
    assert copy(*COMMANDS["report"])[:2] == whole[2]["report"][:2]


def test_the_remedy_for_damaged_imports_is_the_same_command(qeval, tmp_path: Path) -> None:
    qeval(*RUN)
    qeval("export", "--to", "lm-eval", "-o", tmp_path / "out")
    words = ("import", tmp_path / "out", "--baseline", "toy[items=30][scheme=fp16]")
    place = Path(qeval(*words).stdout.strip())
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for path in before:
        flip(path)
        assert "unforeseen" not in qeval("gate", place, *GATE, code=None).stderr
        qeval(*words)
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_the_remedies_of_a_run_that_is_not_found(qeval, tmp_path: Path) -> None:
    assert "Make one with: qeval run --model demo" in qeval("show", code=1).stderr
    assert "Make one with: qeval run --model demo" in qeval("show", "x", code=1).stderr
    qeval("list", "runs")
    (tmp_path / "empty").mkdir()
    assert "qeval list runs" in qeval("show", tmp_path / "empty", code=1).stderr
    qeval("run", "--model", "toy[items=20,fail=fp16]", "--schemes", "fp16,bnb4", *TASKS, code=1)
    qeval(*RUN)
    listed = qeval("list", "runs", "--json").stdout
    said = qeval("show", "toy", code=1).stderr
    assert "Write one of: " in said
    for name in said.split("Write one of: ")[1].strip().rstrip(".").split(", "):
        assert name in listed
        qeval("show", name)


def test_the_remedy_for_a_newest_run_that_has_no_results(qeval, runs_dir: Path) -> None:
    qeval(*RUN)
    (runs_dir / ".newest").write_text("")
    said = qeval("gate", *GATE, code=5).stderr
    assert "Run it again, or name a run" in said
    [name] = [path.parent.name for path in runs_dir.glob("*/run.json")]
    assert name in qeval("list", "runs", "--json").stdout
    qeval("gate", name, *GATE)
    qeval(*RUN)
    qeval("gate", *GATE)


def test_whichever_cell_is_lost_the_run_is_as_it_was(copy: World) -> None:
    """Which comes first by name is a matter of keys, so each is lost once."""
    before = copy.tree()
    for cell in sorted(copy.run.glob("cells/*/cell.json")):
        cell.unlink()
        assert copy(*RUN)[0] == 0
        assert copy.tree() == before


@pytest.mark.parametrize("kind", ["a file", "a circle of links", "a FIFO"])
@pytest.mark.parametrize("name", ["a cell", ".lock", "cells", "items"])
def test_what_stands_in_the_place_of_a_directory_is_healed_or_named(whole, copy, name, kind) -> None:
    place = min(copy.run.glob("cells/*")) if name == "a cell" else copy.run / name
    shutil.rmtree(place, ignore_errors=True)
    if kind == "a file":
        place.write_text("x")
    elif kind == "a FIFO":
        os.mkfifo(place)
    else:
        place.symlink_to(place)
    for words in COMMANDS.values():
        copy(*words)
    code, shown, beside = copy(*RUN)
    if name in {"a cell", ".lock"}:
        assert (code, shown) == whole[1][:2], beside
    else:
        assert code == 1
        assert f"{place} cannot be used: File exists. Move away what is there" in beside
        place.unlink()
        assert copy(*RUN)[:2] == whole[1][:2]
    assert copy.tree() == whole[0].tree()


def _lies(result: dict) -> None:
    result["cells"][0]["score"] = 0.99


def _says_twice(result: dict) -> None:
    result["cells"] *= 2


@pytest.mark.parametrize(
    ("damage", "said"), [(_lies, "not 0.99 as their"), (_says_twice, "has two scores of")]
)
def test_a_run_that_tells_another_score_or_two_is_mended_by_the_same_command(
    qeval, runs_dir: Path, damage, said: str
) -> None:
    words = ("run", "--model", "toy[items=20]", "--schemes", "fp16,bnb4", "--tasks", "arc_easy")
    qeval(*words)
    (file,) = runs_dir.glob("*/run.json")
    before = qeval("gate", *GATE).stdout.splitlines()[1:]  # the first has the date
    found = json.loads(file.read_text())
    found.pop("checksum")  # as in a run of an older version
    damage(found["results"][1])
    file.write_text(json.dumps(found))
    assert said in qeval("gate", *GATE, code=1).stderr
    qeval(*words)
    assert qeval("gate", *GATE).stdout.splitlines()[1:] == before
