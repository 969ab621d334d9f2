"""Fidelity of jobs in this process: the baseline, its twin and a rounded variant, by every protocol."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from byte_tokenizer import a_tokenizer
from small_jobs import a_job
from tiny_models import save_model

pytest.importorskip("torch")

from qeval.ask.protocols import parse
from qeval.base.errors import QevalError
from qeval.base.messages import FidelityJob, Note
from qeval.base.records import Scheme, Variant
from qeval.compare.fidelity import rows_of, within_noise
from qeval.load.resolve import identity
from qeval.score.fidelity import session
from qeval.score.fidelity.alone import measure_alone
from qeval.store import fidelity as stored
from qeval.store import inputs

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
ROUNDED = Scheme("rtn", {"group_size": 32})


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    place = save_model(tmp_path_factory.mktemp("llama"))
    a_tokenizer().save_pretrained(place)
    return place


def job(runs: Path, model: Path, name: str, scheme: Scheme, words: str, limit: int = 1 << 40):
    made = a_job(runs, model, variant=Variant(name, str(model), scheme), tasks=(), threads=1)
    base = identity(Variant("fp32", str(model), Scheme("fp32")), runs / "cache")
    return msgspec.structs.replace(made, fidelity=FidelityJob(parse(words), (), "fp32", base, limit))


def measured(runs: Path, model: Path, words: str, names=("fp32", "same", "rtn"), limit: int = 1 << 40):
    """The rows of fidelity, and what was noted."""
    said: list[object] = []
    for name in names:
        scheme = ROUNDED if name == "rtn" else Scheme("fp32")
        measure_alone(job(runs, model, name, scheme, words, limit), said.append)
    run = runs / "r"
    read = lambda one: (stored.positions(run, one), stored.stream(run, one))  # noqa: E731
    rows = rows_of(stored.measured(run), read, ["fp32", "same", "rtn"], "fp32")
    return rows, [event.text for event in said if isinstance(event, Note)]


def test_the_same_weights_are_exactly_nothing_apart_and_others_are_told_apart(llama, tmp_path):
    found, notes = measured(tmp_path, llama, "prose[windows=4],trace:own[windows=3],prompts:own[windows=3]")
    assert any("take" in note and "positions" in note for note in notes)
    assert found.protocols == ("prose[windows=4]", "trace:own[windows=3]", "prompts:own[windows=3]")
    for name in found.protocols:
        same, rounded = found.row("same", name), found.row("rtn", name)
        assert (same.kl.value, same.kl.low, same.kl.high) == (0, 0, 0)
        assert same.same_top.value == same.ordered == same.ratio.value == 1
        assert within_noise(same)
        assert rounded.kl.value > 1e-3
        assert not within_noise(rounded)
        assert rounded.measured.limited
        assert rounded.measured.cut == 300 - 258
        assert rounded.measured.worst[0].text
        floor = [row for row in found.of(name) if row.role != "candidate"]
        assert [row.role for row in floor] == ["packing", "plain"]
        assert all(abs(row.kl.value) < 1e-8 for row in floor)
    assert found.row("same", "trace:own[windows=3]").traced.diverged == 0
    assert found.row("rtn", "trace:own[windows=3]").traced.answers == 3
    one = found.row("rtn", "trace:own[windows=3]").measured
    assert one.n_available == one.n + 21 * 64


def test_a_trace_of_all_its_prompts_is_not_limited_and_one_of_a_part_is_even_where_the_file_grew(
    llama, tmp_path
):
    file = tmp_path / "prompts.txt"
    file.write_text("One?\nTwo?\n")
    words = f"trace:{file},4[windows=2]"
    [name] = (found := measured(tmp_path, llama, words)[0]).protocols
    assert not found.row("rtn", name).measured.limited
    file.write_text("One?\nTwo?\nThree?\n")
    one = measured(tmp_path, llama, words)[0].row("rtn", name).measured
    assert one.limited
    assert one.n_available == one.n + 4


def test_nothing_is_measured_twice(llama, tmp_path, monkeypatch):
    measured(tmp_path, llama, "prose[windows=2]")
    before = stored.measured(tmp_path / "r")
    monkeypatch.setattr(session, "compared", None)
    monkeypatch.setattr(session.inputs, "make", None)
    measured(tmp_path, llama, "prose[windows=2]")
    assert stored.measured(tmp_path / "r") == before


def test_without_the_baselines_inputs_a_variant_waits(llama, tmp_path):
    with pytest.raises(QevalError, match="What enters the head of fp32 is not stored"):
        measured(tmp_path, llama, "prose[windows=2]", names=("rtn",))


def test_another_revision_of_the_baseline_has_other_inputs(llama, tmp_path):
    measured(tmp_path, llama, "prose[windows=2]", names=("fp32",))
    other = tmp_path / "other"
    shutil.copytree(llama, other)
    shutil.copy(save_model(tmp_path / "new", seed=5) / "model.safetensors", other / "model.safetensors")
    with pytest.raises(QevalError, match="is not stored"):
        measured(tmp_path, other, "prose[windows=2]", names=("rtn",))


def test_a_limit_measures_a_part_and_says_so(llama, tmp_path):
    found, notes = measured(tmp_path, llama, "prose", limit=600_000)
    assert any("as many as --fidelity-cache-limit allows" in note for note in notes)
    row = found.row("rtn", "prose")
    assert row.measured.limited
    assert row.measured.n < row.measured.n_available
    with pytest.raises(QevalError, match=r"allows 1\.00 kB, and one window takes"):
        measured(tmp_path, llama, "prose[windows=5]", names=("fp32",), limit=1000)


def test_damaged_inputs_are_made_anew_with_the_same_numbers(llama, tmp_path):
    before, _ = measured(tmp_path, llama, "prose[windows=2]")
    states = next((tmp_path / "cache" / inputs.FOLDER).glob(f"*/{inputs.STATES}"))
    data = bytearray(states.read_bytes())
    data[100] ^= 255
    states.write_bytes(data)
    shutil.rmtree(tmp_path / "r" / stored.FOLDER)
    after, _ = measured(tmp_path, llama, "prose[windows=2]")
    assert after.row("rtn", "prose[windows=2]").kl == before.row("rtn", "prose[windows=2]").kl
