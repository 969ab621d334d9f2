"""quanto: optimum-quanto, weights only, quantised while loading, or a ready checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from qeval.load.packages import ACCELERATE
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import quantising
from qeval.load.reading.skipping import LATE_SKIP, skipped
from qeval.load.spec import OptionSpec, Package, Recipe, SchemeSpec

DOC = """\
quanto's `int4` ended in an illegal memory access of its own kernel on an H100. On a CPU its layers are
unpacked in Python; quanto's code in C++, which it compiles at the first product, gives the same integers.
"""


def config(recipe: Recipe) -> Any:
    """optimum-quanto's configuration."""
    from transformers import QuantoConfig

    return QuantoConfig(weights=recipe.options["weights"], modules_to_not_convert=skipped(recipe))


def layer(plain: Any, chosen: Any) -> Any:
    """The linear layer as quanto's own."""
    from optimum import quanto

    kinds = {"int8": quanto.qint8, "int4": quanto.qint4, "int2": quanto.qint2, "float8": quanto.qfloat8}
    made = quanto.QLinear.from_module(plain, weights=kinds[chosen.weights])
    made.freeze()
    return made


def load(recipe: Recipe) -> Any:
    """Quanto's layers, none of which builds anything on a CPU."""
    _unpack_in_python()
    return quantising(config, "quanto", layer)(recipe)


def _unpack_in_python() -> None:
    """Let quanto take our own unpacking for its extension in C++."""
    from optimum.quanto.library.extensions import get_extension

    get_extension("quanto_cpp")._lib = SimpleNamespace(unpack=_unpacked)  # noqa: SLF001 - there is no setting


def _unpacked(packed: Any, bits: int) -> Any:
    """The codes of `bits` in each byte, all the lowest ones first."""
    import torch

    return torch.cat([(packed >> low) & (2**bits - 1) for low in range(0, 8, bits)])


SPECS = (
    SchemeSpec(
        "quanto",
        "optimum-quanto, weights only",
        load,
        (
            OptionSpec("weights", str, "int8", "their type", choices=("int8", "int4", "int2", "float8")),
            LATE_SKIP,
            ATTENTION,
        ),
        (Package("optimum-quanto", "optimum.quanto", "0.2.6"), ACCELERATE),
        "quanto",
        DOC,
        place=70,
        weight_bits=9,
        checkpoint="optional",
        methods=("quanto",),
        config_keys={"weights": "weights"},
    ),
)
