"""lm-eval's lines of samples, both ways: a line of JSON an item becomes samples and texts, and the reverse.

A line that qeval wrote says more than lm-eval's: `answer`, the answer that a run keeps, `written`, the whole
texts where `resps` holds them without thinking, `cluster`, the text that the item shares with others (if it
does), and under `doc` the question without the examples; a metric that it lacks has weight 0, as in lm-eval's
own means. As in lm-eval's files there is a line for each item and filter, the items of one filter after those
of another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.logged import (
    Filtered,
    Logged,
    arguments_of,
    arguments_table,
    as_logged,
    pack,
    pack_arguments,
    unpack,
)
from qeval.base.records import Item, Samples
from qeval.compare.conditions import SCORED
from qeval.exchange.lm_eval.lines import HASHES, Line, Logs
from qeval.score.harness.rules import (
    answered_choice,
    generated_text,
    gold_text,
    read_target,
    target_text,
    weighed,
)

CLUSTER = "cluster"
WRITTEN = "written"
_FIXED = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "answer", "gold",
    CLUSTER, WRITTEN,
    *HASHES,
}  # fmt: skip
"""The fields of a line that are no metrics."""
_ROUNDING = 1e-3
"""How far above 0 a backend's rounding may lift a log-likelihood."""
# Some readers of JSON lines take these for the end of a line too.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


@dataclass(frozen=True)
class Format:
    """How to read a task's lines: its metric and that one's aggregation (see harness.rules), and from
    lm-eval's configuration its output type and delimiters. `ours`: qeval wrote them; `judged`: and this
    metric judged there."""

    metric: str
    aggregation: str
    output_type: str = "multiple_choice"
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    ours: bool = False
    judged: bool = False

    @property
    def pairs(self) -> bool:
        """Whether a value of the metric is a log-likelihood and its weight."""
        return self.aggregation in {"weighted_perplexity", "bits_per_byte"}


def write_lines(lines: Iterable[Line]) -> str:
    """A file of them."""
    text = "".join(f"{_ENCODED(line)}\n" for line in lines)
    return text.translate(_LINE_ENDS) if any(chr(end) in text for end in _LINE_ENDS) else text


_ENCODED = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes one for each value


def metric_names(line: Line) -> list[str]:
    """The metrics that a line lists, or that older versions wrote last."""
    listed = line.get("metrics")
    return [str(name) for name in listed] if listed is not None else [k for k in line if k not in _FIXED]


def read_samples(path: Path, parts: Mapping[str, Sequence[Line]], chosen: str, how: Format) -> Samples:
    """The lines of the filter `chosen` as columns, without clusters (see `texts`); `parts` are those of every
    filter. Raises QevalError where a log-likelihood is not a number; a value that is none stays so, and is
    refused when compared."""
    lines = parts[chosen]
    pairs = [weighed(line.get(how.metric), how.aggregation) for line in lines]
    values = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    answers = [_answer(path, line, how) for line in lines]
    scores = _objects([some for _, some in answers])
    hashes = {name: _text([str(line[name]) for line in lines]) for name in HASHES}
    texts = [_texts(line, how) for line in lines]
    golds = [_gold(line, how) for line in lines]
    return Samples(
        key=_text([str(line["doc_id"]) for line in lines]),
        value=values[:, 0].copy(),
        weight=values[:, 1].copy(),
        cluster=_text([""] * len(lines)),
        answer=_text([answer for answer, _ in answers]),
        gold=_text(golds),
        scores=scores,
        written=_objects(texts),
        logged=_objects(_logged(lines, _filtered(parts, lines), how, golds, scores, texts)),
        **hashes,
    )


def _texts(line: Line, how: Format) -> tuple[str, ...]:
    """What the model wrote, of all questions and repeats."""
    if how.output_type != "generate_until":
        return ()
    if how.ours and WRITTEN in line:
        return tuple(map(str, line[WRITTEN]))
    return tuple(str(text) for some in line.get("resps") or () for text in some)


def _filtered(parts: Mapping[str, Sequence[Line]], lines: Sequence[Line]) -> list[dict[str, Filtered]]:
    """What every filter left of each of `lines`."""
    filters: dict[str, dict[str, Filtered]] = {str(line["doc_id"]): {} for line in lines}
    for name, some in parts.items():
        for line in some:
            metrics = {metric: line[metric] for metric in metric_names(line) if metric in line}
            answers = as_logged(line.get("filtered_resps") or [])
            filters.setdefault(str(line["doc_id"]), {})[name] = Filtered(answers, metrics)
    return [filters[str(line["doc_id"])] for line in lines]


def _logged(
    lines: Sequence[Line],
    filters: Sequence[dict[str, Filtered]],
    how: Format,
    golds: Sequence[str],
    scores: Any,
    texts: Sequence[tuple[str, ...]],
) -> list[str]:
    """What the lines of every filter say of each item; "" for one that says nothing of what was answered."""
    return [
        pack(_logged_of(line, how, golds[at], filters[at]), scores[at], texts[at])
        if any(line.get("resps") or ())
        else ""
        for at, line in enumerate(lines)
    ]


def _logged_of(line: Line, how: Format, gold: str, filters: dict[str, Filtered]) -> Logged:
    target = str(line.get("target", ""))
    return Logged(
        as_logged(line["resps"]), filters, None if target == target_text(gold, how.output_type) else target
    )


def _objects(values: Sequence[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _text(values: list[str]) -> Any:
    return np.array(values, dtype=np.str_)


def read_items(lines: Sequence[Line], how: Format) -> tuple[Item, ...]:
    """The texts of those lines that hold any."""
    return tuple(_item(_logs(line), how) for line in lines if line.get("arguments"))


def _item(line: Logs, how: Format) -> Item:
    question, choices = _shown(line, how)
    item = Item(str(line["doc_id"]), line.asked[0][0], question, choices, _gold(line, how))
    arguments = pack_arguments(line.listed, item)
    return replace(item, arguments=arguments) if arguments else item


def _shown(line: Logs, how: Format) -> tuple[str, tuple[str, ...]]:
    """The question and the choices: as qeval wrote them, else as the prompts tell."""
    doc = line["doc"] if how.ours else {}
    if "question" in doc and "choices" in doc:
        return str(doc["question"]), tuple(map(str, doc["choices"]))
    scored, prompt = how.output_type in SCORED, line.asked[0][0]
    question = prompt.rpartition(how.fewshot_delimiter)[2] if scored else prompt
    choices = _continuations(line, how) if scored else ()
    return str(doc.get("question", question)), tuple(map(str, doc.get("choices", choices)))


def _answer(path: Path, line: Line, how: Format) -> tuple[str, tuple[float, ...]]:
    """The answer (a choice's index, a text) and the log-likelihoods of the choices."""
    if how.output_type == "generate_until":
        told = line.get("answer") if how.judged else None
        return (generated_text(line["filtered_resps"]) if told is None else str(told)), ()
    if how.output_type == "loglikelihood_rolling":
        return "", ()
    scores = tuple(float(response[0][0]) for response in line["resps"])
    _check_likelihoods(path, line, scores)
    _check_likelihoods(path, line, _filtered_scores(line))
    if "answer" in line and how.judged:
        return str(line["answer"]), scores[: len(line["doc"].get("choices") or scores)]
    if how.output_type == "loglikelihood":
        greedy = str(line["resps"][0][0][1]) == "True"
        return (_logs(line).asked[0][1] if greedy else ""), scores
    choices = choices_of(line, how)
    return str(answered_choice(how.metric, choices, scores)), scores[: len(choices)]


def _filtered_scores(line: Line) -> list[float]:
    """The log-likelihoods that a filter left, which lm-eval's metrics judge; none where it left
    other things."""
    left = line.get("filtered_resps") or ()
    pairs = [one for one in left if isinstance(one, list) and len(one) == 2]  # noqa: PLR2004 - a pair
    try:
        return [float(one[0]) for one in pairs]
    except (TypeError, ValueError):
        return []


def _check_likelihoods(path: Path, line: Line, scores: Sequence[float]) -> None:
    """Raises QevalError for a log-likelihood that cannot be, and where no choice has any."""
    bad = next((score for score in scores if math.isnan(score) or score == math.inf), None)
    if bad is not None:
        what = f"a log-likelihood that is not a number ({bad})"
    elif max(scores, default=0.0) > _ROUNDING:
        what = f"a log-likelihood above 0 ({max(scores):g})"
    elif len(scores) > 1 and max(scores) == -math.inf:
        what = "no finite log-likelihood, so nothing tells its choices apart"
    else:
        return
    raise QevalError(
        f"{path}: item {line['doc_id']} has {what}.",
        "The model gave none there: run lm_eval again, for instance with another dtype.",
    )


def _logs(line: Line) -> Logs:
    return line if isinstance(line, Logs) else Logs(line)


def _continuations(line: Line, how: Format) -> list[str]:
    """What was scored; those asked without a context (mutual information) repeat the others. Where one
    continuation follows several contexts (Winogrande), the contexts are the choices."""
    asked = _logs(line).asked
    half = len(asked) // 2
    twice = len(asked) % 2 == 0 and asked and asked[0][0] and not any(context for context, _ in asked[half:])
    contexts, texts = zip(*(asked[:half] if twice else asked), strict=True)
    if len(texts) > 1 and len(set(texts)) == 1 and len(set(contexts)) > 1:
        return [context.rpartition(how.fewshot_delimiter)[2] for context in contexts]
    return list(texts)


def choices_of(line: Line, how: Format) -> list[str]:
    """The choices themselves, without the delimiter in front."""
    return [text.removeprefix(how.target_delimiter) for text in _continuations(line, how)]


def _gold(line: Line, how: Format) -> str:
    if how.output_type == "loglikelihood_rolling":
        return ""
    if how.ours and "gold" in line:
        return str(line["gold"])
    target = str(line.get("target", ""))
    if how.output_type != "multiple_choice":
        return gold_text(read_target(target) if target.startswith("[") else target)
    choice = read_target(target)
    return gold_text(choice, choices_of(line, how) if isinstance(choice, str) else ())


def sample_lines(samples: Samples, items: Mapping[str, Item], how: Format, chosen: str) -> Iterator[Line]:
    """What `read_samples` and `read_items` read: each item once for each filter, in lm-eval's order.

    Of a run that kept no more than its answers there is a line for the filter `chosen` alone, without the
    texts that the model wrote. The document's own fields are not kept: `doc` holds question and choices.
    """
    logs = [_log(samples, place, how, chosen) for place in range(len(samples))]
    for name in dict.fromkeys(name for log in logs for name in log.filters):
        for place, log in enumerate(logs):
            if name in log.filters:
                yield _line(samples, place, items.get(str(samples.key[place])), how, log, name, chosen)


def _line(
    samples: Samples, place: int, item: Item | None, how: Format, log: Logged, name: str, chosen: str
) -> Line:
    key, gold = str(samples.key[place]), str(samples.gold[place])
    target = log.target if log.target is not None else target_text(gold, how.output_type)
    metrics = log.filters[name].metrics
    texts = samples.written[place]
    judged = tuple(text for some in log.responses for text in some) if texts else ()
    number = reading.whole(key)
    return {
        "doc_id": number if number is not None and str(number) == key else key,
        "doc": {"question": item.question, "choices": list(item.choices)} if item else {},
        "target": target,
        "arguments": arguments_table(arguments_of(item)) if item else {},
        "resps": log.responses,
        "filtered_resps": log.filters[name].answers,
        "filter": name,
        "metrics": list(metrics),
        **{hash_: str(getattr(samples, hash_)[place]) for hash_ in HASHES},
        **({"answer": str(samples.answer[place])} if name == chosen else {}),
        **({"gold": gold} if log.target is not None else {}),
        **({WRITTEN: list(texts)} if name == chosen and texts != judged else {}),
        **({CLUSTER: str(samples.cluster[place])} if samples.cluster[place] else {}),
        **metrics,
    }


def _log(samples: Samples, place: int, how: Format, chosen: str) -> Logged:
    """What was kept of an item, or of an earlier version's run what its columns tell."""
    texts = samples.written[place]
    if samples.logged[place]:
        return unpack(samples.logged[place], samples.scores[place], texts)
    answers = _answers(samples, place, how)
    responses = [list(texts)] if how.output_type == "generate_until" else [[answer] for answer in answers]
    metrics = {how.metric: _value(samples, place, how)} if samples.weight[place] else {}
    return Logged(responses, {chosen: Filtered(answers, metrics)})


def _value(samples: Samples, place: int, how: Format) -> float | list[float]:
    value = float(samples.value[place])
    return [value, float(samples.weight[place])] if how.pairs else value


def _answers(samples: Samples, place: int, how: Format) -> list[Any]:
    """What a filter left, of which no more is known than the columns of scores and answers."""
    if how.output_type == "loglikelihood_rolling":
        return [str(float(samples.value[place]))]
    if how.output_type == "generate_until":
        return [str(samples.answer[place])]
    scores = [[str(score)] for score in samples.scores[place]]
    if how.output_type == "loglikelihood":
        return [[*score, str(bool(samples.answer[place]))] for score in scores]
    return scores
