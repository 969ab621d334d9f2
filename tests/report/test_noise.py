"""Every report states the noise floor beside flips and differences, and what the seed alone moves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from factories import ARC, QUIZ, WIKI, make_run
from noisy import flipped, repeated

from qeval.compare import noise, spread
from qeval.compare.evidence import gather
from qeval.report.cautions import cautions
from qeval.report.context import build
from qeval.report.formats import Options, formats
from qeval.report.noise import noise_of

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "run-v1.json"
UNMEASURED = "The noise floor was not measured (qeval run --repeat-baseline measures it)."


@pytest.fixture(scope="module")
def plain():
    return make_run(4, (ARC, QUIZ, WIKI), n_items=60, churn=0.03, seed=2)


@pytest.fixture(scope="module")
def noisy(plain):
    """A run with a floor, and with gptq made by two further seeds."""
    made = repeated(plain, lambda task, one: flipped(one, 4, 2, 1) if task == "arc" else one)
    for seed in (1, 2):
        name = f"gptq (seed {seed})"
        move = lambda task, one, n=seed: flipped(one, 2 * n, 0) if task == "arc" else one  # noqa: E731
        made = repeated(made, move, "gptq", name, path=False)
    return made


def rendered(made, ending: str, *, short: bool = False) -> str:
    run, read, read_items = made

    def items(cell):
        return {item.key: item for item in read_items(cell)}

    return formats()[ending].render(build(gather(run, read), items), Options(short=short))


def test_that_the_floor_decides_nothing_is_said_only_beside_a_proved_loss_within_it(noisy) -> None:
    made = make_run(2, (ARC,), n_items=2000, churn=0.0)
    run, read, items = made
    key = run.results[1].cells[0].key
    lossy = flipped(read(run.results[0].cells[0]), 60, 0)
    proved = repeated(
        (run, lambda cell: lossy if cell.key == key else read(cell), items),
        lambda _, one: flipped(one, 60, 0),
    )
    caveat = "The floor decides no verdict"
    assert caveat in noise_of(gather(*proved[:2])).within["bnb4"]
    near = noise.near(gather(*proved[:2]), "bnb4")
    assert near.proved
    assert near.caveat.startswith(caveat)
    assert not noise.near(gather(*noisy[:2]), "bnb4").proved
    told = noise_of(gather(*noisy[:2])).within["bnb4"]
    assert told.startswith("Within twice the noise floor on ")
    assert caveat not in told


def test_folded_notes_say_what_they_are_on(plain, noisy) -> None:
    def labelled(made, *notes):
        run, read = made[:2]
        first = run.results[1]
        made_by = replace(first.provenance, notes=notes)
        return cautions(
            gather(
                replace(run, results=(run.results[0], replace(first, provenance=made_by), *run.results[2:])),
                read,
            )
        ).label

    assert labelled(plain) == ""
    assert labelled(plain, "One way.", "Another.") == "2 notes on how single variants were made"
    assert labelled(noisy).endswith(" notes on noise")
    assert labelled(noisy, "One way.").endswith(" notes on noise and on how single variants were made")


WAYS = [(".html", False), (".md", False), (".md", True), (".txt", False), (".json", False)]


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "short"), WAYS)
def test_every_format_states_the_floor(plain, noisy, ending: str, short: bool) -> None:
    told = rendered(plain, ending, short=short)
    assert UNMEASURED in told.replace('<span class="keep">--repeat-baseline</span>', "--repeat-baseline")
    found = gather(*noisy[:2])
    text = rendered(noisy, ending, short=short).replace("\u2212", "-").replace("\u00d7", "x")
    assert UNMEASURED not in text
    assert "arc 7 of 60 answers changed (11.7%), Δ -3.33 points" in text
    assert "Not covered: another GPU, another library version." in text
    within = noise_of(found).within["bnb4"]
    if ending != ".json":
        assert within
        assert within in text
    for sentence in spread.sentences(found):
        assert sentence in text
    assert "gptq over 3 seeds" in text


def test_no_table_counts_a_repeat_among_the_variants(plain, noisy) -> None:
    one, two = (json.loads(rendered(made, ".json")) for made in (plain, noisy))
    assert one.pop("noise") != two.pop("noise")
    assert one.pop("cautions") != two.pop("cautions")
    assert one == two
    text = rendered(noisy, ".md")
    assert "3 variants and the baseline" in text
    assert "| gptq (seed 1)" not in text


@pytest.mark.slow
def test_the_tables_hold_every_row_of_the_summary(noisy) -> None:
    text = rendered(noisy, ".md")
    for line in (
        "| arc            |      60 |         7 |   11.7% |        -3.33 |",
        "| quiz (mean of 3) |",
        "| wiki ",
    ):
        assert "".join(line.split()) in "".join(text.split()), line
    page = rendered(noisy, ".html")
    assert page.count("Noise floor of fp16 by task") >= 1
    assert page.count("Spread over seeds by task") >= 1


@pytest.mark.slow
def test_the_document_is_valid_by_its_schema_and_says_all(noisy) -> None:
    made = json.loads(rendered(noisy, ".json"))
    jsonschema.validate(made, json.loads(SCHEMA.read_text()))
    told = made["noise"]
    assert (told["measured"], told["variant"]) == (True, "fp16 (again)")
    arc = next(one for one in told["floor"] if one["task"] == "arc")
    assert (arc["flips"], arc["share"]) == (7, pytest.approx(7 / 60))
    assert {"variant": "bnb4", "task": "wiki"} not in told["within_twice"]
    assert {len(one["deltas"]) for one in told["seeds"]} == {3}
    wiki = next(one for one in told["floor"] if one["task"] == "wiki")
    assert wiki["ratio"] == pytest.approx(1.0)


@pytest.mark.slow
def test_a_name_in_a_sentence_is_no_markup(plain) -> None:
    run, read, items = plain
    base = replace(run.results[0], variant=replace(run.results[0].variant, name="<b>x"))
    run = replace(run, baseline="<b>x", results=(base, *run.results[1:]))
    made = repeated((run, read, items), lambda _, one: one, "<b>x", "<b>x (again)")
    assert "Noise floor, &lt;b&gt;x scored again" in rendered(made, ".html")
    assert "Noise floor, &lt;b&gt;x scored again" in rendered(made, ".md")


@pytest.mark.slow
def test_how_to_read_it_stands_where_it_is_shown(plain, noisy) -> None:
    for ending in (".html", ".md"):
        assert "The baseline was scored twice" in rendered(noisy, ending)
        assert "The baseline was scored twice" not in rendered(plain, ending)
