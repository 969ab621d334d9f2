"""Other ways out of a run: lm-eval's files, flat tables, and the metadata that the Hugging Face Hub reads.

Every form is a directory of files, each written whole or not at all. To add a form, write a file with a
function that yields (path below the directory, text or Arrow table), and its line in `EXPORTS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.files import write_bytes, write_text
from qeval.base.records import Read, ReadItems
from qeval.compare.evidence import Evidence
from qeval.exchange.forms.csv import to_csv
from qeval.exchange.forms.eval_results import to_eval_results
from qeval.exchange.forms.model_card import to_model_card
from qeval.exchange.forms.parquet import to_parquet
from qeval.exchange.lm_eval.writing import to_lm_eval
from qeval.exchange.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

    from qeval.exchange.source import File, Said

EXPORTS: Mapping[str, Callable[[Source], Iterator[File]]] = {
    "lm-eval": to_lm_eval,
    "csv": to_csv,
    "parquet": to_parquet,
    "model-card": to_model_card,
    "eval-results": to_eval_results,
}


def export(
    evidence: Evidence,
    read: Read,
    read_items: ReadItems,
    to: str,
    out: Path,
    *,
    url: str = "",
    tell: Callable[[str], None] = lambda _: None,
    said: Mapping[str, Said] | None = None,
) -> tuple[Path, ...]:
    """Write a run in the form `to` (a key of `EXPORTS`) below the directory `out`; returns the files.

    `out` is made where only it itself is missing. `url`, `tell` and `said` are those of `Source`.

    Raises:
        UsageError: there is no such form.
        QevalError: nothing was scored, the run lacks what the form needs, or `out` cannot be written.
    """
    make = EXPORTS.get(to)
    if make is None:
        raise UsageError(f"There is no form {to!r} to export to.", did_you_mean(to, EXPORTS))
    if not any(result.cells for result in evidence.run.results):
        raise QevalError(
            f"No variant of {evidence.run.id} is finished, so there is nothing to export."
            if any(stands.kept for stands in evidence.standing.values())
            else f"Nothing was scored in {evidence.run.id}, so there is nothing to export.",
            " ".join(evidence.unfinished) or "Make the run again.",
        )
    files = list(make(Source(evidence, read, read_items, url, tell, said or {})))
    return tuple(_put(out, name, content) for name, content in files)


def _put(out: Path, name: str, content: str | pa.Table) -> Path:
    """Write one file, its directories made below `out` only."""
    path = out / name
    if out.parent.is_dir():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QevalError(
                f"{path.parent} cannot be made: {error.strerror}.", "Name another place with -o."
            ) from error
    if isinstance(content, str):
        write_text(path, content)
    else:
        write_bytes(path, _parquet_bytes(content))
    return path


def _parquet_bytes(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
