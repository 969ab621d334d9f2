"""Comparing: the rows, their numbers, and one refusal for each way not to be the same experiment."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import (
    ARC,
    QUIZ,
    TASKS,
    TRUTH,
    WIKI,
    compare_run,
    edited,
    judge,
    make_run,
    pair,
    with_cell,
    without_cell,
)

from qeval.base.errors import Exit, IncomparableError, QevalError, UsageError
from qeval.base.records import Policy, Rule, Stop
from qeval.base.settings import Settings
from qeval.compare import stats
from qeval.compare.interval import compare, compare_recovery
from qeval.compare.merge import merge
from qeval.compare.pairs import UNPAIRED
from qeval.compare.rows import find_baseline

ORDER = (
    "arc",
    "quiz_macro",
    "quiz",
    "truth",
    "average",
    "wiki",
    "quiz_algebra",
    "quiz_biology",
    "quiz_law",
)
MEMBERS = ORDER[-3:]
SIZES = {"arc": 120, "quiz_algebra": 30, "quiz_biology": 60, "quiz_law": 90, "truth": 80, "wiki": 12}


@pytest.fixture(scope="module")
def toy():
    run, read, _ = make_run(3, n_items=SIZES, effect=-0.02, seed=7)
    return run, read


@pytest.fixture(scope="module")
def rows(toy):
    return {row.task: row for row in compare_run(*toy) if row.variant == "bnb4"}


def cell(run, variant, task):
    return next(c for c in find_baseline(run, variant).cells if c.task.name == task)


def samples(toy, task, variants=("fp16", "bnb4")):
    run, read = toy
    return [read(cell(run, variant, task)) for variant in variants]


# --- rows and their numbers ---------------------------------------------------------------------


def test_rows_come_in_the_order_of_variants_and_suite(toy):
    found = [(row.variant, row.task) for row in compare_run(*toy)]
    assert found == [(variant, task) for variant in ("bnb4", "gptq") for task in ORDER]


def test_levels(rows):
    levels = {"quiz": "pooled", "quiz_macro": "macro", "average": "average"}
    for task in ORDER:
        member = task.startswith("quiz_") and task not in levels
        assert rows[task].level == ("subtask" if member else levels.get(task, "task"))


def test_an_accuracy_row_counts_what_changed(toy, rows):
    base, other = samples(toy, "arc")
    row = rows["arc"]
    assert row.losses == np.sum((base.value == 1) & (other.value == 0))
    assert row.gains == np.sum((base.value == 0) & (other.value == 1))
    assert row.flips == np.sum(base.answer != other.answer) >= row.losses + row.gains
    assert row.delta == pytest.approx((row.gains - row.losses) / 120)
    assert (row.baseline, row.candidate) == (base.value.mean(), other.value.mean())
    assert (row.low, row.high) == stats.accuracy_interval(row.losses, row.gains, 120, 0.95)
    assert row.p == stats.mcnemar_midp(row.losses, row.gains)


def test_a_changed_wrong_answer_is_a_flip_but_no_loss():
    run, read, _ = make_run(2, (ARC,), 10, churn=0.0)
    base = read(cell(run, "fp16", "arc"))
    assert set(base.answer) <= set("0123")
    other = np.where(base.value == 0, "9", base.answer)
    row = compare_run(run, edited(read, "bnb4-arc", answer=other))[0]
    assert (row.losses, row.gains, row.flips) == (0, 0, int(np.sum(base.value == 0)))


def test_a_perplexity_row_is_the_weighted_log_ratio(toy, rows):
    base, other = samples(toy, "wiki")
    row = rows["wiki"]
    expected = math.log(
        math.exp(-base.value.sum() / base.weight.sum()) / math.exp(-other.value.sum() / base.weight.sum())
    )
    assert row.delta == pytest.approx(expected)
    assert (row.losses, row.gains, row.flips) == (None, None, None)
    assert row.low < row.delta < row.high


def test_the_pooled_row_is_all_items_together(toy, rows):
    parts = [samples(toy, name) for name in MEMBERS]
    base = np.concatenate([one[0].value for one in parts])
    other = np.concatenate([one[1].value for one in parts])
    row = rows["quiz"]
    assert (row.n, row.delta) == (180, pytest.approx(other.mean() - base.mean()))
    assert (row.low, row.high) == pytest.approx(stats.paired_interval(base, other)[1:])
    assert row.losses == sum(rows[name].losses for name in MEMBERS)


def test_the_macro_row_is_the_unweighted_mean(rows):
    row = rows["quiz_macro"]
    assert row.delta == pytest.approx(np.mean([rows[name].delta for name in MEMBERS]))
    assert row.delta != pytest.approx(rows["quiz"].delta)
    assert row.notes == ("the unweighted mean of 3 members",)
    assert row.method == "stratified"


def test_the_average_row_adds_variances(rows):
    row = rows["average"]
    parts = [rows[name] for name in ("arc", "quiz_macro", "truth")]
    assert row.delta == pytest.approx(np.mean([part.delta for part in parts]))
    below = math.hypot(*(part.delta - part.low for part in parts)) / 3
    assert row.low == pytest.approx(row.delta - below)
    assert row.n == sum(part.n for part in parts)


def test_no_average_without_all_of_its_rows(toy):
    run, read = toy
    short = without_cell(run, "bnb4", "truth")
    found = {(row.variant, row.task) for row in compare_run(short, read)}
    assert ("bnb4", "average") not in found
    assert ("gptq", "average") in found


def test_no_group_row_without_all_of_its_members(toy):
    run, read = toy
    short = without_cell(run, "bnb4", "quiz_law")
    found = {row.task for row in compare_run(short, read) if row.variant == "bnb4"}
    assert {"quiz_algebra", "quiz_biology"} <= found
    assert not {"quiz", "quiz_macro", "quiz_law"} & found


def test_half_a_group_in_every_variant_is_not_a_group():
    run, read, _ = make_run(2, (QUIZ,), 20)
    partial = replace(run, results=tuple(replace(result, status="partial") for result in run.results))
    assert {row.task for row in compare_run(partial, read)} == {"quiz_algebra", "quiz_biology", "quiz_law"}


def test_a_failed_variant_has_no_rows(toy):
    run, read = toy
    results = tuple(replace(r, status="failed") if r.variant.name == "bnb4" else r for r in run.results)
    assert {row.variant for row in compare_run(replace(run, results=results), read)} == {"gptq"}


def test_a_failed_baseline_leaves_nothing(toy):
    run, read = toy
    results = (replace(run.results[0], status="failed"), *run.results[1:])
    assert compare_run(replace(run, results=results), read) == ()


def test_zero_items_make_no_row():
    run, read, _ = make_run(2, (ARC, TRUTH), {"arc": 0, "truth": 5})
    assert [row.task for row in compare_run(run, read)] == ["truth"]


def test_one_item_is_compared_and_says_next_to_nothing():
    run, read, _ = make_run(2, (ARC, TRUTH), 1)
    for row in compare_run(run, read):
        assert row.high - row.low > 1


def test_another_baseline_turns_the_sign(toy):
    run, read = toy
    forth = {row.task: row for row in compare_run(run, read) if row.variant == "bnb4"}
    back = {row.task: row for row in compare_run(run, read, baseline="bnb4") if row.variant == "fp16"}
    for task in ORDER:
        assert back[task].delta == pytest.approx(-forth[task].delta)
        assert back[task].low == pytest.approx(-forth[task].high)


def test_an_unknown_baseline(toy):
    with pytest.raises(UsageError, match="Did you mean 'fp16'"):
        compare_run(*toy, baseline="fp61")


def test_the_order_of_items_does_not_matter(toy, rows):
    run, read = toy
    other = samples(toy, "arc")[1]
    order = np.random.default_rng(0).permutation(len(other))
    columns = {name: getattr(other, name)[order] for name in other.__dataclass_fields__}
    shuffled = compare_run(run, edited(read, "bnb4-arc", **columns))
    assert next(row for row in shuffled if row.task == "arc") == rows["arc"]


def test_the_baseline_is_read_once(toy):
    run, read = toy
    asked = []
    pair(run, lambda one: asked.append(one.key) or read(one))
    assert len(asked) == len(set(asked)) == 18


def test_the_interval_shrinks_with_the_level(toy):
    for row in pair(*toy):
        narrow, wide = compare(row, 0.8), compare(row, 0.99)
        assert wide.low < narrow.low < narrow.high < wide.high


def test_a_p_value_agrees_with_the_interval(toy):
    for row in pair(*toy):
        found = compare(row, 0.9)
        if row.parts or row.losses is None:
            assert (found.p < 0.1) == (found.low > 0 or found.high < 0)


def test_shared_texts_widen_the_interval(toy):
    run, read = toy
    clusters = (np.arange(120) // 3).astype(str)
    clustered = edited(edited(read, "fp16-arc", cluster=clusters), "bnb4-arc", cluster=clusters)
    plain, wide = (
        next(row for row in compare_run(run, one) if (row.task, row.variant) == ("arc", "bnb4"))
        for one in (read, clustered)
    )
    assert wide.low <= plain.low
    assert wide.high >= plain.high
    assert "cluster-robust" in wide.method
    assert next(row for row in compare_run(run, clustered) if row.task == "quiz").method == "Tango"


def test_fewer_than_twenty_texts_leave_everything_possible(toy):
    run, read = toy
    clusters = (np.arange(120) // 12).astype(str)
    clustered = edited(edited(read, "fp16-arc", cluster=clusters), "bnb4-arc", cluster=clusters)
    row = next(row for row in compare_run(run, clustered) if (row.task, row.variant) == ("arc", "bnb4"))
    assert (row.low, row.high) == (-1, 1)
    assert row.method == "none: its items share 10 texts, and 20 are needed"
    assert row.p > 0.5


def test_texts_that_members_share_reach_the_mean_of_the_members():
    run, read, _ = make_run(2, (QUIZ,), 30)
    clusters = (np.arange(30) // 2).astype(str)
    shared = read
    for result in run.results:
        for one in result.cells:
            shared = edited(shared, one.key, cluster=clusters)
    plain, wide = (
        next(row for row in compare_run(run, one) if row.level == "macro") for one in (read, shared)
    )
    assert (plain.method, wide.method) == ("stratified", "cluster-robust stratified")
    assert wide.high - wide.low > plain.high - plain.low


def test_clusters_of_one_item_are_none(toy):
    run, read = toy
    clusters = np.array([f"text-{i}" for i in range(120)])
    alone = edited(edited(read, "fp16-arc", cluster=clusters), "bnb4-arc", cluster=clusters)
    assert compare_run(run, alone)[0].method == "Tango"


def test_members_do_not_share_clusters():
    run, read, _ = make_run(2, (QUIZ,), 10)
    clusters = (np.arange(10) // 5).astype(str)
    for result in run.results:
        for one in result.cells:
            read = edited(read, one.key, cluster=clusters)
    pooled = next(one for one in pair(run, read) if one.level == "pooled")
    assert len(np.unique(pooled.values.cluster)) == 6


def test_recovery_at_one_is_the_difference(toy):
    for row in pair(*toy):
        if row.kind != "perplexity" and row.level not in ("macro", "average"):
            whole, plain = compare_recovery(row, 1.0, 0.9), compare(row, 0.9)
            assert (whole.low, whole.high) == pytest.approx((plain.low, plain.high))


def test_recovery_lies_about_the_difference(toy):
    for row in pair(*toy):
        found = compare_recovery(row, 0.97, 0.9)
        assert found.low < found.delta < found.high


# --- published scores ---------------------------------------------------------------------------


def published(run, *variants):
    for variant in variants:
        for one in find_baseline(run, variant).cells:
            run = with_cell(run, variant, one.task.name, files={}, task_version="")
    return run


def test_a_published_score_is_compared_unpaired(toy, rows):
    run, read = toy
    found = {row.task: row for row in compare_run(published(run, "bnb4"), read) if row.variant == "bnb4"}
    row = found["arc"]
    assert UNPAIRED in row.notes
    assert (row.losses, row.gains, row.flips) == (None, None, None)
    assert row.delta == pytest.approx(rows["arc"].delta)
    assert row.high - row.low > rows["arc"].high - rows["arc"].low
    assert UNPAIRED in found["average"].notes
    assert "quiz" not in found  # items are pooled, and there are none
    assert found["quiz_macro"].method == "mean of the rows' intervals"


def test_a_mean_of_perplexities_is_not_cut_at_one_nat():
    tasks = (WIKI, replace(WIKI, name="books"))
    run, read, _ = make_run(2, tasks, 40, effect=-2.0, seed=5)
    run = replace(run, suite=replace(run.suite, average=("wiki", "books")))
    (mean,) = [row for row in compare_run(run, read) if row.level == "average"]
    assert mean.kind == "perplexity"
    assert mean.low <= mean.delta <= mean.high < -1.5
    rule = Rule(tasks="average", max_ppl_ratio=2.8)  # 1.03 nats, where two are lost
    assert [one.status for one in judge(run, read, Policy((rule,)))] == ["FAIL"]


def test_a_published_perplexity_has_no_interval(toy):
    run, read = toy
    row = next(row for row in compare_run(published(run, "bnb4"), read) if row.task == "wiki")
    assert (row.low, row.high, row.p) == (-math.inf, math.inf, None)


def test_published_scores_worth_fewer_items_have_a_wider_interval(toy):
    run, read = toy
    plain = published(run, "fp16", "bnb4")
    fewer = with_cell(plain, "bnb4", "arc", metrics={"n_effective": 50.0})
    one, two = (compare_run(each, read)[0] for each in (plain, fewer))
    assert two.high - two.low > one.high - one.low


# --- refusals: one for each invariant of pairing ------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": replace(ARC, metric="acc")}, "metric is acc_norm for fp16 and acc for bnb4"),
        ({"task": replace(ARC, filter="strict")}, "filter is none for fp16 and strict"),
        ({"task": replace(ARC, num_fewshot=0)}, "num_fewshot is 25 for fp16 and 0"),
        ({"task": replace(ARC, kind="score")}, "kind is accuracy for fp16 and score"),
        ({"task": replace(ARC, limit=120)}, "limit is None for fp16 and 120"),
        ({"task_version": "2.0"}, "task version is 1.0 for fp16 and 2.0"),
        ({"n": 119}, "number of items is 120 for fp16 and 119"),
        ({"n_available": 1172}, "whole task is 120 for fp16 and 1172"),
    ],
)
def test_another_question_is_refused(toy, changes, says):
    run, read = toy
    with pytest.raises(IncomparableError) as caught:
        compare_run(with_cell(run, "bnb4", "arc", **changes), read)
    assert says in caught.value.message
    assert "arc is not the same experiment" in caught.value.message
    assert caught.value.exit_code == Exit.MISSING
    assert caught.value.hint


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("doc_hash", "the document"),
        ("prompt_hash", "the prompt"),
        ("target_hash", "the right answer"),
        ("weight", "the weight"),
    ],
)
@pytest.mark.parametrize(
    ("items", "named"), [((5,), "item 5."), ((3, 17, 20, 99, 100), "items 3, 17, 20 and 2 more.")]
)
def test_another_item_is_refused_and_named(toy, column, what, items, named):
    run, read = toy
    values = getattr(samples(toy, "arc")[1], column).copy()
    for item in items:
        values[item] = 0.5 if column == "weight" else "other"
    with pytest.raises(IncomparableError) as caught:
        compare_run(run, edited(read, "bnb4-arc", **{column: values}))
    assert caught.value.message.endswith(f"for fp16 and bnb4: {what} differs for {named}")


def test_other_items_are_refused_and_named(toy):
    run, read = toy
    keys = samples(toy, "arc")[1].key.copy()
    keys[0] = "120"
    with pytest.raises(IncomparableError, match="which of the two has it differs for items 0, 120"):
        compare_run(run, edited(read, "bnb4-arc", key=keys))


def test_an_item_scored_twice_is_refused(toy):
    run, read = toy
    keys = samples(toy, "arc")[1].key.copy()
    keys[0] = "1"
    with pytest.raises(IncomparableError, match="item 1 of bnb4 was scored twice"):
        compare_run(run, edited(read, "bnb4-arc", key=keys))


@pytest.mark.parametrize("column", ["doc_hash", "prompt_hash"])
def test_items_without_hashes_prove_nothing(toy, column):
    run, read = toy
    none = np.full(120, "", dtype="<U64")
    for variant in ("fp16", "bnb4", "gptq"):
        read = edited(read, f"{variant}-arc", **{column: none})
    with pytest.raises(IncomparableError, match="carry no hashes"):
        compare_run(run, read)


def test_another_harness_is_refused(toy):
    run, read = toy
    results = tuple(
        replace(r, provenance=replace(r.provenance, versions={"lm_eval": "0.4.9"}))
        if r.variant.name == "gptq"
        else r
        for r in run.results
    )
    with pytest.raises(IncomparableError, match=r"gptq was scored with lm-eval 0.4.9, fp16 with 0.4.13"):
        compare_run(replace(run, results=results), read)


@pytest.mark.parametrize(
    ("engine", "versions", "says"),
    [
        ("inspect", {"inspect_ai": "0.3.285"}, "with inspect 0.3.285, fp16 with lm-eval 0.4.13"),
        ("lighteval", {}, "with lighteval, fp16 with lm-eval 0.4.13"),
    ],
)  # fmt: skip
def test_another_tool_is_refused(toy, engine, versions, says):
    run, read = toy
    results = tuple(
        replace(r, provenance=replace(r.provenance, engine=engine, versions=versions))
        if r.variant.name == "gptq"
        else r
        for r in run.results
    )
    with pytest.raises(IncomparableError, match=f"gptq was scored {says}"):
        compare_run(replace(run, results=results), read)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("variant", ["fp16", "bnb4"])
def test_a_value_that_is_no_number_is_named(toy, bad, variant):
    run, read = toy
    values = samples(toy, "truth")[0].value.copy()
    values[[4, 9]] = bad
    with pytest.raises(QevalError) as caught:
        compare_run(run, edited(read, f"{variant}-truth", value=values))
    assert caught.value.message.startswith(f"{variant}: truth, item 4 has the value {bad}")
    assert "2 such items" in caught.value.message


def test_samples_that_the_header_denies(toy):
    run, read = toy
    columns = {name: getattr(samples(toy, "arc")[1], name)[:100] for name in samples(toy, "arc")[1].__dict__}
    with pytest.raises(QevalError, match="has 100 items where its header says 120"):
        compare_run(run, edited(read, "bnb4-arc", **columns))


def test_accuracies_between_zero_and_one_are_scores(toy):
    run, read = toy
    values = samples(toy, "arc")[1].value * 0.5
    row = compare_run(run, edited(read, "bnb4-arc", value=values))[0]
    assert (row.kind, row.losses, row.method) == ("score", None, "bounded mean")


# --- several runs -------------------------------------------------------------------------------


def second_run(run, **changes):
    """The same run under another id, its cells under other keys."""
    results = tuple(
        replace(r, cells=tuple(replace(c, key=f"2{c.key}") for c in r.cells)) for r in run.results
    )
    return replace(run, id="run-2", results=results, **changes)


def only(run, *names):
    return replace(run, results=tuple(r for r in run.results if r.variant.name in names))


def test_runs_that_share_a_baseline_become_one(toy):
    run, read = toy
    merged = merge([only(run, "fp16", "bnb4"), only(run, "fp16", "gptq")])
    assert merged.baseline == "fp16"
    assert compare_run(merged, read) == compare_run(run, read)


def test_variants_of_one_name_are_told_apart(toy):
    run, read = toy
    other = second_run(only(run, "fp16"))
    merged = merge([run, other], "fp16@run-1")
    assert [r.variant.name for r in merged.results] == ["fp16@run-1", "bnb4", "gptq", "fp16@run-2"]
    found = [
        row
        for row in compare_run(merged, lambda one: read(replace(one, key=one.key.removeprefix("2"))))
        if row.variant == "fp16@run-2"
    ]
    assert {row.delta for row in found} == {0.0}


def test_two_baselines_need_a_choice(toy):
    run, _ = toy
    with pytest.raises(UsageError, match=r"2 baselines: fp16@run-1, fp16@run-2") as caught:
        merge([run, second_run(run)])
    assert "--baseline" in caught.value.hint
    other = replace(only(run, "gptq"), id="run-2", baseline="gptq")
    with pytest.raises(UsageError, match="2 baselines"):
        merge([only(run, "fp16", "bnb4"), other])
    assert merge([only(run, "fp16", "bnb4"), other], "gptq").baseline == "gptq"


def test_what_stopped_against_another_baseline_stopped_against_none_here(toy):
    run, _ = toy
    stop = Stop("arc", Rule(max_drop=1.0), 5, 10)
    stopped = replace(run, results=(*run.results[:2], replace(run.results[2], stop=stop, status="stopped")))
    others = only(second_run(run), "fp16", "bnb4")

    def stop_of(merged, name):
        return next(result.stop for result in merged.results if result.variant.name == name)

    assert stop_of(merge([stopped, others], "fp16@run-1"), "gptq") == stop
    assert stop_of(merge([only(run, "fp16"), stopped]), "gptq") == stop
    assert stop_of(merge([stopped, others], "fp16@run-2"), "gptq") is None
    assert stop_of(merge([stopped, replace(only(run, "bnb4"), baseline="bnb4")], "bnb4"), "gptq") is None


def test_a_baseline_in_no_run(toy):
    run, _ = toy
    with pytest.raises(UsageError, match="no variant 'fp32'"):
        merge([run, second_run(run)], "fp32")


def test_nothing_to_merge():
    with pytest.raises(UsageError, match="no run"):
        merge([])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"limit": 10}, {"chat_template": True}])
def test_other_settings_are_refused(toy, changes):
    run, _ = toy
    (name, value), *_ = changes.items()
    with pytest.raises(IncomparableError, match=f"{name} is .* in run-1 and {value} in run-2"):
        merge([run, second_run(run, settings=Settings(**changes))])


def test_tasks_of_all_runs(toy):
    run, _ = toy
    few = replace(run, suite=replace(run.suite, tasks=(WIKI,)))
    assert [task.name for task in merge([few, second_run(run)], "fp16@run-1").suite.tasks] == [
        "wiki",
        *[task.name for task in TASKS[:3]],
    ]


@pytest.mark.parametrize(
    ("task", "column", "value"),
    [(ARC, "value", 1.5), (ARC, "value", -0.5), (ARC, "weight", -1.0), (WIKI, "value", 3.0)],
)
@pytest.mark.parametrize("variant", ["fp16", "bnb4"])
def test_a_value_that_no_item_can_have_is_refused(task, column, value, variant):
    run, read, _ = make_run(2, (task,), 40)
    assert pair(run, read)
    cell = next(c for one in run.results if one.variant.name == variant for c in one.cells)
    column_of = getattr(read(cell), column).copy()
    column_of[7] = value
    words = f"{variant}: {task.name}, item 7 has the value .* impossible for an item of kind {task.kind}"
    with pytest.raises(QevalError, match=words):
        pair(run, edited(read, cell.key, **{column: column_of}))


def test_a_run_without_results_is_not_said_to_share_no_task(toy):
    run, _ = toy
    begun = tuple(replace(one, status="partial", cells=()) for one in run.results)
    with pytest.raises(UsageError, match="No variant of run-2 has results") as caught:
        merge([run, replace(run, id="run-2", results=begun)])
    assert caught.value.hint.endswith(": qeval show RUN")


def test_runs_that_share_no_task_are_told_so_before_a_baseline_is_asked_for(toy):
    run, _ = toy

    def part(name, *, arc):
        results = [
            replace(one, cells=tuple(cell for cell in one.cells if (cell.task.name == "arc") == arc))
            for one in run.results
        ]
        return replace(run, id=name, results=tuple(results))

    with pytest.raises(
        UsageError, match=r"share no task, .* and there are 2 baselines: fp16@run-1"
    ) as caught:
        merge([part("run-1", arc=True), part("run-2", arc=False)])
    assert "--baseline" not in caught.value.hint
