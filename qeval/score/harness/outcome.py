"""From a model's answers to scored items, by lm-eval's own filters and process_results."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.logged import Logged, pack, pack_arguments
from qeval.base.records import Item, Samples
from qeval.score.engine.requests import Answer
from qeval.score.harness.metrics import aggregation_names
from qeval.score.harness.prepared import Outcome, PreparedTask
from qeval.score.harness.rounds import Round, logged, mean_of
from qeval.score.harness.rules import (
    ASKED_TWICE,
    answered_choice,
    generated_text,
    gold_text,
    target_text,
    weighed,
)
from qeval.score.harness.starts import ONE_START, totals_with_one_start
from qeval.score.harness.tame import lm_eval_tamed
from qeval.score.harness.writing import Text, as_text
from qeval.store.clusters import clusters


def collect(
    prepared: PreparedTask,
    answers: Sequence[Answer] | Sequence[Text] | Sequence[str],
    one_start: Sequence[Answer] = (),
    *,
    partly: bool = False,
) -> Outcome:
    """The items of a task, scored.

    `answers` are one Answer for each of `prepared.requests`, or, where the task generates, the texts that
    `generate` returned; filters see their answers without thinking. `one_start` are those to
    `starts.with_one_start`, if any were asked. `partly`: some are stand-ins, so that only the scores of the
    others are wanted; then nobody looks which items share a text, nor what they looked like. Raises
    QevalError for an answer that is no finite number, naming the item.
    """
    with lm_eval_tamed():
        view = prepared.view()
        rounds = [_round(prepared, view, responses) for responses in _rounds(prepared, answers)]
        samples = _samples(prepared, view, rounds, _texts(prepared, answers))
        metrics = mean_of([dict(_metrics(view, one.judged)) for one in rounds])
        if one_start:
            totals = totals_with_one_start(prepared, answers, one_start)
            pairs = zip(prepared.content.docs(), totals, strict=True)
            rows = {prepared.task.filter: [view.process_results(doc, [total]) for doc, total in pairs]}
            metrics |= {key.replace(",", f"{ONE_START},"): value for key, value in _metrics(view, rows)}
    if partly:
        return Outcome(samples, metrics)
    made = items(prepared)
    return Outcome(replace(samples, cluster=_clusters(prepared, samples, made)), metrics, made)


def _clusters(prepared: PreparedTask, samples: Samples, made: Sequence[Item]) -> Any:
    """Which items share a text; documents that are read from end to end are texts themselves."""
    rolling = prepared.output_type == "loglikelihood_rolling"
    return clusters(samples, {} if rolling else {item.key: item for item in made}, prepared.content.docs())


def _rounds(prepared: PreparedTask, answers: Sequence[Any]) -> list[list[Any]]:
    """The responses of each round; where nothing is written there is one."""
    if not prepared.generates:
        return [_responses(prepared, answers)]
    texts = [as_text(text).answer for text in answers]
    every, together = prepared.texts, prepared.repeats
    return [
        [texts[at : at + together] for at in range(first, len(texts), every)]
        for first in range(0, every, together)
    ]


def _round(prepared: PreparedTask, view: Any, responses: Sequence[Any]) -> Round:
    groups = _filtered(prepared, view, responses)
    judged = {
        name: [view.process_results(doc, results) for doc, results in rows]
        for name, rows in _results(prepared, groups).items()
    }
    return Round(groups, judged)


def _responses(prepared: PreparedTask, answers: Sequence[Any]) -> list[Any]:
    """What each question got: (log-likelihood, greedy), or a log-likelihood."""
    content = prepared.content
    spans = content.spans.tolist()
    rolling = prepared.output_type == "loglikelihood_rolling"
    out: list[Any] = []
    for at in range(len(spans) - 1):
        some: Sequence[Answer] = answers[spans[at] : spans[at + 1]]
        total = sum(answer.loglikelihood for answer in some)
        if not math.isfinite(total):
            raise QevalError(
                f"Item {content.owner[at]} of task {prepared.task.name!r} scored {total}.",
                "The model's logits are not finite: try another dtype or scheme.",
            )
        out.append(total if rolling else (total, some[0].greedy))
    return out


def _filtered(prepared: PreparedTask, view: Any, responses: Sequence[Any]) -> list[list[Any]]:
    """lm-eval's instances with their responses, filtered, document by document."""
    content = prepared.content
    docs = content.docs()
    groups: list[list[Any]] = [[] for _ in docs]
    for owner, arguments, response in zip(content.owner, content.arguments(), responses, strict=True):
        mates = groups[owner]
        mates.append(_instance(prepared, int(owner), docs[owner], arguments, len(mates), response))
    instances = [instance for mates in groups for instance in mates]
    for ensemble in view._filters:  # noqa: SLF001 - lm-eval gives no other way to them
        ensemble.apply(instances)
    return groups


def _instance(prepared: PreparedTask, owner: int, doc: Any, arguments: Any, idx: int, response: Any) -> Any:
    from lm_eval.api.instance import Instance

    kind = prepared.output_type if prepared.output_type != "multiple_choice" else "loglikelihood"
    instance = Instance(kind, doc, arguments, idx, (prepared.task.name, owner, prepared.repeats))
    instance.resps = list(response) if prepared.generates else [response] * prepared.repeats
    return instance


def _results(
    prepared: PreparedTask, groups: Sequence[Sequence[Any]]
) -> dict[str, list[tuple[Any, list[Any]]]]:
    """For each filter each document with its filtered responses."""
    docs = prepared.content.docs()
    return {
        name: [
            (doc, [instance.filtered_resps[name] for instance in mates])
            for doc, mates in zip(docs, groups, strict=True)
        ]
        for name in groups[0][0].filtered_resps
    }


def _metrics(view: Any, judged: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, float]]:
    """Every metric of every filter, aggregated by lm-eval's own functions."""
    from lm_eval.api.metrics import mean

    for name, rows in judged.items():
        values: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            for metric, value in row.items():
                values[metric].append(value)
        for metric, some in values.items():
            yield f"{metric},{name}", float(view.aggregation().get(metric, mean)(some))


def _samples(
    prepared: PreparedTask,
    view: Any,
    rounds: Sequence[Round],
    written: Sequence[tuple[str, ...]],
) -> Samples:
    import numpy as np
    from lm_eval.utils import handle_non_serializable

    content, metric = prepared.content, prepared.task.metric
    how = aggregation_names(view)[metric]
    judged = [[weighed(row.get(metric), how) for row in one.judged[prepared.task.filter]] for one in rounds]
    pairs = np.array(judged, dtype=np.float64).reshape(len(rounds), -1, 2).mean(axis=0)
    _check(prepared, pairs[:, 0])
    said = [
        _said_in_all(prepared, view, mates) for mates in zip(*(one.groups for one in rounds), strict=True)
    ]
    gold = [_gold(prepared, view, doc) for doc in content.docs()]
    scores, texts, logged = (np.empty(len(said), dtype=object) for _ in range(3))
    scores[:] = [choices for _, choices in said]
    texts[:] = written
    logged[:] = [
        pack(log, scores[at], texts[at], handle_non_serializable)
        for at, log in enumerate(_logs(prepared, view, rounds, gold))
    ]
    return Samples(
        key=np.array([str(at) for at in range(len(said))]),
        doc_hash=np.array(content.doc_hash),
        prompt_hash=np.array(content.prompt_hash),
        target_hash=np.array(content.target_hash),
        value=pairs[:, 0].copy(),
        weight=pairs[:, 1].copy(),
        cluster=np.array([""] * len(said)),
        answer=np.array([answer for answer, _ in said], dtype=np.str_),
        gold=np.array(gold, dtype=np.str_),
        scores=scores,
        written=texts,
        logged=logged,
    )


def _texts(prepared: PreparedTask, answers: Sequence[Any]) -> list[tuple[str, ...]]:
    """What the model wrote for each item, whole."""
    found: list[list[str]] = [[] for _ in prepared.content.doc_hash]
    if prepared.generates:
        for at, text in enumerate(answers):
            found[prepared.content.owner[at // prepared.texts]].append(as_text(text).whole)
    return [tuple(texts) for texts in found]


def _logs(
    prepared: PreparedTask, view: Any, rounds: Sequence[Round], gold: Sequence[str]
) -> Iterator[Logged]:
    """What lm-eval logs of each item beside its columns."""
    for at, doc in enumerate(prepared.content.docs()):
        target = str(view.doc_to_target(doc))
        known = target == target_text(gold[at], prepared.output_type)
        yield logged(rounds, at, None if known else target)


def _check(prepared: PreparedTask, values: Any) -> None:
    """Raises QevalError for values that the task's kind cannot have."""
    import numpy as np

    task = prepared.task
    if np.isnan(values).any():
        raise QevalError(
            f"Item {np.isnan(values).argmax()} of task {task.name!r} is judged {task.metric} = nan.",
            "lm-eval's own mean would be no number either; choose another metric.",
        )
    if task.kind == "accuracy" and not ((values == 0) | (values == 1)).all():
        raise QevalError(
            f"The metric {task.metric!r} of task {task.name!r} gives values between 0 and 1.",
            "Please report this; choose another metric meanwhile.",
        )


def _said(prepared: PreparedTask, view: Any, mates: Sequence[Any]) -> tuple[str, tuple[float, ...]]:
    """The model's answer to an item and the log-likelihoods of its choices."""
    kind = prepared.output_type
    if kind == "multiple_choice":
        scores = tuple(float(instance.resps[0][0]) for instance in mates)
        choices = view.doc_to_choice(mates[0].doc)
        return str(answered_choice(prepared.task.metric, choices, scores)), scores[: len(choices)]
    if kind == "loglikelihood":
        likelihood, greedy = mates[0].resps[0]
        return (str(mates[0].arguments[1]) if greedy else ""), (float(likelihood),)
    if kind == "generate_until":
        return generated_text(mates[0].filtered_resps[prepared.task.filter]), ()
    return "", ()


def _said_in_all(
    prepared: PreparedTask, view: Any, rounds: Sequence[Sequence[Any]]
) -> tuple[str, tuple[float, ...]]:
    """The model's answer to an item, or its answers in all rounds, and the log-likelihoods of its choices."""
    said = [_said(prepared, view, mates) for mates in rounds]
    return " | ".join(answer for answer, _ in said), said[0][1]


def _gold(prepared: PreparedTask, view: Any, doc: Any) -> str:
    """The right answer: the index of a choice (several joined by commas), or a text."""
    kind = prepared.output_type
    if kind == "loglikelihood_rolling":
        return ""
    if kind == "multiple_choice":
        several = getattr(view, "multiple_input", False)
        target = view.doc_to_text(doc) if several else view.doc_to_target(doc)
        return gold_text(target, view.doc_to_choice(doc))
    target = view.doc_to_target(doc)
    if kind == "generate_until" and isinstance(target, int) and view.config.doc_to_choice:
        target = view.doc_to_choice(doc)[target]
    return gold_text(target)


def items(prepared: PreparedTask) -> tuple[Item, ...]:
    """What each item looked like, for a person to read."""
    content = prepared.content
    asked: list[list[Any]] = [[] for _ in content.doc_hash]
    for owner, arguments in zip(content.owner, content.arguments(), strict=True):
        asked[owner].append(arguments)
    with lm_eval_tamed():
        view = prepared.view()
        return tuple(_item(prepared, view, at, doc, asked[at]) for at, doc in enumerate(content.docs()))


def _item(prepared: PreparedTask, view: Any, at: int, doc: Any, asked: Sequence[Any]) -> Item:
    prompt = str(asked[0][0])
    scored = prepared.output_type in {"multiple_choice", "loglikelihood"}
    choices = [str(arguments[1]) for arguments in asked] if scored else []
    if scored and ASKED_TWICE in view.aggregation():
        choices = choices[: len(choices) // 2]
    if getattr(view, "multiple_input", False) and prepared.output_type == "multiple_choice":
        choices = [str(choice) for choice in view.doc_to_choice(doc)]
    item = Item(str(at), prompt, _question(view, doc, prompt), tuple(choices), _gold(prepared, view, doc))
    return replace(item, arguments=pack_arguments(asked, item))


def _question(view: Any, doc: Any, prompt: str) -> str:
    """The prompt without few-shot examples: what the task makes of this document alone."""
    text = view.doc_to_text(doc)
    return text if isinstance(text, str) and text else prompt.rsplit("\n\n", 1)[-1]
