"""One name, one sign, one rounding: every format of one run says the same of each change."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, conclude, context, judge, make_run

from qeval.base.records import Policy, Rule
from qeval.judge import formats
from qeval.report.formats import terminal
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown

pytestmark = pytest.mark.slow
POLICY = Policy(
    (
        Rule(max_drop=6.0),
        Rule(tasks="quiz_macro", max_drop=6.0),
        Rule(tasks="wiki", max_ppl_ratio=1.02),
        Rule(tasks="arc", max_flips=0.05, tier="advisory"),
    ),
    "policy.toml",
)


def spaced(text: str) -> str:
    """A text in ASCII numbers, its tags and escapes away and its blanks alike."""
    plain = re.sub(r"<[^>]+>", " ", text).replace("\u2212", "-").replace("\u00d7", "x").replace("\\", "")
    return " ".join(plain.split())


@pytest.fixture(scope="module")
def shown():
    """Whatever a run with a gate looks like, by format; and the long form of its numbers."""
    run, read, items = make_run(3, (ARC, QUIZ, TRUTH, WIKI), 300, seed=4, effect=-0.04, churn=0.1)
    decisions = judge(run, read, POLICY)
    made = context(
        run, read, lambda cell: {one.key: one for one in items(cell)}, decisions=decisions, policy=POLICY
    )
    outcome = conclude(run, read, POLICY)
    texts = {
        "html": render_html(made),
        "markdown": render_markdown(made),
        "short": render_markdown(made, short=True),
        "terminal": terminal.summary(made.evidence, decisions),
        **{name: one.render(outcome) for name, one in formats.formats().items() if name != "json"},
    }
    return made, outcome, {name: spaced(text) for name, text in texts.items()}, texts


def test_every_format_shows_a_change_alike(shown):
    made, _, texts, _ = shown
    assert len(made.details) == 2 * len(made.columns)
    for row in made.details:
        for name in ("html", "markdown", "terminal"):
            assert row.figure.delta in texts[name]
            assert row.figure.interval in texts[name]
            assert row.task in texts[name]


def test_a_reason_names_row_and_change_as_the_tables_do(shown):
    made, outcome, texts, _ = shown
    figures = {(row.task, row.variant): row.figure for row in made.details}
    rules = [one for one in outcome.decisions if one.rule.max_flips is None]
    assert {outcome.titles[one.task] for one in rules} == {
        "arc",
        "quiz (mean of 3)",
        "quiz (all items)",
        "truth",
        "wiki",
    }
    for one in rules:
        title = outcome.titles[one.task]
        figure = figures[title, one.variant]
        unit = "perplexity {}" if figure.comparison.kind == "perplexity" else "Δ {} points"
        assert one.reason.startswith(f"{title}: {unit.format(figure.delta)} (90% interval ")
        for name in ("html", "table", "github", "junit"):
            said = one.reason.removesuffix(".") if name == "html" else one.reason
            assert name != "html" or said in texts[name]
            assert one.status == "PASS" or said in texts[name] or name == "github"
        assert re.search(rf"{re.escape(title)} .*{re.escape(figure.delta)} \(", texts["github"])


def test_no_format_counts_a_loss_as_positive_or_calls_a_row_by_its_id(shown):
    for name, text in shown[2].items():
        assert "points lost" not in text
        assert not re.search(r"\d lost|lost \(|[Dd]ifferences? ", text.partition("How to read this")[0])
        if name != "html":  # whose addresses and data hold ids
            said = text if name != "junit" else " ".join(_read_by_people(shown[3][name]))
            assert "quiz_macro" not in said


def test_parts_against_another_variant_call_a_change_by_the_same_name(shown):
    parts = shown[3]["html"].partition('<template class="aside">')[2]
    assert 'aria-label="Δ with intervals"' in parts
    assert not re.search(r"Differences? (from|with)", parts)


def _read_by_people(junit: str) -> list[str]:
    """All but the names of cases, which a CI system tells from build to build."""
    return [
        part for node in ET.fromstring(junit).iter() for part in (node.get("message", ""), node.text or "")
    ]


def test_a_verdict_says_what_it_is_of(shown):
    made, outcome, texts, _ = shown
    for line in made.candidates:
        found = made.evidence.finding(line.name)
        assert found.of in {"on average", "on arc", "on quiz (all items)", "on truth", "on wiki"}
        assert f"{found.said}. {found.sentence}" in texts["junit"]
        assert found.said in texts["html"]
        assert outcome.findings[line.name].startswith(found.said)
