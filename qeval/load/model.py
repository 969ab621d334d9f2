"""From a Variant to a loaded model, its tokenizer, and a truthful account of what was loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError, UsageError
from qeval.base.listening import KEYS, listening
from qeval.base.names import scheme_text
from qeval.base.records import Provenance, Scheme, Variant
from qeval.load import adapter, decoding
from qeval.load.checks import check_available, check_checkpoint, check_device
from qeval.load.demo import prepare as prepare_demo
from qeval.load.device import resolve_device, resolve_dtypes
from qeval.load.memory import check_fits, forget_peak
from qeval.load.provenance import provenance
from qeval.load.reading.failures import explain, forget_imports
from qeval.load.resolve import Meant, resolve
from qeval.load.schemes import SCHEMES
from qeval.load.source import DEMO, Source, check_documents, locate
from qeval.load.spec import Progress, Recipe, say_nothing


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
    allow_unused: tuple[str, ...] = (),
    fast: bool = False,
    cache_dir: Path,
    datasets_dir: Path | None = None,
    streamed: bool = False,
    progress: Progress = say_nothing,
) -> Loaded:
    """Load a variant and prove that it is what was asked.

    `dtype` is what is calculated in; auto is the scheme's own, and float32 on a CPU. `fast` asks for the
    library's own kernels, else layers are those that run everywhere. A `streamed` model is left in host
    memory, where nothing can be calculated with it yet. What libraries warn of and changes what is loaded
    stands in the notes. Raises QevalError where the model, its packages or the memory are missing, where the
    checkpoint is of another scheme, and where nothing came out quantised.
    """
    check_available(variant.scheme)
    meant = resolve(variant)
    recipe = recipe_of(variant, meant, device, dtype, cache_dir, progress)
    recipe = replace(
        recipe,
        trust_remote_code=trust_remote_code,
        allow_unused=allow_unused,
        datasets_dir=datasets_dir,
        streamed=streamed,
        fast=fast,
    )
    with listening() as heard:
        loaded = _loaded(variant, meant, recipe)
    heard.forget(KEYS)  # `reading.unused` and `adapter` have named these tensors, or refused them
    heard.told(loaded.provenance.notes)
    notes = (*loaded.provenance.notes, *heard.drain())
    return replace(loaded, provenance=replace(loaded.provenance, notes=notes))


def _loaded(variant: Variant, meant: Meant, recipe: Recipe) -> Loaded:
    spec = SCHEMES[variant.scheme.kind]
    for source in {recipe.base, recipe.source}:
        check_documents(source)
    check_device(recipe, spec, variant.scheme)
    check_checkpoint(recipe, spec)
    if variant.adapter is not None:
        adapter.check(variant.adapter, spec, recipe.options)
        adapter.check_kind(variant.adapter)
    if spec.make is None or recipe.ready:  # making one looks for room by itself
        check_fits(recipe, spec)
    tokenizer, notes = _tokenizer_of(variant, recipe.base, recipe.trust_remote_code)
    if spec.make is not None and not recipe.ready:
        made = spec.make(replace(recipe, streamed=False))
        recipe = replace(recipe, made=Source(str(made)))  # so that its loading is what is timed
        forget_peak(recipe.device)
    start = time.perf_counter()
    model = spec.load(recipe)
    forget_imports("gptqmodel")
    if variant.adapter is not None:
        model = adapter.attach(model, variant.adapter, recipe)
    seconds = time.perf_counter() - start
    decoding.settle(model, recipe)
    notes += _fitted(tokenizer, model, recipe)
    found = provenance(variant, meant, recipe, spec, model)
    return Loaded(model, tokenizer, replace(found, notes=(*found.notes, *notes)), seconds)


def load_tokenizer(variant: Variant, *, cache_dir: Path, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """The tokenizer and the configuration, as transformers' objects, of the unquantised model.

    All variants of a model are asked in the same tokens, so a checkpoint's own tokenizer is not used; that of
    an adapter, which all variants have, is where it adds tokens.
    """
    from transformers import AutoConfig

    base = _base(resolve(variant), cache_dir, say_nothing)
    check_documents(base)
    tokenizer, _ = _tokenizer_of(variant, base, trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(
            base.place, revision=base.revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise explain(error, base, "cpu") from error
    return tokenizer, config


def make_checkpoint(
    model: str,
    scheme: Scheme,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: Path,
    datasets_dir: Path | None = None,
    progress: Progress = say_nothing,
) -> Path:
    """Quantise a model and return the directory of the checkpoint, the one that `load` reads.

    Raises UsageError for a scheme that quantises while loading or a checkpoint that is ready already.
    """
    spec = SCHEMES[scheme.kind]
    if spec.make is None or scheme.checkpoint is not None:
        able = ", ".join(name for name, other in SCHEMES.items() if other.make is not None)
        raise UsageError(f"{scheme_text(scheme)} makes no checkpoint.", f"These do: {able}.")
    check_available(scheme)
    variant = Variant(scheme.kind, model, scheme, revision)
    meant = replace(resolve(variant), ready=None)  # a published one is read by `load`; here one is made
    recipe = recipe_of(variant, meant, device, dtype, cache_dir, progress)
    return spec.make(replace(recipe, datasets_dir=datasets_dir))


def recipe_of(
    variant: Variant, meant: Meant, device: str, dtype: str, cache_dir: Path, progress: Progress
) -> Recipe:
    """What the scheme's loader is told. Raises QevalError for a device or type that is not there."""
    spec = SCHEMES[variant.scheme.kind]
    base = _base(meant, cache_dir, progress)
    device = resolve_device(device)
    store, compute = resolve_dtypes(spec, dtype, device)
    return Recipe(
        model=variant.model,
        source=meant.ready or base,
        base=base,
        ready=meant.ready is not None,
        options=spec.complete(variant.scheme.options),
        store=store,
        compute=compute,
        device=device,
        cache_dir=cache_dir,
        progress=progress,
        notes=[meant.sentence] if meant.sentence else [],
    )


def base_of(variant: Variant, cache_dir: Path) -> Source:
    """Where the files of a variant's unquantised model are."""
    return _base(resolve(variant), cache_dir, say_nothing)


def read_from(variant: Variant, cache_dir: Path) -> Source:
    """Where the files are that a variant is read, or quantised, from."""
    return resolve(variant).ready or base_of(variant, cache_dir)


def _base(meant: Meant, cache_dir: Path, progress: Progress) -> Source:
    """Where the unquantised model's files are; those of `demo` are made at the first call."""
    return Source(str(prepare_demo(cache_dir, progress))) if meant.model.path == DEMO else meant.model


def _tokenizer_of(variant: Variant, base: Source, trust_remote_code: bool) -> tuple[Any, list[str]]:
    """The tokenizer that the variant is asked with, and what a reader must know of it."""
    tokenizer, notes = _tokenizer(base, trust_remote_code)
    place = adapter.tokenizer_source(variant.adapter)
    if place is None:
        return tokenizer, notes
    theirs, more = _tokenizer(place, trust_remote_code)
    if not theirs.get_vocab().items() > tokenizer.get_vocab().items():
        return tokenizer, notes
    added = len(theirs) - len(tokenizer)
    return theirs, [*more, f"The tokenizer is that of {place.path}, which adds {added} tokens."]


def _tokenizer(base: Source, trust_remote_code: bool) -> tuple[Any, list[str]]:
    """The model's tokenizer, with a padding token, and what was done to it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base.place, revision=base.revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception as error:
        if base.local and locate(base, "tokenizer.json") is None:
            raise QevalError(
                f"{base.path} holds no tokenizer that can be read.",
                "Save the model's tokenizer beside it: tokenizer.save_pretrained(directory).",
            ) from error
        raise explain(error, base, "cpu") from error
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise QevalError(
            f"The tokenizer of {base.path} has neither a beginning-of-text nor an end-of-text token.",
            "Set one in its tokenizer_config.json; a text cannot be scored from its first token without.",
        )
    return tokenizer, _completed(tokenizer)


def _completed(tokenizer: Any) -> list[str]:
    """Give the tokenizer a padding token where it has none; what stands in for what, in sentences."""
    notes = []
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
        notes.append(f"The tokenizer has no padding token; {tokenizer.pad_token!r} stands in for it.")
    if tokenizer.bos_token_id is None:
        notes.append(f"The tokenizer has no beginning-of-text token; {tokenizer.eos_token!r} stands in.")
    return notes


def _fitted(tokenizer: Any, model: Any, recipe: Recipe) -> list[str]:
    """Replace a padding token that the model has no row for; what a tokenizer that is too long means, in
    sentences. Whether a question holds such a token is asked where the questions are known."""
    rows = token_rows(model)
    if len(tokenizer) <= rows:
        return []
    held = f"{recipe.source.path} has embeddings for {rows} tokens, and its tokenizer counts {len(tokenizer)}"
    notes = [f"{held}; a question that holds one of the others is refused."]
    if tokenizer.pad_token_id >= rows:
        notes.append(f"The padding token {tokenizer.pad_token!r} is one of them; its end-of-text stands in.")
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    return notes


def token_rows(model: Any) -> int:
    """How many tokens a model can read and answer: the rows of its embeddings and of its head."""
    head = getattr(model.get_output_embeddings(), "out_features", None)
    rows = int(model.get_input_embeddings().weight.shape[0])
    return min(rows, head) if isinstance(head, int) else rows
