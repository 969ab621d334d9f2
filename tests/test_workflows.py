"""The action, the workflows and the examples of workflows: every step runs in bash, with the toy for a model.

What would install something, or ask GitHub, is stood in for: such a command is written down and succeeds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from qeval.cli.quantize import quantize

ROOT = Path(__file__).parents[1]
ACTION = ROOT / ".github" / "actions" / "gate" / "action.yml"
WORKFLOWS = [*(ROOT / ".github" / "workflows").glob("*.yml"), *(ROOT / "docs" / "examples").glob("*.yml")]
JUDGING = ROOT / "docs" / "examples" / "requirements-judging.txt"
STANDS_IN = {"pip": 'case "$*" in "-m pip "*) exit 0;; esac; exec {python} "$@"', "other": "exit 0"}


def steps(path: Path) -> list[dict[str, Any]]:
    """The steps of a workflow or an action, each with the variables of its job."""
    told = yaml.safe_load(path.read_text("utf-8"))
    if "runs" in told:
        return list(told["runs"]["steps"])
    found = []
    for job in told["jobs"].values():
        around = {**told.get("env", {}), **job.get("env", {})}
        found += [step | {"env": around | step.get("env", {})} for step in job["steps"]]
    return found


class Runner:
    """A machine that runs steps, in a directory of its own, with GITHUB_* files of its own."""

    def __init__(self, place: Path) -> None:
        self.place, self.bin = place, place / "bin"
        self.bin.mkdir()
        self.stand_in("python", STANDS_IN["pip"].format(python=sys.executable))
        for name in ("make", "gh"):
            self.stand_in(name, f'echo "{name} $*" >> "{place}/called"; echo 4711')
        self.files = {name: place / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in self.files.values():
            file.touch()

    def stand_in(self, name: str, script: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        file.chmod(0o755)

    def run(self, step: dict[str, Any], **env: str) -> subprocess.CompletedProcess[str]:
        own = {name: str(value) for name, value in step.get("env", {}).items() if "${{" not in str(value)}
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        there = {name: str(file) for name, file in self.files.items()}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.place,
            env={**os.environ, "GITHUB_ACTIONS": "true", "PATH": path, **there, **own, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.mark.parametrize("path", [ACTION, *WORKFLOWS], ids=lambda path: path.name)
def test_no_step_puts_what_others_wrote_into_a_shell(path: Path) -> None:
    assert steps(path)
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


def test_the_action_hands_on_every_input_and_only_those() -> None:
    told = yaml.safe_load(ACTION.read_text("utf-8"))
    used = set(re.findall(r"inputs\.([a-z-]+)", ACTION.read_text("utf-8")))
    assert used == set(told["inputs"])
    assert all(step["shell"] == "bash" for step in told["runs"]["steps"])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the toy."""
    first = Runner(tmp_path_factory.mktemp("toy"))
    words = "qeval run --model toy --schemes fp16,gptq --suite demo"
    assert first.run({"run": words}).returncode == 0
    return first.place / "runs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "code", "verdict"),
    [
        ({"MAX_DROP": "30"}, 0, "PASS"),
        ({"MAX_DROP": "1.0"}, 4, "INCONCLUSIVE"),
        ({"MAX_DROP": "30", "RUNS": "no-such-run"}, 1, "ERROR"),
        ({"MAX_DROP": "many"}, 2, "ERROR"),
        ({"POLICY": "policy.toml"}, 3, "FAIL"),
        ({"MAX_DROP": "30", "WORDS": "--newer-than 1s"}, 5, "MISSING"),
        ({"MAX_DROP": "30", "WORDS": "--help"}, 1, "ERROR"),
    ],
)
def test_the_action_judges(runner: Runner, toy: Path, env: dict[str, str], code: int, verdict: str) -> None:
    shutil.copytree(toy, runner.place / "runs")
    (runner.place / "policy.toml").write_text('[[rule]]\ntasks = "qeval_facts"\nmax_drop = 0.01\n')
    usual = {
        "RUNS": "",
        "POLICY": "",
        "MAX_DROP": "",
        "WORDS": "",
        "QEVAL_RUNS_DIR": "runs",
        "REPORT": "true",
    }
    install, gate, report = steps(ACTION)
    assert runner.run(install, GITHUB_ACTION_PATH=str(ACTION.parent), **(usual | env)).returncode == 0
    done = runner.run(gate, **(usual | env))
    assert (done.returncode, runner.files["GITHUB_OUTPUT"].read_text()) == (code, f"verdict={verdict}\n"), (
        done
    )
    assert "Traceback" not in done.stderr
    if verdict in {"PASS", "FAIL", "INCONCLUSIVE"}:
        assert ET.parse(runner.place / "gate.xml").getroot().tag == "testsuites"
        assert (
            runner.files["GITHUB_STEP_SUMMARY"]
            .read_text("utf-8")
            .startswith(f"## {verdict} (every number is invented): toy")
        )
    if "RUNS" not in env:
        rule = "policy.toml" if "POLICY" in env else f"--max-drop {env['MAX_DROP']}"
        done = runner.run(report, **(usual | env))
        assert done.returncode == (2 if env.get("MAX_DROP") == "many" else 0), done
        assert done.returncode or rule in (runner.place / "report.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["github-workflow.yml", "score-nightly.yml"])
def test_what_is_scored_is_made_first(name: str) -> None:
    path = ROOT / "docs" / "examples" / name
    told = [step["run"].split() for step in steps(path) if step.get("name") in {"Quantise", "Score"}]
    assert [words[1] for words in told] == ["quantize", "run"]
    asked = quantize.make_context("quantize", told[0][2:]).params
    schemes = yaml.safe_load(path.read_text("utf-8"))["env"]["SCHEMES"]
    assert schemes.endswith(f"{asked['scheme']}@{asked['output']}")


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("FAIL", 1), ("INCONCLUSIVE", 1), ("", 1)])
def test_only_a_pass_is_released(runner: Runner, verdict: str, code: int) -> None:
    told = yaml.safe_load((ROOT / "docs" / "examples" / "judge-on-release.yml").read_text("utf-8"))
    assert told["jobs"]["release"]["needs"] == "judge"
    (step,) = [step for step in told["jobs"]["judge"]["steps"] if step.get("name") == "What follows?"]
    assert runner.run(step, VERDICT=verdict).returncode == code


@pytest.mark.slow
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_of_a_workflow_runs(runner: Runner, path: Path) -> None:
    (runner.place / "policy.toml").write_text(
        '[[rule]]\nmax_drop = 30.0\n[[rule]]\ntasks = "wikitext"\nmax_ppl_ratio = 2.0\n'
    )
    model = {"MODEL": "toy[items=40]", "SCHEMES": "fp16,gptq", "SUITE": "leaderboard-v1", "HF_TOKEN": ""}
    model |= {"VERDICT": "PASS", "GITHUB_REF_NAME": "v1"}
    for step in (step for step in steps(path) if "run" in step):
        instead = step["run"].replace(" --devices all", "")  # the toy calculates on no GPU
        instead = instead.replace("qeval quantize", "echo qeval quantize")  # there is nothing to quantise
        instead = re.sub(r"(?m)^( *(?:- )?)pip install", r"\1python -m pip install", instead)
        done = runner.run(step | {"run": instead}, **model)
        codes = {0, 3, 4} if step.get("name") == "Gate" else {0}
        assert done.returncode in codes, (step, done.stdout, done.stderr)


@pytest.mark.slow
def test_judging_needs_no_more_than_the_short_list_says() -> None:
    """Each command of the judging half in a process in which nothing else can be imported."""
    lines = [line for line in JUDGING.read_text("utf-8").splitlines() if line[:1].isalpha()]
    names = {"qeval", *(re.split(r"[><=]", line)[0].lower() for line in lines)}
    code = f"""
import sys
from importlib import metadata
known = set(sys.stdlib_module_names)
for module, packages in metadata.packages_distributions().items():
    if {{name.lower().replace("_", "-") for name in packages}} & {names!r}:
        known.add(module)
class Door:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in known and path is None:
            raise ImportError(name)
sys.meta_path.insert(0, Door())
distribution = metadata.distribution
def known_alone(name):
    if name.lower().replace("_", "-") not in {names!r}:
        raise metadata.PackageNotFoundError(name)
    return distribution(name)
metadata.distribution = known_alone  # by which versions are asked for
from qeval.cli.main import main
for words in (
    ["run", "--model", "toy", "--schemes", "fp16,gptq", "--suite", "demo"],
    ["gate", "--max-drop", "30", "--junit", "gate.xml", "--badge", "badge.json"],
    ["report", "-o", "r.html"], ["show"], ["plan", "--suite", "leaderboard-v1"], ["list", "suites"],
    ["export", "--to", "lm-eval", "-o", "out"], ["import", "out/0-fp16"],
):
    try:
        main(words, prog_name="qeval")
    except SystemExit as end:
        assert end.code == (words[0] == "report"), (words, end.code)
"""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install vl-convert-python" in done.stderr
