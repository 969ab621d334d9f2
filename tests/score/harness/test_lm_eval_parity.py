"""The same tasks through lm_eval.simple_evaluate and through qeval: the same prompts, scores and metrics."""

import numpy as np
import pytest
from lm_eval_runs import MAX_LENGTH, TASKS, answered, ours, plain_scorer, theirs

from qeval.base.records import Task
from qeval.score.harness import door

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _no_survey_of_the_machine(monkeypatch):
    """simple_evaluate asks pip, git and the compiler about the machine, for seconds."""
    from lm_eval import evaluator

    monkeypatch.setattr(evaluator, "add_env_info", lambda _: None)


@pytest.mark.parametrize(
    ("name", "shots", "limit"),
    [*((name, shots, None) for name, shots in TASKS.items()), ("fix_endings", 3, 4), ("fix_pages", 0, 2)],
)
def test_samples_and_metrics_are_those_of_lm_eval(name, shots, limit, model, plain_tokenizer, fixtures):
    expected = theirs(model, plain_tokenizer, name, shots, fixtures, limit)
    prepared = ours(plain_tokenizer, name, shots, fixtures, limit)
    outcome = door.collect(prepared, answered(prepared, model, plain_tokenizer))

    logged = [row for row in expected["samples"][name] if row["filter"] == prepared.task.filter]
    logged.sort(key=lambda row: row["doc_id"])
    samples = outcome.samples
    assert prepared.n == len(samples) == len(logged)
    assert samples.key.tolist() == [str(row["doc_id"]) for row in logged]
    assert samples.doc_hash.tolist() == [row["doc_hash"] for row in logged]
    assert samples.prompt_hash.tolist() == [row["prompt_hash"] for row in logged]
    assert samples.target_hash.tolist() == [row["target_hash"] for row in logged]

    for at, row in enumerate(logged):
        value = row[prepared.task.metric]
        value, weight = value if isinstance(value, tuple) else (value, 1.0)
        assert samples.value[at] == pytest.approx(value, rel=1e-5, abs=1e-5)
        assert samples.weight[at] == weight
        if prepared.output_type in {"multiple_choice", "loglikelihood"}:
            said = [response[0][0] for response in row["resps"]]
            assert samples.scores[at] == pytest.approx(said[: len(samples.scores[at])], rel=1e-5, abs=1e-4)

    metrics = {key: value for key, value in expected["results"][name].items() if isinstance(value, float)}
    metrics = {key: value for key, value in metrics.items() if "_stderr" not in key}
    assert metrics
    assert outcome.metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    assert prepared.version == str(expected["versions"][name])
    assert prepared.n_available == expected["n-samples"][name]["original"]


@pytest.mark.parametrize("name", ["fix_letters", "fix_endings", "fix_pages", "fix_cloze"])
def test_hflm_on_the_original_texts_gives_the_scores_of_our_tokens(name, model, plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, name, TASKS[name], fixtures)
    reference = door.score_with_lm_eval(prepared, model, plain_tokenizer, batch_size=2)
    mine = plain_scorer(model, prepared.requests)
    assert [answer.loglikelihood for answer in reference] == pytest.approx(
        [answer.loglikelihood for answer in mine], rel=1e-5, abs=1e-4
    )
    assert [answer.greedy for answer in reference] == [answer.greedy for answer in mine]


def test_prompts_too_long_for_the_model_lose_their_beginning_as_in_lm_eval(model, plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_endings", 9, fixtures)
    expected = theirs(model, plain_tokenizer, "fix_endings", 9, fixtures)["samples"]["fix_endings"]
    outcome = door.collect(prepared, plain_scorer(model, prepared.requests))
    assert prepared.truncated == len(prepared.requests)
    assert max(len(request.tokens) for request in prepared.requests) == MAX_LENGTH + 1
    for mine, row in zip(outcome.samples.scores, expected, strict=True):
        assert mine == pytest.approx([response[0][0] for response in row["resps"]], rel=1e-5, abs=1e-4)


def test_a_long_page_is_scored_in_windows(plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_pages", 0, fixtures)
    windows = np.diff(prepared.content.spans)
    assert windows.max() > 1
    assert sum(request.n_scored for request in prepared.requests) == sum(
        len(plain_tokenizer.encode(page["page"])) for page in prepared.content.docs()
    )


def test_the_chat_template_is_applied_as_lm_eval_does(model, plain_tokenizer, fixtures):
    import copy

    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    expected = theirs(model, tokenizer, "fix_endings", 2, fixtures, apply_chat_template=True)
    prepared = ours(tokenizer, "fix_endings", 2, fixtures, chat_template=True)
    outcome = door.collect(prepared, plain_scorer(model, prepared.requests))
    logged = expected["samples"]["fix_endings"]
    assert outcome.samples.prompt_hash.tolist() == [row["prompt_hash"] for row in logged]
    for mine, row in zip(outcome.samples.scores, logged, strict=True):
        assert mine == pytest.approx([response[0][0] for response in row["resps"]], rel=1e-5, abs=1e-4)


def test_a_generating_task_answers_through_its_filter(plain_tokenizer, fixtures):
    task = Task("fix_sums", "exact_match", filter="whole")
    (prepared,) = door.prepare([task], plain_tokenizer, max_length=MAX_LENGTH, tasks_dir=fixtures)
    assert prepared.generates
    assert prepared.requests == ()
    outcome = door.collect(prepared, ["5", " 17", "8", "none"])
    assert outcome.samples.value.tolist() == [1, 0, 1, 0]
    assert outcome.samples.answer.tolist() == ["5", " 17", "8", "none"]
    assert outcome.samples.gold.tolist() == ["5", "17", "8", "30"]
    assert outcome.metrics["exact_match,strict"] == 0.75
