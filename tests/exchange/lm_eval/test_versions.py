"""What releases of lm-eval left in people's repositories: their own files (see tests/helpers/elsewhere)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from factories import compare_run
from harness_files import LATER, STAMP, letters, results, sample, write

from qeval.base.errors import QevalError, UsageError
from qeval.base.sizes import MMLU_SUBJECTS
from qeval.exchange.lm_eval.judging import Wishes
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.exchange.scores import import_scores

ELSEWHERE = Path(__file__).parents[2] / "fixtures" / "elsewhere"
WITH_SAMPLES = ("0.4.0", "0.4.2", "0.4.3", "0.4.9.1")
FP16, INT4 = "tiny[dtype=float16]", "tiny[dtype=int4]"


def release(version):
    return ELSEWHERE / f"lm-eval-{version}"


def rows_of(found):
    return compare_run(found.run, lambda cell: found.samples[cell.key])


def cells_of(found):
    return {(r.variant.name, cell.task.name): cell for r in found.run.results for cell in r.cells}


def tables(place):
    """The results of each variant, as the files say them."""
    files = {FP16: place / "fp16", INT4: place / "int4"}
    return {
        name: json.loads(next(folder.rglob("results*.json")).read_text()) for name, folder in files.items()
    }


def without_samples(version, tmp_path):
    place = shutil.copytree(release(version), tmp_path / version)
    for file in [*place.rglob("*.jsonl")]:
        file.unlink()
    return place


@pytest.mark.parametrize("version", WITH_SAMPLES)
def test_samples_of_a_release_give_its_own_means(version):
    found = import_lm_eval(release(version), baseline=FP16)
    cells = cells_of(found)
    assert len(cells) == 6
    assert not any(cell.aggregate_only for cell in cells.values())
    for (name, task), cell in cells.items():
        said = tables(release(version))[name]["results"][task][f"{cell.task.metric},{cell.task.filter}"]
        score = np.exp(-cell.score) if cell.task.kind == "perplexity" else cell.score
        assert score == pytest.approx(said)
    assert {row.task for row in rows_of(found)} == {"toy_letters", "toy_sums", "toy_pages"}


@pytest.mark.parametrize("version", ["0.4.0", "0.4.2"])
def test_the_hashes_that_a_release_does_not_write_are_those_that_later_ones_do(version):
    """Each release was asked the same: what 0.4.3 hashed is there as text before."""
    made, told = (import_lm_eval(release(one), baseline=FP16) for one in (version, "0.4.3"))
    for place, cell in cells_of(made).items():
        mine, theirs = made.samples[cell.key], told.samples[cells_of(told)[place].key]
        for name in ("doc_hash", "prompt_hash", "target_hash"):
            assert list(getattr(mine, name)) == list(getattr(theirs, name))


@pytest.mark.parametrize("version", ["0.3.0", *WITH_SAMPLES])
def test_results_alone_are_scores_that_are_compared_unpaired(version, tmp_path):
    place = without_samples(version, tmp_path)
    found = import_lm_eval(place, baseline=FP16)
    cell = cells_of(found)[FP16, "toy_letters"]
    said = tables(place)[FP16]["results"]["toy_letters"]
    assert cell.aggregate_only
    assert (cell.n, cell.n_available, cell.task.metric, cell.task.kind) == (12, 12, "acc_norm", "accuracy")
    assert cell.score == said.get("acc_norm", said.get("acc_norm,none"))
    assert (cell.task.num_fewshot, cell.unproved) == (0, ())
    first = found.run.results[0]
    assert (first.variant.scheme.kind, first.variant.model) == ("published", "org/tiny")
    assert "compared as scores without items" in first.provenance.notes[-1]
    (row,) = [row for row in rows_of(found) if row.task == "toy_letters"]
    assert (row.n, row.losses) == (12, None)
    assert row.low < row.delta < row.high


def test_a_task_without_samples_stands_beside_those_that_have_some(tmp_path):
    write(tmp_path / "a", results("letters", "words", name="a"))
    write(tmp_path / "b", results("letters", "words", name="b"))
    (tmp_path / "b" / f"samples_words_{STAMP}.jsonl").unlink()
    found = import_lm_eval(tmp_path, baseline="a")
    assert [cell.aggregate_only for cell in cells_of(found).values()] == [False, False, False, True]
    paired = {row.task: row.losses is not None for row in rows_of(found)}
    assert paired == {"letters": True, "words": False}


def published(tmp_path, said, n=None, limit=None, task="letters"):
    table = results(task, config={"limit": limit}, **{"n-samples": {task: {"effective": n}} if n else None})
    table["results"][task] = said
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / f"results_{STAMP}.json").write_text(json.dumps(table))
    return import_lm_eval(tmp_path).run.results[0].cells[0]


@pytest.mark.parametrize(("right", "n"), [(3, 7), (622, 1172), (7892, 10042)])
def test_the_number_of_items_is_what_the_standard_error_proves(tmp_path, right, n):
    score = right / n
    error = (score * (1 - score) / (n - 1)) ** 0.5
    cell = published(tmp_path, {"acc,none": score, "acc_stderr,none": error})
    assert (cell.n, cell.score, cell.metrics) == (n, score, {})
    with pytest.raises(QevalError, match="does not tell of how many items"):
        published(tmp_path, {"acc,none": score, "acc_stderr,none": error * 1.01})


@pytest.mark.parametrize(("metric", "n"), [("multiple_choice_grade", 190), ("em", 9536)])
def test_a_metric_of_another_name_may_prove_it_too(tmp_path, metric, n):
    score = 67 / n
    error = (score * (1 - score) / (n - 1)) ** 0.5
    assert published(tmp_path, {f"{metric},none": score, f"{metric}_stderr,none": error}).n == n


@pytest.mark.parametrize(("score", "error"), [(0.5, 0.1), (0.63016667, 0.018680205213012713)])
def test_what_another_metric_does_not_prove_is_not_taken_for_it(tmp_path, score, error):
    """Five times five and one answers would have these rounded figures too."""
    with pytest.raises(QevalError, match="does not tell of how many items"):
        published(tmp_path, {"em,none": score, "em_stderr,none": error})


def sides(tmp_path, both=None, **others):
    """A baseline with 25 of 100 right, and a variant with none, which no standard error says anything of."""
    for name, score in (("fp16", 0.25), ("int4", 0.0)):
        said = {"acc": score, "acc_stderr": (score * (1 - score) / 99) ** 0.5}
        config = {"model": "hf", "model_args": f"pretrained=org/tiny,dtype={name}", "limit": None}
        table = {"results": {"letters": said}, "versions": {"letters": 1}, "config": config} | (both or {})
        if name == "int4":
            table |= others
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    return import_lm_eval(tmp_path, baseline="tiny[dtype=fp16]")


def test_where_none_is_right_there_are_as_many_items_as_the_baseline_has(tmp_path):
    found = sides(tmp_path)
    assert [(cell.n, cell.score) for cell in cells_of(found).values()] == [(100, 0.25), (100, 0.0)]
    (row,) = rows_of(found)
    assert row.high < 0
    notes = found.run.results[1].provenance.notes
    assert notes[-1].endswith(
        "int4.json does not tell of how many items, so as many as in fp16.json: letters."
    )


def test_another_version_of_a_task_may_have_more_items(tmp_path):
    with pytest.raises(QevalError, match="does not tell of how many items"):
        sides(tmp_path, versions={"letters": 2})


def test_of_versions_that_nobody_tells_none_is_the_same(tmp_path):
    with pytest.raises(QevalError, match="does not tell of how many items"):
        sides(tmp_path, both={"versions": {}})


def test_a_baseline_that_tells_no_limit_may_have_had_one(tmp_path):
    unsaid = {"model": "hf", "model_args": "pretrained=org/tiny,dtype=fp16"}
    asked = {"model": "hf", "model_args": "pretrained=org/tiny,dtype=int4", "limit": None}
    with pytest.raises(QevalError, match="does not tell of how many items"):
        sides(tmp_path, both={"config": unsaid}, config=asked)


def test_the_number_of_items_of_a_known_task_is_known_without_a_limit(tmp_path):
    assert published(tmp_path / "a", {"acc,none": 0.5}, task="arc_challenge").n == 1172
    with pytest.raises(QevalError, match="does not tell of how many items"):
        published(tmp_path / "b", {"acc,none": 0.5}, limit=100, task="arc_challenge")


def test_what_is_not_right_or_wrong_is_as_sure_as_its_standard_error_says(tmp_path):
    cell = published(tmp_path, {"acc,none": 0.41234, "acc_stderr,none": 0.0137}, n=817)
    assert cell.task.kind == "score"
    assert cell.metrics["n_effective"] == pytest.approx(min(817, 0.41234 * 0.58766 / 0.0137**2))


def test_no_more_than_results_and_how_lm_eval_was_called(tmp_path):
    for name, score in (("fp16", 0.5), ("int4", 0.25)):
        error = (score * (1 - score) / 99) ** 0.5
        said = {"letters": {"acc,none": score, "acc_stderr,none": error, "alias": "letters"}}
        config = {"model": "hf", "model_args": f"pretrained=org/tiny,dtype={name}", "limit": None}
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": said, "config": config}))
    found = import_lm_eval(tmp_path, baseline="tiny[dtype=fp16]")
    assert [(cell.n, cell.score) for cell in cells_of(found).values()] == [(100, 0.5), (100, 0.25)]


def test_samples_in_the_results_themselves(tmp_path):
    """As a person keeps what lm-eval's Python API returned."""
    for name, folder in (("fp16", "fp16"), ("int4", "int4")):
        place = next((release("0.4.9.1") / folder).iterdir())
        table = json.loads(next(place.glob("results*.json")).read_text())
        table["samples"] = {
            task: [
                json.loads(line) for line in next(place.glob(f"samples_{task}_*")).read_text().splitlines()
            ]
            for task in table["configs"]
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    whole, apart = (import_lm_eval(place, baseline=FP16) for place in (tmp_path, release("0.4.9.1")))
    assert [row.delta for row in rows_of(whole)] == [row.delta for row in rows_of(apart)]
    for place, cell in cells_of(whole).items():
        other = apart.samples[cells_of(apart)[place].key]
        assert list(whole.samples[cell.key].prompt_hash) == list(other.prompt_hash)


def test_samples_as_a_list_under_the_name_of_the_months_before_0_4_3(tmp_path):
    place = shutil.copytree(release("0.4.3"), tmp_path / "out")
    for file in [*place.rglob("samples_*.jsonl")]:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.with_suffix(".json").write_text(json.dumps(lines, indent=2))
        file.unlink()
    before, now = (import_lm_eval(one, baseline=FP16) for one in (release("0.4.3"), place))
    assert [row.delta for row in rows_of(before)] == [row.delta for row in rows_of(now)]


@pytest.mark.parametrize("lacking", ["doc", "arguments", "target"])
def test_samples_without_hashes_and_without_the_texts_prove_nothing(tmp_path, lacking):
    hashes = ("doc_hash", "prompt_hash", "target_hash")
    row = {key: value for key, value in sample(0, right=True).items() if key not in (*hashes, lacking)}
    write(tmp_path, results("letters"), samples={"letters": [row]}, agree=False)
    with pytest.raises(QevalError, match="samples without doc_hash"):
        import_lm_eval(tmp_path)


# --- several paths, several runs, groups --------------------------------------------------------


def test_several_paths_are_variants_of_one_run():
    place = release("0.4.2")
    found = import_lm_eval(place / "fp16", place / "int4" / "results.json", place, baseline=FP16)
    assert [len(result.cells) for result in found.run.results] == [3, 3]
    assert found.run.id == import_lm_eval(place, baseline=FP16).run.id


def test_directories_of_one_name_tell_nameless_files_apart(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name / "out", results("letters", config={"model_args": ""}, model_name=None))
    found = import_lm_eval(tmp_path / "one" / "out", tmp_path / "two" / "out", baseline="one")
    assert [result.variant.name for result in found.run.results] == ["one", "two"]


def test_the_newest_of_each_model_and_task_holds(tmp_path):
    for name in ("org__a", "org__b"):
        table = results("letters", name=name.replace("__", "/"))
        write(tmp_path / name, dict(table), STAMP, samples={"letters": letters(right=lambda _: False)})
        table["results"] = {"letters": {}}
        write(tmp_path / name, table, LATER, samples={"letters": letters(right=lambda _: True)})
    found = import_lm_eval(tmp_path, baseline="a")
    assert [cell.score for cell in cells_of(found).values()] == [1.0, 1.0]
    assert all("Superseded" in result.provenance.notes[1] for result in found.run.results)


BOARD = {"board": ["bbh", "math", "ifeval"], "bbh": ["bbh_a", "bbh_b"], "math": ["math_a", "math_b"]}


def board(tmp_path):
    """As the groups of `leaderboard`: members of one subgroup are judged alike, those of others otherwise."""
    tasks = ("bbh_a", "bbh_b", "math_a", "math_b", "ifeval")
    metrics = {"b": ["acc_norm", "acc"], "m": ["exact_match"], "i": ["acc"]}
    rows = {
        task: [
            sample(
                at, at % 2, task, metrics=metrics[task[0]], exact_match=float(at % 2), acc_norm=float(at % 2)
            )
            for at in range(6)
        ]
        for task in tasks
    }
    for name in ("a", "b"):
        write(tmp_path / name, results(*tasks, name=name, groups=BOARD), samples=rows)
    return tmp_path


def test_a_group_of_mixed_metrics_keeps_the_means_within(tmp_path):
    found = import_lm_eval(board(tmp_path), baseline="a")
    assert {row.task for row in rows_of(found)} >= {"bbh_macro", "bbh", "math_macro", "math", "ifeval"}
    assert {task.name for task in found.run.suite.tasks} == {"bbh", "math", "ifeval"}
    for result in found.run.results:
        places = {cell.task.name: cell.task.group for cell in result.cells}
        assert places == {"bbh_a": "bbh", "bbh_b": "bbh", "math_a": "math", "math_b": "math", "ifeval": None}


def test_a_group_within_is_whole_where_the_outer_one_is_not(tmp_path):
    place = board(tmp_path)
    for file in place.rglob("samples_math_b*"):
        file.unlink()
    for file in place.rglob("results*"):
        table = json.loads(file.read_text())
        del table["results"]["math_b"]
        file.write_text(json.dumps(table))
    run = import_lm_eval(place, baseline="a").run
    assert {cell.task.name: cell.task.group for cell in run.results[0].cells} == {
        "bbh_a": "bbh", "bbh_b": "bbh", "math_a": None, "ifeval": None
    }  # fmt: skip
    assert "math_b" in {task.name for task in run.suite.tasks}


def test_a_wish_for_a_group_within_holds_for_its_members(tmp_path):
    found = import_lm_eval(board(tmp_path), baseline="a", wishes=Wishes({"bbh": "acc", "bbh_b": "acc_norm"}))
    metrics = {cell.task.name: cell.task.metric for cell in found.run.results[0].cells}
    assert (metrics["bbh_a"], metrics["bbh_b"], metrics["math_a"]) == ("acc", "acc_norm", "exact_match")


def test_results_that_a_person_kept_with_no_more_than_the_models_name(tmp_path):
    said = {"letters": {"acc,none": 0.5, "acc_stderr,none": (0.25 / 99) ** 0.5}}
    table = {"model": "org/tiny", "tasks": ["letters"], "num_fewshot": 3, "results": said}
    (tmp_path / "kept.json").write_text(json.dumps(table))
    (result,) = import_lm_eval(tmp_path).run.results
    (cell,) = result.cells
    assert (result.variant.name, cell.n, cell.task.num_fewshot) == ("tiny", 100, 3)
    assert "of how many items is not recorded" in cell.unproved[0]  # there may have been a limit


def test_whole_files_of_settings_as_arguments_make_no_name(tmp_path):
    """As GPT-NeoX recorded how it was configured."""
    said = {"letters": {"acc": 0.5, "acc_stderr": (0.25 / 99) ** 0.5}}
    for name in ("small", "large"):
        arguments = {"iteration": 7, "config_files": {f"{name}.yml": "# width\n" + 50 * name}}
        config = {"model": "neox", "model_args": arguments, "limit": None}
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": said, "config": config}))
    found = import_lm_eval(tmp_path, baseline="neox[large]")
    assert [result.variant.name for result in found.run.results] == ["neox[large]", "neox[small]"]
    assert all(len(result.provenance.notes[0]) < 200 for result in found.run.results)


def test_models_with_the_same_arguments_are_told_apart_by_their_directories_too(tmp_path):
    for place, dtype in (("one", "int8"), ("two", "int8"), ("two", "int4")):
        model_args = f"pretrained=org/tiny,dtype={dtype}"
        write(tmp_path / place / dtype, results("letters", config={"model_args": model_args}))
    found = import_lm_eval(tmp_path, baseline="tiny[dtype=int4]")
    names = [result.variant.name for result in found.run.results]
    assert names == ["tiny[dtype=int4]", "tiny[dtype=int8,one]", "tiny[dtype=int8,two]"]


def test_tasks_that_are_left_out_for_one_reason_are_told_in_one_sentence(tmp_path):
    names = [f"letters_{at}" for at in range(9)]
    table = results(*names, **{"n-samples": None})
    table["results"] = {name: {"acc,none": 0.0, "acc_stderr,none": 0.0} for name in names}
    (tmp_path / f"results_{STAMP}.json").write_text(json.dumps(table))
    with pytest.raises(QevalError, match=r"letters_0, .*, letters_3 and 5 more tasks: no samples") as caught:
        import_lm_eval(tmp_path)
    assert caught.value.message.count("no samples") == 1


# --- what the messages advise works -------------------------------------------------------------

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 123\n"


@pytest.mark.parametrize("what", ["results", "samples_letters"])
def test_a_pointer_of_git_lfs_is_called_that(tmp_path, what):
    place = write(tmp_path / "out", results("letters"))
    file = next(place.glob(f"{what}_*"))
    whole = file.read_text()
    file.write_text(POINTER)
    with pytest.raises(QevalError, match="it is a Git LFS pointer, not the file itself") as caught:
        import_lm_eval(place)
    assert "git lfs pull" in caught.value.hint
    file.write_text(whole)  # what it does
    assert import_lm_eval(place).run.results


def test_pointers_that_are_no_results_do_not_matter_where_there_are_some(tmp_path):
    (tmp_path / "tokenizer.json").write_text(POINTER)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        with pytest.raises(QevalError, match=r"tokenizer.json cannot be read: it is a Git LFS pointer"):
            import_lm_eval(path)
    write(tmp_path / "out", results("letters"))
    assert import_lm_eval(tmp_path).run.results


def test_damaged_samples_moved_away_leave_scores(tmp_path):
    place = write(tmp_path / "out", results("letters"))
    file = place / f"samples_letters_{STAMP}.jsonl"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(QevalError, match="is damaged") as caught:
        import_lm_eval(place)
    assert "move its samples away" in caught.value.hint
    file.rename(tmp_path / "away.jsonl")
    assert import_lm_eval(place).run.results[0].cells[0].aggregate_only


def test_samples_of_another_run_moved_away_leave_scores(tmp_path):
    place = write(tmp_path / "out", results("letters"))
    file = place / f"samples_letters_{STAMP}.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(QevalError, match="says that 6 were scored") as caught:
        import_lm_eval(place)
    assert "move them away" in caught.value.hint
    file.rename(tmp_path / "away.jsonl")
    assert import_lm_eval(place).run.results[0].cells[0].aggregate_only


def test_samples_alone_are_laid_beside_their_results(tmp_path):
    place = write(tmp_path / "out" / "a", results("letters"))
    write(tmp_path / "out" / "b", results("letters"))
    file = next(place.glob("results*"))
    file.rename(tmp_path / file.name)
    with pytest.raises(QevalError, match="has samples, and no results file that can be read") as caught:
        import_lm_eval(tmp_path / "out")
    assert "Lay the results beside them" in caught.value.hint
    (tmp_path / file.name).rename(file)
    assert import_lm_eval(tmp_path / "out", baseline="tiny[a]").run.results


@pytest.mark.parametrize("lacking", [0, 1])
def test_subjects_of_mmlu_as_0_3_names_them_are_a_group_if_all_are_there(tmp_path, lacking):
    names = [name.replace("mmlu_", "hendrycksTest-") for name in MMLU_SUBJECTS][lacking:]
    error = (0.25 / 99) ** 0.5
    table = {
        "results": {name: {"acc": 0.5, "acc_stderr": error} for name in names},
        "versions": dict.fromkeys(names, 1),
        "config": {
            "model": "hf-causal",
            "model_args": "pretrained=org/tiny",
            "num_fewshot": 5,
            "limit": None,
        },
    }
    (tmp_path / "results.json").write_text(json.dumps(table))
    cells = import_lm_eval(tmp_path).run.results[0].cells
    assert {(cell.n, cell.task.group) for cell in cells} == {(100, None if lacking else "hendrycksTest")}


def test_results_that_do_not_tell_enough_are_told_in_a_table(tmp_path):
    write(tmp_path / "out", results("letters", **{"n-samples": None}))
    next((tmp_path / "out").glob("samples*")).unlink()
    with pytest.raises(QevalError, match="not tell of how many items") as caught:
        import_lm_eval(tmp_path / "out")
    assert "columns variant, task, score and n" in caught.value.hint
    table = tmp_path / "scores.csv"
    table.write_text("variant,task,score,n\ntiny,letters,0.5,6\n")
    assert import_scores(table).results[0].cells[0].n == 6


def test_two_models_and_one_name_are_imported_one_by_one():
    place = release("0.4.2")
    with pytest.raises(UsageError, match="results of 2 models, and one name: 'x'") as caught:
        import_lm_eval(place, name="x")
    assert "one directory or file at a time" in caught.value.hint
    assert import_lm_eval(place / "fp16", name="x").run.baseline == "x"


def test_nothing_of_lm_eval_says_what_to_name(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(QevalError, match="holds no results of lm-eval") as caught:
        import_lm_eval(tmp_path)
    assert "--scores" not in caught.value.hint


@pytest.mark.parametrize(
    "said", [[{"task_name": "letters", "acc": 0.5}], {"letters": {"2022": {"acc": 0.5}}}]
)
def test_results_in_another_shape_are_told_in_a_table(tmp_path, said):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"results": said, "versions": {}}))
    with pytest.raises(QevalError, match=r"results.json has `results` that are no table") as caught:
        import_lm_eval(file)
    assert "columns variant, task, score and n" in caught.value.hint
