"""What a message tells to do is done, and does away with it: refusals that a newcomer meets."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from qeval.base.places import tasks_dir
from qeval.base.sizes import DEMO_SIZES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

RUN = ("run", "--model", "toy[items=60]", "--schemes", "fp16,bnb4", "--tasks", "arc_easy:acc,piqa:acc")


@pytest.fixture
def typed(qeval, monkeypatch: pytest.MonkeyPatch):
    """Call a command as it would be typed."""

    def call(*words: object, code: int | None = 0):
        monkeypatch.setattr(sys, "argv", ["qeval", *map(str, words)])
        return qeval(*words, code=code)

    return call


def test_a_rule_that_concerns_nothing_says_a_way_out_that_works(qeval, tmp_path: Path) -> None:
    qeval(*RUN)
    gate = ("gate", "--allow-identical")
    said = qeval(*gate, "--max-drop", "90", "--max-drop", "mmlu=1", code=5).stdout
    assert "applies to nothing: this run has no 'mmlu'" in said
    assert "leave that limit out" in said
    qeval(*gate, "--max-drop", "90")
    file = tmp_path / "own.toml"
    file.write_text("[[rule]]\nmax_drop = 90.0\n[[rule]]\ntasks = 'mmlu'\nmax_drop = 1.0\n")
    assert "write required = false under the rule" in qeval(*gate, "--policy", file, code=5).stdout
    file.write_text(file.read_text() + "required = false\n")
    qeval(*gate, "--policy", file)
    said = qeval("gate", "--policy", "leaderboard-v1", code=None).stdout
    assert "is for the suite leaderboard-v1: judge this run with qeval gate --max-drop 1.0." in said
    assert "applies to nothing" not in qeval(*gate, "--max-drop", "1.0", code=None).stdout


def test_a_plan_names_every_size_that_is_missing_in_one_command(typed) -> None:
    said = typed("plan", "--tasks", "one,two,arc_challenge", "--max-drop", "50", code=2).stderr
    assert "how many items one, two have" in said
    command = said.rpartition("put the numbers in: ")[2]
    assert "--n one=1000 --n two=1000" in command
    assert "two" in typed(*shlex.split(command)[1:]).stdout


def test_a_plan_of_a_task_that_there_is_not_names_the_nearest(typed) -> None:
    said = typed("plan", "--tasks", "arc_challenge,hellswag", code=2).stderr
    assert "how many items hellswag has" in said
    assert "Did you mean 'hellaswag'? If not, take them from a run" in said
    typed("plan", "--tasks", "arc_challenge,hellaswag", code=None)
    assert "Did you mean" not in typed("plan", "--tasks", "xyzzy_of_ours", code=2).stderr


def test_a_plan_knows_the_sizes_of_our_own_tasks(typed) -> None:
    for task, n in DEMO_SIZES.items():
        lines = (tasks_dir() / "demo" / f"{task.removeprefix('qeval_')}.jsonl").read_text().splitlines()
        assert len(lines) == n, task
    assert "qeval_facts" in typed("plan", "--suite", "demo").stdout


@pytest.mark.parametrize("limit", [("--max-drop", "60"), ("--policy", "own.toml", "--ungated", "piqa")])
def test_a_report_tells_how_to_judge_as_it_was_judged(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text("[[rule]]\ntasks = 'arc_easy'\nmax_drop = 60.0\n")
    typed(*RUN)
    typed("report", "-o", "r.md", *limit)
    text = Path("r.md").read_text()
    [report] = re.findall(r"^qeval report .*$", text, re.MULTILINE)
    [gate] = re.findall(r"^qeval gate .*$", text, re.MULTILINE)
    assert shlex.join(limit) in report
    assert shlex.join(limit) in gate
    typed(*shlex.split(gate)[1:])
    typed(*shlex.split(report)[1:])
    assert Path("report.html").is_file()


def test_a_note_on_an_earlier_run_names_what_is_asked_otherwise(typed, tmp_path: Path) -> None:
    policy = tmp_path / "own.toml"
    policy.write_text("[[rule]]\nmax_drop = 60.0\n")
    typed(*RUN)
    judged = typed(*RUN, "--gate", policy, code=None).stderr
    assert "asked the same under another policy, or none;" in judged
    assert "other files" not in judged
    assert "asked the same against another baseline;" in typed(*RUN, "--baseline", "bnb4").stderr
    assert "asked the same with other settings of its tasks;" in typed(*RUN, "--num-fewshot", "3").stderr


@pytest.mark.parametrize(
    ("words", "variable", "said"),
    [
        ((), None, "gpu_memory in qeval.toml limits a GPU, and this machine has no NVIDIA GPU."),
        (("--device", "cpu"), None, "gpu_memory in qeval.toml limits a GPU, and the device is cpu."),
        ((), "2GiB", "QEVAL_RUN_GPU_MEMORY limits a GPU, and this machine has no NVIDIA GPU."),
        (("--gpu-memory", "2GiB"), None, "--gpu-memory limits a GPU, and this machine has no NVIDIA GPU."),
    ],
)
def test_a_limit_on_a_gpu_that_is_not_here_is_refused_first_and_says_where_it_stands(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, variable: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qeval.run.gpus.visible", lambda: ())
    Path("qeval.toml").write_text('[run]\nmodel = "demo"\ngpu_memory = "24GiB"\n')
    if variable:
        monkeypatch.setenv("QEVAL_RUN_GPU_MEMORY", variable)
    refused = typed("run", *words, code=2).stderr
    assert said in refused
    assert ("Take it out there" in refused) == (not words or words[0] == "--device")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("gat", "gate"), ("compare", "show"), ("help", "--help"), ("version", "--version"), ("xyzzy", "")],
)
def test_a_word_that_is_no_command_says_what_may_be_meant(qeval, word: str, meant: str) -> None:
    said = qeval(word, code=2).stderr
    assert f"No such command {word!r}." in said
    assert ("Did you mean" in said) == bool(meant)
    assert f"Did you mean {meant!r}?" in said or not meant
    if meant:
        qeval(meant, *[] if meant.startswith("--") else ["--help"])


def test_stray_words_of_run_say_where_they_belong(qeval) -> None:
    assert "A model is named by --model: --model toy" in qeval("run", "toy", code=2).stderr
    assert "Examples:" in qeval("run", "toy", "--help").stdout
    said = qeval("run", "--model", "toy", "--schemes", "fp16", "gptq", code=2).stderr
    assert "with commas, without spaces: fp16,gptq" in said
    qeval("run", "--model", "toy", "--schemes", "fp16,gptq")


def test_a_policy_of_another_suite_is_told_in_one_sentence(qeval) -> None:
    qeval(*RUN)
    said = qeval("gate", "--policy", "leaderboard", code=2).stderr
    assert "Did you mean 'leaderboard-v1'?" in said
    said = qeval("gate", "--policy", "leaderboard-v1", code=None).stdout
    assert said.count("this run has no mmlu, hellaswag, arc_challenge, truthfulqa_mc2, wikitext.") == 1


def test_a_report_in_no_known_format_names_all(qeval, tmp_path: Path) -> None:
    qeval(*RUN)
    said = qeval("report", "-o", tmp_path / "report.pdf", code=2).stderr
    assert "Known: .html, .json, .md, .txt." in said
    qeval("report", "-o", tmp_path / "report.txt")


def test_an_import_says_what_to_type_next(typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qeval.cli.exchange.width", lambda err: 80 if err else None)
    done = typed("import", ROOT / "docs" / "examples" / "llama2-7b-article.csv")
    first, *rest = done.stderr.partition("Next: ")[2].splitlines()
    for command in (first, *rest):
        typed(*shlex.split(command)[1:], code=None)
    assert [shlex.split(line)[1] for line in (first, *rest)] == ["report", "gate"]


def test_a_toy_costs_nothing_and_says_so(qeval) -> None:
    assert "--model demo" in qeval("cost", "--model", "toy", "--schemes", "fp16").stderr


def test_a_fetch_of_nothing_is_not_silent(qeval, tmp_path: Path) -> None:
    assert "Nothing was fetched" in qeval("fetch", "--model", "toy", "--to", tmp_path / "mirror").stderr


def test_a_toy_is_not_quantised(qeval, tmp_path: Path) -> None:
    said = qeval("quantize", "--model", "toy", "--scheme", "gptq", "--output", tmp_path / "q", code=2).stderr
    assert "The toy has no weights to quantise." in said
