"""Texts that are drawn several times: one row an item, its value the mean, all texts beside it."""

import logging
from dataclasses import fields, replace

import msgspec
import pytest
from lm_eval_runs import MAX_LENGTH, ours
from scripted import scripted
from small_jobs import a_job, score
from tiny_models import save_model

from qeval.base.errors import QevalError
from qeval.base.messages import Done, Finished
from qeval.base.records import Samples, Task
from qeval.score.harness import door

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
DRAWN = {"temperature": 0.9, "max_gen_toks": 20}
SCRIPT = {
    "2 plus 3": lambda time: ["5", "it is 5", "6", "<think>6?</think>5"][time],
    "10 plus 7": lambda _: "17",
    "4 plus 4": lambda time: f"<think>{time}",
    "21 plus 9": lambda time: ["", "31", "32", "30"][time],
}


def repeated(model, tokenizer, fixtures, **changes):
    """The task in four rounds, and what a scripted model writes."""
    prepared = ours(tokenizer, "fix_sums", 0, fixtures, writing={**DRAWN, "repeats": 4, **changes})
    return prepared, door.generate(prepared, scripted(model, tokenizer, SCRIPT), tokenizer, batch_size=3)


def test_a_value_is_the_mean_over_the_texts_of_an_item(model, plain_tokenizer, fixtures):
    prepared, texts = repeated(model, plain_tokenizer, fixtures)
    assert prepared.task.kind == "score"
    outcome = door.collect(prepared, texts)
    samples = outcome.samples
    assert samples.value.tolist() == [0.75, 1.0, 0.0, 0.25]
    assert samples.weight.tolist() == [1.0] * 4
    assert samples.written.tolist() == [
        ("5", "it is 5", "6", "<think>6?</think>5"),
        ("17",) * 4,
        ("<think>0", "<think>1", "<think>2", "<think>3"),
        ("", "31", "32", "30"),
    ]
    assert samples.answer.tolist()[0] == "5 | 5 | 6 | 5"
    assert outcome.metrics["exact_match,strict"] == 0.5
    assert outcome.metrics["exact_match,whole"] == (2 + 4 + 0 + 1) / 16
    notes, _ = door.remarks("fix_sums", texts, prepared.rounds)
    assert notes[0].startswith("fix_sums: each item was answered 4 times; its value is the mean")


def test_each_round_is_judged_as_it_would_be_alone(model, plain_tokenizer, fixtures):
    prepared, texts = repeated(model, plain_tokenizer, fixtures)
    alone = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing=DRAWN)
    assert alone.task.kind == "accuracy"
    rounds = [door.collect(alone, texts[at::4]).samples.value for at in range(4)]
    mean = sum(rounds) / 4
    assert door.collect(prepared, texts).samples.value.tolist() == mean.tolist()


def test_a_task_that_judges_texts_together_does_so_in_each_round(model, plain_tokenizer, fixtures):
    """The first of two counts, as its filter says."""
    prepared, texts = repeated(model, plain_tokenizer, fixtures, repeats=2)
    assert prepared.texts == 2
    both = replace(prepared, repeats=2)
    texts = door.generate(both, scripted(model, plain_tokenizer, SCRIPT), plain_tokenizer, batch_size=3)
    assert len(texts) == 16
    samples = door.collect(both, texts).samples
    assert samples.value.tolist() == [0.5, 1.0, 0.0, 0.0]
    assert [len(some) for some in samples.written] == [4] * 4


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_seed_gives_lm_evals_texts_and_the_same_again(size, model, plain_tokenizer, fixtures):
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={**DRAWN, "repeats": 3})
    state = torch.random.get_rng_state()
    first, again, other = (
        [text.answer for text in door.generate(prepared, model, plain_tokenizer, batch_size=size, seed=seed)]
        for seed in (7, 7, 8)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == again
    assert first != other
    assert len(set(first)) > 4
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm = HFLM(pretrained=model, tokenizer=plain_tokenizer, batch_size=size, max_length=MAX_LENGTH)
    asked = [
        Instance("generate_until", {}, pair, 0) for pair in prepared.content.arguments() for _ in range(3)
    ]
    torch.manual_seed(7)
    assert lm.generate_until(asked, disable_tqdm=True) == first


def test_repeats_of_the_likeliest_text_are_refused(plain_tokenizer, fixtures):
    with pytest.raises(QevalError, match="writes the most likely text") as told:
        ours(plain_tokenizer, "fix_sums", 0, fixtures, writing={"repeats": 3})
    assert "--temperature" in told.value.hint


def test_repeats_and_temperature_are_part_of_what_is_asked(plain_tokenizer, fixtures):
    asked = [
        ours(plain_tokenizer, "fix_sums", 0, fixtures, writing=writing).asked
        for writing in (None, DRAWN, {**DRAWN, "repeats": 2}, {**DRAWN, "repeats": 3}, {"temperature": 0.8})
    ]
    assert len(set(asked)) == 5


# --- through a whole job ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"))


def drawn(runs_dir, llama, fixtures, **settings):
    tasks = (Task("fix_sums", "exact_match", "whole", limit=3),)
    job = a_job(runs_dir, llama, tasks=tasks, tasks_dir=str(fixtures))
    asked = {"temperature": 0.9, "repeats": 3, "max_gen_toks": 5, **settings}
    found, events = score(msgspec.structs.replace(job, settings=replace(job.settings, **asked)))
    return found["fix_sums"], events


def test_the_same_command_gives_the_same_cell(tmp_path, llama, fixtures):
    one, events = drawn(tmp_path / "a", llama, fixtures)
    two, again = drawn(tmp_path / "b", llama, fixtures)
    for column in fields(Samples):
        assert getattr(one, column.name).tolist() == getattr(two, column.name).tolist()
    cells = [next(e.cell for e in some if isinstance(e, Finished)) for some in (events, again)]
    assert cells[0].key == cells[1].key
    assert (cells[0].n, cells[0].task.kind) == (3, "score")
    assert [len(texts) for texts in one.written] == [3] * 3
    assert len({text for texts in one.written for text in texts}) > 3
    [done] = [event for event in events if isinstance(event, Done)]
    told = (*done.provenance.notes, *done.provenance.warnings)
    assert any("each item was answered 3 times" in text for text in told)
    assert any("9 answers were cut by the budget of 5 tokens" in text for text in told)


def test_each_option_is_a_cell_of_its_own(tmp_path, llama, fixtures):
    asked = [
        {},
        {"repeats": 2},
        {"temperature": 0.8},
        {"max_gen_toks": 4},
        {"think_end": "</x>"},
        {"seed": 5},
        {"batch_size": "2"},
    ]
    keys = set()
    for settings in asked:
        _, events = drawn(tmp_path, llama, fixtures, **settings)
        keys |= {event.cell.key for event in events if isinstance(event, Finished)}
    assert len(keys) == len(asked)


def test_options_for_texts_are_refused_where_none_are_written(tmp_path, llama):
    job = a_job(tmp_path, llama)
    with pytest.raises(QevalError, match="In none of the tasks does the model generate text"):
        score(msgspec.structs.replace(job, settings=replace(job.settings, repeats=2)))
