"""What `qeval quantize` writes is what `qeval run` scores, to the last digit; and its costs are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import save_model
from tiny_worlds import QUIET

from qeval.base.places import tasks_dir
from qeval.base.redirect import libraries_to

TEXT = "The cat sat under the tree and saw a big red dog on the mat. " * 40


def test_noise_goes_to_a_file_and_words_to_the_person(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from qeval.base.places import tasks_dir
from qeval.base.redirect import libraries_to
with libraries_to(Path(sys.argv[1])) as say:
    print("by Python"); print("an error", file=sys.stderr); os.write(1, b"by C\\n"); say("for you")
print("data")
"""
    log = tmp_path / "deep" / "log"
    found = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("data\n", "for you\n")
    assert sorted(log.read_text().splitlines()) == ["an error", "by C", "by Python"]


def test_noise_is_given_back_after_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), libraries_to(tmp_path / "log"):
        raise ValueError("x")
    os.write(1, b"here\n")
    sys.stdout.write("again\n")
    assert capfd.readouterr().out == "here\nagain\n"


@pytest.fixture
def scheme(tmp_path: Path) -> str:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    return f"gptq[bits=3,group_size=32,samples=4,length=64,calibration={text}]"


class TestCheckpoints:
    pytestmark = QUIET

    def test_what_is_gated_is_what_is_shipped(self, qeval, tmp_path: Path, scheme: str) -> None:
        pytest.importorskip("gptqmodel")
        model, place = save_model(tmp_path / "llama"), tmp_path / "shipped"
        words = ("--model", model, "--device", "cpu")
        made = qeval("quantize", *words, "--scheme", scheme, "-o", place)
        assert made.stdout == f"{place}\n"
        assert "gptq: block 2 of 2" in made.stderr.splitlines()
        card = (place / "README.md").read_text()
        assert all(row in card for row in ("| bits | 3 |", "| length | 64 |", "| samples | 4 |"))
        assert "base_model" not in card
        assert "# llama, quantised by gptq" in card
        assert len({file.stat().st_mode for file in place.iterdir()}) == 1
        last = f"Score it: qeval run --model {model} --schemes fp16,gptq@{place}"
        assert made.stderr.splitlines()[-1] == last
        again = qeval("quantize", *words, "--scheme", scheme, "-o", place, code=1)
        assert again.stderr.startswith(f"Error: {place} is there already.")

        schemes = f"fp32,made={scheme},shipped=gptq@{place}"
        run = json.loads(
            qeval("run", *words, "--schemes", schemes, "--suite", "demo", "--limit", 6, "--json").stdout
        )
        fp32, made, shipped = ([cell["metrics"] for cell in found["cells"]] for found in run["variants"])
        assert made == shipped != fp32

    def test_a_set_that_cannot_be_had_is_said_before_anything_begins(self, qeval, tmp_path: Path) -> None:
        pytest.importorskip("gptqmodel")
        words = ("--model", save_model(tmp_path / "llama"), "--device", "cpu", "--scheme", "gptq")
        said = qeval("quantize", *words, "--datasets-dir", tmp_path, "-o", tmp_path / "made", code=1).stderr
        assert said.startswith("Error: The calibration set c4 (allenai/c4) cannot be read: ")
        assert "or the one that comes with qeval, as in" in said
        assert "quantising" not in said

    def test_calibration_text_that_holds_the_questions_is_named(self, qeval, tmp_path: Path) -> None:
        pytest.importorskip("gptqmodel")
        model, text, asked = (
            save_model(tmp_path / "llama"),
            tmp_path / "text.txt",
            tasks_dir() / "demo" / "facts.jsonl",
        )
        questions = [json.loads(line)["question"] for line in asked.read_text("utf-8").splitlines()]
        text.write_text(TEXT + "\n".join(questions[:4]))
        scheme = f"gptq[bits=3,group_size=32,samples=4,length=64,calibration={text}]"
        words = ("--schemes", f"fp32,{scheme}", "--tasks", "qeval_facts:acc", "--limit", 6)
        made = qeval("run", "--model", model, "--device", "cpu", *words)
        said = "The calibration text holds 4 of 6 questions of qeval_facts: its score may be flattered."
        assert said in made.stderr
        assert said in qeval("gate", "--max-drop", 99, "--allow-limited", code=None).stdout

    def test_costs_of_what_calibrates(self, qeval, tmp_path: Path, scheme: str) -> None:
        pytest.importorskip("gptqmodel")
        model = save_model(tmp_path / "llama")
        words = ("--model", model, "--device", "cpu", "--schemes", f"gptq={scheme}")
        (found,) = json.loads(qeval("cost", *words, "--json").stdout)["variants"]
        names = {"prefill/batch=1/prompt=64", "generate/batch=1/new=8/cache=off"}
        assert names <= found["cost"]["measures"].keys()
        assert found["cost"]["peak_bytes"] > found["provenance"]["weight_bytes"] > 0
