"""Logs that inspect wrote (see tests/helpers/elsewhere), by its own reader where it is installed."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import fake_inspect
import pytest
from factories import compare_run
from harness_files import unproved_of

from qeval.base.errors import IncomparableError, QevalError
from qeval.exchange.lm_eval.judging import Wishes
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.exchange.readers import inspect

LOGS = Path(__file__).parents[2] / "fixtures" / "elsewhere" / "inspect-0.3.285"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture(params=["fake json", "json", "eval"])
def logs(request, monkeypatch):
    """The directory of logs, with inspect's own reader or with ours of its JSON."""
    form = request.param.rpartition(" ")[2]
    if request.param.startswith("fake"):
        fake_inspect.install(monkeypatch)
    else:
        pytest.importorskip("inspect_ai", reason="qeval[inspect] is not installed")
    return LOGS / form


def unproved(found, *place):
    return unproved_of(found.run)[place]


def cells_of(found):
    return {(r.variant.name, cell.task.name): cell for r in found.run.results for cell in r.cells}


def test_logs_are_paired_item_by_item_and_give_inspects_own_means(logs):
    found = import_lm_eval(logs, baseline="fp16")
    cells = cells_of(found)
    assert set(cells) == {(name, task) for name in ("fp16", "int4") for task in ("toy_letters", "toy_sums")}
    for (name, task), cell in cells.items():
        file = next((LOGS / "json" / name).glob(f"*_{task.replace('_', '-')}_*"))
        told = {score["name"]: score for score in json.loads(file.read_text())["results"]["scores"]}
        assert cell.score == pytest.approx(told[cell.task.filter]["metrics"]["accuracy"]["value"])
        assert (cell.n, cell.n_available) == ((12, 12) if task == "toy_letters" else (6, 6))
    rows = {row.task: row for row in compare_run(found.run, lambda cell: found.samples[cell.key])}
    assert (rows["toy_letters"].losses, rows["toy_letters"].gains) == (2, 3)
    assert {result.provenance.engine for result in found.run.results} == {"inspect"}


def test_scorers_are_filters(logs):
    for name in ("includes", "match"):
        found = import_lm_eval(logs, baseline="fp16", wishes=Wishes(filters={"toy_sums": name}))
        assert cells_of(found)["int4", "toy_sums"].task.filter == name


@pytest.mark.parametrize("form", ["json", "eval"])
def test_without_inspect_a_log_says_what_to_install(form, monkeypatch):
    for name in ("inspect_ai", "inspect_ai.log"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(QevalError, match="package that reads it is not installed") as caught:
        import_lm_eval(LOGS / form)
    assert caught.value.hint == "Install it with: pip install 'qeval[inspect]'"


def changed(tmp_path, change):
    place = shutil.copytree(LOGS / "json", tmp_path / "logs")
    file = next((place / "int4").glob("*letters*"))
    log = json.loads(file.read_text())
    change(log)
    file.write_text(json.dumps(log))
    return place, file


def test_an_evaluation_that_did_not_end_is_refused_and_can_be_moved_away(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    place, file = changed(tmp_path, lambda log: log.update(status="error"))
    with pytest.raises(QevalError, match=r"did not end \(error\)") as caught:
        import_lm_eval(place, baseline="fp16")
    assert "move it away" in caught.value.hint
    file.unlink()
    assert len(cells_of(import_lm_eval(place, baseline="fp16"))) == 3


def test_a_log_of_more_items_than_its_data_is_left_out_by_naming_the_others(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    place, file = changed(tmp_path, lambda log: log["eval"]["dataset"].update(samples=3))
    with pytest.raises(QevalError, match="has only 3") as caught:
        import_lm_eval(place, baseline="fp16")
    assert caught.value.hint == f"Run inspect eval again, or leave {file.name} out: name the others."
    others = [one for one in place.rglob("*.json") if one != file]
    assert len(cells_of(import_lm_eval(*others, baseline="fp16"))) == 3


def test_a_log_that_was_not_scored_is_left_out_and_called_that(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)

    def unscored(log):
        log["results"]["scores"] = []
        for one in log["samples"]:
            one["scores"] = {}

    place, file = changed(tmp_path, unscored)
    run = import_lm_eval(place, baseline="fp16").run
    notes = next(one for one in run.results if one.variant.name == "int4").provenance.notes
    assert any(f"{file} has no item with a score" in note for note in notes)


def test_a_log_without_samples_is_a_score(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    place, _ = changed(tmp_path, lambda log: log.pop("samples"))
    cells = cells_of(import_lm_eval(place, baseline="fp16"))
    assert [cell.aggregate_only for cell in cells.values()].count(True) == 1
    assert cells["int4", "toy_letters"].n == 12


def test_another_way_of_asking_is_unproved(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    place, _ = changed(tmp_path, lambda log: log["eval"].update(model_generate_config={"temperature": 1.0}))
    found = import_lm_eval(place, baseline="fp16")
    assert "generation_kwargs is" in unproved(found, "int4", "toy_letters")[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scorers": [{"name": "choice", "options": {"strict": True}}]}, "the filter choice is"),
        ({"model_roles": {"grader": {"model": "openai/x"}}}, "generation_kwargs is"),
        ({"task_args": {"few": 3}}, "generation_kwargs is"),
        ({"config": {"epochs": 1, "message_limit": 2}}, "generation_kwargs is"),
        ({"packages": {"inspect_ai": "0.3.285", "inspect_evals": "2"}}, "generation_kwargs is"),
    ],
)
def test_another_scorer_grader_or_limit_is_unproved(tmp_path, monkeypatch, change, says):
    fake_inspect.install(monkeypatch)
    place, _ = changed(tmp_path, lambda log: log["eval"].update(change))
    found = import_lm_eval(place, baseline="fp16")
    assert says in unproved(found, "int4", "toy_letters")[0]
    assert not unproved(found, "fp16", "toy_letters")


def test_a_task_with_other_arguments_is_another_one(tmp_path, monkeypatch):
    """The later log was taken for a repetition of the earlier one, which was dropped."""
    fake_inspect.install(monkeypatch)
    place, file = changed(tmp_path, dict)
    for name, passed in (("b", {"few": 3, "style": "short"}), ("c", {"few": ["x" * 99]})):
        log = json.loads(file.read_text())
        log["eval"].update(task_args=passed, task_args_passed=passed)
        file.with_name(f"{name}.json").write_text(json.dumps(log))
    (result,) = import_lm_eval(place / "int4").run.results
    names = sorted(cell.task.name for cell in result.cells)
    assert names[0] == "toy_letters"
    assert names[2:] == ["toy_letters[few:3,style:short]", "toy_sums"]
    assert len(names[1]) == len("toy_letters[01234567]")
    assert not any("Superseded" in note for note in result.provenance.notes)


def test_another_release_is_refused(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    place, _ = changed(tmp_path, dict)
    for file in (place / "int4").iterdir():
        log = json.loads(file.read_text())
        log["eval"]["packages"]["inspect_ai"] = "0.4.0"
        file.write_text(json.dumps(log))
    found = import_lm_eval(place, baseline="fp16")
    with pytest.raises(IncomparableError, match=r"int4 was scored with inspect 0.4.0, fp16 with 0.3.285"):
        compare_run(found.run, lambda cell: found.samples[cell.key])


# --- which way a scorer counts ------------------------------------------------------------------


def rewritten(tmp_path, change):
    """All logs on letters, changed."""
    place = shutil.copytree(LOGS / "json", tmp_path / "logs")
    for file in [*place.glob("*/*sums*")]:
        file.unlink()
    for file in place.glob("*/*letters*"):
        log = json.loads(file.read_text())
        change(log)
        file.write_text(json.dumps(log))
    return place


def scorer(log, name, metric):
    """The only scorer under another name, its mean under another one too."""
    (score,) = log["results"]["scores"]
    score.update(name=name, scorer=name, metrics={metric: {**score["metrics"]["accuracy"], "name": metric}})
    for one in log["samples"]:
        one["scores"] = {name: one["scores"].pop("choice")}


@pytest.mark.parametrize("samples", [True, False])
@pytest.mark.parametrize(
    ("name", "metric", "says"),
    [
        ("toxicity", "accuracy", "less mean_toxicity is better"),
        ("hallucination_check", "accuracy", "less mean_hallucination_check is better"),
        ("wer", "mean", "less mean_wer is better"),
        ("perplexity", "mean", "less mean_perplexity is better"),
        ("attack_success", "mean", "less mean_attack_success is better"),
        ("rubric", "mean", "nothing says whether more mean_rubric is better, or less"),
        ("risk_score", "mean", "nothing says whether more mean_risk_score is better, or less"),
        ("sycophancy", "accuracy", "nothing says whether more mean_sycophancy is better, or less"),
    ],
)
def test_a_scorer_of_which_less_is_better_is_not_turned_round(
    tmp_path, monkeypatch, name, metric, says, samples
):
    fake_inspect.install(monkeypatch)

    def change(log):
        scorer(log, name, metric)
        if not samples:
            del log["samples"]

    with pytest.raises(QevalError, match=says):
        import_lm_eval(rewritten(tmp_path, change), baseline="fp16")


@pytest.mark.parametrize(
    ("name", "metric"), [("exact", "mean"), ("f1", "mean"), ("model_graded_qa", "accuracy")]
)
def test_a_scorer_of_which_more_is_better_is_proved_by_its_own_mean(tmp_path, monkeypatch, name, metric):
    fake_inspect.install(monkeypatch)
    found = import_lm_eval(rewritten(tmp_path, lambda log: scorer(log, name, metric)), baseline="fp16")
    assert set(map(tuple, unproved_of(found.run).values())) == {()}
    assert (
        cells_of(found)["fp16", "toy_letters"].task.metric
        == {"mean": "mean_score", "accuracy": "acc"}[metric]
    )


def several(log):
    """One scorer that gives two values at once, as right answers and errors."""
    (score,) = log["results"]["scores"]
    mean = score["metrics"]["accuracy"]["value"]
    log["results"]["scores"] = [
        {"name": name, "scorer": "both", "params": {}, "metrics": {"mean": {"name": "mean", "value": value}}}
        for name, value in (("wer", 1 - mean), ("correct", mean))
    ]
    for one in log["samples"]:
        right = one["scores"].pop("choice")["value"] == "C"
        one["scores"] = {"both": {"value": {"correct": int(right), "wer": int(not right)}, "answer": "A"}}


def test_a_value_among_several_is_not_known_by_the_name_of_what_gives_them(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    monkeypatch.setattr(fake_inspect, "_TABLES", fake_inspect._TABLES | {"value"})  # as a mapping

    def change(log):
        several(log)
        for one in log["results"]["scores"]:
            one.update(name={"wer": "wer", "correct": "tone"}[one["name"]], scorer="exact_match")
        for one in log["samples"]:
            value = one["scores"].pop("both")["value"]
            told = {"wer": value["wer"], "tone": value["correct"]}
            one["scores"] = {"exact_match": {"value": told, "answer": "A"}}

    with pytest.raises(QevalError, match="nothing says whether more mean_tone is better, or less"):
        import_lm_eval(rewritten(tmp_path, change), baseline="fp16")


def test_of_several_values_at_once_that_judges_of_which_more_is_better(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    monkeypatch.setattr(fake_inspect, "_TABLES", fake_inspect._TABLES | {"value"})  # as a mapping
    place = rewritten(tmp_path, several)
    found = import_lm_eval(place, baseline="fp16")
    cell = cells_of(found)["int4", "toy_letters"]
    assert (cell.task.metric, cell.task.filter, cell.unproved) == ("mean_score", "correct", ())
    assert not any("nan" in note for one in found.run.results for note in one.provenance.notes)
    with pytest.raises(QevalError, match="has no filter 'wer'"):
        import_lm_eval(place, baseline="fp16", wishes=Wishes(filters={"toy_letters": "wer"}))


def test_the_best_of_several_epochs_is_no_mean(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)

    def change(log):
        (score,) = log["results"]["scores"]
        best = {**score, "reducer": "max", "metrics": {"accuracy": {"name": "accuracy", "value": 1.0}}}
        log["results"]["scores"] = [{**score, "reducer": "mean"}, best]

    found = import_lm_eval(rewritten(tmp_path, change), baseline="fp16")
    assert {cell.score for cell in cells_of(found).values()} != {1.0}
    assert set(map(tuple, unproved_of(found.run).values())) == {()}


def test_a_packed_log_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    monkeypatch.setattr(inspect, "_SPARE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.eval", "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("header.json", b"0" * (2 << 20))
    with pytest.raises(QevalError, match="would unpack to 2097152, far more") as caught:
        import_lm_eval(tmp_path)
    assert "move it away" in caught.value.hint


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-11-26T14:45:54+02:00", "2026-11-26T13:45:54+00:00"),
        ("2026-11-26T14:45:54", "2026-11-26T15:45:54"),
        ("2026-11-26T14:45:54.5Z", "2026-11-26T14:45:54.75Z"),
    ],
)
@pytest.mark.parametrize("name", ["0000_a.json", "x.json"])
def test_the_newest_log_is_told_by_when_it_was_made_not_by_its_name(
    tmp_path, monkeypatch, first, second, name
):
    fake_inspect.install(monkeypatch)
    place, file = changed(tmp_path, lambda log: log["eval"].update(created=first, task_version="old"))
    log = json.loads(file.read_text())
    log["eval"].update(created=second, task_version="new")
    (file.parent / name).write_text(json.dumps(log))
    file.rename(file.with_name("zzzz_b.json"))
    (result,) = import_lm_eval(place / "int4").run.results
    (cell,) = (cell for cell in result.cells if cell.task.name == "toy_letters")
    assert cell.task_version == "new"
    assert any("dropped: toy_letters of zzzz_b.json" in note for note in result.provenance.notes)


def test_a_pointer_and_a_damaged_log_are_called_that(tmp_path, monkeypatch):
    fake_inspect.install(monkeypatch)
    file = tmp_path / "x.eval"
    for text, says in ((LFS, "it is a Git LFS pointer"), ("no log", "is damaged")):
        file.write_text(text)
        with pytest.raises(QevalError, match=says):
            import_lm_eval(tmp_path)
