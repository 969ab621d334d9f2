"""Whole reports compared with golden files: `make golden` writes them anew."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, judge, make_run
from outline import outline, rounded

from qeval.base.costs import Cost, Timing
from qeval.base.records import Policy, Result, Rule
from qeval.compare.evidence import gather
from qeval.report.context import build
from qeval.report.formats import json as document
from qeval.report.formats import terminal
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown


@pytest.fixture(scope="module")
def made():
    """A small run with everything in it: cost, a gate, flips, a failed variant; and its context."""
    run, read, read_items = make_run(3, (ARC, QUIZ, TRUTH, WIKI), n_items=60, effect=-0.04, seed=7)
    sizes = (2_000_000_000, 600_000_000, 550_000_000)
    results = [
        replace(
            result,
            provenance=replace(result.provenance, weight_bytes=size, engine="tree", linears=8),
            cost=Cost(
                "a small CPU", 1.5, 2 * size, {"prefill/batch=1": Timing(size / 1e8, 5, 21, 3, "ms/token")}
            ),
        )
        for result, size in zip(run.results, sizes, strict=True)
    ]
    failed = Result(replace(run.results[1].variant, name="awq"), "failed", error="No kernel for this device.")
    run = replace(
        run, results=(*results, failed), qeval_version="0.0.0", command=("qeval", "run", "-m", "toy")
    )
    policy = Policy((Rule(max_drop=6.0), Rule(tasks="wiki", max_ppl_ratio=1.1)), source="policy.toml")
    evidence, decisions = gather(run, read), judge(run, read, policy)

    def items(cell):
        return {item.key: item for item in read_items(cell)}

    context = build(evidence, items, decisions, policy)
    return evidence, decisions, context


@pytest.mark.slow
def test_golden_html(made, golden):
    golden("report.html.txt", outline(render_html(made[2])))


def test_golden_markdown(made, golden):
    golden("report.md", render_markdown(made[2]))


def test_golden_short_markdown(made, golden):
    golden("short.md", render_markdown(made[2], short=True))


def test_golden_terminal(made, golden):
    golden("summary.txt", terminal.summary(*made[:2]) + "\n")


def test_golden_document(made, golden):
    text = json.dumps(rounded(document.document(*made[:2])), indent=1, ensure_ascii=False, allow_nan=False)
    golden("document.json", text + "\n")
