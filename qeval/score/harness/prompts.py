"""From a leaf task to its documents, prompts and token requests, all of it lm-eval's own doing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.records import Task
from qeval.score.harness import sources, tokens
from qeval.score.harness.chat import Chat
from qeval.score.harness.gold import check_answers
from qeval.score.harness.leaves import Leaf
from qeval.score.harness.metrics import chosen
from qeval.score.harness.prepared import Content, PreparedTask
from qeval.score.harness.rules import ASKED_TWICE
from qeval.score.harness.tame import lm_eval_tamed


def build(
    leaf: Leaf,
    encoder: tokens.Encoder,
    *,
    max_length: int,
    seed: int,
    chat_template: bool,
    framed: bool,
    datasets_dir: Path | None,
) -> PreparedTask:
    """The task with its prompts as `lm_eval.simple_evaluate(fewshot_random_seed=seed)` would make them.

    Raises QevalError where the data, a split, the chat template or the metric are not to be had, and where no
    document has a right answer.
    """
    with lm_eval_tamed(sources.opener(leaf, datasets_dir)):
        lm_task = _loaded(leaf)
        task = chosen(leaf.task, lm_task)
        _refuse(lm_task, task.name)
        chat = Chat(encoder.hflm)
        instances = _instances(lm_task, task, chat if chat_template else None, seed)
        frame = chat.frame() if framed and lm_task.OUTPUT_TYPE == "loglikelihood_rolling" else ""
        content = _content(lm_task, instances, encoder, max_length, task.name, frame)
        check_answers(lm_task, content.docs(), task.name)
        split = lm_task.config.test_split or lm_task.config.validation_split
        path = str(leaf.config.get("dataset_path") or "")
        commit = sources.commit_of(getattr(lm_task, "dataset", None), path, datasets_dir)
        dataset = sources.describe(leaf, split, datasets_dir, content.doc_hash, commit)
    return PreparedTask(
        task=replace(
            task, chance=task.chance if task.chance is not None else _chance(task, lm_task, content)
        ),
        n=len(content.doc_hash),
        n_available=content.n_available,
        version=str(lm_task.VERSION),
        dataset=dataset,
        requests=content.requests,
        truncated=content.truncated,
        generates=instances[0].request_type == "generate_until",
        output_type=str(lm_task.OUTPUT_TYPE),
        max_length=max_length,
        repeats=int(instances[0].repeats or 1),
        content=content,
        view=viewer(leaf, task, lm_task, content),
        frame=frame,
        notes=tuple(chat.notes(framed=bool(frame))),
    )


def _loaded(leaf: Leaf) -> Any:
    """lm-eval's task object. A split that only few-shot examples come from may be missing at 0 shots."""
    config = deepcopy(leaf.config)
    config["num_fewshot"] = leaf.task.num_fewshot
    try:
        return _constructed(config)
    except KeyError as error:
        spare = [key for key in ("training_split", "fewshot_split") if config.get(key) == error.args[0]]
        if not spare or leaf.task.num_fewshot:
            raise _no_split(leaf, error) from error
        without = {**deepcopy(leaf.config), "num_fewshot": 0, **dict.fromkeys(spare)}
        try:
            return _constructed(without)
        except KeyError as again:
            raise _no_split(leaf, again) from again


def _constructed(config: dict[str, Any]) -> Any:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._factory import _ctor_accepts_config

    try:
        if "class" not in config:
            return ConfigurableTask(config=config)
        kind = config["class"]
        lm_task = kind(config=config) if _ctor_accepts_config(kind) else kind()
        if hasattr(getattr(lm_task, "config", None), "task"):
            lm_task.config.task = config["task"]
    except (QevalError, KeyError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise QevalError(
            f"lm-eval cannot set up the task {config['task']!r}: {what}.",
            "Install what it names, or leave the task out."
            if isinstance(error, ImportError)
            else "Correct its YAML, or leave the task out.",
        ) from error
    return lm_task


def _no_split(leaf: Leaf, error: KeyError) -> QevalError:
    which = error.args[0] if error.args else "?"
    path = leaf.config.get("dataset_path")
    splits = {str(leaf.config[key]) for key in leaf.config if key.endswith("_split") and leaf.config[key]}
    if which in splits:
        return QevalError(
            f"The data set {path!r} of task {leaf.task.name!r} lacks the split {which!r}.",
            "Complete the mirror, or drop it and let the Hub serve the data set.",
        )
    return QevalError(
        f"The documents of task {leaf.task.name!r} lack the field {which!r}.",
        f"The data set {path!r} is not the one that the task was written for.",
    )


def _refuse(lm_task: Any, name: str) -> None:
    """Says no to what cannot be scored from text alone, or would run what a model wrote."""
    if getattr(lm_task, "UNSAFE_CODE", False):
        raise QevalError(
            f"The task {name!r} runs code that the model writes.", "qeval does not; leave it out."
        )
    if getattr(lm_task, "MULTIMODAL", False):
        raise QevalError(f"The task {name!r} needs images or sound.", "qeval scores text; leave it out.")


def _instances(lm_task: Any, task: Task, chat: Chat | None, seed: int) -> list[Any]:
    """lm-eval's requests for the first `limit` documents, in its order."""
    lm_task.set_config(key="num_fewshot", value=task.num_fewshot)
    lm_task.set_fewshot_seed(seed=seed)
    try:
        lm_task.build_all_requests(
            limit=task.limit,
            apply_chat_template=chat is not None,
            fewshot_as_multiturn=True,
            chat_template=None if chat is None else chat.apply,
            tokenizer_name="" if chat is None else chat.hflm.tokenizer_name,
        )
    except QevalError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        hint = (
            "Leave out --chat-template, or use a model whose tokenizer has one." if chat is not None else ""
        )
        raise QevalError(f"lm-eval cannot build the prompts of task {task.name!r}: {what}.", hint) from error
    instances: list[Any] = lm_task.instances
    if len({instance.request_type for instance in instances}) > 1:
        raise QevalError(
            f"The task {task.name!r} mixes two ways of asking.", "qeval cannot score that; leave it out."
        )
    return instances


def _content(
    lm_task: Any,
    instances: Sequence[Any],
    encoder: tokens.Encoder,
    max_length: int,
    name: str,
    frame: str,
) -> Content:
    import numpy as np

    firsts = {instance.doc_id: instance for instance in reversed(instances) if instance.idx == 0}
    docs = [firsts[at].doc for at in sorted(firsts)]
    arguments = [instance.args for instance in instances]
    requests, spans, truncated = _token_requests(instances, encoder, max_length, name, frame)
    return Content(
        docs=lambda: docs,
        features=tuple(getattr(lm_task, "features", ())),
        doc_hash=tuple(_hash(_json(doc)) for doc in docs),
        prompt_hash=tuple(_hash(frame + firsts[at].arguments[0]) for at in sorted(firsts)),
        target_hash=tuple(_hash(str(lm_task.doc_to_target(doc))) for doc in docs),
        owner=np.array([instance.doc_id for instance in instances], dtype=np.int32),
        arguments=lambda: arguments,
        spans=spans,
        requests=tuple(requests),
        truncated=truncated,
        n_available=len(lm_task.eval_docs),
    )


def _json(doc: Any) -> str:
    from lm_eval.utils import handle_non_serializable

    return json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)


def _hash(text: str) -> str:
    from lm_eval.utils import hash_string

    hashed: str = hash_string(text)
    return hashed


def _token_requests(
    instances: Sequence[Any], encoder: tokens.Encoder, max_length: int, name: str, frame: str
) -> tuple[list[Any], Any, int]:
    """All token requests, where each instance's begin and end among them, and how many were cut."""
    import numpy as np

    kind = instances[0].request_type
    if kind == "generate_until":
        return [], np.zeros(len(instances) + 1, dtype=np.int64), 0
    if kind == "loglikelihood_rolling":
        texts = [instance.args[0] for instance in instances]
        windows = [
            tokens.framed_requests(encoder, frame, text, max_length)
            if frame
            else tokens.rolling_requests(encoder, text, max_length)
            for text in texts
        ]
        spans = np.cumsum([0, *map(len, windows)], dtype=np.int64)
        return [window for some in windows for window in some], spans, 0
    pairs = [instance.args[:2] for instance in instances]
    requests, truncated = tokens.pair_requests(encoder, pairs, max_length, name)
    return requests, np.arange(len(instances) + 1, dtype=np.int64), truncated


def _chance(task: Task, lm_task: Any, content: Content) -> float | None:
    """The accuracy of guessing: each item has one right answer among the choices asked."""
    import numpy as np

    if task.kind != "accuracy" or lm_task.OUTPUT_TYPE != "multiple_choice" or lm_task.multiple_target:
        return None
    asked = np.bincount(content.owner)
    if ASKED_TWICE in lm_task.aggregation():
        asked = asked // 2  # each choice is asked with and without the question
    return float(np.mean(1 / asked))


class _Docs(list[Any]):
    """Documents with the one attribute of a data set that lm-eval's task looks at."""

    features: dict[str, None]


def viewer(leaf: Leaf, task: Task, lm_task: Any, content: Content) -> Callable[[], Any]:
    """A maker of lm-eval's task object over documents that are at hand: it has the task's metrics, filters
    and process_results, but loads no data. A task that is a Python class is kept as it is."""
    if "class" in leaf.config:
        return lambda: lm_task
    return lambda: _over_documents(leaf.config, task, content)


def _over_documents(config: dict[str, Any], task: Task, content: Content) -> Any:
    from lm_eval.api.task import ConfigurableTask

    docs = _Docs(content.docs())
    docs.features = dict.fromkeys(content.features)
    own = {
        "custom_dataset": lambda **_: {"documents": docs},
        "dataset_kwargs": None,
        "process_docs": None,
        "training_split": None,
        "validation_split": None,
        "test_split": "documents",
        "fewshot_split": None,
        "fewshot_config": None,
        "num_fewshot": task.num_fewshot,
    }
    with lm_eval_tamed():
        return ConfigurableTask(config={**deepcopy(config), **own})
