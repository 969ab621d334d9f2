"""lm-eval's rules, against lm-eval itself where it has a word on them."""

import math
from types import SimpleNamespace

import pytest

from qeval.base.errors import QevalError, UsageError
from qeval.score.harness import rules

ACC = {"acc": "mean", "acc_norm": "mean"}


@pytest.mark.parametrize(
    ("aggregations", "metric"),
    [
        (ACC, "acc_norm"),
        ({"brier_score": "brier_score", "mine": "mean", "acc": "nanmean"}, "acc"),
        ({"f1": "f1", "mine": "mean", "other": "mean"}, "mine"),
        ({"bits_per_byte": "bits_per_byte", "byte_perplexity": "weighted_perplexity"}, "byte_perplexity"),
        ({"likelihood": "mean", "perplexity": "perplexity"}, "perplexity"),
    ],
)
def test_the_metric_that_is_preferred(aggregations, metric):
    assert rules.judging_metric("t", "", aggregations, {}) == metric
    assert rules.judging_metric("t", metric, aggregations, {}) == metric


@pytest.mark.parametrize(
    ("wanted", "aggregations", "error", "message"),
    [
        ("acc_nrom", ACC, UsageError, "no metric 'acc_nrom'"),
        ("f1", {**ACC, "f1": "f1"}, QevalError, r"one number for all items \(f1\)"),
        ("errors", {**ACC, "errors": "mean"}, QevalError, "less of it is better"),
        ("likelihood", {**ACC, "likelihood": "mean"}, QevalError, "one number"),
        ("", {"bleu": "bleu"}, QevalError, "no metric that judges item by item"),
    ],
)
def test_metrics_that_cannot_judge(wanted, aggregations, error, message):
    with pytest.raises(error, match=message):
        rules.judging_metric("t", wanted, aggregations, {"errors": False})


def test_the_first_filter_judges_unless_another_is_named():
    assert rules.judging_filter("t", "none", ["strict", "whole"]) == "strict"
    assert rules.judging_filter("t", "whole", ["strict", "whole"]) == "whole"
    with pytest.raises(UsageError, match="no filter 'loose'"):
        rules.judging_filter("t", "loose", ["strict", "whole"])


def test_kinds():
    assert rules.kind_of("acc", "mean", binary=True) == "accuracy"
    assert rules.kind_of("acc", "mean", binary=False) == "score"
    assert rules.kind_of("mine", "mean", binary=True) == "score"
    assert rules.kind_of("bits_per_byte", "bits_per_byte", binary=False) == "perplexity"


def test_what_lm_eval_leaves_out_of_a_mean_has_no_weight():
    assert rules.weighed((-3.0, 2), "weighted_perplexity") == (-3.0, 2.0)
    assert rules.weighed(1, "mean") == (1.0, 1.0)
    assert rules.weighed(None, "mean") == (0.0, 0.0)
    assert rules.weighed(math.nan, "nanmean") == (0.0, 0.0)
    assert math.isnan(rules.weighed(math.nan, "mean")[0])


@pytest.mark.parametrize(
    ("target", "choices", "gold"),
    [
        (1, ["a", "b"], "1"),
        ("b", ["a", "b"], "1"),
        ("c", ["a", "b"], "c"),
        ([0, 2], [], "0,2"),
        ("5", [], "5"),
    ],
)
def test_right_answers_as_they_are_stored(target, choices, gold):
    assert rules.gold_text(target, choices) == gold
    assert rules.gold_text(rules.read_target(str(target)), choices) == gold


@pytest.mark.parametrize("text", ["007", "[broken", "[not, a, list]", "plain", ""])
def test_a_target_that_only_looks_like_one_stays_a_text(text):
    assert rules.read_target(text) == text


CASES = [
    (["a", "bcd"], [-2.0, -2.1]),
    (["", "bcd"], [-0.1, -9.0]),  # lm-eval divides by a length of 0 and never takes that choice
    (["ä", "b"], [-2.0, -1.1]),
    (["a", "b"], [-1.0, -1.0]),
]


@pytest.mark.torch
@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
@pytest.mark.parametrize(("choices", "scores"), CASES)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_the_answer_is_the_one_that_lm_eval_takes(metric, choices, scores):
    from lm_eval.api.task import ConfigurableTask

    asked = [*scores, -1.0, -0.3] if metric == rules.ASKED_TWICE else scores
    answer = rules.answered_choice(metric, choices, asked)
    for gold in range(len(choices)):
        task = SimpleNamespace(
            config=SimpleNamespace(process_results=None),
            _metric_fn_list={metric: None},
            OUTPUT_TYPE="multiple_choice",
            doc_to_choice=lambda _: choices,
            doc_to_target=lambda _, gold=gold: gold,
            multiple_input=0,
            multiple_target=0,
        )
        theirs = ConfigurableTask.process_results(task, {}, [(score, False) for score in asked])
        assert theirs[metric] == float(answer == gold)


@pytest.mark.torch
def test_default_aggregations_and_names_are_lm_evals():
    from lm_eval.api import metrics, registry

    for metric, aggregation in rules.DEFAULT_AGGREGATIONS.items():
        assert registry.get_metric_aggregation(metric) is registry.get_aggregation(aggregation)
    for name in rules.MEANS | rules.PERPLEXITIES:
        assert registry.get_aggregation(name) is getattr(metrics, name)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("toxicity_score", "less"),
        ("attack_success_rate", "less"),
        ("no_answer_f1", "more"),
        ("detection_accuracy", "more"),
        ("exact", "more"),
        ("hallucination_free", ""),
        ("harmful_refused", ""),
        ("risk_score", ""),
        ("accuracy_drop", ""),
    ],
)
def test_which_way_a_name_counts_or_that_it_does_not_say(metric, direction):
    assert rules.less_is_better(metric) == (direction == "less")
    assert rules.has_a_direction(metric) == bool(direction)
