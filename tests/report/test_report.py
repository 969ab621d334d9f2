"""Reports of whole, broken, small and hostile runs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from factories import ARC, MEMBERS, QUIZ, TRUTH, WIKI, edited, judge, make_run, with_cell, without_cell
from factories import context as context_of
from leaderboard import leaderboard

from qeval.base import numbers
from qeval.base.errors import QevalError, UsageError
from qeval.base.files import write_text
from qeval.base.records import Item, Policy, Result, Rule, Scheme, Variant
from qeval.report.formats import Options, render
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \u202e gnp.exe \x1b[31m | ` ``` ~~~ </script> "
    "&lt; ]]> \U0001f3f4\u200d\u2620\ufe0f \ud800 z\u0351\u036b"
)


def rendered(made, policy=None, **changes):
    run, read, read_items = made
    run = replace(run, **changes)

    def keyed(cell):
        items = read_items(cell)
        return items if isinstance(items, dict) else {item.key: item for item in items}

    decisions = judge(run, read, policy) if policy else ()
    return context_of(run, read, keyed, decisions, policy)


class Structure(HTMLParser):
    """Tags that are open at the end, ids, and the text of cells."""

    VOID = frozenset(
        ("meta", "link", "input", "br", "wbr", "img", "path", "line", "rect", "circle", "polygon")
    )

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.text, self.attributes = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def embedded(html):
    found = re.search(r'<script type="application/json" id="flips-data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


@pytest.mark.slow
def test_the_page_is_well_formed_and_names_no_other_place():
    html = render_html(rendered(leaderboard(0.02)))
    page = Structure(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not {"link", "iframe", "object", "img"} & set(page.tags)
    links = [value for name, value in page.attributes if name in {"href", "src", "xlink:href"}]
    assert all(link.startswith("#") for link in links)
    policy = next(v for _, v in page.attributes if "-src" in (v or ""))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]


@pytest.mark.slow
def test_every_row_and_variant_stands_in_the_table_with_its_numbers():
    context = rendered(make_run(3, n_items=200, effect=-0.1, seed=4))
    rows = [column.row.id for column in context.columns]
    assert rows == ["arc", "quiz_macro", "quiz", "truth", "average", "wiki"]
    line = context.lines[1]
    arc = line.figures[0]
    comparison = arc.comparison
    assert arc.delta == numbers.signed_points(comparison.delta)
    assert (arc.statistics["losses"], arc.statistics["gains"]) == (
        str(comparison.losses),
        str(comparison.gains),
    )
    assert line.figures[-1].delta.startswith("x")
    html = render_html(context)
    assert all(figure.interval in html for figure in line.figures)


@pytest.mark.slow
def test_a_judged_row_shows_its_limit_and_the_reason_names_the_interval_that_decided():
    policy = Policy((Rule(tasks="arc", max_drop=2.0),), source="policy.toml")
    made = make_run(2, n_items=300, effect=-0.05, seed=1)
    context = rendered(made, policy)
    decision = judge(made[0], made[1], policy)[0]
    figure = context.lines[1].figures[0]
    assert figure.margin == pytest.approx(-0.02)
    assert figure.status == decision.status
    assert "(90% interval " in decision.reason
    assert context.lines[1].verdict.sentence == decision.reason
    assert context.lines[1].verdict.status == decision.status
    for text in (render_html(context), render_markdown(context)):
        assert "policy.toml" in text


@pytest.mark.slow
def test_every_interval_of_a_page_has_one_confidence():
    policy = Policy((Rule(tasks="arc", max_drop=2.0),))
    context = rendered(make_run(3, n_items=300, effect=-0.05, seed=1), policy)
    figures = [figure for line in context.lines for figure in line.figures if figure and figure.delta]
    assert {figure.confidence for figure in figures} == {context.common_confidence} == {"95%"}
    judged = context.lines[1].figures[0]
    assert judged.interval == context.evidence.findings["bnb4", "arc"].interval_text
    assert f"<small>{numbers.typographic(judged.interval)}</small>" in render_html(context)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("number", "said"), [(1, "no variants"), (2, "1 variant"), (3, "2 variants")])
def test_variants_are_counted_beside_the_baseline(number, said):
    run, read, _ = make_run(number, (ARC,), 40)
    assert f" · {said} and the baseline · " in context_of(run, read, lambda _: {}).summary


def test_an_advisory_rule_changes_no_verdict():
    rules = (Rule(tasks="arc", max_drop=50.0), Rule(tasks="arc", max_drop=0.001, tier="advisory"))
    context = rendered(make_run(2, n_items=300, effect=-0.05, seed=1), Policy(rules))
    verdict = context.lines[1].verdict
    assert verdict.status == "PASS"
    assert len(verdict.advice) == 1
    html = render_html(context)
    assert "allowed: -0.001 (advisory)" in html
    assert "allowed: -50;" in html or "; allowed: -50<" in html


@pytest.mark.usefixtures("undrawn")
def test_an_advisory_rule_alone_is_marked_as_advice():
    rules = (Rule(tasks="truth", max_drop=50.0), Rule(tasks="arc", max_drop=0.001, tier="advisory"))
    context = rendered(make_run(2, n_items=300, effect=-0.05, seed=1), Policy(rules))
    assert context.lines[1].figures[0].advisory
    assert "(advisory)</span>" in render_html(context)


@pytest.mark.slow
def test_forgiveness_is_printed():
    policy = Policy((Rule(max_drop=1.0),), allow_limited=True, allow_inconclusive=True)
    context = rendered(make_run(2, n_items=50), policy)
    for text in (render_html(context), render_markdown(context)):
        assert "Limited runs are allowed to pass (--allow-limited)." in text
        assert "Undecided rules are allowed to pass (--allow-inconclusive)." in text


def hostile_run():
    """Every name and every text is hostile."""
    run, read, _ = make_run(2, n_items=60, churn=0.4, seed=2)
    name = ('"' + HOSTILE.replace("\ud800", "") + "/../x'" * 20)[:200]
    results = tuple(
        replace(
            result,
            variant=Variant(name + result.variant.name, "m", Scheme("gptq", checkpoint=name)),
            error=None,
        )
        for result in run.results
    )
    run = replace(
        run, results=results, baseline=results[0].variant.name, model=name, command=("qeval", "run", name)
    )

    def items(cell):
        return {
            str(k): Item(str(k), HOSTILE * 2, HOSTILE, (HOSTILE, "", " a", "\x00"), HOSTILE)
            for k in range(cell.n)
        }

    return run, read, items


def test_hostile_text_is_only_ever_text_in_html():
    html = render_html(rendered(hostile_run()))
    page = Structure(html.encode("utf-8", "replace").decode())
    assert page.open == []
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    data = embedded(html)
    assert data["items"][0][2].startswith("<script>alert(1)</script>")
    assert "<img" not in html.replace("\\u003cimg", "")


def test_hostile_text_is_only_ever_text_in_markdown():
    from markdown_it import MarkdownIt

    text = render_markdown(rendered(hostile_run()))
    made = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [child for token in made for child in (token.children or [])]
    raw = [token.content.strip() for token in (*made, *inline) if token.type in {"html_block", "html_inline"}]
    allowed = re.compile(
        r"</?(details|summary|sub)>(\n<summary>[^<]*</summary>)?|<summary>[^<]*</summary>|<!-- -->"
    )
    assert raw
    assert [piece for piece in raw if not allowed.fullmatch(piece)] == []
    fences = [token.content for token in made if token.type == "fence"]
    assert any("<script>alert(1)</script>" in fence and "onerror" in fence for fence in fences)
    assert "\x1b" not in text
    assert "\u202e" not in text


def bad_runs():
    whole = make_run(3, n_items=40, seed=3)
    run = whole[0]
    failed = Result(run.results[1].variant, "failed", (), None, None, "CUDA ran out of memory on arc.")
    alone = {"results": run.results[:1]}
    aggregate = [
        replace(result, cells=tuple(replace(cell, files={}) for cell in result.cells))
        for result in run.results
    ]
    return {
        "failed variant": (
            whole,
            {"results": (run.results[0], failed, run.results[2])},
            "CUDA ran out of memory on arc.",
        ),
        "failed baseline": (
            whole,
            {"results": (replace(failed, variant=run.results[0].variant), *run.results[1:])},
            "The baseline failed",
        ),
        "one variant": (whole, alone, "There is only one variant"),
        "no items": (make_run(2, n_items=0), {}, "Nothing was scored"),
        "no cells": (
            whole,
            {"results": tuple(replace(r, cells=()) for r in run.results)},
            "Nothing was scored",
        ),
        "aggregate only": (whole, {"results": tuple(aggregate)}, "Only scores are known"),
        "limited": (make_run(2, n_items=20, limit=20, n_available=100), {}, "smoke test"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(bad_runs()))
def test_a_bad_run_gives_a_report_that_says_so(name):
    made, changes, says = bad_runs()[name]
    context = rendered(made, **changes)
    html, markdown = render_html(context), render_markdown(context)
    assert Structure(html).open == []
    assert says in html
    assert says in markdown.replace("\\", "")
    assert says in render_markdown(context, short=True).replace("\\", "")


@pytest.mark.slow
def test_tasks_that_only_some_variants_have_are_shown_as_missing():
    made = make_run(3, n_items=40)
    run = without_cell(made[0], "bnb4", "arc")
    context = rendered((run, *made[1:]))
    by_name = {line.name: line for line in context.lines}
    assert by_name["bnb4"].figures[0] is None
    assert by_name["gptq"].figures[0] is not None
    assert "not scored" in render_html(context)


def test_a_task_that_nobody_scored_keeps_its_column():
    made = make_run(2, n_items=40, tasks=(ARC, WIKI))
    run = replace(made[0], suite=replace(made[0].suite, tasks=(ARC, TRUTH, WIKI)))
    assert [column.row.id for column in rendered((run, *made[1:])).columns] == ["arc", "truth", "wiki"]


def test_not_a_number_shows_as_a_dash_not_as_a_score():
    made = make_run(2, n_items=40, tasks=(ARC,))
    run = with_cell(made[0], "bnb4", "arc", score=math.nan)
    context = context_of(run, made[1], lambda _: {})
    assert context.lines[1].figures[0].score == numbers.NONE
    assert "nan" not in render_html(context).split("<style>")[0].lower()


def test_subjects_are_shrunken_to_their_mean():
    context = rendered(
        make_run(2, n_items={m.name: n for m, n in zip(MEMBERS, (30, 300, 100), strict=True)}, tasks=(QUIZ,))
    )
    subjects = context.subjects
    assert [subject.subject for subject in subjects] == ["algebra", "biology", "law"]
    raw = [subject.value for subject in subjects]
    assert all(min(raw) - 1e-9 <= subject.shrunk <= max(raw) + 1e-9 for subject in subjects)
    assert np.ptp([subject.shrunk for subject in subjects]) <= np.ptp(raw)
    assert {category.name for category in context.categories} == {"STEM", "humanities"}


@pytest.mark.parametrize("short", [False, True])
def test_markdown_tables_have_as_many_cells_in_every_line(short):
    text = render_markdown(rendered(hostile_run()), short=short)
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert blocks
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_the_short_form_fits_a_comment():
    names = [f"{'very-' * 36}long-{number}" for number in range(250)]
    run, read, items = make_run(2, n_items=5, tasks=(ARC,))
    more = tuple(
        replace(run.results[1], variant=replace(run.results[1].variant, name=name)) for name in names
    )
    text = render_markdown(rendered((replace(run, results=(run.results[0], *more)), read, items)), short=True)
    assert len(text.encode()) <= 60_000
    assert "did not fit" in text


@pytest.mark.parametrize("variants", [2, 5])
def test_the_short_form_has_five_columns_at_most_and_keeps_the_worst(variants):
    many = tuple(replace(ARC, name=f"arc_{number}") for number in range(7))
    run, read, items = make_run(variants, n_items=80, tasks=many, churn=0.05)
    lost = edited(read, "bnb4-arc_5", value=np.zeros(80))
    text = render_markdown(rendered((run, lost, items)), short=True)
    first, *heads = [line for line in text.splitlines() if line.startswith("| Variant")]
    assert "average Δ" in first
    assert all(line.count("|") - 1 <= 5 for line in text.splitlines() if line.startswith("|"))
    assert "average" in heads[0]
    assert "arc_5" in heads[0]
    assert re.search(r"\*In the full report: 4 more rows \((\S.*, ){3}\S.*\)\.\*", text)
    assert "more rows" not in render_markdown(rendered((run, lost, items)))


@pytest.mark.slow
def test_charts_are_written_beside_the_markdown(tmp_path):
    text = render_markdown(rendered(make_run(3, n_items=60)), assets=tmp_path / "assets")
    paths = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert paths
    assert all((tmp_path / path).read_text().startswith("<svg") for path in paths)


@pytest.mark.slow
def test_the_charts_paths_hold_from_where_the_report_lies(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "reports").mkdir()
    path = tmp_path / "reports" / "x.md"
    text = render(rendered(make_run(2, n_items=40)), path, Options(assets=tmp_path / "a b" / "charts"))
    assert "](../a%20b/charts/forest.svg)" in text
    assert (tmp_path / "a b" / "charts" / "forest.svg").is_file()


@pytest.mark.usefixtures("undrawn")
def test_the_ending_chooses_the_format(tmp_path):
    context = rendered(make_run(2, n_items=20))
    assert render(context, tmp_path / "x.md").startswith("# ")
    assert "<!DOCTYPE html>" in render(context, tmp_path / "x.HTML")
    with pytest.raises(UsageError, match=r"no report format '\.htm'") as caught:
        render(context, tmp_path / "x.htm")
    assert ".html" in caught.value.hint


def test_writing_replaces_a_report_whole(tmp_path):
    path = tmp_path / "x.html"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_report_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.html"
    write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(QevalError, match="No space left") as caught:
        write_text(path, "new")
    assert caught.value.hint
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_no_place_for_a_report(tmp_path):
    with pytest.raises(QevalError, match="is a directory"):
        write_text(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_where_no_answers_can_change_nothing_is_said_of_changes():
    html = render_html(rendered(make_run(2, n_items=40, tasks=(WIKI,)))).partition("<script>")[0]
    assert "flips:" not in html
    assert "kept<" not in html


def test_signs_of_a_sentence_are_those_of_the_table_and_names_stay():
    assert numbers.signs("gptq-4bit: -5.71 points (95% interval -10.12 to -1.55)") == (
        "gptq-4bit: \u22125.71 points (95% interval \u221210.12 to \u22121.55)"
    )
    assert numbers.signs("x1.217 of x2-large, -inf, --max-drop") == (
        "\u00d71.217 of x2-large, \u2212\u221e, --max-drop"
    )
