"""The shape of lm-eval's results, filled from what another tool says of a task and its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLES, WRITER = "samples", "written_by"
"""Where a results table holds samples, and the name of the tool that it is from."""
PACKAGES = "packages"
"""Where a results table of another tool has the versions of that tool and of what it used."""
UNPROVED = "unproved"
"""Where a task's configuration has sentences on what its samples do not prove."""


@dataclass(frozen=True)
class Told:
    """A task as another tool tells of it. `means` go by (metric, filter), as do `errors`, their standard
    errors; `lines` are samples in lm-eval's shape, None where there are none; `counts`: the items of the
    whole task ("original") and those scored ("effective"), where they are known."""

    means: Mapping[tuple[str, str], float]
    errors: Mapping[tuple[str, str], float] = field(default_factory=dict)
    lines: Sequence[Mapping[str, Any]] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    rises: Mapping[str, bool] = field(default_factory=dict)
    num_fewshot: int | None = None
    version: Any = ""


def as_results(
    tasks: Mapping[str, Told],
    *,
    writer: str,
    model: str,
    arguments: Mapping[str, Any],
    packages: Mapping[str, Any],
    date: str = "",
    groups: Mapping[str, Sequence[str]] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """lm-eval's table of results, with the samples in it."""
    lines = {name: list(told.lines) for name, told in tasks.items() if told.lines is not None}
    return {
        WRITER: writer,
        PACKAGES: {name: str(version) for name, version in packages.items()},
        "results": {name: _metrics(told) for name, told in tasks.items()},
        "group_subtasks": {name: list(below) for name, below in (groups or {}).items()},
        "configs": {name: {"task": name, **told.config} for name, told in tasks.items()},
        "versions": {name: told.version for name, told in tasks.items()},
        "n-shot": {name: told.num_fewshot for name, told in tasks.items()},
        "n-samples": {name: dict(told.counts) for name, told in tasks.items()},
        "higher_is_better": {name: dict(told.rises) for name, told in tasks.items()},
        "config": {"model": writer, "model_args": {"pretrained": model, **arguments}, **config},
        "date": date,
        "model_name": model,
        "model_source": writer,
        SAMPLES: lines,
    }


def _metrics(told: Told) -> dict[str, float]:
    means = {f"{metric},{name}": value for (metric, name), value in told.means.items()}
    return means | {f"{metric}_stderr,{name}": value for (metric, name), value in told.errors.items()}
