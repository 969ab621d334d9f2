"""A fuzzer over every reader: bytes, and valid files of which parts are changed, removed or put elsewhere.

Whatever comes in, a reader gives what it promises or raises a QevalError with a remedy. `make fuzz` tries
much more than `make test`, and other examples each time.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import BYTES, rehashed, resummed
from click.testing import CliRunner
from harness_files import letters, results, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import store, whole

from qeval.ask import policy, suites
from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.cli.main import main
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.exchange.scores import import_scores
from qeval.load.source import Source, check_documents, read_config
from qeval.store.checking import check_run
from qeval.store.runs import RunDir, check_readable

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]
calmly = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 10**30, 10**400, -(10**400), 2**63]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", "../../x", "/etc/x", "\0", "²", "nan", "1e999", "9" * 5000, "x" * 300, "\u202e::error::x"]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
RAW = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(list(BYTES.values())),
    VALUES.map(lambda value: json.dumps(value, default=str).encode()),
)


def places(value: Any, place=()):
    """The way to everything in a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*place, key)
        yield from places(part, (*place, key))


@st.composite
def changed(draw, value: Any) -> Any:
    """The value with one to three parts replaced, removed, doubled or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(value))
        if not ways:
            break
        *way, last = draw(st.sampled_from(ways))
        inside = value
        for key in way:
            inside = inside[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "double", "add"]))
        if what == "replace":
            inside[last] = draw(VALUES)
        elif what == "remove":
            del inside[last]
        elif isinstance(inside, list):
            inside.append(copy.deepcopy(inside[last]) if what == "double" else draw(VALUES))
        else:
            inside[draw(st.text(max_size=10))] = draw(VALUES)
    return value


@st.composite
def cut(draw, data: bytes) -> bytes:
    """Bytes of which some are others, cut off or put in twice."""
    found = bytearray(data)
    for at in draw(st.lists(st.integers(0, len(found) - 1), max_size=8)):
        found[at] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(found)) | st.just(len(found)))
    return bytes(found[:end]) + draw(st.sampled_from([b"", bytes(found[:20])]))


def as_toml(value: Any) -> str:
    """A value of JSON as TOML on one line; what TOML cannot say is an empty text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**300:
        return hex(abs(value))
    return '""' if value is None else json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")


def toml_file(table: Any) -> bytes:
    lines = (f"{json.dumps(key)} = {as_toml(value)}\n" for key, value in table.items())
    return "".join(lines).encode("utf-8", "replace")


def or_a_sentence(read, *args, **more):
    """What a reader gives, None where it refuses in words."""
    try:
        return read(*args, **more)
    except QevalError as found:
        error = found
    assert error.message.strip()
    assert error.hint.strip() or "items" in error.message
    return None


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A new folder at each call; the one before is gone."""
    root, numbers = tmp_path_factory.mktemp("fuzz"), itertools.count()

    def make() -> Path:
        for old in root.iterdir():
            shutil.rmtree(old)
        place = root / str(next(numbers))
        place.mkdir()
        return place

    return make


# --- documents ----------------------------------------------------------------------------------


@given(data=RAW)
@calmly
def test_documents(fresh, data):
    path = fresh() / "config.json"
    path.write_bytes(data)
    for read in (reading.json_document, reading.toml_document, reading.csv_rows, reading.check_object):
        error = None
        try:
            read(path)
        except OSError as found:
            error = found
        assert error is None or (reading.told(error) and reading.remedy(error))
    or_a_sentence(read_config, Source(str(path.parent)))
    or_a_sentence(check_documents, Source(str(path.parent)))
    for name in ("tokenizer.json", "model.safetensors.index.json"):
        path.rename(path := path.with_name(name))
        or_a_sentence(check_documents, Source(str(path.parent)))


POLICY = {
    "gate": {"max_drop": 1.0, "confidence": 0.95, "allow_limited": True, "ungated": ["a"]},
    "rule": [{"tasks": "mmlu*", "max_drop": 0.5}, {"metric": "acc", "max_flips": 0.1, "tier": "advisory"}],
}
SUITE = {
    "name": "mine",
    "verify": 2,
    "average": ["a"],
    "task": [{"name": "a", "metric": "acc", "num_fewshot": 5, "limit": 10, "chance": 0.25}, {"name": "b"}],
}


@given(data=RAW | changed(POLICY).map(toml_file))
@calmly
def test_policies(fresh, data):
    path = fresh() / "policy.toml"
    path.write_bytes(data)
    found = or_a_sentence(policy.load, path)
    assert found is None or found.rules


@given(data=RAW | changed(SUITE).map(toml_file))
@calmly
def test_suites(fresh, data):
    path = fresh() / "suite.toml"
    path.write_bytes(data)
    found = or_a_sentence(suites.load, str(path))
    assert found is None or found.tasks


# --- what others wrote --------------------------------------------------------------------------

SCORES = {
    "name": "t", "model": "m", "baseline": "a", "average": ["x"], "percent": False,
    "score": [
        {"variant": name, "task": task, "score": 0.5, "n": 100, "metric": "acc", "num_fewshot": 5}
        for name in "ab" for task in "xy"
    ],
}  # fmt: skip
CELLS = st.sampled_from(
    ["a", "b", "x", "0.5", "100", "acc", "true", "", "nan", "-1", "²", "1e400", '"', "9" * 5000]
)


def kept(run) -> None:
    """What a run that was read has to be: one that can be written, and read again."""
    check_readable(run)
    check_run(msgspec.json.decode(msgspec.json.encode(run), type=type(run)), Path("run.json"))
    assert "/" not in run.id


@given(data=RAW | changed(SCORES).map(toml_file))
@calmly
def test_tables_of_scores(fresh, data):
    path = fresh() / "scores.toml"
    path.write_bytes(data)
    if (run := or_a_sentence(import_scores, path)) is not None:
        kept(run)


@given(rows=st.lists(st.lists(CELLS | st.text(max_size=5), max_size=5), max_size=5), data=RAW)
@calmly
def test_tables_of_scores_as_csv(fresh, rows, data):
    path = fresh() / "scores.csv"
    text = "variant,task,score,n\na,x,0.5,100\n" + "".join(",".join(row) + "\n" for row in rows)
    for written in (text.encode("utf-8", "replace"), data):
        path.write_bytes(written)
        if (run := or_a_sentence(import_scores, path, baseline="a")) is not None:
            kept(run)


@given(data=st.data())
@calmly
def test_results_of_lm_eval(fresh, data):
    place = write(fresh() / "out", results("letters"), samples={"letters": letters(4)})
    file = next(place.glob(data.draw(st.sampled_from(["results*", "samples*"]))))
    if file.suffix == ".json":
        found = data.draw(changed(json.loads(file.read_text())) | RAW)
        file.write_bytes(found if isinstance(found, bytes) else json.dumps(found).encode())
    else:
        lines = data.draw(changed([json.loads(line) for line in file.read_text().splitlines()]))
        file.write_bytes("\n".join(map(json.dumps, lines)).encode() + data.draw(st.just(b"") | RAW))
    if (imported := or_a_sentence(import_lm_eval, place)) is not None:
        check_readable(imported.run)


# --- stored runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    runs = tmp_path_factory.mktemp("stored")
    return runs / store(runs, whole(n_items=12))


def told(run: Path, out: Path) -> None:
    """Every command that reads a run ends in an answer or a sentence, and none passes by accident."""
    for words in (
        ("show", run), ("show", run, "--json"), ("gate", run, "--max-drop", "90", "--json"),
        ("report", run, "-o", out / "r.html", "-o", out / "r.md"),
        ("export", run, "--to", "csv", "-o", out / "csv"),
        ("export", run, "--to", "lm-eval", "-o", out / "lm"), ("plan", "--from", run), ("list", "runs"),
    ):  # fmt: skip
        env = {"QEVAL_RUNS_DIR": str(run.parent)}
        result = CliRunner(env=env).invoke(main, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), words
        assert "unforeseen" not in result.stderr, result.stderr
        if result.exit_code == 1 and words[0] == "show":
            return


@given(data=st.data())
@settings(calmly, max_examples=max(settings().max_examples // 4, 5))
def test_headers_of_runs(fresh, stored, data):
    run = Path(shutil.copytree(stored, fresh() / "runs" / "r"))
    file = run / "run.json"
    found = data.draw(changed(json.loads(file.read_text())) | RAW)
    file.write_bytes(found if isinstance(found, bytes) else resummed(found))
    told(run, run.parent.parent / "out")


@given(data=st.data())
@settings(calmly, max_examples=max(settings().max_examples // 4, 5))
def test_headers_of_cells(fresh, stored, data):
    place = RunDir(Path(shutil.copytree(stored, fresh() / "r")))
    file = min(place.path.glob("cells/*/cell.json"))
    found = data.draw(changed(json.loads(file.read_text())) | RAW)
    file.write_bytes(found if isinstance(found, bytes) else resummed(found))
    or_a_sentence(place.cell, file.parent.name)


@given(data=st.data())
@settings(calmly, max_examples=max(settings().max_examples // 4, 5))
def test_items_of_runs(fresh, stored, data):
    run = Path(shutil.copytree(stored, fresh() / "runs" / "r"))
    file = min(run.glob(data.draw(st.sampled_from(["cells/*/samples.parquet", "items/*.parquet"]))))
    rehashed(run, file, data.draw(cut(file.read_bytes()) | columns(pq.ParquetFile(file).read())))
    told(run, run.parent.parent / "out")


@st.composite
def columns(draw, table: pa.Table) -> bytes:
    """A Parquet file of the table with one or two columns changed, removed, doubled or cut."""
    for _ in range(draw(st.integers(1, 2))):
        if not table.column_names:
            break
        name = draw(st.sampled_from(table.column_names))
        at = table.column_names.index(name)
        what = draw(st.sampled_from(["remove", "double", "cut", "reverse", "other", "other"]))
        column = table.column(at)
        if what == "remove":
            table = table.remove_column(at)
        elif what == "double":
            table = table.append_column(draw(st.sampled_from([name, "more"])), column)
        elif what == "cut":
            table = table.slice(0, draw(st.integers(0, len(table))))
        else:
            values = column.to_pylist()[::-1] if what == "reverse" else _others(draw, column.to_pylist())
            table = table.set_column(at, name, _array(values, column.type))
    made = io.BytesIO()
    pq.write_table(table, made)
    return made.getvalue()


def _others(draw, values: list[Any]) -> list[Any]:
    kinds = (
        st.none() | st.floats() | st.text(max_size=5) | st.lists(st.floats(), max_size=3) | st.integers(-5, 5)
    )
    one = draw(kinds | st.sampled_from(["9" * 5000, "-1", "²", "x" * 300]))
    return [one, *values[1:]] if draw(st.booleans()) else [one] * len(values)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        return pa.array([str(value) for value in values])


# --- the command line ---------------------------------------------------------------------------

OPTIONS = [
    ("gate", "--max-drop"), ("gate", "--max-ppl-ratio"), ("gate", "--max-drop", "1", "--confidence"),
    ("gate", "--max-drop", "1", "--newer-than"), ("gate", "--max-drop", "1", "--baseline"), ("plan", "--n"),
    ("plan", "--tasks", "a", "--n"), ("plan", "--churn"), ("plan", "--power"), ("plan", "--limit"),
    ("plan", "--gpu-memory"), ("plan", "--tasks"), ("plan", "--suite"), ("show",), ("list",), ("import",),
    ("run", "--model", "toy", "--schemes"), ("export", "--output", "out", "--to"),
    ("run", "--model", "toy", "--suite"), ("run", "--model", "toy", "--batch-size"),
]  # fmt: skip
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20),
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["²", "٣", "1e-320", "1e400", "nan", "9" * 5000, "x" * 300, "..", "a=²", "=", "[", "gptq[bits=²]"]
    ),
)


@given(words=st.sampled_from(OPTIONS), word=WORDS)
@calmly
def test_words(stored, words, word):
    env = {"QEVAL_RUNS_DIR": str(stored.parent)}
    scoring = words[0] == "run"  # no order that is right is to be carried out
    more = ["--tasks", "arc_easy", "--suite", "leaderboard-v1"] if scoring and words[-1] != "--suite" else []
    more += ["--tasks", "a"] if scoring and words[-1] == "--suite" else []
    result = CliRunner(env=env).invoke(main, [*words, word, *more])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "unforeseen" not in result.stderr, result.stderr
