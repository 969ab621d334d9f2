"""Fixtures for all tests: no network, no cache of the user's, the toy model at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

# No deadline: CI machines are busy. Derandomised: a commit that passed passes again.
settings.register_profile("qeval", deadline=None, derandomize=True)
settings.load_profile("qeval")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a test's runs and cache away from the user's."""
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("QEVAL_RUNS_DIR", raising=False)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def qeval(runs_dir: Path):
    """Call the command line as `qeval("run", "--model", "toy")`; runs go to `runs_dir`."""
    from qeval.cli import main

    takes_no_runs = {"--help", "--version"}

    def call(*args: object, code: int | None = 0) -> Result:
        words = [str(arg) for arg in args]
        environment = {"QEVAL_RUNS_DIR": str(runs_dir)}
        result = CliRunner(env=environment).invoke(main, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if code is not None and not takes_no_runs.intersection(words):
            assert result.exit_code == code, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    return call


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="Write the golden files instead of comparing."
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """`golden(name, text)`: the text is what tests/golden/NAME holds; --update-golden writes it there."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("update_golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: make golden"
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; after a look: make golden"

    return check
