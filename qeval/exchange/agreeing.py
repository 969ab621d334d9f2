"""What the rows of a table of published scores must agree on: the models, each task's metric, the average."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qeval.base.errors import UsageError, did_you_mean

Rows = Sequence[dict[str, Any]]
"""Rows of a table; once their numbers are read, each has a model ("" where none said), metric and kind."""


def with_variants(rows: Rows, name: str | None, path: Path) -> list[dict[str, Any]]:
    """The rows, each with the name of its variant: its own, or `name` where none has one.

    Raises UsageError where none has one and `name` is not given, or both are there.
    """
    named = any(row.get("variant") not in (None, "") for row in rows)
    if named and name is not None:
        raise UsageError(f"{path} names its variants, and --name does too.", "Leave --name out.")
    if not named and name is None:
        models = {str(row.get("model") or "") for row in rows} - {""}
        several = " Its models are not taken for variants." if len(models) > 1 else ""
        raise UsageError(
            f"{path} names no variant, so nothing says whose each score is.{several}",
            "Add a column `variant`; or, if all scores are of one variant, name it: qeval import "
            f"{shlex.quote(str(path))} --name NAME",
        )
    return [dict(row) if name is None else {**row, "variant": name} for row in rows]


def of_model(rows: Rows, model: str | None, path: Path) -> Rows:
    """The rows of `model`; all of them where none is chosen and they name no second one, and as those of
    `model` where they name none.

    Raises UsageError for several models where none is chosen, for rows without a model among others, and for
    a model that is none of them.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    if not any(models):
        return rows if model is None else [{**row, "model": model} for row in rows]
    if "" in models:
        at = next(at for at, row in enumerate(rows, 1) if not row["model"])
        raise UsageError(
            f"{path}, score {at} names no model where others do.", "Fill in the column `model` in every row."
        )
    if model is None:
        if len(models) > 1:
            raise UsageError(
                f"{path} has scores of {len(models)} models: {', '.join(models)}.", "Choose one with --model."
            )
        return rows
    if model not in models:
        raise UsageError(f"{path} has no scores of {model!r}.", did_you_mean(model, models))
    return [row for row in rows if row["model"] == model]


def check_metrics(rows: Rows, path: Path) -> None:
    """Raises UsageError where a task has another metric in one row than in another, or the same one in
    another direction: their difference would mean nothing."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        other = first.setdefault(row["task"], row)
        if (row["metric"], row["kind"]) != (other["metric"], other["kind"]):
            one, two = (f"{each['metric']} for {each['variant']}" for each in (other, row))
            raise UsageError(
                f"{path}: {row['task']} is judged by {one} and by {two}.",
                "Write one metric for all variants of a task, and the same higher_is_better; or give the "
                "other a task of its own.",
            )


def check_average(average: Sequence[str], rows: Rows, path: Path) -> None:
    """Raises UsageError where the average names no task, one twice, or a perplexity, which has no mean with
    scores."""
    kinds = {row["task"]: row["kind"] for row in rows}
    for name in average:
        if average.count(name) > 1:
            raise UsageError(f"{path}: average names {name!r} twice.", "Name it once.")
        if name not in kinds:
            raise UsageError(f"{path}: average names no task {name!r}.", did_you_mean(name, kinds))
        if kinds[name] == "perplexity":
            raise UsageError(
                f"{path}: average names {name!r}, a perplexity, which has no mean with scores.",
                "Leave it out of average: it is compared on its own.",
            )
