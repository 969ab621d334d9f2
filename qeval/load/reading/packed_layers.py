"""The layers that a GPTQ checkpoint truly packs, as its files tell: their bits, groups, and zero points.

The label of such a checkpoint may lie in two ways: it may name one form for all layers where some have
another or none, and it may name the wrong one of two ways to store zero points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qeval.load.reading.headers import Stored, Tensors, holds_safetensors
from qeval.load.source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Format = Literal["gptq", "gptq_v2"]
"""How zero points are stored: less one, as auto-gptq did, or as they are."""
_LAYERS, _OUTPUTS = 8, 512
"""How many layers, and how many outputs of each, are looked at."""
_NEAR = 0.25


@dataclass(frozen=True)
class Layer:
    """One packed layer: `group` inputs share a scale."""

    bits: int
    group: int
    inputs: int


def packed_layers(source: Source) -> dict[str, Layer]:
    """Every layer that the safetensors files pack, by name; empty where there are no such files."""
    if not holds_safetensors(source):
        return {}
    with ExitStack() as stack:
        tensors = Tensors(source, stack)
        names = [name.removesuffix(".qweight") for name in tensors.files if name.endswith(".qweight")]
        wanted = ("qweight", "scales", "qzeros", "g_idx")
        return {
            name: _layer(
                {
                    part: tensors.stored(f"{name}.{part}")
                    for part in wanted
                    if f"{name}.{part}" in tensors.files
                }
            )
            for name in names
        }


def _layer(parts: Mapping[str, Stored]) -> Layer:
    """Bits are told by the zero points, which hold one code for each scale."""
    groups, outputs = parts["scales"].shape
    bits = parts["qzeros"].shape[1] * parts["qzeros"].width // outputs
    inputs = parts["qweight"].shape[0] * parts["qweight"].width // bits
    return Layer(bits, -(-inputs // groups), inputs)


def forms(layers: Mapping[str, Layer]) -> Counter[tuple[int, int]]:
    """How many layers there are of each form: bits, and inputs that share a scale, -1 for all of a layer."""
    return Counter(
        (layer.bits, -1 if layer.group == layer.inputs else layer.group) for layer in layers.values()
    )


def zero_points(source: Source, layers: Mapping[str, Layer]) -> Format | None:
    """How a checkpoint stores its zero points, by its numbers; None where they do not tell.

    Symmetric weights have the middle of the range as zero point, which settles it. Else the mean weight of
    a group is about 0, so that its mean code is about its zero point: the median over groups of their
    difference is 0, or 1 where zero points are stored less one.
    """
    import numpy as np

    names = sorted(layers)
    with ExitStack() as stack:
        tensors = Tensors(source, stack)
        found = [
            _off(lambda part, name=name: tensors.read(f"{name}.{part}"), layers[name])  # type: ignore[misc]
            for name in names[:: -(-len(names) // _LAYERS)]
            if f"{name}.g_idx" in tensors.files or layers[name].inputs % layers[name].group == 0
        ]
    return _decide(np.concatenate(found)) if found else None


def _decide(off: NDArray[np.float32]) -> Format | None:
    import numpy as np

    middle = float(np.median(off))
    if abs(middle) <= _NEAR:
        return "gptq_v2"
    return "gptq" if abs(middle - 1) <= _NEAR else None


def _off(read: Callable[[str], Any], layer: Layer) -> NDArray[np.float32]:
    """Mean code less stored zero point, for each group and output; of symmetric layers what settles it."""
    import numpy as np

    words = read("qzeros").numpy()
    zeros = _unpack(words[:, : _OUTPUTS * layer.bits // (8 * words.itemsize)], layer.bits)
    middle = 2 ** (layer.bits - 1)
    for stored, off in ((middle, 0), (middle - 1, 1)):
        if (zeros == stored).all():
            return np.full(zeros.size, off, np.float32)
    codes = _unpack(np.ascontiguousarray(read("qweight").numpy()[:, : zeros.shape[1]].T), layer.bits)
    order = _groups(read, layer)
    sums = np.zeros((len(zeros), zeros.shape[1]), np.float32)
    np.add.at(sums, order, codes.T.astype(np.float32))
    counts = np.bincount(order, minlength=len(zeros))[:, None]
    return np.asarray(sums / np.maximum(counts, 1) - zeros, np.float32).ravel()


def _groups(read: Callable[[str], Any], layer: Layer) -> NDArray[np.int64]:
    """The group of each input."""
    import numpy as np

    if layer.inputs == layer.group:
        return np.zeros(layer.inputs, np.int64)
    try:
        return np.asarray(read("g_idx").numpy(), np.int64)
    except KeyError:
        return np.arange(layer.inputs) // layer.group


def _unpack(words: NDArray[np.int32], bits: int) -> NDArray[np.int64]:
    """The codes in rows of words, one after the other from the lowest bit."""
    import numpy as np

    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    weights = 1 << np.arange(bits)
    return np.asarray(stream.reshape(len(words), -1, bits) @ weights, np.int64)
