"""What one task is once its prompts are built and tokenised: plain data, no lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qeval.base.records import Item, Samples, Task
from qeval.score.engine.requests import TokenRequest
from qeval.score.harness.thinking import Thinking

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Docs = Sequence[Mapping[str, Any]]
Arguments = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Content:
    """The n documents of a task, the q questions put to the model and the r token requests for them.

    `docs()`: the n documents as lm-eval's process_results takes them. `features`: the columns of the data
    set. doc_hash, prompt_hash, target_hash: n hashes each, as lm_eval.evaluate logs them. `owner`: (q,)
    the position of each question's document. `arguments()`: q tuples as lm-eval hands them to a model:
    (context, continuation), (text,) or (context, generation options). `spans`: (q + 1,) question j has
    the requests spans[j] to spans[j + 1]: one, or a window each for a rolling log-likelihood, or none if
    it generates. `truncated` counts the requests that were cut on the left.
    """

    docs: Callable[[], Docs]
    features: tuple[str, ...]
    doc_hash: tuple[str, ...]
    prompt_hash: tuple[str, ...]
    target_hash: tuple[str, ...]
    owner: NDArray[np.int32]
    arguments: Callable[[], Sequence[Arguments]]
    spans: NDArray[np.int64]
    requests: tuple[TokenRequest, ...]
    truncated: int
    n_available: int


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A leaf task ready to be scored, and what `collect` needs to make Samples of the answers.

    `task` is the leaf with metric, filter, few-shot count, kind and chance filled in. `n` items will be
    scored of `n_available`. `dataset` says where the items came from. `requests` are the token requests
    of all items in order, empty where the task `generates`. `truncated` requests were cut on the left
    to fit `max_length`. `output_type` is lm-eval's. `view()` is lm-eval's task object over the documents.
    `asked` is the hash of all that can change a score but the model; see `asked.asked`. `frame` is what the
    chat template sets before each text whose perplexity is measured inside it. `notes` are sentences, without
    the task's name, on what a reader must know. `thinking` are the markers of what is written before an
    answer, `options` what was asked of the writing beside the task's own. lm-eval judges `repeats` texts of a
    question together; an item's value is the mean over `rounds` of them.
    """

    task: Task
    n: int
    n_available: int
    version: str
    dataset: str
    requests: tuple[TokenRequest, ...]
    truncated: int
    generates: bool
    output_type: str
    max_length: int
    repeats: int
    content: Content
    view: Callable[[], Any] = field(repr=False)
    asked: str = ""
    frame: str = ""
    notes: tuple[str, ...] = ()
    thinking: Thinking = field(default_factory=Thinking)
    options: dict[str, Any] = field(default_factory=dict)
    rounds: int = 1

    @property
    def texts(self) -> int:
        """How many texts are written for each question, if any are: all rounds of its repeats."""
        return self.repeats * self.rounds


@dataclass(frozen=True, eq=False)
class Outcome:
    """A task's scored items, every metric that lm-eval defines for it as "metric,filter" -> value, and what
    the items looked like."""

    samples: Samples
    metrics: dict[str, float]
    items: tuple[Item, ...] = ()
