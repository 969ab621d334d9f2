"""What the schemes share that read ready checkpoints or quantise through transformers' own quantizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading import experts
from qeval.load.reading.headers import Stored, bits_per_weight, owner_of, stored_tensors
from qeval.load.reading.opening import compute_in, open_in_compute
from qeval.load.reading.skipping import kept_plain
from qeval.load.source import read_config
from qeval.load.spec import OptionSpec, Recipe

Load = Callable[[Recipe], Any]
UNPACK = OptionSpec(
    "unpack", bool, False, "hold a ready checkpoint in plain weights, for any device", acts="reading"
)
UNPACKED = "{name} is unpacked into plain weights{why}: its quality, not its speed or its memory."


def load_ready(recipe: Recipe) -> Any:
    """A ready checkpoint, which says itself how it is to be read."""
    return open_in_compute(recipe)


def quantising(
    config: Callable[[Recipe], Any], library: str = "", layer: Callable[[Any, Any], Any] | None = None
) -> Load:
    """A loader that quantises while loading, as `config` says; a ready checkpoint keeps its own settings.

    transformers lets most libraries take linear layers only. `layer`, where there is one, makes a layer of
    the `library` out of a plain one and the configuration, for each expert of a mixture.
    """

    def load(recipe: Recipe) -> Any:
        if recipe.ready:
            return load_ready(recipe)
        chosen = config(recipe)
        model = open_in_compute(recipe, quantization_config=chosen)
        if layer is not None:
            stays = partial(kept_plain, recipe)
            notes = experts.pack(model, library, lambda _, plain: layer(plain, chosen), _unpacked, stays)
            recipe.notes.extend(notes)
        return model

    return load


def or_unpacked(load: Load, unpacked: Load) -> Load:
    """The loader of a scheme with the option `unpack`."""
    return lambda recipe: (unpacked if recipe.options["unpack"] else load)(recipe)


def _unpacked(layer: Any) -> Any:
    return layer.weight.dequantize()


def quantization_config(recipe: Recipe) -> dict[str, Any]:
    """The checkpoint's own settings, from its config.json."""
    return dict(read_config(recipe.source).get("quantization_config") or {})


def unpack(recipe: Recipe, config: Any, dtype: str, forms: Mapping[str, str] | None = None) -> Any:
    """The model in plain weights of the compute type; what is quantised is told by its files.

    `config` is transformers' that unpacks, `dtype` how the types of packed matrices begin in the files;
    `forms` say what such a type is, where its name does not. Raises QevalError where no matrix is packed.
    """
    tensors = stored_tensors(recipe.source)
    packed = _packed(tensors, dtype, forms or {})
    if not packed:
        raise QevalError(
            f"{recipe.source.path} holds no packed weights in safetensors files.",
            "Check that the directory holds the quantised checkpoint, not the model it was made of.",
        )
    quantization = quantization_config(recipe)
    model = compute_in(open_in_compute(recipe, quantization_config=config), recipe.compute)
    weights = {name: int(_parameter(model, name).numel()) for name in packed}
    tell_share(recipe, model, sum(weights.values()))
    recipe.evidence.update(
        modules=dict(Counter(packed.values())),
        bits_per_weight=bits_per_weight(tensors, weights),
        quantization={**quantization, "dequantized": True},
    )
    recipe.notes.append(UNPACKED.format(name=recipe.source.path, why=""))
    return model


def tell_share(recipe: Recipe, model: Any, packed: int) -> None:
    """The share of a model's weights that its files pack, where it holds them in plain numbers."""
    from qeval.load.reading import proof

    counted = proof.count_weights(model, {})
    if counted is not None and counted.body:
        recipe.evidence["quantised_share"] = min(1.0, packed / counted.body)


def _packed(tensors: dict[str, Stored], dtype: str, forms: Mapping[str, str]) -> dict[str, str]:
    """The layers, or parameters, that own a packed matrix, with what it is."""
    ends = ("weight", "_blocks", "weight_packed")
    return {
        owner_of(name): forms.get(stored.dtype, stored.dtype)
        for name, stored in tensors.items()
        if stored.dtype.startswith(dtype) and len(stored.shape) > 1 and name.endswith(ends)
    }


def _parameter(model: Any, name: str) -> Any:
    """The weight of a layer, or the parameter itself."""
    parameters = dict(model.named_parameters())
    return parameters[name] if name in parameters else parameters[f"{name}.weight"]


def tell_bits(recipe: Recipe, model: Any) -> None:
    """Bits per weight from the files, whose scales and codebooks a library may hold in another type."""
    from qeval.load.reading import proof

    found = {name: proof.weights_of(module) for name, module in proof.quantised_modules(model).items()}
    weights = {name: count for name, count in found.items() if count is not None}
    if len(weights) == len(found):
        bits = bits_per_weight(stored_tensors(recipe.source), weights)
        if bits is not None:
            recipe.evidence["bits_per_weight"] = bits
