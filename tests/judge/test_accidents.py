"""Ways in which exit code 0 could be had by accident, each closed, through the command line."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import numpy as np
import pytest
from factories import ARC, WIKI
from harness_files import generated, results, sample, write
from stored import WIDE, changed, store, whole

from qeval.base.records import Task
from qeval.store.runs import Store

pytestmark = pytest.mark.slow

BRC = Task("brc", "acc_norm", num_fewshot=25, chance=0.25)


def halves(**second):
    """A run of three variants as two runs: fp16 and bnb4 in one, fp16 and gptq in the other."""
    run, read, items = whole(3)
    one = replace(run, id="one", results=run.results[:2])
    two = replace(run, id="two", results=(run.results[0], run.results[2]), **second)
    return (one, read, items), (two, read, items)


def both(made, **changes):
    """The run with fields of the provenance of both its variants replaced."""
    for place in (0, 1):
        made = changed(made, place, provenance=replace(made[0].results[place].provenance, **changes))
    return made


def letters(folder, name, *, shift=0.0, n=60, args=None, **changes):
    """A directory of lm-eval's, whose log-likelihoods are `shift` lower."""
    rows = [sample(at, at % 2) for at in range(n)]
    for row in rows:
        for response in row["resps"]:
            response[0][0] = str(float(response[0][0]) - shift * (1 + row["doc_id"]))
    table = results("letters", name=name, args=args, **changes)
    return write(folder, table, samples={"letters": rows})


def gate_import(qeval, path, baseline, *words, code):
    """What the gate says of an import."""
    run = qeval("import", path, "--baseline", baseline).stdout.strip()
    return qeval("gate", run, *WIDE, *words, code=code)


# --- one model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"revision": "1" * 40}, {"fingerprint": "f" * 64}])
def test_a_model_that_changed_between_two_runs_is_another(change, qeval, runs_dir, tmp_path) -> None:
    one, two = halves()
    store(runs_dir, both(one, fingerprint="0" * 64))
    store(runs_dir, both(two, **{"fingerprint": "0" * 64, **change}))
    said = qeval("gate", "one", "two", *WIDE, code=5).stderr
    assert "The runs are of different models" in said
    assert next(iter(change.values()))[:8] in said
    found = qeval("gate", "one", "two", *WIDE, "--allow-different-models").stdout
    assert "Allowed by --allow-different-models" in found
    qeval("report", "one", "two", "--allow-different-models", "-o", tmp_path / "r.md")  # without a gate
    assert "Not of the baseline's model" in (tmp_path / "r.md").read_text()


def test_a_variant_that_was_loaded_from_another_revision_does_not_pass(qeval, runs_dir) -> None:
    made = whole()
    other = replace(made[0].results[1].provenance, revision="1" * 40)
    assert (
        "the models differ"
        in qeval("gate", store(runs_dir, changed(made, 1, provenance=other)), *WIDE, code=5).stdout
    )


def test_an_adapter_makes_another_model(qeval, runs_dir) -> None:
    one, two = halves()
    store(runs_dir, one)
    variant = replace(two[0].results[1].variant, adapter="org/lora")
    store(runs_dir, changed(two, 1, variant=variant))
    assert "with the adapter org/lora" in qeval("gate", "one", "two", *WIDE, code=5).stderr


def test_what_the_python_api_measured_in_directories_of_one_name_is_not_one_model(qeval, tmp_path) -> None:
    names = {}
    for place, name in enumerate(("fp16", "bnb4")):
        config = {"model": "HFLM", "model_args": None}
        letters(tmp_path / name / "out", "HFLM", shift=place, config=config)
        names[name] = qeval("import", tmp_path / name / "out", "--name", name).stdout.strip()
    words = (*names.values(), "--baseline", "fp16", *WIDE)
    assert "of different models: HFLM in out (" in qeval("gate", *words, code=5).stderr


@pytest.mark.parametrize(
    ("one", "two", "name"),
    [
        ({"base_url": "http://a"}, {"base_url": "http://b"}, ""),
        ({"pretrained": "org/m", "revision": "v1"}, {"pretrained": "org/m", "revision": "v2"}, "org/m"),
        ({"pretrained": "org/m"}, {"pretrained": "org/m", "lora_local_path": "l", "q": "4"}, "org/m"),
    ],
)
def test_arguments_tell_one_model_from_another(one, two, name, qeval, tmp_path) -> None:
    for place, args in enumerate((one, two)):
        folder = letters(tmp_path / "out" / str(place), name, shift=place, args=args)
        if not name:
            file = next(folder.glob("results*"))
            table = json.loads(file.read_text())
            file.write_text(
                json.dumps({**table, "model_name": "", "config": {**table["config"], "model": "api"}})
            )
    refused = qeval("import", tmp_path / "out", code=2).stderr
    baseline = refused.split("which is the baseline: ")[1].split(", ")[0].split(".\n")[0]
    said = gate_import(qeval, tmp_path / "out", baseline, code=5).stdout
    assert "(not proved to be one model)" in said.splitlines()[0]


# --- which run ----------------------------------------------------------------------------------


def test_joined_runs_are_as_old_as_the_oldest(qeval, runs_dir) -> None:
    one, two = halves(created="2020-01-01T00:00:00Z")
    now = dt.datetime.now(dt.UTC).isoformat()
    store(runs_dir, one, created=now)
    store(runs_dir, two)
    assert (
        "longer than --newer-than 1d allows"
        in qeval("gate", "one", "two", *WIDE, "--newer-than", "1d", code=5).stderr
    )
    assert "run one+two of 2020-01-01" in qeval("gate", "one", "two", *WIDE).stdout
    store(runs_dir, halves(created="")[1])
    assert "does not say when" in qeval("gate", "one", "two", *WIDE, "--newer-than", "1d", code=5).stderr


def test_a_run_of_no_known_date_is_not_fresh(qeval, tmp_path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("variant,task,score,n,model\nfp16,a,.5,900,m\nbnb4,a,.5,900,m\n")
    qeval("import", "--scores", table, "--baseline", "fp16")
    result = qeval("gate", *WIDE)
    assert "of no known date." in result.stderr
    assert "of no known date: bnb4 against fp16" in result.stdout.splitlines()[0]


def test_two_results_of_one_name_are_refused(qeval, runs_dir) -> None:
    run, read, items = whole()
    name = store(runs_dir, (replace(run, results=(*run.results, run.results[1])), read, items))
    assert "Two results are called bnb4" in qeval("gate", name, *WIDE, code=5).stderr


def test_what_an_import_left_out_is_said_when_it_is_joined(qeval, runs_dir) -> None:
    one, two = halves(source="lm-eval")
    store(runs_dir, one)
    notes = ("Imported.", "Left out: ner (no samples).")
    store(runs_dir, changed(two, 1, provenance=replace(two[0].results[1].provenance, notes=notes)))
    for words in (("one", "two"), ("two", "one")):
        assert "gptq: Left out: ner (no samples)." in qeval("gate", *words, *WIDE).stdout


# --- the baseline again -------------------------------------------------------------------------


def test_one_task_that_is_the_baselines_own_is_enough(qeval, runs_dir) -> None:
    run, read, items = whole(tasks=(ARC, BRC))
    copied = lambda cell: read(replace(cell, key=cell.key.replace("bnb4-arc", "fp16-arc")))  # noqa: E731
    name = store(runs_dir, (run, copied, items))
    said = "the same numbers as the baseline on all 400 items of arc: is this the same model?"
    assert said in qeval("gate", name, *WIDE, code=5).stdout
    assert (
        f"Allowed by --allow-identical: bnb4: {said}"
        in qeval("gate", name, *WIDE, "--allow-identical").stdout
    )


def test_equal_answers_and_equal_scores_are_told(qeval, runs_dir, tmp_path) -> None:
    run, read, items = whole(tasks=(Task("sums", "exact_match", filter="strict"),))
    bare = np.empty(400, dtype=object)
    bare[:] = [()] * 400
    copied = lambda cell: replace(read(replace(cell, key="fp16-sums")), scores=bare)  # noqa: E731
    name = store(runs_dir, (run, copied, items))
    assert "bnb4 gives exactly the baseline's answers to all 400 items" in qeval("gate", name, *WIDE).stdout
    table = tmp_path / "t.csv"
    table.write_text("variant,task,score,n,model\nfp16,a,.5,900,m\nbnb4,a,.5,900,m\n")
    qeval("import", "--scores", table, "--baseline", "fp16")
    assert "bnb4 has exactly the baseline's scores on the one task:" in qeval("gate", *WIDE).stdout


# --- tables of scores ---------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["regret", "halluc", "acc_error", "match_error_rate", "misses"])
def test_a_metric_of_no_known_direction_is_refused_until_it_is_told(metric, qeval, tmp_path) -> None:
    table = tmp_path / "t.csv"
    rows = f"fp16,a,{metric},.2,9000,m,\nbnb4,a,{metric},.4,9000,m,\n"
    table.write_text(f"variant,task,metric,score,n,model,higher_is_better\n{rows}")
    words = ("import", "--scores", table, "--baseline", "fp16")
    assert f"nothing says whether more {metric} is better, or less." in qeval(*words, code=2).stderr
    table.write_text(table.read_text().replace("m,\n", "m,false\n"))
    qeval(*words)
    assert "a: Δ -20.00 points" in qeval("gate", "--max-drop", "1", code=3).stdout


@pytest.mark.parametrize(
    "metric", ["1-acc", "1 - acc", "100 - acc", "1\u2212acc", "accuracy_drop", "neg_accuracy", "1 - wer"]
)
def test_a_name_that_turns_a_metric_round_tells_no_direction(metric, qeval, tmp_path) -> None:
    """An accuracy's drop passed the more of it there was; `1 - wer` was turned round once more."""
    table = tmp_path / "t.csv"
    first, second = (".9", ".5") if "wer" in metric else (".05", ".5")
    table.write_text(
        "variant,task,metric,score,n,model,higher_is_better\n"
        f"fp16,a,{metric},{first},9000,m,\nbnb4,a,{metric},{second},9000,m,\n"
    )
    words = ("import", "--scores", table, "--baseline", "fp16")
    assert f"nothing says whether more {metric} is better, or less." in qeval(*words, code=2).stderr
    table.write_text(table.read_text().replace("m,\n", f"m,{'true' if 'wer' in metric else 'false'}\n"))
    qeval(*words)
    qeval("gate", "--max-drop", "1", code=3)


@pytest.mark.parametrize(
    "metric", ["log_perplexity", "logperplexity", "negative_log_perplexity", "inverse ppl"]
)
def test_what_is_made_of_a_perplexity_is_none(metric, qeval, tmp_path) -> None:
    """2 and 2.3 are perplexities of 7.4 and 10, not a seventh apart."""
    table = tmp_path / "t.csv"
    head = "variant,task,metric,score,n,stderr,model\n"
    table.write_text(f"{head}fp16,a,{metric},2.0,9000,.01,m\nbnb4,a,{metric},2.3,9000,.01,m\n")
    said = qeval("import", "--scores", table, "--baseline", "fp16", code=2).stderr
    assert f"{metric} is made of a perplexity, and is none." in said


def test_fractions_in_a_table_in_per_cent_are_refused(qeval, tmp_path) -> None:
    table = tmp_path / "t.toml"
    head = 'percent = true\nbaseline = "fp16"\nmodel = "m"\n'
    row = '[[score]]\nvariant = "{}"\ntask = "{}"\nscore = {}\nn = 1172\n'
    rows = [row.format(*one) for one in (("fp16", "b", 53.0), ("fp16", "a", 0.53), ("bnb4", "a", 0.40))]
    table.write_text(head + "".join(rows))
    assert (
        "of a none is above 1: these look like fractions" in qeval("import", "--scores", table, code=2).stderr
    )
    rows = [
        row.format(*one) for one in (("fp16", "a", 0.53), ("bnb4", "a", 40.0))
    ]  # a loss that looks a gain
    table.write_text(head + "".join(rows))
    said = qeval("import", "--scores", table, code=2).stderr
    assert "of a one is 0.53 and one 40: the first looks like a fraction" in said


def test_an_error_rate_below_one_per_cent_carries_its_sign_as_the_refusal_says(qeval, tmp_path) -> None:
    table = tmp_path / "t.csv"
    head = "variant,task,metric,score,n,model\n"
    table.write_text(f"{head}fp16,a,wer,0.8,90000,m\nbnb4,a,wer,3.1,90000,m\n")
    words = ("import", "--percent", table, "--baseline", "fp16")
    assert "What is below one per cent carries its sign: 0.8%." in qeval(*words, code=2).stderr
    table.write_text(table.read_text().replace("0.8,", "0.8%,"))
    qeval(*words)
    assert "a: Δ -2.30 points" in qeval("gate", "--max-drop", "1", code=3).stdout


# --- files of lm-eval ---------------------------------------------------------------------------


def three(tmp_path):
    """A directory with three variants of one model."""
    for place, name in enumerate(("fp16", "bnb4", "gptq")):
        args = {"pretrained": "org/m", "scheme": name}
        letters(tmp_path / "out" / name, "org/m", shift=place, args=args)
    return tmp_path / "out"


def test_a_link_to_a_directory_is_followed_and_once(qeval, tmp_path) -> None:
    out = three(tmp_path)
    (out / "gptq").rename(tmp_path / "far")
    (out / "gptq").symlink_to(tmp_path / "far")
    (out / "latest").symlink_to(out / "fp16")
    (out / "fp16" / "up").symlink_to(out)
    said = gate_import(qeval, out, "m[scheme=fp16]", code=0).stdout.splitlines()[0]
    assert "m[scheme=bnb4], m[scheme=gptq] against m[scheme=fp16]" in said


def test_a_variant_whose_results_cannot_be_read_does_not_vanish(qeval, tmp_path) -> None:
    out = three(tmp_path)
    file = next((out / "gptq").glob("results*"))
    (out / "gptq" / "gptq.json").write_text(file.read_text()[:99])
    file.unlink()
    words = ("import", out, "--baseline", "m[scheme=fp16]")
    assert "gptq has samples, and no results file that can be read." in qeval(*words, code=1).stderr


def test_samples_that_their_results_do_not_tell_of_are_named(qeval, tmp_path) -> None:
    out = three(tmp_path)
    (out / "gptq" / "samples_arc_2020-01-01T00-00-00.jsonl").write_text("{}\n")
    assert "samples_arc_2020" in gate_import(qeval, out, "m[scheme=fp16]", code=0).stdout


def test_a_log_likelihood_of_infinity_is_refused(qeval, tmp_path) -> None:
    out = three(tmp_path)
    file = next((out / "gptq").glob("samples*"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[3]["resps"][0][0][0] = "inf"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = qeval("import", out, "--baseline", "m[scheme=fp16]", code=1).stderr
    assert "item 3 has a log-likelihood that is not a number (inf)" in said


SUMS = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generation_kwargs": {"until": ["</s>"]}}, 'generation_kwargs is {"until": ["</s>"]} where'),
        ({"filter_list": [{"name": "strict", "filter": [{"pattern": "b"}]}]}, "the filter strict is"),
        ({"metric_list": [{"metric": "exact_match", "ignore_case": True}]}, "the metric exact_match is"),
    ],
)
def test_what_no_hash_proves_is_compared(change, said, qeval, tmp_path) -> None:
    config = {
        **SUMS,
        "filter_list": [{"name": "strict", "filter": [{"pattern": "a"}]}],
        "metric_list": [{"metric": "exact_match", "ignore_case": False, "aggregation": "mean"}],
    }
    for name, more in (("fp16", {}), ("bnb4", change)):
        table = results("sums", name="org/m", args={"pretrained": "org/m", "scheme": name})
        table["configs"]["sums"].update(config, **more)
        lines = [line for at in range(60) for line in generated(at, strict=at % 2 == 0)]
        write(tmp_path / "out" / name, table, samples={"sums": lines})
    found = gate_import(qeval, tmp_path / "out", "m[scheme=fp16]", code=5).stdout
    assert said in found
    assert "Settle it, or exempt the task with --ungated sums." in found


def test_a_metric_of_lm_eval_of_no_known_direction_is_left_out(qeval, tmp_path) -> None:
    for place, name in enumerate(("fp16", "bnb4")):
        table = results("letters", "odd", name="org/m", args={"pretrained": "org/m", "scheme": name})
        rows = [sample(at, at % 2) for at in range(60)]
        odd = [{k: v for k, v in sample(at, 0, "odd").items() if k != "acc"} for at in range(60)]
        odd = [{**row, "metrics": ["regret"], "regret": 0.2 + 0.2 * place} for row in odd]
        write(tmp_path / "out" / name, table, samples={"letters": rows, "odd": odd})
    found = gate_import(qeval, tmp_path / "out", "m[scheme=fp16]", code=5).stdout
    assert "Left out: odd (nothing says whether more regret is better, or less)." in found


# --- policies -----------------------------------------------------------------------------------


def by_policy(tmp_path, text):
    """The words for a policy of this text."""
    (tmp_path / "p.toml").write_text(text)
    return "--policy", tmp_path / "p.toml"


def test_two_limits_for_one_task_are_refused(qeval, runs_dir) -> None:
    words = ("--max-drop", "arc=60", "--max-drop", "arc=90")
    assert (
        "--max-drop is given twice for arc: arc=60 and arc=90."
        in qeval("gate", store(runs_dir), *words, code=2).stderr
    )


def test_a_flag_and_its_contrary_are_refused(qeval) -> None:
    words = ("run", "-m", "toy", "--schemes", "fp16", "--cost", "--no-cost")
    assert "--cost/--no-cost is given 2 times." in qeval(*words, code=2).stderr


def test_a_run_of_perplexities_alone_is_judged_by_the_usual_ratio(qeval, runs_dir) -> None:
    fine, bad = whole(tasks=(WIKI,)), whole(tasks=(WIKI,), effect=-0.3)
    found = qeval("gate", store(runs_dir, fine), "--max-drop", "1", "--verbose").stdout
    assert "1.10  PASS" in found
    assert "Rule 1 (max_drop 1) has nothing to judge: all tasks in this run are perplexities." in found
    qeval("gate", store(runs_dir, bad, id="bad"), "--max-drop", "1", code=3)


def test_advice_alone_requires_nothing_of_perplexities(qeval, runs_dir, tmp_path) -> None:
    words = by_policy(tmp_path, "[gate]\ntier = 'advisory'\nmax_drop = 1\n")
    assert (
        "has no required rule" in qeval("gate", store(runs_dir, whole(tasks=(WIKI,))), *words, code=2).stderr
    )


def test_a_rule_that_is_hidden_for_some_of_its_variants_says_for_which(qeval, runs_dir, tmp_path) -> None:
    text = "[[rule]]\nmax_drop = 60\nvariants = '?[np]*'\n[[rule]]\nmax_drop = 70\nvariants = 'bnb4'\n"
    said = qeval("gate", store(runs_dir, whole(3)), *by_policy(tmp_path, text)).stdout
    assert "Rule 1 (max_drop 60) does not judge bnb4: other rules apply there." in said


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("max_flips = 0.99", "The limit of 99% flips on arc lets half of the answers change."),
        ("max_flips = 0.999", "The limit of 99.9% flips on arc lets half of the answers change."),
        (
            "min_recovery = 0.01",
            "With the limit of min_recovery 0.01 on arc, a model that only guesses (25.00) would pass.",
        ),
        ("max_drop = 60\nconfidence = 0.51", "arc is decided at a confidence of 51%:"),
    ],
)
def test_limits_that_let_everything_through_are_told(limit, said, qeval, runs_dir, tmp_path) -> None:
    words = by_policy(tmp_path, f"[[rule]]\n{limit}\n")
    assert said in qeval("gate", store(runs_dir), *words).stdout


def test_an_exception_for_no_task_is_told(qeval, runs_dir) -> None:
    assert (
        "--ungated wikki matches no task"
        in qeval("gate", store(runs_dir), *WIDE, "--ungated", "wikki").stdout
    )


# --- a run that judges itself -------------------------------------------------------------------


def test_a_gated_run_says_everywhere_what_was_let_pass(qeval, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    text = "[[rule]]\ntasks = 'arc_challenge'\nmax_drop = 60\n[gate]\nungated = ['wikitext']\n"
    _, file = by_policy(tmp_path, text)
    words = ("run", "--model", "toy[items=60]", "--tasks", "arc_challenge,wikitext", "--gate", file)
    result = qeval(*words, "--schemes", "fp16,bnb4", "--json")
    gate = json.loads(result.stdout)["gate"]
    assert (gate["verdict"], gate["exit_code"]) == ("PASS", 0)
    let = "Allowed by --ungated: bnb4: wikitext is judged by no required rule"
    assert any(note.startswith(let) for note in gate["notes"])
    assert let in result.stderr
    assert let in (tmp_path / "summary.md").read_text().replace("\\", "")
    assert "fp16 is the only scheme" in qeval(*words, "--schemes", "fp16", code=2).stderr


# --- what is planned, and how a report is made again --------------------------------------------


def test_items_of_a_task_that_nobody_asks_for_are_refused(qeval) -> None:
    words = ("plan", "--tasks", "qeval_facts", "--max-drop", "60")
    said = qeval(*words, "--n", "qeval_fact=9", code=2).stderr
    assert "--n qeval_fact=9: qeval_fact is no task here.\nDid you mean 'qeval_facts'?" in said


def test_joined_runs_of_which_one_is_of_the_future_are_of_no_known_age(qeval, runs_dir) -> None:
    one, two = halves(created="2999-01-01T00:00:00Z")
    store(runs_dir, one, created=dt.datetime.now(dt.UTC).isoformat())
    store(runs_dir, two)
    said = qeval("gate", "one", "two", *WIDE, "--newer-than", "1d", code=5).stderr
    assert "The run two was begun " in said
    assert "from now, by the clock here" in said


def test_a_joined_report_says_how_it_is_made_again(qeval, runs_dir, tmp_path) -> None:
    one, two = halves()
    store(runs_dir, one)
    store(runs_dir, two)
    words = ("one", "two", "--baseline", "gptq", "--margin", "2")
    qeval("report", *words, "-o", tmp_path / "r.md")
    line = "qeval report one two --baseline gptq --margin 2,x1.10 -o report.html"
    assert line in (tmp_path / "r.md").read_text()
    qeval("report", *line.split()[2:-1], tmp_path / "again.md")


def test_a_run_that_is_too_old_is_made_anew_in_another_directory(qeval, runs_dir, tmp_path) -> None:
    words = ("run", "-m", "toy[items=20]", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    qeval(*words)
    place = Store(runs_dir).runs()[0]
    place.write(replace(place.read(), created="2020-01-01T00:00:00+00:00"))
    fresh = ("gate", "--max-drop", "99", "--newer-than", "1h")
    qeval(*words)
    assert "Make it anew with `qeval run --runs-dir` and another directory" in qeval(*fresh, code=5).stderr
    qeval(*words, "--runs-dir", tmp_path / "anew")
    qeval(*fresh, "--runs-dir", tmp_path / "anew")


# --- nothing that was asked for is passed over --------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gate", *WIDE, "--junit", "one.out", "--badge", "one.out"), "--junit name one file, one.out."),
        (("report", "-o", "r.html", "--short"), "--short is for Markdown, and none is written."),
        (("report", "-o", "r.html", "--assets", "a"), "--assets is for Markdown, and none is written."),
        (("report", "-o", "r.md", "--allow-limited"), "--allow-limited is for a policy, and none is given."),
        (("report", "-o", "r.md", "--ungated", "arc"), "--ungated is for a policy, and none is given."),
        (("plan", "--suite", "demo", "--tasks", "qeval_facts"), "--suite says nothing beside --tasks."),
        (("plan", "--from", "run-1", "--churn", "0.2"), "--churn says nothing beside --from."),
        (("plan", "--from", "run-1", "--suite", "demo"), "is of the suite toy, not of demo."),
        (("plan", "--suite", "demo", "--schemes", "nope"), "--schemes is about variants of a model"),
        (("plan", "--suite", "demo", "--revision", "v1"), "--revision is about variants of a model"),
    ],
)
def test_a_word_that_would_do_nothing_is_refused(words, said, qeval, runs_dir, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    store(runs_dir)
    assert said in qeval(*words, code=2).stderr
    assert not list(tmp_path.glob("*.out"))


@pytest.mark.parametrize(("shift", "code"), [(2e-5, 5), (0.05, 0)])
def test_a_variant_that_differs_by_rounding_alone_is_the_baseline_again(shift, code, qeval, tmp_path) -> None:
    """As where a flag was passed over and the plain model was scored twice, in batches of other sizes."""
    for place, name in enumerate(("fp16", "bnb4")):
        args = {"pretrained": "org/m", "dtype": name}
        folder = letters(tmp_path / "out" / name, "org/m", n=400, args=args)
        [file] = folder.glob("samples*")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            for response in row["resps"]:
                response[0][0] = str(float(response[0][0]) - place * shift * (row["doc_id"] % 3))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = gate_import(qeval, tmp_path / "out", "m[dtype=fp16]", code=code).stdout
    said = "the same numbers, but for rounding, as the baseline on all 400 items"
    assert (said in found) == (code == 5)


# --- nothing was measured -----------------------------------------------------------------------


def baseline_with(made, **columns):
    """The made run, with columns of the baseline's samples as functions of them make them."""
    run, read, items = made
    new = lambda samples: replace(samples, **{name: make(samples) for name, make in columns.items()})  # noqa: E731
    return run, lambda cell: new(read(cell)) if cell.key.startswith("fp16") else read(cell), items


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"value": lambda one: one.value * 0}, "scored 0 on all 400 items of arc"),
        ({"answer": lambda one: np.full(len(one), "1")}, "gives the same answer to all 400 items of arc"),
    ],
)
def test_a_baseline_that_has_nothing_to_lose_lets_nobody_pass(
    columns, said, qeval, runs_dir, tmp_path
) -> None:
    run = store(runs_dir, baseline_with(whole(), **columns))
    found = qeval("gate", run, *WIDE, "--allow-inconclusive", "--junit", tmp_path / "j.xml", code=4).stdout
    assert f"fp16, the baseline, {said}, so nothing can be lost there" in found
    assert 0 < found.index("Check the task") < found.index("--ungated arc")
    assert said in (tmp_path / "j.xml").read_text()
    assert "Allowed by --ungated" in qeval("gate", run, *WIDE, "--ungated", "arc").stdout
    assert "nothing can be lost" not in qeval("gate", run, *WIDE, "--baseline", "bnb4", code=None).stdout


def test_a_published_score_of_0_has_nothing_to_lose(qeval, tmp_path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("variant,task,score,n,model\nfp16,a,0,9000,m\nbnb4,a,0.001,9000,m\n")
    run = qeval("import", "--scores", table, "--baseline", "fp16").stdout.strip()
    words = ("gate", run, *WIDE, "--ungated", "nothing")
    assert "has a score of 0 on all items of a, so nothing can be lost" in qeval(*words, code=None).stdout


def test_a_baseline_at_the_level_of_guessing_is_told(qeval, runs_dir) -> None:
    quarter = lambda one: (np.arange(len(one)) % 4 == 0).astype(float)  # noqa: E731
    run = store(runs_dir, baseline_with(whole(), value=quarter))
    found = qeval("gate", run, *WIDE, code=None).stdout
    assert "fp16, the baseline, scores 25.00 on arc, where guessing scores 25.00" in found
    assert "guessing scores" not in qeval("gate", store(runs_dir, id="run-2"), *WIDE).stdout


def test_contexts_that_were_cut_otherwise_are_not_the_same(qeval, runs_dir) -> None:
    made = whole()
    cells = tuple(replace(cell, truncated=3) for cell in made[0].results[0].cells)
    run = store(runs_dir, changed(made, 0, cells=cells))
    found = qeval("gate", run, *WIDE, code=5).stdout
    assert "contexts of arc were cut to fit 3 times for fp16 and 0 times for bnb4" in found
    assert "Allowed by --ungated" in qeval("gate", run, *WIDE, "--ungated", "arc").stdout


def test_a_quantised_baseline_is_told(qeval, runs_dir) -> None:
    made = whole()
    provenance = replace(made[0].results[0].provenance, modules={"Linear4bit": 9}, linears=9)
    run = store(runs_dir, changed(made, 0, provenance=provenance))
    said = "The baseline, fp16, is itself quantised"
    assert said in qeval("gate", run, *WIDE).stdout
    assert said not in qeval("gate", run, *WIDE, "--baseline", "bnb4").stdout


@pytest.mark.parametrize(
    ("schemes", "told"), [("fp16,bnb4", False), ("fp32,bnb4", False), ("bnb4,gptq", True)]
)
def test_the_toy_tells_whether_its_baseline_is_quantised(qeval, schemes: str, told: bool) -> None:
    qeval("run", "--model", "toy[items=200]", "--tasks", "arc_easy", "--schemes", schemes)
    assert ("is itself quantised" in qeval("gate", *WIDE).stdout) == told


def test_perplexity_of_a_few_documents_is_told(qeval, runs_dir) -> None:
    few = store(runs_dir, whole(tasks=(WIKI,), n_items=3))
    assert "wiki is decided by 3 documents" in qeval("gate", few, "--max-ppl-ratio", "9", code=None).stdout


# --- what an earlier gate left ------------------------------------------------------------------


def test_files_of_an_earlier_gate_do_not_stay_where_a_later_one_comes_to_no_verdict(
    qeval, runs_dir, tmp_path
) -> None:
    run = store(runs_dir)
    junit, badge = tmp_path / "j.xml", tmp_path / "b.json"
    words = ("--junit", junit, "--badge", badge)
    qeval("gate", run, *WIDE, *words)
    assert "pass" in badge.read_text()
    for bad in (
        ("gate", "nowhere", *WIDE),
        ("gate", run, "--max-drop", "x"),
        ("gate", run, *WIDE, "--baseline", "q"),
    ):
        assert qeval(*bad, *words, code=None).exit_code in {1, 2}
        assert "no verdict" in badge.read_text()
        assert 'errors="1"' in junit.read_text()
        qeval("gate", run, *WIDE, *words)
        assert 'errors="0"' in junit.read_text()
    qeval("gate", "nowhere", *WIDE, "--junit", tmp_path / "new.xml", code=1)
    assert not (tmp_path / "new.xml").exists()
    qeval("gate", run, *WIDE, "--junit", badge, "--badge", badge, code=2)
    assert json.loads(badge.read_text())["message"] == "no verdict"  # as what it was
