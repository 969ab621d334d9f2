"""The nouns of qeval, frozen.

A score is always sum(value) / sum(weight) over items, and higher is better. For accuracies value
is 0 or 1 and weight 1. For perplexities value is the log-likelihood of a document in nats and weight
its number of words, bytes or tokens; only a report turns the score s back into exp(-s).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qeval.base.costs import Cost
from qeval.base.packing import Packing
from qeval.base.scored import Scored
from qeval.base.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Option = bool | int | float | str
Kind = Literal["accuracy", "score", "perplexity"]
"""accuracy: each item 0 or 1. score: each item continuous, higher is better. perplexity: see above."""
Level = Literal["task", "subtask", "pooled", "macro", "average"]
"""task: one task of the suite. subtask: a member of a group (an MMLU subject). pooled: a group, items
weighted equally. macro: the unweighted mean of a group's members. average: the suite's mean."""
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Tier = Literal["required", "advisory"]


@dataclass(frozen=True)
class Scheme:
    """A way to hold weights. `kind` is a key of `qeval.load.schemes.SCHEMES`; `options` are only those the
    user wrote; `checkpoint` and `revision` name a ready checkpoint (Hub id or local directory)."""

    kind: str
    options: dict[str, Option] = field(default_factory=dict)
    checkpoint: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Variant:
    """A model held in a scheme, under the name that tables show."""

    name: str
    model: str
    scheme: Scheme
    revision: str | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Task:
    """What is asked: an lm-eval task (or group, in a suite) and the metric that judges it.

    `limit` is the largest number of items, None for all. `group` names the group that a member came
    from ("mmlu"). `chance` is the score of random guessing, None where unknown. `category` sorts the
    members of a group (MMLU: STEM, humanities, social sciences, other).
    """

    name: str
    metric: str
    filter: str = "none"
    num_fewshot: int | None = None
    limit: int | None = None
    kind: Kind = "accuracy"
    group: str | None = None
    category: str | None = None
    chance: float | None = None

    @property
    def filtered(self) -> bool:
        """Whether the model's answers go through a filter before they are judged."""
        return self.filter not in ("", "none")


@dataclass(frozen=True)
class Suite:
    """Tasks with a name. `average` lists the row ids (see Comparison.task) whose mean is the suite's
    average; perplexities never belong to it."""

    name: str
    tasks: tuple[Task, ...]
    average: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, eq=False)
class Samples:
    """The scored items of one task, as columns of equal length n in the order of the documents.

    key: (n,) str, the document's number in its split, unique. doc_hash, prompt_hash, target_hash: (n,) str,
    lm-eval's own hashes. value, weight: (n,) float64. cluster: (n,) str, items that share a text ("" where an
    item stands alone). answer, gold: (n,) str, the model's and the right answer: the index of a choice, or
    generated text ("" for perplexities). scores: (n,) object, for each item a tuple of floats, the
    log-likelihood of each choice in nats (empty where there are none). written: (n,) object, tuples of all
    that the model wrote, before any filter. logged: (n,) object, str: what else lm-eval logs (base.logged).
    """

    key: NDArray[np.str_]
    doc_hash: NDArray[np.str_]
    prompt_hash: NDArray[np.str_]
    target_hash: NDArray[np.str_]
    value: NDArray[np.float64]
    weight: NDArray[np.float64]
    cluster: NDArray[np.str_]
    answer: NDArray[np.str_]
    gold: NDArray[np.str_]
    scores: NDArray[np.object_]
    written: NDArray[np.object_] = None  # type: ignore[assignment] # empty if not given
    logged: NDArray[np.object_] = None  # type: ignore[assignment] # empty if not given

    def __post_init__(self) -> None:
        for name, nothing in (("written", ()), ("logged", "")):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.scores.copy())
                getattr(self, name).fill(nothing)

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True)
class Item:
    """What an item looked like to the model, for a person to read; the same for every variant.

    `prompt` is the whole text given, `question` only its last part (without few-shot examples), `choices` the
    continuations that were scored, `arguments` what else was asked (see base.logged): all untrusted text.
    """

    key: str
    prompt: str
    question: str
    choices: tuple[str, ...] = ()
    gold: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Cell:
    """One Variant scored on one leaf Task: the unit that is stored, resumed and never computed twice.

    `n_available` is the number of items of the whole split. `score` is sum(value) / sum(weight). `metrics`
    holds every per-item metric's mean that lm-eval defines for the task. `truncated` counts requests cut on
    the left to fit the model. `tokens` were fed in `seconds` of scoring. `dataset` says where it all is from.
    `files` maps file name to SHA-256; it is empty for an aggregate-only cell (a published score without
    items). `provenance` is kept in the cell's own file, so that a cell taken over by a later run still says
    what made it; a Run's list of cells leaves it out. `unproved` are sentences on what nobody knows or proved
    of it; with any it never passes. `texts` counts the texts behind the items, shared ones once; None where
    nobody looked (older versions). `output_type` is lm-eval's word for how it asks, "" if not kept. `scored`
    says by what; None in what older versions stored, and imports. Two cells may be equal that differ in it.
    `conditions`: how an imported cell was asked, by name, which must agree (compare.conditions).
    """

    key: str
    task: Task
    n: int
    n_available: int
    score: float
    metrics: dict[str, float] = field(default_factory=dict)
    task_version: str = ""
    dataset: str = ""
    truncated: int = 0
    tokens: int = 0
    seconds: float = 0.0
    files: dict[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    unproved: tuple[str, ...] = ()
    texts: int | None = None
    output_type: str = ""
    scored: Scored | None = field(default=None, compare=False)
    conditions: dict[str, str] = field(default_factory=dict)

    @property
    def limited(self) -> bool:
        """Whether fewer items were scored than there are."""
        return self.n < self.n_available

    @property
    def aggregate_only(self) -> bool:
        """Whether only the score is known, not the items."""
        return not self.files


Read = Callable[[Cell], Samples]
"""Gives the samples of a stored cell."""
ReadItems = Callable[[Cell], Mapping[str, Item]]
"""Gives the items of a stored cell, by key."""


ENOUGH_QUANTISED = 0.6  # the least share of its weights by which a model bears the name of a scheme


@dataclass(frozen=True)
class Provenance:
    """What was truly loaded and how it was scored, read from the live objects.

    `revision` is the resolved commit; `fingerprint` a hash of the weight files. `quantization` is the
    checkpoint's or the loaded model's own configuration. `modules` counts quantised modules by class;
    `linears` counts all linear modules. `bits_per_weight` includes scales and zeros, over the quantised
    layers alone; `quantised_share` is their part of all weights but those of embeddings and head, and
    `bits_overall` the bits of a weight over the whole model, those included. `weight_bytes` is the size of
    all parameters and buffers as a checkpoint holds them. `engine` is the path that scored ("tree", "kv",
    "head", "plain", "lm-eval"), `engine_note` what its check found. `placement` is "streamed" where
    weights reached the device layer by layer, "2 GPUs" where they lay on two, empty where one held them.
    `notes` are sentences that a reader of the report must see, `warnings` those a gate prints too.
    """

    model: str
    revision: str | None = None
    fingerprint: str | None = None
    architecture: str = ""
    dtype: str = ""
    quantization: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, int] = field(default_factory=dict)
    linears: int = 0
    bits_per_weight: float | None = None
    weight_bytes: int = 0
    device: str = ""
    engine: str = ""
    engine_note: str = ""
    materialized: bool = False
    batch_size: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    quantised_share: float | None = None
    bits_overall: float | None = None
    placement: str = ""

    @property
    def mostly_plain(self) -> bool:
        """Whether less than 60% of the weights are quantised: the scheme's name promises too much then."""
        return self.quantised_share is not None and self.quantised_share < ENOUGH_QUANTISED


@dataclass(frozen=True)
class Stop:
    """Scoring ended early: on the row `task`, `rule` was certainly broken after `items` of `of` items."""

    task: str
    rule: Rule
    items: int
    of: int


@dataclass(frozen=True)
class Result:
    """One Variant scored on one Suite. A failed or stopped variant keeps the cells it finished, and the
    error or the stop that ended it.

    `again` is the same variant scored a second time by another path, `seeds` its scheme quantised with other
    seeds. They tell how far numbers move by themselves, and are never candidates (qeval.base.repeats).
    `packing` is how its requests were fed, None where nothing was loaded. `seconds` are those of the process
    that scored it last, by phase, its whole life together; empty where it did not come to its end.
    `variant_digest` is the hash of what the variant of an unfinished result is, by which its cells are known.
    """

    variant: Variant
    status: Literal["done", "failed", "partial", "stopped"]
    cells: tuple[Cell, ...] = ()
    provenance: Provenance | None = None
    cost: Cost | None = None
    error: str | None = None
    stop: Stop | None = None
    again: Result | None = None
    seeds: tuple[Result, ...] = ()
    packing: Packing | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    variant_digest: str = ""


@dataclass(frozen=True)
class Run:
    """Several Variants of one model scored on one Suite: what one `qeval run` makes.

    `baseline` names the variant that the others are compared with. `created` is ISO 8601 UTC.
    `command` is the argument list that made it. `source` is "qeval" or says what it was imported from.
    `qeval_version` lists with commas the versions that scored it, the one that did last behind the others;
    where its cells tell, these and no others. `left_out`: perplexities that the average was to have.
    """

    id: str
    created: str
    model: str
    suite: Suite
    baseline: str
    results: tuple[Result, ...]
    settings: Settings = field(default_factory=Settings)
    command: tuple[str, ...] = ()
    source: str = "qeval"
    qeval_version: str = ""
    schema: int = 1
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on one row: a task, a group's member or a mean.

    `task` is the row's id: the task's name; for a group "mmlu" (pooled: every item counts the same) and
    "mmlu_macro" (the unweighted mean of its members); "average" for the suite's mean. `baseline`,
    `candidate`, `delta` = candidate - baseline and the interval [low, high] at the two-sided `confidence` are
    scores as in this module's head. `method` names the interval. `losses` and `gains` count right-to-wrong
    and wrong-to-right answers (accuracy only), `flips` all that changed. `p`: two-sided, of no difference.
    `n` pairs of items are behind it; where some share a text, `texts` counts those independent units.
    """

    variant: str
    task: str
    metric: str
    kind: Kind
    level: Level
    n: int
    n_available: int
    baseline: float
    candidate: float
    delta: float
    low: float
    high: float
    confidence: float
    method: str
    losses: int | None = None
    gains: int | None = None
    flips: int | None = None
    p: float | None = None
    chance: float | None = None
    group: str | None = None
    category: str | None = None
    notes: tuple[str, ...] = ()
    texts: int | None = None

    @property
    def limited(self) -> bool:
        """Whether fewer items were paired than the task has."""
        return self.n < self.n_available


@dataclass(frozen=True)
class Rule:
    """What loss is allowed, for the rows whose id matches the glob `tasks`, for the variants whose name
    matches `variants`. Exactly one of the limits is set: `max_drop` in percentage points, `min_recovery` as
    candidate / baseline, `max_ppl_ratio`, `max_flips` as a share of items; and of fidelity, where `tasks`
    matches a protocol, `max_kl` in nats and `min_top1_agreement` as a share of positions. A rule that is not
    `required` to concern anybody may match no row and no variant of a run."""

    tasks: str = "*"
    variants: str = "*"
    metric: str | None = None
    max_drop: float | None = None
    min_recovery: float | None = None
    max_ppl_ratio: float | None = None
    max_flips: float | None = None
    confidence: float = 0.95
    tier: Tier = "required"
    required: bool = True
    max_kl: float | None = None
    min_top1_agreement: float | None = None


@dataclass(frozen=True)
class Policy:
    """The rules of a gate, and what it forgives; every forgiveness is printed wherever a verdict is.

    `ungated` names tasks that no rule need judge. The others let pass: runs with a limit, what is undecided,
    variants of different models, variants that nothing proves to be of one model, a candidate whose numbers
    are the baseline's own, and one whose scheme left most of its weights plain."""

    rules: tuple[Rule, ...]
    allow_limited: bool = False
    allow_inconclusive: bool = False
    source: str = ""
    allow_different_models: bool = False
    allow_unproved_model: bool = False
    allow_identical: bool = False
    ungated: tuple[str, ...] = ()
    allow_unquantised: bool = False


@dataclass(frozen=True)
class Decision:
    """A Rule applied to one row of one variant. `status` is a verdict, or "MISSING" where nothing can be
    judged. `comparison` carries the very interval that decided; `allowed` is the loss allowed in the
    comparison's unit, so that PASS is low > -allowed and FAIL high < -allowed; for a limit on flips the
    comparison is of agreement, 1 for the baseline. `items_needed_more` items, `items_needed_total` in all,
    would probably decide it. `culprit`: it fails even after Holm's correction. `reason` is for a person."""

    rule: Rule
    variant: str
    task: str
    status: Literal["PASS", "FAIL", "INCONCLUSIVE", "MISSING"]
    reason: str
    comparison: Comparison | None = None
    allowed: float | None = None
    items_needed_more: int | None = None
    items_needed_total: int | None = None
    culprit: bool = False
