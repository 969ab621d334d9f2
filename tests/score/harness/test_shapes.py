"""Five shapes of tasks, with data of our own, by a run's engine: every answer is lm-eval's own."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lm_eval_runs import MAX_LENGTH, ours, theirs

from qeval.score.engine.engine import open_engine
from qeval.score.harness import door

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

HERE = Path(__file__).parent / "shapes"
WINDOW = 24
SHAPES = {"shape_gap": 0, "shape_last": 0, "shape_passage": 2, "shape_tale": 0}


@pytest.fixture(autouse=True)
def _here(_here, monkeypatch):
    """lm-eval looks for a task's files in the working directory, and asks pip and git about the machine."""
    from lm_eval import evaluator

    monkeypatch.chdir(HERE)
    monkeypatch.setattr(evaluator, "add_env_info", lambda _: None)


@pytest.fixture(scope="module")
def windowed(plain_tokenizer):
    """A model whose first layer sees the last WINDOW tokens and whose second sees all."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(3)
    config = Gemma2Config(
        vocab_size=len(plain_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=MAX_LENGTH,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.5,
        bos_token_id=plain_tokenizer.bos_token_id,
        eos_token_id=plain_tokenizer.eos_token_id,
        pad_token_id=plain_tokenizer.eos_token_id,
    )
    return Gemma2ForCausalLM(config).float().eval()


@pytest.fixture(scope="module")
def everything(plain_tokenizer, windowed):
    """Every task and its answers, by one engine that was opened with the requests of all of them."""
    with contextlib.chdir(HERE):
        prepared = {name: ours(plain_tokenizer, name, shots, HERE) for name, shots in SHAPES.items()}
    sample = [request for task in prepared.values() for request in task.requests]
    engine = open_engine(windowed, sample=sample)
    assert engine.path == "tree", engine.note
    return {name: (task, dict(engine.score(task.requests))) for name, task in prepared.items()}


def logged(name, model, tokenizer, chosen=None):
    """lm-eval's lines of a task, by one of its filters, in the order of the documents; and its metrics."""
    found = theirs(model, tokenizer, name, SHAPES.get(name, 2), HERE)
    rows = [row for row in found["samples"][name] if chosen is None or row["filter"] == chosen]
    rows.sort(key=lambda row: row["doc_id"])
    metrics = {key: value for key, value in found["results"][name].items() if isinstance(value, float)}
    return rows, {key: value for key, value in metrics.items() if "_stderr" not in key}


@pytest.mark.parametrize("name", SHAPES)
def test_every_answer_is_lm_evals(name, everything, windowed, plain_tokenizer):
    task, answers = everything[name]
    rows, metrics = logged(name, windowed, plain_tokenizer)
    said = [response[0] for row in rows for response in row["resps"]]
    spans = np.diff(task.content.spans)
    assert len(said) == len(spans)
    begin = 0
    for theirs_, count in zip(said, spans, strict=True):
        mine = [answers[i] for i in range(begin, begin + count)]
        tokens = sum(task.requests[i].n_scored for i in range(begin, begin + count))
        begin += count
        value, greedy = theirs_ if isinstance(theirs_, tuple | list) else (theirs_, None)
        assert abs(sum(answer.loglikelihood for answer in mine) - value) < 1e-4 * tokens
        if greedy is not None:
            assert [answer.greedy for answer in mine] == [greedy]
    outcome = door.collect(task, [answers[i] for i in range(len(task.requests))])
    assert outcome.metrics == pytest.approx(metrics, rel=1e-4)
    assert outcome.samples.prompt_hash.tolist() == [row["prompt_hash"] for row in rows]
    assert outcome.samples.target_hash.tolist() == [row["target_hash"] for row in rows]


def test_choices_are_beginnings_and_one_ending_is_scored_after_both(everything):
    task, _ = everything["shape_gap"]
    for first, second in zip(task.requests[::2], task.requests[1::2], strict=True):
        assert first.n_scored == second.n_scored
        assert first.tokens[-first.n_scored :].tolist() == second.tokens[-second.n_scored :].tolist()
        assert first.tokens.tolist() != second.tokens.tolist()


def test_questions_share_their_passage_and_tales_go_beyond_both_windows(everything):
    passage, _ = everything["shape_passage"]
    assert min(len(request.tokens) for request in passage.requests) > WINDOW
    tale, _ = everything["shape_tale"]
    assert np.diff(tale.content.spans).tolist()[0] > 3
    assert max(len(request.tokens) for request in tale.requests) == MAX_LENGTH + 1


@pytest.mark.parametrize("judge", ["strict", "flexible"])
def test_generated_texts_and_what_two_filters_find_in_them_are_lm_evals(judge, windowed, plain_tokenizer):
    task = ours(plain_tokenizer, "shape_steps", 2, HERE)
    task = replace(task, task=replace(task.task, filter=judge))
    texts = door.generate(task, windowed, plain_tokenizer, batch_size=3)
    rows, metrics = logged("shape_steps", windowed, plain_tokenizer, judge)
    assert [text.whole for text in texts] == [row["resps"][0][0] for row in rows]
    outcome = door.collect(task, texts)
    assert outcome.samples.value.tolist() == [row["exact_match"] for row in rows]
    assert outcome.samples.answer.tolist() == [row["filtered_resps"][0] for row in rows]
    assert outcome.metrics == pytest.approx(metrics)
    found = [answer for answer in outcome.samples.answer.tolist() if answer != "[invalid]"]
    assert bool(found) == (judge == "flexible")  # a random model repeats one sign
    assert set(outcome.metrics) == {"exact_match,strict", "exact_match,flexible"}
