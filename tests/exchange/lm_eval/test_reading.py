"""Importing lm-eval's results: every layout, real files written by lm-eval itself, and damaged ones."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import compare_run
from harness_files import LATER, STAMP, results, sample, write

from qeval.base.errors import IncomparableError, QevalError, UsageError
from qeval.base.records import Suite, Task
from qeval.exchange.lm_eval.reading import import_lm_eval

FIXTURES = Path(__file__).parents[2] / "score" / "harness" / "fixtures"


def rows_of(found):
    return compare_run(found.run, lambda cell: found.samples[cell.key])


# --- layouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stamp", [STAMP, ""])
@pytest.mark.parametrize("depth", ["", "org__tiny", "outputs/org__tiny"])
def test_a_directory_of_one_model(tmp_path, stamp, depth):
    write(tmp_path / depth, results("letters"), stamp)
    found = import_lm_eval(tmp_path)
    (result,) = found.run.results
    assert (result.variant.name, result.variant.model, found.run.baseline) == ("tiny", "org/tiny", "tiny")
    (cell,) = result.cells
    assert (cell.n, cell.n_available, cell.score, cell.task_version) == (6, 6, 0.5, "1.0")
    assert cell.task == Task("letters", "acc", num_fewshot=1)
    assert not cell.aggregate_only
    samples = found.samples[cell.key]
    assert list(samples.key) == [str(at) for at in range(6)]
    assert list(samples.answer) == ["0", "1"] * 3
    assert list(samples.gold) == ["1"] * 6
    assert list(samples.doc_hash) == [f"doc-letters-{at}" for at in range(6)]
    assert samples.scores[0] == (-1.0, -2.0)
    item = found.items[cell.key][2]
    assert (item.key, item.question, item.choices, item.gold) == (
        "2",
        "Letter 2?\nAnswer:",
        (" A", " B"),
        "1",
    )


def test_one_results_file_with_a_name_of_its_own(tmp_path):
    write(tmp_path, results("letters"), stem="mine")
    (tmp_path / "other.json").write_text('{"something": "else"}')
    assert import_lm_eval(tmp_path / f"mine_{STAMP}.json").run.results[0].cells[0].n == 6
    assert len(import_lm_eval(tmp_path).run.results) == 1


def test_several_models_become_variants(tmp_path):
    write(tmp_path / "a", results("letters", name="org/fp16"))
    worse = [sample(at, right=False) for at in range(6)]
    write(tmp_path / "b", results("letters", name="org/gptq"), samples={"letters": worse})
    found = import_lm_eval(tmp_path, baseline="fp16")
    assert [result.variant.name for result in found.run.results] == ["fp16", "gptq"]
    (row,) = rows_of(found)
    assert (row.losses, row.gains, row.flips, row.delta) == (3, 0, 3, -0.5)
    assert import_lm_eval(tmp_path, baseline="gptq").run.baseline == "gptq"


def test_one_model_with_other_arguments_is_another_variant(tmp_path):
    args = {"pretrained": "org/tiny", "load_in_4bit": True}
    write(tmp_path / "a", results("letters"))
    write(tmp_path / "b", results("letters", args=args), LATER)
    found = import_lm_eval(tmp_path, baseline="tiny[2]")
    names = [result.variant.name for result in found.run.results]
    assert names == ["tiny[2]", "tiny[load_in_4bit=True]"]


def test_arguments_as_older_versions_wrote_them(tmp_path):
    for folder, revision in (("a", "main"), ("b", "act")):
        write(tmp_path / folder, results("letters", args=f"pretrained=org/tiny,revision={revision}"))
    found = import_lm_eval(tmp_path, baseline="tiny[revision=main]")
    names = [result.variant.name for result in found.run.results]
    assert names == ["tiny[revision=act]", "tiny[revision=main]"]


def test_the_newest_result_of_each_task_holds(tmp_path):
    all_right = [sample(at, right=True) for at in range(6)]
    write(tmp_path, results("letters", "words"))
    write(tmp_path, results("letters"), LATER, samples={"letters": all_right})
    cells = {cell.task.name: cell.score for cell in import_lm_eval(tmp_path).run.results[0].cells}
    assert cells == {"letters": 1.0, "words": 0.5}


def test_a_name_for_the_only_variant(tmp_path):
    write(tmp_path / "a", results("letters"))
    assert import_lm_eval(tmp_path, name="vllm").run.results[0].variant.name == "vllm"
    write(tmp_path / "b", results("letters", name="other"))
    with pytest.raises(UsageError, match="results of 2 models, and one name: 'vllm'"):
        import_lm_eval(tmp_path, name="vllm")


GROUPS = {"mmlu": ["mmlu_stem", "mmlu_other"], "mmlu_stem": ["mmlu_x", "mmlu_y"], "mmlu_other": ["mmlu_z"]}


def test_groups_within_groups(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, results("mmlu_x", "mmlu_y", "mmlu_z", name=name, groups=GROUPS))
    found = import_lm_eval(tmp_path, baseline="a")
    places = {cell.task.name: (cell.task.group, cell.task.category) for cell in found.run.results[0].cells}
    assert places == {"mmlu_x": ("mmlu", "stem"), "mmlu_y": ("mmlu", "stem"), "mmlu_z": ("mmlu", "other")}
    assert [task.name for task in found.run.suite.tasks] == ["mmlu"]
    assert [row.task for row in rows_of(found)] == ["mmlu_macro", "mmlu", "mmlu_x", "mmlu_y", "mmlu_z"]


def test_a_group_of_unlike_members_is_no_group(tmp_path):
    odd = [sample(at, at % 2, "two", acc_norm=0.25, metrics=["acc_norm"]) for at in range(6)]
    write(tmp_path, results("one", "two", groups={"both": ["one", "two"]}), samples={"two": odd})
    cells = import_lm_eval(tmp_path).run.results[0].cells
    assert {cell.task.group for cell in cells} == {None}
    assert [(cell.task.metric, cell.task.kind) for cell in cells] == [
        ("acc", "accuracy"),
        ("acc_norm", "score"),
    ]


def test_a_suite_says_what_judges(tmp_path):
    rows = [sample(at, at % 2, acc_norm=1.0, metrics=["acc", "acc_norm"]) for at in range(6)]
    write(tmp_path, results("letters", "words"), samples={"letters": rows})
    suite = Suite("mine", (Task("letters", "acc", chance=0.5, num_fewshot=1), Task("absent", "acc")))
    found = import_lm_eval(tmp_path, suite=suite)
    (cell,) = found.run.results[0].cells
    assert (cell.task.metric, cell.task.chance, cell.score) == ("acc", 0.5, 0.5)
    assert found.run.suite == suite
    assert import_lm_eval(tmp_path).run.results[0].cells[0].task.metric == "acc_norm"
    with pytest.raises(UsageError, match="no score 'f1' for each item"):
        import_lm_eval(tmp_path, suite=Suite("s", (Task("letters", "f1"),)))
    with pytest.raises(QevalError, match="none of the suite's tasks"):
        import_lm_eval(tmp_path, suite=Suite("s", (Task("absent", "acc"),)))


def test_a_limited_run(tmp_path):
    table = results("letters", config={"limit": 6.0})
    table["n-samples"]["letters"]["original"] = 1172
    write(tmp_path, table)
    found = import_lm_eval(tmp_path)
    (cell,) = found.run.results[0].cells
    assert (cell.limited, cell.task.limit, found.run.settings.limit) == (True, 6, 6)
    table["config"]["limit"] = 0.1
    write(tmp_path, table)
    assert import_lm_eval(tmp_path).run.results[0].cells[0].task.limit == 6


# --- kinds of samples ---------------------------------------------------------------------------


def one_task(tmp_path, rows, **config):
    table = results("letters")
    table["configs"]["letters"].update(config)
    write(tmp_path, table, samples={"letters": rows})
    found = import_lm_eval(tmp_path)
    cell = found.run.results[0].cells[0]
    return cell, found.samples[cell.key], found.items[cell.key]


def arguments(*pairs):
    return {f"gen_args_{i}": dict(enumerate_args(pair)) for i, pair in enumerate(pairs)}


def enumerate_args(pair):
    return ((f"arg_{j}", part) for j, part in enumerate(pair))


def test_the_answer_is_what_the_metric_takes(tmp_path):
    base = {
        "arguments": arguments(("Q", " ab"), ("Q", " abcdef")),
        "resps": [[["-1.0", "False"]], [["-2.0", "False"]]],
    }
    rows = [
        sample(0, right=True, **base, acc_norm=1.0, acc_bytes=0.0, metrics=[metric])
        for metric in ("acc", "acc_norm", "acc_bytes")
    ]
    answers = {}
    for row in rows:
        (metric,) = row["metrics"]
        _, samples, _ = one_task(tmp_path / metric, [row])
        answers[metric] = samples.answer[0]
    assert answers == {"acc": "0", "acc_norm": "1", "acc_bytes": "1"}


def test_mutual_information_takes_the_context_off(tmp_path):
    row = sample(
        0,
        right=True,
        arguments=arguments(("Q", " a"), ("Q", " b"), ("", " a"), ("", " b")),
        resps=[[["-1", "False"]], [["-2", "False"]], [["-1", "False"]], [["-5", "False"]]],
        metrics=["acc_mutual_info"],
        acc_mutual_info=1.0,
    )
    _, samples, items = one_task(tmp_path, [row])
    assert (samples.answer[0], samples.scores[0], items[0].choices) == ("1", (-1.0, -2.0), (" a", " b"))


def test_a_perplexity(tmp_path):
    rows = [
        sample(
            at,
            right=True,
            arguments=arguments(("a text of words",)),
            resps=[[str(-20.0 - at)]],
            filtered_resps=[str(-20.0 - at)],
            metrics=["word_perplexity"],
            word_perplexity=[-20.0 - at, 4],
        )
        for at in range(3)
    ]
    cell, samples, items = one_task(tmp_path, rows, output_type="loglikelihood_rolling")
    assert (cell.task.kind, cell.score) == ("perplexity", pytest.approx(-63 / 12))
    assert list(samples.weight) == [4, 4, 4]
    assert (samples.answer[0], samples.gold[0], items[0].choices) == ("", "", ())


def test_a_generated_answer_and_its_filters(tmp_path):
    rows = [
        sample(
            0,
            right=True,
            arguments=arguments(("Question?", {"until": ["\n"]})),
            resps=[["it is 5"]],
            filtered_resps=[said],
            filter=name,
            target="5",
            metrics=["exact_match"],
            exact_match=float(said == "5"),
        )
        for name, said in (("strict", "5"), ("whole", "it is 5"))
    ]
    cell, samples, items = one_task(tmp_path, rows, output_type="generate_until")
    assert (cell.task.filter, cell.task.kind, cell.n) == ("strict", "accuracy", 1)
    assert (samples.answer[0], samples.gold[0], items[0].choices) == ("5", "5", ())


def test_one_continuation_is_right_where_it_is_the_likeliest(tmp_path):
    rows = [
        sample(at, right, arguments=arguments(("A text", " end")), resps=[[["-3.0", str(right)]]])
        for at, right in enumerate((True, False))
    ]
    _, samples, _ = one_task(tmp_path, rows, output_type="loglikelihood")
    assert list(samples.answer) == [" end", ""]


def test_several_right_answers(tmp_path):
    _, samples, _ = one_task(tmp_path, [sample(0, right=True, target="[0, 1]")])
    assert samples.gold[0] == "0,1"


@pytest.mark.parametrize(
    "other", [{"bleu": ["5", "it is 5"]}, {"f1": [0, 1]}, {"likelihood": [0, [-1.0, -2.0]]}]
)
def test_metrics_that_are_no_score_of_an_item_are_passed_over(tmp_path, other):
    row = sample(0, right=True, my_acc=1.0, **other, metrics=[*other, "my_acc"])
    del row["acc"]
    cell, _, _ = one_task(tmp_path, [row])
    assert cell.task.metric == "my_acc"


def test_a_metric_of_which_less_is_better_does_not_judge(tmp_path):
    row = sample(0, right=True, errors=3.0, metrics=["errors"])
    table = results("letters", higher_is_better={"letters": {"errors": False}})
    write(tmp_path, table, samples={"letters": [row]})
    with pytest.raises(QevalError, match=r"no task that can be judged\. letters: less errors is better\."):
        import_lm_eval(tmp_path)
    with pytest.raises(QevalError, match=r"'errors' of task 'letters' .* less errors is better"):
        import_lm_eval(tmp_path, suite=Suite("s", (Task("letters", "errors"),)))


def test_an_aggregation_that_is_no_mean_does_not_judge(tmp_path):
    row = sample(0, right=True, best=1.0, metrics=["best", "acc"])
    listed = [
        {"metric": "best", "aggregation": "def largest(items):\n    return max(items)\n"},
        {"metric": "acc", "aggregation": "mean"},
    ]
    cell, _, _ = one_task(tmp_path, [row], metric_list=listed)
    assert cell.task.metric == "acc"
    with pytest.raises(QevalError, match=r"one number for all items \(largest\(\)\)"):
        import_lm_eval(tmp_path, suite=Suite("s", (Task("letters", "best"),)))


def test_an_item_that_lm_eval_leaves_out_of_the_mean_has_no_weight(tmp_path):
    rows = [sample(0, right=True), sample(1, right=False), sample(2, right=True, metrics=[])]
    del rows[2]["acc"]
    cell, samples, _ = one_task(tmp_path, rows)
    assert (cell.n, cell.score, list(samples.weight)) == (3, 0.5, [1, 1, 0])


@pytest.mark.parametrize(("target", "gold"), [("B", "1"), (" B", " B"), ("0", "0")])
def test_the_text_of_a_choice_means_that_choice(tmp_path, target, gold):
    _, samples, _ = one_task(tmp_path, [sample(0, right=True, target=target)])
    assert samples.gold[0] == gold


def test_a_filter_that_the_samples_lack_is_refused(tmp_path):
    write(tmp_path, results("letters"))
    with pytest.raises(UsageError, match="'letters' has no filter 'strict'"):
        import_lm_eval(tmp_path, suite=Suite("s", (Task("letters", "acc", filter="strict"),)))


def test_a_suite_may_know_a_score_of_a_tasks_own_making(tmp_path):
    write(tmp_path, results("letters"))
    for wanted, kind in (("score", "score"), ("accuracy", "accuracy"), ("perplexity", "accuracy")):
        found = import_lm_eval(tmp_path, suite=Suite("s", (Task("letters", "acc", kind=wanted),)))
        assert found.run.results[0].cells[0].task.kind == kind


# --- what cannot be taken -----------------------------------------------------------------------


def test_other_prompts_are_refused_when_compared(tmp_path):
    write(tmp_path / "a", results("letters", name="a"))
    other = [sample(at, at % 2, prompt_hash="other") for at in range(6)]
    write(tmp_path / "b", results("letters", name="b"), samples={"letters": other})
    with pytest.raises(IncomparableError, match=r"the prompt differs for items 0, 1, 2 and 3 more"):
        rows_of(import_lm_eval(tmp_path, baseline="a"))


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match="There is no"):
        import_lm_eval(tmp_path / "none")
    with pytest.raises(QevalError, match="holds no results of lm-eval"):
        import_lm_eval(tmp_path)


def test_results_that_do_not_tell_of_how_many_items(tmp_path):
    write(tmp_path, results("letters", "words", **{"n-samples": None}))
    (tmp_path / f"samples_words_{STAMP}.jsonl").unlink()
    run = import_lm_eval(tmp_path).run
    assert [cell.task.name for cell in run.results[0].cells] == ["letters"]
    assert [task.name for task in run.suite.tasks] == ["letters", "words"]
    assert "Left out: words (no samples beside" in run.results[0].provenance.notes[1]
    (tmp_path / f"samples_letters_{STAMP}.jsonl").unlink()
    with pytest.raises(
        QevalError, match=r"letters, words: no samples .* not tell of how many items"
    ) as caught:
        import_lm_eval(tmp_path)
    assert "columns variant, task, score and n" in caught.value.hint


@pytest.mark.parametrize("key", ["doc_id", "doc_hash", "prompt_hash", "target_hash"])
def test_samples_without_proof(tmp_path, key):
    row = sample(0, right=True)
    del row[key]
    write(tmp_path, results("letters"), samples={"letters": [row]}, agree=False)
    with pytest.raises(QevalError, match=f"samples without {key}"):
        import_lm_eval(tmp_path)


def test_damaged_files(tmp_path):
    write(tmp_path, results("letters"))
    path = tmp_path / f"samples_letters_{STAMP}.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(QevalError, match="is damaged"):
        import_lm_eval(tmp_path)
    (tmp_path / f"results_{STAMP}.json").write_text("{")
    with pytest.raises(QevalError, match="cannot be read"):
        import_lm_eval(tmp_path)


def test_a_log_likelihood_that_is_no_number(tmp_path):
    row = sample(7, right=True, resps=[[["nan", "False"]], [["-1.0", "False"]]])
    write(tmp_path, results("letters"), samples={"letters": [row]})
    with pytest.raises(QevalError, match="item 7 has a log-likelihood that is not a number"):
        import_lm_eval(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, 10**400])
def test_a_value_that_is_no_number_is_refused(tmp_path, value):
    for name in ("a", "b"):
        rows = [sample(at, right=True, acc=value if name == "b" and at == 3 else 1.0) for at in range(6)]
        write(tmp_path / name, results("letters", name=name), samples={"letters": rows}, agree=False)
    with pytest.raises(QevalError, match=rf"b/samples_letters_{STAMP}.jsonl: letters, item 3 is {value}"):
        import_lm_eval(tmp_path, baseline="a")


def test_an_unknown_baseline(tmp_path):
    write(tmp_path, results("letters"))
    with pytest.raises(UsageError, match=r"no variant 'tinny' to be the baseline\. Did you mean 'tiny'"):
        import_lm_eval(tmp_path, baseline="tinny")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config": {"fewshot_seed": 7}}, "config.fewshot_seed is 1234 in {a}, and 7 in {b}"),
        ({"config": {"limit": 5}}, "config.limit is none in {a}, and 5 in {b}"),
        ({"chat_template": "{{x}}"}, "chat_template is none in {a}, and there in {b}"),
    ],
)
def test_results_of_different_settings_are_not_one_run(tmp_path, change, says):
    write(tmp_path / "a", results("letters", name="a"))
    write(tmp_path / "b", results("letters", name="b", **change))
    files = {name: tmp_path / name / f"results_{STAMP}.json" for name in "ab"}
    with pytest.raises(QevalError, match=re.escape(says.format(**files))) as caught:
        import_lm_eval(tmp_path, baseline="a")
    alone = Path(caught.value.hint.rpartition("qeval import ")[2])
    assert import_lm_eval(alone).run.results[0].cells  # what the message advises


SHA = hashlib.sha256(b"{{x}}").hexdigest()


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"chat_template": "{{x}}"}, {"chat_template": "{{y}}"}, f"a text of SHA-256 {SHA[:12]} in"),
        ({"chat_template_sha": SHA}, {"chat_template": "{{y}}"}, f"a text of SHA-256 {SHA[:12]} in"),
        ({"chat_template": True}, {"chat_template": "{{y}}"}, ""),
        ({"chat_template_sha": SHA}, {"chat_template": "{{x}}"}, ""),
        ({"chat_template": "{{x}}"}, {"chat_template": "{{x}}", "chat_template_sha": SHA}, ""),
        ({"system_instruction": None}, {"system_instruction": "Be brief."}, "system_instruction is none in"),
        ({}, {"system_instruction": "Be brief."}, ""),
        ({"fewshot_as_multiturn": False}, {"fewshot_as_multiturn": True}, "fewshot_as_multiturn is none in"),
    ],
)  # fmt: skip
def test_without_samples_the_texts_around_questions_are_compared(tmp_path, one, other, says):
    """Two templates were one setting, for both were there."""
    for name, change in (("a", one), ("b", other)):
        write(tmp_path / name, results("letters", name=name, **{"chat_template": "", **change}))
    import_lm_eval(tmp_path, baseline="a")  # the hashes of prompts tell
    for file in tmp_path.rglob("samples_*"):
        file.unlink()
    if not says:
        assert len(import_lm_eval(tmp_path, baseline="a").run.results) == 2
        return
    with pytest.raises(QevalError, match=re.escape(says)):
        import_lm_eval(tmp_path, baseline="a")


def test_settings_of_what_later_results_replaced_do_not_matter(tmp_path):
    for name in "ab":
        write(tmp_path / name, results("letters", name=name))
    write(tmp_path / "b", results("letters", name="b", config={"limit": 3}), "2025-12-01T00-00-00.0")
    write(tmp_path / "b", results("words", name="b", config={"limit": 6}), "2025-12-02T00-00-00.0")
    run = import_lm_eval(tmp_path, baseline="a").run
    assert [len(result.cells) for result in run.results] == [1, 2]
    assert run.settings.limit is None


# --- lm-eval itself -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """What lm-eval writes for two models that answer at random, on the tests' own tasks."""
    import lm_eval
    from lm_eval.api.registry import get_model
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    place = tmp_path_factory.mktemp("lm-eval")
    shutil.copytree(FIXTURES, place / "tasks")
    before = Path.cwd()
    os.chdir(place / "tasks")  # the tasks name their data relative to themselves
    means = {}
    try:
        manager = TaskManager(include_path=str(place / "tasks"), include_defaults=False)
        for name in ("one", "two"):
            tracker = EvaluationTracker(output_path=str(place / "out"))
            model = get_model("dummy")()
            random.seed(name)
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=["fix_all", "fix_endings", "fix_pages", "fix_sums"],
                task_manager=manager,
                log_samples=True,
                bootstrap_iters=0,
                random_seed=None,
                numpy_random_seed=1234,
                evaluation_tracker=tracker,
            )
            samples = found.pop("samples")
            tracker.general_config_tracker.model_name = f"org/{name}"
            tracker.general_config_tracker.model_name_sanitized = f"org__{name}"
            tracker.save_results_aggregated(results=found, samples=samples)
            for task in found["configs"]:
                tracker.save_results_samples(task_name=task, samples=samples[task])
            means[name] = found["results"]
    finally:
        os.chdir(before)
    return place / "out", means


@pytest.mark.torch
def test_real_results_give_lm_evals_own_means(real):
    place, means = real
    found = import_lm_eval(place, baseline="one")
    assert [result.variant.name for result in found.run.results] == ["one", "two"]
    for result in found.run.results:
        assert len(result.cells) == 7
        for cell in result.cells:
            mean = means[result.variant.name][cell.task.name][f"{cell.task.metric},{cell.task.filter}"]
            if cell.task.kind == "perplexity":
                assert np.exp(-cell.score) == pytest.approx(mean)
            else:
                assert cell.score == pytest.approx(mean)


@pytest.mark.torch
def test_real_answers_explain_real_scores(real):
    found = import_lm_eval(real[0], baseline="one")
    for result in found.run.results:
        for cell in result.cells:
            samples = found.samples[cell.key]
            if cell.task.kind == "accuracy" and cell.task.name != "fix_cloze":
                assert list((samples.answer == samples.gold).astype(float)) == list(samples.value)


@pytest.mark.torch
def test_real_results_are_compared_and_paired_by_hashes(real):
    found = import_lm_eval(real[0], baseline="one")
    rows = rows_of(found)
    own = {row.task for row in rows if row.level in {"task", "subtask"}}
    assert own == {cell.task.name for cell in found.run.results[0].cells}
    assert {row.task for row in rows} - own == {"fix_all::fix_all_reading", "fix_all::fix_all_reading_macro"}
    cell = found.run.results[1].cells[0]
    samples = found.samples[cell.key]
    found.samples[cell.key] = replace(samples, prompt_hash=samples.prompt_hash[::-1])
    with pytest.raises(IncomparableError, match="the prompt differs"):
        rows_of(found)
