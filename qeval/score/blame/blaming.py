"""Which part of a variant's divergence comes from where: groups of modules swapped into the baseline, one by
one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qeval.base import uses
from qeval.base.errors import QevalError, UsageError
from qeval.base.places import COMPILED
from qeval.base.protocols import Protocol
from qeval.base.records import Variant
from qeval.load import model as models
from qeval.load.reading import proof
from qeval.load.schemes import SCHEMES
from qeval.score.blame import groups as grouping
from qeval.score.blame.groups import By, Group
from qeval.score.blame.swapping import Boundaries, swapped
from qeval.score.engine.body import CausalModel
from qeval.score.engine.materialize import can_materialize, compute_in_own_dtype, materialize
from qeval.score.fidelity import heads, streams
from qeval.score.fidelity.passes import usual_batch
from qeval.score.harness.door import longest

Say = Callable[[str], None]
BUDGET = 0.25
"""Bits a weight, over the whole model, that the suggested modules may add."""
_PLAIN_BITS = 16


@dataclass(frozen=True)
class Blame:
    """A group with its divergence (nats) alone, its weights, and the bits of each (None where unknown);
    `words` are those of skip_modules that leave it plain."""

    name: str
    kl: float
    weights: int
    bits: float | None
    words: tuple[str, ...]

    @property
    def added(self) -> float:
        """The bits that leaving it plain adds, over all of its weights."""
        return 0.0 if self.bits is None else self.weights * max(0.0, _PLAIN_BITS - self.bits)


@dataclass(frozen=True)
class Blamed:
    """What came of it: the groups, the most to blame first; the divergence of all together (`whole`) and of a
    swap of nothing (`control`); how many weights the model has, and its bits of a weight over all of them.
    `suggested` are the names of the groups to leave plain, in order, and `words` what to write for it; empty
    where the scheme has no such option. `predicted` is what is then left of the whole."""

    variant: str
    baseline: str
    by: By
    protocol: str
    n: int
    groups: tuple[Blame, ...]
    whole: float
    control: float
    weights: int
    bits: float | None
    suggested: tuple[str, ...] = ()
    words: str = ""
    predicted: float | None = None

    @property
    def total(self) -> float:
        """The sum over groups."""
        return sum(one.kl for one in self.groups)


@dataclass(frozen=True)
class Question:
    """What is asked: a variant and its baseline, by which protocol, on what, and how many bits may be
    added."""

    baseline: Variant
    variant: Variant
    by: By
    protocol: Protocol
    device: str
    dtype: str
    cache_dir: Path
    datasets_dir: Path | None
    budget: float = BUDGET


def blame(question: Question, say: Say) -> Blamed:
    """Swap each group of the variant's modules into the baseline. Raises QevalError for models that are not
    built alike, and where a swap of nothing is not exactly nothing."""
    uses.hold(question.cache_dir / COMPILED)
    say("loading the baseline")
    base = _loaded(question, question.baseline)
    say("loading the variant")
    other = _loaded(question, question.variant)
    names = grouping.differing(base.model, other.model)
    costs = {name: _cost(question, other.model, name) for name in names}
    quantised = [name for name in names if proof.is_quantised(other.model.get_submodule(name))]
    model = _plain(other.model)
    lm = CausalModel(base.model)
    heads.check_causal(lm)
    stream = streams.stream_of(
        question.protocol, base.tokenizer, question.datasets_dir, longest(lm.config, base.tokenizer)
    )
    blocks, layers = grouping.blocks_of(base.model)
    linears = {name for name, module in base.model.named_modules() if proof.is_linear(module)}
    found = grouping.grouped(names, blocks, question.by, linears)
    say(f"the baseline's states on {question.protocol.name}, {stream.n} positions")
    states = Boundaries(lm, layers, stream, usual_batch(lm, stream))
    control = _control(states, len(layers) - 1)
    with swapped(base.model, model, names):
        whole = states.divergence(None)
    words = {group.name: grouping.skip_words(group, quantised, blocks, question.by) for group in found}
    rows = [_blame(group, words[group.name], costs, states, (base.model, model, say)) for group in found]
    rows.sort(key=lambda one: -one.kl)
    made = Blamed(
        variant=question.variant.name,
        baseline=question.baseline.name,
        by=question.by,
        protocol=question.protocol.name,
        n=stream.n,
        groups=tuple(rows),
        whole=whole,
        control=control,
        weights=sum(parameter.numel() for parameter in base.model.parameters()),
        bits=other.provenance.bits_overall,
    )
    return with_suggestion(made, question)


def _control(states: Boundaries, last: int) -> float:
    """The divergence of a swap of nothing, at the first layer and at the last, in nats. Raises QevalError
    where it is not exactly 0."""
    control = states.divergence(None), states.divergence(last)
    if any(control):
        raise QevalError(
            f"A swap of nothing is {max(control):.3g} nats from the baseline, where it must be nothing.",
            "The model does not give the same numbers twice, so blame cannot be assigned to its modules.",
        )
    return max(control)


def _loaded(question: Question, variant: Variant) -> models.Loaded:
    return models.load(
        variant,
        device=question.device,
        dtype=question.dtype,
        cache_dir=question.cache_dir,
        datasets_dir=question.datasets_dir,
    )


def _plain(model: Any) -> Any:
    """The variant with plain layers where that changes no number, as it is scored."""
    compute_in_own_dtype(model)
    return materialize(model)[0] if can_materialize(model) else model


def _cost(question: Question, model: Any, name: str) -> tuple[int, float | None]:
    """The weights of a module and the bits of each; none where it is not quantised."""
    module = model.get_submodule(name)
    if not proof.is_quantised(module):
        return 0, None
    spec = SCHEMES[question.variant.scheme.kind]
    return proof.weights_of(module) or 0, proof.bits_per_weight({name: module}, spec.beside)


def _blame(
    group: Group,
    words: tuple[str, ...],
    costs: dict[str, tuple[int, float | None]],
    states: Boundaries,
    pair: tuple[Any, Any, Say],
) -> Blame:
    base, model, say = pair
    with swapped(base, model, group.modules):
        kl = states.divergence(group.block)
    say(f"{group.name}: {kl:.3g} nats")
    known = [costs[name] for name in group.modules if costs[name][1] is not None]
    weights = sum(count for count, _ in known)
    bits = sum(count * (each or 0.0) for count, each in known) / weights if weights else None
    return Blame(group.name, kl, weights, bits, words)


def with_suggestion(found: Blamed, question: Question) -> Blamed:
    """The same with the groups whose plain weights gain most for their bits, as many as the budget holds, if
    the scheme can leave modules out and quantises here."""
    scheme = question.variant.scheme
    able = "skip_modules" in SCHEMES[scheme.kind].defaults and scheme.checkpoint is None
    left = question.budget * found.weights
    taken: list[Blame] = []
    for one in sorted(found.groups, key=lambda one: -one.kl / max(one.added, 1e-9)):
        if one.added and one.kl > 0 and one.added <= left:
            taken.append(one)
            left -= one.added
    gone = sum(one.kl for one in taken) / found.total if found.total > 0 else 0.0
    words = "+".join(word for one in taken for word in one.words)
    return replace(
        found,
        suggested=tuple(one.name for one in taken),
        words=words if able else "",
        predicted=found.whole * (1 - gone) if taken else None,
    )


def check(question: Question) -> None:
    """Raise UsageError for a protocol that needs answers first."""
    if question.protocol.kind == "trace":
        raise UsageError("Blame cannot follow traces.", "Use prose, wikitext-2048[windows=4] or text:FILE.")
