"""Other ways out, each read back by its consumer's own reader."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from factories import ARC, compare_run, hashes, make_cell, make_result, make_run

from qeval.base.errors import QevalError, UsageError
from qeval.base.records import Item, Run, Samples, Scheme, Suite, Task
from qeval.compare.evidence import gather
from qeval.exchange.export import EXPORTS, export
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.store.runs import Store

NASTY = 'a, "quoted" <b>text</b>\nwith | lines \u202e\u2028 and 🏴‍☠️'


@pytest.fixture(scope="module")
def made():
    """A run of two variants whose items come from data sets of the Hub, and readers of its cells."""
    run, read, read_items = make_run(2, n_items=25, churn=0.3, seed=5)
    results = tuple(
        replace(r, cells=tuple(replace(c, dataset="example-org/quiz, main, split test") for c in r.cells))
        for r in run.results
    )
    run = replace(run, results=results)

    def items(cell):
        return {item.key: replace(item, question=NASTY) for item in read_items(cell)}

    return gather(run, read), read, items


@pytest.fixture(scope="module")
def benchmarks():
    """A run of which two tasks are benchmarks of the Hub, from data sets at a commit."""
    tasks = [replace(ARC, name=name, metric="acc") for name in ("gsm8k", "gpqa_diamond_zeroshot", "arc")]
    run, read, read_items = make_run(2, tasks, n_items=25, churn=0.3, seed=5)
    sets = {
        "gsm8k": f"openai/gsm8k, main, split test, revision {'a' * 40}, documents abc",
        "gpqa_diamond_zeroshot": "Idavidrein/gpqa, gpqa_diamond, split train, documents abc",
        "arc": "allenai/ai2_arc, ARC-Challenge, split test, documents abc",
    }
    results = tuple(
        replace(r, cells=tuple(replace(c, dataset=sets[c.task.name]) for c in r.cells)) for r in run.results
    )
    run = replace(run, results=results, qeval_version="1.2.3")
    return gather(run, read), read, read_items


@pytest.mark.parametrize("to", list(EXPORTS))
def test_every_form_writes_what_it_says_it_wrote(made, benchmarks, tmp_path, to):
    paths = export(*(benchmarks if to == "eval-results" else made), to, tmp_path / "out")
    assert paths
    assert sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted(paths)
    assert all(path.stat().st_size for path in paths)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *(
            (text, f"'{text}")
            for text in ("=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "-", "=")
        ),
        *((text, text) for text in ("-3", "+4.5", "-1e-5", "a=b", "", " plain", "'=1", "1+1")),
    ],
)
def test_a_spreadsheet_takes_no_text_for_a_formula(made, tmp_path, text, cell):
    evidence, read, _ = made

    def items(cell):
        return {item.key: replace(item, question=text, gold=text) for item in made[2](cell).values()}

    export(evidence, read, items, "csv", tmp_path)
    with (tmp_path / "texts.csv").open(newline="") as file:
        assert {row["question"] for row in csv.DictReader(file)} == {cell}
    with (tmp_path / "comparisons.csv").open(newline="") as file:
        assert all(float(row["delta"]) is not None for row in csv.DictReader(file))  # numbers stay numbers


def test_csv_holds_every_item_and_text_as_it_is(made, tmp_path):
    evidence, read, _ = made
    run, comparisons = evidence.run, evidence.comparisons
    export(*made, "csv", tmp_path)
    with (tmp_path / "items.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [(result, cell) for result in run.results for cell in result.cells]
    assert len(rows) == sum(cell.n for _, cell in cells)
    first = read(cells[0][1])
    assert float(rows[0]["value"]) == first.value[0]
    assert json.loads(rows[0]["scores"]) == list(first.scores[0])
    with (tmp_path / "texts.csv").open(newline="") as file:
        assert {row["question"] for row in csv.DictReader(file)} == {NASTY}
    with (tmp_path / "comparisons.csv").open(newline="") as file:
        assert [float(row["delta"]) for row in csv.DictReader(file)] == [one.delta for one in comparisons]


def test_parquet_is_read_by_arrow_with_types(made, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    export(*made, "parquet", tmp_path)
    table = pq.read_table(tmp_path / "items.parquet")
    assert table.schema.field("value").type == pa.float64()
    assert pa.types.is_list(table.schema.field("scores").type)
    evidence, read, _ = made
    run = evidence.run
    expected = read(run.results[0].cells[0])
    got = table.slice(0, len(expected)).to_pydict()
    assert got["value"] == expected.value.tolist()
    assert [tuple(scores) for scores in got["scores"]] == expected.scores.tolist()


def test_the_hubs_reader_finds_every_score_in_the_model_card(made, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    paths = export(*made, "model-card", tmp_path)
    card = huggingface_hub.ModelCard.load(paths[1])
    results = {result.dataset_name: result for result in card.data.eval_results}
    comparison = next(one for one in made[0].comparisons if one.task == "arc")
    assert results["arc"].metric_value == pytest.approx(100 * comparison.candidate, abs=1e-3)
    assert results["arc"].dataset_type == "example-org/quiz"
    assert "points against fp16 (95% interval" in results["arc"].metric_name
    assert "quiz_macro (unweighted mean of subjects)" in results
    assert results["wiki"].metric_value > 1
    again = huggingface_hub.ModelCard(str(card))
    assert len(again.data.eval_results) == len(results)


def entries_of(paths, variant):
    """What huggingface_hub reads in the files of a variant, by the task's id."""
    import huggingface_hub
    import yaml

    files = [path for path in paths if path.parts[-3].endswith(variant)]
    assert all(path.parent.name == ".eval_results" for path in files)
    read = [huggingface_hub.parse_eval_result_entries(yaml.safe_load(path.read_text())) for path in files]
    return {entry.task_id: entry for [entry] in read}


def test_the_hubs_reader_finds_the_difference_in_eval_results(benchmarks, tmp_path):
    told = []
    url = "https://example.org/runs/1"
    paths = export(*benchmarks, "eval-results", tmp_path, url=url, tell=told.append)
    entries = entries_of(paths, "bnb4")
    assert set(entries) == {"gsm8k", "diamond"}
    comparison = next(one for one in benchmarks[0].comparisons if one.task == "gsm8k")
    found = entries["gsm8k"]
    assert (found.dataset_id, found.dataset_revision) == ("openai/gsm8k", "a" * 40)
    assert found.value == pytest.approx(100 * comparison.candidate, abs=1e-3)
    assert (found.source_url, found.source_name) == (url, "qeval 1.2.3")
    assert "against fp16" in found.notes
    assert found.date == "2026-01-02T03:04:05Z"
    assert entries["diamond"].dataset_revision is None
    assert told == [
        "Left out, for no benchmark of the Hub is known to be theirs: arc. (--to model-card takes any task.)"
    ]


def test_the_entries_are_those_that_huggingface_hub_writes(benchmarks, tmp_path):
    import huggingface_hub
    import yaml

    for path in export(*benchmarks, "eval-results", tmp_path, url="https://example.org"):
        written = yaml.safe_load(path.read_text())
        entries = huggingface_hub.parse_eval_result_entries(written)
        assert huggingface_hub.eval_result_entries_to_yaml(entries) == written


def test_a_part_of_the_items_is_no_result_of_a_benchmark(benchmarks, tmp_path):
    evidence, read, items = benchmarks
    results = tuple(
        replace(
            result,
            cells=tuple(
                replace(cell, n_available=100) if cell.task.name == "gsm8k" else cell for cell in result.cells
            ),
        )
        for result in evidence.run.results
    )
    told = []
    limited = gather(replace(evidence.run, results=results), read)
    paths = export(limited, read, items, "eval-results", tmp_path, tell=told.append)
    assert set(entries_of(paths, "bnb4")) == {"diamond"}
    assert "Left out where only a part of the items was scored: gsm8k." in told
    assert any("--source-url" in one for one in told)


def test_every_benchmark_cites_where_its_id_is_told() -> None:
    from qeval.exchange.benchmarks import BENCHMARKS

    assert all(one.source.startswith("https://") and one.rows for one in BENCHMARKS)
    assert len({(one.dataset, one.task_id) for one in BENCHMARKS}) == len(BENCHMARKS)


@pytest.mark.torch
def test_the_rows_of_benchmarks_are_tasks_of_lm_eval_on_their_data_sets() -> None:
    from fnmatch import fnmatchcase

    from qeval.exchange.benchmarks import BENCHMARKS
    from qeval.score.harness.catalogue import known_tasks
    from qeval.score.harness.leaves import expand

    for one in BENCHMARKS:
        names = [name for name in known_tasks() if any(fnmatchcase(name, row) for row in one.rows)]
        assert names
        leaves = [leaf for name in names for leaf in expand([Task(name, "")], None, None)]
        assert {leaf.config["dataset_path"] for leaf in leaves} == {one.dataset}
        if one.task_id == "diamond":
            assert {leaf.config["dataset_name"] for leaf in leaves} == {"gpqa_diamond"}


def test_eval_results_need_a_benchmark_of_the_hub(tmp_path):
    run, read, items = make_run(2, n_items=5)
    with pytest.raises(QevalError, match="No task of the run is a benchmark of the Hub") as caught:
        export(gather(run, read), read, items, "eval-results", tmp_path / "out")
    assert "openai/gsm8k" in caught.value.hint
    assert not (tmp_path / "out").exists()
    assert export(gather(run, read), read, items, "model-card", tmp_path / "out")  # the remedy


def card_of(tmp_path, **changes):
    """The card of a candidate of a model on the Hub, with what was loaded changed."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    run, read, items = make_run(2, n_items=5)
    base, other = run.results
    told = {"revision": "b" * 40, "versions": {"transformers": "5.0"}, **changes.pop("provenance", {})}
    other = replace(
        other,
        variant=replace(other.variant, model="org/base", **changes),
        provenance=replace(other.provenance, **told),
    )
    run = replace(run, results=(base, other), command=("qeval", "run", "--model", "org/base"))
    paths = export(gather(run, read), read, items, "model-card", tmp_path, url="https://example.org")
    return huggingface_hub.ModelCard.load(paths[1])


def test_a_card_tells_the_base_model_and_how_it_is_loaded(tmp_path):
    quantization = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    notes = ("gptq is quantised here, with 128 samples of 2048 tokens of calibration text (c4, seed 1).",)
    provenance = {"quantization": quantization, "notes": notes, "bits_per_weight": 4.25}
    card = card_of(tmp_path, scheme=Scheme("gptq"), provenance=provenance)
    assert card.data.base_model == "org/base"
    assert card.data.to_dict()["base_model_relation"] == "quantized"
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert card.data.tags == ["quantized", "gptq"]
    for row in (
        "| bits | 4 |",
        "| group size | 128 |",
        "| bits of a weight with its scales | 4.25 |",
        "| calibration | 128 samples of 2048 tokens of calibration text (c4, seed 1) |",
    ):
        assert row in card.text
    assert 'AutoModelForCausalLM.from_pretrained("<this repository>"' in card.text
    assert "transformers 5.0" in card.text
    assert "https://example.org" in card.text
    assert "qeval run --model org/base" in card.text
    assert {result.source_url for result in card.data.eval_results} == {"https://example.org"}


def test_a_command_does_not_end_its_block_of_code(tmp_path):
    run, read, items = make_run(2, n_items=5)
    run = replace(run, command=("qeval", "run", "--model", "````\n# Not a heading"))
    [path, _] = export(gather(run, read), read, items, "model-card", tmp_path)
    assert "\n`````\nqeval run" in path.read_text()


def test_a_card_of_plain_weights_claims_no_quantisation(tmp_path):
    card = card_of(tmp_path, scheme=Scheme("bf16"))
    assert "base_model_relation" not in card.data.to_dict()
    assert card.data.tags == ["bf16"]
    assert "## Weights" in card.text


def test_a_card_names_no_directory_as_a_model_of_the_hub(tmp_path):
    card = card_of(tmp_path, provenance={"revision": None, "fingerprint": "c" * 64})
    assert card.data.base_model is None
    assert "base_model_relation" not in card.data.to_dict()


@pytest.mark.torch
def test_lm_evals_own_reader_finds_its_files_and_scores(made, tmp_path):
    from lm_eval import utils

    paths = [str(path) for path in export(*made, "lm-eval", tmp_path)]
    results = utils.get_results_filenames(paths)
    samples = utils.get_sample_results_filenames(paths)
    assert len(results) == 2
    assert {utils.get_file_task_name(name.rpartition("/")[2]) for name in samples} >= {"arc", "wiki"}
    latest = utils.get_latest_filename(results)
    table = utils.make_table(json.loads(Path(latest).read_text()))
    assert "arc" in table
    run = made[0].run
    score = next(cell.score for cell in run.results[1].cells if cell.task.name == "arc")
    assert f"{score:.4f}" in table


@pytest.mark.torch
def test_the_samples_load_as_a_data_set(made, tmp_path):
    datasets = pytest.importorskip("datasets")

    paths = export(*made, "lm-eval", tmp_path / "out")
    path = next(p for p in paths if p.name.startswith("samples_arc_"))
    rows = datasets.load_dataset(
        "json", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert len(rows) == 25
    assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "doc_hash", "acc_norm"} <= set(
        rows.column_names
    )


def test_what_is_exported_to_lm_eval_is_imported_again_with_the_same_differences(made, tmp_path):
    export(*made, "lm-eval", tmp_path / "out")
    again = import_lm_eval(tmp_path / "out", baseline="toy[scheme=fp16]")
    before = {one.task: one for one in made[0].comparisons if one.level in {"task", "subtask"}}
    after = {one.task: one for one in compare_run(again.run, lambda cell: again.samples[cell.key])}
    assert set(before) <= set(after)
    for task, one in before.items():
        other = after[task]
        assert (other.n, other.losses, other.gains) == (one.n, one.losses, one.gains)
        assert other.delta == pytest.approx(one.delta)


def test_a_run_comes_back_from_lm_evals_files_with_the_same_scores_and_items(tmp_path):
    """Every kind of answer: choices of odd lengths and several right ones, a text, one continuation, a
    document; an item that is left out, and a task with a name that lm-eval would write as it is."""
    run, samples, items = every_kind()
    read, read_items = (lambda cell: samples[cell.key]), (lambda cell: items[cell.key])
    export(gather(run, read), read, read_items, "lm-eval", tmp_path / "out")
    again = import_lm_eval(tmp_path / "out", name="fp16")
    assert again.run.created == run.created
    cells = {cell.task.name: cell for cell in again.run.results[0].cells}
    assert len(cells) == len(samples)
    for cell in run.results[0].cells:
        other = cells[cell.task.name]
        assert other.task == cell.task
        assert (other.n, other.n_available, other.score) == (cell.n, cell.n_available, cell.score)
        for field in fields(Samples):
            before, after = (getattr(s, field.name) for s in (samples[cell.key], again.samples[other.key]))
            if field.name == "logged":  # nothing was kept, as in runs of earlier versions
                assert not any(before)
                continue
            assert after.tolist() == before.tolist(), (cell.task.name, field.name)
        assert {item.key: item for item in again.items[other.key]} == items[cell.key]


def every_kind():
    """A run of one variant with a task of each kind of answer, its samples and its items by cell key."""
    choices = (" a", " bcd", " e")
    tasks = {
        Task("picks-one", "acc_norm", num_fewshot=2): [
            item_and_sample(choices, "1", "1", 1.0, scores=(-2.0, -2.1, -3.5)),
            item_and_sample(choices, "0", "0,2", 1.0, scores=(-0.1, -2.1, -3.5)),
            item_and_sample(choices, "0", "2", 0.0, weight=0.0, scores=(-0.1, -2.1, -3.5)),
        ],
        Task("mutual", "acc_mutual_info", num_fewshot=0): [
            item_and_sample(choices, "2", "2", 1.0, scores=(-1.0, -2.0, -3.0)),
        ],
        Task("mass", "acc", num_fewshot=0, kind="score"): [
            item_and_sample(choices, "0", "1", 0.25, scores=(-1.0, -2.0, -3.0)),
        ],
        Task("writes", "exact_match", "strict", num_fewshot=0): [
            item_and_sample((), "so\u2028it goes", "007", 0.0),
        ],
        Task("ends", "acc", num_fewshot=0): [
            item_and_sample((" end",), " end", "end", 1.0, scores=(-0.5,)),
            item_and_sample((" stop",), "", "stop", 0.0, scores=(-1.5,)),
        ],
        Task("cloze", "perplexity", num_fewshot=0, kind="perplexity"): [
            item_and_sample((" end",), "", "end", -1.5, scores=(-1.5,)),
        ],
        Task("pages", "bits_per_byte", num_fewshot=0, kind="perplexity"): [
            item_and_sample((), "", "", -80.25, weight=40.0),
        ],
    }
    samples, items, cells = {}, {}, []
    for task, pairs in tasks.items():
        made = columns(task, [row for _, row in pairs])
        cell = make_cell(f"fp16-{task.name}", task, made, 10)
        samples[cell.key] = made
        texts = [replace(item, key=str(at), gold=row["gold"]) for at, (item, row) in enumerate(pairs)]
        items[cell.key] = {item.key: item for item in texts}
        cells.append(cell)
    suite = Suite("kinds", tuple(tasks))
    return (
        Run("kinds", "2026-01-02T03:04:05Z", "toy", suite, "fp16", (make_result("fp16", cells),)),
        samples,
        items,
    )


def item_and_sample(choices, answer, gold, value, *, weight=1.0, scores=()):
    scored = bool(scores)
    prompt = "Examples.\n\nOne paragraph.\n\nAnother?" if scored else "A text.\n\nIts end."
    question = "One paragraph.\n\nAnother?" if scored else prompt
    item = Item("", prompt, question, choices)
    return item, {"answer": answer, "gold": gold, "value": value, "weight": weight, "scores": scores}


def columns(task, rows):
    n = len(rows)
    scores = np.empty(n, dtype=object)
    scores[:] = [row["scores"] for row in rows]
    return Samples(
        key=np.arange(n).astype(str),
        **{f"{what}_hash": hashes(f"{task.name}/{what}", n) for what in ("doc", "prompt", "target")},
        value=np.array([row["value"] for row in rows]),
        weight=np.array([row["weight"] for row in rows]),
        cluster=np.full(n, ""),
        answer=np.array([row["answer"] for row in rows]),
        gold=np.array([row["gold"] for row in rows]),
        scores=scores,
    )


def test_an_unknown_form_and_an_empty_run_are_refused(made, tmp_path):
    with pytest.raises(UsageError, match="no form 'parket'") as caught:
        export(*made, "parket", tmp_path)
    assert "parquet" in caught.value.hint
    run = made[0].run
    empty = replace(run, results=tuple(replace(result, cells=()) for result in run.results))
    with pytest.raises(QevalError, match="nothing to export"):
        export(gather(empty, made[1]), *made[1:], "csv", tmp_path)


def test_a_missing_directory_is_made(made, tmp_path):
    export(*made, "csv", tmp_path / "no" / "out")
    assert list((tmp_path / "no" / "out").glob("*.csv"))


def test_items_without_texts_and_scores_without_items_are_exported_too(tmp_path):
    run, read, _ = make_run(2, n_items=5)
    assert export(gather(run, read), read, lambda _: {}, "lm-eval", tmp_path / "a")
    bare = tuple(replace(r, cells=tuple(replace(c, files={}) for c in r.cells)) for r in run.results)
    bare_run = replace(run, results=bare)
    names = {path.name for path in export(gather(bare_run, read), read, lambda _: {}, "csv", tmp_path / "b")}
    assert names == {"scores.csv", "comparisons.csv"}


def test_hostile_variant_names_stay_below_the_directory(tmp_path):
    run, read, items = make_run(2, n_items=5)
    named = replace(run.results[1], variant=replace(run.results[1].variant, name="../../etc/passwd"))
    run = replace(run, results=(run.results[0], named))
    keyed = lambda cell: {item.key: Item(item.key, "", "") for item in items(cell)}  # noqa: E731
    for to in ("lm-eval", "model-card"):
        for path in export(gather(run, read), read, keyed, to, tmp_path / to):
            assert path.resolve().is_relative_to(tmp_path / to)


def test_a_card_of_a_simulated_scheme_says_that_there_is_nothing_to_load(tmp_path):
    card = card_of(tmp_path, scheme=Scheme("rtn"))
    assert "from_pretrained" not in card.text
    assert "Nothing can be saved or loaded: rtn is simulated." in card.text
    assert card.data.tags == ["simulated", "rtn"]
    assert (card.data.library_name, card.data.pipeline_tag) == (None, None)
    assert "base_model" not in card.data.to_dict()
    assert card_of(tmp_path / "other", scheme=Scheme("bnb4")).data.tags == ["quantized", "bnb4"]


def test_a_card_says_what_a_report_says_before_its_numbers_are_trusted(tmp_path, runs_dir, qeval):
    run, read, _ = make_run(3, n_items=40, limit=40, n_available=400)
    place = Store(runs_dir).run_dir("limited")
    loaded = replace(run.results[0].provenance, modules={"Linear4bit": 2})
    results = tuple(
        replace(one, cells=tuple(place.add(replace(c, truncated=2), read(c), ()) for c in one.cells))
        for one in run.results
    )
    results = (replace(results[0], provenance=loaded), *results[1:])
    place.write(replace(run, id="limited", results=results))
    qeval("export", "limited", "--to", "model-card", "-o", tmp_path / "out")
    base, first, _ = (path.read_text() for path in sorted((tmp_path / "out").glob("*/README.md")))
    for card in (base, first):
        told = card.partition("## Before you trust these numbers")[2].partition("\n## ")[0]
        assert "Only some of the items were scored" in told
        assert "Contexts were truncated on the left" in told
        assert "The baseline, fp16, is itself quantised" in told
        assert "gptq" not in told
        assert "only one variant" not in told
    assert re.search(r"Against fp16: \S.*\. ", first)
    assert "Against fp16" not in base
