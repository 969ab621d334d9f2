"""Items that share texts: every rule counts the texts, every output tells how many there are."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, conclude, context, judge, make_run, pair
from stored import whole

from qeval.ask.policy import from_max_drop
from qeval.base.records import Policy, Rule
from qeval.compare import stats
from qeval.compare.evidence import gather
from qeval.exchange.export import export
from qeval.judge.formats import formats as gate_formats
from qeval.judge.formats.json import document
from qeval.report.formats import Options, formats, terminal

N = 120


def clustered(tasks=(ARC,), size=4, effect=-0.02, only=("fp16", "bnb4"), **options):
    """A run of two variants of which each text stands behind `size` items, and readers of its cells."""
    run, read, items = make_run(2, tasks, N, effect, seed=3, **options)
    names = (np.arange(N) // size).astype(str)

    def shared(cell):
        samples = read(cell)
        mine = cell.key.partition("-")[0] in only
        return replace(samples, cluster=names[: len(samples)]) if mine else samples

    return run, shared, items


def decided(made, **limit):
    run, read, _ = made
    return judge(run, read, Policy((Rule(tasks=limit.pop("tasks", "*"), **limit),)))


# --- flips --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_a_limit_on_flips_counts_texts(size):
    made = clustered(size=size)
    [one] = decided(made, max_flips=0.5)
    run, read, _ = made
    first, second = (read(result.cells[0]) for result in run.results)
    changed = (first.answer != second.answer) | (first.value != second.value)
    clusters = np.arange(N) // size if size > 1 else None
    low, high = stats.changed_interval(changed, clusters, 0.9)
    assert (one.comparison.low, one.comparison.high) == pytest.approx((-high, -low))
    assert one.comparison.texts == (N // size if size > 1 else None)
    name = "Clopper-Pearson" if size == 1 else "Clopper-Pearson, or cluster-robust where wider"
    assert one.comparison.method == name


def test_flips_of_a_group_count_the_texts_of_its_members():
    [whole] = decided(clustered((QUIZ,), size=6), max_flips=0.5)
    assert (whole.task, whole.comparison.n, whole.comparison.texts) == ("quiz", 3 * N, 60)
    [alone] = decided(clustered((QUIZ,), only=()), max_flips=0.5)
    assert whole.comparison.low < alone.comparison.low


def test_answers_that_flip_with_their_text_do_not_pass_as_items():
    """Ten of a hundred items flip, all under the same two texts: a limit of 16% holds for items alone."""
    run, read, _ = make_run(2, (ARC,), 100, churn=0.0)
    base = read(run.results[0].cells[0])
    answer = base.answer.copy()
    answer[:10] = "9"
    for size, status in ((1, "PASS"), (5, "INCONCLUSIVE")):
        both = [
            replace(base, cluster=(np.arange(100) // size).astype(str), answer=one)
            for one in (base.answer, answer)
        ]
        read_both = lambda cell, both=both: both[cell.key.startswith("bnb4")]  # noqa: E731
        [one] = judge(run, read_both, Policy((Rule(max_flips=0.17),)))
        assert one.status == status


# --- few texts ----------------------------------------------------------------------------------

WHY = ", as its 120 items share only 15 texts, and 20 are needed to tell how texts differ."


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        (ARC, {"max_drop": 99.0}),
        (ARC, {"min_recovery": 0.01}),
        (ARC, {"max_flips": 0.99}),
        (TRUTH, {"max_drop": 99.0}),
        (WIKI, {"max_ppl_ratio": 99.0}),
    ],
)
def test_from_few_texts_nothing_is_decided_and_the_reason_is_told(task, limit):
    for effect in (0.0, -0.5):
        [one] = decided(clustered((task,), size=8, effect=effect), **limit)
        assert one.status == "INCONCLUSIVE"
        assert one.reason.endswith(WHY)
        assert one.items_needed_more is None
    [one] = decided(clustered((task,), size=6), **limit)
    assert one.status == "PASS"


def test_a_group_of_enough_texts_is_judged_by_them():
    found = decided(clustered((QUIZ,), size=8), tasks="quiz*", max_drop=99.0)
    assert {one.task: one.comparison.texts for one in found} == {
        "quiz": 45, "quiz_macro": 45, "quiz_algebra": 15, "quiz_biology": 15, "quiz_law": 15,
    }  # fmt: skip
    status = {one.task: one.status for one in found}
    assert (status["quiz"], status["quiz_macro"], status["quiz_law"]) == ("PASS", "PASS", "INCONCLUSIVE")


def test_what_would_decide_is_more_where_texts_are_shared():
    [shared], [alone] = (decided(clustered(only=only), max_drop=3.0) for only in (("fp16", "bnb4"), ()))
    assert shared.status == alone.status == "INCONCLUSIVE"
    assert shared.items_needed_more > alone.items_needed_more


# --- which is known -----------------------------------------------------------------------------


@pytest.mark.parametrize("only", [("fp16",), ("bnb4",), ("fp16", "bnb4")])
def test_what_is_known_of_one_variant_holds_for_both(only):
    run, read, _ = clustered(only=only)
    assert [one.texts for one in pair(run, read)] == [30, None]  # arc, and the average
    assert gather(run, read).texts(gather(run, read).rows[0]) == 30


def test_of_two_that_know_unlike_texts_the_fewer_hold():
    run, read, _ = clustered()

    def unlike(cell):
        samples = read(cell)
        finer = (np.arange(N) // 2).astype(str)
        return replace(samples, cluster=finer) if cell.key.startswith("fp16") else samples

    assert pair(run, unlike)[0].texts == 30


# --- told ---------------------------------------------------------------------------------------


def outputs(made):
    run, read, read_items = made
    built = context(run, read, lambda cell: {item.key: item for item in read_items(cell)})
    return built, {name: one.render(built, Options()) for name, one in formats().items()}


@pytest.mark.slow
def test_every_report_tells_texts_beside_items_and_only_where_some_are_shared():
    built, told = outputs(clustered((ARC, QUIZ, TRUTH)))
    assert all("120 in 30 texts" in text for name, text in told.items() if name != ".json")
    assert "360 in 90 texts" in told[".md"]
    assert "the texts count as independent" in told[".md"]
    assert "30 texts" in terminal.summary(built.evidence)
    _, plain = outputs(clustered((ARC, QUIZ, TRUTH), only=()))
    assert not any(" texts" in text for name, text in plain.items() if name in (".md", ".txt"))


def test_a_run_of_one_variant_tells_the_texts_that_its_cells_store():
    run, read, items = clustered((ARC, QUIZ))
    cells = tuple(replace(cell, texts=30) for cell in run.results[0].cells)
    alone = replace(run, results=(replace(run.results[0], cells=cells),))
    _, told = outputs((alone, read, items))
    assert "120 in 30 texts" in told[".txt"]
    assert "360 in 90 texts" in told[".txt"]
    same = tuple(replace(cell, texts=N) for cell in cells)
    _, told = outputs((replace(run, results=(replace(run.results[0], cells=same),)), read, items))
    assert " texts" not in told[".txt"]


@pytest.mark.slow
def test_files_for_machines_tell_texts(tmp_path):
    run, read, read_items = clustered((ARC, TRUTH))
    evidence = gather(run, read)
    keyed = lambda cell: {item.key: item for item in read_items(cell)}  # noqa: E731
    export(evidence, read, keyed, "csv", tmp_path)
    for name in ("scores", "comparisons"):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            assert {row["task"]: row["texts"] for row in csv.DictReader(file)} == {
                "arc": "30", "truth": "30", "average": "",
            }  # fmt: skip
    report = json.loads(outputs((run, read, read_items))[1][".json"])
    for rows in (report["comparisons"], report["variants"][0]["scores"]):
        assert {row["task"]: row["texts"] for row in rows} == {"arc": 30, "truth": 30, "average": None}
    outcome = conclude(run, read, Policy((Rule(max_drop=9.0),)))
    assert {one["comparison"]["texts"] for one in document(outcome)["decisions"]} == {30}
    few = clustered((ARC,), size=8)
    outcome = conclude(*few[:2], Policy((Rule(max_drop=9.0),)))
    assert all(
        "share only 15 texts" in " ".join(gate_formats()[n].render(outcome).split())
        for n in ("table", "junit")
    )


def test_a_limit_that_nobody_wrote_says_whose_it_is():
    run, read, _ = whole(tasks=(ARC, WIKI), effect=-0.3)
    told = "x1.10 allowed (qeval's own limit beside max_drop; max_ppl_ratio sets another): fails."
    found = {
        name: unescape(gate_formats()[name].render(conclude(run, read, from_max_drop(["60"]))))
        for name in ("table", "junit", "github")
    }
    assert all(told in " ".join(text.replace("\\", "").split()) for text in found.values()), found
    written = conclude(
        run, read, Policy((Rule(max_drop=60.0), Rule(metric="word_perplexity", max_ppl_ratio=1.1)))
    )
    assert "x1.10 allowed: fails." in gate_formats()["table"].render(written)


# --- items needed ---------------------------------------------------------------------------------


def needed(duplicates: int, effect: float = 0.0, churn: float = 0.0) -> int:
    """The items that decide a limit of a point where so many pairs of items share a text."""
    run, read, _ = make_run(2, (ARC,), N, effect, seed=3, churn=churn)
    names = np.arange(N)
    names[: 2 * duplicates] //= 2
    [one] = judge(
        run, lambda cell: replace(read(cell), cluster=names.astype(str)), Policy((Rule(max_drop=1.0),))
    )
    assert one.comparison.texts == (N - duplicates if duplicates else None)
    assert one.status == "INCONCLUSIVE", one.reason
    return one.items_needed_more + N


@pytest.mark.parametrize("duplicates", [1, 2, 6])
def test_the_items_needed_hardly_change_where_few_items_share_a_text(duplicates):
    alone = needed(0)
    assert needed(duplicates) == pytest.approx(alone, rel=0.2)
    assert needed(duplicates, 0.02, 0.1) == pytest.approx(needed(0, 0.02, 0.1), rel=0.4)
