"""Which results of lm-eval belong to one variant, and what to call it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qeval.base.errors import UsageError
from qeval.exchange.lm_eval.results import ResultsFile


def by_variant(found: Sequence[ResultsFile], wanted: str | None) -> dict[str, list[ResultsFile]]:
    """The results of each variant under its name, in the order of names.

    A model with its arguments is a variant. Its name is `wanted`, or the last part of the model's name, with
    what differs in the arguments where that is not unique.

    Raises UsageError for several models where a name is given.
    """
    by_model: dict[str, list[ResultsFile]] = {}
    for results in found:
        by_model.setdefault(_model_key(results), []).append(results)
    names = _names(by_model, wanted)
    return {names[key]: by_model[key] for key in sorted(by_model, key=names.__getitem__)}


def _model_key(results: ResultsFile) -> str:
    """Whatever tells one variant from another: the model and its arguments."""
    return json.dumps([results.model_name, results.config.get("model_args")], sort_keys=True)


def _names(by_model: Mapping[str, Sequence[ResultsFile]], wanted: str | None) -> dict[str, str]:
    if wanted is not None:
        if len(by_model) > 1:
            raise UsageError(
                f"There are results of {len(by_model)} models, and one name: {wanted!r}.",
                "Import them one directory at a time.",
            )
        return dict.fromkeys(by_model, wanted)
    short = {key: some[0].model_name.rstrip("/").rpartition("/")[2] for key, some in by_model.items()}
    names: dict[str, str] = {}
    for key, base in short.items():
        twins = [other for other in short if short[other] == base]
        names[key] = base if len(twins) == 1 else f"{base}[{_difference(key, twins)}]"
    return names


def _difference(key: str, twins: Sequence[str]) -> str:
    """The arguments in which one model differs from its namesakes, or its place among them."""
    mine, *others = (
        arguments_of(json.loads(twin)[1]) for twin in (key, *(other for other in twins if other != key))
    )
    own = {name: value for name, value in mine.items() if any(other.get(name) != value for other in others)}
    return ",".join(f"{name}={value}" for name, value in own.items()) or str(sorted(twins).index(key) + 1)


def arguments_of(model_args: Any) -> dict[str, str]:
    """The arguments that a model was loaded with, from a table or from "name=value,..." of older versions."""
    if isinstance(model_args, dict):
        return {name: str(value) for name, value in model_args.items()}
    pairs = (part.partition("=") for part in str(model_args or "").split(",") if part)
    return {name: value for name, _, value in pairs}
