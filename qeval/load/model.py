"""From a Variant to a loaded model, its tokenizer, and a truthful account of what was loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError, UsageError
from qeval.base.names import scheme_text
from qeval.base.records import Provenance, Scheme, Variant
from qeval.load import adapter, schemes
from qeval.load.demo import NOTE as DEMO_NOTE
from qeval.load.demo import prepare as prepare_demo
from qeval.load.memory import check_fits, forget_peak
from qeval.load.schemes.plain import DTYPES
from qeval.load.schemes.spec import Recipe, SchemeSpec, say_nothing
from qeval.load.source import DEMO, Source, locate, model_identity, read_config, read_json, refuse_revision
from qeval.load.versions import versions

__all__ = ["Loaded", "load", "load_tokenizer", "make_checkpoint", "model_identity"]

DTYPE_NAMES = {
    "auto": "auto",
    "fp16": "float16",
    "float16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp32": "float32",
    "float32": "float32",
}
CPU_NOTE = (
    "On this CPU, which is slow in 16-bit arithmetic, plain weights are rounded to {store} and calculated in"
    " float32; --dtype {store} calculates in it."
)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A transformers model in evaluation mode, its tokenizer, what they truly are, and how long the
    loading of weights took."""

    model: Any
    tokenizer: Any
    provenance: Provenance
    load_seconds: float = 0.0


def load(
    variant: Variant,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    cache_dir: Path,
    datasets_dir: Path | None = None,
    progress: Callable[[str], None] = say_nothing,
) -> Loaded:
    """Load a variant and prove that it is what was asked.

    `dtype` is what is calculated in; auto is float16 for quantised schemes (bfloat16 for torchao), the
    scheme's own for plain ones, and float32 on a CPU. Raises QevalError where the model, its packages or
    the memory are missing, where the checkpoint is of another scheme, and where nothing came out quantised.
    """
    schemes.check_available(variant.scheme)
    spec = schemes.SCHEMES[variant.scheme.kind]
    recipe = _recipe(variant, device, dtype, cache_dir, progress)
    recipe = replace(recipe, trust_remote_code=trust_remote_code, datasets_dir=datasets_dir)
    _check_device(recipe, spec, variant.scheme)
    _check_checkpoint(recipe, spec)
    if variant.adapter is not None:
        adapter.check(variant.adapter, spec, recipe.options)
    check_fits(recipe, spec)
    tokenizer, notes = _tokenizer(recipe)
    if spec.make is not None and not recipe.ready:
        spec.make(recipe)  # cached, so that loading it is what is timed
        forget_peak(recipe.device)
    start = time.perf_counter()
    model = spec.load(recipe)
    if variant.adapter is not None:
        model = adapter.attach(model, variant.adapter, recipe)
    seconds = time.perf_counter() - start
    _check_vocabulary(model, tokenizer, recipe)
    provenance = _provenance(variant, recipe, spec, model)
    return Loaded(model, tokenizer, replace(provenance, notes=(*provenance.notes, *notes)), seconds)


def load_tokenizer(
    variant: Variant, *, cache_dir: Path, trust_remote_code: bool = False
) -> tuple[Any, int | None]:
    """The tokenizer of the unquantised model, and the longest sequence the model takes (None: no limit).

    All variants of a model are asked in the same tokens, so a checkpoint's own tokenizer is not used.
    """
    recipe = _recipe(variant, "cpu", "auto", cache_dir, say_nothing)
    tokenizer, _ = _tokenizer(replace(recipe, trust_remote_code=trust_remote_code))
    config = read_config(recipe.base)
    text: dict[str, Any] = config.get("text_config") or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):  # in the order of lm-eval's HFLM
        if isinstance(text.get(name), int):
            return tokenizer, text[name]
    return tokenizer, None


def make_checkpoint(
    model: str,
    scheme: Scheme,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: Path,
    datasets_dir: Path | None = None,
    progress: Callable[[str], None] = say_nothing,
) -> Path:
    """Quantise a model and return the directory of the checkpoint, the one that `load` reads.

    Raises UsageError for a scheme that quantises while loading or a checkpoint that is ready already.
    """
    spec = schemes.SCHEMES[scheme.kind]
    if spec.make is None or scheme.checkpoint is not None:
        able = ", ".join(name for name, other in schemes.SCHEMES.items() if other.make is not None)
        raise UsageError(f"{scheme_text(scheme)} makes no checkpoint.", f"These do: {able}.")
    schemes.check_available(scheme)
    recipe = _recipe(Variant(scheme.kind, model, scheme, revision), device, dtype, cache_dir, progress)
    recipe = replace(recipe, source=recipe.base, ready=False, datasets_dir=datasets_dir)
    check_fits(recipe, spec)
    return spec.make(recipe)


def _recipe(
    variant: Variant, device: str, dtype: str, cache_dir: Path, progress: Callable[[str], None]
) -> Recipe:
    base = Source(variant.model, variant.revision)
    resolved = schemes.resolve(variant)
    for source in (base, resolved.source):
        if source is not None:
            refuse_revision(source)
    if variant.model == DEMO:
        base = Source(str(prepare_demo(cache_dir, progress)))
    device = resolve_device(device)
    store, compute = _dtypes(variant.scheme.kind, dtype, device)
    return Recipe(
        model=variant.model,
        source=resolved.source or base,
        base=base,
        ready=resolved.source is not None,
        options=schemes.complete(variant.scheme),
        store=store,
        compute=compute,
        device=device,
        cache_dir=cache_dir,
        progress=progress,
        notes=[resolved.sentence] if resolved.sentence else [],
    )


def resolve_device(asked: str) -> str:
    """A torch device name; auto is the first GPU if there is one. Raises QevalError where it is absent."""
    if asked == "cpu":
        return asked
    import torch

    if asked == "auto":
        return (
            "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise QevalError(
            f"There is no device {asked!r} here.", "Use auto or cpu; qeval doctor shows what there is."
        ) from error
    return "cuda:0" if asked == "cuda" else asked


def _dtypes(kind: str, asked: str, device: str) -> tuple[str, str]:
    """What plain weights are rounded to, and what is calculated in."""
    if asked not in DTYPE_NAMES:
        raise UsageError(f"There is no dtype {asked!r}.", f"Use one of: {', '.join(DTYPE_NAMES)}.")
    wanted = DTYPE_NAMES[asked]
    store = DTYPES.get(kind) or (schemes.SCHEMES[kind].half if wanted == "auto" else wanted)
    if wanted != "auto":
        return store, wanted
    return store, "float32" if device == "cpu" else store


def _check_device(recipe: Recipe, spec: SchemeSpec, scheme: Scheme) -> None:
    """Refuse a device that the scheme, or an option of it, has no kernels for, before weights are read."""
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
        "Run it where there is one (qeval doctor shows which schemes run here)"
        f"{schemes.unpacking(scheme) or '.'}",
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


def _check_checkpoint(recipe: Recipe, spec: SchemeSpec) -> None:
    """Refuse a checkpoint of another scheme before its weights are read."""
    config = read_config(recipe.source)
    found = config.get("quantization_config") or {}
    if not found and config.get("quip_params"):  # QuIP#'s authors write no quantization_config
        found = {"quant_method": "quip"}
    if recipe.ready and not found:
        found = read_json(recipe.source, "quantize_config.json") or {}
        found = {"quant_method": "gptq", **found} if found else {}
    method = _method(found)
    name = recipe.source.path
    if recipe.ready and method not in spec.methods:
        what = f"quantised by {method}" if method else "not quantised"
        raise QevalError(
            f"{name} is {what}, so it is no checkpoint of {spec.name}.", _other_scheme(method, name)
        )
    if not recipe.ready and method:
        raise QevalError(
            f"{name} is quantised already ({method}), so {spec.name} cannot be made of it.",
            f"Give the unquantised model to --model, and this one as a scheme. {_other_scheme(method, name)}",
        )


def _method(config: dict[str, Any]) -> str:
    method = str(config.get("quant_method") or "")
    if config.get("load_in_4bit"):
        return "bitsandbytes_4bit"
    if config.get("load_in_8bit"):
        return "bitsandbytes_8bit"
    return method


def _other_scheme(method: str, name: str) -> str:
    fitting = [spec.name for spec in schemes.SCHEMES.values() if method and method in spec.methods]
    return f"Write: {fitting[0]}@{name}" if fitting else "Check the name of the checkpoint."


def _tokenizer(recipe: Recipe) -> tuple[Any, list[str]]:
    """The base model's tokenizer, with a padding token, and what was done to it."""
    from transformers import AutoTokenizer

    from qeval.load.reading.opening import explain

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            recipe.base.place,
            revision=recipe.base.revision or "main",
            trust_remote_code=recipe.trust_remote_code,
        )
    except Exception as error:
        if recipe.base.local and locate(recipe.base, "tokenizer.json") is None:
            raise QevalError(
                f"{recipe.base.path} holds no tokenizer that can be read.",
                "Save the model's tokenizer beside it: tokenizer.save_pretrained(directory).",
            ) from error
        raise explain(error, recipe) from error
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise QevalError(
            f"The tokenizer of {recipe.base.path} has neither a beginning-of-text nor an end-of-text token.",
            "Set one in its tokenizer_config.json; a text cannot be scored from its first token without.",
        )
    notes = []
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
        notes.append(f"The tokenizer has no padding token; {tokenizer.pad_token!r} stands in for it.")
    if tokenizer.bos_token_id is None:
        notes.append(f"The tokenizer has no beginning-of-text token; {tokenizer.eos_token!r} stands in.")
    return tokenizer, notes


def _check_vocabulary(model: Any, tokenizer: Any, recipe: Recipe) -> None:
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:
        raise QevalError(
            f"{recipe.source.path} has embeddings for {rows} tokens, and the tokenizer of"
            f" {recipe.base.path} has {len(tokenizer)}.",
            "The checkpoint belongs to another model than --model names.",
        )


def _provenance(variant: Variant, recipe: Recipe, spec: SchemeSpec, model: Any) -> Provenance:
    from qeval.load.reading import proof

    modules = proof.quantised_modules(model)
    weights = _identity_of_weights(recipe)
    found = Provenance(
        model=recipe.source.path if recipe.ready else variant.model,
        revision=weights.get("commit") or weights.get("package"),
        fingerprint=weights.get("files"),
        architecture=type(model).__name__,
        dtype=recipe.store
        if recipe.store == recipe.compute
        else f"{recipe.store} weights, {recipe.compute} compute",
        quantization=proof.quantization_of(model, modules),
        modules=proof.class_counts(modules),
        linears=proof.linear_count(model),
        bits_per_weight=proof.bits_per_weight(modules),
        weight_bytes=proof.weight_bytes(model, recipe.store),
        device=device_name(recipe.device),
        versions=versions(*(package.distribution for package in spec.packages), "lm_eval"),
    )
    found = replace(found, **recipe.evidence)
    _check_quantised(variant, spec, found, recipe)
    return replace(found, notes=(*recipe.notes, *_notes(variant, recipe, found)))


def _notes(variant: Variant, recipe: Recipe, found: Provenance) -> Iterator[str]:
    if variant.model == DEMO:
        yield DEMO_NOTE
    if "compute" in found.dtype and recipe.device == "cpu":
        yield CPU_NOTE.format(store=recipe.store)


def _check_quantised(variant: Variant, spec: SchemeSpec, found: Provenance, recipe: Recipe) -> None:
    """Refuse a model that is not what was asked: nothing quantised, or other settings than the user wrote."""
    if spec.quantised and not found.modules:
        raise QevalError(
            f"{variant.name} was asked for, but no module of {recipe.source.path} came out quantised.",
            "Its layers may all be excluded, or of a kind that the library does not know.",
        )
    _check_options(variant.scheme, spec, found.quantization, recipe)


def _identity_of_weights(recipe: Recipe) -> dict[str, Any]:
    if recipe.ready:
        return model_identity(recipe.source.path, recipe.source.revision, recipe.cache_dir)
    return model_identity(recipe.model, recipe.base.revision, recipe.cache_dir)


def _check_options(scheme: Scheme, spec: SchemeSpec, quantization: dict[str, Any], recipe: Recipe) -> None:
    """Refuse a model whose own configuration contradicts an option that the user wrote."""
    for option, key in spec.config_keys.items():
        asked, found = scheme.options.get(option), quantization.get(key)
        if asked is None or (option, asked) == ("group_size", 0):  # 0: the one that fits
            continue
        if found != asked:
            told = f"does not tell its {key}" if found is None else f"has {key} {str(found).lower()}"
            raise QevalError(
                f"{recipe.source.path} {told}, where {option}={str(asked).lower()} was asked.",
                f"Leave out {option}, or name another checkpoint or revision.",
            )


def device_name(device: str) -> str:
    """What a device is, in words a reader of a report knows."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    if device != "cpu":
        return device
    return f"CPU: {_cpu_name()}"


def _cpu_name() -> str:
    import os
    import platform

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    found = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{found}, {os.cpu_count()} cores"
