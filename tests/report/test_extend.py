"""The pages that tell how to add a format and a statistic: what they show works, word for word."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMANDS = """
import sys
from factories import make_run
from qeval.store.runs import Store
run, read, items = make_run(2, n_items=40, effect=-0.05, seed=3)
place = Store(__import__("pathlib").Path("runs")).run_dir("made")
from dataclasses import replace
results = [
    replace(r, cells=tuple(place.add(c, read(c), items(c)) for c in r.cells)) for r in run.results
]
place.write(replace(run, results=tuple(results)))
from qeval.cli.main import main
for words in %r:
    main(words, standalone_mode=False)
"""


def blocks(page: str) -> list[str]:
    """The Python code of a page, in its order."""
    text = (ROOT / "docs" / "extend" / page).read_text("utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package that may be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "qeval", tmp_path / "qeval", ignore=ignored)
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=ignored)
    return tmp_path


def run(copy: Path, *commands: list[str]) -> str:
    """What commands of the changed package print, on a run of its own."""
    paths = os.pathsep.join([str(copy), str(ROOT / "tests" / "helpers")])
    words = [sys.executable, "-c", COMMANDS % (commands,)]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_format_is_one_file(copy):
    (code,) = blocks("format.md")
    (copy / "qeval" / "report" / "formats" / "asciidoc.py").write_text(code)
    run(copy, ["report", "-o", "r.adoc"])
    text = (copy / "r.adoc").read_text()
    assert text.startswith("= pass:c[bnb4 is worse than 1 point on ")
    assert "|pass:c[arc] |pass:c[bnb4] |" in text


def test_a_statistic_appears_in_every_format(copy):
    (formula,) = blocks("statistic.md")
    imported, line = re.findall(
        r"^\+(.*\n)", (ROOT / "docs/extend/statistic.md").read_text("utf-8"), re.MULTILINE
    )
    stats = copy / "qeval" / "compare" / "stats" / "accuracies.py"
    stats.write_text(stats.read_text() + "\n\n" + formula)
    columns = copy / "qeval" / "compare" / "columns.py"
    text = columns.read_text().replace(
        "\nfrom qeval.base import numbers\n", f"\nfrom qeval.base import numbers\n{imported}"
    )
    columns.write_text(text.replace("COLUMNS = (\n", f"COLUMNS = (\n{line}"))
    outputs = [word for ending in ("html", "md", "txt", "json") for word in ("-o", f"r.{ending}")]
    shown = run(copy, ["report", *outputs], ["show"], ["export", "--to", "csv", "-o", "out"])
    for name in ("r.html", "r.md"):
        assert "Odds ratio" in (copy / name).read_text()
    assert "odds ratio" in (copy / "r.txt").read_text()
    assert "odds ratio" in shown
    document = json.loads((copy / "r.json").read_text())
    row = next(one for one in document["comparisons"] if one["task"] == "arc")
    assert row["statistics"]["odds_ratio"] == pytest.approx(row["gains"] / row["losses"])
    with (copy / "out" / "comparisons.csv").open() as file:
        found = next(one for one in csv.DictReader(file) if one["task"] == "arc")
    assert float(found["odds_ratio"]) == pytest.approx(row["gains"] / row["losses"])
