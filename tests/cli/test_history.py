"""`qeval history`: runs of a directory in the order of time, what is damaged among them told."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from bad_files import put
from factories import ARC, QUIZ
from stored import changed, store, whole


@pytest.fixture
def runs(runs_dir):
    """Two whole runs, the later one stored first, one of which an item is damaged, and one that is no run."""
    for day, name in ((2, "b"), (1, "a"), (3, "c")):
        store(runs_dir, whole(), id=name, created=f"2026-01-0{day}T00:00:00+00:00")
    cell = next((runs_dir / "c" / "cells").glob("bnb4*")) / "samples.parquet"
    cell.write_bytes(cell.read_bytes()[:-9])
    put(runs_dir / "d" / "run.json", "empty")
    return runs_dir


def points(out):
    return json.loads(out)["series"][0]["points"]


@pytest.mark.usefixtures("runs")
def test_runs_stand_in_the_order_of_time_and_damage_is_told(qeval):
    found = qeval("history", "--variant", "bnb4", "--json").stdout
    assert [point["run"] for point in points(found)] == ["a", "b", "c"]
    assert points(found)[2]["lacks"][-1].startswith("damaged: cells/")
    assert [one["run"] for one in json.loads(found)["unread"]] == ["d"]
    said = qeval("history", "--variant", "bnb4").stdout
    assert "damaged: cells/" in said
    assert "Not read: d:" in said


@pytest.mark.usefixtures("runs")
def test_the_margin_is_said_and_another_is_taken(qeval):
    assert "margin -1" in qeval("history", "--variant", "bnb4").stdout
    assert "margin -0.5" in qeval("history", "--variant", "bnb4", "--margin", "0.5").stdout
    said = qeval("history", "--max-drop", "60", "--variant", "bnb4").stdout
    assert "limit -60" in said
    assert "Judged by --max-drop 60" in said
    assert "pass" in said


def test_a_limit_of_all_tasks_is_drawn_in_for_means_which_only_a_rule_that_names_them_judges(qeval, runs_dir):
    store(runs_dir, whole(tasks=(ARC, QUIZ)))
    found = json.loads(qeval("history", "--max-drop", "60", "--variant", "bnb4", "--json").stdout)
    points = {one["task"]: one["points"][0] for one in found["series"]}
    assert {one["allowed"] for one in points.values()} == {0.6}
    drawn = {"arc": False, "quiz_macro": True, "quiz": False, "average": True}
    assert {name: one["drawn"] for name, one in points.items()} == drawn
    assert {name: not one["judged"] for name, one in points.items()} == drawn


@pytest.mark.slow
def test_the_report_draws_the_lines_of_earlier_runs(qeval, runs_dir, tmp_path):
    file = tmp_path / "r.html"
    for day in (1, 2, 3):
        store(runs_dir, whole(), id=f"night{day}", created=f"2026-01-0{day}T00:00:00+00:00")
    plain = qeval("report", "night2", "-o", file) and file.read_text()
    assert "Over time" not in plain
    qeval("report", "night2", "-o", file, "--history")
    page = file.read_text()
    assert "Over time" in page
    assert [f"night{day}" in page for day in (1, 2, 3)] == [True, True, False]
    assert 'class="limit"' in page
    said = qeval("report", "night1", "-o", file, "--history").stderr
    assert "No earlier run of toy, suite toy," in said
    alone = plain.replace("night2", "night1").replace("2026-01-02", "2026-01-01")
    assert file.read_text().replace("night1 --history -o", "night1 -o") == alone
    for words in (
        ("-o", tmp_path / "r.md"),
        ("night1", "night2", "-o", file),
        ("--baseline", "bnb4", "-o", file),
    ):
        assert "--history" in qeval("report", *words, "--history", code=2).stderr


@pytest.mark.usefixtures("runs")
def test_files_of_every_format(qeval, tmp_path):
    files = [tmp_path / f"h{ending}" for ending in (".html", ".md", ".json", ".csv")]
    outputs = [word for file in files for word in ("-o", file)]
    said = qeval("history", "--task", "arc", *outputs)
    assert said.stdout.split() == [str(file) for file in files]
    table = list(csv.DictReader(files[3].read_text().splitlines()))
    assert {row["run"] for row in table} == {"a", "b", "c"}
    assert json.loads(files[2].read_text())["schema"] == 1
    (tmp_path / "none").mkdir()
    qeval("history", "--runs-dir", tmp_path / "none", "-o", files[3])
    assert files[3].read_text().startswith("model,suite,")
    assert len(files[3].read_text().splitlines()) == 1


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("kind", "word", "nearest"),
    [
        ("task", "arv", "arc"),
        ("task", "averag*", None),
        ("variant", "bnb", "bnb4"),
        ("model", "tooy", "toy"),
        ("suite", "ty", "toy"),
    ],
)
def test_a_name_that_no_run_has_is_refused_with_the_nearest(qeval, tmp_path, kind, word, nearest):
    table = tmp_path / "h.csv"
    words = ("history", "-o", table, f"--{kind}")
    if nearest is None:
        qeval(*words, word)
        return
    said = qeval(*words, word, code=2).stderr
    assert f"No run here has a {kind} {word!r}." in said
    assert f"Did you mean {nearest!r}?" in said
    assert not table.exists()
    qeval(*words, nearest)


@pytest.mark.usefixtures("runs")
def test_a_name_like_none_there_is_is_told_all(qeval):
    assert re.search(r"Known: .*\barc\b", qeval("history", "--task", "xyzzy", code=2).stderr)
    qeval("history", "--task", "arc", "--variant", "fp16")


@pytest.mark.usefixtures("runs")
def test_slips_are_sentences(qeval, tmp_path):
    refused = qeval("history", "-o", tmp_path / "h.pdf", code=2).stderr
    assert "no format '.pdf'" in refused
    assert not (tmp_path / "h.pdf").exists()
    qeval("history", "--max-drop", "much", code=2)
    assert "means nothing" in qeval("history", "--max-ppl-ratio", "1.1", code=2).stderr
    assert "names nothing in these runs: 'nope'" in qeval("history", "--max-drop", "nope=1", code=2).stderr
    (tmp_path / "p.toml").write_text("[[rule]]\ntasks = 'prose'\nmax_kl = 0.1\n")
    unmeasured = qeval("history", "--policy", tmp_path / "p.toml", code=2).stderr
    assert "Rule 1 (max_kl 0.1) is about fidelity, which was not measured by 'prose':" in unmeasured
    (tmp_path / "p.toml").write_text("[[rule]]\nvariants = 'bnb5'\nmax_drop = 1\n")
    assert "Did you mean 'bnb4'?" in qeval("history", "--policy", tmp_path / "p.toml", code=2).stderr
    for words in (("history",), ("list", "runs")):
        said = qeval(*words, "--runs-dir", tmp_path / "nowhere", code=2).stderr
        assert "There is no directory" in said


def test_an_empty_directory_has_no_history(qeval):
    assert "No run here" in qeval("history").stdout


def test_redacted_it_names_no_path(qeval, runs_dir):
    made = whole()
    for place in (0, 1):
        variant = made[0].results[place].variant
        made = changed(made, place, variant=replace(variant, model="/secret/place/model"))
    store(runs_dir, made, model="/secret/place/model")
    assert "/secret/place" in qeval("history").stdout
    for words in ((), ("--json",)):
        said = qeval("history", "--redact", *words).stdout
        assert "secret" not in said
    assert points(said)[0]["run"].startswith("run-")
    assert points(said)[0]["lacks"] == []


def of_model(model, adapter=None):
    made = whole()
    for place in (0, 1):
        variant = replace(made[0].results[place].variant, model=model, adapter=adapter)
        made = changed(made, place, variant=variant)
    return made


def test_redacted_different_models_stay_different_lines(qeval, runs_dir):
    for day, model in enumerate(("/secret/a", "/secret/b", "/secret/a"), 1):
        created = f"2026-01-0{day}T00:00:00+00:00"
        store(runs_dir, of_model(model), id=f"secret-{day}", created=created, model=model)
    words = ("history", "--redact", "--variant", "bnb4", "--task", "arc", "--json")
    said = qeval(*words).stdout
    found = {
        one["model"]: [point["created"][:10] for point in one["points"]] for one in json.loads(said)["series"]
    }
    assert found == {"[path 1]": ["2026-01-01", "2026-01-03"], "[path 2]": ["2026-01-02"]}
    assert "secret" not in said
    assert all(not point["broken"] for one in json.loads(said)["series"] for point in one["points"])
    refused = qeval(*words, "--model", "nobody", code=2).stderr
    assert "Known: [path 1], [path 2]." in refused
    for model in ("/secret/b", "[path 2]"):
        (one,) = json.loads(qeval(*words, "--model", model).stdout)["series"]
        assert len(one["points"]) == 1


@pytest.mark.slow
def test_redacted_lines_of_a_report_are_of_its_model_and_named_as_in_it(qeval, runs_dir, tmp_path):
    for day, adapter in enumerate(("/secret/x", "/secret/y"), 1):
        made = of_model("/secret/a", adapter)
        store(runs_dir, made, id=f"s{day}", created=f"2026-01-0{day}T00:00:00+00:00", model="/secret/a")
    qeval("report", "s2", "-o", tmp_path / "r.html", "--history", "--redact")
    page = (tmp_path / "r.html").read_text()
    assert "secret" not in page
    assert "adapter: [path 3], then [path 2]" in page


def test_models_whose_names_an_earlier_hand_left_out_are_not_taken_for_one(qeval, runs_dir):
    for day in (1, 2):
        made = of_model("[path 1]")
        created = f"2026-01-0{day}T00:00:00+00:00"
        words = ("qeval", "run", "--model", "[path 1]")
        store(runs_dir, made, id=f"s{day}", created=created, model="[path 1]", command=words)
    found = points(qeval("history", "--variant", "bnb4", "--json").stdout)
    assert "its path was left out" in found[1]["broken"]
    found = json.loads(qeval("history", "--redact", "--variant", "bnb4", "--task", "arc", "--json").stdout)
    assert [one["model"] for one in found["series"]] == ["[path 1]", "[path 2]"]


def test_a_run_without_its_baseline_does_not_hide_the_others(qeval, runs_dir):
    store(runs_dir, whole(), id="a", created="2026-01-01T00:00:00+00:00")
    store(runs_dir, whole(), id="b", created="2026-01-02T00:00:00+00:00", baseline="gone")
    store(runs_dir, whole(), id="c", created="", command=("qeval", "run", "--model", "[path 1]"))
    found = points(qeval("history", "--variant", "bnb4", "--json").stdout)
    assert [point["run"] for point in found] == ["a", "b", "c"]
    assert found[1]["lacks"][-1].startswith("not comparable: The run has no variant 'gone'")
    assert "paths left out" in found[2]["lacks"]
