"""The five words: exactly one holds of any interval, and none says more than the interval does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner
from factories import ARC, TRUTH, WIKI, compare_run, make_run
from hypothesis import given
from hypothesis import strategies as st

from qeval.base.rules import BYTE_PERPLEXITY, BYTES_PER_WORD, WORD_PERPLEXITY
from qeval.cli.main import main
from qeval.compare.evidence import gather
from qeval.compare.margin import MARKS, Finding, Margin, phrase, status_of, telling

BOUNDS = st.one_of(st.floats(-3, 3), st.sampled_from((-1.0, 0.0, 1.0, float("inf"), float("-inf"))))
INTERVALS = st.tuples(BOUNDS, BOUNDS).map(sorted)
CLAIMS = st.sampled_from((-1, 0, 1))
MEANING = {
    "WORSE": lambda bounds, claim: bounds[1] < -1 and claim == -1,
    "BETTER": lambda bounds, claim: bounds[0] > 1 and claim == 1,
    "MEASURABLE": lambda bounds, claim: bounds[0] > -1 and bounds[1] < 1 and claim != 0,
    "EQUIVALENT": lambda bounds, claim: bounds[0] > -1 and bounds[1] < 1 and claim == 0,
    "UNDECIDED": lambda bounds, claim: (
        any(bounds[0] <= limit <= bounds[1] for limit in (-1, 1))
        or (bounds[1] < -1 and claim != -1)
        or (bounds[0] > 1 and claim != 1)
    ),
}
"""What each word promises, at a margin of 1; of the last that it is none of the others, in its own terms."""


@given(INTERVALS, CLAIMS)
def test_exactly_one_word_holds_and_it_is_the_one_that_is_said(interval, claim):
    low, high = interval
    assert [name for name in MARKS if MEANING[name]((low, high), claim)] == [status_of(low, high, 1.0, claim)]


@given(INTERVALS, CLAIMS)
def test_better_is_worse_seen_from_the_other_side(interval, claim):
    low, high = interval
    other = {"WORSE": "BETTER", "BETTER": "WORSE"}
    there = status_of(low, high, 1.0, claim)
    assert status_of(-high, -low, 1.0, -claim) == other.get(there, there)


@given(INTERVALS, CLAIMS, st.floats(0, 2), st.floats(0, 2))
def test_a_wider_interval_never_says_more(interval, claim, left, right):
    low, high = interval
    wider = status_of(low - left, high + right, 1.0, claim)
    assert wider in {status_of(low, high, 1.0, claim), "UNDECIDED"}


@given(INTERVALS, CLAIMS, st.floats(0.1, 3), st.floats(0.1, 3))
def test_a_wider_margin_never_makes_worse_what_was_equivalent(interval, claim, one, two):
    small, large = sorted((one, two))
    if status_of(*interval, small, claim) in {"EQUIVALENT", "MEASURABLE"}:
        assert status_of(*interval, large, claim) == status_of(*interval, small, claim)


def finding(task="arc", level="task", kind="accuracy", delta=0.0, half=0.001, claim=0, margin=None, p=0.5):
    shown = replace(compare_run(*make_run(2, (ARC,), 20)[:2])[0], task=task, level=level, kind=kind, p=p)
    shown = replace(shown, delta=delta, low=delta - half, high=delta + half)
    return Finding(shown, margin or Margin(), claim, 5)


def test_the_words_name_the_margin_in_its_own_unit():
    points, ratio = finding().comparison, finding(kind="perplexity").comparison
    assert [phrase(name, Margin(), points) for name in MARKS] == [
        "worse than 1 point",
        "undecided",
        "measurable, smaller than 1 point",
        "equivalent within 1 point",
        "better than 1 point",
    ]
    assert phrase("WORSE", Margin(0.5), points) == "worse than 0.5 points"
    assert phrase("EQUIVALENT", Margin(), ratio) == "equivalent within x1.10"
    assert phrase("BETTER", Margin(), ratio) == "better than x0.909"
    per_byte = replace(ratio, metric="byte_perplexity")
    assert phrase("WORSE", Margin(), per_byte) == "worse than x1.018"


@pytest.mark.parametrize(
    "metric",
    ["bits_per_byte", "bpb", "BPB", "bits_per_character", "bpc", "byte_perplexity,none", "Byte perplexity"],
)
def test_bits_and_perplexities_per_byte_or_character_have_the_margin_of_a_byte(metric):
    one = replace(finding(kind="perplexity").comparison, metric=metric)
    assert Margin().ratio_of(one) == BYTE_PERPLEXITY
    assert Margin().ratio_of(replace(one, metric="word_perplexity")) == WORD_PERPLEXITY
    assert Margin().ratio_of(replace(one, metric="perplexity")) == WORD_PERPLEXITY


def test_the_margin_per_byte_is_that_of_words():
    assert round(WORD_PERPLEXITY ** (1 / BYTES_PER_WORD), 3) == BYTE_PERPLEXITY
    assert Margin(ratio=1.2).per_byte() == round(1.2 ** (1 / BYTES_PER_WORD), 6)


def test_what_stays_open_is_said():
    open_loss = finding(delta=-0.012, half=0.005, claim=-1)
    assert open_loss.status == "UNDECIDED"
    assert open_loss.words == "undecided: a proved loss that may be smaller than 1 point"
    assert open_loss.sentence == "arc: Δ -1.20 points (95% interval -1.70 to -0.70)."
    risen = finding(delta=0.012, half=0.005, claim=1)
    assert risen.words == "undecided: a proved gain that may be smaller than 1 point"
    assert (
        replace(risen, of="on arc").said == "undecided on arc: a proved gain that may be smaller than 1 point"
    )
    lacking = replace(open_loss, missing=("gsm8k",), of="on arc")
    assert lacking.said == "undecided: gsm8k not scored"
    worse = finding(kind="perplexity", delta=-0.09, half=0.02, claim=-1)
    assert worse.words == "undecided: a proved loss that may be smaller than x1.10"
    chance = finding(delta=-0.02, half=0.005)
    assert (chance.status, chance.words) == ("UNDECIDED", "undecided")
    own = "The interval is this row's own: corrected for all 5 comparisons no"
    assert chance.sentence.endswith(f"{own} loss is proved.")
    assert finding(delta=0.02, half=0.005).sentence.endswith(f"{own} gain is proved.")
    assert replace(chance, of="on arc").sentence.endswith(f"{own} loss is proved there.")
    near = finding(delta=-0.0099999, half=0.00001, claim=-1)
    assert near.status == "UNDECIDED"
    assert "-0.99999 points" in near.sentence


def test_a_ruined_task_goes_before_a_harmless_average():
    average = finding("average", "average", delta=-0.001, half=0.005)
    assert average.status == "EQUIVALENT"
    ruined = finding("truth", delta=-0.05, half=0.01, claim=-1, p=0.001)
    open_loss = finding("arc", delta=-0.02, half=0.015, claim=-1, p=0.0001)
    small = finding("quiz", delta=-0.004, half=0.003, claim=-1, p=0.00001)
    assert telling([ruined, average, open_loss, small]) is ruined
    assert telling([average, open_loss, small]) is open_loss
    assert telling([small, average]) is average
    worse = finding("average", "average", delta=-0.03, half=0.005, claim=-1)
    assert telling([ruined, worse]) is worse
    assert telling([]) is None


def test_a_task_is_named_only_where_its_own_verdict_is_graver_than_the_averages():
    """The sentence of every report (`report.glossary.NAMING`)."""
    worse = {"delta": -0.05, "half": 0.01, "claim": -1}
    open_loss = {"delta": -0.012, "half": 0.009, "claim": -1}
    ruin = {"delta": -0.015, "half": 0.04}
    wide = {"delta": -0.004, "half": 0.03}
    fine = {"delta": 0.0, "half": 0.002}
    gravest_first = (worse, open_loss, ruin, fine)
    for grave, average in enumerate(gravest_first):
        for task in (*gravest_first, wide):
            own = gravest_first.index(task) if task in gravest_first else len(gravest_first)
            found = telling([finding("average", "average", **average), finding("hellaswag", **task)])
            assert (found.comparison.task == "hellaswag") == (own < grave)
    assert (
        telling([finding("average", "average", **wide), finding("hellaswag", **ruin)]).comparison.task
        == "average"
    )


def test_an_unproved_ruin_goes_before_a_word_that_all_is_well():
    fine = finding("arc", delta=-0.001, half=0.005)
    ruined = finding("gsm8k", delta=-0.15, half=0.13, p=0.02)  # and not to be claimed among so many
    unknown = finding("wiki", kind="perplexity", delta=-3.9, half=float("inf"), p=None)
    for found, told in (
        ([fine, ruined], ruined),
        ([fine, unknown], unknown),
        ([fine, ruined, unknown], unknown),
    ):
        assert telling(found) is told
        assert told.words == "undecided"
    small = finding("wiki", kind="perplexity", delta=-0.01, half=float("inf"), p=None)
    assert telling([fine, small]) is small
    few = finding("squad", delta=-0.002, half=2.0)
    assert (
        telling([fine, replace(few, comparison=replace(few.comparison, low=-1.0))]).comparison.task == "squad"
    )
    better = finding("average", "average", delta=0.03, half=0.01, claim=1)
    assert telling([better, ruined]) is ruined


def test_what_is_merely_uncertain_hides_no_equivalence():
    average = finding("average", "average", delta=-0.001, half=0.005)
    wide = finding("gsm8k", delta=-0.004, half=0.03)
    risen = finding("quiz", delta=0.03, half=0.04)
    assert telling([average, wide, risen]) is average
    open_average = finding("average", "average", delta=-0.004, half=0.03)
    assert telling([open_average, finding("gsm8k", delta=-0.15, half=0.2)]) is open_average


def test_findings_are_held_against_the_margin_that_was_asked_for():
    run, read, _ = make_run(2, (ARC, TRUTH, WIKI), 400, effect=-0.2, seed=3)
    evidence = gather(run, read)
    assert evidence.finding("bnb4").status == "WORSE"
    wide = replace(evidence, margin=Margin(90, 4))
    assert wide.finding("bnb4").status == "MEASURABLE"
    assert wide.finding("bnb4").words == "measurable, smaller than 90 points"


@pytest.mark.parametrize(
    "words", ["0", "100", "x1", "x0.9", "1,2", "x1.1,x1.2", "", "1e0", "-1", "nan", "1x"]
)
def test_a_margin_that_is_none_is_refused(words):
    found = CliRunner().invoke(main, ["show", "--margin", words])
    assert found.exit_code == 2
    assert "is not a margin. Write points, a ratio above 1, or both" in " ".join(found.output.split())
