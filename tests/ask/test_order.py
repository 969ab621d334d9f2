"""What an order asks for that cannot be had: refused at once, or left out while the rest goes on."""

import pytest

from qeval.ask import order
from qeval.base.errors import MissingPackageError
from qeval.base.messages import Failed
from qeval.base.records import Result
from qeval.load import checks
from qeval.run import runner
from qeval.run.executors import EXECUTORS


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function from schemes to an order; hqq is not installed, and nothing is really scored."""
    (tmp_path / "config.json").write_text("{}")
    absent = lambda spec, *_: list(spec.packages) if spec.name == "hqq" else []  # noqa: E731
    monkeypatch.setattr(checks, "missing_packages", absent)
    monkeypatch.setitem(EXECUTORS, "local", lambda job, _: Result(variant=job.variant, status="done"))

    def make(text):
        settings = {"suite": "demo", "tasks": None, "num_fewshot": None, "baseline": None, "limit": None}
        settings |= {"revision": None, "adapter": None, "verify": 0, "cost": False, "again": False}
        settings |= {"no_materialize": False, "datasets_dir": None, "gate": None}
        return order.order(model=str(tmp_path), schemes=text, runs_dir=tmp_path, command=(), **settings)

    return make


def test_a_scheme_whose_package_is_missing_does_not_keep_the_others_back(asked):
    told = []
    place = runner.execute(asked("fp16,hqq,rtn"), lambda variant, event: told.append((variant.name, event)))
    found = {result.variant.name: result for result in place.read().results}
    assert {name: result.status for name, result in found.items()} == {
        "fp16": "done",
        "hqq": "failed",
        "rtn": "done",
    }
    assert "pip install" in found["hqq"].error
    assert [name for name, event in told if isinstance(event, Failed)] == ["hqq"]


@pytest.mark.parametrize("text", ["hqq,fp16,rtn", "fp16,hqq", "hqq"])
def test_without_a_baseline_or_anything_to_compare_nothing_is_begun(asked, text):
    with pytest.raises(MissingPackageError, match="hqq needs hqq"):
        runner.execute(asked(text), lambda *_: None)
