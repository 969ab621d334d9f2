"""lm-eval's rules on metrics and answers, decided once: for what qeval scores and for files of lm-eval.

Plain data in and out: neither lm-eval nor anything heavy is imported, so that a reader of files may ask too.
An aggregation is called by lm-eval's name for it ("mean", "weighted_perplexity").
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.reading import whole
from qeval.base.records import Kind

PREFERRED = ("acc_norm", "acc", "exact_match", "word_perplexity", "byte_perplexity")
"""The metrics that judge a task where nobody chose one, best first; perplexities in lm-eval's own order."""
BINARY = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
"""The metrics that are 0 or 1 for each item, unless a task's own function makes something else of them."""
MEANS = frozenset({"mean", "nanmean"})
PERPLEXITIES = frozenset({"weighted_perplexity", "bits_per_byte", "perplexity"})
DEFAULT_AGGREGATIONS = {
    "acc": "mean",
    "acc_norm": "mean",
    "acc_mutual_info": "mean",
    "acc_bytes": "mean",
    "exact_match": "mean",
    "likelihood": "mean",
    "acc_all": "mean",
    "perplexity": "perplexity",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    "bypass": "bypass",
    "brier_score": "brier_score",
    "mcc": "matthews_corrcoef",
    "f1": "f1",
    "bleu": "bleu",
    "chrf": "chrf",
    "chrf++": "chrf++",
    "ter": "ter",
}
"""What lm-eval registers for its own metrics; any other metric is averaged."""
# lm-eval says "mean" of these too, but what it averages are no numbers.
_NOT_NUMBERS = frozenset({"likelihood", "bypass"})
_FALLING = frozenset([
    "attack", "bias", "bpb", "brier", "cer", "distance", "ece", "entropy", "eer", "err", "error", "errors",
    "failure", "failures", "hallucination", "hallucinations", "harm", "harmful", "harmfulness", "incorrect",
    "jailbreak", "loss", "mae", "mape", "mer", "mistake", "mistakes", "mse", "nll", "perplexity", "ppl",
    "rmse", "stereotype", "ter", "tox", "toxic", "toxicity", "unsafe", "violation", "violations", "wer",
    "wrong",
])  # fmt: skip
_RISING = frozenset(["acc", "accuracy", "match", "em", "f1", "auc", "auroc", "recall", "precision"])
ASKED_TWICE = "acc_mutual_info"
"""The metric for which each choice is asked without the question as well."""


_OFTEN_RISING = frozenset(
    [
        "bleu",
        "chrf",
        "consistency",
        "correct",
        "correlation",
        "exact",
        "grade",
        "hits",
        "iou",
        "map",
        "mc1",
        "mc2",
        "mcc",
        "meteor",
        "mrr",
        "ndcg",
        "pass",
        "pearson",
        "rouge",
        "rouge1",
        "rouge2",
        "rougel",
        "rougelsum",
        "sari",
        "score",
        "similarity",
        "spearman",
        "success",
        "win",
    ]
)
"""Words of which more is better, unless one of _FALLING stands beside them."""


_TURNING = frozenset([
    "complement", "decrease", "degradation", "delta", "diff", "difference", "drop", "gap", "inverse",
    "inverted", "minus", "neg", "negated", "negative", "non", "not", "reduction", "reversed",
])  # fmt: skip
"""Words that may turn the others of a name round, as `1 -` before them does: an accuracy's drop is none."""
_DOUBTFUL = frozenset([
    "abuse", "anti", "avoidance", "avoided", "cost", "danger", "dangerous", "deception", "detected",
    "detection", "free", "hate", "hateful", "leak", "leakage", "misalignment", "misinformation", "no",
    "offensive", "penalty", "prevented", "prevention", "refusal", "refusals", "refused", "regret",
    "rejected", "rejection", "resistance", "resistant", "risk", "sycophancy", "vulnerability",
    "without",
])  # fmt: skip
"""Words beside which another tells nothing, but one of _RISING: `hallucination_free` and `risk_score` are not
what `hallucination` and `score` are."""
_TURNED = re.compile(r"\s*1(00)?\s*%?\s*[-\u2212\u2013]")


def has_a_direction(metric: str) -> bool:
    """Whether a metric's name tells if more or less of it is better, and does not tell both."""
    if less_is_better(metric):
        return True
    words = _words(metric)
    told = words & _RISING or (words & _OFTEN_RISING and not is_doubtful(metric))
    return bool(told and not words & _FALLING) and not _is_turned(metric)


def less_is_better(metric: str) -> bool:
    """Whether less of a metric is better, told by the words of its name, where nothing else tells it."""
    return _falls(metric) and not _is_turned(metric) and not is_doubtful(metric)


def is_doubtful(metric: str) -> bool:
    """Whether a word of a metric's name makes it doubtful which way the others count."""
    return bool(_words(metric) & _DOUBTFUL)


def _falls(metric: str) -> bool:
    named = metric.lower() == "bits_per_byte" or bool(_words(metric) & _FALLING)
    return named and not _words(metric) & _RISING


def more_is_better(metric: str) -> bool:
    """Whether a word of a metric's name tells that more of it is better; of many names none does."""
    return bool(_words(metric) & _RISING) and not _is_turned(metric)


def _is_turned(metric: str) -> bool:
    return bool(_words(metric) & _TURNING) or _TURNED.match(metric) is not None


def _words(metric: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", metric.lower()))


def judging_metric(task: str, wanted: str, aggregations: Mapping[str, str], rises: Mapping[str, bool]) -> str:
    """The metric that judges `task`: `wanted`, or where that is empty the one that is preferred.

    `aggregations` are the task's metrics in its own order; `rises` says of which of them more is better;
    of those it leaves out, their names tell.

    Raises UsageError for a metric that the task has not, QevalError for one that does not judge item by
    item (BLEU of a corpus, F1 of a whole split) or of which less is better, or where no metric does.
    """
    possible = [name for name, how in aggregations.items() if not _refusal(name, how, rises)]
    metric = wanted or next((name for name in (*PREFERRED, *possible) if name in possible), "")
    if not metric:
        raise QevalError(
            f"The task {task!r} has no metric that judges item by item.",
            f"It has {', '.join(aggregations) or 'none'}; choose another task.",
        )
    if metric not in aggregations:
        raise UsageError(f"The task {task!r} has no metric {metric!r}.", did_you_mean(metric, aggregations))
    reason = _refusal(metric, aggregations[metric], rises)
    if reason:
        raise QevalError(
            f"The metric {metric!r} of task {task!r} cannot be compared item by item: {reason}.",
            f"Metrics of this task that can: {', '.join(possible) or 'none'}.",
        )
    return metric


def _refusal(metric: str, aggregation: str, rises: Mapping[str, bool]) -> str:
    """Why a metric cannot judge items one by one, "" if it can."""
    if aggregation in PERPLEXITIES:
        return ""
    if aggregation not in MEANS or metric in _NOT_NUMBERS:
        return f"it is one number for all items ({aggregation})"
    falls = not rises[metric] if metric in rises else _falls(metric)
    return "less of it is better" if falls else ""


def judging_filter(task: str, wanted: str, names: Sequence[str]) -> str:
    """The filter that judges: `wanted`, or the task's first where that is "none", the default of a Task.

    Raises UsageError for a filter that the task has not.
    """
    if wanted in names:
        return wanted
    if wanted in {"none", ""}:
        return names[0]
    raise UsageError(f"The task {task!r} has no filter {wanted!r}.", did_you_mean(wanted, names))


def kind_of(metric: str, aggregation: str, *, binary: bool) -> Kind:
    """Of what kind a metric's values are; `binary`: nothing speaks against each of them being 0 or 1."""
    if aggregation in PERPLEXITIES:
        return "perplexity"
    return "accuracy" if binary and metric in BINARY else "score"


def weighed(value: Any, aggregation: str) -> tuple[float, float]:
    """An item's value and weight, from what lm-eval says of it; weight 0 where it leaves the item out of the
    mean: where it says nothing, or NaN and takes the mean of the rest. Any other NaN stays one."""
    if isinstance(value, tuple | list):
        return float(value[0]), float(value[1])
    if value is None or (aggregation == "nanmean" and math.isnan(float(value))):
        return 0.0, 0.0
    return float(value), 1.0


def answered_choice(metric: str, choices: Sequence[str], scores: Sequence[float]) -> int:
    """The choice that `metric` takes for the answer, as lm-eval's multiple choice has it.

    `choices` are the texts without the delimiter in front. `scores` are their log-likelihoods, followed for
    mutual information by those without the question. Lengths are taken as they are: an empty choice is never
    the answer of a metric that divides by them.
    """
    import numpy as np

    ranked = np.array(scores[: len(choices)], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "acc_norm":
            ranked = ranked / [len(text) for text in choices]
        elif metric == "acc_bytes":
            ranked = ranked / [len(text.encode()) for text in choices]
        elif metric == ASKED_TWICE:
            ranked = ranked - np.array(scores[len(choices) :])
    return int(np.argmax(ranked))


def generated_text(filtered: Any) -> str:
    """The text that a filter left of what was generated: the first where it left several."""
    return str(filtered[0] if isinstance(filtered, list) and filtered else filtered)


def gold_text(target: Any, choices: Sequence[str] = ()) -> str:
    """The right answer as it is stored: the index of a choice, several joined by commas, or a text.

    A target that is the text of one of `choices` means that choice.
    """
    if isinstance(target, list):
        return ",".join(map(str, target))
    if isinstance(target, str) and target in choices:
        return str(choices.index(target))
    return str(target)


def target_text(gold: str, output_type: str) -> str:
    """The right answer as lm-eval writes what `gold_text` made of it; of several choices it writes a list."""
    several = output_type == "multiple_choice" and re.fullmatch(r"\d+(?:,\d+)+", gold)
    return f"[{gold.replace(',', ', ')}]" if several else gold


def read_target(text: str) -> int | str | list[Any]:
    """A target from lm-eval's files, which hold `str(target)`: numbers and lists are told by their looks."""
    number = whole(text)
    if number is not None and str(number) == text:
        return number
    if text.startswith("[") and text.endswith("]"):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return text
        return found if isinstance(found, list) else text
    return text
