"""Fixtures for all tests: no network, no cache of the user's, the toy model at hand."""

from __future__ import annotations

import functools
import gc
import html
import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest
from _pytest.junitxml import xml_key
from click.testing import CliRunner, Result
from forked import Nursery
from hypothesis import HealthCheck, settings
from in_process import in_this_process
from remembered import remember

# No deadline, and no check that examples are quick to make: CI machines are busy. Derandomised: a commit that
# passed passes again.
BUSY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("qeval", derandomize=True, **BUSY)
settings.register_profile("quick", settings.get_profile("qeval"), max_examples=25)  # for `make test-fast`
# For `make fuzz`: about a minute, and other examples each time.
settings.register_profile("fuzz", max_examples=800, print_blob=True, **BUSY)
settings.load_profile("qeval")
SPOKEN_OF = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE")
"""What changes how commands print; readline sets the first two for every process that is begun."""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts():
    """Do not wait for the disk at each file: what that guards against does not happen to a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory):
    """Keep the tests' runs and cache away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEVAL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        for name in (*SPOKEN_OF, "QEVAL_RUNS_DIR", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this session of tests share, and no other session."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _remembered(shared_place: Path):
    with pytest.MonkeyPatch.context() as patch:
        remember(patch.setattr, shared_place)
        yield


class SchemesAreRecorded:
    """With --junitxml, a test's record names the schemes that it loaded, each with its device: what `make
    verified` tells on what a scheme truly ran by."""

    @pytest.fixture(autouse=True)
    def _schemes_are_recorded(self, record_property):
        from qeval.load import model

        load = model._loaded

        def recorded(variant, meant, recipe):
            found = load(variant, meant, recipe)
            how = " unpacked" if recipe.options.get("unpack") else ""
            record_property("scheme", f"{variant.scheme.kind}{how} on {recipe.device.partition(':')[0]}")
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "_loaded", recorded)
            yield


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("xmlpath"):
        config.pluginmanager.register(SchemesAreRecorded())


_numbers = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, but no link names the newest: making that anew takes longer than the directory."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}{next(_numbers)}", numbered=False)


LONG = (
    "run/test_contract.py",
    "cli/test_quantize.py",
    "run/test_several.py",
    "score/test_texts.py",
    "score/harness/test_own.py",
    "run/test_kills.py",
    "test_workflows.py",
    "load/schemes/test_cut_off.py",
    "load/schemes/test_gptq.py",
    "cli/test_cli.py",
    "score/engine/test_selfcheck.py",
    "cli/test_private.py",
    "store/test_faults.py",
    "cli/test_forecast.py",
    "run/test_fidelity.py",
    "score/test_cost.py",
    "score/test_session.py",
    "score/test_placement.py",
    "score/test_packing.py",
    "run/test_slurm.py",
    "score/fidelity/test_inputs.py",
    "score/fidelity/test_streams.py",
    "score/engine/test_engine.py",
    "score/engine/test_architectures.py",
    "load/making/test_same_weights.py",
    "run/test_taking.py",
    "run/test_executors.py",
)
"""Files of tests that take longest, in tests/, in the order of their seconds in `make test` (--durations)."""


_OF_ALL = re.compile(r"^pytestmark = (\[[^\]]*\]|.*)$", re.MULTILINE)
_MARK = re.compile(r"pytest\.mark\.(\w+)")


def _unwanted(config: pytest.Config) -> frozenset[str]:
    """The marks of which none is asked for."""
    words = config.option.markexpr.split(" and ")
    return frozenset(word.removeprefix("not ") for word in words if word.startswith("not "))


def _without_torch(config: pytest.Config) -> bool:
    return "torch" in _unwanted(config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not take up a file of tests that all bear a mark that is deselected: of torch, they import it."""
    unwanted = _unwanted(config)
    if not unwanted or collection_path.suffix != ".py":
        return None
    of_all = _OF_ALL.search(collection_path.read_text("utf-8"))
    if not of_all:
        return None
    marks = {*_MARK.findall(of_all[1]), *(["torch"] if "QUIET" in of_all[1] else [])}
    return not unwanted.isdisjoint(marks) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that workers come to their ends at about the same time."""
    here = Path(__file__).parent
    turns = {here / name: turn for turn, name in enumerate(LONG)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the collector of garbage not go through all that was imported and collected again and again, and
    look for none where no model waits for it: what tests leave is little."""
    gc.freeze()
    if not _without_torch(session.config):
        gc.enable()


def pytest_sessionfinish() -> None:
    """Look once for what tests left open: pytest looks ten times, among all that is still in use."""
    if gc.isenabled():
        gc.collect()
    gc.freeze()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look for no garbage while tests are collected. With --junitxml, a record tells the device, the
    versions, and the last commit that changed qeval/."""
    gc.disable()
    record = session.config.stash.get(xml_key, None)
    if record is None:
        return
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    record.add_global_property("device", gpu or "CPU")
    record.add_global_property("torch", torch.__version__)
    record.add_global_property("transformers", transformers.__version__)
    record.add_global_property("commit", os.environ.get("QEVAL_COMMIT") or _last_commit())


def _last_commit() -> str:
    words = ("git", "log", "-1", "--format=%H", "--", "qeval")
    found = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


@pytest.fixture
def undrawn():
    """Every chart is what it was to be drawn from, in words: for tests of a page's words, which would take
    most of their time to draw what they do not look at."""
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" viewBox="0 0 9 9"><desc>{}</desc></svg>'
    )
    with pytest.MonkeyPatch.context() as patch:  # which stays where a test undoes its own
        patch.setattr("qeval.report.charts.drawing._drawn", lambda spec: picture.format(html.escape(spec)))
        yield


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def nursery(shared_place: Path):
    """Where workers are forked that need not import anything any more: `nursery.command()` starts one."""
    made = Nursery(shared_place)
    yield made
    made.close()


@pytest.fixture
def qeval(qeval_with_workers, nursery: Nursery, monkeypatch: pytest.MonkeyPatch):
    """Call the command line as `qeval("run", "--model", "toy")`; runs go to `runs_dir`.

    The toy is scored in this process, and a real model in one that was forked, which saves most of the time;
    `qeval_with_workers` is the whole truth.
    """
    from qeval.run.executors import EXECUTORS

    monkeypatch.setitem(EXECUTORS, "local", functools.partial(in_this_process, nursery))
    return qeval_with_workers


@pytest.fixture
def qeval_with_workers(runs_dir: Path):
    """As `qeval`, and each variant is scored in a process of its own, as it is outside of tests."""
    from qeval.cli.main import main

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
