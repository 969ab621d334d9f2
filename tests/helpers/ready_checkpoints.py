"""Tiny quantised checkpoints, as other tools publish them, with the weights that each stands for.

Every writer takes a plain checkpoint, puts the quantised one beside it, and returns the unpacked weights in
float32 by the name of their layer (of their parameter, for gpt-oss), worked out apart from the library read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_models import edit_json, save_tokenizer

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The magnitudes of 4-bit floating point; the highest bit of a code is the sign."""


def _rewrite(plain: Path, place: Path, layer: Callable[[str, Any], tuple[dict[str, Any], Any]]) -> dict:
    """Copy a checkpoint with every linear layer of a block replaced: `layer` takes its name and weight, and
    returns the tensors in its place and the weight that they stand for."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, place)
    tensors, dense = load_file(plain / "model.safetensors"), {}
    for name in [name for name in tensors if ".layers." in name and tensors[name].ndim == 2]:
        found, weight = layer(name.removesuffix(".weight"), tensors.pop(name).float())
        tensors.update({key: tensor.contiguous() for key, tensor in found.items()})
        dense[name.removesuffix(".weight")] = weight
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return dense


def save_fp8(plain: Path, place: Path, block: int = 32) -> dict[str, Any]:
    """8-bit floating point with a float32 scale for each square block, as DeepSeek-V3's files hold it."""
    import torch

    def layer(name: str, weight: Any) -> tuple[dict[str, Any], Any]:
        rows, columns = weight.shape
        parts = weight.reshape(rows // block, block, columns // block, block)
        scale = parts.abs().amax((1, 3)) / 448
        small = (parts / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        stands_for = (small.float() * scale[:, None, :, None]).reshape(rows, columns)
        return {f"{name}.weight": small.reshape(rows, columns), f"{name}.weight_scale_inv": scale}, stands_for

    dense = _rewrite(plain, place, layer)
    config = {"quant_method": "fp8", "weight_block_size": [block, block], "activation_scheme": "dynamic"}
    edit_json(place / "config.json", quantization_config=config)
    return dense


def save_aqlm(plain: Path, place: Path, books: int, bits: int) -> dict[str, Any]:
    """Random AQLM: vectors of 8 weights are sums of one vector from each codebook, rows have a scale."""
    import torch

    torch.manual_seed(1)
    codes_type = torch.int8 if bits <= 8 else torch.int16

    def layer(name: str, weight: Any) -> tuple[dict[str, Any], Any]:
        rows, columns = weight.shape
        codes = torch.randint(0, 2**bits, (rows, columns // 8, books))
        vectors = (0.2 * torch.randn(books, 2**bits, 1, 8)).half()
        scales = (torch.rand(rows, 1, 1, 1) + 0.5).half()
        whole = torch.stack([vectors[book, :, 0].float()[codes[..., book]] for book in range(books)]).sum(0)
        stands_for = whole.reshape(rows, columns) * scales.float().reshape(rows, 1)
        wrapped = codes.to(codes_type)  # the upper half of the codes as negative numbers
        return {f"{name}.codes": wrapped, f"{name}.codebooks": vectors, f"{name}.scales": scales}, stands_for

    dense = _rewrite(plain, place, layer)
    config = {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": books}
    skipped = {"nbits_per_codebook": bits, "linear_weights_not_to_quantize": ["lm_head"]}
    edit_json(place / "config.json", quantization_config={**config, **skipped})
    return dense


def save_vptq(plain: Path, place: Path, *, shared: bool = False, **settings: Any) -> dict[str, Any]:
    """Random VPTQ: `vector` weights down a column are a vector of a codebook of 2**bits, to which one of
    2**residual may be added. `groups` of columns have codebooks of their own, and so have the first
    `outliers` columns (64 vectors of 4). `adjusted` layers permute columns, then scale and shift them.

    `shared` settings are written by the last part of a layer's name, others by its whole name.
    """
    import torch

    torch.manual_seed(1)
    form = {"vector": 8, "bits": 8, "residual": 0, "groups": 1, "outliers": 0, "adjusted": False, **settings}
    config: dict[str, Any] = {}

    def layer(name: str, weight: Any) -> tuple[dict[str, Any], Any]:
        config[name.rpartition(".")[2] if shared else name] = _vptq_settings(weight.shape[1], form)
        tensors, whole = _vptq_layer(*weight.shape, form)
        return {f"{name}.{key}": tensor for key, tensor in tensors.items()}, whole

    dense = _rewrite(plain, place, layer)
    key = "shared_layer_config" if shared else "config_for_layers"
    edit_json(place / "config.json", quantization_config={"quant_method": "vptq", key: config})
    return dense


def _vptq_settings(columns: int, form: dict[str, Any]) -> dict[str, Any]:
    apart = form["outliers"] > 0
    return {
        "vector_lens": [4 if apart else -1, form["vector"]],
        "num_centroids": [64 if apart else -1, 2 ** form["bits"]],
        "num_res_centroids": [-1, 2 ** form["residual"] if form["residual"] else -1],
        "group_num": form["groups"],
        "group_size": (columns - form["outliers"]) // form["groups"],
        "outlier_size": form["outliers"],
        "indices_as_float": False,
        "is_indice_packed": True,
        "enable_norm": form["adjusted"],
        "enable_perm": form["adjusted"],
    }


def _vptq_layer(rows: int, columns: int, form: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The tensors of a layer of VPTQ, and the weight that they stand for."""
    import torch

    groups, width = form["groups"], (columns - form["outliers"]) // form["groups"]
    tensors, parts, packed = {}, [], 0
    for name, bits, shift in (
        ("centroids", form["bits"], 0),
        ("res_centroids", form["residual"], form["bits"]),
    ):
        if bits:
            books, codes, part = _vptq_vectors(rows, width, groups, form["vector"], 2**bits)
            tensors[f"{name}.weight"] = books
            packed, parts = packed | codes << shift, [*parts, part]
    tensors["indices"] = _pack_bits(packed, form["bits"] + form["residual"])
    weight = sum(parts)
    if form["outliers"]:
        books, codes, part = _vptq_vectors(rows, form["outliers"], 1, 4, 64)
        tensors |= {"outlier_centroids.weight": books, "outlier_indices": codes.to(torch.int16)}
        weight = torch.cat([part, weight], 1)
    if form["adjusted"]:
        order = torch.randperm(columns)
        scale, shift = (torch.rand(columns) + 0.5).half(), (0.02 * torch.randn(columns)).half()
        tensors |= {"perm": order.to(torch.int16), "weight_scale": scale, "weight_bias": shift}
        weight = torch.empty_like(weight).index_copy(1, order, weight) * scale.float() + shift.float()
    return tensors, weight


def _vptq_vectors(rows: int, width: int, groups: int, vector: int, count: int) -> tuple[Any, Any, Any]:
    """Random codebooks (groups, count * vector), codes (groups, vectors down a column, width), and their part
    of the weight (rows, groups * width)."""
    import torch

    books = (0.1 * torch.randn(groups, count, vector)).half()
    codes = torch.randint(0, count, (groups, -(-rows // vector), width))
    parts = [
        book.float()[code].transpose(1, 2).flatten(0, 1)[:rows]
        for book, code in zip(books, codes, strict=True)
    ]
    return books.flatten(1), codes, torch.cat(parts, 1)


def _pack_bits(codes: Any, bits: int) -> Any:
    """Codes of so many bits one after the other in int32, the first in the lowest bits, rows padded."""
    import numpy as np
    import torch

    stream = (codes.numpy()[..., None] >> np.arange(bits) & 1).astype(np.uint8)
    stream = stream.reshape(*codes.shape[:-1], -1)
    padded = np.pad(stream, [(0, 0), (0, 0), (0, -stream.shape[-1] % 32)])
    return torch.from_numpy(np.packbits(padded, axis=-1, bitorder="little").view(np.int32))


def save_spqr(plain: Path, place: Path, *, permuted: bool = True) -> dict[str, Any]:
    """Random SpQR: codes of 3 bits in tiles of 16 x 16 whose rows have a scale and a zero of 3 bits, these a
    scale and a zero each in float16; two outliers in every row; columns may be permuted."""
    import torch

    torch.manual_seed(1)
    shapes: dict[str, int] = {}

    def layer(name: str, weight: Any) -> tuple[dict[str, Any], Any]:
        tensors, whole = _spqr_layer(*weight.shape, permuted)
        shapes.update({f"{name}.{key}.shape": len(tensor) for key, tensor in tensors.items()})
        return {f"{name}.{key}": tensor for key, tensor in tensors.items()}, whole

    dense = _rewrite(plain, place, layer)
    config = {"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16, "shapes": shapes}
    edit_json(place / "config.json", quantization_config=config)
    return dense


def _spqr_layer(rows: int, columns: int, permuted: bool) -> tuple[dict[str, Any], Any]:
    """The tensors of a layer of SpQR, and the weight that they stand for: its kernel unpacks in float16."""
    import torch

    high, wide = rows // 16, columns // 16
    codes = torch.randint(0, 8, (high, wide, 16, 16))
    scales, zeros = torch.randint(0, 8, (2, high, wide, 16))
    low = torch.tensor([0.01, 0.9, -1.0, 0.0])  # scale of scales, scale of zeros, zero of scales, of zeros
    spread = torch.tensor([0.01, 0.2, 0.5, 0.5])
    second = (low + spread * torch.rand(high, wide, 4)).half()
    words = _spqr_words(codes, scales, zeros, second)
    scale = second[..., None, 0] * (scales.half() - second[..., None, 2])
    zero = second[..., None, 1] * (zeros.half() - second[..., None, 3])
    weight = (scale[..., None] * (codes.half() - zero[..., None])).float()
    weight = weight.transpose(1, 2).reshape(rows, columns)
    at = torch.stack([torch.randperm(columns)[:2].sort().values for _ in range(rows)])
    values = torch.randn(rows, 2).half()
    weight.scatter_add_(1, at, values.float())
    order = torch.randperm(columns) if permuted else torch.arange(columns)
    tensors = {
        "dense_weights": words.flatten(),
        "row_offsets": torch.arange(0, 2 * rows + 1, 2, dtype=torch.int32),
        "col_vals": (values.view(torch.int16).int() << 16 | at.int()).flatten(),
        "in_perm": (order[0::2] | order[1::2] << 16).int() if permuted else torch.empty(0, dtype=torch.int32),
    }
    return tensors, torch.empty_like(weight).index_copy(1, order, weight)


def _spqr_words(codes: Any, scales: Any, zeros: Any, second: Any) -> Any:
    """Rows of tiles as 64 bits: scale, zero, 16 codes of 3 bits each, then a byte of the tile's four float16
    values; each of these eight bytes stands in two rows."""
    import torch

    row = torch.arange(16)
    bits = second.contiguous().view(torch.int16).long() & 0xFFFF
    joined = (bits << 16 * torch.arange(4)).sum(-1)
    byte = joined[..., None] >> 8 * (row // 2) & 0xFF
    return scales | zeros << 3 | (codes << 6 + 3 * row).sum(-1) | byte << 54


def unpack_spqr(tensors: dict[str, Any], rows: int, columns: int) -> Any:
    """The weight (rows, columns) of a layer of SpQR, word by word as its kernel reads it, in float32."""
    import numpy as np
    import torch

    words = tensors["dense_weights"].numpy().reshape(rows // 16, columns // 16, 16)
    whole = np.zeros((rows, columns), np.float32)
    for tile in np.ndindex(words.shape[:2]):
        used = [int(word) for word in words[tile]]
        second = np.frombuffer(bytes(word >> 54 for word in used[::2]), np.float16)
        for row, word in enumerate(used):
            scale, zero, *codes = (np.float16(word >> 3 * place & 7) for place in range(18))
            scale, zero = second[0] * (scale - second[2]), second[1] * (zero - second[3])
            whole[16 * tile[0] + row, 16 * tile[1] :][:16] = [scale * (code - zero) for code in codes]
    ends = tensors["row_offsets"].numpy()
    pairs = tensors["col_vals"].numpy().view(np.uint16).reshape(-1, 2)  # column, then value
    for row in range(rows):
        for column, value in pairs[ends[row] : ends[row + 1]]:
            whole[row, column] += value.view(np.float16)
    order = tensors["in_perm"].numpy().view(np.uint16)
    if len(order):
        whole = whole[:, np.argsort(order)]
    return torch.from_numpy(whole)


def save_gpt_oss(place: Path) -> Path:
    """A random gpt-oss of two blocks with four experts, in float16, with its tokenizer."""
    import torch
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 16}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 128}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.2}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    model = GptOssForCausalLM(GptOssConfig(**sizes, **heads, **experts, **tokens, **rope)).half()
    model.save_pretrained(place)
    save_tokenizer(place)
    return place


def save_mxfp4(plain: Path, place: Path) -> dict[str, Any]:
    """gpt-oss with its experts in MXFP4: 32 codes of 4 bits share a power of two, two codes share a byte."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    shutil.copytree(plain, place)
    tensors, dense = load_file(plain / "model.safetensors"), {}
    values = torch.tensor([*E2M1, *(-value for value in E2M1)])
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        codes = torch.randint(0, 16, (experts, outputs, inputs // 32, 32))
        powers = torch.randint(118, 126, (experts, outputs, inputs // 32), dtype=torch.uint8)
        weight = values[codes] * torch.exp2(powers.float() - 127)[..., None]
        dense[name] = weight.reshape(experts, outputs, inputs).transpose(1, 2)
        tensors[f"{name}_blocks"] = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
        tensors[f"{name}_scales"] = powers
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    plain_parts = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config = {"quant_method": "mxfp4", "modules_to_not_convert": plain_parts}
    edit_json(place / "config.json", quantization_config=config)
    return dense


def save_compressed(plain: Path, place: Path, preset: str, group_size: int | None = None) -> dict[str, Any]:
    """A checkpoint by compressed-tensors' own compressor, rounded to nearest with the scales of extremes."""
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float16)
    scheme = preset_name_to_scheme(preset, ["Linear"])
    if group_size is not None:
        scheme.weights.group_size = group_size
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    apply_quantization_config(model, config)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            _set_scales(module, scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(place)
    compressor.update_config(str(place))
    save_tokenizer(place)
    return _unpack_compressed(place, scheme.weights.num_bits)


def _set_scales(module: Any, args: Any) -> None:
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = module.weight.data.float()
    groups = weight.reshape(weight.shape[0], -1, args.group_size or weight.shape[1])
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    module.weight_scale.data.copy_(scale)
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data.copy_(zero)


def _unpack_compressed(place: Path, bits: int) -> dict[str, Any]:
    """The weights of a checkpoint's files: codes minus zeros, times the scale of their group.

    Packed codes are unsigned, eight of 4 bits in an int32, the first in the lowest bits; zeros are packed
    likewise, down the rows.
    """
    import torch
    from safetensors.torch import load_file

    tensors, dense = load_file(place / "model.safetensors"), {}
    shifts = torch.arange(0, 32, bits)
    half = 2 ** (bits - 1)

    def codes_of(packed: Any) -> Any:
        return (packed.long()[..., None] >> shifts & (2**bits - 1)).flatten(-2).float() - half

    for name in [name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")]:
        scale = tensors[f"{name}.weight_scale"].float()[..., None]
        packed, zeros = tensors.get(f"{name}.weight_packed"), tensors.get(f"{name}.weight_zero_point")
        codes = tensors[f"{name}.weight"].float() if packed is None else codes_of(packed)
        groups = codes.reshape(codes.shape[0], scale.shape[1], -1)
        if zeros is not None:
            groups = groups - codes_of(zeros.t()).t()[..., None]
        dense[name] = (groups * scale).reshape(codes.shape)
    return dense


def save_autoround(plain: Path, place: Path, packing: str, **settings: Any) -> Path:
    """A checkpoint by auto-round itself, without calibration; returns the directory that it chose."""
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    plainly = {"iters": 0, "disable_opt_rtn": True, "enable_torch_compile": False, "device_map": "cpu"}
    AutoRound(model, tokenizer, **plainly, **settings).quantize_and_save(str(place), format=packing)
    (found,) = (config.parent for config in place.rglob("config.json"))
    return found
