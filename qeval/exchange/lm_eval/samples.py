"""lm-eval's lines of samples, both ways: a line of JSON an item becomes samples and texts, and the reverse.

A line that qeval wrote says more than lm-eval's: `answer`, the answer that a run keeps, `cluster`, the text
that the item shares with others (if it does), and under `doc` the question without the examples; a metric
that it lacks has weight 0, as in lm-eval's own means.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qeval.base.errors import QevalError
from qeval.base.records import Item, Samples
from qeval.exchange.lm_eval.results import AGAIN
from qeval.score.harness.rules import answered_choice, generated_text, gold_text, read_target, weighed

HASHES = ("doc_hash", "prompt_hash", "target_hash")
CLUSTER = "cluster"
_FIXED = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "answer", CLUSTER,
    *HASHES,
}  # fmt: skip
"""The fields of a line that are no metrics."""
SCORED = ("multiple_choice", "loglikelihood")
"""The output types whose continuations are given and scored, not made by the model."""
# Some readers of JSON lines take these for the end of a line too.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """How to read the lines of a task: its metric and that one's aggregation (see harness.rules), and from
    lm-eval's configuration its output type and delimiters. `ours`: qeval wrote them."""

    metric: str
    aggregation: str
    output_type: str = "multiple_choice"
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    ours: bool = False

    @property
    def pairs(self) -> bool:
        """Whether a value of the metric is a log-likelihood and its weight."""
        return self.aggregation in {"weighted_perplexity", "bits_per_byte"}


def read_lines(path: Path, data: bytes) -> list[Line]:
    """The lines of a file. Raises QevalError where it is damaged or proves nothing of what was asked."""
    try:
        lines = [json.loads(line) for line in data.decode("utf-8").split("\n") if line.strip()]
    except ValueError as error:
        raise QevalError(f"{path} is damaged: {error}.", AGAIN) from error
    for line in lines:
        lacking = [key for key in ("doc_id", *HASHES) if key not in line]
        if lacking:
            raise QevalError(
                f"{path} has samples without {lacking[0]}, so nothing proves what was asked.",
                "Run lm_eval again with --log_samples, in version 0.4.3 or later.",
            )
    return lines


def write_lines(lines: Iterable[Line]) -> str:
    """A file of them."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).translate(_LINE_ENDS)


def metric_names(line: Line) -> list[str]:
    """The metrics that a line lists, or that older versions wrote last."""
    listed = line.get("metrics")
    return [str(name) for name in listed] if listed is not None else [k for k in line if k not in _FIXED]


def read_samples(path: Path, lines: Sequence[Line], how: Format) -> Samples:
    """The lines as columns, without clusters (see `texts`). Raises QevalError where a log-likelihood is not a
    number; a value that is none stays so, and is refused when compared."""
    pairs = [weighed(line.get(how.metric), how.aggregation) for line in lines]
    values = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    answers = [_answer(path, line, how) for line in lines]
    scores = np.empty(len(lines), dtype=object)
    scores[:] = [some for _, some in answers]
    hashes = {name: _text([str(line[name]) for line in lines]) for name in HASHES}
    return Samples(
        key=_text([str(line["doc_id"]) for line in lines]),
        value=values[:, 0].copy(),
        weight=values[:, 1].copy(),
        cluster=_text([""] * len(lines)),
        answer=_text([answer for answer, _ in answers]),
        gold=_text([_gold(line, how) for line in lines]),
        scores=scores,
        **hashes,
    )


def _text(values: list[str]) -> Any:
    return np.array(values, dtype=np.str_)


def read_items(lines: Sequence[Line], how: Format) -> tuple[Item, ...]:
    """The texts of those lines that hold any."""
    return tuple(_item(line, how) for line in lines if line.get("arguments"))


def _item(line: Line, how: Format) -> Item:
    scored = how.output_type in SCORED
    prompt = _asked(line)[0][0]
    question = prompt.rpartition(how.fewshot_delimiter)[2] if scored else prompt
    if how.ours:
        question = str(line["doc"].get("question", question))
    choices = tuple(_continuations(line)) if scored else ()
    return Item(str(line["doc_id"]), prompt, question, choices, _gold(line, how))


def _answer(path: Path, line: Line, how: Format) -> tuple[str, tuple[float, ...]]:
    """The answer (a choice's index, a text) and the log-likelihoods of the choices."""
    if how.output_type == "generate_until":
        return generated_text(line["filtered_resps"]), ()
    if how.output_type == "loglikelihood_rolling":
        return "", ()
    scores = tuple(float(response[0][0]) for response in line["resps"])
    bad = next((score for score in scores if math.isnan(score) or score == math.inf), None)
    if bad is not None:
        raise QevalError(
            f"{path}: item {line['doc_id']} has a log-likelihood that is not a number ({bad}).",
            "The model gave none there: run lm_eval again, for instance with another dtype.",
        )
    if "answer" in line and how.ours:
        return str(line["answer"]), scores
    if how.output_type == "loglikelihood":
        greedy = str(line["resps"][0][0][1]) == "True"
        return (_asked(line)[0][1] if greedy else ""), scores
    choices = _choices(line, how)
    return str(answered_choice(how.metric, choices, scores)), scores[: len(choices)]


def _asked(line: Line) -> list[tuple[str, str]]:
    """(context, continuation) of each request, in order."""
    arguments = line["arguments"]
    values = arguments.values() if isinstance(arguments, dict) else arguments
    parts = [list(part.values()) if isinstance(part, dict) else list(part) for part in values]
    return [(str(part[0]), str(part[1]) if len(part) > 1 else "") for part in parts]


def _continuations(line: Line) -> list[str]:
    """What was scored; those asked without a context (mutual information) repeat the others."""
    asked = _asked(line)
    half = len(asked) // 2
    twice = len(asked) % 2 == 0 and asked and asked[0][0] and not any(context for context, _ in asked[half:])
    return [text for _, text in (asked[:half] if twice else asked)]


def _choices(line: Line, how: Format) -> list[str]:
    """The choices themselves, without the delimiter in front."""
    return [text.removeprefix(how.target_delimiter) for text in _continuations(line)]


def _gold(line: Line, how: Format) -> str:
    if how.output_type == "loglikelihood_rolling":
        return ""
    target = str(line.get("target", ""))
    if how.output_type != "multiple_choice":
        return gold_text(read_target(target) if target.startswith("[") else target)
    return gold_text(read_target(target), _choices(line, how))


def sample_lines(samples: Samples, items: Mapping[str, Item], how: Format, chosen: str) -> Iterator[Line]:
    """What `read_samples` and `read_items` read, for the filter `chosen`.

    lm-eval also logs whether each choice was the greedy one, and the document's own fields; a run keeps
    neither. `doc` holds the question and the choices instead.
    """
    for place, key in enumerate(samples.key.tolist()):
        item = items.get(key)
        weight = float(samples.weight[place])
        responses = _responses(samples, place, how)
        yield {
            "doc_id": int(key) if key.isdecimal() and str(int(key)) == key else key,
            "doc": {"question": item.question, "choices": list(item.choices)} if item else {},
            "target": _target(str(samples.gold[place]), how),
            "arguments": _arguments(item) if item else {},
            "resps": [[response] for response in responses],
            "filtered_resps": responses,
            "filter": chosen,
            "metrics": [how.metric] if weight else [],
            **{name: str(getattr(samples, name)[place]) for name in HASHES},
            "answer": str(samples.answer[place]),
            **({CLUSTER: str(samples.cluster[place])} if samples.cluster[place] else {}),
            **({how.metric: _value(samples, place, how)} if weight else {}),
        }


def _value(samples: Samples, place: int, how: Format) -> float | list[float]:
    value = float(samples.value[place])
    return [value, float(samples.weight[place])] if how.pairs else value


def _responses(samples: Samples, place: int, how: Format) -> list[Any]:
    if how.output_type == "loglikelihood_rolling":
        return [str(float(samples.value[place]))]
    if how.output_type == "generate_until":
        return [str(samples.answer[place])]
    scores = [[str(score)] for score in samples.scores[place]]
    if how.output_type == "loglikelihood":
        return [[*score, str(bool(samples.answer[place]))] for score in scores]
    return scores


def _target(gold: str, how: Format) -> str:
    """The right answer as lm-eval writes it, which writes several as a list."""
    several = how.output_type == "multiple_choice" and re.fullmatch(r"\d+(?:,\d+)+", gold)
    return f"[{gold.replace(',', ', ')}]" if several else gold


def _arguments(item: Item) -> dict[str, dict[str, str]]:
    parts: list[tuple[str, ...]] = [(item.prompt, choice) for choice in item.choices] or [(item.prompt,)]
    return {
        f"gen_args_{number}": {f"arg_{place}": text for place, text in enumerate(texts)}
        for number, texts in enumerate(parts)
    }
