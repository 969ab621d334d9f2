"""The table of cases in docs/gate.md, row by row, through the command line."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import ARC, QUIZ, WIKI, edited, without_cell
from stored import WIDE, changed, store, whole

from qeval.base.records import Result, Rule, Stop
from qeval.store.runs import Store

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
ROWS = {
    row[0]: (row[1], int(row[2]))
    for row in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| (\d) \|$", PAGE[PAGE.index("## Every case") :], re.MULTILINE
    )
}


def policy(tmp_path: Path, text: str) -> tuple[str, str]:
    (tmp_path / "policy.toml").write_text(text)
    return "--policy", str(tmp_path / "policy.toml")


def other_model(made):
    run, read, items = made
    variant = replace(run.results[1].variant, model="other/model")
    return changed((run, read, items), 1, variant=variant)


def same_numbers(made):
    run, read, items = made
    return run, lambda cell: read(replace(cell, key=cell.key.replace("bnb4", "fp16"))), items


def nothing_right(made):
    run, read, items = made
    return run, edited(read, "fp16-arc", value=np.zeros(400)), items


def cut(made):
    cells = tuple(replace(cell, truncated=3) for cell in made[0].results[0].cells)
    return changed(made, 0, cells=cells)


def unproved(made):
    cells = tuple(replace(cell, unproved=("Nobody knows how many.",)) for cell in made[0].results[1].cells)
    return changed(made, 1, cells=cells)


def unversioned(made):
    return changed(made, 1, provenance=replace(made[0].results[1].provenance, versions={}))


def reloaded(made):
    return changed(made, 1, provenance=replace(made[0].results[1].provenance, revision="1" * 40))


def stopped(made):
    stop = Stop("arc", Rule(max_drop=1.0), 50, 400)
    return changed(made, 1, status="stopped", stop=stop, error="Stopped early.")


def other_prompts(made):
    run, read, items = made
    return run, edited(read, "bnb4-arc", prompt_hash=np.array([f"p{k}" for k in range(400)])), items


def failed(made):
    return changed(made, 1, status="failed", error="No kernel for this device.")


def plain(made):
    run, _, _ = made
    return changed(made, 1, provenance=replace(run.results[1].provenance, quantised_share=0.093))


def half(made):
    run, read, items = made
    return without_cell(run, "bnb4", "quiz_law"), read, items


def two_runs(runs_dir):
    store(runs_dir, id="a")
    run, read, items = other_model(other_model_baseline(whole(seed=6)))
    keyed = [replace(r, cells=tuple(replace(c, key=f"b-{c.key}") for c in r.cells)) for r in run.results]
    made = replace(run, results=tuple(keyed))
    unkeyed = lambda of: lambda cell: of(replace(cell, key=cell.key.removeprefix("b-")))  # noqa: E731
    store(runs_dir, (made, unkeyed(read), unkeyed(items)), id="b")
    return "a", "b", "--baseline", "fp16@a"


def other_model_baseline(made):
    run, _, _ = made
    return changed(made, 0, variant=replace(run.results[0].variant, model="other/model"))


def did_not_begin(runs_dir):
    store(runs_dir)
    Store(runs_dir).mark_newest("")
    return WIDE


def case(name: str, runs_dir: Path, tmp_path: Path) -> tuple[str, ...]:
    """The words after `qeval gate` that are this case, its runs stored."""
    mixed = "[[rule]]\nmax_drop = 60\n[[rule]]\nvariants = 'awq'\nmax_drop = 1\n"
    cases = {
        "every rule passes": lambda: (store(runs_dir), *WIDE),
        "a rule is broken": lambda: (store(runs_dir, whole(effect=-0.3)), "--max-drop", "1"),
        "the items do not decide a rule": lambda: (store(runs_dir), "--max-drop", "0.1"),
        "the same with `--allow-inconclusive`": lambda: (
            store(runs_dir),
            "--max-drop",
            "0.1",
            "--allow-inconclusive",
        ),
        "a run with `--limit`": lambda: (store(runs_dir, whole(limit=400, n_available=900)), *WIDE),
        "the same with `--allow-limited`": lambda: (
            store(runs_dir, whole(limit=400, n_available=900)),
            *WIDE,
            "--allow-limited",
        ),
        "a variant failed": lambda: (store(runs_dir, failed(whole(3))), *WIDE),
        "a member of a group is missing": lambda: (store(runs_dir, half(whole(tasks=(QUIZ,)))), *WIDE),
        "a variant was stopped early, and is judged by other rules": lambda: (
            store(runs_dir, stopped(whole())),
            *WIDE,
        ),
        "a task that no required rule judges": lambda: (
            store(runs_dir, whole(tasks=(ARC, WIKI))),
            *policy(tmp_path, "[[rule]]\nmax_drop = 60\n"),
        ),
        "the same with `--ungated TASK`": lambda: (
            store(runs_dir, whole(tasks=(ARC, WIKI))),
            *policy(tmp_path, "[[rule]]\nmax_drop = 60\n"),
            "--ungated",
            "wiki",
        ),
        "a perplexity within x1.10 under `--max-drop` alone": lambda: (
            store(runs_dir, whole(tasks=(ARC, WIKI))),
            *WIDE,
        ),
        "a perplexity beyond x1.10 under `--max-drop` alone": lambda: (
            store(runs_dir, whole(tasks=(ARC, WIKI), effect=-0.3)),
            *WIDE,
        ),
        "a rule that concerns no variant or no task": lambda: (store(runs_dir), *policy(tmp_path, mixed)),
        "the same with `required = false`": lambda: (
            store(runs_dir),
            *policy(tmp_path, mixed + "required = false\n"),
        ),
        "`--ungated` for no task of the run": lambda: (store(runs_dir), *WIDE, "--ungated", "wikki"),
        "a candidate with the baseline's own numbers": lambda: (
            store(runs_dir, same_numbers(whole())),
            *WIDE,
        ),
        "the same with `--allow-identical`": lambda: (
            store(runs_dir, same_numbers(whole())),
            *WIDE,
            "--allow-identical",
        ),
        "a baseline that has nothing right in a task, or one answer to all of it": lambda: (
            store(runs_dir, nothing_right(whole())),
            *WIDE,
        ),
        "the same with `--ungated TASK` (a baseline with nothing to lose)": lambda: (
            store(runs_dir, nothing_right(whole())),
            *WIDE,
            "--ungated",
            "arc",
        ),
        "contexts that were cut to fit for one of two variants alone": lambda: (
            store(runs_dir, cut(whole())),
            *WIDE,
        ),
        "a candidate that its scheme left mostly plain": lambda: (store(runs_dir, plain(whole())), *WIDE),
        "the same with `--allow-inconclusive` only": lambda: (
            store(runs_dir, plain(whole())),
            *WIDE,
            "--allow-inconclusive",
        ),
        "the same with `--allow-unquantised`": lambda: (
            store(runs_dir, plain(whole())),
            *WIDE,
            "--allow-unquantised",
        ),
        "imported results of which nothing proves that they are of one model": lambda: (
            store(runs_dir, other_model(whole()), source="lm-eval"),
            *WIDE,
        ),
        "the same with `--allow-unproved-model`": lambda: (
            store(runs_dir, other_model(whole()), source="lm-eval"),
            *WIDE,
            "--allow-unproved-model",
        ),
        "a variant of another revision or adapter than the baseline's, or of changed files": lambda: (
            store(runs_dir, reloaded(whole())),
            *WIDE,
        ),
        "a run from the future, as when a clock was wrong, with `--newer-than`": lambda: (
            store(runs_dir, created="2999-01-01T00:00:00+00:00"),
            *WIDE,
            "--newer-than",
            "1d",
        ),
        "joined runs of which one is older than `--newer-than`": lambda: (
            store(runs_dir, created=dt.datetime.now(dt.UTC).isoformat()),
            store(runs_dir, id="old"),
            *WIDE,
            "--newer-than",
            "1d",
        ),
        "what an import could not prove of a task": lambda: (
            store(runs_dir, unproved(whole()), source="lm-eval"),
            *WIDE,
        ),
        "lm-eval's version, or the examples in the prompt, known of one side only": lambda: (
            store(runs_dir, unversioned(whole())),
            *WIDE,
        ),
        "either with `--ungated TASK`": lambda: (
            store(runs_dir, unproved(unversioned(whole()))),
            *WIDE,
            "--ungated",
            "arc",
        ),
        "runs of different models": lambda: (*two_runs(runs_dir), *WIDE),
        "the same with `--allow-different-models`": lambda: (
            *two_runs(runs_dir),
            *WIDE,
            "--allow-different-models",
        ),
        "variants that were not asked the same": lambda: (store(runs_dir, other_prompts(whole())), *WIDE),
        "a run with one variant": lambda: (store(runs_dir, whole(1)), *WIDE),
        "a run older than `--newer-than`": lambda: (store(runs_dir), *WIDE, "--newer-than", "1d"),
        "no run is named, and the newest did not begin to score": lambda: did_not_begin(runs_dir),
        "no run": lambda: WIDE,
        "no policy": lambda: (store(runs_dir),),
        "`--policy` beside `--max-drop`": lambda: (
            store(runs_dir),
            *WIDE,
            *policy(tmp_path, "[[rule]]\nmax_drop = 60\n"),
        ),
        "`--confidence` beside `--policy`": lambda: (
            store(runs_dir),
            *policy(tmp_path, "[[rule]]\nmax_drop = 60\n"),
            "--confidence",
            "0.9",
        ),
        "two limits for all tasks, or for one": lambda: (store(runs_dir), *WIDE, "--max-drop", "1"),
        "an option given twice": lambda: (
            store(runs_dir),
            *WIDE,
            "--confidence",
            "0.9",
            "--confidence",
            "0.8",
        ),
        "a limit that means nothing for what it names": lambda: (
            store(runs_dir),
            *policy(tmp_path, "[[rule]]\ntasks = 'arc'\nmax_ppl_ratio = 1.1\n"),
        ),
    }
    assert set(cases) == set(ROWS), "docs/gate.md and this test know the same cases"
    return tuple(cases[name]())


@pytest.mark.parametrize("name", sorted(ROWS))
def test_each_case_ends_as_the_page_says(name, qeval, runs_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    happens, code = ROWS[name]
    words = case(name, runs_dir, tmp_path)
    loud = ("--verbose",) if "`--verbose`" in happens else ()
    result = qeval("gate", *words, *loud, code=code)
    said = result.stdout + result.stderr
    for quoted in re.findall(r'"([^"]+)"', happens):
        assert quoted in said, said


def test_what_is_let_pass_is_named_in_every_output(qeval, runs_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.chdir(tmp_path)
    run = store(runs_dir, plain(same_numbers(whole())))
    files = ("--junit", tmp_path / "j.xml", "--badge", tmp_path / "b.json")
    allowed = ("--allow-identical", "--allow-unquantised")
    result = qeval("gate", run, *WIDE, *allowed, *files)
    document = qeval("gate", run, *WIDE, *allowed, "--json").stdout
    texts = (result.stdout, result.stderr, document, (tmp_path / "j.xml").read_text())
    for text in (*texts, (tmp_path / "summary.md").read_text().replace("\\", "")):
        assert "Allowed by --allow-identical" in text
        assert "Allowed by --allow-unquantised" in text
    marked = "identical numbers, mostly unquantised, all allowed"
    assert f"({marked})" in (tmp_path / "b.json").read_text()
    least = qeval("gate", run, *WIDE, *allowed, "--quiet").stdout
    reports = [tmp_path / name for name in ("r.html", "r.md", "r.json")]
    qeval("report", run, *WIDE, *allowed, *[word for path in reports for word in ("-o", path)])
    qeval("report", run, *WIDE, *allowed, "--short", "-o", tmp_path / "short.md")
    for path in (*reports, tmp_path / "short.md"):
        least += path.read_text().replace("\\", "")
    for option in allowed:
        assert least.count(f"Allowed by {option}") == 5


@pytest.mark.parametrize(
    ("made", "words", "told"),
    [
        (whole(limit=400, n_available=900), (*WIDE, "--allow-limited"), "limited run, allowed"),
        (whole(), ("--max-drop", "0.1", "--allow-inconclusive"), "1 undecided, allowed"),
        (same_numbers(whole()), (*WIDE, "--allow-identical"), "identical numbers, allowed"),
        (plain(whole()), (*WIDE, "--allow-unquantised"), "mostly unquantised, allowed"),
        (unproved(whole()), (*WIDE, "--ungated", "arc"), "1 task exempt, allowed"),
        (
            plain(whole(limit=400, n_available=900)),
            (*WIDE, "--allow-limited", "--allow-unquantised"),
            "limited run, mostly unquantised, all allowed",
        ),
    ],
)
def test_a_pass_by_exceptions_says_so_in_every_headline(
    made, words, told, qeval, runs_dir, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    run = store(runs_dir, made)
    files = ("--junit", tmp_path / "j.xml", "--badge", tmp_path / "b.json")
    result = qeval("gate", run, *words, *files)
    assert result.stdout.startswith(f"PASS ({told}): ")
    assert f"::PASS ({told}): " in result.stderr
    assert f'name="PASS ({told}): ' in (tmp_path / "j.xml").read_text()
    assert f"({told})" in json.loads((tmp_path / "b.json").read_text())["message"]
    assert (tmp_path / "summary.md").read_text().strip().startswith(f"## PASS ({told}): ")
    found = json.loads(qeval("gate", run, *words, "--json").stdout)
    assert found["headline"].startswith(f"PASS ({told}): ")
    assert found["exceptions"] == told.removesuffix(", all allowed").removesuffix(", allowed").split(", ")
    passes = "undecided" not in told
    qeval("report", run, *words, "-o", tmp_path / "r.html", "-o", tmp_path / "r.md")
    title = f"bnb4 passes ({told})" if passes else "bnb4 is undecided (allowed)"
    assert (tmp_path / "r.md").read_text().replace("\\", "").startswith(f"# {title}")
    assert f"<h1>{title}</h1>" in (tmp_path / "r.html").read_text()


def test_what_fails_or_needs_no_exception_has_no_mark(qeval, runs_dir) -> None:
    run = store(runs_dir)
    every = ("--allow-inconclusive", "--allow-limited", "--allow-identical", "--allow-unquantised")
    assert qeval("gate", run, *WIDE, *every).stdout.startswith("PASS: ")
    made = store(runs_dir, whole(effect=-0.5), id="run-2")
    assert qeval("gate", made, "--max-drop", "1", *every, code=3).stdout.startswith("FAIL: ")


def test_every_output_begins_with_verdict_model_run_and_date(qeval, runs_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    store(runs_dir)
    result = qeval("gate", *WIDE, "--junit", tmp_path / "j.xml")
    head = (
        "PASS: toy@" + "0" * 40 + ", run run-1 of 2026-01-02T03:04:05Z: bnb4 against fp16, by --max-drop 60"
    )
    assert result.stdout.splitlines()[0] == head
    assert "Judging the newest run, run-1, begun" in result.stderr
    assert f"::{head}" in result.stderr
    assert head in (tmp_path / "j.xml").read_text().splitlines()[1]
    title, _, about = (
        (tmp_path / "summary.md").read_text().replace("\\", "").replace("<!-- -->", "").splitlines()[:3]
    )
    assert f"{title.removeprefix('## ')}, {about.replace('Run', 'run', 1)}" == head
    assert f'"headline": "{head}"' in qeval("gate", *WIDE, "--json").stdout


@pytest.mark.parametrize(
    ("age", "code", "told"),
    [
        ("1d", 5, "Error: The run run-1 was begun "),
        ("2020-01-01", 0, "PASS: bnb4\n"),
        ("400000w", 2, "Error: --newer-than 400000w reaches back before the first year.\n"),
        ("soon", 2, "Error: --newer-than 'soon' is neither an age nor a date.\n"),
        ("99999d", 0, "PASS: bnb4\n"),
    ],
)
def test_how_old_a_run_may_be(age, code, told, qeval, runs_dir) -> None:
    store(runs_dir)
    result = qeval("gate", *WIDE, "--newer-than", age, code=code)
    assert told in result.output


def test_a_gated_run_judges_at_its_end(qeval, tmp_path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text("[gate]\nmax_drop = 60\n")
    words = ("run", "--model", "toy[items=60]", "--tasks", "arc_challenge:acc_norm")
    told = qeval(*words, "--schemes", "fp16,bnb4", "--gate", file).stdout
    assert "PASS (every number is invented): toy[items=60]" in told
    file.write_text("[gate]\nmax_drop = 0.1\n")
    assert "INCONCLUSIVE (every" in qeval(*words, "--schemes", "fp16,bnb4", "--gate", file, code=4).stdout
    file.write_text("[gate]\nmax_drop = 1\n")
    words = ("run", "--model", "toy[items=3000]", "--tasks", "arc_challenge:acc_norm")
    result = qeval(*words, "--schemes", "fp16,rtn[bits=2]", "--gate", file, code=3)
    assert "FAIL (every number is invented): toy[items=3000]" in result.stdout
    failing = ("run", "--model", "toy[items=60,fail=bnb4]", "--tasks", "arc_challenge:acc_norm")
    qeval(*failing, "--schemes", "fp16,bnb4", "--gate", file, code=1)


def test_a_failed_result_is_no_result(runs_dir, qeval) -> None:
    run, read, items = whole(3)
    results = (run.results[0], Result(run.results[1].variant, "failed", error="no"), run.results[2])
    name = store(runs_dir, (replace(run, results=results), read, items))
    assert "MISSING: bnb4" in qeval("gate", name, *WIDE, code=5).stdout
