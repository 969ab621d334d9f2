"""What was truly loaded, told by the loaded model itself, and refused where it is not what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.records import Provenance, Scheme, Variant
from qeval.load.demo import NOTE as DEMO_NOTE
from qeval.load.device import device_name
from qeval.load.resolve import Meant
from qeval.load.source import DEMO
from qeval.load.spec import Recipe, SchemeSpec
from qeval.load.versions import versions

CPU_NOTE = (
    "On this CPU, which is slow in 16-bit arithmetic, plain weights are rounded to {store} and calculated in"
    " float32; --dtype {store} calculates in it."
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
    found = replace(found, **recipe.evidence)
    _check_quantised(variant, spec, found, recipe)
    check_options(variant.scheme, spec, found.quantization, recipe)
    notes = (*recipe.notes, *_notes(variant, recipe, found))
    return replace(found, notes=tuple(dict.fromkeys(notes)), warnings=tuple(dict.fromkeys(recipe.warnings)))


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
