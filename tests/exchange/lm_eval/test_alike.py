"""What two imported variants must have in common, what may differ, and files that contradict themselves."""

from __future__ import annotations

import pytest
from harness_files import generated, letters, results, unproved_of, write

from qeval.base.errors import QevalError
from qeval.exchange.lm_eval.reading import import_lm_eval

PLAIN = {"pretrained": "org/tiny", "dtype": "float16"}
PACKED = {**PLAIN, "load_in_4bit": True}
LETTERS = {"task": "letters", "output_type": "multiple_choice", "dataset_path": "org/data"}
SUMS = {"task": "sums", "output_type": "generate_until", "dataset_path": "org/data"}


def called(args, **config):
    return {"config": {"model_args": args, **config}}


def unproved(tmp_path, first=None, second=None, samples=(None, None), task="letters"):
    """What is unproved of the candidate, whose results have the changes `second`; the baseline's `first`."""
    for name, changes, lines, args in (
        ("fp16", first, samples[0], PLAIN),
        ("int4", second, samples[1], PACKED),
    ):
        table = results(task, **{**called(args), **(changes or {})})
        write(tmp_path / name, table, samples={task: lines} if lines else None)
    found = import_lm_eval(tmp_path, baseline=base_of(tmp_path))
    (base,), (other,) = (
        [why for (name, _), why in unproved_of(found.run).items() if (name == found.run.baseline) == is_base]
        for is_base in (True, False)
    )
    assert base == []
    return " ".join(other)


def base_of(tmp_path):
    return import_lm_eval(tmp_path / "fp16").run.baseline + "[2]"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"max_length": 64}, "model_args max_length is 64 where the baseline has none"),
        ({"max_model_len": 64}, "model_args max_length is 64"),
        ({"tokenizer": "org/other"}, "model_args tokenizer is org/other where the baseline has org/tiny"),
        ({"add_bos_token": True}, "model_args add_bos_token is True where the baseline has False"),
        ({"prefix_token_id": 5}, "model_args prefix_token_id is 5"),
        ({"truncation": True}, "model_args truncation is True"),
        ({"softmax_dtype": "float32"}, "model_args softmax_dtype is float32"),
        ({"something_new": 1}, "model_args something_new is 1 where the baseline has none"),
    ],
)
def test_an_argument_that_changes_what_is_asked_is_unproved(tmp_path, argument, says):
    assert says in unproved(tmp_path, second=called({**PACKED, **argument}))


@pytest.mark.parametrize(
    "argument",
    [
        {"load_in_8bit": True},
        {"bnb_4bit_quant_type": "nf4"},
        {"peft": "org/adapter"},
        {"gptqmodel": True},
        {"device_map": "auto"},
        {"parallelize": True},
        {"batch_size": 8},
        {"trust_remote_code": True},
        {"tensor_parallel_size": 2},
        {"tokenizer": "org/tiny"},
        {"add_bos_token": False},
        {"truncation": False},
        {"max_length": None},
    ],
)
def test_what_variants_may_differ_in_proves_as_much(tmp_path, argument):
    assert unproved(tmp_path, second=called({**PACKED, **argument})) == ""


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"max_length": 2048}, {"max_length": 64}, "max_length is 64 where the baseline has 2048"),
        (
            {"task_hashes": {"letters": "a"}},
            {"task_hashes": {"letters": "b"}},
            'task_hashes is "b" where the baseline has "a"',
        ),
        ({}, {"configs": {"letters": {**LETTERS, "dataset_path": "org/b"}}}, 'dataset_path is "org/b"'),
        ({}, {"configs": {"letters": {**LETTERS, "test_split": "train"}}}, 'test_split is "train" where'),
        ({}, {"configs": {"letters": {**LETTERS, "target_delimiter": ""}}}, 'target_delimiter is "" where'),
        ({}, {"configs": {"letters": {**LETTERS, "doc_to_choice": "z"}}}, 'doc_to_choice is "z" where'),
    ],
)
def test_what_results_say_of_the_task_is_compared(tmp_path, first, second, says):
    assert says in unproved(tmp_path, first, second)


def test_a_long_value_is_cut_in_its_sentence(tmp_path):
    own = {"letters": {**LETTERS, "process_results": f"def mine(doc, results):{' ' * 500}return 1"}}
    said = unproved(tmp_path, {}, {"configs": own})
    assert "process_results is" in said
    assert "where the baseline has none" in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("place", "told", "says"),
    [
        (
            "configs",
            {"letters": {**LETTERS, "doc_to_text": "A: {{question}}"}},
            'doc_to_text is "A: {{question}}"',
        ),
        ("configs", {"letters": {**LETTERS, "fewshot_split": "train"}}, 'fewshot_split is "train"'),
        ("config", {"model_args": {**PACKED, "max_length": 64}}, "model_args max_length is 64"),
    ],
)
def test_without_samples_what_shapes_the_prompts_is_compared_too(tmp_path, place, told, says):
    for name, args, changes in (("fp16", PLAIN, {}), ("int4", PACKED, {place: told})):
        table = results("letters", **{**called(args), **changes})
        write(tmp_path / name, table)
        for samples in (tmp_path / name).glob("samples_*"):
            samples.unlink()
    found = import_lm_eval(tmp_path, baseline="tiny[2]")
    assert says in " ".join(said for some in unproved_of(found.run).values() for said in some)


def test_how_texts_are_generated_is_compared_where_texts_are(tmp_path):
    warm = called(PACKED, gen_kwargs={"temperature": 1.0})
    lines = [line for at in range(6) for line in generated(at, none=True)]
    first, second = ({"configs": {"sums": SUMS}, **some} for some in ({}, warm))
    assert "gen_kwargs is" in unproved(tmp_path / "sums", first, second, (lines, lines), task="sums")
    assert unproved(tmp_path / "letters", {}, warm) == ""


def changed(lines, name, text):
    """The lines with a part of every request's arguments replaced."""
    return [
        {**line, "arguments": {k: {**some, name: text(some[name])} for k, some in line["arguments"].items()}}
        for line in lines
    ]


@pytest.mark.parametrize("part", ["arg_0", "arg_1"])
def test_prompts_and_choices_are_compared_item_by_item(tmp_path, part):
    other = letters()[:2] + changed(letters()[2:], part, lambda text: f"{text} no")
    assert "its items, prompts, choices or right answers are not all the baseline's" in unproved(
        tmp_path, samples=(letters(), other)
    )
    run = import_lm_eval(tmp_path, baseline=base_of(tmp_path)).run
    (note,) = [note for one in run.results for note in one.provenance.notes if "another right answer" in note]
    said = "letters: item 2 has another prompt, other choices or another right answer than in tiny[2]"
    assert note == f"{said}, as have 4 in all."


def test_samples_in_another_order_were_asked_the_same(tmp_path):
    assert unproved(tmp_path, samples=(letters(), letters()[::-1])) == ""


def test_choices_that_no_sample_holds_are_refused(tmp_path):
    bare = [{name: value for name, value in line.items() if name != "arguments"} for line in letters()]
    bare = [{**line, "arguments": {}} for line in bare]
    with pytest.raises(QevalError, match="not as lm-eval writes them"):
        unproved(tmp_path, samples=(letters(), bare))


@pytest.mark.parametrize(("limit", "most"), [(3, "3"), (0.1, "1")])
def test_more_items_than_the_limit_lets_are_refused(tmp_path, limit, most):
    write(tmp_path, results("letters", config={"limit": limit}))
    says = rf"has 6 items of letters.* limit of {limit} was set, which lets {most}\."
    with pytest.raises(QevalError, match=says):
        import_lm_eval(tmp_path)


@pytest.mark.parametrize("limit", [6, 100, 0.99, 1.0])
def test_as_many_items_as_the_limit_lets_are_read(tmp_path, limit):
    count = {"letters": {"original": 6, "effective": 6}}
    lines = letters(1) if limit == 1 else None
    table = results("letters", config={"limit": limit}, **({} if lines else {"n-samples": count}))
    write(tmp_path, table, samples={"letters": lines} if lines else None)
    assert import_lm_eval(tmp_path).run.results[0].cells[0].n == (1 if lines else 6)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ((0.5, -1.0), r"item 1 has a log-likelihood above 0 \(0\.5\)"),
        (("-inf", "-inf"), "item 1 has no finite log-likelihood"),
    ],
)
@pytest.mark.parametrize("place", ["resps", "filtered_resps"])
def test_log_likelihoods_that_cannot_be_are_refused(tmp_path, answers, says, place):
    lines, pairs = letters(), [[str(score), "False"] for score in answers]
    lines[1] = {**lines[1], place: [[pair] for pair in pairs] if place == "resps" else pairs}
    write(tmp_path, results("letters"), samples={"letters": lines})
    with pytest.raises(QevalError, match=says):
        import_lm_eval(tmp_path)


def with_scores(line, *scores):
    pairs = [[str(score), "False"] for score in scores]
    return {**line, "resps": [[pair] for pair in pairs], "filtered_resps": pairs}


def told_of(tmp_path, lines, **config):
    table = results("letters")
    table["configs"]["letters"].update(config)
    write(tmp_path, table, samples={"letters": lines})
    return " ".join(import_lm_eval(tmp_path).run.results[0].cells[0].unproved)


def test_an_acc_that_its_own_log_likelihoods_refute_is_unproved(tmp_path):
    lies = [{**line, "acc": 1.0} for line in letters()]
    said = told_of(tmp_path, lies)
    assert "acc is not what the log-likelihoods beside it say, of item 0 first and of 3 in all" in said


def sums_told(tmp_path, answer, target, value, **entry):
    """What is unproved of one written answer that counts as `value`."""
    (line,) = generated(0, none=True)
    line = {**line, "filtered_resps": [answer], "target": target, "exact_match": value}
    listed = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, **entry}]
    table = results("sums", configs={"sums": {**SUMS, "metric_list": listed}})
    write(tmp_path, table, samples={"sums": [line]})
    return " ".join(import_lm_eval(tmp_path).run.results[0].cells[0].unproved)


@pytest.mark.parametrize(
    ("answer", "target", "value", "entry"),
    [
        ("18", "19", 1.0, {}),
        ("18", "18", 0.0, {}),
        ("18", "so #### 19", 1.0, {"regexes_to_ignore": ["(?s).*#### "]}),
    ],
)
def test_an_exact_match_that_its_own_texts_refute_is_unproved(tmp_path, answer, target, value, entry):
    said = sums_told(tmp_path, answer, target, value, **entry)
    assert "exact_match is not what the texts beside it say, of item 0 first and of 1 in all" in said


@pytest.mark.parametrize(
    ("answer", "target", "value", "entry"),
    [
        ("18", "18", 1.0, {}),
        ("Yes.", "yes", 1.0, {"ignore_case": True, "ignore_punctuation": True}),
        ("Yes", "yes", 0.0, {}),
        ("1,018", "5 + 5 #### $1018", 1.0, {"regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}),
        ("a1", "a2", 1.0, {"ignore_numbers": True}),
        ("18", "19", 1.0, {"regexes_to_ignore": ["(x+x+)+y"]}),
        ("18", "['18', '19']", 1.0, {}),
    ],
)
def test_what_an_exact_match_may_ignore_is_no_contradiction(tmp_path, answer, target, value, entry):
    assert sums_told(tmp_path, answer, target, value, **entry) == ""


def test_another_right_answer_under_the_same_hash_is_unproved(tmp_path):
    theirs = [{**line, "target": "[0, 1]", "acc": 1.0} for line in letters()]
    said = unproved(tmp_path, samples=(letters(), theirs))
    assert "its items, prompts, choices or right answers are not all the baseline's" in said


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_of_alike_log_likelihoods_either_may_be_the_answer(tmp_path, value):
    lines = [{**with_scores(line, -1.0, -1.0 - 1e-9), "acc": value} for line in letters()]
    assert told_of(tmp_path, lines) == ""


def test_other_metrics_and_functions_of_a_tasks_own_are_not_looked_at(tmp_path):
    lies = [{**line, "acc": 1.0} for line in letters()]
    assert told_of(tmp_path / "own", lies, process_results="def mine(doc, results): ...") == ""
    by_length = [{**line, "acc_norm": 1.0, "metrics": ["acc", "acc_norm"]} for line in letters()]
    assert told_of(tmp_path / "norm", by_length) == ""
    texts = [{**line, "target": "B"} for line in lies]
    assert told_of(tmp_path / "text", texts) == ""


@pytest.mark.parametrize(
    ("metric", "first", "second", "says"),
    [
        ("wer", True, True, "says that more wer is better, where its name says that less is"),
        ("toxicity", True, True, "where its name says that less is"),
        ("acc", False, False, "says that less acc is better, where its name says that more is"),
        ("foo", True, False, r"more foo is better in .*fp16.*, and less in .*int4"),
        ("foo", None, None, "nothing says whether more foo is better, or less"),
        ("foo", False, False, "letters: less foo is better"),
        ("wer", None, None, "letters: less wer is better"),
    ],
)
def test_a_direction_that_is_contradicted_or_unknown_does_not_judge(tmp_path, metric, first, second, says):
    for name, rises, args in (("fp16", first, PLAIN), ("int4", second, PACKED)):
        lines = [{**line, metric: line.pop("acc"), "metrics": [metric]} for line in letters()]
        table = results("letters", **called(args), higher_is_better={"letters": {metric: rises}})
        write(tmp_path / name, table, samples={"letters": lines})
    with pytest.raises(QevalError, match=says):
        import_lm_eval(tmp_path, baseline="tiny[2]")


def test_a_null_leaves_it_to_the_metrics_name(tmp_path):
    write(tmp_path, results("letters", higher_is_better={"letters": {"acc": None}}))
    assert import_lm_eval(tmp_path).run.results[0].cells[0].task.metric == "acc"
