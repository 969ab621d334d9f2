"""Charts: valid specifications, the same picture for a file and for a page, names left alone."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from factories import ARC, WIKI, context, judge, make_run
from leaderboard import leaderboard

from qeval.report import colours, costs
from qeval.report.charts import charts as draw_all
from qeval.report.charts import drawing
from qeval.report.charts.cost import _labelled
from qeval.report.charts.documents import spread

pytestmark = pytest.mark.slow


def built(made):
    run, read, _ = made
    return context(run, read, lambda _: {})


@pytest.fixture(scope="module")
def whole():
    """A run with everything in it."""
    return built(leaderboard(0.02))


@pytest.fixture(scope="module")
def drawn(whole):
    """The charts of a whole run, with the specifications they were drawn from."""
    seen = []
    original = drawing.to_svg

    def spy(spec):
        seen.append(spec)
        return original(spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "to_svg", spy)
        made = draw_all(whole)
    return made, seen


def test_every_kind_of_chart_is_drawn(drawn):
    names = {chart.id for chart in drawn[0]}
    assert {
        "cost-weights",
        "cost-bits",
        "forest",
        "forest-perplexity",
        "subjects-mmlu",
        "documents-wikitext",
    } <= names


@pytest.mark.slow
def test_every_specification_is_valid_vega_lite(drawn):
    altair = pytest.importorskip("altair", reason="Altair carries the schema of Vega-Lite")
    schema = json.loads((files(altair.__name__) / "vegalite/v6/schema/vega-lite-schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    for spec in drawn[1]:
        assert [error.message for error in validator.iter_errors(spec)] == []


def test_a_page_uses_the_pages_colours_and_a_file_plain_ones(drawn):
    for chart in drawn[0]:
        for picture in filter(None, (chart.svg, chart.narrow)):
            assert not re.search(r'"#[0-9a-f]{6}"', picture)
            assert re.search(r"var\(--v\d+\)", picture)
            assert picture.startswith('<svg aria-hidden="true"')
        assert "var(" not in chart.file
        assert 'fill="#ffffff"' in chart.file


def test_every_chart_says_in_words_what_it_shows(drawn, whole):
    for chart in drawn[0]:
        assert chart.title
        assert all(line.name in chart.alt for line in whole.candidates) or chart.id.startswith("subjects")


def test_marks_tell_their_values_where_a_pointer_rests(drawn, whole):
    for chart in drawn[0]:
        assert "<title>" not in chart.narrow
        for picture in (chart.file, chart.svg):
            titles = re.findall(r"<title>([^<]*)</title></", picture)
            assert len(titles) > 2
            assert not any("hover" in title for title in titles)
    (forest,) = (chart for chart in drawn[0] if chart.id == "forest")
    figure = whole.candidates[0].figures[0]
    assert f"<title>{whole.columns[0].title}, {whole.candidates[0].name}: {figure.delta} (" in forest.svg


def test_a_variant_has_one_colour_in_every_chart(drawn, whole):
    names = [result.variant.name for result in whole.evidence.run.results]
    assert {line.name for line in whole.lines} <= set(names)
    for place, name in enumerate(names):
        for chart in drawn[0]:
            for title in re.findall(rf"<[^<>]*><title>[^<]*\b{re.escape(name)}: [^<]*</title>", chart.file):
                assert colours.LIGHT[place] in title


def test_sizes_are_drawn_from_nought(drawn):
    spec = next(spec for spec in drawn[1] if "Size of weights" in json.dumps(spec))
    assert '"zero": true, "nice": true' in json.dumps(spec)
    (size,) = (chart for chart in drawn[0] if chart.id == "cost-weights")
    assert ">0</text>" in size.svg


def test_a_cost_is_set_against_the_ratio_where_there_are_perplexities_alone():
    run, read, _ = make_run(3, (WIKI,), 60, effect=-0.7, seed=1)
    results = [
        replace(one, provenance=replace(one.provenance, weight_bytes=1000 - 100 * place))
        for place, one in enumerate(run.results)
    ]
    made = built((replace(run, results=tuple(results)), read, None))
    (chart,) = [one for one in draw_all(made) if one.id == "cost-weights"]
    assert "points" not in chart.alt + chart.svg
    assert re.search(r"bnb4: .*x2\.0\d+ of perplexity", chart.alt)
    assert "wiki: ratio to the baseline, above 1 is worse" in chart.svg
    assert "Pareto front, beaten by no other in both: gptq" in chart.alt
    heights = {
        name: float(re.search(rf"translate\([\d.]+,([\d.]+)\)[^>]*><title>{name}: ", chart.file)[1])
        for name in ("fp16", "bnb4")
    }
    assert heights["fp16"] < heights["bnb4"]  # the better stands higher


def test_the_pages_own_font_is_used_in_it(drawn):
    assert not [chart.id for chart in drawn[0] if "font-family" in chart.svg + chart.narrow]


def test_names_at_ends_of_lines_lie_apart_in_their_order():
    placed = drawing.labels_at_ends({"a": 1.0, "b": 5.0, "c": 0.9, "d": 1.0}, 0.5)
    assert list(placed) == ["b", "a", "d", "c"]
    assert placed == {"b": 5.0, "a": 1.0, "d": 0.5, "c": 0.0}


def test_names_cover_no_other_mark_where_there_is_room():
    spots = [{"name": "one-long-name", "cost": 5.0, "delta": 0.0, "low": -1, "high": 1}]
    spots.append({"name": "b", "cost": 5.4, "delta": 0.05, "low": -1, "high": 1})
    first, second = _labelled(spots, 400)
    assert (first["align"], second["align"]) != ("left", "left") or first["dy"] != second["dy"]


def test_shortening_a_drawing_leaves_its_words_alone():
    name = 'a.bc-0.123456 class="x" role="y" #1b1f24 <g></g> <b>'
    spec = {"data": {"values": [{"x": 1, "n": name}]}, "mark": "text", "encoding": {"text": {"field": "n"}}}
    svg = drawing.to_svg(spec)
    words = lambda text: re.findall(r"<text[^>]*>([^<]*)</text>", text)  # noqa: E731
    assert words(drawing.for_page(svg)) == words(svg)
    assert any("0.123456" in word for word in words(svg))


def looks(svg):
    """How each mark is painted, in their order, what groups hand down among it."""
    handed = ("fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "text-anchor")
    found = []

    def walk(node, known):
        own = {
            name: node.attrib[name]
            for name in (*handed, "fill-opacity", "stroke-opacity")
            if name in node.attrib
        }
        known = {**known, **own}
        if node.tag in {"path", "line", "circle", "rect", "text"} and not node.attrib.get("display"):
            opacity = float(node.attrib.get("opacity", 1))
            painted = {
                paint: (known[paint], opacity * float(known.get(f"{paint}-opacity", 1)))
                for paint in ("fill", "stroke")
                if known.get(paint, "none") != "none"
            }
            if painted:
                width = known.get("stroke-width", "1") if "stroke" in painted else ""
                words = (known.get("font-size"), known.get("text-anchor")) if node.tag == "text" else ()
                found.append((painted, width, known.get("stroke-dasharray"), words))
        for child in node:
            walk(child, known)

    walk(ET.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)), {})
    return found


def test_shortening_a_drawing_leaves_the_look_of_every_mark(drawn):
    for chart in drawn[0]:
        coloured = chart.file
        for colour, variable in (drawing.COLOURS | drawing.VARIANTS).items():
            coloured = coloured.replace(f'"{colour}"', f'"{variable}"')
        assert looks(chart.svg) == looks(coloured), chart.id
        assert len(chart.svg) < len(chart.file) / 2


def test_the_allowed_loss_is_drawn_only_where_a_rule_judged():
    from qeval.base.records import Policy, Rule

    run, read, _ = make_run(2, n_items=100)
    policy = Policy((Rule(tasks="arc", max_drop=2.0),))
    judged = context(run, read, lambda _: {}, judge(run, read, policy), policy)
    forest = {chart.id: chart for chart in draw_all(judged)}["forest"]
    plain = {chart.id: chart for chart in draw_all(built((run, read, None)))}["forest"]
    assert drawing.BAD in forest.file
    assert drawing.BAD not in plain.file


@pytest.mark.parametrize(
    ("points", "lower", "front"),
    [
        ([(1, 0.0), (2, 1.0), (3, 0.5), (4, 2.0)], True, [0, 1, 3]),
        ([(1, 0.0), (2, 1.0), (3, 0.5)], False, [2, 1]),
        ([(1, 0.0), (1, 1.0)], True, [1]),
        ([], True, []),
    ],
)
def test_the_pareto_front_holds_what_no_other_beats_in_both(points, lower, front):
    assert costs.pareto(points, lower_is_better=lower) == front


def test_a_cost_that_only_one_variant_has_makes_no_chart():
    run, _, _ = leaderboard(0.01, variants=2)
    names = [axis.id for axis in costs.axes(run)]
    assert "bits" not in names
    assert "weights" in names


@pytest.mark.parametrize(
    ("reached", "ratios", "logarithmic"),
    [([1.0, 0.97, 1.4], True, False), ([1.0, 3.1, 46636.0], True, True), ([0.0, -50.0, 20.0], False, False)],
)
def test_a_ruined_variant_does_not_hide_the_others(reached, ratios, logarithmic):
    assert (drawing.scale(reached, ratios=ratios).get("type") == "log") is logarithmic


def test_a_control_character_in_a_name_is_drawn_as_its_number():
    run, read, _ = make_run(2, (replace(ARC, name="a\x1b\ufffe\nrc"), WIKI), 40, seed=7)
    first, second = run.results
    named = replace(second, variant=replace(second.variant, name="b\x00\u202enb4"))
    charts = draw_all(context(replace(run, results=(first, named)), read, lambda _: {}))
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", charts[0].file))
    assert "a⟨U+001B⟩⟨U+FFFE⟩ rc" in words
    assert "b⟨U+0000⟩⟨U+202E⟩nb4" in words


def test_many_documents_are_drawn_evenly_by_rank_with_both_ends():
    ranks = range(800)
    assert spread(ranks, 800) is ranks
    kept = spread(ranks, 90)
    assert (len(set(kept)), kept[0], kept[-1]) == (90, 0, 799)
    assert {two - one for one, two in itertools.pairwise(kept)} <= {8, 9, 10}
