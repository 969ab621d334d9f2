"""Everything that comes in through the command line: each bad file, name and number ends in a sentence."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import KINDS, node, put, rehashed, resummed
from harness_files import letters, results, write
from stored import store, whole

from qeval.cli import surprises
from qeval.store import unpacking
from qeval.store.newest import NEWEST_FILE

pytestmark = pytest.mark.slow

ROWS = "variant,task,score,n\na,x,0.5,100\nb,x,0.4,100\n"
PAIR = ("--baseline", "a")


def refused(result, *codes):
    """What a command said that ended in a sentence and a remedy."""
    assert result.exit_code in codes, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
    error, _, hint = result.stderr.rpartition("Error: ")[2].partition("\n")
    assert "unforeseen" not in result.stderr
    assert "Traceback" not in result.stderr
    assert error.strip()
    assert hint.strip() or "Usage:" in result.stderr
    return error


def suite_of(place):
    return ("run", "--model", "toy", "--suite", place)


READERS = {
    "scores.csv": lambda place: ("import", "--scores", place),
    "scores.toml": lambda place: ("import", "--scores", place),
    "policy.toml": lambda place: ("gate", "--policy", place),
    "suite.toml": suite_of,
    "suite.yaml": suite_of,
    "results_x.json": lambda place: ("import", place.parent),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_a_bad_file_is_a_sentence(qeval, tmp_path, runs_dir, name, kind):
    store(runs_dir)
    before = sorted(runs_dir.iterdir())
    place = put(tmp_path / "in" / name, kind)
    if not place.parent.exists():
        place.parent.mkdir()
    begun = time.monotonic()
    refused(qeval(*READERS[name](place), code=None), 1, 2)
    assert time.monotonic() - begun < 30
    assert sorted(path for path in runs_dir.iterdir() if path.name != NEWEST_FILE) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "missing"])
def test_bad_samples_of_lm_eval_are_a_sentence(qeval, tmp_path, runs_dir, kind):
    place = write(tmp_path / "out", results("letters"))
    put(next(place.glob("samples*")), kind)
    refused(qeval("import", place, code=None), 1)
    assert not runs_dir.exists()


def test_missing_samples_of_lm_eval_leave_a_score(qeval, tmp_path):
    place = write(tmp_path / "out", results("letters"))
    put(next(place.glob("samples*")), "missing")
    assert "No samples of letters" in qeval("import", place).stderr


@pytest.mark.parametrize("line", ["null", "3", '"x"', "[]", "true", "[" * 1000, '{"a": ' + "9" * 5000 + "}"])
def test_a_line_that_is_no_sample_is_a_sentence(qeval, tmp_path, line):
    place = write(tmp_path / "out", results("letters"))
    file = next(place.glob("samples*"))
    file.write_text(f"{file.read_text()}{line}\n")
    refused(qeval("import", place, code=None), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["run.json", "cells/*/samples.parquet", "items/*.parquet"])
def test_a_bad_file_of_a_run_decides_nothing(qeval, tmp_path, runs_dir, what, kind):
    run = runs_dir / store(runs_dir)
    put(min(run.glob(what)), kind)
    report = ("report", run, "-o", tmp_path / "report.html")
    for words in (("gate", run, "--max-drop", "90"), ("show", run), report):
        if what.startswith("items") and words != report:
            continue
        refused(qeval(*words, code=None), 1)
    assert run.name in qeval("list", "runs").stdout or what == "run.json"


def test_an_unreadable_directory_is_not_passed_over(qeval, tmp_path, monkeypatch):
    place = write(tmp_path / "out" / "one", results("letters")).parent
    (place / "two").mkdir()
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("two"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "two cannot be opened: Permission denied" in refused(qeval("import", place, code=None), 1)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "-rf", "a\\nb", "x" * 300, "\\u0000", "~/x"])
def test_a_table_names_no_place_outside(qeval, tmp_path, runs_dir, name):
    file = tmp_path / "in" / "scores.toml"
    file.parent.mkdir()
    rows = '[[score]]\nvariant = "{}"\ntask = "x"\nscore = 0.5\nn = 100\n'
    head = f'name = "{name}"\nbaseline = "a"\n'
    file.write_text(head + rows.format("a") + rows.format("b"))
    result = qeval("import", "--scores", file, code=None)
    if result.exit_code:
        refused(result, 2)
        return
    place = Path(result.stdout.strip())
    assert place.parent == runs_dir
    assert not place.name.startswith("-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "runs"]
    qeval("show", place)
    qeval("report", place, "-o", tmp_path / "report.html")


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", "..", "a\nb", "a\0b", "x" * 300])
def test_a_stored_run_with_an_odd_id_is_refused(qeval, runs_dir, name):
    run = runs_dir / store(runs_dir)
    edit(run, lambda table: table.update(id=name))
    assert "no name of a directory" in refused(qeval("show", run, code=None), 1)


@pytest.mark.parametrize("key", ["../../x", "/etc/passwd", "..", "a\nb"])
def test_a_stored_key_leads_nowhere_else(qeval, runs_dir, key):
    run = runs_dir / store(runs_dir)
    edit(run, lambda table: table["results"][0]["cells"][0].update(key=key))
    assert "outside of the run" in refused(qeval("gate", run, "--max-drop", "90", code=None), 1)


@pytest.mark.parametrize("words", [
    ("show",), ("gate", "--max-drop", "5"), ("gate", "--policy"), ("report", "-o", "r.md"), ("report", "-o"),
    ("export", "--to", "csv", "-o"), ("plan", "--from"), ("plan", "--suite"), ("import",),
    ("import", "--scores"), ("run", "--model"), ("run", "--model", "toy", "--suite"),
    ("run", "--model", "toy", "--gate"), ("show", "--runs-dir"), ("list", "runs", "--runs-dir"),
    ("quantize", "-s", "gptq", "-o", "q", "-m"), ("gate", "--max-drop", "90", "--junit"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "\udcff", "a/" + "x" * 300])
def test_a_name_that_no_file_has_is_a_sentence(qeval, runs_dir, tmp_path, monkeypatch, words, name):
    store(runs_dir)
    monkeypatch.chdir(tmp_path)
    result = qeval(*words, name, code=None)
    assert "unforeseen" not in result.stderr
    assert "Traceback" not in result.stderr
    assert result.exit_code in {1, 2} or (words[0] == "list" and not result.exit_code) or "\udcff" in name


# --- numbers ------------------------------------------------------------------------------------


def edit(run, change):
    """Change a run's header, and make its checksum right again."""
    table = json.loads((run / "run.json").read_text())
    change(table)
    (run / "run.json").write_bytes(resummed(table))


HEADS = ['percent = "false"', "percent = 1", "percent = 0.0", "baseline = true", "average = [1]", "name = 3"]
VALUES = [
    "score = true", 'score = "0.5"', "n = true", "n = -100", "n = 0", "n = nan", "n = inf", "n = 1.5",
    "score = nan", "score = inf", "score = -0.1",
    'baseline = "true"', 'higher_is_better = "yes"', "stderr = -1.0",
    f"n = 1{'0' * 400}", "n = 1e400", f"n = 0x{'f' * 400}", f"n = {'9' * 5000}", "variant = 3", "task = []",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_another_type_is_refused(qeval, tmp_path, runs_dir, head):
    table(tmp_path, head, "score = 50.0", "n = 100")
    refused(qeval("import", "--scores", tmp_path / "s.toml", code=None), 2)
    assert not runs_dir.exists()


@pytest.mark.parametrize("value", VALUES)
def test_a_value_of_another_type_or_out_of_range_is_refused(qeval, tmp_path, runs_dir, value):
    said = {"score": "score = 0.5", "n": "n = 100", value.partition(" ")[0]: value}
    table(tmp_path, "", *said.values())
    refused(qeval("import", "--scores", tmp_path / "s.toml", *PAIR, code=None), 2)
    assert not runs_dir.exists()


def table(place, head, *row):
    """A table of two variants, the second of which has the row."""
    lines = [head] if "baseline" in head or not head else [head, 'baseline = "a"']
    names = {line.partition(" ")[0] for line in row}
    plain = [line for line in ('variant = "b"', 'task = "x"') if line.partition(" ")[0] not in names]
    first = [
        "[[score]]",
        'variant = "a"',
        'task = "x"',
        "score = 50.0" if "percent" in head else "score = 0.5",
    ]
    (place / "s.toml").write_text("\n".join([*lines, *first, "n = 100", "[[score]]", *plain, *row]))


@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-1", "true", "²", "1e400", "9" * 5000, "1e-5000", "x" * 140_000, "0x10", "1.5", ""],
)
def test_a_cell_of_a_csv_file_is_read_by_its_type(qeval, tmp_path, runs_dir, value):
    (tmp_path / "s.csv").write_text(f"{ROWS}b,y,0.5,{value}\n")
    refused(qeval("import", "--scores", tmp_path / "s.csv", *PAIR, code=None), 2)
    assert not runs_dir.exists()


CELL = [
    {"n": -1}, {"n": True}, {"n": 10**400}, {"n": None}, {"n": "3"}, {"n_available": 1}, {"score": None},
    {"score": True}, {"score": "0.5"}, {"truncated": -1}, {"tokens": -1}, {"seconds": -1.0}, {"texts": 10**6},
    {"files": {"other": "0" * 64}}, {"files": {"samples.parquet": "x"}}, {"files": []}, {"metrics": []},
]  # fmt: skip


@pytest.mark.parametrize("change", CELL, ids=str)
def test_a_cell_that_cannot_be_is_refused(qeval, runs_dir, change):
    run = runs_dir / store(runs_dir)
    edit(run, lambda table: table["results"][1]["cells"][0].update(change))
    refused(qeval("gate", run, "--max-drop", "90", code=None), 1)


@pytest.mark.parametrize("place", [0, 1])
def test_a_scored_cell_does_not_become_a_published_one(qeval, runs_dir, place):
    """Without its files it would be compared unpaired."""
    run = runs_dir / store(runs_dir)
    edit(run, lambda table: table["results"][place]["cells"][0].update(files={}))
    assert "names no items of" in refused(qeval("gate", run, "--max-drop", "90", code=None), 1)
    table = json.loads((run / "run.json").read_text())
    del table["checksum"]  # as older versions wrote it
    (run / "run.json").write_text(json.dumps(table))
    assert "names no items of" in refused(qeval("gate", run, "--max-drop", "90", code=None), 1)


@pytest.mark.parametrize(
    "change",
    [{"gpu_memory": -1}, {"limit": 0}, {"repeats": -3}, {"temperature": -1.0}, {"seed": "x"}, {"framed": 1}],
)
def test_settings_that_cannot_be_are_refused(qeval, runs_dir, change):
    run = runs_dir / store(runs_dir)
    edit(run, lambda table: table["settings"].update(change))
    refused(qeval("show", run, code=None), 1)


def columns(**changes):
    """A change of the columns of a table; None leaves one out."""

    def change(table):
        for name, value in changes.items():
            at = table.column_names.index(name)
            if value is None:
                table = table.remove_column(at)
            else:
                table = table.set_column(at, name, value(table.column(name).to_pylist()))
        return table

    return change


def first(value, kind=None):
    return lambda old: pa.array([value, *old[1:]], kind)


SAMPLES = {
    "no columns": lambda _: pa.table({}),
    "no value": columns(value=None),
    "no scores": columns(scores=None),
    "a column twice": lambda table: table.append_column("value", table.column("value")),
    "numbers as text": columns(value=lambda old: pa.array(map(str, old))),
    "whole numbers": columns(value=lambda old: pa.array(map(int, old))),
    "text as numbers": columns(doc_hash=lambda old: pa.array(range(len(old)))),
    "null": columns(value=first(None, pa.float64())),
    "null text": columns(key=first(None, pa.string())),
    "null in a list": columns(scores=first([None, 1.0], pa.list_(pa.float64()))),
    "texts in a list": columns(scores=lambda old: pa.array([["x"]] * len(old))),
    "one row less": lambda table: table.slice(1),
    "no row": lambda table: table.slice(0, 0),
    "an item twice": columns(key=lambda old: pa.array([old[1], *old[1:]])),
    "NaN": columns(value=first(float("nan"))),
    "infinite": columns(weight=first(float("inf"))),
    "beyond right": columns(value=first(5.0)),
    "below wrong": columns(value=first(-1.0)),
    "negative weight": columns(weight=first(-1.0)),
    "no UTF-8": columns(gold=lambda old: pa.array([b"\xff"] * len(old)).view(pa.string())),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_with_a_right_hash_are_still_looked_at(qeval, runs_dir, kind):
    run = runs_dir / store(runs_dir)
    for file in sorted(run.glob("cells/*/samples.parquet")):
        made = io.BytesIO()
        pq.write_table(SAMPLES[kind](pq.ParquetFile(file).read()), made)
        rehashed(run, file, made.getvalue())
    refused(qeval("gate", run, "--max-drop", "90", code=None), 1)


@pytest.mark.parametrize(
    "text", ["x", "[]", "3", "{}", '{"filters": 3}', '{"filters": {"none": [1]}}', "[" * 100_000, "9" * 5000]
)
@pytest.mark.parametrize("column", ["logged", "arguments"])
def test_what_was_logged_is_looked_at_before_it_is_given_on(qeval, tmp_path, column, text):
    rows = letters()
    for row in rows:
        row["arguments"]["gen_args_0"]["arg_1"] = " other"  # so that it is kept
    place = write(tmp_path / "in", results("letters"), samples={"letters": rows})
    run = Path(qeval("import", place).stdout.strip())
    file = min(run.glob("items/*.parquet" if column == "arguments" else "cells/*/samples.parquet"))
    found = pq.ParquetFile(file).read()
    made = io.BytesIO()
    bad = pa.array([text] * len(found), pa.large_string())
    at = found.column_names.index(column) if column in found.column_names else None
    found = found.append_column(column, bad) if at is None else found.set_column(at, column, bad)
    pq.write_table(found, made)
    rehashed(run, file, made.getvalue())
    if column == "arguments" and text == "[]":
        return  # asked for nothing, which is a list
    refused(qeval("export", run, "--to", "lm-eval", "-o", tmp_path / "out", code=None), 1)


def test_few_bytes_do_not_become_a_machine_full(qeval, runs_dir, monkeypatch):
    run = runs_dir / store(runs_dir)
    file = min(run.glob("cells/*/samples.parquet"))
    table = pq.ParquetFile(file).read().slice(0, 1)
    made = io.BytesIO()
    with pq.ParquetWriter(made, table.schema, compression="zstd") as writer:
        many = pa.concat_tables([table] * 10_000).combine_chunks()
        for _ in range(300):
            writer.write_table(many)
    assert len(made.getvalue()) < 2 << 20
    rehashed(run, file, made.getvalue())
    for n, why in (
        (400, "3000000 items where its header says 400"),
        (3_000_000, "far more than such a file"),
    ):
        edit(run, lambda table, n=n: table["results"][0]["cells"][0].update(n=n, n_available=n))
        monkeypatch.setattr(unpacking, "SPARE", 1 << 20)
        begun = time.monotonic()
        said = [refused(qeval("gate", run, "--max-drop", "90", code=None), 1, 5)]
        assert time.monotonic() - begun < 30
        assert why in said[0] or "not the same experiment" in said[0]


NUMBERS = {
    ("run", "--model", "toy", "--batch-size"): ("²", "٣", "0", "-1", "1.5", "9" * 5000, ""),
    ("plan", "--tasks", "mine", "--n"): ("mine=²", "mine=", "=3", "mine=0", f"mine={'9' * 5000}"),
    ("plan", "--gpu-memory"): ("²GiB", "24", "0GiB", f"{'9' * 400}GiB", "nanGiB"),
    ("plan", "--power"): ("1e-320", "0.3", "1", "nan", "inf", "x"),
    ("plan", "--churn"): ("0", "1", "nan", "-1", "x"),
    ("gate", "--max-drop"): (
        "1e-320",
        "0",
        "-1",
        "100",
        "nan",
        "inf",
        "1e400",
        "²",
        "",
        "arc=",
        "=1",
        "a=nan",
    ),
    ("gate", "--max-ppl-ratio"): ("1", "0", "nan", "inf", "-1", "x"),
    ("gate", "--max-drop", "1", "--confidence"): ("0.5", "1", "nan", "-1", "x"),
    ("gate", "--max-drop", "1", "--newer-than"): ("²d", "x", "9999999999d", f"{'9' * 5000}d", "2026-99-99"),
    ("report", "-o", "r.md", "--max-drop"): ("1e-320", "nan"),
    ("run", "--model"): (
        "toy[items=-1]",
        "toy[items=0]",
        "toy[delay=nan]",
        "toy[delay=-1]",
        "toy[delay=inf]",
    ),
    ("run", "--model", "toy", "--temperature"): ("nan", "inf", "0", "-1", "x"),
    ("run", "--model", "toy", "--limit"): ("0", "-1", "²", "9" * 5000),
    ("run", "--model", "toy", "--schemes"): ("fp16,gptq[bits=²]", f"fp16,gptq[bits={'9' * 5000}]", "fp16,,["),
}


@pytest.mark.parametrize(
    ("words", "value"), [(words, one) for words, some in NUMBERS.items() for one in some]
)
def test_a_number_that_is_none_is_a_usage_error(qeval, runs_dir, tmp_path, monkeypatch, words, value):
    store(runs_dir)
    monkeypatch.chdir(tmp_path)
    result = qeval(*words, value, code=2)
    assert "unforeseen" not in result.stderr
    assert "Error" in result.stderr


@pytest.mark.parametrize(
    "rule",
    ["max_drop = 1e-320", "max_flips = 1e-320", "min_recovery = 1e-320", "max_drop = true", 'max_drop = "1"'],
)
def test_a_limit_that_nothing_could_prove_is_refused(qeval, runs_dir, tmp_path, rule):
    store(runs_dir)
    (tmp_path / "p.toml").write_text(f"[[rule]]\n{rule}\n")
    for command in ("gate", "plan"):
        refused(qeval(command, "--policy", tmp_path / "p.toml", code=None), 2)


# --- what a command says ------------------------------------------------------------------------


def called(*words, cwd, **streams):
    """A command as a process of its own."""
    command = (sys.executable, "-m", "qeval", *map(str, words))
    return subprocess.run(command, cwd=cwd, text=True, stderr=subprocess.PIPE, check=False, **streams)


COMMANDS = [
    ("show",), ("show", "--json"), ("gate", "--max-drop", "90"), ("list", "runs"), ("plan",), ("--help",),
    ("gate", "--help"), ("--version",), ("doctor",),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_stdout_is_never_a_pass(tmp_path, words):
    store(tmp_path / "runs", whole())
    with node(tmp_path / "full", 7).open("w") as full:
        done = called(*words, cwd=tmp_path, stdout=full)
    assert done.returncode == 1
    assert "Error: Standard output cannot be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", COMMANDS[:7], ids=" ".join)
def test_a_closed_stdout_is_said_at_once(tmp_path, words):
    store(tmp_path / "runs", whole())
    shell = ("sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "qeval", *words)
    done = subprocess.run(shell, cwd=tmp_path, text=True, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: Standard output is closed.\nSend it to a file, or to /dev/null.\n"


def test_a_summary_that_nobody_reads_is_not_waited_for(qeval, runs_dir, tmp_path, monkeypatch):
    store(runs_dir)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(put(tmp_path / "summary", "FIFO")))
    said = qeval("gate", "--max-drop", "90")
    assert "Warning: the step summary was not written. Nothing reads from " in said.stderr
    assert "Set GITHUB_STEP_SUMMARY to a file" in said.stderr


def test_a_closed_stderr_changes_no_verdict(tmp_path):
    store(tmp_path / "runs", whole())
    for limit, code in (("90", 0), ("0.1", 4), ("nan", 2)):
        words = ("gate", "--max-drop", limit)
        shell = ("sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "qeval", *words)
        assert subprocess.run(shell, cwd=tmp_path, stdout=subprocess.PIPE, check=False).returncode == code


def test_a_run_needs_no_stderr(tmp_path):
    words = (
        "run",
        "--model",
        "toy[items=20]",
        "--tasks",
        "arc_easy",
        "--schemes",
        "fp16",
        "--runs-dir",
        "runs",
    )
    shell = ("sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "qeval", *words)
    assert subprocess.run(shell, cwd=tmp_path, stdout=subprocess.PIPE, check=False).returncode == 0
    assert len(list(tmp_path.glob("runs/*/cells/*/cell.json"))) == 1


def test_a_library_that_lacks_memory_to_be_loaded_is_a_sentence():
    error = ImportError("/x/y.so: failed to map segment from shared object")
    assert surprises.explained(error).message == "Memory ran out."
    assert surprises.explained(ImportError("No module named y")) is None


@pytest.mark.parametrize("words", ["1_0", "１", "٣", "1_000", "0_1"])
@pytest.mark.parametrize("option", ["--max-drop", "--max-ppl-ratio", "--confidence"])
def test_a_number_that_only_python_reads_is_refused(qeval, runs_dir, option, words):
    store(runs_dir)
    given = ["--max-drop", "90", option, words] if option != "--max-drop" else [option, words]
    assert words in refused(qeval("gate", *given, code=None), 2)


@pytest.mark.parametrize("words", ["1_0", "１", "9" * 20])
@pytest.mark.parametrize("option", ["--limit", "--seed", "--num-fewshot", "--verify"])
def test_so_is_one_beyond_all_measure(qeval, runs_dir, option, words):
    said = refused(qeval("run", "--model", "toy", "--tasks", "arc_easy", option, words, code=None), 2)
    assert "is not a plain number" in said
    assert not runs_dir.exists() or not list(runs_dir.glob("*/run.json"))


@pytest.mark.parametrize("words", ["0_5", "0.７"])
def test_nor_is_it_a_score(qeval, tmp_path, words):
    (tmp_path / "scores.csv").write_text(f"variant,model,task,metric,score,n\na,m,arc_easy,acc,{words},400\n")
    assert "is not a number" in refused(qeval("import", "--scores", tmp_path / "scores.csv", code=None), 2)


def test_any_name_can_be_printed_whatever_the_encoding(tmp_path):
    store(tmp_path / "runs", whole())
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = called("show", cwd=tmp_path, stdout=subprocess.PIPE, env=env)
    assert done.returncode == 0
    assert "arc" in done.stdout


def test_a_log_that_cannot_be_written_is_a_sentence(qeval_with_workers, runs_dir):
    words = ("run", "--model", "toy", "--schemes", "fp16,bnb4", "--tasks", "arc_easy", "--limit", "8")
    qeval_with_workers(*words)
    (run,) = (path for path in runs_dir.iterdir() if path.is_dir())
    for name in ("fp16", "bnb4"):
        put(run / "logs" / f"{name}.log", "directory")
    result = qeval_with_workers(*words, "--again", code=None)
    refused(result, 1)


def test_a_directory_that_is_gone_is_a_sentence(qeval, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (
        ("list", "runs"),
        ("doctor",),
        ("run", "--model", "toy", "--schemes", "fp16", "--tasks", "arc_easy"),
    ):
        assert "current directory is gone" in refused(qeval(*words, code=None), 1)


# --- models -------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize(
    "kind", ["null", "number", "list", "deep", "digits", "Latin-1", "gzip bomb", "empty"]
)
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_model_with_a_bad_file_is_refused_before_it_is_read(qeval, model, name, kind):
    put(model / name, kind)
    words = ("run", "--model", model, "--schemes", "fp32,rtn", "--tasks", "qeval_facts", "--limit", "2")
    if name == "tokenizer.json" and kind == "digits":  # looked at by the tokenizer alone
        result = qeval(*words, code=1)
        assert "unforeseen" not in result.stderr
        assert "cannot be loaded" in result.stderr
    else:
        assert f"{name} of" in refused(qeval(*words, code=None), 1)


@pytest.mark.torch
@pytest.mark.parametrize("file", ["../../x.safetensors", "/etc/passwd", 3, None])
def test_an_index_that_leads_elsewhere_is_refused(qeval, model, file):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    words = ("run", "--model", model, "--schemes", "fp32,rtn", "--tasks", "qeval_facts", "--limit", "2")
    assert "names a file outside the model" in refused(qeval(*words, code=None), 1)


@pytest.fixture
def model(tmp_path):
    """As much of a model as is looked at before weights are."""
    place = tmp_path / "model"
    place.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (place / name).write_text("{}")
    return place


def test_a_run_of_lm_evals_names_stays_inside(qeval, tmp_path, runs_dir):
    table = results("letters", name="../../../x")
    place = write(tmp_path / "in" / "out", table, samples={"letters": letters(400)})
    write(tmp_path / "in" / "other", results("letters", name="-rf"), samples={"letters": letters(400)})
    run = Path(qeval("import", place.parent, "--baseline", "x").stdout.strip())
    assert run.parent == runs_dir
    for form in ("csv", "lm-eval", "model-card"):
        qeval("export", run, "--to", form, "-o", tmp_path / "out" / form)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "runs"]
