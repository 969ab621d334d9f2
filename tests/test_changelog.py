"""Each change tells its story in a fragment of a known type, from which a release makes its chapter."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TYPES = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_has_a_known_type_and_says_something(path: Path) -> None:
    name, kind, ending = path.name.rsplit(".", 2)
    assert name.strip("+")
    assert kind in TYPES
    assert ending == "md"
    assert path.read_text("utf-8").strip()


def test_the_types_are_explained() -> None:
    page = (ROOT / "changelog.d" / "README.md").read_text("utf-8")
    assert all(f"`{kind}`" in page for kind in TYPES)


def test_a_release_tells_of_every_fragment() -> None:
    words = [
        sys.executable,
        "-m",
        "towncrier",
        "build",
        "--draft",
        "--version",
        "9.9.9",
        "--date",
        "2030-01-31",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "## [9.9.9] - 2030-01-31" in done.stdout
    told = " ".join(done.stdout.split())
    assert all(" ".join(path.read_text("utf-8").split()) in told for path in FRAGMENTS)
    assert PROJECT["tool"]["towncrier"]["start_string"] in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_what_runs_before_a_commit_is_part_of_the_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    check = (ROOT / "Makefile").read_text("utf-8")
    for hook in hooks:
        words = [word for word in shlex.split(hook["entry"]) if not word.startswith("-")]
        assert f"$(BIN)/{' '.join(words)}" in check
        assert hook["language"] == "system", "nothing is fetched"
