"""What releases of lighteval wrote (see tests/helpers/elsewhere), and damage to it."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path

import pytest
from factories import compare_run
from harness_files import unproved_of

from qeval.base.errors import IncomparableError, QevalError
from qeval.base.sizes import MMLU_SUBJECTS
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.exchange.readers import lighteval
from qeval.store import unpacking

ELSEWHERE = Path(__file__).parents[2] / "fixtures" / "elsewhere"
VERSIONS = ("0.6.2", "0.13.0")
FP16, INT4 = "tiny[dtype=float16]", "tiny[dtype=int4]"


def release(version):
    return ELSEWHERE / f"lighteval-{version}"


def unproved(found, *place):
    return unproved_of(found.run)[place]


def cells_of(found):
    return {(r.variant.name, cell.task.name): cell for r in found.run.results for cell in r.cells}


def copied(version, tmp_path):
    return shutil.copytree(release(version), tmp_path / version)


@pytest.mark.parametrize("version", VERSIONS)
def test_details_are_paired_item_by_item_and_give_lightevals_own_means(version):
    found = import_lm_eval(release(version), baseline=FP16)
    for name, folder in ((FP16, "fp16"), (INT4, "int4")):
        table = json.loads(next((release(version) / folder).rglob("results_*.json")).read_text())["results"]
        for full, said in ((full, said) for full, said in table.items() if full != "all"):
            cell = cells_of(found)[name, next(part for part in full.split("|") if part.startswith("toy"))]
            assert cell.score == pytest.approx(said[cell.task.metric])
            assert (cell.n, cell.task.num_fewshot) == (len(found.samples[cell.key]), 0)
    rows = {row.task: row for row in compare_run(found.run, lambda cell: found.samples[cell.key])}
    assert set(rows) == {"toy_letters", "toy_sums"}
    assert rows["toy_letters"].losses is not None
    assert {result.provenance.engine for result in found.run.results} == {"lighteval"}


def test_old_and_new_details_say_the_same_of_the_same_answers():
    old, new = (import_lm_eval(release(version), baseline=FP16) for version in VERSIONS)
    for place, cell in cells_of(old).items():
        mine, theirs = old.samples[cell.key], new.samples[cells_of(new)[place].key]
        for name in ("value", "answer", "gold", "prompt_hash", "doc_hash", "target_hash"):
            assert list(getattr(mine, name)) == list(getattr(theirs, name))


def test_the_answer_is_the_likeliest_choice():
    found = import_lm_eval(release("0.13.0"), baseline=FP16)
    samples = found.samples[cells_of(found)[FP16, "toy_letters"].key]
    assert list((samples.answer == samples.gold).astype(float)) == list(samples.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_results_alone_are_scores(version, tmp_path):
    place = copied(version, tmp_path)
    for file in [*place.rglob("*.parquet")]:
        file.unlink()
    cell = cells_of(import_lm_eval(place, baseline=FP16))[FP16, "toy_letters"]
    assert (cell.n, cell.n_available, cell.aggregate_only) == (12, 12, True)


def test_details_lie_beside_a_results_file_that_is_named(tmp_path):
    files = sorted(copied("0.13.0", tmp_path).rglob("results_*.json"))
    found = import_lm_eval(*files, baseline=FP16)
    assert not any(cell.aggregate_only for cell in cells_of(found).values())


def test_a_results_file_by_itself_has_its_details_beside_it_or_where_lighteval_puts_them(tmp_path):
    for results in copied("0.13.0", tmp_path).rglob("results_*.json"):
        alone = tmp_path / results.stem
        alone.mkdir()
        for file in (results, *results.parents[3].rglob("details_*")):
            shutil.copy(file, alone)
        (cell, *_) = cells_of(import_lm_eval(alone / results.name)).values()
        assert not cell.aggregate_only


def test_a_file_by_itself_is_not_an_order_to_look_through_its_folder(tmp_path, monkeypatch):
    """All below the folder above was walked, through links too, and one folder that could not be read ended
    the import."""
    place = copied("0.13.0", tmp_path) / "fp16"
    deep = place / "results" / "org" / "tiny" / "elsewhere"
    deep.mkdir()
    details = place / "details" / "org" / "tiny"
    (time,) = details.iterdir()
    results = next(place.rglob("results_*.json"))
    lm_evals = next((ELSEWHERE / "lm-eval-0.4.9.1").rglob("results_*.json"))
    (deep / "home").symlink_to(tmp_path)
    looked = []
    walk, listed = os.walk, Path.iterdir
    monkeypatch.setattr(os, "walk", lambda top, *a, **k: looked.append(Path(top)) or walk(top, *a, **k))
    monkeypatch.setattr(Path, "iterdir", lambda top: looked.append(top) or listed(top))
    found = import_lm_eval(results)
    assert not any(cell.aggregate_only for cell in cells_of(found).values())
    assert looked == [place / "results" / "org" / "tiny", details, time]
    looked.clear()
    import_lm_eval(lm_evals)
    assert looked == []


def test_details_that_cannot_be_looked_into_are_not_taken_for_none(tmp_path, monkeypatch):
    place = copied("0.13.0", tmp_path) / "fp16"

    def closed(top):
        raise PermissionError(errno.EACCES, "Permission denied", str(top))

    results = next(place.rglob("results_*.json"))
    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(QevalError, match=r"cannot be opened: Permission denied"):
        import_lm_eval(results)


def test_names_of_details_as_lighteval_writes_them(tmp_path):
    place = copied("0.13.0", tmp_path)
    for file in [*place.rglob("details_toy_letters_0_*")]:
        file.rename(file.with_name(file.name.replace("letters_0", "letters|0")))
    assert not any(cell.aggregate_only for cell in cells_of(import_lm_eval(place, baseline=FP16)).values())


def test_tasks_of_one_group_and_names_that_need_their_whole_length(tmp_path):
    names = ("lb|mmlu:a|5|0", "lb|mmlu:b|5|0", "lb|arc|0|0", "lb|arc|25|0")
    table = {
        "config_general": {"model_name": "org/x", "max_samples": None},
        "results": {
            **{name: {"acc": 0.5, "acc_stderr": 0.2} for name in names},
            "lb|mmlu:_average|5": {"acc": 0.5},
        },
        "config_tasks": {name: {"effective_num_docs": 10, "original_num_docs": 10} for name in names},
        "versions": {},
    }
    (tmp_path / "results_x.json").write_text(json.dumps(table))
    (result,) = import_lm_eval(tmp_path).run.results
    assert {(cell.task.name, cell.task.group, cell.task.num_fewshot) for cell in result.cells} == {
        ("mmlu:a", "mmlu", 5), ("mmlu:b", "mmlu", 5), ("lb|arc|0|0", None, 0), ("lb|arc|25|0", None, 25)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PAR1 and no more", "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "it is a Git LFS pointer"),
    ],
)
def test_damaged_details_are_refused_and_moved_away_leave_scores(tmp_path, data, says):
    place = copied("0.13.0", tmp_path)
    file = next(place.rglob("details_toy_letters*"))
    file.write_bytes(data)
    with pytest.raises(QevalError, match=says) as caught:
        import_lm_eval(place, baseline=FP16)
    assert "git lfs pull" in caught.value.hint or "move its details away" in caught.value.hint
    file.unlink()
    assert sum(cell.aggregate_only for cell in cells_of(import_lm_eval(place, baseline=FP16)).values()) == 1


def test_details_of_another_run_are_refused(tmp_path):
    place = copied("0.13.0", tmp_path)
    file = next(place.rglob("results_*.json"))
    table = json.loads(file.read_text())
    table["results"]["toy_letters|0"]["acc"] = 0.75
    file.write_text(json.dumps(table))
    with pytest.raises(QevalError, match=r"the mean of acc,none is 0\.25"):
        import_lm_eval(place, baseline=FP16)


@pytest.mark.parametrize(
    "change",
    [
        {"results": {"a|0": 3}}, {"config_tasks": {"a|0": 3}}, {"versions": 3},
        {"config_general": {"model_config": 3}},
        {"config_tasks": [1]}, {"results": {}},
    ],
)  # fmt: skip
def test_what_lighteval_never_writes_is_refused(tmp_path, change):
    table = {
        "config_general": {"model_name": "x"},
        "results": {"a|0": {"acc": 0.5}},
        "config_tasks": {},
        "versions": {},
    }
    (tmp_path / "results_x.json").write_text(json.dumps(table | change))
    with pytest.raises(QevalError) as caught:
        import_lm_eval(tmp_path)
    assert caught.value.hint


def altered(place, folder, change):
    """The results of one variant, changed in place."""
    file = next((place / folder).rglob("results_*.json"))
    table = json.loads(file.read_text())
    change(table)
    file.write_text(json.dumps(table))


@pytest.mark.parametrize("samples", [True, False])
@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("toy_sums", {"generation_parameters": {"temperature": 0.7}}),
        ("toy_sums", {"generation_parameters": {"max_new_tokens": 5}}),
        ("toy_letters", {"system_prompt": "Be brief."}),
        ("toy_letters", {"override_chat_template": True}),
    ],
)
def test_other_settings_of_the_model_are_unproved(tmp_path, samples, task, change):
    place = copied("0.13.0", tmp_path)
    altered(place, "int4", lambda table: table["config_general"]["model_config"].update(change))
    for file in () if samples else [*place.rglob("*.parquet")]:
        file.unlink()
    found = import_lm_eval(place, baseline=FP16)
    assert "generation_kwargs is" in unproved(found, INT4, task)[0]
    assert not unproved(found, FP16, task)


@pytest.mark.parametrize("change", [{"generation_size": 5}, {"stop_sequence": ["."]}])
def test_other_settings_of_a_task_are_unproved(tmp_path, change):
    place = copied("0.13.0", tmp_path)
    altered(place, "int4", lambda table: table["config_tasks"]["toy_sums|0"].update(change))
    found = import_lm_eval(place, baseline=FP16)
    assert "generation_kwargs is" in unproved(found, INT4, "toy_sums")[0]
    assert not unproved(found, INT4, "toy_letters")


def test_how_texts_are_written_is_no_matter_where_choices_are_scored(tmp_path):
    place = copied("0.13.0", tmp_path)
    change = {"generation_parameters": {"temperature": 0.7}}
    altered(place, "int4", lambda table: table["config_general"]["model_config"].update(change))
    assert not unproved(import_lm_eval(place, baseline=FP16), INT4, "toy_letters")


def rewritten(place, name, change):
    """A file of details with each of its rows changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(place.rglob(f"details_*{name}*"))
    rows = pq.read_table(file).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows), file)


def test_prompts_that_the_details_do_not_hold_are_unproved(tmp_path):
    place = copied("0.13.0", tmp_path)
    for folder in ("fp16", "int4"):
        rewritten(place / folder, "letters", lambda row: row["model_response"].update(input=None))
    cells = cells_of(import_lm_eval(place, baseline=FP16))
    assert "nothing proves that the prompts are the same" in cells[FP16, "toy_letters"].unproved[0]
    assert "nothing proves that the prompts are the same" in cells[INT4, "toy_letters"].unproved[0]
    assert not cells[INT4, "toy_sums"].unproved


# --- what is said of metrics --------------------------------------------------------------------


def metric(name, rises, how="mean"):
    return {"metric_name": name, "higher_is_better": rises, "corpus_level_fn": how, "sample_level_fn": "f()"}


def judged_by(tmp_path, name, *entries, samples=True):
    """An import of letters alone, whose metric has another name, and configurations that tell `entries`."""
    place = copied("0.13.0", tmp_path)
    for folder in ("fp16", "int4"):

        def change(table):
            said = table["results"].pop("toy_letters|0")
            del table["results"]["toy_sums|0"]
            table["results"]["toy_letters|0"] = {name: said["acc"], f"{name}_stderr": said["acc_stderr"]}
            if entries:
                table["config_tasks"]["toy_letters|0"]["metrics"] = list(entries)

        altered(place, folder, change)
        rewritten(place / folder, "letters", lambda row: row.update(metric={name: row["metric"]["acc"]}))
        for file in () if samples else [*(place / folder).rglob("*.parquet")]:
            file.unlink()
    return import_lm_eval(place, baseline=FP16)


@pytest.mark.parametrize("samples", [True, False])
@pytest.mark.parametrize(
    ("name", "entries", "says"),
    [
        ("wer", (), "less wer is better"),
        ("ter", (), "has no metric that judges item by item"),
        ("ppl", (metric("ppl", rises=True),), "more ppl is better, where its name says that less is"),
        (
            "edit_distance",
            (metric(["edit_distance", "em"], {"edit_distance": False, "em": True}),),
            "less edit",
        ),
        ("density", (metric(["density", "x"], {"density": False, "x": True}),), "less density is better"),
        ("density", (), "nothing says whether more density is better"),
        (
            "em",
            (metric(["em", "f1"], {"em": True, "f1": True}, {"em": "max", "f1": "max"}),),
            "no metric that",
        ),
        ("mf1", (metric("mf1", True, "CorpusLevelF1Score(average=micro, num_classes=3)"),), "no metric that"),
    ],
)
def test_what_is_no_mean_of_which_more_is_better_does_not_judge(tmp_path, name, entries, says, samples):
    with pytest.raises(QevalError, match=says):
        judged_by(tmp_path, name, *entries, samples=samples)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("density", (metric(["density", "x"], {"density": True, "x": False}),)),
        ("em", (metric("em", True),)),
        ("pass@k:k=1&n=1", ()),
    ],
)
def test_what_is_told_to_rise_judges(tmp_path, name, entries):
    found = judged_by(tmp_path, name, *entries)
    assert cells_of(found)[INT4, "toy_letters"].task.metric == name
    assert unproved(found, INT4, "toy_letters") == []


def test_a_metric_that_was_calculated_otherwise_is_unproved(tmp_path):
    place = copied("0.13.0", tmp_path)
    for folder, how in (("fp16", "loose()"), ("int4", "strict()")):
        entry = {**metric("acc", True), "sample_level_fn": how}
        altered(
            place,
            folder,
            lambda table, entry=entry: table["config_tasks"]["toy_letters|0"].update(metrics=[entry]),
        )
    assert "the metric acc is" in unproved(import_lm_eval(place, baseline=FP16), INT4, "toy_letters")[0]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("word_perplexity", "CorpusLevelPerplexityMetric(metric_type=weighted_perplexity)"),
        ("ppl", "CorpusLevelPerplexityMetric(metric_type=perplexity)"),
    ],
)
def test_a_perplexity_is_one_and_more_of_it_is_worse(tmp_path, name, how):
    place = copied("0.13.0", tmp_path)
    for folder, value in (("fp16", 8.0), ("int4", 11.0)):

        def change(table, value=value):
            table["results"] = {"toy_letters|0": {name: value, f"{name}_stderr": 0.1}}
            table["config_tasks"]["toy_letters|0"]["metrics"] = [metric(name, False, how)]

        altered(place, folder, change)
        for file in [*(place / folder).rglob("*.parquet")]:
            file.unlink()
    (row,) = compare_run(import_lm_eval(place, baseline=FP16).run, lambda _: None)
    assert (row.kind, row.delta) == ("perplexity", pytest.approx(math.log(8 / 11)))


HOSTILE = {
    "a sign a hundred thousand times": "-" * 100_000 + "1",
    "a bracket a hundred thousand times": "(" * 100_000 + "1",
    "no literal": "__import__('os')",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_refused(tmp_path, text):
    place = copied("0.6.2", tmp_path)
    rewritten(place, "letters", lambda row: row.update(predictions=text))
    with pytest.raises(QevalError, match="is not as lighteval writes it") as caught:
        import_lm_eval(place, baseline=FP16)
    assert "move its details away" in caught.value.hint


def test_words_within_texts_stay_as_they_are():
    assert lighteval._value("['it is inf or nan', \"don't, nan\", nan, -inf, 'a\\' inf']") == [
        "it is inf or nan", "don't, nan", None, None, "a' inf"
    ]  # fmt: skip
    assert lighteval._value("{'acc': nan, 'infer': 1.0}") == {"acc": None, "infer": 1.0}


def test_few_bytes_that_unpack_to_far_more_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "SPARE", 1 << 10)
    monkeypatch.setattr(unpacking, "RATIO", 1)
    place = copied("0.13.0", tmp_path)
    rewritten(place, "letters", lambda row: row["doc"].update(instruction="x" * 100_000))
    with pytest.raises(QevalError, match="would unpack to far more"):
        import_lm_eval(place, baseline=FP16)


def test_the_document_is_the_same_whatever_was_answered():
    """A model that answered nothing had other documents than one that did."""
    some, none, text = (
        lighteval._line(0, "q", "p", ["a", "b"], [0], answers, {}) for answers in ([-1.0, -2.0], [], ["x"])
    )
    assert some["doc"] == none["doc"] == text["doc"] == {"question": "q", "choices": ["a", "b"]}


def test_another_release_is_refused(tmp_path):
    place = copied("0.13.0", tmp_path)
    for folder, sha in (("fp16", "abc"), ("int4", "def")):
        altered(place, folder, lambda table, sha=sha: table["config_general"].update(lighteval_sha=sha))
    found = import_lm_eval(place, baseline=FP16)
    with pytest.raises(IncomparableError, match=r"was scored with lighteval def, .* with abc"):
        compare_run(found.run, lambda cell: found.samples[cell.key])


# --- what the Open LLM Leaderboard wrote --------------------------------------------------------


def boards(tmp_path, place="config_general"):
    """Two files of its first version, with all subjects of MMLU."""
    tasks = {"arc:challenge|25": 1172, "truthfulqa:mc|0": 817}
    tasks |= {name.replace("mmlu_", "hendrycksTest-") + "|5": n for name, (n, _) in MMLU_SUBJECTS.items()}
    for model, share in (("a", 2), ("b", 3)):
        rows = {}
        for task, n in tasks.items():
            score = (n // share) / n
            name = "mc1" if task.startswith("truthful") else "acc"
            rows[f"harness|{task}"] = {name: score, f"{name}_stderr": (score * (1 - score) / (n - 1)) ** 0.5}
        general = {
            "lighteval_sha": "1a2b",
            "model_name": f"org/{model}",
            "model_sha": "c3",
            "max_samples": None,
        }
        table = {
            place: general,
            "results": {**rows, "all": {"acc": 0.5, "acc_stderr": 0.01}},
            "versions": {**dict.fromkeys(rows, 1), "all": 0},
            "config_tasks": dict.fromkeys(rows, "LM Harness task"),
        }
        (tmp_path / f"results_{model}.json").write_text(json.dumps(table))
    return tmp_path, tasks


@pytest.mark.parametrize("place", ["config_general", "config"])
def test_files_of_the_open_llm_leaderboard_are_scores_of_known_size(tmp_path, place):
    folder, tasks = boards(tmp_path, place)
    found = import_lm_eval(folder, baseline="a")
    cells = cells_of(found)
    assert {name for name, _ in cells} == {"a", "b"}
    for (name, task), cell in cells.items():
        shots = next(one for one in tasks if one.startswith(f"{task}|"))
        assert (cell.n, cell.task.num_fewshot) == (tasks[shots], int(shots.rpartition("|")[2]))
        assert cell.score == (cell.n // (2 if name == "a" else 3)) / cell.n
        assert cell.unproved == ()
    groups = {cell.task.group for (_, task), cell in cells.items() if task.startswith("hendrycks")}
    assert groups == {"hendrycksTest"}
