"""The members of groups: what is said of them, and who stands among the most and the least harmed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import QUIZ, edited, make_run
from leaderboard import leaderboard

from qeval.compare.evidence import gather
from qeval.report.subjects import FEW, alike, extremes, sentences, subjects


@pytest.fixture(scope="module")
def found():
    run, read, _ = leaderboard(0.05)
    return run, subjects(gather(run, read))


def names_of(run):
    return [result.variant.name for result in run.results if result.variant.name != run.baseline]


def test_five_most_and_five_least_harmed_stand_apart(found):
    run, all_of_them = found
    for one in extremes(all_of_them, names_of(run)):
        own = sorted(s.shrunk for s in all_of_them if s.variant == one.variant)
        assert one.of == len(own) == 57
        shown = [placed.subject.shrunk for placed in (*one.worst, *one.best)]
        assert shown == pytest.approx([*own[:FEW], *own[-FEW:]])


def test_that_subjects_differ_no_more_than_noise_is_said_once():
    run, read, _ = make_run(3, (QUIZ,), n_items=400, churn=0.05)
    own = subjects(gather(run, read))
    flat = [replace(one, shrunk=-0.01) for one in own if one.variant == "bnb4"]
    apart = [replace(one, shrunk=one.value) for one in own if one.variant == "gptq"]
    (said,) = alike([*flat, *apart], ["bnb4", "gptq"])
    assert said.startswith(
        "quiz: with bnb4 the subjects differ no more than by noise, so each of them is pulled"
    )
    assert alike(apart, ["gptq"]) == ()
    (shown,) = extremes(flat, ["bnb4"])
    measured = [at.subject.value for at in shown.worst]
    assert measured == sorted(measured)


def test_a_small_group_stands_there_whole():
    run, read, _ = make_run(2, (QUIZ,), n_items=50)
    (one,) = extremes(subjects(gather(run, read)), ["bnb4"])
    assert (len(one.worst), one.best) == (3, ())


def test_places_keep_the_order_of_the_values(found):
    run, all_of_them = found
    for one in extremes(all_of_them, names_of(run)):
        for at in (*one.worst, *one.best):
            values = [at.subject.low, at.subject.value, at.subject.shrunk, 0.0, at.subject.high]
            places = [at.low, at.measured, at.pulled, at.zero, at.high]
            assert 0 < min(places) <= max(places) < 100
            assert sorted(places) == [place for _, place in sorted(zip(values, places, strict=True))]


def test_one_sentence_says_that_nothing_is_shown_or_what_is():
    run, read, _ = make_run(3, (QUIZ,), n_items=400, churn=0.05)
    unspoilt = subjects(gather(run, read))
    (said,) = sentences(unspoilt, ["bnb4", "gptq"])
    most = min(unspoilt, key=lambda one: one.value)
    assert said == (
        "quiz: no loss or gain is shown in any of its 3 subjects for any variant. The largest loss measured: "
        f"{most.variant} in {most.subject} ({most.delta}; {most.interval})."
    )
    cell = next(cell for cell in run.results[2].cells if cell.task.name == "quiz_law")
    answer, value = read(cell).answer.copy(), read(cell).value.copy()
    lost = np.flatnonzero(value == 1)[:60]
    value[lost] = 0.0
    answer[lost] = [str((int(one) + 1) % 4) for one in answer[lost]]
    spoilt = subjects(gather(run, edited(read, cell.key, answer=answer, value=value)))
    (said,) = sentences(spoilt, ["bnb4", "gptq"])
    (law,) = [one for one in spoilt if (one.variant, one.subject) == ("gptq", "law")]
    worst = f"law ({law.delta} measured; {law.interval})"
    others = "For the others none is proved in any subject, once all are corrected for."
    assert said == f"quiz: gptq: a loss is proved in 1 of 3: {worst}. {others}"
    assert [one.claim for one in spoilt if one.variant == "gptq"] == [0, 0, -1]
