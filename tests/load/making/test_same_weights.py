"""What quantising saves time by changes nothing: packing, one solve for several layers, columns by blocks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_llama
from tiny_worlds import QUIET

from qeval.base.errors import QevalError

pytestmark = QUIET
ORDERS = [{}, {"act_order": True}, {"group_aware": False}]


def plan(**changes: Any) -> Any:
    from qeval.load.making import gptq

    usual = {"bits": 4, "group_size": 32, "act_order": False, "group_aware": True}
    return gptq.Plan(**{**usual, "damp": 0.05, "symmetric": True, **changes})


def a_group(
    device: str = "cpu", inputs: int = 256, dtype: str = "float32", kind: Any = None
) -> tuple[dict[str, Any], Any]:
    """Three layers of uneven channels that read the same tensor, and the sums over it, of that `kind`."""
    import torch

    from qeval.load.making.sums import Sums

    draw = torch.Generator().manual_seed(0)
    group = {}
    for name, outputs in (("q", 128), ("k", 64), ("v", 96)):
        group[name] = torch.nn.Linear(inputs, outputs, bias=False)
        group[name].weight.data = torch.randn((outputs, inputs), generator=draw)
        group[name].to(device, getattr(torch, dtype))
    told = (kind or Sums)()
    mixing = torch.randn((inputs, inputs), generator=draw) / inputs**0.5
    rows = torch.randn((4, 400, inputs), generator=draw) @ mixing
    rows *= torch.linspace(0.1, 3, inputs)
    for batch in rows.to(device, getattr(torch, dtype)):
        told.add(batch)
    return group, told


def errors(group: dict[str, Any], before: dict[str, Any], told: Any) -> dict[str, float]:
    """The squared errors of the layers' outputs."""
    found = {}
    for name, layer in group.items():
        change = layer.weight.float() - before[name].weight.float()
        found[name] = float(((change @ told.gram) * change).sum())
    return found


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("group_size", [32, 128, -1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_layers_solved_as_one_are_those_solved_alone(
    order: dict[str, bool], group_size: int, symmetric: bool
) -> None:
    """Bit for bit but where a product over another number of rows adds up in another order."""
    import torch

    from qeval.load.making import gptq

    chosen = plan(group_size=group_size, symmetric=symmetric, **order)
    group, told = a_group()
    before, joined = copy.deepcopy(group), copy.deepcopy(group)
    alone_grids = gptq.solve_group(group, told, chosen, joined=False)
    joined_grids = gptq.solve_group(joined, told, chosen, joined=True)
    alone, together = errors(group, before, told), errors(joined, before, told)
    for name in group:
        assert torch.equal(alone_grids[name].g_idx, joined_grids[name].g_idx)
        assert torch.equal(alone_grids[name].scale.isnan(), joined_grids[name].scale.isnan())
        same = (group[name].weight == joined[name].weight).float().mean()
        assert same > 0.99
        assert together[name] == pytest.approx(alone[name], rel=0.01)


def test_columns_by_blocks_are_those_of_gptqmodels_loop() -> None:
    """`solve_columns` against the library's solver, bit by bit: the same operations in the same order."""
    import torch
    from gptqmodel.quantization.gptq import Quantizer, log
    from gptqmodel.quantization.quantizer import quantize

    from qeval.load.making.columns import solve_columns

    assert log is not None
    assert Quantizer is not None
    draw = torch.Generator().manual_seed(0)
    work = torch.randn((96, 128), generator=draw)
    square = torch.randn((256, 128), generator=draw)
    hinv = torch.linalg.cholesky(torch.linalg.inv(square.T @ square), upper=True)
    scale = torch.rand((4, 96), generator=draw) / 4 + 0.1
    zero = torch.full((4, 96), 8.0)
    groups = [i // 32 for i in range(128)]
    expected, weights = torch.zeros_like(work), work.clone()
    spread, lost = torch.zeros_like(work), torch.zeros_like(work)
    for i, group in enumerate(groups):  # as gptqmodel 7.6 has it
        w, d = weights[:, i], hinv[i, i]
        maxq = torch.tensor(15)
        q = quantize(
            w.unsqueeze(1), scale[group].unsqueeze(1), zero[group].unsqueeze(1), maxq, False
        ).flatten()
        expected[:, i] = q
        delta = spread[:, i]
        torch.sub(w, q, out=delta)
        lost[:, i] = delta.square() / d.square()
        delta.div_(d)
        weights[:, i:] -= delta.unsqueeze(1) * hinv[i, i:]
    found = [torch.zeros_like(work) for _ in range(3)]
    solve_columns(work.clone(), hinv, scale, zero, groups, *found, 15)
    for ours, theirs in zip(found, (expected, spread, lost), strict=True):
        assert torch.equal(ours, theirs)


def test_the_sums_are_those_of_gptqmodels_solver() -> None:
    import torch
    from gptqmodel.quantization.gptq import GPTQ

    from qeval.load.making.sums import Sums

    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(64, 32, bias=False)
    theirs, ours = GPTQ(layer), Sums()
    for batch in torch.randn((3, 2, 40, 64), generator=draw):
        theirs.add_batch(batch, None)
        ours.add(batch)
    theirs.finalize_hessian()
    assert torch.equal(theirs.H, ours.gram * (2.0 / ours.tokens))
    assert theirs.nsamples == ours.tokens


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packed_codes_are_read_back(bits: int) -> None:
    import torch

    from qeval.load.making.packing import pack_rows, unpack_rows

    codes = torch.randint(0, 2**bits, (96, 40), generator=torch.Generator().manual_seed(0))
    packed = pack_rows(codes, bits)
    assert packed.dtype == torch.int32
    assert packed.shape == (96 * bits // 32, 40)
    assert torch.equal(unpack_rows(packed, bits), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("order", [{}, {"act_order": True}])
def test_gptqs_tensors_are_those_that_gptqmodel_packs(
    bits: int, symmetric: bool, order: dict[str, bool]
) -> None:
    """Byte for byte what optimum's packing and saving make of a solved layer."""
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    from qeval.load.making import gptq
    from qeval.load.making.packing import gptq_tensors

    chosen = plan(bits=bits, symmetric=symmetric, **order)
    group, told = a_group(inputs=128)
    group["q"].bias = torch.nn.Parameter(torch.randn(128), requires_grad=False)
    grid = gptq.solve_group({"q": group["q"]}, told, chosen, joined=False)["q"]
    layer = group["q"].half()
    theirs = TorchLinear(bits, 32, symmetric, chosen.act_order, 128, 128, bias=True, register_buffers=True)
    theirs.pack_block(layer, grid.scale, grid.zero, grid.g_idx)
    if symmetric:
        convert_gptq_v2_to_v1_format_module(theirs, QuantizeConfig(bits=bits))
    ours = gptq_tensors(layer, grid, bits, less_one=symmetric)
    assert set(ours) == {"qweight", "qzeros", "scales", "g_idx", "bias"}
    for name, tensor in ours.items():
        expected = getattr(theirs, name)
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected), name


def test_awqs_tensors_are_those_that_gptqmodel_packs() -> None:
    import torch
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    from qeval.load.making.packing import awq_tensors
    from qeval.load.reading.grid import to_grid

    torch.manual_seed(0)
    layer = torch.nn.Linear(128, 64)
    codes, scale, zero = to_grid(layer.weight, 4, 32, symmetric=False)
    ours = awq_tensors(layer, codes.reshape(64, 128), scale.squeeze(-1), zero.squeeze(-1))
    layer.weight.data = ((codes - zero) * scale).reshape(64, 128)
    theirs = AwqTorchLinear(4, 32, False, False, 128, 64, bias=True, register_buffers=False)
    theirs.pack(layer, scale.squeeze(-1), zero.squeeze(-1))
    for name in ("qweight", "qzeros", "scales", "bias"):
        assert torch.equal(ours[name], getattr(theirs, name)), name


def test_sizes_that_cannot_be_packed_are_refused() -> None:
    import torch

    from qeval.load.making.packing import check_packable

    with pytest.raises(QevalError, match="packs 32 values together, and lin has 48 outputs"):
        check_packable("lin", torch.nn.Linear(64, 48))


@pytest.mark.gpu
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("inputs", [256, 352])
def test_on_a_gpu_errors_are_those_of_the_plain_way(order: dict[str, bool], inputs: int) -> None:
    """16-bit sums, the joined solve and the graphs, against float32, layer by layer and the plain loop."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from qeval.load.making import gptq
    from qeval.load.making.columns import launched_at_once
    from qeval.load.making.sums import Sums

    class WideSums(Sums):
        def add(self, inputs: Any) -> None:
            super().add(inputs.float())

    group, told = a_group("cuda", inputs, "float16")
    plainly, wide = a_group("cuda", inputs, "float16", WideSums)
    before = copy.deepcopy(group)
    assert float((told.gram - wide.gram).norm() / wide.gram.norm()) < 1e-3
    with launched_at_once():
        gptq.solve_group(group, told, plan(**order), joined=True)
    gptq.solve_group(plainly, wide, plan(**order), joined=False)
    now, then = errors(group, before, wide), errors(plainly, before, wide)
    for name in group:
        assert now[name] == pytest.approx(then[name], rel=0.01)


@pytest.mark.gpu
@pytest.mark.parametrize("group_size", [32, 128, -1])
def test_graphs_equal_the_loop_bit_for_bit(monkeypatch: pytest.MonkeyPatch, group_size: int) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from qeval.load.making import gptq
    from qeval.load.making.columns import launched_at_once

    monkeypatch.setenv("GPTQMODEL_DISABLE_GPTQ_CUDA", "1")
    chosen = plan(group_size=group_size)
    by_loop, told = a_group("cuda", 512, "float16")
    by_graph = copy.deepcopy(by_loop)
    gptq.solve_group(by_loop, told, chosen, joined=True)
    monkeypatch.delenv("GPTQMODEL_DISABLE_GPTQ_CUDA")
    with launched_at_once():
        gptq.solve_group(by_graph, told, chosen, joined=True)
    assert all(torch.equal(by_graph[name].weight, by_loop[name].weight) for name in by_loop)


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_a_large_checkpoint_is_in_files_of_a_block_each_and_loads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import json
    import random

    import torch
    from safetensors.torch import load_file
    from tiny_models import WORDS
    from tiny_worlds import World, logits

    from qeval.base.records import Scheme
    from qeval.load.making import kept

    text = tmp_path / "text.txt"
    text.write_text(" ".join(random.Random(0).choices(WORDS, k=400)))
    options = {"group_size": 32, "samples": 4, "length": 32}
    model = save_llama(tmp_path / "llama", tie_word_embeddings=True)
    whole = World(kind, options, model, text, tmp_path / "whole", [])
    parts = World(kind, options, model, text, tmp_path / "parts", [])
    one = whole.make()
    monkeypatch.setattr(kept, "WHOLE", 0)
    several = parts.make()
    names = sorted(path.name for path in several.glob("*.safetensors"))
    assert names == [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    index = json.loads((several / "model.safetensors.index.json").read_text())
    expected = load_file(one / "model.safetensors")
    assert index["weight_map"].keys() == expected.keys()
    assert "lm_head.weight" not in expected
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(several / file)[name], expected[name])
    found = [logits(parts.load(Scheme(kind, {}, str(place))).model) for place in (one, several)]
    assert torch.equal(*found)


def test_device_and_threads_are_in_the_key_the_card_and_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from tiny_worlds import new_world

    from qeval.load.making import checkpoint

    world = new_world(tmp_path, "awq", {"group_size": 32, "samples": 2, "length": 16})
    made = {}
    for device, count in (("CPU AVX2", 1), ("CPU AVX2", 2), ("CPU AVX512", 2), ("NVIDIA H100", 0)):
        monkeypatch.setattr(checkpoint, "device_kind", lambda _, device=device: device)
        monkeypatch.setattr(checkpoint, "threads", lambda _, count=count: count)
        made[device, count] = world.make()
        notes = world.load(world.scheme()).provenance.notes
        words = device + {0: "", 1: " with 1 thread", 2: " with 2 threads"}[count]
        assert any(f"It was quantised on {words}; elsewhere" in note for note in notes)
        assert f"Made on {words}." in (made[device, count] / "README.md").read_text()
        told = json.loads((made[device, count] / "qeval.json").read_text())
        assert (told["device"], told["threads"]) == (device, count)
    assert len(set(made.values())) == 4
