"""A local copy of the data sets with as many HellaSwag rows as the real one has, made of fewer.

    python benchmarks/more_rows.py MIRROR TARGET --rows 10042

Rows are taken again and again, each time with another number behind their activity's label, so that no two
questions are alike and a tree of tokens shares between them what it would share between others. For measuring
time only: the answers mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mirror", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--rows", type=int, default=10042)
    options = parser.parse_args()
    shutil.copytree(options.mirror, options.target, dirs_exist_ok=True)
    path = options.target / "Rowan" / "hellaswag" / "data" / "validation.parquet"
    path.chmod(0o644)
    known = pq.read_table(path)
    turns = [known.slice(0, min(len(known), options.rows - at)) for at in range(0, options.rows, len(known))]
    pq.write_table(pa.concat_tables([_named(table, turn) for turn, table in enumerate(turns)]), path)


def _named(table: pa.Table, turn: int) -> pa.Table:
    column = table.column_names.index("activity_label")
    labels = [f"{label} {turn}" if turn else label for label in table["activity_label"].to_pylist()]
    return table.set_column(column, table.schema.field(column), pa.array(labels, pa.string()))


if __name__ == "__main__":
    main()
