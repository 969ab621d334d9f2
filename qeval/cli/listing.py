"""What `qeval list` shows: schemes, suites and runs as rows of plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qeval.ask import suites
from qeval.base.errors import QevalError
from qeval.store.runs import Store

Row = dict[str, Any]


def schemes(_: Path) -> list[Row]:
    """The schemes: what each is, its options with their defaults, whether it is ready here, and what it was
    run on."""
    from qeval.base.records import Scheme
    from qeval.load.checks import check_available
    from qeval.load.schemes import SCHEMES

    rows = []
    for spec in SCHEMES.values():
        try:
            check_available(Scheme(spec.name))
            here = "ready"
        except QevalError as error:
            here = error.hint or error.message
        if spec.gpu:
            here = f"on {spec.gpu}" if here == "ready" else f"{here}; needs {spec.gpu}"
        if "unpack" in spec.defaults:
            here += f"; ready checkpoints anywhere with {spec.name}[unpack=true]"
        options = ", ".join(f"{option.name}={_text(option.default)}" for option in spec.options)
        rows.append(
            {
                "scheme": spec.name,
                "what": spec.summary,
                "options": options,
                "here": here,
                "verified": spec.verified,
            }
        )
    return rows


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def suite_rows(_: Path) -> list[Row]:
    """The suites: their tasks and what they are for."""
    rows = []
    for name in suites.names():
        suite = suites.load(name)
        tasks = ", ".join(task.name for task in suite.tasks)
        rows.append({"suite": suite.name, "tasks": tasks, "what": suite.description})
    return rows


def runs(runs_dir: Path) -> list[Row]:
    """The runs below `runs_dir`, the newest first; a damaged one says so."""
    return [_run(place) for place in Store(runs_dir).runs()]


def _run(place: Any) -> Row:
    try:
        run = place.read()
    except QevalError as error:
        return {"run": place.path.name, "model": "?", "suite": "?", "variants": error.message, "created": "?"}
    variants = ", ".join(
        result.variant.name + ("" if result.status == "done" else f" ({result.status})")
        for result in run.results
    )
    created = run.created.replace("T", " ")[:16]
    return {
        "run": run.id,
        "model": run.model,
        "suite": run.suite.name,
        "variants": variants,
        "created": created,
    }


LISTS: dict[str, Callable[[Path], list[Row]]] = {"schemes": schemes, "suites": suite_rows, "runs": runs}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table for a person."""
    import shutil

    from tabulate import tabulate

    if not rows:
        return "There is nothing yet."
    width = max(shutil.get_terminal_size((110, 20)).columns, 60)
    widths: list[int | None] = [None] * len(rows[0])
    longest = [max(len(str(row[key])) for row in rows) for key in rows[0]]
    spare = width - sum(min(n, 24) for n in longest) - 2 * len(longest)
    for place, length in enumerate(longest):
        widths[place] = min(length, 24 + max(spare, 0) * length // max(sum(longest), 1)) or None
    return str(tabulate(rows, headers="keys", maxcolwidths=widths))
