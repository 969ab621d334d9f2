"""Published scores: the article's table, and what each slip in a file gets."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from factories import compare_run, conclude

from qeval.ask.policy import from_max_drop
from qeval.base.errors import UsageError
from qeval.base.sizes import MMLU_SUBJECTS
from qeval.compare.pairs import UNPAIRED
from qeval.exchange.scores import import_scores

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SEVEN, THIRTEEN = "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-13b-hf"
ARTICLE = EXAMPLES / "llama2-article.toml"
# Cells and averages as the article prints them. Its averages were made from cells with more digits than it
# shows, so they follow from the shown ones only to within a hundredth.
TABLE = {
    (SEVEN, "fp16"): (53.07, 78.59, 46.87, 38.76, 54.32),
    (SEVEN, "bnb4"): (53.07, 77.74, 43.80, 38.98, 53.40),
    (SEVEN, "gptq"): (52.05, 77.59, 43.99, 39.32, 53.23),
    (THIRTEEN, "fp16"): (59.39, 82.13, 55.74, 37.38, 58.66),
    (THIRTEEN, "gptq-actorder"): (59.13, 81.48, 54.45, 37.07, 58.03),
    (THIRTEEN, "gptq"): (57.25, 81.66, 54.81, 36.56, 57.56),
    (THIRTEEN, "bnb4"): (58.11, 80.97, 54.34, 34.17, 56.90),
}
TASKS = ("arc_challenge", "hellaswag", "mmlu_macro", "truthfulqa_mc2")


def never(cell):
    pytest.fail(f"published scores have no samples, and those of {cell.task.name} were asked for")


def write(tmp_path, text, name="scores.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("model", [SEVEN, THIRTEEN])
def test_the_articles_cells(model):
    run = import_scores(ARTICLE, model=model)
    shown = {(model, r.variant.name): tuple(round(100 * c.score, 2) for c in r.cells) for r in run.results}
    assert shown == {key: cells[:4] for key, cells in TABLE.items() if key[0] == model}
    assert run.baseline == "fp16"
    assert all(cell.aggregate_only for result in run.results for cell in result.cells)


@pytest.mark.parametrize("model", [SEVEN, THIRTEEN])
def test_the_articles_averages(model):
    run = import_scores(ARTICLE, model=model)
    averages = [row for row in compare_run(run, never) if row.task == "average"]
    assert len(averages) == len(run.results) - 1
    for row in averages:
        assert 100 * row.candidate == pytest.approx(TABLE[model, row.variant][4], abs=0.01)
        assert 100 * row.baseline == pytest.approx(TABLE[model, "fp16"][4], abs=0.01)
        assert UNPAIRED in row.notes


def test_the_articles_gate():
    """What the article calls no degradation is mostly undecided by its scores alone."""
    verdicts = {
        model: conclude(import_scores(ARTICLE, model=model), never, from_max_drop(["1.0"])).verdicts
        for model in (SEVEN, THIRTEEN)
    }
    assert verdicts == {
        SEVEN: {"bnb4": "FAIL", "gptq": "FAIL"},
        THIRTEEN: dict.fromkeys(("gptq-actorder", "gptq", "bnb4"), "INCONCLUSIVE"),
    }


def test_the_worth_of_mmlus_mean_is_what_its_subjects_make():
    (cell,) = (c for c in import_scores(ARTICLE, model=SEVEN).results[0].cells if c.task.name == "mmlu_macro")
    sizes = [size for size, _ in MMLU_SUBJECTS.values()]
    assert cell.metrics["n_effective"] == round(len(sizes) ** 2 / sum(1 / n for n in sizes))
    assert cell.n == sum(sizes)


def test_the_csv_says_the_same():
    one = import_scores(EXAMPLES / "llama2-7b-article.csv")
    two = import_scores(ARTICLE, model=SEVEN)
    for left, right in zip(one.results, two.results, strict=True):
        assert left.variant == right.variant
        for a, b in zip(left.cells, right.cells, strict=True):
            assert (a.task, a.n, a.metrics) == (b.task, b.n, b.metrics)
            assert a.score == pytest.approx(b.score, abs=1e-12)


def test_a_perplexity_is_kept_as_a_log_likelihood(tmp_path):
    path = write(tmp_path, "variant,task,metric,score,n\nfp16,wikitext,word_perplexity,8.7071,62\n")
    (cell,) = import_scores(path).results[0].cells
    assert (cell.task.kind, cell.score) == ("perplexity", pytest.approx(-math.log(8.7071)))


def test_the_first_variant_is_the_baseline_unless_said(tmp_path):
    path = write(tmp_path, "variant,task,score,n\na,arc,0.5,10\nb,arc,0.4,10\n")
    assert import_scores(path).baseline == "a"
    assert import_scores(path, baseline="b").baseline == "b"


def test_fewer_items_than_the_task_has_are_a_limited_run(tmp_path):
    path = write(tmp_path, "variant,task,score,n,n_available\na,arc,0.5,10,99\nb,arc,0.5,10,99\n")
    assert compare_run(import_scores(path), never)[0].limited


def test_a_byte_order_mark_and_spaces_are_forgiven(tmp_path):
    path = write(tmp_path, "\ufeffvariant, task, score, n\nfp16, arc, 0.5, 10\n")
    assert import_scores(path).results[0].variant.name == "fp16"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("variant,tsk,score,n\na,arc,0.5,10\n", "no column 'tsk'. Did you mean 'task'?"),
        ("variant,task,score\na,arc,0.5\n", "score 1 has no n."),
        ("variant,task,score,n\na,arc,0.5,10,7\n", "more cells than columns"),
        ("variant,task,score,n\n", "has no scores"),
        ("", "has no scores"),
        ("variant,task,score,n\na,arc,half,10\n", "score = 'half' is not a number"),
        ("variant,task,score,n\na,arc,nan,10\n", "score = 'nan' is not possible"),
        ("variant,task,score,n\na,arc,-0.1,10\n", "is not possible"),
        ("variant,task,score,n\na,arc,53.07,1172\n", "more than all items"),
        ("variant,task,score,n\na,arc,0.5,0\n", "n = '0' is not possible"),
        ("variant,task,score,n\na,arc,0.5,1.5\n", "n = '1.5' is not possible"),
        ("variant,task,score,n\na,arc,0.5,10\na,arc,0.6,10\n", "says a on arc twice"),
        ("variant,task,right,n\na,arc,11,10\n", "11 of 10 cannot be right"),
        ("variant,task,score,right,n\na,arc,0.5,5,10\n", "needs a score, or the number"),
        ("variant,task,n\na,arc,10\n", "needs a score, or the number"),
        ("variant,task,score,n,n_available\na,arc,0.5,10,9\n", "n_available is less than n"),
        ("variant,task,metric,score,n\na,wiki,word_perplexity,0.5,10\n", "a perplexity of 0.5"),
        ("variant,model,task,score,n\na,x,arc,0.5,9\na,y,arc,0.5,9\n", "scores of 2 models: x, y"),
    ],
)
def test_slips_in_a_csv(tmp_path, text, says):
    with pytest.raises(UsageError) as caught:
        import_scores(write(tmp_path, text))
    assert says in str(caught.value)
    assert caught.value.hint


ROW = '[[score]]\nvariant = "a"\ntask = "arc"\nscore = 0.5\nn = 10\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[score]\n", "not valid TOML"),
        ('scores = "x"\n', "there is no key 'scores'. Did you mean 'score'?"),
        ('score = "x"\n', "score = 'x' is not allowed. It must be a list of tables"),
        ("score = [1]", "score 1 = 1 is not allowed. It must be a table"),
        (f'percent = "false"\n{ROW}', "percent = 'false' is not allowed. It must be true or false"),
        (f'average = "arc"\n{ROW}', "average = 'arc' is not allowed"),
        (f"name = 7\n{ROW}", "name = 7 is not allowed"),
        (ROW.replace("10", "true"), "score 1: n = True is not allowed. It must be a number"),
        (ROW.replace("0.5", '"0.5"'), "score 1: score = '0.5' is not allowed. It must be a number"),
        (ROW.replace('"arc"', '["arc"]'), "score 1: task = ['arc'] is not allowed. It must be text"),
        (ROW.replace("10", "1.5"), "n = 1.5 is not possible"),
        (f"{ROW}nn = 3\n", "score 1: there is no key 'nn'. Did you mean 'n'?"),
        (f'average = ["arcc"]\n{ROW}', "average names no task 'arcc'. Did you mean 'arc'?"),
        (f'baseline = "b"\n{ROW}', "no variant 'b' to be the baseline"),
        (ROW.replace('"a"', '""'), "has no variant"),
    ],
)
def test_slips_in_a_toml(tmp_path, text, says):
    with pytest.raises(UsageError) as caught:
        import_scores(write(tmp_path, text, "scores.toml"))
    assert says in str(caught.value)


def test_another_ending_or_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"neither .csv nor .toml"):
        import_scores(write(tmp_path, "x", "scores.json"))
    with pytest.raises(UsageError, match="cannot be read"):
        import_scores(tmp_path / "none.csv")


def test_an_unknown_model_or_baseline():
    with pytest.raises(UsageError, match="Did you mean 'meta-llama/Llama-2-7b-hf'"):
        import_scores(ARTICLE, model="meta-llama/Llama-2-7b")
    with pytest.raises(UsageError, match="to be the baseline"):
        import_scores(ARTICLE, model=SEVEN, baseline="fp32")
    with pytest.raises(UsageError, match="scores of 2 models"):
        import_scores(ARTICLE)
