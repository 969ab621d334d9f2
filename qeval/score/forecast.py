"""How long a variant will take, phase by phase, from counts of tokens and a device's rate.

The figures of an H100 and its host are those of benchmarks/RESULTS.md. Other GPUs are taken to reach the same
share of their published peak, which is an estimate; a CPU's rate is measured on the spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from qeval.base.packing import Packing
from qeval.base.work import Counted, Work
from qeval.load.rates import GPUS, Gpu
from qeval.load.spec import SchemeSpec

if TYPE_CHECKING:
    from qeval.score.probe import Parts

Phases = dict[str, float]
"""Seconds by phase, as `score.clock` calls them."""
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_INNER = ("intermediate_size", "ffn_dim", "n_inner")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_GROUPS = ("num_key_value_heads", "num_kv_heads")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Shape:
    """A model's arithmetic: `body` is the weights that each token is multiplied with, `width` the size of a
    token's vector, `inner` that within a layer, `vocabulary` how many tokens there are; `heads` of attention
    share the keys of `groups`."""

    body: float
    width: int
    inner: int
    layers: int
    vocabulary: int
    heads: int = 1
    groups: int = 1

    @property
    def passed(self) -> float:
        """The weights that a pass reads, however few its tokens are."""
        return self.body + self.width * self.vocabulary

    def flops(self, work: Work, *, attention: float = 1.0, head: float = 1.0) -> float:
        """Operations of some work; those of attention and of the head count so many times, where they run
        slower."""
        products = 2.0 * self.body * (work.fed + work.written)
        seen = 4.0 * self.width * self.layers * work.seen
        return products + attention * seen + head * 2.0 * self.width * self.vocabulary * work.scored


def shape(config: Mapping[str, Any], count: float) -> Shape | None:
    """The shape of a model of `count` weights by its configuration; None where that does not tell."""
    text = config.get("text_config") or config
    width, layers = _first(text, _WIDTH), _first(text, _LAYERS)
    vocabulary = _first(text, ("vocab_size",))
    if not (count and width and layers and vocabulary):
        return None
    inner = _first(text, _INNER) or 4 * width
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    body = max(count - (1 if tied else 2) * width * vocabulary, count / 2)
    experts, taken = _first(text, _EXPERTS), _first(text, ("num_experts_per_tok",)) or 1
    if experts > taken:
        each = 3.0 * width * (_first(text, ("moe_intermediate_size",)) or inner) * layers
        body = max(body - (experts - taken) * each, count / 50)
    heads = _first(text, _HEADS) or 1
    return Shape(body, width, inner, layers, vocabulary, heads, _first(text, _GROUPS) or heads)


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    found = next((config[name] for name in names if config.get(name)), 0)
    return max(map(int, found)) if isinstance(found, list | tuple) else int(found)


@dataclass(frozen=True)
class Speed:
    """What a device and its host do in a second, and what they take once. `flops` is the engine's rate with
    its body `compiled` and as it is; `plain` that of batches one after the other; operations of `attention`
    and of the `head` take so many times as long. A pass reads weights of `reading` bytes in a second, and
    fidelity does so many operations of heads whose logits are `compared`.
    Seconds: `imports` and `further` of a first and a further worker, `within` of what a further one imports
    while it reads its questions, `opening` of loading beside reading `bytes_` a second, `check`
    and `compiling` the first time and later, `row` of lm-eval for each row that it verifies, `layer` of
    Python for each layer of a pass. `slow` is how many times longer Python takes than on an idle machine.
    `how` says where the rate comes from."""

    flops: float
    compiled: float
    plain: float
    attention: float
    imports: float
    further: float
    opening: float
    bytes_: float
    check: tuple[float, float]
    compiling: tuple[float, float]
    row: float
    layer: float
    costs: float
    how: str
    gpu: bool = True
    slow: float = 1.0
    head: float = 1.0
    reading: float = inf
    compared: float = inf
    within: float = 0.0

    def seconds(self, model: Shape, work: Work, rate: float) -> float:
        """Seconds of some work at a rate, in one pass or in so many that each is long."""
        return model.flops(work, attention=self.attention, head=self.head) / rate


H100 = Speed(
    flops=430e12,
    compiled=570e12,
    plain=340e12,
    attention=2.0,
    imports=15.0,
    further=1.0,
    opening=1.0,
    bytes_=7e9,
    check=(4.8, 2.7),
    compiling=(4.5, 1.2),
    row=0.8,
    layer=0.5e-3,
    costs=1.3,
    how="measured on an H100",
)
"""By "Where the time of the main job goes", "What a GPU does while the engine scores" and "The scoring
engine on an H100"."""
TREE_OF_CHECK = 0.4
"""How much of what the self-check feeds one by one its tree does on a GPU: those requests share a lot."""
OPENING_PASSES = 3
"""Short passes by which the engine finds out where a model's head begins."""
FLOAT = 4
"""Bytes of a weight that a CPU calculates with, if nothing else is asked for."""
GPU_SHARE, GPU_COMPILED = 0.62, 0.82
"""Of what bare products reach on a GPU, what the engine does: 430 and 570 of 695 TFLOP/s on an H100."""


def of_gpu(gpu: Gpu) -> Speed:
    """The speed of a GPU that need not be here: an H100's, or by its share of the published peak."""
    part = gpu.peak / GPUS["h100"].peak
    how = H100.how if gpu.measured else "an estimate: an H100's share of this GPU's published peak"
    return _scaled(H100, part, how)


def of_gpu_here(products: float) -> Speed:
    """The speed of a GPU here of which no peak is known, by the rate of bare products."""
    part = GPU_COMPILED * products / H100.compiled
    return _scaled(H100, part, "an estimate, by a short measurement of this GPU")


def _scaled(speed: Speed, part: float, how: str) -> Speed:
    from dataclasses import replace

    rates = {name: part * getattr(speed, name) for name in ("flops", "compiled", "plain")}
    return replace(speed, **rates, how=how)


def of_cpu(parts: Parts, imports: float, free: float = 1.0, *, further: float | None = None) -> Speed:
    """The speed of this machine's CPU by the rates of a model's parts on an idle one, by what a worker's
    imports took, and by the share of it that is `free`. `further`: what a further worker takes before its
    questions, which imports each library when it is used; None: as much as the first."""
    rate = parts.body * free
    further = imports if further is None else further
    return Speed(
        flops=rate,
        compiled=rate,
        plain=rate,
        attention=parts.body / parts.attention,
        imports=imports,
        further=further,
        opening=1.0,
        bytes_=1e9,
        check=(0.0, 0.0),
        compiling=(0.0, 0.0),
        row=0.3,
        layer=0.0,
        costs=0.0,
        how="by a short measurement of this CPU, and what else runs on it",
        gpu=False,
        slow=1 / free,
        head=parts.body / parts.head,
        reading=parts.reading * free,
        compared=parts.compared * free,
        within=imports - further,
    )


# --- seconds


_BUILDING = (2.0, 0.1, 4.5e6)
"""Seconds of the tokenizer and of each leaf task, and tokens a second, where questions are built."""
_READING = (2.0, 0.0, 4e7)
"""The same where they are read from the cache."""
_STORING = 0.03  # seconds of a leaf task
_HASHING = 0.1
_GPTQ, _AWQ, _MADE_WEIGHTS = 69.0, 26.0, 6.5e9
"""Seconds that an H100 takes to quantise so many weights with the usual calibration."""
USUAL_TOKENS = 128 * 2048
"""Of that calibration for GPTQ."""
_PASSES = 2.5
"""How often GPTQ passes each token through a block, those counted by their part that end at a layer."""
_COLUMN = 0.15e-3  # seconds of a CPU for each column of a layer that GPTQ's solver takes
_SEARCHED = 26.0
"""Operations of AWQ's search for each weight and token: its seconds on an H100, at 128 x 512 tokens."""
_STEP = 0.03  # seconds of a token of each text of a batch that a GPU writes
_TEXTS = 32


def questions(work: Work, leaves: int, *, first: bool) -> float:
    """Seconds until the questions are there: built for the first variant, read by the others."""
    base, each, rate = _BUILDING if first else _READING
    return base + each * leaves + work.tokens / rate


def scoring(work: Work, model: Shape, speed: Speed, packing: Packing) -> float:
    """Seconds of the engine for a row, or for all."""
    rate = speed.compiled if packing.compiled else speed.flops
    passes = work.fed / max(packing.budget, 1)
    written = _STEP * work.written / _TEXTS if speed.gpu else 0.0
    return speed.seconds(model, work, rate) + passes * model.layers * speed.layer + written


def after_questions(
    counted: Counted,
    model: Shape,
    speed: Speed,
    packing: Packing,
    *,
    weights: int,
    spec: SchemeSpec,
    made: bool,
    leaves: int,
    first: bool,
    calibrated: int = USUAL_TOKENS,
) -> Phases:
    """Seconds of every phase that follows the questions. `weights` are the bytes that are read, and `made`
    tells whether the variant is quantised first, with so many `calibrated` tokens of text."""
    turn = 0 if first else 1
    verified = speed.seconds(model, counted.verifying, speed.plain)
    found = {
        "hashing": _HASHING,
        "loading": speed.slow * (speed.opening + weights / speed.bytes_)
        + _quantised(model, speed, spec, calibrated if made else 0),
        "checking": speed.slow * speed.check[turn] + checking(counted, model, speed),
        "compiling": speed.compiling[turn] if packing.compiled else 0.0,
        "scoring": scoring(counted.scoring, model, speed, packing),
        "verifying": verified + speed.slow * speed.row * len(counted.rows) if counted.verifying.fed else 0.0,
        "storing": speed.slow * _STORING * leaves,
        "costs": speed.costs if first else 0.0,
    }
    return {name: seconds for name, seconds in found.items() if seconds}


def checking(counted: Counted, model: Shape, speed: Speed) -> float:
    """Seconds of the passes of the engine's check. On a CPU most are so short that they take what reading
    all weights takes."""
    if speed.gpu:
        share = 1 / speed.plain + TREE_OF_CHECK / speed.flops
        return speed.seconds(model, counted.checking, 1.0) * share
    plain = counted.checking.and_(counted.batched)
    passes = plain.requests + OPENING_PASSES
    tree = speed.seconds(model, counted.tree, speed.flops)
    return speed.seconds(model, plain, speed.plain) + tree + passes * FLOAT * model.passed / speed.reading


def _quantised(model: Shape, speed: Speed, spec: SchemeSpec, calibrated: int) -> float:
    """Seconds of quantising while or before the weights are loaded."""
    if calibrated and not speed.gpu:
        return (
            _searched(model, speed, calibrated) if spec.name == "awq" else _solved(model, speed, calibrated)
        )
    if calibrated:
        usual = _AWQ if spec.name == "awq" else _GPTQ
        return usual * model.body / _MADE_WEIGHTS * H100.flops / speed.flops
    return model.body / 5e9 if spec.quantised and speed.gpu else 0.0


def _solved(model: Shape, speed: Speed, tokens: int) -> float:
    """Seconds of GPTQ on a CPU: the passes, the sums over what enters the four groups of layers of a block,
    and the solver, which takes column after column."""
    sums = 2.0 * tokens * model.layers * (3 * model.width**2 + model.inner**2)
    columns = model.layers * (6 * model.width + model.inner)
    return (_PASSES * 2.0 * model.body * tokens + sums) / speed.flops + speed.slow * _COLUMN * columns


def _searched(model: Shape, speed: Speed, tokens: int) -> float:
    """Seconds of AWQ on a CPU."""
    return _SEARCHED * model.body * tokens / speed.flops


def whole(
    counted: Counted, leaves: int, speed: Speed, rest: Phases, *, first: bool, spent: Phases | None = None
) -> Phases:
    """Seconds of a worker's whole life; `spent` are phases whose seconds are known already."""
    begin = {
        "imports": speed.imports if first else speed.further,
        "questions": speed.slow * questions(counted.scoring, leaves, first=first)
        + (0.0 if first else speed.within),
    }
    return {**begin, **(spent or {}), **rest}
