"""`qeval import` and what a gate says then: no verdict by accident, whatever lay in the files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from harness_files import LATER, STAMP, generated, letters, results, sample, write

from qeval.exchange.columns import COLUMNS
from qeval.store.runs import RunDir, Store

pytestmark = pytest.mark.slow

FP16 = {"pretrained": "org/tiny", "dtype": "float16"}
INT4 = {"pretrained": "org/tiny", "dtype": "int4"}
N = 400
ALL = ("--max-drop", "60", "--allow-identical", "--allow-limited")


def pair(place, ours=None, theirs=None, tasks=("letters",), **changes):
    """A directory with results of one model twice; `ours` and `theirs` are the lines by task."""
    write(place / "fp16", results(*tasks, args=FP16, **changes), samples=ours)
    write(place / "int4", results(*tasks, args=INT4, **changes), samples=theirs)
    return place


def imported(qeval, place, *words, baseline="tiny[dtype=float16]"):
    """The run that an import made, and what it said on the way."""
    named = ("--baseline", baseline) if baseline else ()
    result = qeval("import", place, *words, *named)
    return RunDir(runs(result)).read(), result.stderr


def runs(result):
    return Path(result.stdout.strip())


def refused(qeval, runs_dir, place, *words, code=1):
    """What an import says that refuses, and writes nothing."""
    result = qeval("import", place, *words, code=code)
    assert not runs_dir.exists()
    assert "Traceback" not in result.stderr
    return result.stderr


def many(n=N, right=lambda at: at % 2, task="letters"):
    return {task: letters(n, task, right)}


# --- which is the baseline ----------------------------------------------------------------------


def test_nobody_guesses_the_baseline(qeval, tmp_path, runs_dir):
    place = tmp_path / "out"
    for name, right in (("TheBloke/x-AWQ", lambda at: at % 3 == 0), ("meta-llama/x", lambda at: at % 2)):
        write(place / name, results("letters", name=name), samples=many(right=right))
    said = refused(qeval, runs_dir, place, code=2)
    assert "2 variants, and nothing says which is the baseline: x, x-AWQ." in said
    assert "--baseline" in said
    run, _ = imported(qeval, place, baseline="x")
    assert run.baseline == "x"
    assert [result.variant.model for result in run.results] == ["meta-llama/x", "TheBloke/x-AWQ"]
    assert "FAIL" in qeval("gate", run.id, "--max-drop", "2", code=3).stdout


def test_nobody_guesses_the_baseline_of_a_table(qeval, tmp_path, runs_dir):
    rows = "awq,arc,0.40,4000\nfp16,arc,0.53,4000\n"
    file = tmp_path / "scores.csv"
    file.write_text(f"variant,task,score,n\n{rows}")
    said = refused(qeval, runs_dir, file, "--scores", code=2)
    assert "2 variants, and nothing says which is the baseline: awq, fp16." in said
    file.write_text(
        f"variant,task,score,n,baseline\n{rows.replace('0.53,4000', '0.53,4000,true')}".replace(
            "0.40,4000", "0.40,4000,"
        )
    )
    place = runs(qeval("import", file, "--scores"))
    assert "FAIL" in qeval("gate", place, "--max-drop", "2", code=3).stdout


@pytest.mark.parametrize(
    "words", [("--scores", "--filter", "x"), ("--scores", "--metric", "acc"), ("--model", "x")]
)
def test_an_option_that_would_be_ignored_is_refused(qeval, tmp_path, runs_dir, words):
    place = write(tmp_path / "out", results("letters"))
    assert f"{words[-2]} means nothing here" in refused(qeval, runs_dir, place, *words, code=2)


# --- less is better -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "first", "second"), [("wer", 0.2, 0.4), ("brier_score", 0.15, 0.4), ("error_rate", 0.2, 0.4)]
)
def test_a_table_where_less_is_better_is_turned_round(qeval, tmp_path, metric, first, second):
    head = "model,variant,task,metric,score,n,baseline\n"
    for one, two, code in ((first, second, 3), (second, first, 0)):
        file = tmp_path / f"{code}.csv"
        file.write_text(f"{head}m,a,x,{metric},{one},4000,true\nm,b,x,{metric},{two},4000,\n")
        place = runs(qeval("import", file, "--scores"))
        qeval("report", place, "-o", tmp_path / "report.md")
        assert f"1 - {metric}" in (tmp_path / "report.md").read_text().replace("\\", "")
        qeval("gate", place, "--max-drop", "5", code=code)


@pytest.mark.parametrize(("metric", "first", "second"), [("ppl", 5.47, 7.9), ("bits_per_byte", 0.58, 0.8)])
def test_a_published_perplexity_under_any_name_does_not_pass_by_being_worse(
    qeval, tmp_path, metric, first, second
):
    file = tmp_path / "scores.csv"
    head = "model,variant,task,metric,score,n,stderr,baseline\n"
    file.write_text(f"{head}m,a,x,{metric},{first},62,0.01,true\nm,b,x,{metric},{second},62,0.01,\n")
    place = runs(qeval("import", file, "--scores"))
    assert "FAIL: b\n" in qeval("gate", place, "--max-ppl-ratio", "1.05", code=3).stdout
    head = "model,variant,task,metric,score,n\n"
    file.write_text(f"{head}m,a,x,{metric},{first},62\nm,b,x,{metric},{second},62\n")
    place = runs(qeval("import", file, "--scores", "--baseline", "a"))
    assert "INCONCLUSIVE: b\n" in qeval("gate", place, "--max-ppl-ratio", "1.05", code=4).stdout


@pytest.mark.parametrize("metric", ["wer", "ter", "mean_absolute_error", "loss"])
def test_samples_of_which_less_is_better_are_left_out(qeval, tmp_path, metric):
    """Where the file says so, and where only the name does."""
    for said in ({"letters": {}}, {"letters": {metric: False}}):
        rows = {
            "letters": [sample(at, right=True, metrics=[metric], **{metric: 0.25}) for at in range(6)],
            "words": letters(task="words"),
        }
        place = tmp_path / str(len(said["letters"]))
        run, told = imported(qeval, pair(place, rows, rows, ("letters", "words"), higher_is_better=said))
        assert [cell.task.name for cell in run.results[0].cells] == ["words"]
        assert {task.name for task in run.suite.tasks} == {"letters", "words"}
        assert "Left out: letters" in told


def test_samples_on_another_scale_are_left_out(qeval, tmp_path):
    rows = {
        "letters": [sample(at, right=True, metrics=["my_bleu"], my_bleu=13.8) for at in range(6)],
        "words": letters(task="words"),
    }
    run, told = imported(qeval, pair(tmp_path / "out", rows, rows, ("letters", "words")))
    assert "Left out: letters (its my_bleu is not on 0 to 1 (items from 13.8 to 13.8)" in told
    assert {task.name for task in run.suite.tasks} == {"letters", "words"}


# --- each item once, and the same numbers as the results ----------------------------------------


def test_items_that_are_there_twice_are_refused(qeval, tmp_path, runs_dir):
    rows = {"letters": letters() * 60}
    said = refused(qeval, runs_dir, pair(tmp_path / "out", rows, rows), "--baseline", "tiny[dtype=int4]")
    assert "has item 0 60 times for one filter (none)" in said


def old(rows):
    """Lines as lm-eval 0.4.3 to 0.4.6 wrote them: of no filter that they name, filter after filter."""
    kept = [{k: v for k, v in row.items() if k not in ("filter", "metrics")} for row in rows]
    return {"sums": sorted(kept, key=lambda row: row["order"])}


def sums(n, **share):
    """Generated answers of which those below a filter's share of n are right."""
    lines = [generated(at, **{name: at < part * n for name, part in share.items()}) for at in range(n)]
    return [line | {"order": place} for some in lines for place, line in enumerate(some)]


def with_filters(*names, **changes):
    table = results("sums", **changes)
    table["configs"]["sums"]["output_type"] = "generate_until"
    table["configs"]["sums"]["filter_list"] = [{"name": name, "filter": []} for name in names]
    return table


def said_by(rows):
    """What results say of each filter's exact_match."""
    names = {row["filter"]: [] for row in rows}
    for row in rows:
        names[row["filter"]].append(row["exact_match"])
    return {"sums": {f"exact_match,{name}": sum(some) / len(some) for name, some in names.items()}}


def test_an_old_file_is_split_by_the_order_of_its_filters(qeval, tmp_path):
    for name, share in (("fp16", 0.8), ("int4", 0.5)):
        rows = sums(N, strict_match=share, flexible_extract=0.9)
        args = FP16 if name == "fp16" else INT4
        table = with_filters("strict-match", "flexible-extract", args=args, lm_eval_version=None)
        write(tmp_path / name, table | {"results": said_by(rows)}, samples=old(rows))
    run, told = imported(qeval, tmp_path)
    cells = [result.cells[0] for result in run.results]
    assert [(cell.n, cell.score, cell.task.filter) for cell in cells] == [
        (N, 0.8, "strict-match"), (N, 0.5, "strict-match")
    ]  # fmt: skip
    assert "by flexible-extract it would be 90.00" in told
    qeval("gate", run.id, "--max-drop", "5", code=3)


@pytest.mark.parametrize("filters", [(), ("strict-match",), ("a", "b", "c")])
def test_an_old_file_of_more_or_fewer_lines_than_filters_is_refused(qeval, tmp_path, runs_dir, filters):
    rows = sums(6, strict_match=1, flexible_extract=1)
    write(tmp_path / "out", with_filters(*filters) | {"results": said_by(rows)}, samples=old(rows))
    assert "where the task has" in refused(qeval, runs_dir, tmp_path / "out")


def test_samples_of_another_run_are_refused(qeval, tmp_path, runs_dir):
    place = pair(tmp_path / "out", many(100), many(100, lambda at: at % 4 == 0))
    better = (place / "fp16" / f"samples_letters_{STAMP}.jsonl").read_bytes()
    (place / "int4" / f"samples_letters_{STAMP}.jsonl").write_bytes(better)
    said = refused(qeval, runs_dir, place, "--baseline", "tiny[dtype=float16]")
    assert f"the mean of acc,none is 0.5, and results_{STAMP}.json says 0.25" in said
    assert "Lay the samples of that very run beside its results" in said


@pytest.mark.parametrize(
    ("count", "says"),
    [
        ({"original": 5, "effective": 5}, "has 6 items, and letters has only 5"),
        ({"original": 9, "effective": 9}, "has 6 items, and results_"),
    ],
)
def test_another_number_of_items_than_the_results_say_is_refused(qeval, tmp_path, runs_dir, count, says):
    place = write(tmp_path / "out", results("letters", **{"n-samples": {"letters": count}}))
    assert says in refused(qeval, runs_dir, place)


def test_items_of_minus_one_that_the_tasks_own_mean_leaves_out_are_not_judged(qeval, tmp_path):
    odd = [sample(at, at % 2, acc=-1.0 if at == 5 else float(at % 2)) for at in range(6)]
    table = results("letters", "words")
    table["results"]["letters"]["acc,none"] = 2 / 5
    rows = {"letters": odd, "words": letters(task="words")}
    run, told = imported(qeval, write(tmp_path / "out", table, samples=rows), baseline=None)
    assert "Left out: letters (its acc is not on 0 to 1 (items from -1 to 1)" in told
    assert [task.name for task in run.suite.tasks] == ["words", "letters"]


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([[1, 0], [0, 1]], "letters, item 0 is [1, 0], which is no mcc."),
        ([[0, 1], [0, 1]], "the mean of mcc,none is 1, and results_"),
    ],
)
def test_pairs_of_answers_are_no_log_likelihoods(qeval, tmp_path, runs_dir, pairs, why):
    rows = [sample(at, True, metrics=["mcc"], mcc=value) for at, value in enumerate(pairs)]
    table = results("letters")
    table["configs"]["letters"]["metric_list"] = [{"metric": "mcc", "aggregation": "weighted_perplexity"}]
    table["results"]["letters"]["mcc,none"] = 0.3
    told = refused(qeval, runs_dir, write(tmp_path / "out", table, samples={"letters": rows}))
    assert why in told


# --- what nobody knows --------------------------------------------------------------------------


def unproved(run):
    return [why for result in run.results for cell in result.cells for why in cell.unproved]


def test_a_whole_import_leaves_nothing_unproved(qeval, tmp_path):
    run, told = imported(qeval, pair(tmp_path / "out", many(), many()))
    assert not unproved(run)
    assert not told


def test_a_limited_import_of_a_task_of_unknown_size_says_so(qeval, tmp_path):
    run, told = imported(qeval, pair(tmp_path / "out", **{"n-samples": None, "config": {"limit": 6}}))
    assert len(unproved(run)) == 2
    assert f"{unproved(run)[0].rstrip('.')}. Settle it" in qeval("gate", run.id, *ALL, code=5).stdout
    qeval("gate", run.id, *ALL, "--ungated", "letters", code=0)
    assert "of how many items is not recorded" in told


def test_copies_under_other_numbers_say_so_where_the_size_is_unknown(qeval, tmp_path):
    rows = {"letters": [*letters(30), *(row | {"doc_id": row["doc_id"] + 30} for row in letters(30))]}
    run, told = imported(qeval, pair(tmp_path / "out", rows, rows, **{"n-samples": None}))
    assert len(unproved(run)) == 2
    assert f"{unproved(run)[0].rstrip('.')}. Settle it" in qeval("gate", run.id, *ALL, code=5).stdout
    qeval("gate", run.id, *ALL, "--ungated", "letters", code=0)
    assert "letters: 30 items are copies of others" in told


def test_numbers_of_items_that_leave_some_out_say_so_where_the_size_is_unknown(qeval, tmp_path):
    """The same items are missing in both, and without them nothing is lost."""
    kept = {"letters": [row for row in letters(N) if row["doc_id"] % 10 != 1]}
    run, told = imported(qeval, pair(tmp_path / "out", kept, kept, **{"n-samples": None}))
    said = "letters: its items are numbered up to 399 and there are 360: some are missing"
    assert said in told
    assert said in qeval("gate", run.id, *ALL, code=5).stdout


def test_a_part_of_a_task_that_is_known_is_a_limited_run_though_no_file_says_so(qeval, tmp_path):
    rows = {"arc_challenge": letters(task="arc_challenge")}
    run, _ = imported(qeval, pair(tmp_path / "out", rows, rows, ("arc_challenge",), **{"n-samples": None}))
    assert {(cell.n, cell.n_available) for one in run.results for cell in one.cells} == {(6, 1172)}


def test_results_without_the_mean_say_so(qeval, tmp_path):
    place = pair(tmp_path / "out")
    for file in place.glob("*/results*.json"):
        table = json.loads(file.read_text())
        del table["results"]["letters"]["acc,none"]
        file.write_text(json.dumps(table))
    run, told = imported(qeval, place)
    assert len(unproved(run)) == 2
    assert f"{unproved(run)[0].rstrip('.')}. Settle it" in qeval("gate", run.id, *ALL, code=5).stdout
    qeval("gate", run.id, *ALL, "--ungated", "letters", code=0)
    assert "tells no acc,none" in told


def test_a_version_that_one_side_does_not_tell_is_no_pass(qeval, tmp_path):
    write(tmp_path / "a", results("letters", args=FP16), samples=many())
    write(tmp_path / "b", results("letters", args=INT4, lm_eval_version=None), samples=many())
    run, _ = imported(qeval, tmp_path)
    said = qeval("gate", run.id, "--max-drop", "60", "--allow-identical", code=5).stdout
    assert (
        "lm-eval's version of letters is recorded for tiny[dtype=float16] or tiny[dtype=int4] alone" in said
    )
    qeval("gate", run.id, "--max-drop", "60", "--allow-identical", "--ungated", "letters", code=0)


def table(place, text):
    place.write_text(text)
    return place


def test_examples_in_the_prompt_that_one_side_does_not_tell_are_no_pass(qeval, tmp_path):
    head = "model,variant,task,score,n,num_fewshot,baseline\n"
    for theirs, code in (("25", 0), ("", 5)):
        text = f"{head}m,a,arc,0.5,9000,25,true\nm,b,arc,0.5,9000,{theirs},\n"
        place = runs(qeval("import", table(tmp_path / f"{code}.csv", text), "--scores"))
        said = qeval("gate", place, "--max-drop", "9", code=code).stdout
        assert ("the number of examples in the prompt of arc is recorded for a or b alone" in said) == bool(
            code
        )


def test_two_tables_of_which_one_does_not_tell_the_examples_are_no_pass_together(qeval, tmp_path):
    head = "model,variant,task,score,n,num_fewshot\n"
    a = runs(qeval("import", table(tmp_path / "a.csv", f"{head}m,a,arc,0.5,9000,25\n"), "--scores"))
    b = runs(qeval("import", table(tmp_path / "b.csv", f"{head}m,b,arc,0.5,9000,\n"), "--scores"))
    assert "may differ" in qeval("gate", a, b, "--baseline", "a", "--max-drop", "9", code=5).stdout


def test_a_table_that_names_no_model_proves_none(qeval, tmp_path):
    text = "variant,task,score,n\na,arc,0.5,9000\nb,arc,0.5,9000\n"
    place = runs(qeval("import", table(tmp_path / "x.csv", text), "--scores", "--baseline", "a"))
    said = qeval("gate", place, "--max-drop", "9", code=5).stdout
    assert "not proved to be one model" in said.splitlines()[0]
    qeval("gate", place, "--max-drop", "9", "--allow-unproved-model", code=0)


GROUP = {"both": ["one", "two", "three"]}


def test_half_a_group_is_no_group_and_what_is_missing_stays_promised(qeval, tmp_path):
    tasks = ("one", "two")
    rows = {task: letters(task=task) for task in tasks}
    run, told = imported(qeval, pair(tmp_path / "out", rows, rows, tasks, groups=GROUP))
    assert {cell.task.group for result in run.results for cell in result.cells} == {None}
    assert [task.name for task in run.suite.tasks] == ["one", "two", "three"]
    assert "Left out: three (three of the group both was not scored)." in told


def test_a_group_is_one_though_a_member_was_scored_again_alone(qeval, tmp_path):
    tasks = ("one", "two", "three")
    rows = {task: letters(task=task) for task in tasks}
    place = pair(tmp_path / "out", rows, rows, tasks, groups=GROUP)
    write(place / "int4", results("two", args=INT4), LATER, samples={"two": letters(task="two")})
    run, told = imported(qeval, place)
    assert {cell.task.group for result in run.results for cell in result.cells} == {"both"}
    assert f"Superseded by later results and dropped: two of int4/results_{STAMP}.json." in told


# --- what cannot be read or judged --------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_a_score_that_is_no_number_is_named_and_nothing_is_written(qeval, tmp_path, runs_dir, value):
    rows = letters()
    rows[3]["acc"] = value
    said = refused(
        qeval, runs_dir, write(tmp_path / "out", results("letters"), samples={"letters": rows}, agree=False)
    )
    assert f"samples_letters_{STAMP}.jsonl: letters, item 3 is {value}" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "N/A"])
def test_an_aggregate_that_nothing_uses_is_dropped(qeval, tmp_path, value):
    table = results("letters")
    table["results"]["letters"]["f1,none"] = value
    run, told = imported(qeval, write(tmp_path / "out", table), baseline=None)
    assert set(run.results[0].cells[0].metrics) == {"acc,none"}
    assert ("Not kept, as it is no finite number: letters f1,none" in told) == isinstance(value, float)
    assert qeval("show", run.id).stdout


def test_a_task_without_a_judging_metric_does_not_refuse_the_others(qeval, tmp_path):
    rows = {
        "ner": [sample(at, True, "ner", metrics=["f1"], f1=[0, 1]) for at in range(6)],
        "letters": letters(),
        "bare": letters(task="bare"),
    }
    place = pair(tmp_path / "out", rows, rows, ("ner", "letters", "bare"))
    (place / "int4" / f"samples_bare_{STAMP}.jsonl").unlink()
    file = place / "int4" / f"results_{STAMP}.json"
    counted = json.loads(file.read_text())
    del counted["n-samples"]["bare"]
    counted["versions"]["bare"] = "another"  # of how many items the baseline's is proves nothing then
    file.write_text(json.dumps(counted))
    run, told = imported(qeval, place)
    assert [[cell.task.name for cell in result.cells] for result in run.results] == [
        ["letters", "bare"],
        ["letters"],
    ]
    assert {task.name for task in run.suite.tasks} == {"ner", "letters", "bare"}
    assert told.count("Left out: ner") == 2
    assert "tiny[dtype=int4]: Left out: bare (no samples beside " in told
    qeval("gate", run.id, "--max-drop", "90", code=5)


@pytest.mark.parametrize(
    "change",
    [
        {"configs": {"letters": 3}}, {"results": {"letters": "x"}}, {"n-samples": {"letters": 6}},
        {"n-shot": {"letters": "many"}}, {"config": {"limit": "some"}}, {"config": {"fewshot_seed": "x"}},
        {"higher_is_better": {"letters": True}}, {"date": float("nan")}, {"group_subtasks": ["letters"]},
    ],
)  # fmt: skip
def test_what_lm_eval_never_writes_is_a_sentence(qeval, tmp_path, change):
    place = write(tmp_path / "out", results("letters"))
    (file,) = place.glob("results*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    result = qeval("import", place, code=None)
    assert "unforeseen" not in result.stderr
    if result.exit_code == 0:
        assert qeval("show", runs(result)).stdout


def test_a_word_of_yes_or_no_is_no_number_of_examples(qeval, tmp_path):
    place = write(tmp_path / "out", results("letters"), samples={"letters": letters()})
    (file,) = place.glob("results*.json")
    told = json.loads(file.read_text())
    told["configs"]["letters"].pop("num_fewshot", None)
    file.write_text(json.dumps({**told, "n-shot": {"letters": False}}))
    run = runs(qeval("import", place))
    assert json.loads((run / "run.json").read_text())["suite"]["tasks"][0]["num_fewshot"] is None


@pytest.mark.parametrize(
    "arguments", ["x" * 300_000, ["x" * 300_000], {"gen_args_0": "x" * 300_000}, {"a": 3}]
)
def test_arguments_that_are_no_lists_are_refused_at_once(qeval, tmp_path, arguments):
    """The letters of a text would be a request each."""
    rows = [{**row, "arguments": arguments} for row in letters()]
    place = write(tmp_path / "out", results("letters"), samples={"letters": rows})
    assert "are not as lm-eval writes them" in qeval("import", place, code=1).stderr


# --- one variant or two -------------------------------------------------------------------------


def nameless(**changes):
    """The table that lm-eval's Python API returns for a model that was loaded elsewhere."""
    table = results("letters", **changes)
    del table["model_name"]
    return table | {"config": {"model": "HFLM", "model_args": None, "limit": None, "fewshot_seed": 1234}}


def test_results_of_the_api_are_told_apart_by_directory(qeval, tmp_path):
    place = tmp_path / "out"
    write(place / "fp16", nameless(), samples=many())
    write(place / "int4", nameless(), samples=many(right=lambda at: at % 4 == 1))
    assert "fp16, int4" in qeval("import", place, code=2).stderr
    run, _ = imported(qeval, place, baseline="fp16")
    assert [result.variant.name for result in run.results] == ["fp16", "int4"]
    assert len({result.variant.model for result in run.results}) == 2
    qeval("gate", run.id, "--max-drop", "2", code=3)


def test_two_results_of_the_api_in_one_directory_are_refused(qeval, tmp_path, runs_dir):
    place = tmp_path / "out"
    write(place, nameless())
    write(place, nameless(), LATER)
    said = refused(qeval, runs_dir, place, code=2)
    assert "neither says for which model" in said
    assert "--name" in said
    one = qeval("import", place / f"results_{STAMP}.json", "--name", "fp16")
    assert RunDir(runs(one)).read().results[0].variant.name == "fp16"


def test_one_name_and_set_of_arguments_served_twice_is_told_apart_by_directory(qeval, tmp_path):
    place = tmp_path / "out"
    served = {"model": "org/tiny", "base_url": "http://localhost:8000"}
    write(place / "a" / "org__tiny", results("letters", args=served), samples=many())
    write(
        place / "b" / "org__tiny",
        results("letters", args=served),
        LATER,
        samples=many(right=lambda at: at % 4 == 1),
    )
    run, _ = imported(qeval, place, baseline="tiny[a]")
    assert [result.variant.name for result in run.results] == ["tiny[a]", "tiny[b]"]
    qeval("gate", run.id, "--max-drop", "2", code=3)
    assert "--name" in qeval("import", place, "--name", "x", code=2).stderr


def test_other_tasks_in_another_directory_are_the_same_variant(qeval, tmp_path):
    write(tmp_path / "out" / "a", results("letters"))
    write(tmp_path / "out" / "b", results("words"), samples={"words": letters(task="words")})
    run, told = imported(qeval, tmp_path / "out", baseline=None)
    assert [cell.task.name for cell in run.results[0].cells] == ["letters", "words"]
    assert told.startswith("These are results of tiny alone")


def test_a_superseded_result_is_named(qeval, tmp_path):
    place = write(tmp_path / "out", results("letters"))
    write(place, results("letters"), LATER, samples=many(6, lambda at: at > 1))
    run, told = imported(qeval, place, baseline=None)
    assert f"Superseded by later results and dropped: letters of results_{STAMP}.json." in told
    assert told.startswith(f"tiny: {run.results[0].provenance.notes[1]}\nThese are results of tiny alone")


# --- filters and metrics ------------------------------------------------------------------------


def filtered(place, orders=(("strict-match", "flexible-extract"),) * 2):
    """Strict 0 and 0; flexible all and half."""
    for name, args, share, order in zip(("fp16", "int4"), (FP16, INT4), (1, 0.5), orders, strict=True):
        rows = sums(N, strict_match=0, flexible_extract=share)
        rows.sort(key=lambda row: order.index(row["filter"]))
        write(place / name, with_filters(*order, args=args), samples={"sums": rows})
    return place


def test_the_filter_that_judges_and_what_another_would_say_are_shown(qeval, tmp_path, monkeypatch):
    run, told = imported(qeval, filtered(tmp_path / "out"))
    said = (
        "sums is judged by exact_match, strict-match: 0.00 in 400 items (baseline 0.00); by flexible-extract"
    )
    assert f"tiny[dtype=int4]: {said} it would be 50.00 in 400 items (baseline 100.00)." in told
    for name in ("report.md", "report.html", "report.json", "report.txt"):
        qeval("report", run.id, "-o", tmp_path / name)
        assert "strict-match" in (tmp_path / name).read_text()
    assert "exact_match, strict-match" in (tmp_path / "report.md").read_text()
    junit, summary = tmp_path / "gate.xml", tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    shown = qeval("gate", run.id, *ALL, "--junit", junit, code=4).stdout
    assert "the baseline, scored 0 on all 400 items of sums, so nothing can be lost there" in shown
    qeval("gate", run.id, *ALL, "--ungated", "sums")
    for text in (
        shown,
        junit.read_text(),
        summary.read_text(),
        qeval("gate", run.id, *ALL, "--json", code=4).stdout,
    ):
        assert "sums (exact_match, strict-match)" in text.replace("\\", "")
        assert "it would be 50.00 in 400 items" in text


def test_filter_and_metric_choose(qeval, tmp_path, runs_dir):
    place = filtered(tmp_path / "out")
    for words in (
        ("--filter", "flexible-extract"),
        ("--filter", "sums=flexible-extract", "--metric", "exact_match"),
    ):
        run, _ = imported(qeval, place, *words)
        assert run.results[0].cells[0].task.filter == "flexible-extract"
        qeval("gate", run.id, "--max-drop", "5", code=3)
    named = ("--baseline", "tiny[dtype=int4]")
    for words, says in (
        (("--filter", "flexible"), "No task has the filter 'flexible'. Did you mean 'flexible-extract'?"),
        (("--filter", "sum=strict-match"), "There is no task 'sum' to choose for. Did you mean 'sums'?"),
        (("--filter", "a", "--filter", "b"), "--filter chooses for all tasks twice: a and b."),
        (("--metric", "acc_norm"), "No task has the metric 'acc_norm'."),
        (("--metric", "sums=acc"), "have no score 'acc' for each item"),
    ):
        message = qeval("import", place, *named, *words, code=2).stderr.replace("\n", " ")
        assert says in message
    assert len(Store(runs_dir).runs()) == 1


def test_files_that_list_filters_in_another_order_still_pair(qeval, tmp_path):
    orders = (("flexible-extract", "strict-match"), ("strict-match", "flexible-extract"))
    run, _ = imported(qeval, filtered(tmp_path / "out", orders))
    assert {result.cells[0].task.filter for result in run.results} == {"flexible-extract"}
    qeval("gate", run.id, "--max-drop", "5", code=3)


def test_items_that_are_0_or_1_by_chance_pair_with_others(qeval, tmp_path):
    half = [sample(at, True, acc=0.5) for at in range(6)]
    run, _ = imported(qeval, pair(tmp_path / "out", many(6), {"letters": half}))
    assert {result.cells[0].task.kind for result in run.results} == {"score"}
    qeval("gate", run.id, "--max-drop", "99", code=None)


def test_a_table_of_more_items_than_the_task_has_is_refused(qeval, tmp_path, runs_dir):
    head = "model,variant,task,score,n\n"
    file = table(tmp_path / "x.csv", f"{head}m,a,arc_challenge,0.5,3000\nm,b,arc_challenge,0.5,3000\n")
    said = refused(qeval, runs_dir, file, "--scores", "--baseline", "a", code=2)
    assert "arc_challenge has 1172 items, not 3000" in said


def test_a_table_of_fewer_items_than_the_task_has_is_a_limited_run(qeval, tmp_path):
    head = "model,variant,task,score,n\n"
    file = table(tmp_path / "x.csv", f"{head}m,a,mmlu,0.5,14000\nm,b,mmlu,0.5,14000\n")
    place = runs(qeval("import", file, "--scores", "--baseline", "a"))
    assert "limited" in qeval("gate", place, "--max-drop", "9", code=4).stdout
    qeval("gate", place, "--max-drop", "9", "--allow-limited", code=0)


def test_a_table_is_known_by_its_ending(qeval, tmp_path):
    file = table(tmp_path / "x.csv", "variant,task,score,n\na,x,61.5,400\nb,x,60.5,400\n")
    assert "PATH" in qeval("import", "--help").stdout
    place = runs(qeval("import", file, "--percent", "--baseline", "a"))
    assert [result.cells[0].score for result in RunDir(place).read().results] == [0.615, 0.605]


def test_the_help_says_every_column(qeval):
    said = qeval("import", "--help").stdout
    assert [column for column in COLUMNS if not re.search(rf"^  {column} +\w", said, re.MULTILINE)] == []
    assert max(map(len, said.splitlines())) <= 80


def test_several_tables_are_joined_by_a_person(qeval, tmp_path):
    a, b = (table(tmp_path / f"{x}.csv", f"variant,task,score,n\n{x},x,0.5,400\n") for x in "ab")
    result = qeval("import", a, b, code=2)
    assert "2 tables of scores" in result.stderr
    joined = table(tmp_path / "c.csv", a.read_text() + b.read_text().partition("\n")[2])
    assert runs(qeval("import", joined, "--baseline", "a")).is_dir()


def test_several_paths(qeval, tmp_path):
    place = pair(tmp_path / "out", many(), many())
    result = qeval("import", place / "fp16", place / "int4", "--baseline", "tiny[dtype=float16]")
    assert len(RunDir(runs(result)).read().results) == 2


def test_scores_without_samples_pass_a_gate_only_where_they_are_sure_enough(qeval, tmp_path):
    place = pair(tmp_path / "out", many(4000), many(4000, lambda at: at % 2 and at % 50))
    for file in place.rglob("samples*"):
        file.unlink()
    run, told = imported(qeval, place)
    assert "No samples of letters: compared as scores without items." in told
    qeval("gate", run.id, "--max-drop", "5", code=0)
    qeval("gate", run.id, "--max-drop", "1.5", code=4)
    assert "conservative" in qeval("show", run.id).stdout.lower()


# --- whose results they are, and what is needed to judge them -----------------------------------


def printed(said, **words):
    """What the command that was printed last does, with other words in the place of its capitals."""
    command = shlex.split(said.strip().splitlines()[-1].partition("qeval ")[2])
    return [words.get(word, word) for word in command]


def test_a_table_without_variants_asks_for_their_name_and_takes_it(qeval, tmp_path, runs_dir):
    places = {}
    for name, score in (("fp16", 0.5), ("int4", 0.5)):
        file = table(tmp_path / f"{name} s.csv", f"task,score,n,model\narc,{score},90000,m\n")
        said = refused(qeval, runs_dir, file, code=2) if not places else qeval("import", file, code=2).stderr
        assert "names no variant, so nothing says whose each score is." in said
        result = qeval(*printed(said, NAME=name))
        places[name] = result.stdout.strip()
        assert f"These are results of {name} alone, and a gate compares two variants." in result.stderr
    command = printed(result.stderr, RUN=places["fp16"])
    command[command.index("--baseline") + 1] = "fp16"
    assert "PASS: m" in qeval(*command).stdout


def test_a_gate_of_one_variant_prints_the_command_that_judges_two(qeval, tmp_path):
    for name in ("fp16", "int4"):
        file = table(tmp_path / f"{name}.csv", f"variant,task,score,n,model\n{name},arc,0.5,90000,m\n")
        qeval("import", file)
    said = qeval("gate", "fp16-", "--max-drop", "1", code=5).stderr
    two = qeval("import", tmp_path / "int4.csv").stdout.strip()
    assert "PASS: m" in qeval(*printed(said, RUN=two)).stdout


def test_models_are_not_taken_for_variants(qeval, tmp_path):
    file = table(tmp_path / "x.csv", "model,task,score,n\na,arc,0.5,9\nb,arc,0.5,9\n")
    assert "Its models are not taken for variants." in qeval("import", file, code=2).stderr
    file = table(tmp_path / "y.csv", "model,variant,task,score,n\nm,a,arc,0.5,9\n")
    assert "names its variants, and --name does too" in qeval("import", file, "--name", "b", code=2).stderr


def test_a_table_of_no_model_says_so_and_takes_it_from_the_command_that_it_prints(qeval, tmp_path):
    text = "variant,task,score,n\na,arc,60,90000\nb,arc,60,90000\n"
    file = table(tmp_path / "x.csv", text)
    result = qeval("import", file, "--percent", "--baseline", "a", "--runs-dir", tmp_path / "kept")
    assert "No model is named, so nothing proves that variants are of one" in result.stderr
    assert "not proved to be one model" in qeval("gate", runs(result), "--max-drop", "9", code=5).stdout
    result = qeval(*printed(result.stderr, MODEL="org/m"))
    assert result.stderr == ""
    assert Path(runs(result)).parent == tmp_path / "kept"
    assert "PASS: org/m" in qeval("gate", runs(result), "--max-drop", "9").stdout


def test_what_is_not_proved_to_be_one_model_is_said_at_once(qeval, tmp_path):
    place = tmp_path / "out"
    write(place / "a", results("letters", name="org/x"), samples=many())
    write(place / "b", results("letters", name="other/x-AWQ"), samples=many())
    said = imported(qeval, place, baseline="x")[1]
    assert "x-AWQ: nothing proves that it is of the baseline's model (other/x-AWQ and the baseline's" in said
    assert "so a gate needs --allow-unproved-model to let it pass." in said


def two_directories(place, *names):
    """Results of two models by name, in a directory each; one item of the second is worse."""
    for name, right in zip(names, (lambda at: at % 2, lambda at: at % 2 and at > 1), strict=True):
        args = {"pretrained": name, "dtype": "float16" if right(1) else "int4"}
        write(place / args["dtype"], results("letters", name=name, args=args), samples=many(4000, right))
    return place / "float16", place / "int4"


def test_what_the_import_of_one_variant_prints_is_all_that_a_gate_wants(qeval, tmp_path):
    """As release engineers have them: the quantised model lies elsewhere, under another name."""
    first, second = (qeval("import", path) for path in two_directories(tmp_path, "org/x", "build/x-gptq"))
    assert "its run (without --allow-... if that one is of org/x by name too): qeval gate " in first.stderr
    command = printed(first.stderr, RUN=second.stdout.strip())
    assert "PASS (model not proved, allowed)" in qeval(*command).stdout
    alone = qeval("gate", first.stdout.strip(), "--max-drop", "1", code=5).stderr
    assert "(model not proved, allowed)" in qeval(*printed(alone, RUN=second.stdout.strip())).stdout
    for flag, wants in (
        ("--allow-different-models", "qeval gate needs --allow-unproved-model beside it."),
        ("--allow-unproved-model", "if you know that it is one, pass --allow-unproved-model."),
    ):
        refused = qeval(*(word for word in command if word != flag), code=5)
        assert wants in refused.stderr + refused.stdout
        assert "import again" not in refused.stdout


def test_two_imports_of_one_model_need_nothing_to_be_allowed(qeval, tmp_path):
    places = two_directories(tmp_path, "org/x", "org/x")
    first, second = (qeval("import", path, "--name", path.name) for path in places)
    command = printed(first.stderr, RUN=second.stdout.strip())
    words = [word for word in command if not word.startswith("--allow-")]
    assert len(words) == len(command) - 2
    assert "allowed" not in qeval(*words).stdout


@pytest.mark.parametrize("name", ["org/x", "build/x-gptq"])
def test_the_gate_that_an_import_prints_passes_as_it_is_printed(qeval, tmp_path, monkeypatch, name):
    two_directories(tmp_path / "out", "org/x", name)
    monkeypatch.setenv("COLUMNS", "100")
    said = imported(qeval, tmp_path / "out", baseline="x" if name != "org/x" else "x[dtype=float16]")[1]
    assert ("--allow-unproved-model" in printed(said)) == (name != "org/x")
    assert "PASS" in qeval(*printed(said)).stdout


@pytest.mark.parametrize("model", ["", "org/m"])
def test_the_gate_that_an_import_of_a_table_prints_passes_as_it_is_printed(
    qeval, tmp_path, monkeypatch, model
):
    monkeypatch.setenv("COLUMNS", "100")
    text = f"variant,task,score,n,model\na,arc,50,90000,{model}\nb,arc,50,90000,{model}\n"
    file = table(tmp_path / "x.csv", text)
    said = qeval("import", file, "--percent", "--baseline", "a").stderr
    monkeypatch.delenv("COLUMNS")
    assert ("--allow-unproved-model" in printed(said)) == (not model)
    assert "PASS" in qeval(*printed(said)).stdout
    words = [word for word in printed(said) if word != "--allow-unproved-model"]
    refused = qeval(*words, code=0 if model else 5).stdout
    assert ("import again with the same model named for both (in a column model)" in refused) == (not model)


def test_a_standard_error_that_so_many_items_cannot_have_is_believed(qeval, tmp_path):
    """Of 90,000 items it would be a hundredth as large."""
    for name, args in (("a", FP16), ("b", INT4)):
        count = {"letters": {"original": 90000, "effective": 90000}}
        table = results("letters", args=args, **{"n-samples": count})
        table["results"]["letters"] |= {"acc,none": 0.65, "acc_stderr,none": 0.1}
        (tmp_path / name).mkdir()
        (tmp_path / name / f"results_{STAMP}.json").write_text(json.dumps(table))
    run, _ = imported(qeval, tmp_path)
    assert {round(one.cells[0].metrics["n_effective"]) for one in run.results} == {23}
    qeval("gate", run.id, "--max-drop", "2", code=4)
