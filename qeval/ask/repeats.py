"""What an order scores once more: the baseline by another path, and schemes quantised with other seeds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qeval.ask.order import Order
from qeval.base.errors import UsageError
from qeval.base.records import Scheme, Variant
from qeval.base.repeats import name_again, name_of_seed
from qeval.base.settings import Settings
from qeval.load.toy import is_toy

if TYPE_CHECKING:
    from qeval.load.spec import SchemeSpec

_OTHER_ENGINE = {"tree": "plain", "plain": "tree", "lm-eval": "plain"}
_OTHER_BATCH = 6
"""What stands for "auto", which is 4, 8 or 16 by device and engine (qeval/score)."""


@dataclass(frozen=True)
class Repeat:
    """The variant called `of`, scored once more as `variant` under `settings`. `by_path`: the same weights by
    another path, in a random order of items; else quantised with another seed, by the path of all others."""

    of: str
    variant: Variant
    settings: Settings
    by_path: bool


def repeats(order: Order, refused: Collection[str] = ()) -> tuple[Repeat, ...]:
    """What is to be scored once more, the baseline first; nothing of variants that are `refused`.

    Raises UsageError where schemes are to be quantised again and no seed acts on any of them.
    """
    base = [one for one in order.variants if one.name == order.baseline]
    by_path = tuple(_by_path(order, one) for one in base if order.repeat_baseline)
    return (*by_path, *(_by_any_seed(order, refused) if order.repeat_quantisation else ()))


def _by_any_seed(order: Order, refused: Collection[str]) -> tuple[Repeat, ...]:
    why = nothing_to_repeat(order, refused)
    seeded = [one for one in order.variants if one.name not in refused and one.name not in why]
    if not seeded:
        raise UsageError(
            "--repeat-quantisation has nothing to repeat: no seed has an effect on any of these variants.",
            f"{'; '.join(dict.fromkeys(why.values()))}.",
        )
    return tuple(repeat for variant in seeded for repeat in _by_seeds(order, variant))


def _by_path(order: Order, variant: Variant) -> Repeat:
    settings = replace(
        order.settings,
        engine=_OTHER_ENGINE[order.settings.engine],
        batch_size=_other_batch(order.settings.batch_size),
    )
    return Repeat(variant.name, replace(variant, name=name_again(variant.name)), settings, by_path=True)


def _other_batch(asked: str) -> str:
    """Another number of sequences in a batch; half as many, so that they fit."""
    if asked == "auto":
        return str(_OTHER_BATCH)
    return str(int(asked) // 2 if int(asked) > 1 else 2)


def _by_seeds(order: Order, variant: Variant) -> tuple[Repeat, ...]:
    """The variant with each of the next seeds after its own."""
    from qeval.load.schemes import SCHEMES

    spec, scheme = SCHEMES[variant.scheme.kind], variant.scheme
    first = int(spec.complete(scheme.options)["seed"]) + 1
    return tuple(
        Repeat(
            variant.name,
            replace(variant, name=name_of_seed(variant.name, seed), scheme=_with_seed(scheme, spec, seed)),
            order.settings,
            by_path=False,
        )
        for seed in range(first, first + order.repeat_quantisation)
    )


def _with_seed(scheme: Scheme, spec: SchemeSpec, seed: int) -> Scheme:
    """The scheme with this seed, its options in the order in which they are always written."""
    options = {**scheme.options, "seed": seed}
    return replace(scheme, options={name: options[name] for name in spec.defaults if name in options})


def nothing_to_repeat(order: Order, refused: Collection[str] = ()) -> dict[str, str]:
    """Why quantising a variant again would give the same weights, in a clause by the variant's name; nothing
    of those on which a seed acts, and nothing at all where nobody asked."""
    if not order.repeat_quantisation:
        return {}
    found = {one.name: _unseeded(one) for one in order.variants if one.name not in refused}
    return {name: why for name, why in found.items() if why}


def _unseeded(variant: Variant) -> str:
    from qeval.load.schemes import SCHEMES

    kind = variant.scheme.kind
    if not SCHEMES[kind].seeded:
        return f"no seed acts on {kind}"
    if is_toy(variant.model):
        return ""
    from qeval.load.resolve import resolve

    ready = resolve(variant).ready
    if ready is None:
        return ""
    return f"{variant.name} reads the ready checkpoint {ready.path}"
