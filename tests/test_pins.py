"""What must stay as it is when code moves: keys, run ids, stored runs, and every document that is written.

The documents are those of one small run in which much went wrong: `hqq[bits=3]` was killed inside a group,
`gptq` was stopped early, `awq` failed. Where documents disagree with each other, the golden files show it.

tests/fixtures/stored-v1 holds runs that version 0.1.0 stored. They were made in that directory, with
QEVAL_RUNS_DIR naming it and lm-eval 0.4.13, by `qeval` and the words in WHOLE and BROKEN below; only the
logs were taken out.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import itertools
import json
import os
import re
import shutil
import webbrowser
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest
from factories import ARC, QUIZ, WIKI, make_run, with_cell, without_cell
from named_tasks import name_tasks
from outline import outline, rounded

from qeval.base.costs import Cost, Timing
from qeval.base.messages import Done, Failed, Finished, Job, Stopped
from qeval.base.records import Policy, Result, Rule, Scheme, Stop, Task, Variant
from qeval.base.settings import Settings
from qeval.run.executors import EXECUTORS
from qeval.score.cells import JobCells
from qeval.store.runs import RunDir, Store

pytestmark = pytest.mark.slow

STORED = Path(__file__).parent / "fixtures" / "stored-v1"
WHOLE = ("run", "--model", "toy[items=8]", "--schemes", "fp16,rtn[bits=2]")
WHOLE += ("--tasks", "arc_challenge:acc_norm,wikitext")
BROKEN = ("run", "--model", "toy[items=60,fail=gptq]", "--schemes", "fp16,hqq[bits=2],gptq")
BROKEN += ("--tasks", "wikitext,arc_challenge", "--gate", "policy.toml")
NO_CHANGE = "a cell's key or a run's id differs: what users have stored would be computed again"
POLICY = """\
[[rule]]
max_drop = 6.0
[[rule]]
tasks = "quiz_macro"
max_drop = 30.0
[[rule]]
tasks = "wiki"
max_ppl_ratio = 1.1
[[rule]]
tasks = "arc"
max_flips = 0.01
tier = "advisory"
"""
SUITE = """\
name = "toy"
average = ["arc", "quiz_macro"]
[[task]]
name = "arc"
metric = "acc_norm"
num_fewshot = 25
chance = 0.25
[[task]]
name = "quiz"
metric = "acc"
num_fewshot = 5
chance = 0.25
[[task]]
name = "wiki"
metric = "word_perplexity"
num_fewshot = 0
kind = "perplexity"
"""
AGAINST = {"own-baseline": (), "baseline-bnb4": ("--baseline", "bnb4")}
KILLED, STOPPED, FAILED = "hqq[bits=3]", "gptq", "awq"


# --- keys and ids -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _one_version_of_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and ids know the version of lm-eval: here it is always the same."""
    monkeypatch.delenv("QEVAL_DATASETS_DIR", raising=False)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "0.4.13" if name in {"lm_eval", "lm-eval"} else version(name),
    )


TASK = Task("arc_challenge", "acc_norm", num_fewshot=25, limit=100, chance=0.25)
SUBJECT = Task("mmlu_anatomy", "acc", num_fewshot=5, group="mmlu", category="STEM")
IDENTITY = {"model": "toy[items=8]", "scheme": {"kind": "gptq", "options": {"bits": 3}}}
WATCHED = {
    "policy": Policy((Rule(max_drop=1.0),), source="policy.toml"),
    "baseline": {"model": "toy[items=8]", "scheme": {"kind": "fp16", "options": {}}},
}
CHOSEN = Settings(seed=7, batch_size="4", device="cuda:1", dtype="bfloat16", engine="plain")


@pytest.mark.parametrize(
    ("task", "more", "key"),
    [
        (TASK, {}, "06f15dfd08d76810680467f94fe10933885e3fd727d361b78584913a5bc9f223"),
        (SUBJECT, {}, "fd14beac1b2ef389d9867a4c74d7812533e10c1d67415867035694a44e454a72"),
        (TASK, {"settings": CHOSEN}, "35dc1c6f521e98f74288ea43f921a791e6b9d7c3f2a9d852134a51985d50db32"),
        (TASK, WATCHED, "decadcdc541898d1c6469c2c46cdb194c583cc66b8116e4705338fc3fcc3aca1"),
    ],
    ids=["task", "subject", "settings", "watched"],
)
def test_the_key_of_a_cell_stays(tmp_path: Path, task: Task, more: dict[str, object], key: str) -> None:
    words = {
        "runs_dir": str(tmp_path),
        "run_id": "r",
        "variant": Variant("gptq[bits=3]", "toy[items=8]", Scheme("gptq", {"bits": 3})),
        "identity": IDENTITY,
        "context": {"lm_eval": "0.4.13", "datasets_dir": None, "tasks_dir": "0" * 64},
        "tasks": (task,),
        "settings": Settings(),
        "tasks_dir": "tasks",
        "cache_dir": "cache",
        "log": "log",
    }
    assert JobCells(Job(**{**words, **more}), lambda _: None).key(task) == key, NO_CHANGE


@pytest.mark.parametrize(
    ("words", "run_id"),
    [
        (("--schemes", "fp16,bnb4"), "toy-items-4-tasks-12879928"),
        (
            ("--schemes", "fp16,gptq[bits=3]", "--baseline", "gptq[bits=3]", "--limit", "3"),
            "toy-items-4-tasks-e868fd00",
        ),
        (
            ("--schemes", "fp16,bnb4", "--num-fewshot", "2", "--seed", "7", "--engine", "plain"),
            "toy-items-4-tasks-cedd1e41",
        ),
        (("--schemes", "fp16,bnb4", "--gate", "policy.toml"), "toy-items-4-tasks-ee3828ea"),
    ],
    ids=["plain", "limit", "settings", "gate"],
)
def test_the_id_of_a_run_stays(qeval, runs_dir: Path, tmp_path: Path, monkeypatch, words, run_id) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.toml").write_text("[[rule]]\nmax_drop = 60.0\n")
    code = 5 if "--gate" in words else 0  # the policy does not speak of wikitext
    qeval("run", "--model", "toy[items=4]", "--tasks", "arc_challenge:acc_norm,wikitext", *words, code=code)
    assert [place.name for place in runs_dir.glob("*-*")] == [run_id], NO_CHANGE


# --- runs of an earlier version -----------------------------------------------------------------


def _files(folder: Path) -> dict[str, bytes]:
    """What lies below a folder, by path, but for the logs."""
    found = (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log" and path.name != ".newest"
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def stored(runs_dir: Path, monkeypatch) -> Path:
    """A copy of the stored runs as the runs directory, which is also where we are."""
    shutil.copytree(STORED, runs_dir)
    monkeypatch.chdir(runs_dir)
    return runs_dir


@pytest.mark.parametrize("run", ["toy-items-8", "toy-items-60"])
def test_a_stored_run_is_still_shown_golden(qeval, stored: Path, golden, run: str) -> None:
    golden(f"pins/stored/{run}.txt", qeval("show", run).stdout)
    assert _files(stored) == _files(STORED)


def test_a_stored_run_is_still_whole(qeval, stored: Path) -> None:
    again = qeval(*WHOLE)
    assert again.stdout == qeval("show", "toy-items-8").stdout[-len(again.stdout) :]
    assert [line for line in again.stderr.splitlines() if line.startswith("[")] == [
        "[fp16] finished earlier: nothing is scored again",
        "[rtn[bits=2]] finished earlier: nothing is scored again",
    ]
    assert _files(stored) == _files(STORED)


@pytest.mark.parametrize("how", ["again", "no run.json", "one variant more"])
def test_every_cell_of_a_stored_run_is_taken_over(qeval, stored: Path, how: str) -> None:
    [place] = stored.glob("toy-items-8-*")
    before = qeval("show", place, "--json").stdout
    words = {
        "again": (*WHOLE, "--again"),
        "no run.json": WHOLE,
        "one variant more": (*WHOLE[:4], "fp16,rtn[bits=2],bnb8", *WHOLE[5:]),
    }[how]
    if how == "no run.json":
        (place / "run.json").unlink()
    again = qeval(*words)
    for name in ("fp16", "rtn[bits=2]"):
        assert f"[{name}] 0 tasks to score, 2 finished earlier" in again.stderr
    after = json.loads(qeval("show", "--json").stdout)
    for part, name in (("variants", "name"), ("comparisons", "variant")):
        kept = [entry for entry in after[part] if entry[name] != "bnb8"]
        assert kept == json.loads(before)[part]
    cells = {name: data for name, data in _files(STORED).items() if "/cells/" in name or "/items/" in name}
    assert cells.items() <= _files(stored).items()
    fresh = {name.partition("/")[2] for name in _files(stored)} - {name.partition("/")[2] for name in cells}
    assert sum(name.endswith("cell.json") for name in fresh) == (2 if how == "one variant more" else 0)


def test_a_stored_run_that_was_stopped_early_stops_at_the_same_item(qeval, stored: Path) -> None:
    before = qeval("show", "toy-items-60").stdout
    again = qeval(*BROKEN, code=1)
    assert "[fp16] finished earlier" in again.stderr
    assert "[hqq[bits=2]] 1 task to score, 1 finished earlier" in again.stderr
    after = qeval("show", "toy-items-60").stdout
    assert re.sub(r"\+g[0-9a-f]+(\.dirty)?", "", after) == before  # the commit that went on with it is told
    kept = {name: data for name, data in _files(STORED).items() if not name.endswith("run.json")}
    assert kept.items() <= _files(stored).items()
    assert _files(stored).keys() == _files(STORED).keys()


# --- the run whose documents are pinned ---------------------------------------------------------


def _makings():
    """A small run with its samples and items: two variants whole, one killed, one stopped, one failed."""
    counts = {"arc": 40, "quiz_algebra": 10, "quiz_biology": 24, "quiz_law": 6, "wiki": 12}
    run, read, read_items = make_run(5, (ARC, QUIZ, WIKI), n_items=counts, effect=-0.06, seed=11)
    for task in ("quiz_law", "wiki"):
        run = without_cell(run, "bnb8", task)
    for task in ("quiz_algebra", "quiz_biology", "quiz_law", "wiki"):
        run = without_cell(run, "gptq", task)
        run = without_cell(run, "awq", task)
    for name in ("fp16", "bnb4", "gptq", "awq", "bnb8"):
        run = with_cell(run, name, "arc", dataset="allenai/ai2_arc, ARC-Challenge, test", seconds=1.5)
    fp16, bnb4, gptq, awq, hqq = run.results
    fp16 = replace(
        fp16,
        provenance=replace(fp16.provenance, weight_bytes=2_000_000_000, engine="tree", linears=8),
        cost=Cost("a small CPU", 1.5, 4 * 10**9, {"prefill/batch=1": Timing(20.0, 5, 21, 3, "ms/token")}),
    )
    bnb4 = replace(
        bnb4,
        provenance=replace(
            bnb4.provenance, weight_bytes=600_000_000, engine="tree", linears=8, notes=("A note.",)
        ),
        cost=Cost("a small CPU", 2.5, 10**9, {"prefill/batch=1": Timing(6.0, 5, 21, 3, "ms/token")}),
    )
    stop = Stop("quiz", Rule(max_drop=6.0), 25, 40)
    error = "Stopped early: quiz breaks the rule (max_drop 6.0) for certain after 25 of 40 items."
    gptq = replace(gptq, status="stopped", provenance=None, stop=stop, error=error)
    awq = replace(awq, status="failed", provenance=None, error="No kernel for this device.")
    hqq = replace(hqq, variant=Variant(KILLED, "toy", Scheme("hqq", {"bits": 3})), status="partial")
    run = replace(
        run,
        id="pins",
        results=(fp16, bnb4, gptq, awq, hqq),
        qeval_version="0.0.0",
        command=("qeval", "run", "--model", "toy"),
    )
    return run, read, read_items


def _put(place: RunDir, results: tuple[Result, ...], read, read_items) -> tuple[Result, ...]:
    """The results with their cells on disk."""
    return tuple(
        replace(result, cells=tuple(place.add(cell, read(cell), read_items(cell)) for cell in result.cells))
        for result in results
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A directory with a policy, a suite and two stored runs: `pins`, and `killed` in which no variant has
    a whole group."""
    folder = tmp_path_factory.mktemp("pins")
    (folder / "policy.toml").write_text(POLICY)
    (folder / "toy.toml").write_text(SUITE)
    run, read, read_items = _makings()
    place = Store(folder / "runs").run_dir("pins")
    run = replace(run, results=_put(place, run.results, read, read_items))
    place.write(run)
    killed = replace(run, id="killed", results=tuple(replace(r, status="partial") for r in run.results[:2]))
    for task in ("quiz_law", "wiki"):
        killed = without_cell(without_cell(killed, "fp16", task), "bnb4", task)
    killed = without_cell(killed, "bnb4", "quiz_biology")
    other = Store(folder / "runs").run_dir("killed")
    for cell in itertools.chain.from_iterable(result.cells for result in killed.results):
        other.adopt(place, cell)
    other.write(killed)
    for number, name in enumerate(("pins", "killed")):  # the order of a list of runs
        os.utime(folder / "runs" / name / "run.json", (number, number))
    return folder


@pytest.fixture
def pinned(qeval, made: Path, tmp_path: Path, monkeypatch):
    """`qeval` on a copy of the runs of `made`, from beside them; any exit code is taken."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return lambda *words: qeval(*words, code=None)


def _said(result) -> str:
    """All that a command said: standard output, then standard error, then its exit code."""
    errors = f"--- stderr ---\n{result.stderr}" if result.stderr else ""
    return f"{result.stdout}{errors}--- exit {result.exit_code} ---\n"


def _json(text: str) -> str:
    """A JSON document with floats of nine digits and without hashes of files, which change with pyarrow."""

    def clean(value):
        if isinstance(value, dict):
            return {k: sorted(v) if k == "files" else clean(v) for k, v in value.items()}
        return [clean(entry) for entry in value] if isinstance(value, list) else value

    return json.dumps(rounded(clean(json.loads(text))), indent=1, ensure_ascii=False) + "\n"


def _digits(text: str) -> str:
    """A text with its long floats of nine digits."""
    return re.sub(r"-?\d+\.\d{9,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.9g}", text)


def _first_items(text: str) -> str:
    """The head of a CSV table, the rows of the items 0, and how many rows there are."""
    rows = list(csv.reader(io.StringIO(text)))
    key = rows[0].index("key")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(row for row in rows if row[key] in {"0", "key"})
    short = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", out.getvalue())
    return f"{_digits(short)}... {len(rows) - 1} rows\n"


def _tree(folder: Path, change=lambda _, text: text) -> str:
    """Every file below a folder, one after the other, under its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return "".join(
        f"=== {name} ===\n{change(name, path.read_text())}" for name, path in zip(names, files, strict=True)
    )


def _words(svg: str) -> list[str]:
    """The words in a drawing."""
    return [text.strip() for text in ET.fromstring(svg).itertext() if text.strip()]


def _payload(html: str) -> str:
    """What the page's script reads, a line for each entry."""
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    lines = []
    for key, value in rounded(json.loads(found[1])).items():
        entries = value if isinstance(value, list) else [value]
        lines += [f"{key}:", *(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in entries)]
    return "\n".join(lines) + "\n"


# --- documents ----------------------------------------------------------------------------------


def test_golden_show(pinned, golden) -> None:
    golden("pins/show.txt", pinned("show", "pins").stdout)


def test_golden_show_json(pinned, golden) -> None:
    golden("pins/show.json", _json(pinned("show", "pins", "--json").stdout))


def test_golden_show_against_another_baseline(pinned, golden) -> None:
    golden("pins/baseline-bnb4/show.txt", pinned("show", "pins", "--baseline", "bnb4").stdout)
    golden(
        "pins/baseline-bnb4/show.json", _json(pinned("show", "pins", "--baseline", "bnb4", "--json").stdout)
    )


def test_golden_list_of_runs(pinned, golden) -> None:
    golden("pins/list.json", pinned("list", "runs", "--json").stdout)


@pytest.fixture
def scripted(qeval, tmp_path: Path, monkeypatch):
    """`qeval` with an executor that scores nothing: its variants end as those of the pinned run did."""
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "toy.toml").write_text(SUITE)
    name_tasks(tmp_path / "names", monkeypatch, "arc", "quiz", "wiki")
    monkeypatch.chdir(tmp_path)
    run, read, read_items = _makings()
    ends = {result.variant.name: result for result in run.results}

    def play(job, listen) -> Result:
        place = Store(Path(job.runs_dir)).run_dir(job.run_id)
        [result] = _put(place, (ends[job.variant.name],), read, read_items)
        for cell in result.cells:
            listen(Finished(cell))
        if result.stop is not None:
            listen(Stopped(result.stop, result.error or ""))
        elif result.status != "partial":
            listen(Failed(result.error) if result.error else Done(result.provenance, result.cost))
        return replace(result, variant=job.variant)

    monkeypatch.setitem(EXECUTORS, "local", play)
    return qeval


def test_golden_end_of_a_run(scripted, runs_dir: Path, tmp_path: Path, golden, monkeypatch) -> None:
    schemes = f"fp16,bnb4,{STOPPED},{FAILED},{KILLED}"
    words = ("run", "--model", "toy", "--schemes", schemes, "--suite", "toy.toml", "--gate", "policy.toml")
    monkeypatch.setattr("sys.argv", ["qeval", *words])
    ended = scripted(*words, code=1)
    [place] = runs_dir.glob("*/")
    said = _said(ended).replace(place.name, "RUN").replace(str(tmp_path), ".")
    golden("pins/run.txt", re.sub(r"of 20[\d-]+T[\d:+]+:", "of DATE:", said))
    told = json.loads(scripted(*words, "--json", code=1).stdout)
    shown = json.loads(scripted("show", "--json").stdout)
    assert {one["status"] for one in told.pop("decisions")} == {"FAIL", "INCONCLUSIVE", "MISSING", "PASS"}
    assert shown.pop("decisions") == []
    assert told.pop("gate")["verdict"] == "FAIL"
    judged, found = told.pop("verdicts"), shown.pop("verdicts")
    assert [one["finding"] for one in judged] == [one["finding"] for one in found]
    tables = [{one["variant"]: one["delta"] for one in each.pop("decision_table")} for each in (told, shown)]
    assert tables[0] == tables[1]
    assert told == shown


@pytest.mark.parametrize("against", AGAINST)
def test_golden_reports(pinned, golden, against: str) -> None:
    words = ("report", "pins", *AGAINST[against])
    said = pinned(*words, "--policy", "policy.toml", "-o", "r.html", "-o", "r.md")
    assert said.stdout == "r.html\nr.md\n"
    golden(f"pins/{against}/report.html.txt", outline(Path("r.html").read_text()))
    golden(f"pins/{against}/report.md", Path("r.md").read_text())
    golden(f"pins/{against}/flips.txt", _payload(Path("r.html").read_text()))
    pinned(*words, "-o", "judged.md", "--short", "--policy", "policy.toml")
    pinned(*words, "-o", "plain.md", "--short")
    golden(f"pins/{against}/short.md", Path("judged.md").read_text())
    golden(f"pins/{against}/short-without-policy.md", Path("plain.md").read_text())


@pytest.mark.parametrize("against", AGAINST)
def test_golden_words_of_charts(pinned, golden, against: str) -> None:
    pinned("report", "pins", *AGAINST[against], "-o", "r.md", "--assets", "assets")
    drawn = _tree(Path("assets"), lambda _, svg: "\n".join(_words(svg)) + "\n")
    shown = [line for line in Path("r.md").read_text().splitlines() if line.startswith("![")]
    golden(f"pins/{against}/charts.txt", "\n".join([*shown, drawn]))


@pytest.mark.parametrize("against", AGAINST)
def test_what_is_viewed_is_the_report(pinned, against: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    pinned("view", "pins", *AGAINST[against])
    pinned("report", "pins", *AGAINST[against], "-o", "r.html")
    [page] = tmp_path.glob("qeval-*/report.html")
    assert page.read_text() == Path("r.html").read_text()


@pytest.mark.parametrize("against", AGAINST)
def test_golden_gate_and_its_files(pinned, golden, against: str, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    words = ("gate", "pins", *AGAINST[against], "--policy", "policy.toml")
    said = pinned(*words, "--junit", "junit.xml", "--badge", "badge.json")
    golden(f"pins/{against}/gate.txt", _said(said))
    for name in ("junit.xml", "badge.json", "summary.md"):
        golden(f"pins/{against}/gate-{name}", Path(name).read_text())
    golden(f"pins/{against}/gate.json", _json(pinned(*words, "--json").stdout))


@pytest.mark.parametrize("against", AGAINST)
def test_golden_tables(pinned, golden, against: str) -> None:
    pinned("export", "pins", *AGAINST[against], "--to", "csv", "-o", "out")
    for name in ("scores", "comparisons"):
        golden(f"pins/{against}/{name}.csv", _digits(Path(f"out/{name}.csv").read_text()))
    if not AGAINST[against]:
        for name in ("items", "texts"):
            golden(f"pins/{name}.csv", _first_items(Path(f"out/{name}.csv").read_text()))


def test_golden_columns_of_parquet(pinned, golden) -> None:
    pinned("export", "pins", "--to", "parquet", "-o", "out")
    lines = []
    for path in sorted(Path("out").iterdir()):
        schema = pq.read_schema(path)
        lines.append(f"{path.name}: {pq.read_metadata(path).num_rows} rows")
        lines += [f"  {name}: {kind}" for name, kind in zip(schema.names, schema.types, strict=True)]
    golden("pins/parquet.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("against", AGAINST)
def test_golden_for_the_hub(pinned, golden, against: str) -> None:
    pinned("export", "pins", *AGAINST[against], "--to", "model-card", "-o", "out")
    golden(f"pins/{against}/model-card.txt", _tree(Path("out")))
    refused = pinned("export", "pins", *AGAINST[against], "--to", "eval-results", "-o", "none")
    golden(f"pins/{against}/eval-results.txt", _said(refused))  # none of the pinned tasks is a benchmark


def test_golden_as_lm_eval_writes(pinned, golden) -> None:
    def first(name: str, text: str) -> str:
        if name.endswith(".json"):
            return _json(text) if "hqq" in name else f"keys: {', '.join(json.loads(text))}\n"
        lines = text.splitlines()
        shown = f"{_json(lines[0])}" if "hqq" in name else ""
        return f"{shown}... {len(lines)} lines\n"

    pinned("export", "pins", "--to", "lm-eval", "-o", "out")
    golden("pins/lm-eval.txt", _tree(Path("out"), first))


def _in_brief(pinned, run: str, *words: str) -> str:
    """A run as the short report, the gate and the exported tables tell it, all in one text."""
    parts = []
    for name, command in (
        ("gate", ("gate", run, *words, "--policy", "policy.toml")),
        ("report", ("report", run, *words, "--short", "-o", "r.md")),
        ("export", ("export", run, *words, "--to", "csv", "-o", "out")),
    ):
        parts.append(f"=== {name} ===\n{_said(pinned(*command))}")
    files = (Path("r.md"), Path("out/scores.csv"), Path("out/comparisons.csv"))
    parts += [f"=== {path.name} ===\n{_digits(path.read_text())}" for path in files if path.exists()]
    return "".join(parts)


@pytest.mark.parametrize("baseline", [KILLED, STOPPED, FAILED], ids=["killed", "stopped", "failed"])
def test_golden_against_a_variant_that_is_not_whole(pinned, golden, baseline: str) -> None:
    golden(
        f"pins/baseline-{baseline.partition('[')[0]}.txt", _in_brief(pinned, "pins", "--baseline", baseline)
    )


def test_golden_killed_inside_a_group(pinned, golden) -> None:
    shown = f"=== show ===\n{pinned('show', 'killed').stdout}"
    golden("pins/killed.txt", shown + _in_brief(pinned, "killed"))
