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
from qeval.exchange.naming import refuse_breaks
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


def test_the_baseline_is_said_or_marked_or_the_only_variant(tmp_path):
    path = write(tmp_path, "variant,task,score,n\na,arc,0.5,10\nb,arc,0.4,10\n")
    with pytest.raises(UsageError, match=r"2 variants, and nothing says which is the baseline: a, b\."):
        import_scores(path)
    assert import_scores(path, baseline="b").baseline == "b"
    path = write(tmp_path, "variant,task,score,n,baseline\na,arc,0.5,10,\nb,arc,0.4,10,true\n")
    assert import_scores(path).baseline == "b"
    assert import_scores(path, baseline="a").baseline == "a"
    path = write(tmp_path, "variant,task,score,n,baseline\na,arc,0.5,10,yes\nb,arc,0.4,10,true\n")
    with pytest.raises(UsageError, match="marks 2 variants as the baseline: a, b"):
        import_scores(path)
    assert import_scores(write(tmp_path, "variant,task,score,n\na,arc,0.5,10\n")).baseline == "a"


@pytest.mark.parametrize(
    ("metric", "rises", "published", "kept"),
    [
        ("wer", "", "0.2", ("1 - wer", "accuracy", 0.8)),
        ("brier_score", "", "0.2", ("1 - brier_score", "accuracy", 0.8)),
        ("mae", "false", "0.4", ("1 - mae", "accuracy", 0.6)),
        ("regret", "false", "0.4", ("1 - regret", "accuracy", 0.6)),
        ("regret", "true", "0.4", ("regret", "accuracy", 0.4)),
        ("pass@1", "", "0.4", ("pass@1", "accuracy", 0.4)),
        ("BERTScore", "yes", "0.4", ("BERTScore", "accuracy", 0.4)),
        ("ppl", "", "5.47", ("ppl", "perplexity", -math.log(5.47))),
        ("Token PPL", "false", "5.47", ("Token PPL", "perplexity", -math.log(5.47))),
        ("bits_per_byte", "", "0.5839", ("bits_per_byte", "perplexity", -0.5839 * math.log(2))),
    ],
)
def test_more_of_what_is_kept_is_better(tmp_path, metric, rises, published, kept):
    head = "variant,task,metric,higher_is_better,score,n\n"
    (cell,) = import_scores(write(tmp_path, f"{head}a,x,{metric},{rises},{published},50\n")).results[0].cells
    assert (cell.task.metric, cell.task.kind) == kept[:2]
    assert cell.score == pytest.approx(kept[2])


def test_a_standard_error_says_what_a_score_is_worth(tmp_path):
    head = "variant,task,metric,score,n,stderr\n"
    rows = [
        f"{name},x,acc,0.5,1000,0.025\n{name},wiki,ppl,{ppl},62,0.1\n"
        for name, ppl in (("a", 5.0), ("b", 5.1))
    ]
    text = head + "".join(rows)
    run = import_scores(write(tmp_path, text), baseline="a")
    assert run.results[0].cells[0].metrics["n_effective"] == pytest.approx(400)
    rows = {row.task: row for row in compare_run(run, never)}
    error = math.hypot(0.1 / 5.0, 0.1 / 5.1)
    wiki = rows["wiki"]
    assert wiki.delta == pytest.approx(math.log(5.0 / 5.1))
    assert (wiki.low, wiki.high) == pytest.approx(
        (wiki.delta - 1.959964 * error, wiki.delta + 1.959964 * error)
    )


@pytest.mark.parametrize(
    ("score", "error"), [("0.5", "0.0001"), ("0.5", "1e-200"), ("1", "0.001"), ("0", "0.1")]
)
def test_a_standard_error_never_says_more_than_the_items(tmp_path, score, error):
    path = write(tmp_path, f"variant,task,score,n,stderr\na,x,{score},1000,{error}\n")
    assert import_scores(path).results[0].cells[0].metrics.get("n_effective", 1000) == 1000


def test_fewer_items_than_the_task_has_are_a_limited_run(tmp_path):
    path = write(tmp_path, "variant,task,score,n,n_available\na,arc,0.5,10,99\nb,arc,0.5,10,99\n")
    assert compare_run(import_scores(path, baseline="a"), never)[0].limited


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
        ("variant,task,score,n,n_effective\na,arc,0.5,10,11\n", "n_effective is more than n"),
        ("variant,task,score,n,n_effective,stderr\na,arc,0.5,10,9,0.1\n", "both n_effective and stderr"),
        ("variant,task,score,n,stderr\na,arc,0.5,10,0\n", "stderr = '0' is not possible"),
        ("variant,task,score,n,stderr\na,arc,0.5,10,inf\n", "stderr = 'inf' is not possible"),
        ("variant,task,score,n,baseline\na,arc,0.5,10,maybe\n", "baseline = 'maybe' is not possible"),
        ("variant,task,score,n,score\na,arc,0.5,10,0.6\n", "column 'score' twice"),
        ("variant,task,metric,score,n\na,x,mae,3.4,10\n", "mae is not on 0 to 1"),
        ("variant,task,metric,score,n\na,x,bleu,13.8,10\n", "bleu is not on 0 to 1"),
        ("variant,task,metric,score,n,higher_is_better\na,x,wer,0.2,10,true\n", "its name says that less is"),
        ("variant,task,metric,score,n,higher_is_better\na,x,ppl,5,10,true\n", "its name says that less is"),
        (
            "variant,task,metric,score,n,higher_is_better\na,x,acc,0.5,10,false\n",
            "its name says that more is",
        ),
        ("variant,task,metric,score,n\na,x,ppl,0.5,10\n", "a perplexity of 0.5"),
        ("variant,model,task,score,n\na,x,arc,0.5,9\na,y,arc,0.5,9\n", "scores of 2 models: x, y"),
        ("variant,model,task,score,n\na,x,arc,0.5,9\na,,arc,0.5,9\n", "score 2 names no model where others"),
        ("variant,task,metric,right,n\na,x,wer,9,10\n", "counts right answers, of which more is better"),
        ("variant,task,metric,right,n\na,x,brier_score,9,10\n", "and less brier_score is better"),
        ("variant,task,metric,right,n\na,x,toxicity,9,10\n", "and less toxicity is better"),
        ("variant,task,metric,right,n\na,x,word_perplexity,10,10\n", "and less word_perplexity is better"),
        ("variant,task,metric,right,n\na,x,bits_per_byte,9,10\n", "and less bits_per_byte is better"),
        ("variant,task,metric,right,n,higher_is_better\na,x,regret,9,10,false\n", "less regret is better"),
        ("variant,task,metric,right,n\na,x,regret,9,10\n", "nothing says whether more regret is better"),
        (
            "variant,task,metric,score,n,higher_is_better\na,x,my,0.5,9,false\nb,x,my,0.5,9,true\n",
            "x is judged by 1 - my for a and by my for b",
        ),
        (
            "variant,task,metric,score,n\na,x,acc,0.5,9\nb,x,acc_norm,0.5,9\n",
            "x is judged by acc for a and by acc_norm for b",
        ),
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
        (f'average = ["arc", "arc"]\n{ROW}', "average names 'arc' twice"),
        (
            f'average = ["arc", "w"]\n{ROW}{ROW.replace("arc", "w").replace("0.5", "8.0")}metric = "ppl"\n',
            "average names 'w', a perplexity",
        ),
        (f'baseline = "b"\n{ROW}', "no variant 'b' to be the baseline"),
        (ROW.replace('"a"', '""'), "names no variant"),
    ],
)
def test_slips_in_a_toml(tmp_path, text, says):
    with pytest.raises(UsageError) as caught:
        import_scores(write(tmp_path, text, "scores.toml"))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("refused", "mended"),
    [
        ("metric,right,n\na,x,wer,9,10\n", "metric,score,n\na,x,wer,0.1,10\n"),
        ("metric,right,n\na,x,wer,9,10\n", "right,n\na,x,9,10\n"),
        ("model,score,n\na,x,m,0.9,10\nb,x,,0.9,10\n", "model,score,n\na,x,m,0.9,10\nb,x,m,0.9,10\n"),
    ],
)
def test_what_a_refused_table_is_told_to_say_is_read(tmp_path, refused, mended):
    with pytest.raises(UsageError):
        import_scores(write(tmp_path, f"variant,task,{refused}"), baseline="a")
    run = import_scores(write(tmp_path, f"variant,task,{mended}"), baseline="a")
    assert run.results[0].cells[0].score == 0.9


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


# --- numbers as people write them ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("variant,task,score,n,stderr\na,arc,65.20%,1172,0.40%\n", False),
        ("variant,task,score,n,stderr\na,arc,65.20 %,1172,0.40\n", False),
        ("variant;task;score;n;stderr\na;arc;0,6520;1172;0,0040\n", False),
        ("variant;task;score;n;stderr\na;arc;65,20;1172;0,40\n", True),
        ('variant,task,score,n,stderr\na,arc,"65,20 %",1172,"0,40 %"\n', False),
        ("variant\ttask\tscore\tn\tstderr\na\tarc\t0.652\t1172\t0.004\n", False),
        ("variant,task,score,n,stderr\na,arc,65.2,1172,0.4\n", True),
    ],
)
def test_per_cent_semicolons_and_decimal_commas(tmp_path, text, percent):
    file = write(tmp_path, text, "scores.tsv" if "\t" in text else "scores.csv")
    (cell,) = import_scores(file, percent=percent).results[0].cells
    assert (cell.score, cell.n) == (pytest.approx(0.652), 1172)
    assert cell.metrics["n_effective"] == pytest.approx(min(1172, 0.652 * 0.348 / 0.004**2))


def test_what_the_message_on_per_cent_advises_works(tmp_path):
    rows = "variant,task,score,n\na,arc,65.2{0},1172\n"
    with pytest.raises(UsageError, match="more than all items") as caught:
        import_scores(write(tmp_path, rows.format("")))
    assert "65.2%" in caught.value.hint
    assert "--percent" in caught.value.hint
    for text, percent in ((rows.format("%"), False), (rows.format(""), True)):
        assert import_scores(write(tmp_path, text), percent=percent).results[0].cells[0].score == 0.652


@pytest.mark.parametrize(
    ("text", "percent", "says"),
    [
        ("variant,task,score,n\na,arc,0.652,1172\n", True, "these look like fractions"),
        ("variant,task,metric,score,n\na,w,ppl,5.4%,62\n", False, "a ppl is not in per cent"),
        ('variant,task,right,n\na,arc,"1,100","1,172"\n', False, "may be 1100 or a fraction"),
    ],
)
def test_per_cent_in_the_wrong_place_is_refused(tmp_path, text, percent, says):
    with pytest.raises(UsageError, match=says):
        import_scores(write(tmp_path, text), percent=percent)


WRITTEN = ("1,000", "12,000", "1,000,000", "1'000", "1 000", "1.000", "12.000")


@pytest.mark.parametrize(
    ("column", "written"),
    [(column, text) for column in ("n", "right", "n_available", "n_effective") for text in WRITTEN
     if (column, "." in text) != ("n_effective", True)],
)  # fmt: skip
def test_thousands_are_not_taken_for_fractions(tmp_path, column, written):
    """12,000 was read as 12 items."""
    n = "1000" if column == "n_available" else "2000000"
    row = {"variant": "a", "task": "t", "score": "0.5", "n": n, column: written}
    if column == "right":
        del row["score"]
    cells = (f'"{value}"' for value in row.values())
    text = f"{','.join(row)}\n{','.join(cells)}\n"
    with pytest.raises(UsageError, match=rf"{column} = .* may be 10*|{column} = .* may be 120*") as caught:
        import_scores(write(tmp_path, text))
    assert "without a sign between its digits" in caught.value.hint
    digits = "".join(letter for letter in written if letter.isdigit())
    import_scores(write(tmp_path, text.replace(f'"{written}"', digits)))


@pytest.mark.parametrize("column", ["n", "num_fewshot"])
def test_a_comma_in_a_whole_number_is_refused(tmp_path, column):
    row = {"variant": "a", "task": "t", "score": "0,5", "n": "20", column: "5,0"}
    text = f"{';'.join(row)}\n{';'.join(row.values())}\n"
    with pytest.raises(UsageError, match=f"{column} = '5,0' is not a number"):
        import_scores(write(tmp_path, text))
    import_scores(write(tmp_path, text.replace("5,0", "5.0")))  # as pandas writes whole numbers


@pytest.mark.parametrize("error", ["1e300", "0.6"])
def test_an_error_that_no_score_can_have_is_refused(tmp_path, error):
    """A number of items that rounds to none was written, and could not be read again."""
    text = f"variant,task,score,n,stderr\na,t,0.5,20,{error}\n"
    with pytest.raises(UsageError, match="is not possible of a score from 0 to 1"):
        import_scores(write(tmp_path, text))


@pytest.mark.parametrize("ends", ["\n", "\x85", "\u2028"])
@pytest.mark.parametrize("column", ["variant", "task", "model", "metric"])
def test_a_name_with_a_line_break_is_refused(tmp_path, column, ends):
    row = {"variant": "a", "task": "arc", "model": "m", "metric": "acc", "score": "0.5", "n": "10"}
    refuse_breaks(import_scores(write(tmp_path, _row_text(row))))
    row[column] = f'"x{ends}PASS: b"' if column != "metric" else f'"acc{ends}PASS: b"'
    with pytest.raises(UsageError, match="has a line break in it"):
        refuse_breaks(import_scores(write(tmp_path, _row_text(row))))


def _row_text(row):
    return f"{','.join(row)}\n{','.join(row.values())}\n"
