"""lm-eval's own model class on a model that is loaded already: for what it writes, and to check ours."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from qeval.base.errors import QevalError
from qeval.score.engine.requests import Answer
from qeval.score.harness.prepared import PreparedTask
from qeval.score.harness.tame import lm_eval_tamed


def score_with_lm_eval(
    prepared: PreparedTask,
    model: Any,
    tokenizer: Any,
    *,
    batch_size: int = 1,
    wanted: Sequence[int] | None = None,
) -> list[Answer]:
    """What lm-eval's own HFLM says to `prepared.requests`, from their texts, with float32 log-softmax.

    `wanted` are the positions of questions (see Content), all by default; the answers come in their
    order, a rolling question giving one for each of its windows.
    """
    if prepared.frame:
        raise QevalError(
            "lm-eval cannot measure perplexity inside a chat template.", "Leave out --engine lm-eval."
        )
    with lm_eval_tamed():
        lm = hflm_of(prepared, model, tokenizer, batch_size)
        asked = instances_of(prepared)
        if wanted is not None:
            asked = [asked[at] for at in wanted]
        if prepared.output_type == "loglikelihood_rolling":
            found = [pair for instance in asked for pair in _rolled(lm, instance.args[0])]
        else:
            found = lm.loglikelihood(asked, disable_tqdm=True)
    return [Answer(float(likelihood), bool(greedy)) for likelihood, greedy in found]


def by_lm_eval_alone(
    prepared: PreparedTask, model: Any, tokenizer: Any, wanted: Sequence[int]
) -> list[Answer]:
    """What lm-eval would say by itself to the questions at `wanted`, one by one: one answer for each.

    It is told neither our tokens nor our longest sequence, but asks the model's configuration.
    """
    with lm_eval_tamed():
        lm = hflm_of(None, model, tokenizer, 1)
        every = instances_of(prepared)
        asked = [every[at] for at in wanted]
        if prepared.output_type != "loglikelihood_rolling":
            found = lm.loglikelihood(asked, disable_tqdm=True)
            return [Answer(float(likelihood), bool(greedy)) for likelihood, greedy in found]
        windows = [_rolled(lm, instance.args[0]) for instance in asked]
    return [
        Answer(sum(likelihood for likelihood, _ in some), all(greedy for _, greedy in some))
        for some in windows
    ]


def longest(config: Any, tokenizer: Any) -> int:
    """The longest sequence that lm-eval lets a model of this configuration see."""
    from lm_eval.models.huggingface import HFLM

    hflm = HFLM.__new__(HFLM)
    hflm._max_length = None  # noqa: SLF001 - as its constructor leaves it where nobody names a length
    hflm._model = SimpleNamespace(config=config)  # noqa: SLF001 - what it keeps of a model that is loaded
    hflm.tokenizer = tokenizer
    return int(hflm.max_length)


def hflm_of(prepared: PreparedTask | None, model: Any, tokenizer: Any, batch_size: int) -> Any:
    """lm-eval's model class, with the longest sequence of `prepared` or its own."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        max_length=prepared.max_length if prepared else None,
        softmax_dtype="float32",
    )


def _rolled(lm: Any, text: str) -> list[tuple[float, bool]]:
    """HFLM.loglikelihood_rolling's own steps, stopped before it adds up the windows."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    windows = get_rolling_token_windows(
        token_list=lm.tok_encode(text),
        prefix_token=lm.prefix_token_id,
        max_seq_len=lm.max_length,
        context_len=1,
    )
    asked = [(None, *make_disjoint_window(window)) for window in windows]
    answers: list[tuple[float, bool]] = lm._loglikelihood_tokens(asked, disable_tqdm=True)  # noqa: SLF001 - as it does
    return answers


def instances_of(prepared: PreparedTask) -> list[Any]:
    """lm-eval's requests for the questions of a task."""
    from lm_eval.api.instance import Instance

    content = prepared.content
    docs = content.docs()
    kind = prepared.output_type if prepared.output_type != "multiple_choice" else "loglikelihood"
    return [
        Instance(kind, docs[owner], arguments, 0, (prepared.task.name, int(owner), prepared.repeats))
        for owner, arguments in zip(content.owner, content.arguments(), strict=True)
    ]
