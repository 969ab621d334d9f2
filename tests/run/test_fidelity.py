"""Fidelity through whole commands: beside a suite, after the fact, in every format, and of a tiny real
model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qeval.base.errors import QevalError
from qeval.store import fidelity as stored
from qeval.store.runs import MADE_OF_FILE, Store

TOY = ("run", "--model", "toy[items=20]", "--schemes", "fp16,bnb4,bnb8")


def run_of(runs_dir: Path) -> Path:
    return next(runs_dir.glob("*/run.json")).parent


@pytest.mark.slow
def test_it_is_measured_beside_the_suite_and_told_in_every_format(qeval, tmp_path):
    said = qeval(*TOY, "--fidelity", "prose,trace:own,8").stdout
    assert "95% interval" in said
    assert "trace:own,8" in said
    rows = json.loads(qeval("show", "--json").stdout)["fidelity"]
    assert [(row["variant"], row["role"]) for row in rows if row["protocol"]["name"] == "prose"] == [
        ("fp16", "packing"),
        ("fp16", "plain"),
        ("bnb4", "candidate"),
        ("bnb8", "candidate"),
    ]
    files = [tmp_path / f"report.{ending}" for ending in ("html", "md", "json", "txt")]
    qeval("report", *(word for file in files for word in ("-o", file)))
    for file in files:
        text = file.read_text()
        assert "KL, nats" in text or file.suffix == ".json"
        assert "the end of toy text" in text or file.suffix == ".txt"
    html = files[0].read_text()
    assert html.count('id="fidelity-confidence-prose"') == 1
    assert '<a href="#fidelity">' in html


@pytest.mark.slow
def test_the_same_command_measures_nothing_again(qeval, runs_dir):
    qeval(*TOY, "--fidelity", "prose")
    before = stored.measured(run_of(runs_dir))
    qeval(*TOY, "--fidelity", "prose")
    assert stored.measured(run_of(runs_dir)) == before
    assert len(before) == 4


@pytest.mark.slow
def test_after_the_fact_and_again_once_something_is_lost(qeval, runs_dir):
    qeval(*TOY)
    assert json.loads(qeval("show", "--json").stdout)["fidelity"] == []
    qeval("fidelity", code=2)  # the toy's suite has a protocol, but the toy is asked for none
    told = qeval("fidelity", "--fidelity", "prose").stdout
    assert "bnb8" in told
    whole = stored.measured(run_of(runs_dir))
    lost = next(one for one in whole if one.variant == "bnb4")
    shutil.rmtree(run_of(runs_dir) / stored.FOLDER / lost.key)
    rows = json.loads(qeval("fidelity", "--fidelity", "prose", "--json").stdout)
    assert {row["variant"] for row in rows} == {"fp16", "bnb4", "bnb8"}
    assert {one.key for one in stored.measured(run_of(runs_dir))} == {one.key for one in whole}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "name"),
    [("candidate", stored.HEADER), ("candidate", stored.POSITIONS), ("plain", stored.HEADER)],
)
def test_what_is_damaged_is_told_and_measured_again_by_the_same_command(
    qeval, runs_dir, tmp_path, role, name
):
    qeval("run", "--model", "toy[items=20]", "--schemes", "fp16,bnb4", "--fidelity", "prose")
    whole = {one.key for one in stored.measured(run_of(runs_dir))}
    lost = next(one for one in stored.measured(run_of(runs_dir)) if one.role == role)
    file = run_of(runs_dir) / stored.FOLDER / lost.key / name
    with file.open("ab") as more:
        more.write(b" ")
    told = f"{file.relative_to(runs_dir)} is not what was written"
    said = " ".join(qeval("gate", "--max-drop", "90", "--json", code=None).stdout.split())
    assert f"damaged and left out: {told}" in said
    assert f"Damaged and left out: {told}" in qeval("show").stdout
    qeval("report", "-o", tmp_path / "report.json")
    for text in (qeval("show", "--json").stdout, (tmp_path / "report.json").read_text()):
        (damage,) = json.loads(text)["fidelity_damaged"]
        assert damage.startswith(told)
    if (role, name) == ("candidate", stored.HEADER):  # no row is left to stand above the sentence
        qeval("report", "-o", tmp_path / "report.md", "-o", tmp_path / "report.html")
        assert "Damaged and left out: " in (tmp_path / "report.md").read_text()
        assert "<li>Damaged and left out: " in (tmp_path / "report.html").read_text()
    qeval("fidelity", "--fidelity", "prose")
    assert {one.key for one in stored.sound(run_of(runs_dir))[0]} == whole
    assert told not in qeval("gate", "--max-drop", "90", "--json", code=None).stdout


@pytest.mark.slow
def test_another_baseline_has_nothing_of_the_firsts(qeval):
    qeval(*TOY, "--fidelity", "prose")
    assert json.loads(qeval("show", "--json", "--baseline", "bnb4").stdout)["fidelity"] == []


@pytest.mark.slow
def test_none_and_words_that_are_no_protocol(qeval):
    qeval(*TOY, "--fidelity", "none")
    assert json.loads(qeval("show", "--json").stdout)["fidelity"] == []
    assert "There is no protocol" in qeval(*TOY, "--fidelity", "prosa", code=2).stderr
    assert "cannot be read" in qeval(*TOY, "--fidelity", "text:/nowhere.txt", code=1).stderr
    assert "is no amount" in qeval(*TOY, "--fidelity", "prose", "--fidelity-cache-limit", "5", code=2).stderr


@pytest.mark.slow
def test_a_run_of_others_is_refused(qeval, runs_dir, tmp_path):
    (tmp_path / "scores.csv").write_text("variant,task,score,n\nfp16,arc,50,100\nbnb4,arc,49,100\n")
    from qeval.ask.fidelity import FidelityWish
    from qeval.ask.protocols import parse
    from qeval.run.fidelity import Places, measure_run

    qeval(*TOY)
    place = Store(runs_dir).open(None)
    place.write(replace(place.read(), source="a leaderboard"))
    with pytest.raises(QevalError, match="was scored by another tool"):
        measure_run(place, FidelityWish(parse("prose")), Places(tmp_path), lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("{}")])
def test_what_nothing_proves_to_be_the_same_is_not_measured(qeval, runs_dir, damage):
    qeval(*TOY)
    for file in run_of(runs_dir).rglob(MADE_OF_FILE):
        damage(file)
    said = qeval("fidelity", "--fidelity", "prose", code=1).stderr
    assert "Nothing in this run proves what fp16 was when it was scored" in said
    assert "Run the same qeval run again, with --fidelity." in said
    assert stored.measured(run_of(runs_dir)) == ()


@pytest.mark.slow
def test_a_variant_without_cells_is_not_measured(qeval, runs_dir):
    qeval(*TOY)
    place = Store(runs_dir).open(None)
    run = place.read()
    bare = [replace(one, cells=()) if one.variant.name == "bnb8" else one for one in run.results]
    place.write(replace(run, results=tuple(bare)))
    assert "what bnb8 was" in qeval("fidelity", "--fidelity", "prose", code=1).stderr


@pytest.mark.slow
@pytest.mark.parametrize("field", ["variant_digest", "baseline_digest"])
def test_what_was_measured_of_another_variant_of_the_same_name_is_not_shown(qeval, runs_dir, field):
    qeval(*TOY, "--fidelity", "prose")
    place = run_of(runs_dir)
    one = next(one for one in stored.measured(place) if one.variant == "bnb4")
    other = replace(one, **{field: "0" * 64})
    stored.add(place, other, stored.positions(place, one), stored.stream(place, one))
    rows = json.loads(qeval("show", "--json").stdout)["fidelity"]
    assert [row["variant"] for row in rows] == ["fp16", "fp16", "bnb8"]


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_real_model_is_measured_while_it_is_loaded(qeval, tmp_path, monkeypatch):
    from byte_tokenizer import a_tokenizer
    from tiny_models import save_model

    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "cache"))
    llama = save_model(tmp_path / "llama")
    a_tokenizer().save_pretrained(llama)
    words = ("--tasks", "qeval_facts", "--limit", "2", "--device", "cpu", "--threads", "1")
    said = qeval("run", "--model", llama, "--schemes", "fp32,rtn", *words, "--fidelity", "prose[windows=3]")
    assert said.stderr.count("loading the weights") == 2  # not once more for fidelity
    rows = json.loads(qeval("show", "--json").stdout)["fidelity"]
    assert [row["role"] for row in rows] == ["packing", "plain", "candidate"]


@pytest.mark.slow
def test_a_file_below_home_is_measured_once_and_left_out_where_asked(qeval, tmp_path, monkeypatch, runs_dir):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = tmp_path / "home" / "secret" / "text.txt"
    file.parent.mkdir(parents=True)
    file.write_text("some words")
    qeval(*TOY, "--fidelity", f"text:{file}")
    before = stored.measured(run_of(runs_dir))
    assert {one.protocol.name for one in before} == {"text:~/secret/text.txt"}
    qeval(*TOY, "--fidelity", f"text:{file}")
    assert stored.measured(run_of(runs_dir)) == before
    qeval("report", "--redact", "-o", tmp_path / "report.md", "-o", tmp_path / "report.json")
    for name in ("report.md", "report.json"):
        text = (tmp_path / name).read_text()
        assert "secret" not in text.replace("--fidelity", "")
        assert "nats" in text or "kl" in text


@pytest.mark.slow
def test_what_redact_hides_is_judged_all_the_same(qeval, tmp_path):
    file, other = tmp_path / "secret" / "words.txt", tmp_path / "secret" / "other.txt"
    file.parent.mkdir()
    file.write_text("some words")
    qeval(*TOY, "--fidelity", f"text:{file}")
    policy, junit = tmp_path / "policy.toml", tmp_path / "gate.xml"
    rule = "[[rule]]\ntasks = '{}'\nmax_kl = 1e-9\n"
    policy.write_text("[gate]\nmax_drop = 90\n" + rule.format(f"text:{file}"))
    words = ("gate", "--policy", policy, "--allow-identical")
    found = json.loads(qeval(*words, "--json", code=3).stdout)
    shown = json.loads(qeval(*words, "--json", "--redact", "--junit", junit, code=3).stdout)
    assert [one["status"] for one in shown["decisions"]] == [one["status"] for one in found["decisions"]]
    hidden = {one["task"] for one in shown["decisions"]} - {one["task"] for one in found["decisions"]}
    assert [name[:5] for name in hidden] == ["text:"]
    report = tmp_path / "report.md"
    qeval("report", "--redact", "--policy", policy, "-o", report)
    table = qeval(*words, "--redact", code=3)
    for text in (json.dumps(shown), junit.read_text(), table.stdout, report.read_text()):
        assert "secret" not in text.replace("--fidelity", "")
        assert next(iter(hidden)) in text
    policy.write_text("[gate]\nmax_drop = 90\n" + rule.format(f"text:{other}"))
    missing = qeval(*words, "--redact", code=5).stdout
    assert "secret" not in missing
    assert "text:[file 1]" in missing


def test_a_smoke_run_measures_only_what_is_asked():
    from qeval.ask.order import order

    usual = {"model": "demo", "schemes": "fp16", "suite": "demo", "tasks": None, "num_fewshot": None}
    usual |= {
        "baseline": None,
        "revision": None,
        "adapter": None,
        "command": (),
        "verify": None,
        "cost": None,
    }
    usual |= {"again": False, "no_materialize": False, "datasets_dir": None, "gate": None, "runs_dir": Path()}
    names = lambda **more: [one.name for one in order(**usual, **more).fidelity.protocols]  # noqa: E731
    assert names(limit=None) == ["prose"]
    assert names(limit=5) == []
    assert names(limit=5, fidelity="trace:own") == ["trace:own"]
    assert names(limit=None, fidelity="none") == []
