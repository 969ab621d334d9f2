"""What is kept of every item: its lines are lm-eval's own, lm-eval reads them, and `import` gives the run."""

import json
import logging
from dataclasses import fields, replace

import pytest
from lm_eval_runs import TASKS, answered, ours, theirs

from qeval.base.records import Cell, Item, Provenance, Result, Run, Samples, Scheme, Suite, Variant
from qeval.compare.evidence import gather
from qeval.exchange.export import export
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.score.harness import door
from qeval.score.harness.writing import Text
from qeval.store.runs import RunDir

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
KINDS = {
    "fix_letters": "multiple_choice",
    "fix_mutual": "multiple_choice",
    "fix_blanks": "multiple_choice",  # contexts are the choices, as in Winogrande
    "fix_several": "multiple_choice",
    "fix_mass": "multiple_choice",
    "fix_cloze": "loglikelihood",  # the last word, as in LAMBADA
    "fix_pages": "loglikelihood_rolling",
    "fix_sums": "generate_until",  # two filters
}
FILTERS = {"fix_sums": ["strict", "whole"]}


@pytest.fixture(autouse=True)
def _no_survey_of_the_machine(monkeypatch):
    """simple_evaluate asks pip, git and the compiler about the machine, for seconds."""
    from lm_eval import evaluator

    monkeypatch.setattr(evaluator, "add_env_info", lambda _: None)


def stored(name, place, model, tokenizer, fixtures, judged_by=None, **judge):
    """A run of one variant and one task: the run, its samples and items, read again, and the outcome."""
    (prepared,) = [ours(tokenizer, name, TASKS[name], fixtures)]
    judge["filter"] = judged_by or prepared.task.filter
    prepared = replace(prepared, task=replace(prepared.task, **judge))
    outcome = door.collect(prepared, answered(prepared, model, tokenizer))
    return *kept(prepared, outcome, place), outcome


def kept(prepared, outcome, place):
    """A run of one variant with this outcome, stored and read again: the run, its samples and its items."""
    cell = Cell(
        key="c" * 64,
        task=prepared.task,
        n=prepared.n,
        n_available=prepared.n_available,
        score=float(outcome.samples.value.sum() / outcome.samples.weight.sum()),
        metrics=outcome.metrics,
        task_version=prepared.version,
        output_type=prepared.output_type,
    )
    folder = RunDir(place)
    cell = folder.add(cell, outcome.samples, door.items(prepared))
    made = Variant("tiny", "org/tiny", Scheme("fp16"))
    result = Result(made, "done", (cell,), Provenance("org/tiny", versions={"lm_eval": "0.4.13"}))
    run = Run("kept", "2026-01-02T03:04:05Z", "org/tiny", Suite("kept", (cell.task,)), "tiny", (result,))
    assert folder.samples(cell).logged.tolist() == outcome.samples.logged.tolist()
    return run, folder.samples, folder.items


def lines_of(folder):
    (path,) = folder.rglob("samples_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged_by_lm_eval(name, folder, model, tokenizer, fixtures):
    """lm-eval's run of the task, written by its own tracker; its lines and results."""
    from lm_eval.loggers import EvaluationTracker

    found = theirs(model, tokenizer, name, TASKS[name], fixtures)
    samples = found.pop("samples")
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = "tiny"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples(task_name=name, samples=samples[name])
    return lines_of(folder)


def near(value):
    """A value of a line in which numbers, also those written as text, may differ in the last digits."""
    if isinstance(value, dict):
        return {key: near(part) for key, part in value.items()}
    if isinstance(value, list):
        return [near(part) for part in value]
    try:
        return pytest.approx(float(value), rel=1e-4, abs=1e-4) if not isinstance(value, bool) else value
    except (TypeError, ValueError):
        return value


def plain(value):
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    try:
        return float(value) if not isinstance(value, bool) else value
    except (TypeError, ValueError):
        return value


@pytest.mark.parametrize("name", KINDS)
def test_the_lines_are_those_that_lm_eval_writes(name, model, plain_tokenizer, fixtures, tmp_path):
    expected = logged_by_lm_eval(name, tmp_path / "theirs", model, plain_tokenizer, fixtures)
    run, read, read_items, _ = stored(name, tmp_path / "run", model, plain_tokenizer, fixtures, None)
    export(gather(run, read), read, read_items, "lm-eval", tmp_path / "ours")
    found = lines_of(tmp_path / "ours")
    assert [line["filter"] for line in found] == [line["filter"] for line in expected]
    assert list(dict.fromkeys(line["filter"] for line in found)) == FILTERS.get(name, ["none"])
    for mine, row in zip(found, expected, strict=True):
        assert mine.keys() - {"answer", "gold"} == row.keys()
        for key in row.keys() - {"doc"}:
            assert plain(mine[key]) == near(row[key]), key
    (results,) = (tmp_path / "ours").rglob("results_*.json")
    said = json.loads(results.read_text())
    assert said["configs"][name]["output_type"] == KINDS[name]


@pytest.mark.parametrize(("name", "judged_by"), [*((name, None) for name in KINDS), ("fix_sums", "whole")])
def test_the_run_comes_back(name, judged_by, model, plain_tokenizer, fixtures, tmp_path):
    """From our own files with every column, by the filter that judged, though it may not be the first."""
    run, read, read_items, _ = stored(name, tmp_path / "run", model, plain_tokenizer, fixtures, judged_by)
    export(gather(run, read), read, read_items, "lm-eval", tmp_path / "ours")
    again = import_lm_eval(tmp_path / "ours", name="tiny")
    (cell,), (other,) = run.results[0].cells, again.run.results[0].cells
    assert other.task == replace(cell.task, category=None, chance=None)
    assert (other.score, other.output_type) == (cell.score, cell.output_type)
    assert other.metrics == cell.metrics
    before, after = read(cell), again.samples[other.key]
    for column in fields(Samples):
        assert getattr(after, column.name).tolist() == getattr(before, column.name).tolist(), column.name
    kept, found = read_items(cell), {item.key: item for item in again.items[other.key]}
    for column in fields(Item):
        assert [getattr(found[key], column.name) for key in kept] == [
            getattr(item, column.name) for item in kept.values()
        ], column.name


def test_the_last_word_judged_by_perplexity_comes_back_so(model, plain_tokenizer, fixtures, tmp_path):
    judge = {"metric": "perplexity", "kind": "perplexity"}
    run, read, items, _ = stored("fix_cloze", tmp_path / "run", model, plain_tokenizer, fixtures, **judge)
    export(gather(run, read), read, items, "lm-eval", tmp_path / "ours")
    again = import_lm_eval(tmp_path / "ours", name="tiny")
    (cell,), (other,) = run.results[0].cells, again.run.results[0].cells
    assert (other.task.metric, other.task.kind, other.score) == ("perplexity", "perplexity", cell.score)
    assert other.output_type == "loglikelihood"
    for column in fields(Samples):
        before, after = (getattr(one, column.name) for one in (read(cell), again.samples[other.key]))
        assert after.tolist() == before.tolist(), column.name


@pytest.mark.parametrize("name", KINDS)
def test_what_lm_eval_wrote_is_exported_as_it_was(name, model, plain_tokenizer, fixtures, tmp_path):
    """Imported and exported again, nothing of lm-eval's lines is lost but the documents' own fields."""
    expected = logged_by_lm_eval(name, tmp_path / "theirs", model, plain_tokenizer, fixtures)
    made = import_lm_eval(tmp_path / "theirs", name="tiny")
    read, read_items = (
        lambda cell: made.samples[cell.key],
        lambda cell: {i.key: i for i in made.items[cell.key]},
    )
    export(gather(made.run, read), read, read_items, "lm-eval", tmp_path / "ours")
    for mine, row in zip(lines_of(tmp_path / "ours"), expected, strict=True):
        for key in row.keys() - {"doc"}:
            assert mine[key] == row[key], key


@pytest.mark.parametrize("name", KINDS)
def test_lm_eval_scores_what_is_exported_as_it_scored_the_model(
    name, model, plain_tokenizer, fixtures, tmp_path
):
    """Its own task object judges the exported answers, by every filter, and makes the exported numbers."""
    run, read, read_items, outcome = stored(name, tmp_path / "run", model, plain_tokenizer, fixtures, None)
    export(gather(run, read), read, read_items, "lm-eval", tmp_path / "ours")
    prepared = ours(plain_tokenizer, name, TASKS[name], fixtures)
    task, docs = prepared.view(), prepared.content.docs()
    values = {}
    for line in lines_of(tmp_path / "ours"):
        answers = [revived(answer, KINDS[name]) for answer in line["filtered_resps"]]
        for metric, value in task.process_results(docs[line["doc_id"]], answers).items():
            assert plain(json.loads(json.dumps(value))) == near(line[metric])
            values.setdefault(f"{metric},{line['filter']}", []).append(value)
    from lm_eval.api.metrics import mean

    found = {key: task.aggregation().get(key.partition(",")[0], mean)(some) for key, some in values.items()}
    assert found == pytest.approx(outcome.metrics, rel=1e-6, abs=1e-9)


def revived(answer, kind):
    """An answer as the model gave it, from lm-eval's text of it."""
    if kind == "generate_until":
        return answer
    return float(answer) if kind == "loglikelihood_rolling" else (float(answer[0]), answer[1] == "True")


def test_thinking_comes_back_though_lm_eval_reads_the_answers(plain_tokenizer, fixtures, tmp_path):
    """`resps` are what lm-eval given the marker logs; the whole texts stand beside them."""
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures)
    texts = [Text("<think>2</think>5", "5", "ended"), Text("17", "17"), Text("<think>8", "", "open")]
    outcome = door.collect(prepared, [*texts, Text("30", "30")])
    run, read, read_items = kept(prepared, outcome, tmp_path / "run")
    export(gather(run, read), read, read_items, "lm-eval", tmp_path / "ours")
    lines = [line for line in lines_of(tmp_path / "ours") if line["filter"] == "strict"]
    assert [line["resps"] for line in lines] == [[["5"]], [["17"]], [[""]], [["30"]]]
    assert [line.get("written") for line in lines] == [["<think>2</think>5"], None, ["<think>8"], None]
    again = import_lm_eval(tmp_path / "ours", name="tiny")
    (cell,), (other,) = run.results[0].cells, again.run.results[0].cells
    for column in fields(Samples):
        before, after = (getattr(one, column.name) for one in (read(cell), again.samples[other.key]))
        assert after.tolist() == before.tolist(), column.name


def test_repeats_come_back(plain_tokenizer, fixtures, tmp_path):
    """A line an item and filter: all texts, what the filter left of each, the mean of what each is worth."""
    writing = {"temperature": 0.9, "repeats": 2}
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures, writing=writing)
    texts = ["5", "it is 6", "17", "17", "a", "8", "<think>", "30"]
    outcome = door.collect(prepared, texts)
    run, read, read_items = kept(prepared, outcome, tmp_path / "run")
    export(gather(run, read), read, read_items, "lm-eval", tmp_path / "ours")
    first = next(line for line in lines_of(tmp_path / "ours") if line["filter"] == "strict")
    assert (first["resps"], first["filtered_resps"]) == ([["5", "it is 6"]], ["5", "6"])
    assert (first["exact_match"], first["answer"], first["metrics"]) == (0.5, "5 | 6", ["exact_match"])
    again = import_lm_eval(tmp_path / "ours", name="tiny")
    (cell,), (other,) = run.results[0].cells, again.run.results[0].cells
    assert other.task == replace(cell.task, category=None, chance=None)
    for column in fields(Samples):
        before, after = (getattr(one, column.name) for one in (read(cell), again.samples[other.key]))
        assert after.tolist() == before.tolist(), column.name


def test_texts_are_kept_whole(plain_tokenizer, fixtures):
    prepared = ours(plain_tokenizer, "fix_sums", 0, fixtures)
    texts = ["it is 5", "17, I think", "8\u2028!", "none"]
    samples = door.collect(prepared, texts).samples
    assert samples.written.tolist() == [(text,) for text in texts]
    assert samples.answer.tolist()[:3] == ["5", "17", "8"]
