"""Whatever quantises while loading: each layer multiplies by weights on a grid of as many values as it has
bits, group by group, near the weights there were; on a CPU and on a GPU, by the scheme's own kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, save_llama
from tiny_worlds import QUIET

from qeval.base.records import Variant
from qeval.load import model
from qeval.load.schemes import parse_schemes

pytestmark = QUIET
HIDDEN = 128
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Groups = Callable[[Any], Any]


def rows(weight: Any) -> Any:
    """One group a row: (groups, values)."""
    return weight


def along(size: int) -> Groups:
    """Groups of `size` neighbours within a row."""
    return lambda weight: weight.reshape(-1, size)


def across(size: int) -> Groups:
    """Groups of `size` values a whole stride apart, as hqq takes them along axis 0."""
    return lambda weight: weight.reshape(size, -1).T


@dataclass(frozen=True)
class Case:
    """A scheme, the package it needs, its bits, its groups, and the bits per weight it takes (None: not told
    by a formula here)."""

    text: str
    package: str
    bits: int
    groups: Groups
    held: float | None


CASES = [
    Case("bnb4", "bitsandbytes", 4, along(64), 4 + 32 / 64),
    Case("bnb4[quant_type=fp4]", "bitsandbytes", 4, along(64), 4 + 32 / 64),
    Case("bnb4[double_quant=true]", "bitsandbytes", 4, along(64), None),
    Case("hqq", "hqq", 4, along(64), None),
    Case("hqq[bits=8,group_size=128]", "hqq", 8, along(128), None),
    Case("hqq[bits=3]", "hqq", 3, along(64), None),
    Case("hqq[bits=2]", "hqq", 2, along(64), None),
    Case("hqq[bits=2,axis=0]", "hqq", 2, across(64), None),
    Case("hqq[bits=1,group_size=8]", "hqq", 1, along(8), None),
    Case("torchao", "torchao", 8, rows, None),
    Case("torchao[weights=int4]", "torchao", 4, along(64), None),
    Case("torchao[weights=int4,group_size=32]", "torchao", 4, along(32), None),
    Case("quanto", "optimum.quanto", 8, rows, None),
    Case("quanto[weights=int4]", "optimum.quanto", 4, along(128), None),
    Case("quanto[weights=int2]", "optimum.quanto", 2, along(128), None),
    Case("rtn", "torch", 4, along(64), 4 + 20 / 64),
    Case("rtn[bits=3,group_size=32]", "torch", 3, along(32), 3 + 19 / 32),
    Case("rtn[bits=8,group_size=-1]", "torch", 8, rows, None),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("grid") / "llama", hidden=HIDDEN)


def load(llama: Path, text: str, cache: Path, device: str) -> model.Loaded:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ((_, scheme),) = parse_schemes(text)
    return model.load(Variant("v", str(llama), scheme), device=device, cache_dir=cache)


def multiplied(loaded: model.Loaded) -> dict[str, Any]:
    """The matrices (out, in) that the quantised layers multiply by, in float32 on the CPU."""
    import torch

    from qeval.load.reading.proof import quantised_modules

    found = {}
    dtype = loaded.model.get_input_embeddings().weight.dtype
    with torch.no_grad():
        for name, module in quantised_modules(loaded.model).items():
            inputs = getattr(module, "in_features", None) or module.weight.shape[1]
            unit = torch.eye(inputs, dtype=dtype, device=loaded.model.device)
            found[name] = module(unit).T.float().cpu()
    return found


def originals(llama: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors = load_file(llama / "model.safetensors")
    return {name.removesuffix(".weight"): tensor.float() for name, tensor in tensors.items()}


def expected_error(bits: int, group: int) -> float:
    """Rounding error of normal values relative to them: a step over the root of 12, the steps dividing the
    range that `group` values span on average (about twice the root of twice its logarithm)."""
    span = 2 * math.sqrt(2 * math.log(group))
    return span / (2**bits - 1) / math.sqrt(12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text)
def test_every_layer_multiplies_by_weights_on_its_grid(
    llama: Path, tmp_path: Path, case: Case, device: str
) -> None:
    pytest.importorskip(case.package)
    loaded = load(llama, case.text, tmp_path, device)
    if case.held is not None:
        assert loaded.provenance.bits_per_weight == pytest.approx(case.held)
    found, plain = multiplied(loaded), originals(llama)
    assert len(found) == LINEARS
    for name, weight in found.items():
        groups = case.groups(weight)
        counts = [len(group.unique()) for group in groups]
        assert max(counts) <= 2**case.bits, name
        assert max(counts) > min(2 ** (case.bits - 1), groups.shape[1] / 3), name  # and of no fewer bits
        error = float((weight - plain[name]).norm() / plain[name].norm())
        about = expected_error(case.bits, groups.shape[1])
        assert 0.4 * about < error < 2 * about, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("text", "package"),
    [("torchao[weights=float8]", "torchao"), ("quanto[weights=float8]", "optimum.quanto")],
)
def test_8_bit_floats_keep_three_bits_behind_the_point(
    llama: Path, tmp_path: Path, text: str, package: str, device: str
) -> None:
    """Rounding to four significant bits errs by at most a 16th, and by a 40th or so on average."""
    pytest.importorskip(package)
    found, plain = multiplied(load(llama, text, tmp_path, device)), originals(llama)
    assert len(found) == LINEARS
    for name, weight in found.items():
        error = float((weight - plain[name]).norm() / plain[name].norm())
        assert 0.02 < error < 0.035, name


@pytest.mark.gpu
def test_packed_4_bits_by_the_kernel_of_a_gpu(llama: Path, tmp_path: Path) -> None:
    """torch's kernel takes inputs by the thousand, so that narrow layers are held padded."""
    pytest.importorskip("torchao")
    loaded = load(llama, "torchao[weights=int4-packed]", tmp_path, "cuda")
    assert loaded.provenance.modules == {"Linear[Int4TilePackedTo4dTensor]": LINEARS}
    plain = originals(llama)
    for name, weight in multiplied(loaded).items():
        assert max(len(group.unique()) for group in along(64)(weight)) <= 2**4
        error = float((weight - plain[name]).norm() / plain[name].norm())
        assert error < 2 * expected_error(4, 64)
