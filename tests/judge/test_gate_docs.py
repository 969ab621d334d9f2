"""The gate's documentation does what it says: policies parse, the workflow's commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from factories import compare_run, conclude

from qeval.ask import policy, suites
from qeval.base.records import Rule
from qeval.base.rules import LIMITS, limit_of
from qeval.exchange import scores
from qeval.judge import plan, sizing
from qeval.judge.formats.table import table

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
PAGE = (DOCS / "gate.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_policy_on_the_page_parses(block):
    suite = suites.load("leaderboard-v1")
    rules = policy.parse(tomllib.loads(block), "gate.md")
    assert plan.plan(suite, sizing.sizes(suite), rules)


def test_there_is_a_worked_example_of_every_limit():
    rules = [rule for block in BLOCKS for rule in policy.parse(tomllib.loads(block)).rules]
    assert {limit_of(rule)[0] for rule in rules} == set(LIMITS)


def test_the_example_policy_can_be_planned():
    suite = suites.load("leaderboard-v1")
    rules = policy.load(EXAMPLES / "policy.toml")
    rows = plan.plan(suite, sizing.sizes(suite), rules)
    assert {limit_of(rule)[0] for rule in rules.rules} == set(LIMITS)
    assert {row.answer for row in rows} <= {"provable", "too few items", "unknown"}


def test_the_example_project_table(tmp_path):
    shutil.copy(EXAMPLES / "pyproject-gate.toml", tmp_path / "pyproject.toml")
    rules = policy.load(tmp_path / "pyproject.toml").rules
    assert rules == (Rule(max_drop=1.0), Rule(tasks="wikitext", max_ppl_ratio=1.03))


def test_every_key_of_a_rule_is_explained():
    for key in policy.RuleTable.__struct_fields__:
        assert f"| `{key}` |" in PAGE


def test_the_rows_of_the_article_are_what_the_gate_prints():
    model = "meta-llama/Llama-2-7b-hf"
    run = scores.import_scores(EXAMPLES / "llama2-article.toml", model=model)
    outcome = conclude(run, pytest.fail, policy.from_max_drop(["1.0"]))
    printed = {" ".join(line.split()) for line in table(outcome).splitlines()}
    shown = re.findall(r"^bnb4 .*$", PAGE, re.MULTILINE)
    assert len(shown) == 3
    assert {" ".join(line.split()) for line in shown} <= printed


def test_the_smallest_margins_that_the_page_names():
    suite = suites.load("leaderboard-v1")
    rows = {row.task: row for row in plan.plan(suite, sizing.sizes(suite))}
    named = re.search(r"1172 questions about ([\d.]+) points, on MMLU's 14042\nabout ([\d.]+)\.", PAGE)
    assert float(named.group(1)) == round(100 * rows["arc_challenge"].smallest, 1)
    assert float(named.group(2)) == round(100 * rows["mmlu"].smallest, 1)


def test_a_run_of_the_article_has_rows_for_the_report():
    run = scores.import_scores(EXAMPLES / "llama2-article.toml", model="meta-llama/Llama-2-13b-hf")
    assert len(compare_run(run, pytest.fail)) == 15


# --- the workflow -------------------------------------------------------------------------------


def steps():
    workflow = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text(encoding="utf-8"))
    found = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    return workflow, [run for run in found if run.startswith("qeval ")]


def test_the_workflow_plans_quantises_runs_gates_and_reports():
    workflow, commands = steps()
    assert [command.split()[1] for command in commands] == ["plan", "quantize", "run", "gate", "report"]
    assert workflow["jobs"]["judge"]["needs"] == "score"


@pytest.mark.slow
def test_the_workflows_commands_run_on_the_toy(tmp_path):
    """Every qeval command of the workflow, in order, by the shell, with the toy for a model."""
    shutil.copy(EXAMPLES / "policy.toml", tmp_path / "policy.toml")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL": "toy[items=30]",
        "SCHEMES": "fp16,shipped-3bit=bnb4",
        "SUITE": "leaderboard-v1",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    codes = {}
    for command in steps()[1]:
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        codes[command.split()[1]] = done.returncode
        assert "Traceback" not in done.stderr
    assert (codes["plan"], codes["run"], codes["report"]) == (0, 0, 0)
    assert codes["gate"] in (0, 3, 4)
    assert (
        (tmp_path / "summary.md")
        .read_text(encoding="utf-8")
        .startswith(("## PASS (every", "## FAIL (every", "## INCONCLUSIVE (every"))
    )
    assert ET.parse(tmp_path / "gate.xml").getroot().tag == "testsuites"
    assert (tmp_path / "badge.json").is_file()
    assert (tmp_path / "report.html").stat().st_size > 1000
