"""What was truly loaded, told by the loaded model itself, and refused where it is not what was asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qeval.base import numbers
from qeval.base.errors import QevalError
from qeval.base.records import ENOUGH_QUANTISED, Provenance, Scheme, Variant
from qeval.load.demo import NOTE as DEMO_NOTE
from qeval.load.device import device_name
from qeval.load.resolve import Meant
from qeval.load.source import DEMO
from qeval.load.spec import Recipe, SchemeSpec
from qeval.load.versions import versions

if TYPE_CHECKING:
    from qeval.load.reading.proof import Weights

CPU_NOTE = (
    "On this CPU, which is slow in 16-bit arithmetic, plain weights are rounded to {store} and calculated in"
    " float32; --dtype {store} calculates in {store} too."
)


def provenance(variant: Variant, meant: Meant, recipe: Recipe, spec: SchemeSpec, model: Any) -> Provenance:
    """The account of a loaded model. Raises QevalError where nothing came out quantised, and where the
    model's own configuration contradicts an option that the user wrote."""
    from qeval.load.reading import proof

    modules = proof.quantised_modules(model)
    weights = meant.identity(recipe.cache_dir)
    found = Provenance(
        model=meant.weights.path,
        revision=weights.get("commit") or weights.get("package"),
        fingerprint=weights.get("files"),
        architecture=type(model).__name__,
        dtype=_dtype(recipe),
        quantization=proof.quantization_of(model, modules),
        modules=proof.class_counts(modules),
        linears=proof.linear_count(model),
        bits_per_weight=proof.bits_per_weight(modules, spec.beside),
        weight_bytes=proof.weight_bytes(model, recipe.store, spec.beside),
        device=device_name(recipe.device),
        versions=versions(*(package.distribution for package in spec.packages), "lm_eval"),
    )
    counted = proof.count_weights(model, modules) if spec.quantised else None
    found = replace(found, **_shares(found, recipe, counted))
    _check_quantised(variant, spec, found, recipe)
    check_options(variant.scheme, spec, found.quantization, recipe)
    notes = (*recipe.notes, *_notes(variant, recipe, found))
    warnings = (*_mostly_plain(variant, found, counted), *recipe.warnings)
    return replace(found, notes=tuple(dict.fromkeys(notes)), warnings=tuple(dict.fromkeys(warnings)))


def _shares(found: Provenance, recipe: Recipe, counted: Weights | None) -> dict[str, Any]:
    """What the loader told as evidence, with how much of the model is quantised, and its bits over all."""
    import torch

    told = dict(recipe.evidence)
    share, bits = told.get("quantised_share"), told.get("bits_per_weight", found.bits_per_weight)
    if counted is None or not counted.body:
        return told
    if share is None and found.modules:
        share = counted.quantised / counted.body
    plain = 8 * getattr(torch, recipe.store).itemsize
    if share is not None and bits is not None and "bits_overall" not in told:
        whole = counted.body + counted.ends
        told["bits_overall"] = plain + (bits - plain) * share * counted.body / whole
    return {**told, "quantised_share": share}


def _mostly_plain(variant: Variant, found: Provenance, counted: Weights | None) -> Iterator[str]:
    """What is said first of a model of which too little is quantised."""
    if not found.mostly_plain or found.quantised_share is None:
        return
    kinds: Counter[str] = Counter()
    for name, count in (counted.plain if counted else {}).items():
        kinds[re.sub(r"\.\d+(?=\.)", ".*", name)] += count
    most = f", most of them in {kinds.most_common(1)[0][0]}" if kinds else ""
    share = numbers.percent(found.quantised_share, 0, (ENOUGH_QUANTISED,))
    yield (
        f"ONLY {share} OF THE WEIGHTS ARE QUANTISED (embeddings and head apart): in"
        f" {variant.name} the others are plain{most}."
    )


def _dtype(recipe: Recipe) -> str:
    same = recipe.store == recipe.compute
    return recipe.store if same else f"{recipe.store} weights, {recipe.compute} compute"


def _notes(variant: Variant, recipe: Recipe, found: Provenance) -> Iterator[str]:
    if variant.model == DEMO:
        yield DEMO_NOTE
    if "compute" in found.dtype and recipe.device == "cpu":
        yield CPU_NOTE.format(store=recipe.store)


def _check_quantised(variant: Variant, spec: SchemeSpec, found: Provenance, recipe: Recipe) -> None:
    """Refuse a model of which nothing is quantised."""
    if spec.quantised and not found.modules:
        raise QevalError(
            f"{variant.name} was asked for, but no module of {recipe.source.path} came out quantised.",
            "Its layers may all be excluded, or of a kind that the library does not know.",
        )


def check_options(scheme: Scheme, spec: SchemeSpec, quantization: dict[str, Any], recipe: Recipe) -> None:
    """Refuse a model whose own configuration contradicts an option that the user wrote."""
    for option, key in spec.config_keys.items():
        asked, found = scheme.options.get(option), quantization.get(key)
        if asked is None or (option, asked) == ("group_size", 0):  # 0: the one that fits
            continue
        if found != asked:
            told = f"does not tell its {key}" if found is None else f"has {key} {str(found).lower()}"
            raise QevalError(
                f"{recipe.source.path} {told}, where {option}={str(asked).lower()} was asked.",
                f"Leave out {option}, or name another checkpoint or revision.",
            )
