"""The example reports in reports/example: `python reports/example/render.py` renders them anew.

One is of published scores (aggregate-only), read from docs/examples; the other of a run of `make demo`
that is stored beside it, so that anybody can render it without scoring anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from qeval.base.errors import QevalError
from qeval.base.files import write_text
from qeval.base.records import Cell, Read, ReadItems, Run
from qeval.compare.evidence import gather
from qeval.exchange import scores
from qeval.report.context import build
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown
from qeval.store import runs as store
from qeval.store.reader import reader as reading

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "reports" / "example"
PUBLISHED = ROOT / "docs" / "examples" / "llama2-article.toml"
MODELS = {"llama2-7b": "meta-llama/Llama-2-7b-hf", "llama2-13b": "meta-llama/Llama-2-13b-hf"}
STORED = "demo-run"  # a directory as the store writes it


def runs(place: Path = EXAMPLES) -> Iterator[tuple[str, Run, Read, ReadItems]]:
    """(name, run, what reads its samples, what reads its items) of each example there is."""
    if (place / STORED).is_dir():
        stored = store.RunDir(place / STORED)
        run = stored.read()
        reader = reading([(stored, run)])
        yield "demo", run, reader.samples, reader.items
    if PUBLISHED.is_file():
        for name, model in MODELS.items():
            yield name, scores.import_scores(PUBLISHED, model=model), _unread, _unread


def _unread(cell: Cell) -> NoReturn:
    """Published scores have no items, and a report asks for none."""
    raise QevalError(f"{cell.task.name} has a published score but no items.", "")


def render(out: Path = EXAMPLES, place: Path = EXAMPLES) -> list[Path]:
    """Write each example's HTML, Markdown and charts below `out`; returns the reports."""
    made = []
    for name, run, read, read_items in runs(place):
        context = build(gather(run, read), read_items)
        write_text(out / f"{name}.html", render_html(context))
        write_text(out / f"{name}.md", render_markdown(context, assets=out / f"{name}-charts"))
        made += [out / f"{name}.html", out / f"{name}.md"]
    return made


if __name__ == "__main__":
    EXAMPLES.mkdir(parents=True, exist_ok=True)
    for path in render():
        print(path)  # noqa: T201 - a script's output
