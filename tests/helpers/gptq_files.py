"""Tiny GPTQ checkpoints as auto-gptq, gptqmodel and others wrote them, with the weights they stand for."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from tiny_models import edit_json

Form = tuple[int, int]
"""Bits of a weight, and inputs that share a scale."""


def _pack(codes: Any, bits: int) -> Any:
    """Codes (rows, n) in 32-bit words, one after the other from the lowest bit."""
    import numpy as np

    stream = (codes[..., None] >> np.arange(bits)) & 1
    packed = np.packbits(stream.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return packed.view(np.int32)


def pack_layer(weight: Any, form: Form, *, symmetric: bool, version: int) -> tuple[dict[str, Any], Any]:
    """The tensors of one layer (out, in) rounded to nearest, and the weight that they stand for.

    Zero points are stored as they are (version 2), or less one (version 1), where a 0 borrows from its
    neighbour.
    """
    import numpy as np
    import torch

    bits, group = form
    top, whole = 2**bits - 1, weight.float().numpy()
    parts = whole.reshape(len(whole), -1, group)
    if symmetric:
        scales = np.abs(parts).max(2) / (top / 2)
        zeros = np.full(scales.shape, 2 ** (bits - 1))
    else:
        low, high = np.minimum(parts.min(2), 0), np.maximum(parts.max(2), 0)
        scales = (high - low) / top
        zeros = np.round(-low / scales).astype(np.int64)
    scales = scales.astype(np.float16)
    wide = scales.astype(np.float32)[..., None]
    codes = np.clip(np.round(parts / wide) + zeros[..., None], 0, top).astype(np.int64)
    dense = ((codes - zeros[..., None]) * wide).reshape(whole.shape).astype(np.float32)
    packed = _pack(np.ascontiguousarray(zeros.T), bits)
    if version == 1:  # words of 3 bits are not whole codes, so that nothing can borrow
        less = (zeros.T - 1) % 2**bits
        packed = _pack(less, bits) if bits == 3 else packed - _pack(np.ones_like(zeros.T), bits)
    tensors = {
        "qweight": torch.from_numpy(np.ascontiguousarray(_pack(codes.reshape(whole.shape), bits).T)),
        "qzeros": torch.from_numpy(packed),
        "scales": torch.from_numpy(np.ascontiguousarray(scales.T)),
        "g_idx": torch.arange(whole.shape[1], dtype=torch.int32) // group,
    }
    return tensors, torch.from_numpy(dense).float()


def save_gptq(
    plain: Path,
    place: Path,
    form: Form = (4, 32),
    *,
    forms: dict[str, Form | None] | None = None,
    symmetric: bool = False,
    version: int = 1,
    head: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """A GPTQ checkpoint of the plain one; returns the weights of its packed layers, by name.

    `forms` are those of layers whose name a pattern matches, None for plain ones. `settings` go into
    config.json's quantization_config beside the usual ones; None removes one.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, place)
    tensors, dense = load_file(plain / "model.safetensors"), {}
    for name in [each.removesuffix(".weight") for each in tensors if "_proj" in each or "lm_head" in each]:
        found = [given for pattern, given in (forms or {}).items() if re.search(pattern, name)]
        own = found[0] if found else form
        if own is None or ("lm_head" in name and not head):
            continue
        weight = tensors.pop(f"{name}.weight")
        parts, dense[name] = pack_layer(weight, own, symmetric=symmetric, version=version)
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    usual = {"quant_method": "gptq", "bits": form[0], "group_size": form[1], "desc_act": False}
    config = {**usual, "sym": symmetric, "checkpoint_format": "gptq", **settings}
    told = {key: value for key, value in config.items() if value is not None}
    edit_json(place / "config.json", quantization_config=told)
    return dense


def to_old_form(place: Path) -> None:
    """As auto-gptq left them: settings in a file of their own, weights under a name of their own, and a bias
    of zeros for every layer."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((place / "config.json").read_text())["quantization_config"]
    edit_json(place / "config.json", quantization_config=None)
    base = f"gptq_model-{config['bits']}bit-{config['group_size']}g"
    old = {name: config[name] for name in ("bits", "group_size", "desc_act", "sym")}
    more = {"damp_percent": 0.01, "static_groups": False, "true_sequential": True}
    names = {"model_name_or_path": None, "model_file_base_name": base}
    (place / "quantize_config.json").write_text(json.dumps({**old, **more, **names}))
    tensors = load_file(place / "model.safetensors")
    for name in [name for name in tensors if name.endswith(".scales")]:
        width = tensors[name].shape[1]
        tensors[name.replace(".scales", ".bias")] = torch.zeros(width, dtype=torch.float16)
    save_file(tensors, place / f"{base}.safetensors", metadata={"format": "pt"})
    (place / "model.safetensors").unlink()
