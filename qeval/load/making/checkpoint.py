"""Making a checkpoint here out of calibration text and keeping it: what gptq and awq share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qeval.base import uses
from qeval.base.errors import QevalError
from qeval.base.files import build_directory
from qeval.base.hashing import digest
from qeval.base.places import CHECKPOINTS
from qeval.load.device import device_kind, threads
from qeval.load.making import calibration
from qeval.load.making.card import write_card
from qeval.load.reading.layers import divisor
from qeval.load.reading.opening import compute_in, open_model
from qeval.load.reading.skipping import left_out, skipped
from qeval.load.source import model_identity
from qeval.load.spec import OptionSpec, Recipe, SchemeSpec
from qeval.load.versions import versions

MADE_NOTE = (
    "It was quantised on {where}; elsewhere sums are rounded differently, so that the same command makes"
    " another checkpoint, whose numbers differ by chance; --repeat-quantisation tells by how much."
)
OPTIONS = (
    OptionSpec("calibration", str, "auto", "c4, wikitext2, own (comes with qeval) or a text file"),
    OptionSpec("samples", int, 0, "calibration samples; 0 for 128 of a set, 16 of our own text", low=0),
    OptionSpec("length", int, 0, "tokens of a sample; 0 for 2048 of a set, 256 of our own text", low=0),
    OptionSpec("seed", int, 0, "seed of the draw of samples; 0 cuts a text in its order", low=0),
)
"""What every scheme that calibrates here can be told about the text."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What a checkpoint is made of: the plain model in the compute type, its tokenizer, the calibration
    tokens (samples, length), and a directory in which finished blocks wait."""

    model: Any
    tokenizer: Any
    windows: list[list[int]]
    work: Path


Build = Callable[[Materials, Path], Mapping[str, Any]]
"""Quantises the materials, writes the checkpoint into a directory and returns the plan, for the card."""


def calibration_of(model: str, options: Mapping[str, Any]) -> calibration.Calibration:
    """The calibration that the (complete) options ask for."""
    return calibration.complete(
        str(options["calibration"]),
        int(options["samples"]),
        int(options["length"]),
        int(options["seed"]),
        demo=model == "demo",
    )


def checkpoint(recipe: Recipe, spec: SchemeSpec, method: int, libraries: Iterable[str], build: Build) -> Path:
    """The directory of the checkpoint that the recipe describes, made at the first call and cached.

    `method` is raised when our own code changes what it makes; `libraries` are the distributions that can.
    A killed call goes on after the last block it finished. Raises QevalError for calibration text that
    cannot be had or is longer than the model takes, for a word of skip_modules that names no layer, for a
    full disk, and what `build` raises.
    """
    skipped(recipe)
    made_of = _ingredients(recipe, spec, method, libraries)
    recipe.notes.append(MADE_NOTE.format(where=where(made_of)))
    name = digest(made_of, spaced=True)[:16]
    slug = "".join(char if char.isalnum() else "-" for char in Path(recipe.model).name.lower())
    target = recipe.cache_dir / CHECKPOINTS / f"{slug}-{spec.name}-{name}"
    uses.hold(target)
    if target.is_dir():
        recipe.progress(f"{spec.name}: taking the checkpoint that was quantised earlier")
        return target
    placed = _placed(recipe, spec)
    tokens = _windows(recipe)  # first: what cannot be had is said before a model is loaded
    recipe.progress(f"{spec.name}: no checkpoint yet, quantising")

    def make(partial: Path) -> None:
        work = _make(placed, spec.name, made_of, build, tokens, partial)
        shutil.rmtree(work, ignore_errors=True)
        if digest(_ingredients(recipe, spec, method, libraries)) != digest(made_of):
            raise QevalError(
                f"The files of {recipe.model} or its calibration text changed while it was quantised: the"
                " checkpoint is not kept.",
                "Run the same command again when they are complete.",
            )

    return build_directory(target, make)


def _placed(recipe: Recipe, spec: SchemeSpec) -> Recipe:
    """The recipe for where there is room, which is said where it is not the device alone."""
    from qeval.load.making import room

    placed = room.placed(recipe, spec, calibration_of(recipe.model, recipe.options))
    if placed.streamed:
        recipe.notes.append(room.BESIDE.format(device=recipe.device))
        recipe.progress(f"{spec.name}: {room.BESIDE.format(device=recipe.device)}")
    return placed


def where(made_of: Mapping[str, Any]) -> str:
    """The device that a checkpoint was made on, in words."""
    count = made_of["threads"]
    told = f" with {count} thread{'s' if count > 1 else ''}" if count else ""
    return f"{made_of['device']}{told}"


def _ingredients(recipe: Recipe, spec: SchemeSpec, method: int, libraries: Iterable[str]) -> dict[str, Any]:
    """Everything that can change the checkpoint. The device and the threads of a CPU can, since activations
    in float32 are rounded by the order of sums, and a solver turns a last digit into another code."""
    return {
        "method": method,
        "model": model_identity(recipe.model, recipe.base.revision, recipe.cache_dir),
        "options": spec.shaping(recipe.options),
        "calibration": calibration.identity(
            calibration_of(recipe.model, recipe.options), recipe.datasets_dir, recipe.cache_dir
        ),
        "compute": recipe.compute,
        "device": device_kind(recipe.device),
        "threads": threads(recipe.device),
        "versions": versions(*libraries),
    }


def _windows(recipe: Recipe) -> tuple[Any, list[list[int]]]:
    """The model's tokenizer, and the calibration text in its tokens."""
    from transformers import AutoTokenizer

    base = recipe.base
    tokenizer = AutoTokenizer.from_pretrained(base.place, revision=base.revision or "main")
    chosen = calibration_of(recipe.model, recipe.options)
    return tokenizer, calibration.windows(chosen, tokenizer, recipe.datasets_dir)


def _make(
    recipe: Recipe,
    scheme: str,
    made_of: dict[str, Any],
    build: Build,
    tokens: tuple[Any, list[list[int]]],
    target: Path,
) -> Path:
    """Make a checkpoint in `target`; returns the directory in which its finished blocks lay."""
    found = _materials(replace(recipe, source=recipe.base), tokens, _work_dir(target))
    plan = build(found, target)
    told = {**made_of, "plan": plan, "samples": len(found.windows)}
    chosen = calibration_of(recipe.model, recipe.options)
    write_card(target, recipe.model, scheme, told, where(made_of), chosen)
    return found.work


def _materials(base: Recipe, tokens: tuple[Any, list[list[int]]], work: Path) -> Materials:
    from qeval.load.making import room

    model = compute_in(open_model(base, attn_implementation="sdpa"), base.compute)
    if base.streamed:
        room.beside(model, base.device)
    _check_length(model, calibration_of(base.model, base.options))
    return Materials(model, *tokens, work)


def _work_dir(target: Path) -> Path:
    """Where finished blocks wait: beside the checkpoint, under a name that a later process finds again."""
    name = target.name.split(".partial-")[0].lstrip(".")
    work = target.parent / f".{name}.blocks"
    work.mkdir(exist_ok=True)
    return work


def _check_length(model: Any, chosen: calibration.Calibration) -> None:
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and chosen.length > longest:
        raise QevalError(
            f"Calibration samples of {chosen.length} tokens are longer than the model accepts ({longest}).",
            f"Use length={longest}.",
        )


def group_size(model: Any, asked: int, plain: Collection[str] = ()) -> int:
    """The group size asked for; for 0 the largest power of two up to 128 that divides every layer but those
    that are left `plain`."""
    from qeval.load.making import walk

    layers = walk.every_linear(model)
    return asked or min(divisor(layer.in_features) for name, layer in layers.items() if name not in plain)


def left_plain(recipe: Recipe, model: Any) -> frozenset[str]:
    """The names of the layers that skip_modules leaves plain. Raises QevalError where none is left over."""
    from qeval.load.making import walk

    return left_out(recipe, walk.every_linear(model))


def told(plan: Any) -> dict[str, Any]:
    """A plan for the card; the layers that it leaves plain stand there only where there are some."""
    found = asdict(plan)
    plain = sorted(found.pop("plain"))
    return {**found, "plain": plain} if plain else found
