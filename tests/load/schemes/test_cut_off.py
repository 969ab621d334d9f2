"""Without network and without a compiler, every scheme that runs here loads and scores: nothing is built."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import cut_off
import pytest
from ready_checkpoints import save_aqlm, save_compressed, save_fp8, save_vptq
from tiny_models import LINEARS, WORDS, save_model
from tiny_worlds import QUIET

pytestmark = [*QUIET, pytest.mark.slow]
PLAIN = {
    "fp16": "torch",
    "bnb4": "bitsandbytes",
    "bnb8": "bitsandbytes",
    "rtn": "torch",
    "hqq": "hqq",
    "torchao": "torchao",
    "torchao[weights=int4,group_size=32]": "torchao",
    "quanto": "optimum.quanto",
    "quanto[weights=int4]": "optimum.quanto",
    "quanto[weights=int2]": "optimum.quanto",
}
MADE = ["gptq[{made}]", "gptq[bits=3,{made}]", "gptq[act_order=true,{made}]", "awq[{made}]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("cut-off") / "llama")


@pytest.fixture(scope="module")
def made(model: Path) -> str:
    """Options of schemes that calibrate."""
    text = model.parent / "text.txt"
    text.write_text(" ".join(random.Random(0).choices(WORDS, k=400)))
    return f"group_size=32,samples=8,length=32,calibration={text}"


def ready(model: Path, place: Path) -> list[str]:
    """Schemes with ready checkpoints of theirs, of the libraries that are here."""
    found = []
    if _here("aqlm"):
        save_aqlm(model, place / "aqlm", 1, 8)
        found.append(f"aqlm@{place / 'aqlm'}")
    if _here("vptq"):
        save_vptq(model, place / "vptq")
        found.append(f"vptq@{place / 'vptq'}")
    if _here("compressed_tensors"):
        save_compressed(model, place / "w4a16", "W4A16", 32)
        found.append(f"compressed-tensors@{place / 'w4a16'}")
    save_fp8(model, place / "fp8")
    return [*found, f"fp8[unpack=true]@{place / 'fp8'}"]


def _here(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def scored(
    model: Path, schemes: list[str], place: Path, device: str = "cpu", **settings: Any
) -> dict[str, Any]:
    """What each scheme told in a process that is cut off."""
    given = {"model": str(model), "schemes": schemes, "place": str(place), "device": device}
    place.mkdir(exist_ok=True)
    with (place / "stdout").open("w") as told, (place / "stderr").open("w") as rest:
        subprocess.run(
            [sys.executable, cut_off.__file__, json.dumps({**given, "settings": settings})],
            env=cut_off.environment(place),
            stdout=told,
            stderr=rest,
            timeout=600,
            check=False,
        )
    lines = (place / "stdout").read_text().splitlines()
    found = dict(json.loads(line.removeprefix("told ")) for line in lines if line.startswith("told "))
    assert list(found) == schemes, (place / "stderr").read_text()[-4000:]
    return found


def test_every_scheme_that_runs_on_this_cpu(model: Path, made: str, tmp_path: Path) -> None:
    plain = [text for text, package in PLAIN.items() if _here(package)]
    calibrated = [text.format(made=made) for text in MADE] if _here("gptqmodel") else []
    found = scored(model, [*plain, *calibrated, *ready(model, tmp_path)], tmp_path)
    failed = {text: told["failed"] for text, told in found.items() if "failed" in told}
    assert not failed, "\n".join(f"{text}: {why}" for text, why in failed.items())
    for text in calibrated:
        told = found[text]
        assert told["modules"] == {"AwqOwnDtypeLinear" if "awq" in text else "TorchLinear": LINEARS}
        assert told["materialized"]
        assert not any("does not run here" in note for note in told["notes"])


@pytest.mark.gpu
def test_on_a_gpu_nothing_is_built_to_score_and_the_librarys_own_choice_steps_down(
    made: str, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("gptqmodel")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    wide = save_model(tmp_path / "wide", hidden=512)
    schemes = [text.format(made=made.replace("size=32", "size=128")) for text in (MADE[0], MADE[-1])]
    for text, told in scored(wide, schemes, tmp_path / "portable", "cuda:0").items():
        assert "failed" not in told, told
        assert told["modules"] == {"AwqOwnDtypeLinear" if "awq" in text else "TorchLinear": LINEARS}
        assert told["materialized"]
        assert not any("does not run here" in note for note in told["notes"])
    for told in scored(wide, schemes, tmp_path / "native", "cuda:0", materialize=False).values():
        assert "failed" not in told, told
        assert not told["materialized"]
        assert sum(told["modules"].values()) == LINEARS
        assert sum("does not run here" in note for note in told["notes"]) <= 1
