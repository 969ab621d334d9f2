"""The noise floor and the spread over seeds: what two scorings differ by, who is within it, and the words."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, conclude, make_run
from noisy import flipped, repeated

from qeval.base.errors import IncomparableError
from qeval.base.records import Policy, Provenance, Result, Rule
from qeval.compare import noise, spread
from qeval.compare.evidence import gather, with_baseline

UNKNOWN = "How much of a small change is noise of scoring itself is not known."
UNMEASURED = f"The noise floor was not measured (qeval run --repeat-baseline measures it). {UNKNOWN}"


def same(_, samples):
    return samples


def evidence(made, baseline=None):
    return gather(with_baseline(made[0], baseline), made[1])


def floors(made) -> dict[str, noise.Floor]:
    return {floor.row.id: floor for floor in noise.floors(evidence(made))}


def arc(lost: int, gained: int, other: int = 0):
    return lambda task, samples: flipped(samples, lost, gained, other) if task == "arc" else samples


# --- the floor ----------------------------------------------------------------------------------


def test_without_a_second_scoring_there_is_no_floor() -> None:
    found = evidence(make_run(3))
    assert noise.floors(found) == ()
    assert noise.sentence(found) == UNMEASURED
    assert noise.near(found, "bnb4") is None
    imported = replace(found.run, source="lm-eval 0.4.13")
    assert noise.sentence(replace(found, run=imported)) == f"The noise floor was not measured. {UNKNOWN}"


def test_flips_and_difference_between_the_two_scorings() -> None:
    found = floors(repeated(make_run(2, n_items=200), arc(3, 1, 2)))
    assert (found["arc"].flips, found["arc"].n) == (6, 200)
    assert found["arc"].delta == pytest.approx(-0.01)
    assert found["arc"].reach == pytest.approx(math.sqrt(4) / 200)
    assert found["quiz"].flips == 0
    assert found["quiz_macro"].flips is None
    assert found["truth"].flips is None
    assert found["average"].delta == pytest.approx(-0.01 / 3)


def test_a_difference_that_cancels_is_not_taken_for_no_noise() -> None:
    found = floors(repeated(make_run(2, n_items=200), arc(8, 8)))
    assert found["arc"].delta == 0
    assert found["arc"].reach == pytest.approx(4 / 200)
    assert found["average"].reach == pytest.approx(4 / 200 / 3)


def test_a_drift_that_all_items_share_is_the_floor() -> None:
    made = make_run(2, n_items=64, tasks=(WIKI,))
    found = floors(repeated(made, lambda _, one: replace(one, value=one.value - 0.01 * one.weight)))["wiki"]
    assert found.delta == found.delta == pytest.approx(-0.01)
    assert found.reach == pytest.approx(0.01)
    moved = np.random.default_rng(0).normal(0, 0.01, 64)
    found = floors(repeated(made, lambda _, one: replace(one, value=one.value + moved * one.weight)))["wiki"]
    weight = made[1](made[0].results[0].cells[0]).weight
    assert found.reach == pytest.approx(math.sqrt(((moved * weight) ** 2).sum()) / weight.sum())


@pytest.mark.slow
def test_the_root_is_the_standard_deviation_of_the_mean_of_a_group() -> None:
    """By simulation: members of 30, 60 and 120 items, each item moved by itself."""
    sizes = {"quiz_algebra": 30, "quiz_biology": 60, "quiz_law": 120}
    made = make_run(2, n_items=sizes, tasks=(QUIZ,))
    rng, deltas, reaches = np.random.default_rng(1), [], []
    for _ in range(300):
        move = lambda _, one: flipped(one, rng.binomial(len(one), 0.05), rng.binomial(len(one), 0.05))  # noqa: E731
        found = floors(repeated(made, move))["quiz_macro"]
        deltas.append(found.delta)
        reaches.append(max(found.reach, 0.0) ** 2)
    assert np.std(deltas) == pytest.approx(math.sqrt(np.mean(reaches)), rel=0.35)


def test_the_repeat_counts_nowhere_else() -> None:
    plain = make_run(3)
    made = repeated(plain, arc(3, 1))
    one, two = evidence(plain), evidence(made)
    assert one.comparisons == two.comparisons
    assert one.rows == two.rows
    policy = Policy((Rule(max_drop=50.0), Rule(max_ppl_ratio=2.0)))
    first, second = (conclude(run, read, policy) for run, read, _ in (plain, made))
    assert replace(first, notes=()) == replace(second, notes=())


def test_a_repeat_of_other_items_is_refused() -> None:
    other = repeated(make_run(2), lambda _, one: replace(one, prompt_hash=np.char.add(one.prompt_hash, "x")))
    with pytest.raises(IncomparableError, match="fp16 and fp16 \\(again\\): the prompt differs"):
        evidence(other)


def test_the_floor_is_the_baselines_own() -> None:
    made = repeated(make_run(3), arc(3, 1))
    told = noise.sentence(evidence(made, "bnb4"))
    assert told == f"The noise floor was not measured for bnb4; it was for fp16. {UNKNOWN}"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "failed", "error": "No kernel."}, ": fp16 (again) was not fully scored: No kernel."),
        ({"status": "partial"}, ": fp16 (again) was not fully scored."),
    ],
)
def test_a_second_scoring_that_broke_off_measures_nothing(changes, why: str) -> None:
    found = evidence(repeated(make_run(2), arc(3, 1), **changes))
    assert noise.sentence(found) == f"The noise floor was not measured{why} {UNKNOWN}"


def test_the_sentence_names_path_tasks_and_what_is_not_covered() -> None:
    run, read, items = make_run(2, n_items=200, tasks=(ARC, WIKI))
    base = replace(run.results[0], provenance=Provenance("toy", engine="tree", batch_size="auto"))
    made = repeated(
        (replace(run, results=(base, run.results[1])), read, items),
        arc(3, 1, 2),
        provenance=Provenance("toy", engine="plain", batch_size="6"),
    )
    assert noise.sentence(evidence(made)) == (
        "Noise floor, fp16 scored again (engine plain instead of tree, batch size 6, items in another order):"
        " arc 6 of 200 answers changed (3.0%), Δ -1.00 points; wiki perplexity x1.000. Not covered:"
        " another GPU, another library version."
    )


# --- within twice -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "inside"),
    [((4, 4), True), ((8, 2, 2), True), ((8, 2, 3), False), ((9, 2), False), ((0, 0), True)],
    ids=["cancels", "twice both", "flips over", "difference over", "identical"],
)
def test_who_is_within_twice_the_floor(candidate, inside: bool) -> None:
    """The floor: 6 flips, 4 of them between right and wrong, a difference of -1.5 points of 200 items."""
    run, read, items = make_run(2, n_items=200, tasks=(ARC,))
    changed = flipped(read(run.results[0].cells[0]), *candidate)
    key = run.results[1].cells[0].key
    made = repeated((run, lambda cell: changed if cell.key == key else read(cell), items), arc(4, 1, 1))
    assert floors(made)["arc"].reach == pytest.approx(0.015)
    told = "Within twice the noise floor on arc (floor ±1.50 points)."
    caveat = "The floor decides no verdict: a loss may be proved and yet lie within it."
    assert noise.near(evidence(made), "bnb4") == (noise.Near(told, caveat, proved=False) if inside else None)


def test_it_is_said_task_by_task_or_of_every_task() -> None:
    def noisy(task, one):
        if task in ("arc", "quiz_algebra", "quiz_biology", "quiz_law"):
            return flipped(one, 20, 10)
        return replace(one, value=one.value + 0.1 * one.weight)

    run, read, items = make_run(2, n_items=100, churn=0.05)
    found = evidence(repeated((run, read, items), noisy))
    told = noise.near(found, "bnb4").where
    assert all(f"{row} (floor " in told for row in ("arc", "truth", "average", "wiki"))
    only = evidence(
        repeated((run, read, items), lambda task, one: noisy(task, one) if task == "arc" else one)
    )
    alone = noise.near(only, "bnb4").where
    assert alone.startswith("Within twice the noise floor on arc (floor ")
    assert "truth" not in alone


def test_the_gate_says_it_and_judges_as_before() -> None:
    made = repeated(make_run(2, n_items=200, tasks=(ARC,), churn=0.02, seed=3), arc(4, 4, 9))
    outcome = conclude(*made[:2], Policy((Rule(max_drop=50.0),)))
    assert any(note.startswith("Noise floor, fp16 scored again") for note in outcome.notes)
    told = "bnb4 is within twice the noise floor on arc (floor "
    assert any(note.startswith(told) for note in outcome.notes)
    plain = conclude(*make_run(2, n_items=200, tasks=(ARC,), churn=0.02, seed=3)[:2], outcome.policy)
    assert (plain.exit, plain.decisions) == (outcome.exit, outcome.decisions)
    assert UNMEASURED in plain.notes


# --- the spread over seeds ----------------------------------------------------------------------


def seeded(made, *lost: int, of: str = "gptq"):
    """The made run with a further checkpoint of `of` for each number of right answers lost on arc."""
    for seed, number in enumerate(lost, 1):
        made = repeated(made, arc(number, 0), of, f"{of} (seed {seed})", path=False)
    return made


def test_the_spread_is_of_the_variant_and_its_repeats() -> None:
    made = seeded(make_run(3, n_items=200, tasks=(ARC,)), 2, 6)
    found = evidence(made)
    own = found.pairs["gptq", "arc"].delta
    [one] = spread.spreads(found)
    assert (one.variant, one.row.id) == ("gptq", "arc")
    assert one.deltas == pytest.approx((own, own - 0.01, own - 0.03))
    assert (one.low, one.median, one.high) == pytest.approx((own - 0.03, own - 0.01, own))


def test_schemes_closer_than_the_spread_are_told_apart_by_luck() -> None:
    run, read, items = make_run(4, n_items=200, tasks=(ARC,))
    base = read(run.results[0].cells[0])
    losses = {"bnb4": 10, "gptq": 4, "awq": 30}
    kept = {cell.key: one.variant.name for one in run.results for cell in one.cells}

    def answered(cell):
        return flipped(base, losses.get(kept[cell.key], 0), 0)

    found = evidence(seeded((run, answered, items), 0, 4))
    assert [(one, two, [row.id for row in rows]) for one, two, rows in spread.lucky(found)] == []
    found = evidence(seeded((run, answered, items), 0, 12))
    assert [(one, two, [row.id for row in rows]) for one, two, rows in spread.lucky(found)] == [
        ("bnb4", "gptq", ["arc"])
    ]
    assert spread.sentences(found) == (
        "gptq over 3 seeds, median (least to greatest): arc -2.00 (-8.00 to -2.00) points.",
        spread.LUCK,
        spread.ELSEWHERE,
        "bnb4 and gptq are closer than that on arc: choosing between them there is luck.",
        "Made only once, as no seed has an effect or no repeats were asked for: bnb4, awq.",
    )


def test_a_perplexitys_spread_is_in_ratios() -> None:
    made = make_run(3, n_items=50, tasks=(WIKI,))
    drift = repeated(
        made, lambda _, one: replace(one, value=one.value - 0.02 * one.weight), "gptq", "x", path=False
    )
    told = spread.sentences(evidence(drift))[0]
    own = evidence(drift).pairs["gptq", "wiki"].delta
    assert f"x{math.exp(-own + 0.01):.3f} (x{math.exp(-own):.3f} to x{math.exp(-own + 0.02):.3f})" in told


def test_a_repeat_that_broke_off_is_named_and_not_counted() -> None:
    made = repeated(make_run(3), same, "gptq", "gptq (seed 1)", path=False, status="failed", error="No text.")
    found = evidence(made)
    assert spread.spreads(found) == ()
    assert spread.sentences(found)[0] == "gptq (seed 1) was not fully scored: No text."


def test_a_baselines_own_spread_begins_at_nought() -> None:
    found = evidence(seeded(make_run(2, n_items=200, tasks=(ARC,)), 2, of="fp16"))
    assert [one.deltas for one in spread.spreads(found)] == [(0.0, pytest.approx(-0.01))]


def test_nothing_is_said_of_seeds_where_nobody_asked() -> None:
    assert spread.sentences(evidence(make_run(3, tasks=(ARC, TRUTH)))) == ()


def test_a_failed_baseline_has_neither() -> None:
    run, read, items = repeated(make_run(2), arc(3, 1))
    failed = Result(run.results[0].variant, "failed", error="no", again=run.results[0].again)
    found = evidence((replace(run, results=(failed, run.results[1])), read, items))
    assert noise.floors(found) == ()
