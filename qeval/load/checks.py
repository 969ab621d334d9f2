"""What is checked before any weights are read: packages, options, the device, and what a checkpoint is."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qeval.base.errors import MissingPackageError, QevalError
from qeval.base.names import scheme_text
from qeval.base.records import Scheme
from qeval.load.device import device_name
from qeval.load.packages import in_words, missing_packages, remedy
from qeval.load.schemes import SCHEMES
from qeval.load.source import Source, read_config
from qeval.load.spec import Recipe, SchemeSpec


def check_available(scheme: Scheme) -> None:
    """Raise MissingPackageError where a package is missing, and what `check_options` raises.

    Imports no heavy library, so that it can be asked before anything of a model is looked at.
    """
    check_options(scheme)
    spec, unpack = SCHEMES[scheme.kind], bool(scheme.options.get("unpack"))
    _check_attention(scheme.options)
    missing = missing_packages(spec, unpack)
    if missing:
        gpu = f", and {spec.gpu}" if spec.gpu and not unpack else ""
        raise MissingPackageError(
            f"{spec.name} needs {in_words(missing)}{gpu}.",
            f"{remedy(spec)}{_unpacking(scheme)}",
        )


def check_options(scheme: Scheme) -> None:
    """Raise QevalError for options that cannot act, on whatever machine."""
    spec = SCHEMES[scheme.kind]
    if scheme.options.get("unpack") and scheme.checkpoint is None:
        raise QevalError(
            f"{spec.name}[unpack=true] unpacks a ready checkpoint, and none is named.",
            f"Write {spec.name}[unpack=true]@<Hub id or directory>, or leave out unpack.",
        )
    _check_needs(scheme, spec)
    _check_ready(scheme, spec)


def _check_needs(scheme: Scheme, spec: SchemeSpec) -> None:
    """Refuse an option that does nothing beside the others."""
    options = spec.complete(scheme.options)
    for option in spec.options:
        acts = not option.needs or any(options[name] == value for name, value in option.needs)
        if option.name in scheme.options and not acts:
            beside = " or ".join(f"{name}={value}" for name, value in option.needs)
            raise QevalError(
                f"{option.name} of {spec.name} has an effect only together with {beside}.",
                f"Leave out {option.name}, or write {beside}.",
            )


def _check_ready(scheme: Scheme, spec: SchemeSpec) -> None:
    """Refuse options that shape weights, where a ready checkpoint has its own and does not tell these."""
    shaping = spec.shaping(scheme.options)
    idle = [name for name in spec.defaults if name in shaping and name not in spec.config_keys]
    if idle and scheme.checkpoint is not None:
        raise QevalError(
            f"{spec.name}@{scheme.checkpoint} is read as it is, so these have no effect: {', '.join(idle)}.",
            f"Leave out {', '.join(idle)}: the checkpoint was made already.",
        )


def _check_attention(options: Mapping[str, Any]) -> None:
    """Raise MissingPackageError for flash attention where neither package is there that brings it."""
    asked = options.get("attention") == "flash_attention_2"
    if asked and not any(importlib.util.find_spec(name) for name in ("flash_attn", "kernels")):
        raise MissingPackageError(
            "attention=flash_attention_2 needs flash-attn.",
            "Write attention=sdpa, or install it with: pip install --no-build-isolation flash-attn",
        )


def _unpacking(scheme: Scheme) -> str:
    """How a ready checkpoint can be scored without its kernels, to end a hint; empty where it cannot."""
    known = SCHEMES[scheme.kind].defaults
    if scheme.checkpoint is None or "unpack" not in known or scheme.options.get("unpack"):
        return ""
    asked = {**scheme.options, "unpack": True}
    other = replace(scheme, options={name: asked[name] for name in known if name in asked})
    return f"; or score its weights unpacked, on any device: {scheme_text(other)}"


def check_device(recipe: Recipe, spec: SchemeSpec, scheme: Scheme) -> None:
    """Refuse a device that the scheme, or an option of it, has no kernels for."""
    _check_choices(recipe, spec)
    if not spec.gpu or spec.unpacks(recipe.options):
        return
    found = f"the device is {recipe.device}"
    if recipe.device.startswith("cuda"):
        import torch

        capability = torch.cuda.get_device_capability(recipe.device)
        if spec.capability is None or capability >= spec.capability:
            return
        found = f"{device_name(recipe.device)} has {'.'.join(map(str, capability))}"
    raise QevalError(
        f"{spec.name} needs {spec.gpu}, and {found}.",
        f"Run it where there is one (qeval doctor shows which schemes run here){_unpacking(scheme) or '.'}",
    )


def _check_choices(recipe: Recipe, spec: SchemeSpec) -> None:
    for option in spec.options:
        asked = recipe.options[option.name]
        if asked in option.on_gpu and not recipe.device.startswith("cuda"):
            others = [str(choice) for choice in option.choices if choice not in option.on_gpu]
            raise QevalError(
                f"{option.name}={asked} runs on NVIDIA GPUs only, and the device is {recipe.device}.",
                f"Choose {option.name} from: {', '.join(others)}.",
            )


def check_checkpoint(recipe: Recipe, spec: SchemeSpec) -> None:
    """Refuse a checkpoint of another scheme, and a model that is quantised already."""
    method = _method(recipe.source)
    name = recipe.source.path
    if recipe.ready and method not in spec.methods:
        what = f"quantised by {method}" if method else "not quantised"
        raise QevalError(
            f"{name} is {what}, so it is not a checkpoint of {spec.name}.", _other_scheme(method, name)
        )
    if not recipe.ready and method:
        raise QevalError(
            f"{name} is quantised already ({method}), so {spec.name} cannot be made of it.",
            f"Give the unquantised model to --model, and this one as a scheme. {_other_scheme(method, name)}",
        )


def _method(source: Source) -> str:
    """What quantised a checkpoint, as one of the schemes' `methods` where it is known; empty for nothing."""
    config = read_config(source).get("quantization_config") or {}
    for spec in SCHEMES.values():
        if spec.recognise is not None and spec.recognise(source, config):
            return spec.methods[0]
    return str(config.get("quant_method") or "")


def scheme_of_directory(path: str) -> str:
    """The scheme that reads a quantised checkpoint in a directory here, with it, as it is typed:
    "gptq@./checkpoint"; "" where it is none."""
    source = Source(path)
    try:
        method = _method(source) if source.local else ""
    except QevalError:
        return ""
    fitting = [spec.name for spec in SCHEMES.values() if method and method in spec.methods]
    return scheme_text(Scheme(fitting[0], {}, path)) if fitting else ""


def _other_scheme(method: str, name: str) -> str:
    fitting = [spec.name for spec in SCHEMES.values() if method and method in spec.methods]
    return f"Write: {fitting[0]}@{name}" if fitting else "Check the name of the checkpoint."
