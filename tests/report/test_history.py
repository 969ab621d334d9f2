"""Lines over runs: the numbers are those of comparisons and gates, and nothing is compared in silence."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from html import unescape

import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, edited, judge, make_run, with_cell
from fidelity_streams import measured
from stored import changed

from qeval.ask.policy import from_max_drop
from qeval.base.protocols import Protocol
from qeval.base.records import Policy, Rule, Scheme
from qeval.cli.past import _drawn, _with_means
from qeval.compare.evidence import gather
from qeval.compare.fidelity import rows_of
from qeval.exchange.forms.csv import csv as as_csv
from qeval.judge.gate import conclude
from qeval.report.history import documents, terminal, words
from qeval.report.history.drawing import strip
from qeval.report.history.lines import history
from qeval.report.history.page import page
from qeval.report.history.series import Source, Wanted
from qeval.report.verdicts import WORDS
from qeval.score.fidelity import toy

NASTY = '<img src=x onerror="alert(1)">|`**\x1b[31m'


def source(made, day=1, *, moved=None, is_toy=False, pathless=False, policy=None, **changes):
    run, read = made[:2]
    run = replace(run, **{"id": f"run-{day:02}", "created": f"2026-01-{day:02}T00:00:00+00:00", **changes})
    evidence = gather(run, read)
    decisions = conclude(evidence, policy).decisions if policy else ()
    evidence = replace(evidence, fidelity=moved) if moved else evidence
    return Source(run, read, evidence, decisions, toy=is_toy, pathless=pathless)


def lines(*sources, **wanted):
    return history(sources, Wanted(**wanted))


def arc(**more):
    return make_run(2, (ARC,), 200, seed=3, **more)


def line(*sources, **wanted):
    """The only line of bnb4 on arc."""
    (one,) = lines(*sources, **{"variant": "bnb4", "task": "arc", **wanted}).series
    return one


def two(change):
    """A run, and the same a day later with something changed."""
    made = arc()
    return line(source(made), source(change(made), 2)).points[1]


def test_a_point_is_what_the_gate_judges():
    made = arc(effect=-0.06)
    policy = from_max_drop(("2.0",))
    decision = judge(*made[:2], policy)[0]
    point = line(source(made, policy=policy)).points[0]
    assert point.comparison == decision.comparison
    assert (point.value, point.status, point.allowed) == (decision.comparison.delta, decision.status, 0.02)
    assert (point.reason, point.words, point.judged) == (
        decision.reason,
        WORDS[decision.status].lower(),
        True,
    )
    assert point.whole


def test_without_a_policy_it_is_what_a_report_finds():
    made = arc(effect=-0.06)
    finding = gather(*made[:2]).findings["bnb4", "arc"]
    point = line(source(made)).points[0]
    assert point.comparison == finding.comparison
    assert (point.status, point.words, point.allowed) == (finding.status, finding.words, 0.01)
    assert not point.judged


def test_the_same_asked_again_is_one_line():
    found = line(source(arc()), source(arc(effect=-0.1), 2))
    assert [point.apart for point in found.points] == ["", ""]
    assert len(strip(found).paths) == 1


def settings(made, **changes):
    run = made[0]
    return replace(run, settings=replace(run.settings, **changes)), *made[1:]


def cells(made, **changes):
    run = made[0]
    for name in ("fp16", "bnb4"):
        run = with_cell(run, name, "arc", **changes)
    return run, *made[1:]


def columns(made, column):
    run, read, items = made
    other = read(run.results[0].cells[0]).doc_hash[::-1].copy()
    for name in ("fp16", "bnb4"):
        read = edited(read, f"{name}-arc", **{column: other})
    return run, read, items


def variant(made, place, **changes):
    one = made[0].results[place]
    return changed(made, place, variant=replace(one.variant, **changes))


def harness(made, version):
    for place in (0, 1):
        one = made[0].results[place]
        made = changed(made, place, provenance=replace(one.provenance, versions={"lm_eval": version}))
    return made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda made: settings(made, seed=7), "seed: 1234, then 7"),
        (lambda made: settings(made, chat_template=True), "chat_template: False, then True"),
        (lambda _: make_run(2, (ARC,), 100, seed=3), "number of items: 200, then 100"),
        (lambda made: cells(made, dataset="ai2_arc@b"), "data: none, then ai2_arc@b"),
        (lambda made: cells(made, task=replace(ARC, num_fewshot=5)), "examples in the prompt: 25, then 5"),
        (lambda made: columns(made, "prompt_hash"), "the prompt differs for some item"),
        (lambda made: columns(made, "doc_hash"), "the document differs for some item"),
        (lambda made: columns(made, "target_hash"), "the right answer differs for some item"),
        (lambda made: harness(made, "0.5.0"), "lm-eval: 0.4.13, then 0.5.0"),
        (lambda made: variant(made, 0, scheme=Scheme("bf16")), "baseline: fp16, then fp16 (bf16)"),
        (lambda made: variant(made, 1, scheme=Scheme("bnb4", {"quant_type": "fp4"})), "quant_type=fp4"),
        (lambda made: variant(made, 1, adapter="org/lora"), "adapter: none, then org/lora"),
        (lambda made: variant(made, 0, adapter="org/lora"), "adapter of the baseline: none, then org/lora"),
        (lambda made: cells(made, files={}), "nothing proves that the items are the same"),
    ],
)
def test_what_sets_two_runs_apart_breaks_the_line_and_is_said(change, says):
    point = two(change)
    assert says in point.apart
    found = line(source(arc()), source(change(arc()), 2))
    assert len(strip(found).paths) == 2
    assert says in " ".join(terminal.text(lines(source(arc()), source(change(arc()), 2))).split())


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"max_length": "64"}, "max_length: 2048, then 64"),
        ({"max_length": "2048", "items": "b"}, "prompts or choices differ for some item"),
        ({"max_length": "2048", "items": "a", "other": "x"}, ""),
    ],
)
def test_imports_that_were_asked_otherwise_are_set_apart(told, says):
    made = cells(arc(), conditions={"max_length": "2048", "items": "a"})
    assert line(source(made), source(cells(arc(), conditions=told), 2)).points[1].apart == says


@pytest.mark.parametrize(
    "change",
    [
        lambda made: variant(made, 1, revision="f" * 40),
        lambda made: variant(made, 1, scheme=Scheme("bnb4", checkpoint="org/new", revision="2")),
        lambda made: settings(made, device="cuda:1"),
    ],
)
def test_another_revision_of_the_weights_is_what_a_line_is_for(change):
    assert two(change).apart == ""


def test_order_of_items_is_no_difference():
    run, read, items = arc()

    def turned(cell):
        samples = read(cell)
        return replace(samples, **{name: getattr(samples, name)[::-1] for name in vars(samples)})

    assert two(lambda _: (run, turned, items)).apart == ""


def test_another_version_of_the_task_is_another_line_and_both_say_which():
    made = cells(arc(), task_version="2.0")
    found = lines(source(arc()), source(made, 2), variant="bnb4", task="arc").series
    assert [words.heading(one) for one in found] == [
        "bnb4 on arc, version 1.0 (acc_norm)",
        "bnb4 on arc, version 2.0 (acc_norm)",
    ]
    assert [len(one.points) for one in found] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"is_toy": True}, "the toy model"),
        ({"source": "lm-eval results.json"}, "imported: lm-eval results.json"),
        ({"pathless": True}, "paths left out"),
    ],
)
def test_what_is_no_measurement_of_ours_says_so(changes, says):
    found = line(source(arc(), **changes))
    assert found.points[0].lacks == (says,)
    assert strip(found).marks[0].kind == "hollow"
    assert terminal.strip(found, terminal.UNICODE)[1] == "○"


def test_a_limited_run_says_of_how_many_and_does_not_pass():
    made = make_run(2, (ARC,), 300, effect=0.2, seed=3, limit=300, n_available=1000)
    point = line(source(made, policy=from_max_drop(("1.0",)))).points[0]
    assert point.lacks == ("limited to 300 of 1000 items",)
    assert (point.comparison.low > -0.01, point.status) == (True, "INCONCLUSIVE")


@pytest.mark.parametrize("place", [0, 1])
def test_what_failed_stands_in_the_line_without_a_number(place):
    failed = changed(arc(), place, status="failed", cells=(), error="out of memory")
    for order in ((failed, arc(), arc()), (arc(), failed, arc())):
        found = line(*(source(made, day) for day, made in enumerate(order, 1)))
        at = order.index(failed)
        assert [point.value is None for point in found.points] == [n == at for n in range(3)]
        assert found.points[at].lacks
        assert strip(found).marks[at].kind == "none"
        assert "did not run" in found.points[at].lacks or place == 0


def test_damage_stands_in_the_line():
    good, bad = source(arc()), replace(source(arc(), 2), evidence=None, problem="damaged: samples.parquet")
    found = line(good, bad)
    assert found.points[1].lacks == ("damaged: samples.parquet",)
    assert found.points[1].value is None
    assert "! damaged: samples.parquet" in terminal.text(lines(good, bad))


def test_means_have_the_limit_of_all_tasks_and_the_baseline_its_scores():
    found = {one.key.task: one for one in lines(source(make_run(2, n_items=60)), variant="bnb4").series}
    assert found["average"].points[0].allowed == found["quiz_macro"].points[0].allowed == 0.01
    assert words.limits(found["wiki"]) == "margin x1.10"
    (own,) = lines(source(make_run(2, (WIKI,))), variant="fp16").series
    assert (own.own, own.points[0].comparison) == (True, None)
    assert words.value(own, own.points[0]) == f"{2.7182818 ** -own.points[0].value:.3f}"


def test_a_member_of_a_group_is_shown_where_it_is_named():
    made = make_run(2, (QUIZ,), 60)
    assert [one.key.task for one in lines(source(made), task="quiz_l*", variant="bnb4").series] == [
        "quiz_law"
    ]


def moved(stream_of="prose"):
    stream = toy.stream(Protocol("prose", stream_of))
    one = measured(stream)
    one = one if stream_of == "prose" else replace(one, stream="f" * 64)
    return rows_of([one], lambda _: (toy.invented(stream, 0.03, "x"), stream), ["fp16", "bnb4"], "fp16")


def test_fidelity_has_lines_and_another_token_stream_breaks_them():
    made = arc()
    rows = moved()
    other = moved("trace")
    found = lines(source(made, moved=rows), source(made, 2, moved=rows), source(made, 3, moved=other))
    (one,) = [one for one in found.series if one.key.unit == "nats"]
    assert one.points[0].value == -rows.rows[0].kl.value
    assert [bool(point.apart) for point in one.points] == [False, False, True]
    assert "token stream" in one.points[2].apart
    assert words.value(one, one.points[0]) == f"{rows.rows[0].kl.value:.3g}"


@pytest.fixture(scope="module")
def long():
    """Many lines of several runs, some broken, one with a name that is no name."""
    made = make_run(3, n_items=80)
    sources = [
        source(make_run(3, n_items=80, effect=-0.02 * day, seed=day), day, model=NASTY) for day in (1, 2, 3)
    ]
    sources.append(source(settings(made, seed=5), 4, model=NASTY))
    return lines(*sources)


def test_a_terminal_of_80_columns_holds_it(long):
    for plain in (False, True):
        text = terminal.text(long, plain=plain)
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
    assert text.replace("⟨U+001B⟩", "").isascii()
    assert "The other lines" in text


@pytest.mark.parametrize("width", [40, 50, 60, 80, 120])
def test_the_level_of_intervals_is_told_where_they_are_shown(width):
    found = lines(*(source(make_run(2, (ARC,), 80, seed=day), day) for day in (1, 2)))
    (compared,) = [one for one in found.series if not one.own and one.key.task == "arc"]
    text = terminal.text(replace(found, series=(compared,)), width=width)
    assert ("  interval" in text) == ("95% intervals" in " ".join(text.split()))


def unlucky():
    """Four runs of three variants: of bnb4 the last failed, of gptq all did."""
    made = [
        changed(make_run(3, n_items=80, effect=-0.02 * day, seed=1), 2, status="failed", cells=())
        for day in range(3)
    ]
    made.append(changed(made[0], 1, status="failed", cells=(), error="out of memory"))
    return lines(*(source(one, day) for day, one in enumerate(made, 1)))


def test_a_strip_shows_the_last_run_though_it_failed_and_what_is_found_of_each():
    told = terminal.text(unlucky()).splitlines()
    at = next(place for place, line in enumerate(told) if line.startswith("bnb4 on arc"))
    assert told[at].endswith("none: did not run")
    marks = told[at + 1].split()
    assert [len(one) for one in marks] == [4]
    assert marks[0].endswith("○")
    assert set(marks[0]) & set("?▼▲≈=")
    assert any(line.startswith("○ here: did not run") for line in told)


def test_strips_of_two_versions_have_two_labels():
    made = [make_run(4, n_items=40, seed=1)] * 2
    run = made[1][0]
    for result in run.results:
        run = with_cell(run, result.variant.name, "arc", task_version="2.0")
    told = terminal.text(lines(source(made[0]), source((run, *made[1][1:]), 2)))
    strips = " ".join(told.partition("The other lines")[2].split())
    assert "bnb4 on arc, version 1.0" in strips
    assert "bnb4 on arc, version 2.0" in strips


def test_a_variant_that_never_had_a_number_is_in_every_format():
    found = unlucky()
    of_it = [one for one in found.series if one.key.variant == "gptq"]
    assert {one.key.task for one in of_it} >= {"average", "arc"}
    assert all(len(one.points) == 4 and not one.measured and not one.own for one in of_it)
    assert "gptq on average" in terminal.text(found)
    assert "gptq on average" in page(found)
    assert "gptq on average" in documents.markdown(found)
    assert any(row["variant"] == "gptq" and "did not run" in row["lacks"] for row in documents.rows(found))


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 60, 80])
def test_it_fits_whatever_the_digits_and_however_many_runs(width):
    made = make_run(2, n_items=40, seed=1)
    found = lines(*(source(made, 1 + day % 28, id=f"run-{day}-{'x' * 30}") for day in range(90)))
    wild = []
    for one in found.series:
        points = [
            replace(
                point,
                n=123456789,
                revision="a-name-of-a-branch-that-is-long",
                comparison=point.comparison
                and replace(point.comparison, low=-12345.678, high=98765.432, n=123456789),
                value=None if point.value is None else point.value * 12345.678,
            )
            for point in one.points
        ]
        wild.append(replace(one, points=tuple(points)))
    for text in (
        terminal.text(replace(found, series=tuple(wild)), width=width),
        terminal.text(found, width=width),
    ):
        assert max(map(len, text.splitlines())) <= width


def test_pages_show_names_and_run_none(long):
    text = page(long)
    assert "<img" not in text
    assert "<script" not in text
    assert "\x1b" not in text
    assert "default-src 'none'" in unescape(text)
    assert text.count('class="strip"') == len(long.series)
    marked = documents.markdown(long)
    assert "<img" not in marked


def test_every_format_has_every_point(long):
    count = sum(len(one.points) for one in long.series)
    document = json.loads(json.dumps(documents.document(long), allow_nan=False))
    assert sum(len(one["points"]) for one in document["series"]) == count
    table = list(csv.DictReader(io.StringIO(as_csv(documents.rows(long)))))
    assert len(table) == count
    assert list(table[0]) == documents.columns()
    assert documents.markdown(long).count("| run-0") == count


def test_nothing_is_said_where_nothing_is_wanted():
    found = lines(source(arc()), variant="gptq")
    assert words.NOTHING in terminal.text(found)
    assert words.NOTHING in page(found)
    assert words.NOTHING in documents.markdown(found)
    assert documents.rows(found) == []


def test_the_limit_is_drawn_where_it_is():
    found = line(source(arc()), source(arc(effect=-0.1), 2))
    drawn = strip(found)
    zero, limit = drawn.zero, drawn.limit[0]
    assert zero < limit  # down is worse
    sides = [
        (mark.y < limit, point.value > -0.01) for mark, point in zip(drawn.marks, found.points, strict=True)
    ]
    assert [above for above, _ in sides] == [within for _, within in sides]
    assert drawn.limit[1] == "margin -1"


def test_an_interval_without_an_end_has_a_place():
    from qeval.compare.pairs import UNPAIRED

    made = make_run(2, (WIKI,), 30)
    run = made[0]
    for name in ("fp16", "bnb4"):
        run = with_cell(run, name, "wiki", files={})
    found = lines(source((run, *made[1:])), variant="bnb4").series[0]
    assert UNPAIRED in found.points[0].comparison.notes
    assert 0 <= strip(found).marks[0].high <= strip(found).height
    assert "a score without items" in found.points[0].lacks


def test_a_limit_that_the_gate_does_not_judge_by_says_so_at_its_chart():
    run, read, _ = make_run(2, (ARC, TRUTH), 100)
    policy = Policy((Rule(max_drop=1.0),))
    evidence = gather(run, read)
    drawn = _drawn(evidence, policy)
    assert "average" in drawn
    assert not drawn & {"arc", "truth"}
    assert "average" not in _drawn(evidence, Policy((Rule(tasks="average", max_drop=1.0),)))
    decisions = conclude(evidence, _with_means(policy)).decisions
    made = history([Source(run, read, evidence, decisions, drawn=drawn)], Wanted(), "--max-drop 1.0")
    told = {one.key.task: words.about(one) for one in made.series if not one.own}
    assert (
        "limit -1, of the tasks, drawn here for this mean, which the gate does not judge" in told["average"]
    )
    assert told["arc"].endswith("limit -1")


def test_a_mean_never_fails_by_a_limit_that_the_gate_does_not_judge_it_by():
    run, read, _ = make_run(2, (ARC, TRUTH), 3000, effect=-0.06, churn=0.06, seed=3)
    every, average = Rule(max_drop=3.0), Rule(tasks="average", max_drop=3.0)
    evidence = gather(run, read)

    def point(policy):
        decisions = conclude(evidence, _with_means(policy)).decisions
        source = Source(run, read, evidence, decisions, drawn=_drawn(evidence, policy))
        made = history([source], Wanted(task="average"), "--max-drop 3.0")
        (found,) = [one for one in made.series if not one.own]
        return replace(made, series=(found,)), found, found.points[0]

    shown, line, mean = point(Policy((every,)))
    assert (mean.judged, mean.drawn, mean.status, mean.allowed) == (False, True, "WORSE", 0.03)
    assert mean.words == "by the margin: worse than 1 point"
    assert words.about(line).endswith("which the gate does not judge: marks go by the margin")
    assert "✕" not in terminal.text(shown) + documents.markdown(shown) + page(shown)
    assert "▼" in terminal.text(shown)
    assert documents.document(shown)["series"][0]["points"][0]["drawn"]
    _, judged_line, judged = point(Policy((every, average)))
    assert (judged.judged, judged.drawn, judged.status) == (True, False, "FAIL")
    assert words.about(judged_line).endswith("limit -3")
