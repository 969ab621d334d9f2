"""QuIP#: its lattice, packing and transforms from their definitions, and checkpoints made here in its layout.

No published checkpoint is read: what is encoded here follows the paper and the layout of the authors'
repository, with another code than the one that reads it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import edit_json, save_llama, save_tokenizer

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model
from qeval.load.schemes.quip import UNTESTED, check, evidence
from qeval.load.source import Source

pytestmark = pytest.mark.torch

FILE = "model.safetensors"
BITS = {"E8P12": 2, "E8P12RVQ3B": 3, "E8P12RVQ4B": 4}
NUMBERS = {"E8P12": 7, "E8P12RVQ3B": 18, "E8P12RVQ4B": 17}
VERSIONS = {"E8P12": 1, "E8P12RVQ3B": 0, "E8P12RVQ4B": 1}
RESIDUAL = {"E8P12RVQ3B": 2.04, "E8P12RVQ4B": 3.45}
WIDTHS = (12, 64, 256, 12 * 16, 20, 28 * 4, 36, 52 * 2, 60, 108, 140, 156, 172 * 2)
FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.upgate_proj": ("mlp.up_proj", "mlp.gate_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}


def nearest(vectors: Any) -> tuple[Any, Any]:
    """The nearest E8P points to `vectors` (n, 8) and their codes, by the definition of the codebook.

    For each shift and pattern: the signs of the vector, and where they leave an odd sum, the cheapest
    coordinate with the other sign.
    """
    import torch

    from qeval.load.reading.lattice import patterns

    grid, found = patterns(), []
    for shift in (0.25, -0.25):
        rest = vectors - shift
        gains = rest.abs()[:, None, :] * grid
        odd = (grid.sum(1) + (rest < 0).sum(1)[:, None]) % 2 == 1
        cheapest, where = gains.min(-1)
        errors = grid.square().sum(1) - 2 * (gains.sum(-1) - 2 * odd * cheapest)
        at, pattern = errors.min(1).values + rest.square().sum(1), errors.argmin(1)
        pick = torch.arange(len(vectors))
        signs = 1 - 2 * (rest < 0).float()
        signs[pick, where[pick, pattern]] *= 1 - 2 * odd[pick, pattern].float()
        found.append((at, grid[pattern] * signs + shift, code_of(pattern, signs, shift)))
    first = found[0][0] < found[1][0]
    return (
        torch.where(first[:, None], found[0][1], found[1][1]),
        torch.where(first, found[0][2], found[1][2]),
    )


def code_of(pattern: Any, signs: Any, shift: float) -> Any:
    """The codes of signed patterns: the pattern's number, then a bit for each coordinate that is negated."""
    from qeval.load.reading.lattice import patterns

    base = patterns()[pattern]
    flipped = signs < 0
    flipped[:, 7] ^= base.sum(1) % 2 == 1
    assert (flipped.sum(1) % 2 == 0).all()
    flipped[:, 0] ^= shift < 0
    bits = sum(flipped[:, place].long() << bit for bit, place in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
    return (pattern << 8) + bits


def pack(codes: Any) -> Any:
    """The words of E8P codes (rows, columns / 8), written one bit after another."""
    rows, count = codes.shape
    words = [0] * (rows * count // 4)
    for row in range(rows):
        for column in range(count):
            tile = (row // 16) * (count // 8) + column // 8
            word = 32 * tile + 4 * (row % 16 // 2) + column % 8 // 2
            part, code = row % 2 + 2 * (column % 2), int(codes[row, column])
            words[word] |= code >> 8 << 8 * part
            for bit in range(8):
                words[word] |= (code >> bit & 1) << 32 + 4 * bit + part
    return signed(words).reshape(rows, count // 4)


def signed(words: list[int]) -> Any:
    import torch

    return torch.tensor([word - 2**64 if word >= 2**63 else word for word in words])


def quantise(values: Any, codebook: str) -> tuple[Any, Any]:
    """The nearest points to a matrix and the Qidxs that stand for them."""
    import torch

    from qeval.load.reading.lattice import e81b

    vectors = values.reshape(-1, 8)
    found, codes = nearest(vectors)
    words = pack(codes.reshape(len(values), -1))
    if codebook == "E8P12":
        return found.reshape(values.shape), words
    scale = RESIDUAL[codebook]
    rest = (vectors - found) * scale
    if codebook == "E8P12RVQ4B":
        more, codes = nearest(rest)
        second = pack(codes.reshape(len(values), -1))
    else:
        codes = torch.cdist(rest, e81b()).argmin(1)
        more = e81b()[codes]
        lines = codes.reshape(-1, 8).tolist()
        second = signed([sum(code << 8 * at for at, code in enumerate(line)) for line in lines])
        second = second.reshape(len(values), -1)
    return (found + more / scale).reshape(values.shape), torch.cat((words, second), 1)


def dense(width: int) -> Any:
    """The orthogonal matrix of a width, whole and in float64."""
    import torch

    from qeval.load.reading.hadamard import matrix, order_of

    whole = matrix(order_of(width)).double()
    while len(whole) < width:
        whole = torch.kron(whole, torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.double))
    return whole / width**0.5


def compress(parts: list[Any], codebook: str, *, rank: int = 0, rescale: bool = False) -> tuple[dict, list]:
    """The tensors of one layer as QuIP# stores them, and the weights that they stand for, in float64.

    No Hessian and no feedback: each 8 weights go to their nearest point.
    """
    import torch

    scales = torch.stack([part.float().square().mean().sqrt() for part in parts]).half()
    scales = scales if len(parts) > 1 else torch.ones(1)
    weight = torch.cat([part.double() / scale.double() for part, scale in zip(parts, scales, strict=True)])
    rows, columns = weight.shape
    stored = {"SU": torch.randn(columns).sign().half(), "SV": torch.randn(rows).sign().half()}
    inputs, outputs = stored["SU"].double(), stored["SV"].double()[:, None]
    if rescale:
        stored["scaleWH"] = torch.rand(columns) + 0.5
        weight = weight * stored["scaleWH"].double()
    left, right = dense(rows), dense(columns)
    turned = left.T @ (weight * outputs * inputs) @ right
    stored["Wscale"] = (turned.square().mean().sqrt() / 1.03).half()
    found, stored["Qidxs"] = quantise((turned / stored["Wscale"].double()).float(), codebook)
    core = found.double() * stored["Wscale"].double()
    if rank:
        stored |= {"A": 0.1 * torch.randn(rows, rank).half(), "B": 0.1 * torch.randn(rank, columns).half()}
        core = core + stored["A"].double() @ stored["B"].double()
    exact = left @ core @ right.T * outputs * inputs
    if rescale:
        exact = exact / stored["scaleWH"].double()
    stored["codebook_id"] = torch.tensor(NUMBERS[codebook])
    if len(parts) > 1:
        stored["fuse_scales"] = scales
    pieces = exact.split([len(part) for part in parts])
    return stored, [piece * scale.double() for piece, scale in zip(pieces, scales, strict=True)]


def save_quip(plain: Path, directory: Path, codebook: str = "E8P12", **kinds: Any) -> dict[str, Any]:
    """Write `plain` as a QuIP# checkpoint; returns the weights that it stands for by name, in float64."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    state = load_file(plain / "model.safetensors")
    stored: dict[str, Any] = {}
    exact: dict[str, Any] = {}
    for fused, parts in FUSED.items():
        names = [f"model.layers.0.{part}.weight" for part in parts]
        tensors, weights = compress([state.pop(name) for name in names], codebook, **kinds)
        stored |= {f"model.layers.0.{fused}.{suffix}": tensor for suffix, tensor in tensors.items()}
        exact |= dict(zip(names, weights, strict=True))
    directory.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in (stored | state).items()}, directory / FILE)
    shutil.copy(plain / "config.json", directory)
    settings = {
        "lora_rank": kinds.get("rank", 0),
        "rescale_WH": kinds.get("rescale", False),
        "codebook": codebook,
        "codebook_version": VERSIONS[codebook],
        "codesz": 8,
        "idx_dtype": "torch.int64",
        "packsz": {"E8P12": 4, "E8P12RVQ3B": 8 / 3, "E8P12RVQ4B": 2}[codebook],
        "resid_scale_override": -1,
    }
    edit_json(directory / "config.json", quip_params=settings)
    return exact


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one block whose fused layers are 192 (12 * 16) and 256 wide."""
    place = tmp_path_factory.mktemp("quip") / "plain"
    return save_llama(place, num_hidden_layers=1, num_key_value_heads=2)


@pytest.fixture(scope="module")
def made(plain: Path) -> tuple[Path, dict[str, Any]]:
    """The same model as a checkpoint of 2 bits, and the weights that it stands for."""
    place = plain.parent / "E8P12"
    return place, save_quip(plain, place)


@pytest.fixture
def copy(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A checkpoint of 2 bits that a test may damage."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def load(plain: Path, text: str, cache: Path, **settings: Any) -> model.Loaded:
    kind, _, checkpoint = text.partition("@")
    variant = Variant("v", str(plain), Scheme(kind, {}, checkpoint or None))
    return model.load(variant, device="cpu", cache_dir=cache, **settings)


def change(directory: Path, **changes: Any) -> None:
    """Change settings of QuIP# in config.json; None removes one."""
    found = json.loads((directory / "config.json").read_text())["quip_params"] | changes
    settings = {name: value for name, value in found.items() if value is not None}
    edit_json(directory / "config.json", quip_params=settings)


def rewrite(directory: Path, edit: Any) -> None:
    """Apply `edit` to the checkpoint's dictionary of tensors."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / FILE)
    edit(tensors)
    save_file(tensors, directory / FILE)


def test_e8p_is_65536_points_of_the_shifted_lattice() -> None:
    import torch

    from qeval.load.reading.lattice import e8p, patterns

    points = e8p()
    assert points.shape == (2**16, 8)
    assert len(points.unique(dim=0)) == 2**16
    lattice = points - 0.25
    whole = (lattice == lattice.round()).all(1)
    halves = (lattice + 0.5 == (lattice + 0.5).round()).all(1)
    assert (whole ^ halves).all()
    assert whole.sum() == halves.sum() == 2**15
    assert (lattice.sum(1) % 2 == 0).all()
    norms = patterns().square().sum(1)
    assert (norms <= 10).sum() == 227
    assert (norms == 12).sum() == 29
    assert len(patterns().unique(dim=0)) == 256
    center = points - torch.where(halves, 0.25, -0.25)[:, None]
    assert center.abs().unique().tolist() == [0.5, 1.5, 2.5]
    assert ((center.square().sum(1) <= 10).sum(), (center.square().sum(1) == 12).sum()) == (
        227 * 256,
        29 * 256,
    )


def test_codes_stand_for_the_points_that_their_bits_say() -> None:
    from qeval.load.reading.lattice import e8p

    points = e8p()
    assert points[0b0].tolist() == [0.75] * 8
    assert points[0b1].tolist() == [0.25] * 8
    assert points[0b10].tolist() == [-0.75, 0.25, -0.75, *[0.25] * 5]
    assert points[0b11].tolist() == [-0.25, 0.75, -0.25, *[0.75] * 5]
    assert points[0b10010000].tolist() == [0.75, -0.25, *[0.75] * 5, -0.25]
    assert points[1 << 8].tolist() == [0.75] * 7 + [-1.25]  # the second pattern ends in 3/2: an odd sum


def test_no_point_of_e8p_is_nearer_than_the_definition_finds() -> None:
    import torch

    from qeval.load.reading.lattice import e8p

    torch.manual_seed(0)
    vectors = torch.randn(300, 8) * 1.03
    found, codes = nearest(vectors)
    assert (e8p()[codes] == found).all()
    errors = (found - vectors).square().sum(1)
    brute = (e8p().square().sum(1) - 2 * vectors @ e8p().T).min(1).values + vectors.square().sum(1)
    assert torch.allclose(errors, brute, atol=1e-4)


def test_the_1_bit_codebook_is_256_points_of_e8() -> None:
    from qeval.load.reading.lattice import e81b

    points = e81b()
    assert len(points.unique(dim=0)) == 256
    assert (points.sum(1) % 2 == 0).all()
    assert ((points == points.round()).all(1) ^ (points + 0.5 == (points + 0.5).round()).all(1)).all()
    norms = points.square().sum(1).tolist()
    assert [norms.count(norm) for norm in (0, 2, 4)] == [1, 240, 15]
    assert points[0].tolist() == [-1, -1, *[0] * 6]
    assert points[56].tolist() == [0] * 8
    assert points[113].tolist() == [-0.5] * 8
    assert points[255].tolist() == [0] * 6 + [-2, 0]


def test_unpacking_inverts_packing() -> None:
    import torch

    from qeval.load.reading.lattice import unpack_e8p, unpack_e81b

    torch.manual_seed(0)
    codes = torch.randint(2**16, (32, 24))
    assert (unpack_e8p(pack(codes)) == codes).all()
    word = (0x1 << 32 | 0x8 << 60) - (1 << 64) | 0x04_03_02_01  # first bit of code 0, last bit of code 3
    words = torch.zeros(16, 2, dtype=torch.int64)
    words[0, 0] = word
    first = unpack_e8p(words)[:2, :2]
    assert first.tolist() == [[0x0101, 0x0300], [0x0200, 0x0480]]
    assert unpack_e81b(torch.tensor([[0x0807060504030201, -1]])).tolist() == [[*range(1, 9), *[255] * 8]]


@pytest.mark.parametrize("width", WIDTHS)
def test_transforms_are_orthogonal_and_their_matrices_hadamard_s(width: int) -> None:
    import torch

    from qeval.load.reading.hadamard import matrix, order_of, transform

    small = matrix(order_of(width))
    assert small.abs().unique().tolist() == [1]
    assert (small @ small.T == len(small) * torch.eye(len(small))).all()
    whole = dense(width)
    assert torch.allclose(transform(torch.eye(width, dtype=torch.double)).T, whole, atol=1e-12)
    torch.manual_seed(0)
    values = torch.randn(5, width)
    assert torch.allclose(transform(values) @ whole.float(), values, atol=1e-5)


def test_the_matrices_are_those_of_a_copy_of_the_authors_own() -> None:
    """torchao carries them, adapted from QuIP#'s repository; skipped where it is not installed."""
    import torch

    from qeval.load.reading.hadamard import ORDERS, matrix

    spec = importlib.util.find_spec("torchao")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    files = [place / "prototype" / "spinquant" / "_hadamard_matrices.json" for place in places]
    if not files or not files[0].is_file():
        pytest.skip("torchao and its matrices are not installed")
    theirs = json.loads(files[0].read_text())
    for order in ORDERS[1:]:
        (found,) = (rows for name, rows in theirs.items() if name.endswith(f"had{order}"))
        assert (torch.tensor(found) == matrix(order)).all()


@pytest.mark.parametrize("width", [0, 6, 44, 4 * 25, 5, 172 * 3])
def test_a_width_without_a_known_matrix_is_refused(width: int) -> None:
    from qeval.load.reading.hadamard import order_of

    with pytest.raises(QevalError, match=f"A layer is {width} wide, and no Hadamard matrix") as caught:
        order_of(width)
    assert "28, 36, 52" in caught.value.hint


@pytest.mark.parametrize(
    ("codebook", "kinds"),
    [
        ("E8P12", {}),
        ("E8P12RVQ3B", {}),
        ("E8P12RVQ4B", {}),
        ("E8P12", {"rank": 4, "rescale": True}),
    ],
)
def test_a_checkpoint_gives_the_weights_that_it_stands_for(
    plain: Path, tmp_path: Path, codebook: str, kinds: dict[str, Any]
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    exact = save_quip(plain, tmp_path / "made", codebook, **kinds)
    loaded = load(plain, f"quip@{tmp_path / 'made'}", tmp_path, dtype="float32")
    found = dict(loaded.model.named_parameters())
    expected = LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32)
    for name, weight in exact.items():
        assert torch.allclose(found[name].double(), weight, atol=1e-6)
        expected.get_parameter(name).data = found[name].data
    for name, parameter in expected.named_parameters():
        assert (found[name] == parameter).all()
    tokens = torch.arange(20)[None] % 24
    with torch.no_grad():
        assert (loaded.model(tokens).logits == expected.eval()(tokens).logits).all()


def test_the_loaded_weights_are_exactly_the_unpacked_ones(
    plain: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from qeval.load.reading.lattice import CODEBOOKS, dequantise

    tensors = load_file(made[0] / FILE)
    whole = load(plain, f"quip@{made[0]}", tmp_path, dtype="float32")
    rounded = load(plain, f"quip@{made[0]}", tmp_path)
    for fused, parts in FUSED.items():
        prefix = f"model.layers.0.{fused}."
        layer = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
        weight, row = dequantise(layer, CODEBOOKS["E8P12"]), 0
        scales = layer.get("fuse_scales", [1])
        for part, scale in zip(parts, scales, strict=True):
            kept = whole.model.get_submodule(f"model.layers.0.{part}").weight
            expected = weight[row : row + len(kept)] * float(scale)
            assert (kept == expected).all()
            half = rounded.model.get_submodule(f"model.layers.0.{part}").weight
            assert (half == expected.half().float()).all()
            row += len(kept)


def test_what_was_loaded_is_told_with_its_true_bits(
    plain: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    loaded = load(plain, f"quip@{made[0]}", tmp_path)
    found = loaded.provenance
    assert found.model == str(made[0])
    assert found.modules == {"E8P12": 7}
    assert found.linears == 8
    weights = 64 * (192 + 64 + 256) + 128 * 64
    vectors = 16 * (64 + 192 + 64 + 64 + 64 + 256 + 128 + 64)
    assert found.bits_per_weight == (2 * weights + vectors + 4 * (16 + 64) + 5 * 16) / weights
    assert found.quantization["quant_method"] == "quip"
    assert found.quantization["codebook"] == "E8P12"
    assert found.quantization["dequantized"] is True
    assert found.dtype == "float16 weights, float32 compute"
    assert "is QuIP# of 2 bits (E8P12), unpacked into plain weights" in found.notes[0]
    assert UNTESTED in found.notes


def test_bits_of_a_published_checkpoint_are_those_that_others_measured() -> None:
    """relaxml/Llama-2-7b-E8P-2Bit has 33 698 304 bits beside the codes of 6 476 005 376 weights."""
    layers: list[dict[str, Any]] = []
    for rows, columns, parts in ((12288, 4096, 3), (4096, 4096, 0), (22016, 4096, 2), (4096, 11008, 0)):
        layer = {"Qidxs": ((rows, columns // 32), 64), "SU": ((columns,), 16), "SV": ((rows,), 16)}
        layer |= {"Wscale": ((), 16), "codebook_id": ((), 64)}
        layers.append(layer | ({"fuse_scales": ((parts,), 16)} if parts else {}))
    found = evidence("E8P12", layers * 32, {})
    assert found["bits_per_weight"] == 2 + 33_698_304 / 6_476_005_376
    assert found["modules"] == {"E8P12": 32 * 7}


def test_the_error_is_that_of_its_bits_and_less_than_rounding_makes(plain: Path, tmp_path: Path) -> None:
    """No code of Gaussian weights errs by less than 4^-bits of their variance, and no scalar one of four
    levels by less than 0.1175 (Max, 1960)."""
    from safetensors.torch import load_file

    from qeval.load.reading.grid import round_to_nearest

    state = load_file(plain / "model.safetensors")

    def error(weights: dict[str, Any]) -> float:
        pairs = [(state[name].double(), weight.double()) for name, weight in weights.items()]
        lost = sum((found - weight).square().sum() for weight, found in pairs)
        return float(lost / sum(weight.square().sum() for weight, _ in pairs))

    made = {codebook: save_quip(plain, tmp_path / codebook, codebook) for codebook in BITS}
    for codebook, bits in BITS.items():
        assert 1 < error(made[codebook]) * 4**bits < 3
    rounded = {name: round_to_nearest(state[name].float(), 2, 64, False) for name in made["E8P12"]}
    assert error(made["E8P12"]) < min(0.1175, error(rounded) / 2)


def test_mistral_has_the_same_layout(tmp_path: Path) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    place = save_llama(tmp_path / "plain", num_hidden_layers=1)
    llama = json.loads((place / "config.json").read_text())
    sizes = {name: value for name, value in llama.items() if name.endswith(("_size", "_heads", "_layers"))}
    torch.manual_seed(0)
    MistralForCausalLM(MistralConfig(**sizes, head_dim=32)).half().save_pretrained(place)
    exact = save_quip(place, tmp_path / "made")
    loaded = load(place, f"quip@{tmp_path / 'made'}", tmp_path, dtype="float32")
    assert loaded.provenance.architecture == "MistralForCausalLM"
    found = dict(loaded.model.named_parameters())
    assert all(torch.allclose(found[name].double(), weight, atol=1e-6) for name, weight in exact.items())


def test_a_checkpoint_s_own_scale_of_the_residual_replaces_the_codebook_s() -> None:
    import torch

    from qeval.load.reading.lattice import CODEBOOKS, points

    torch.manual_seed(0)
    first, second = pack(torch.randint(2**16, (16, 8))), pack(torch.randint(2**16, (16, 8)))
    plain, rest = (points(words, CODEBOOKS["E8P12"], -1) for words in (first, second))
    both = torch.cat((first, second), 1)
    assert (points(both, CODEBOOKS["E8P12RVQ4B"], -1) == plain + rest / 3.45).all()
    assert (points(both, CODEBOOKS["E8P12RVQ4B"], 2) == plain + rest / 2).all()


def test_a_checkpoint_in_several_files_is_the_same(plain: Path, copy: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = load(plain, f"quip@{copy}", tmp_path).model.state_dict()
    tensors = load_file(copy / FILE)
    (copy / FILE).unlink()
    names = {at: dict(list(tensors.items())[at::2]) for at in (0, 1)}
    for at, part in names.items():
        save_file(part, copy / f"part{at}.safetensors")
    index = {name: f"part{at}.safetensors" for at, part in names.items() for name in part}
    (copy / f"{FILE}.index.json").write_text(json.dumps({"weight_map": index}))
    parts = load(plain, f"quip@{copy}", tmp_path).model.state_dict()
    assert all((whole[name] == tensor).all() for name, tensor in parts.items())


@pytest.mark.parametrize("codebook", ["D4", "HI4B1C", "E8P13"])
def test_an_unknown_codebook_is_refused(plain: Path, copy: Path, tmp_path: Path, codebook: str) -> None:
    change(copy, codebook=codebook)
    with pytest.raises(QevalError, match=f"is of the codebook {codebook}, which is not known here") as caught:
        load(plain, f"quip@{copy}", tmp_path)
    assert caught.value.hint == "Name a checkpoint of one of these: E8P12, E8P12RVQ3B, E8P12RVQ4B."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_version": None}, "holds version 0 of E8P12, and version 1 is known here"),
        ({"fused": False}, "has fused=False in its quip_params; only True is known here"),
        ({"outlier_channel_split": True}, "has outlier_channel_split=True"),
        ({"lora_rank": 8}, r"proj\.A of .* is missing"),
        ({"rescale_WH": True}, r"proj\.scaleWH of .* is missing"),
        ({"codebook": "E8P12RVQ4B"}, r"Qidxs of .* has the shape \[64, 4\] instead of \[64, 8\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    plain: Path, copy: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    change(copy, **changes)
    with pytest.raises(QevalError, match=message) as caught:
        load(plain, f"quip@{copy}", tmp_path)
    assert caught.value.hint


def test_damaged_tensors_are_refused(plain: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    import torch

    layer = "model.layers.0.mlp.down_proj"
    edits = {
        f"{layer}.SU of .* is missing": lambda tensors: tensors.pop(f"{layer}.SU"),
        f"{layer}.bias of .* is not known here": lambda tensors: tensors.update(
            {f"{layer}.bias": torch.ones(64)}
        ),
        f"{layer} of .* is of codebook 10, and": lambda tensors: tensors[f"{layer}.codebook_id"].fill_(10),
        f"lacks the tensor {layer}.weight": lambda tensors: [
            tensors.pop(name) for name in list(tensors) if name.startswith(layer)
        ],
        "lacks the tensor model.norm.weight": lambda tensors: tensors.pop("model.norm.weight"),
        "has, where its model does not, the tensor more": lambda tensors: tensors.update(more=torch.ones(1)),
        "q_proj, which its model has no place for": lambda tensors: tensors.update(
            {"model.layers.0.self_attn.q_proj.Qidxs": torch.ones(64, 2)}
        ),
        "holds no layer that QuIP# quantised": lambda tensors: [
            tensors.pop(name) for name in list(tensors) if name.endswith("Qidxs")
        ],
    }
    for at, (message, edit) in enumerate(edits.items()):
        place = Path(shutil.copytree(made[0], tmp_path / str(at)))
        rewrite(place, edit)
        with pytest.raises(QevalError, match=message) as caught:
            load(plain, f"quip@{place}", tmp_path)
        assert caught.value.hint
    (place / FILE).unlink()
    with pytest.raises(QevalError, match=r"has no file model\.safetensors"):
        load(plain, f"quip@{place}", tmp_path)


def test_checkpoints_of_other_schemes_are_refused(plain: Path, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(QevalError, match="is not quantised, so it is not a checkpoint of quip"):
        load(plain, f"quip@{plain}", tmp_path)
    with pytest.raises(QevalError, match="is quantised by quip, so it is not a checkpoint of gptq") as caught:
        load(plain, f"gptq@{copy}", tmp_path)
    assert caught.value.hint == f"Write: quip@{copy}"
    save_tokenizer(copy)
    with pytest.raises(QevalError, match=r"is quantised already \(quip\), so fp16 cannot be made of it"):
        load(copy, "fp16", tmp_path)
    edit_json(copy / "config.json", quip_params=None, quantization_config={"quant_method": "quip"})
    with pytest.raises(QevalError, match=r"its config\.json has no quip_params") as caught:
        load(plain, f"quip@{copy}", tmp_path)
    assert "relaxml/Llama-2-7b-E8P-2Bit" in caught.value.hint
    edit_json(
        copy / "config.json", quip_params={"codebook": "E8P12", "codebook_version": 1}, model_type="opt"
    )
    with pytest.raises(QevalError, match="is of the architecture opt, whose layout"):
        check(Source(str(copy)))
